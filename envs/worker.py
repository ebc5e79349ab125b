"""A worker process of `envs.workers.WorkerVectorEnv`, and the channel between it and the process that acts.

A worker is a fresh interpreter that runs `main`: it shares nothing with its parent but a socket, which is its standard
input, and the memory whose file comes over it. It ends when the socket does, however its parent went.
"""

import contextlib
import math
import mmap
import os
import pickle
import signal
import socket
import struct
import traceback
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from envs.buffers import Nested, StepBuffers, allocate_batch, copy_batch, rows_of
from envs.errors import RllabError
from envs.rows import Constructor, Extras, Rows

# Each message is one byte; all but those for the steps and their usual answer are followed by a length and a pickle.
STEP_INTO = (b"0", b"1")
DONE, ANSWER, FAILURE, REQUEST = b".", b"+", b"!", b"?"
_BARE = {*STEP_INTO, DONE}

_ALIGNMENT = 64
"""Bytes, a cache line: two workers never write to one through different arrays."""


class ClosedError(Exception):
    """The process at the other end is gone."""


class Channel:
    """One end of the socket."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._file = connected.fileno()

    def send(self, kind: bytes, content: Any = None) -> None:
        """Sends a message; `content` is pickled unless the kind stands by itself.

        Raises:
            ClosedError: nobody is there.
        """
        try:
            if kind in _BARE:
                os.write(self._file, kind)
            else:
                pickled = pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL)
                self.socket.sendall(kind + struct.pack("!Q", len(pickled)) + pickled)
        except (BrokenPipeError, ConnectionResetError):
            raise ClosedError from None

    def receive(self) -> tuple[bytes, Any]:
        """The next message: its kind and content.

        Raises:
            ClosedError: nobody is there.
        """
        try:
            kind = os.read(self._file, 1)
            if kind in _BARE:
                return kind, None
            (length,) = struct.unpack("!Q", self._read(8))
            return kind, pickle.loads(self._read(length))
        except ConnectionResetError:
            raise ClosedError from None

    def _read(self, length: int) -> bytearray:
        content = bytearray(length)
        view = memoryview(content)
        while len(view) > 0:
            received = self.socket.recv_into(view)
            if received == 0:
                raise ClosedError
            view = view[received:]
        return content


@dataclass(frozen=True)
class Share:
    """What a worker is told first."""

    constructors: list[Constructor]
    autoreset_mode: AutoresetMode
    worker: int
    first: int
    """Index of its first environment."""
    num_envs: int
    """Of all workers together."""


class SharedArrays:
    """All that goes between the processes at a step, in memory that all of them map.

    Attributes:
        buffers: two sets of what a step returns, written in turns.
        final_observations: arrays `[N, *obs]`.
        actions: arrays `[N, *act]`.
    """

    def __init__(self, observation_space: Space[Any], action_space: Space[Any], num_envs: int, file: int) -> None:
        """Maps the file, which is made as large as it must be."""
        self._memory: mmap.mmap | None = None
        self._used = 0
        self._lay_out(observation_space, action_space, num_envs)  # to see how large it is
        size = max(self._used, 1)
        if os.fstat(file).st_size < size:
            os.ftruncate(file, size)
        self._memory, self._used = mmap.mmap(file, size), 0
        self._lay_out(observation_space, action_space, num_envs)

    def _lay_out(self, observation_space: Space[Any], action_space: Space[Any], num_envs: int) -> None:
        self.buffers = [StepBuffers(observation_space, num_envs, self._take) for _ in STEP_INTO]
        self.final_observations: Nested = allocate_batch(observation_space, num_envs, self._take)
        self.actions: Nested = allocate_batch(action_space, num_envs, self._take)

    def _take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        begin = -(-self._used // _ALIGNMENT) * _ALIGNMENT
        self._used = begin + math.prod(shape) * dtype.itemsize
        if self._memory is None:
            return np.empty(0, dtype)
        return np.ndarray(shape, dtype, self._memory, begin)


def main() -> None:
    """Works until the socket at standard input closes."""
    # The terminal sends Ctrl-C, and a scheduler its SIGTERM, to every process: when to stop is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connected = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    channel = Channel(connected)
    try:
        _work(channel)
    except ClosedError:
        pass
    except Exception as error:
        sentence = str(error) if isinstance(error, RllabError) else f"{type(error).__name__}: {error}"
        with contextlib.suppress(ClosedError):
            channel.send(FAILURE, (isinstance(error, RllabError), sentence, traceback.format_exc()))


def _work(channel: Channel) -> None:
    share: Share = channel.receive()[1]
    rows = Rows(share.constructors, share.autoreset_mode, share.first, share.worker)
    try:
        env = rows.envs[0]
        channel.send(ANSWER, (rows.observation_space, rows.action_space, env.metadata, env.render_mode))
        _, files, _, _ = socket.recv_fds(channel.socket, 1, 1)
        if not files:
            return
        arrays = SharedArrays(rows.observation_space, rows.action_space, share.num_envs, files[0])
        os.close(files[0])
        begin, end = share.first, share.first + len(rows.envs)
        rows.use([one.rows(begin, end) for one in arrays.buffers], rows_of(arrays.final_observations, begin, end))
        actions = rows_of(arrays.actions, begin, end)
        while True:
            kind, request = channel.receive()
            if kind in STEP_INTO:
                # Copied, since an environment may keep its action while the next one is being written.
                _reply(channel, rows.step(STEP_INTO.index(kind), copy_batch(actions, actions)))
            else:
                name, arguments = request
                result = getattr(rows, name)(*arguments)
                channel.send(ANSWER, result)
    finally:
        rows.close()


def _reply(channel: Channel, extras: Extras) -> None:
    if extras:
        channel.send(ANSWER, extras)
    else:
        channel.send(DONE)
