"""A vector environment whose environments live in worker processes, several in each.

Observations, rewards, flags and actions lie in memory that all processes map, laid out as the batched arrays that the
caller gets, so a step costs each worker one byte each way. The memory's file has no name and the workers end with their
socket: nothing is left behind, however the process ends.
"""

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.buffers import copy_batch, require_arrays
from envs.errors import RllabError
from envs.rows import Constructor, Extras, list_seeds, name_row
from envs.worker import ANSWER, DONE, FAILURE, REQUEST, STEP_INTO, Channel, ClosedError, Share, SharedArrays

PATIENCE = 3.0
"""Seconds that a worker has to close its environments before it is killed."""

_PROGRAM = "import sys; sys.path[:] = {path!r}; from envs.worker import main; main()"


class WorkerVectorEnv(VectorEnv[Any, Any, Any]):
    """N environments in W processes; for the rest as `envs.serial.SerialVectorEnv`, with the same results to the bit.

    Workers are fresh interpreters: they import what makes the environments, and neither torch nor the main script.

    Attributes:
        seeds: what each environment was last seeded with; None: it was not.
    """

    def __init__(
        self,
        constructors: Sequence[Constructor],
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
        workers: int = 0,
    ) -> None:
        """Starts the workers, which make the environments.

        Args:
            constructors: one for each environment; they are pickled.
            autoreset_mode: SAME_STEP or NEXT_STEP, as in `SerialVectorEnv`.
            workers: W; 0: one for each core that this process may use; never more than environments.

        Raises:
            RllabError: an environment cannot be made, cannot be sent to another process, or has spaces that no array
                holds.
        """
        if autoreset_mode not in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
            raise RllabError(f"Environments are reset on the same step or the next, not by {autoreset_mode}.")
        self.num_envs = len(constructors)
        self.seeds: list[int | None] = [None] * self.num_envs
        count = min(workers or available_cores(), self.num_envs)
        self._bounds = [self.num_envs * worker // count for worker in range(count + 1)]
        self._workers: list[_Worker] = []
        self._end = weakref.finalize(self, _end, self._workers)
        self._turn, self._steps = 0, 0
        try:
            self._start(constructors, autoreset_mode)
        except BaseException:
            self.close()
            raise

    def _start(self, constructors: Sequence[Constructor], autoreset_mode: AutoresetMode) -> None:
        for index, (begin, end) in enumerate(self._slices()):
            share = Share(list(constructors[begin:end]), autoreset_mode, index, begin, self.num_envs)
            _require_importable(share)
            self._workers.append(_Worker(index))
            self._send(index, ANSWER, share)
        answers = self._gather()
        observation_space, action_space, metadata, self.render_mode = answers[0]
        if any(answer[:2] != (observation_space, action_space) for answer in answers):
            raise RllabError(f"{constructors[0]} and others make environments with different spaces.")
        require_arrays(observation_space, "observations")
        require_arrays(action_space, "actions")
        self.metadata = {**metadata, "autoreset_mode": autoreset_mode}
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, self.num_envs)
        self.action_space = batch_space(action_space, self.num_envs)
        with _nameless_file() as file:
            self._arrays = SharedArrays(observation_space, action_space, self.num_envs, file)
            for worker in self._workers:
                socket.send_fds(worker.channel.socket, [b"m"], [file])

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As `SerialVectorEnv.reset`.

        Raises:
            RllabError: an environment fails or returns what it may not, or a worker dies; then all are shut down.
        """
        seeds = list_seeds(seed, self.num_envs)
        self.seeds = [old if new is None else new for old, new in zip(self.seeds, seeds, strict=True)]
        self._turn ^= 1
        extras = Extras()
        for part in self._call("reset", [(self._turn, seeds[begin:end], options) for begin, end in self._slices()]):
            extras.update(part)
        observations = self._arrays.buffers[self._turn].observations
        return copy_batch(observations, observations), self._infos(extras)

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """As `SerialVectorEnv.step`.

        Raises:
            RllabError: an environment fails or returns what it may not, or a worker dies; then all are shut down.
        """
        self._require_open()
        copy_batch(actions, self._arrays.actions, into=True)
        self._steps += 1
        self._turn = turn = self._turn ^ 1
        extras = None
        try:
            for index in range(len(self._workers)):
                self._send(index, STEP_INTO[turn])
            for index in range(len(self._workers)):
                part = self._receive(index)
                if part is not None:
                    extras = extras or Extras()
                    extras.update(part)
        except BaseException:  # Ctrl-C too: an answer that nobody has read would be taken for the next one
            self.close()
            raise
        buffers = self._arrays.buffers[turn]
        infos = {} if extras is None else self._infos(extras)
        return buffers.observations, buffers.rewards, buffers.terminated, buffers.truncated, infos

    def _infos(self, extras: Extras) -> dict[str, Any]:
        return extras.to_infos(self.num_envs, self._arrays.final_observations)

    def capture(self) -> list[dict[str, Any]]:
        """Each environment's snapshot (`envs.snapshot.capture`)."""
        return [snapshot for part in self._call("capture") for snapshot in part]

    def restore(self, snapshots: Sequence[dict[str, Any]]) -> dict[int, Any]:
        """Continues from snapshots (`envs.snapshot.restore`)."""
        parts = self._call("restore", [(list(snapshots[begin:end]),) for begin, end in self._slices()])
        self.seeds = [snapshot["seed"] for snapshot in snapshots]
        return {row: observation for part in parts for row, observation in part.items()}

    def render(self) -> tuple[Any, ...]:
        """Each environment's frame."""
        return tuple(frame for part in self._call("render") for frame in part)

    def describe_row(self, row: int) -> str:
        """An environment, for errors: `environment 3 (worker 1, seed 123456)`."""
        worker = next(index for index, (_, end) in enumerate(self._slices()) if row < end)
        return name_row(row, self.seeds[row], worker)

    def close_extras(self, **kwargs: Any) -> None:
        """Ends the workers: those that do not close their environments in time are killed."""
        self._end()

    def _slices(self) -> list[tuple[int, int]]:
        """Each worker's first environment, and the one after its last."""
        return list(zip(self._bounds, self._bounds[1:], strict=False))

    def _call(self, method: str, arguments: list[tuple[Any, ...]] | None = None) -> list[Any]:
        """What a method of each worker's `Rows` returns."""
        self._require_open()
        try:
            for index in range(len(self._workers)):
                self._send(index, REQUEST, (method, () if arguments is None else arguments[index]))
            return self._gather()
        except BaseException:
            self.close()
            raise

    def _gather(self) -> list[Any]:
        return [self._receive(index) for index in range(len(self._workers))]

    def _send(self, index: int, kind: bytes, content: Any = None) -> None:
        try:
            self._workers[index].channel.send(kind, content)
        except ClosedError:
            self._receive(index)  # It may have left word of why.
            self._report_death(index)

    def _receive(self, index: int) -> Any:
        try:
            kind, content = self._workers[index].channel.receive()
        except ClosedError:
            self._report_death(index)
        if kind == DONE:
            return None
        if kind == FAILURE:
            explained, sentence, trace = content
            if not explained:
                sentence = f"Worker {index} failed at step {self._steps}: {sentence}."
            raise RllabError(sentence) from RuntimeError(f"in worker {index}:\n{trace}")
        return content

    def _report_death(self, index: int) -> NoReturn:
        begin, end = self._slices()[index]
        who = " and ".join(name_row(row, self.seeds[row]) for row in range(begin, end))
        code = self._workers[index].wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        memory = " (which the system does when memory runs out)" if code == -signal.SIGKILL else ""
        raise RllabError(f"Worker {index} with {who} {how} at step {self._steps}{memory}.")

    def _require_open(self) -> None:
        if self.closed:
            raise RllabError("These environments are closed: make them anew.")


class _Worker:
    """A process and the socket to it."""

    def __init__(self, index: int) -> None:
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        self.parent = os.getpid()
        program = [sys.executable, "-c", _PROGRAM.format(path=sys.path)]
        with theirs:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(program, stdin=theirs.fileno())

    def hang_up(self) -> None:
        # By itself, closing would not reach the worker while a forked copy of this process holds the socket.
        with contextlib.suppress(OSError):
            self.channel.socket.shutdown(socket.SHUT_RDWR)
        self.channel.socket.close()

    def wait(self) -> int:
        """Its exit code, or less a signal's number; one that does not end is killed."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def _end(workers: list[_Worker]) -> None:
    # A forked copy of this process has the sockets too, but the workers are not its own.
    workers = [worker for worker in workers if worker.parent == os.getpid()]
    for worker in workers:
        worker.hang_up()
    for worker in workers:
        worker.wait()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _require_importable(share: Share) -> None:
    """Raises RllabError if the constructors do not lead to the same environments in another process."""
    try:
        pickled = pickle.dumps(share, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise RllabError(f"The environment cannot be sent to worker processes ({reason}): use sync.") from error
    if b"__main__" in pickled:
        raise RllabError(
            "Worker processes cannot import an environment from the main script: define and register it in a module "
            "and name that in the id (module:Name-v0), or use sync."
        )


@contextlib.contextmanager
def _nameless_file() -> Any:
    """The descriptor of a file in memory where the system has them, which goes with its last user."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("rllab")
        try:
            yield file
        finally:
            os.close(file)
    else:
        with tempfile.TemporaryFile() as temporary:
            yield temporary.fileno()
