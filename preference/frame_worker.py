"""A process beside the training that draws clips: rendering never holds up the training, nor can it bring it down.

A process and not a thread, since drawing would hold Python's lock, and OpenGL's contexts belong to one thread each. It
is a fresh interpreter that imports neither torch nor the main script, and ends when its socket does, however its parent
went.
"""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import weakref
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from envs.worker import ANSWER, FAILURE, REQUEST, Channel, ClosedError
from preference.frames import draw, draw_sheet
from preference.origins import Origin
from preference.sheets import Frames, Sheet

_PROGRAM = "import sys; sys.path[:] = {path!r}; from preference.frame_worker import main; main()"
_NICENESS = 10
"""Training comes first on a machine with more to do than cores."""


class FrameWorker:
    """Draws clips, one after another, in a process that starts with the first of them.

    Attributes:
        pending: clips that were submitted and not polled yet.
    """

    def __init__(self, height: int | None = 256, quality: int | None = None) -> None:
        """Nothing is started yet.

        Args:
            height: of the frames, in pixels; None: as the environments draw them.
            quality: None: `poll` gives frames; a number from 0 to 100: it gives sheets (`preference.sheets`) of WebP of
                this quality, encoded in the process, too.
        """
        self.height, self.quality = height, quality
        self.pending = 0
        self._requests: queue.SimpleQueue[tuple[UUID, Origin, NDArray[Any] | None] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[UUID, Frames | Sheet | str]] = queue.SimpleQueue()
        self._process = _Process()
        self._thread: threading.Thread | None = None
        self._end = weakref.finalize(self, _end, self._requests, self._process)

    def submit(self, clip_id: UUID, origin: Origin, observations: NDArray[Any] | None = None) -> None:
        """Asks for a clip's frames; its own observations `[L, *obs]` make sure that they are of this clip.

        Raises:
            RllabError: the worker is closed.
        """
        if not self._end.alive:
            raise RllabError("No clip can be drawn any more: the frame worker is closed.")
        if self._thread is None:
            arguments = (self._requests, self._results, self._process, self.height, self.quality)
            # It knows nothing of `self`, which can therefore be collected.
            self._thread = threading.Thread(target=_serve, args=arguments, name="frames", daemon=True)
            self._thread.start()
        self.pending += 1
        self._requests.put((clip_id, origin, observations))

    def poll(self) -> list[tuple[UUID, Frames | Sheet | str]]:
        """What has been drawn since the last call, without waiting: frames `[L, height, width, 3]`, or a sheet, or a
        sentence that says why there is none."""
        drawn = []
        with contextlib.suppress(queue.Empty):
            while True:
                drawn.append(self._results.get_nowait())
        self.pending -= len(drawn)
        return drawn

    def close(self) -> None:
        """Ends the process; clips that are not drawn yet will not be."""
        self._end()


class _Process:
    """The process, or none yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._popen: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._closed = False
        self._parent = os.getpid()

    def ask(self, request: Any) -> Any:
        """The answer to a request.

        Raises:
            RllabError: the answer is a refusal, or the process died over it.
        """
        with self._lock:
            if self._closed:
                raise RllabError("The frame worker was closed before the clip was drawn.")
            if self._channel is None:
                self._start()
            channel = self._channel
            assert channel is not None
        try:
            channel.send(REQUEST, request)
            kind, content = channel.receive()
        except (ClosedError, OSError):
            raise RllabError(f"The process that draws clips {self._burial()}; the next clip starts another.") from None
        if kind == FAILURE:
            raise RllabError(content)
        return content

    def end(self) -> None:
        """Kills the process: it holds nothing that could be lost."""
        if os.getpid() != self._parent:
            return  # a forked copy of the training ends: the process is not its own
        with self._lock:
            self._closed = True
            popen, self._popen = self._popen, None
        if popen is not None:
            popen.kill()
            popen.wait()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM.format(path=sys.path)], stdin=theirs.fileno(), stdout=subprocess.DEVNULL
            )
        self._channel = Channel(ours)

    def _burial(self) -> str:
        with self._lock:
            popen, self._popen, channel, self._channel = self._popen, None, self._channel, None
        if channel is not None:
            channel.socket.close()
        if popen is None:
            return "was closed"
        code = popen.wait()
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _serve(
    requests: "queue.SimpleQueue[tuple[UUID, Origin, NDArray[Any] | None] | None]",
    results: "queue.SimpleQueue[tuple[UUID, Frames | Sheet | str]]",
    process: _Process,
    height: int | None,
    quality: int | None,
) -> None:
    """The thread that carries requests to the process, and answers back."""
    while (request := requests.get()) is not None:
        clip_id, origin, observations = request
        result: Frames | Sheet | str
        try:
            result = process.ask((origin, height, quality, observations))
        except RllabError as error:
            result = str(error)
        except Exception as error:  # nothing that concerns frames alone may end the training, or this thread
            result = f"The clip could not be drawn ({type(error).__name__}: {error})."
        results.put((clip_id, result))


def _end(requests: "queue.SimpleQueue[Any]", process: _Process) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            requests.get_nowait()
    requests.put(None)
    process.end()


def main() -> None:
    """Draws until the socket at standard input closes."""
    # The terminal sends Ctrl-C, and a scheduler its SIGTERM, to every process: when to stop is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(_NICENESS)
    connected = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    channel = Channel(connected)
    with contextlib.suppress(ClosedError):
        while True:
            origin, height, quality, observations = channel.receive()[1]
            try:
                if quality is None:
                    answer: Any = np.ascontiguousarray(draw(origin, height, observations))
                else:
                    answer = draw_sheet(origin, height, quality, observations)
                kind = ANSWER
            except RllabError as error:
                kind, answer = FAILURE, str(error)
            except Exception as error:
                kind, answer = FAILURE, f"The clip could not be drawn ({type(error).__name__}: {error})."
            channel.send(kind, answer)


__all__ = ["FrameWorker", "main"]
