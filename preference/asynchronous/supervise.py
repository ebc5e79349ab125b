"""Processes beside the training: started with it, started again when they die, and gone with it, however it went."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from envs.errors import RllabError
from rllab.files import explained_write_errors

_PROGRAM = "import sys; sys.path[:] = {path!r}; from {module} import main; main()"
RESTARTS = 3
"""How often a process is started again, if it does not go well in between."""
FORGIVEN_AFTER = 600.0
"""Seconds for which a process must have lived for its earlier deaths to be forgotten."""
LAST_WORDS_SECONDS = 5.0
"""How long a process has to put its things in order when the training ends."""


class Assistant:
    """A process that works beside the training; it ends when its standard input does, however its parent went."""

    def __init__(self, does: str, module: str, job: Mapping[str, Any], log: Path, note: Callable[[str], None]) -> None:
        """Start it.

        Args:
            does: what it does, for "the process that ...".
            module: whose function `main` it runs, which calls `work`.
            job: what it is to do, as JSON.
            log: where its standard error goes.
            note: tells a person something.

        Raises:
            RllabError: the log cannot be written.
        """
        self.does, self.module, self.log, self.note = does, module, log, note
        self._job = json.dumps(job).encode() + b"\n"  # not on the command line: the store's URL may have a password
        self._parent = os.getpid()
        self._deaths = 0
        self._popen: subprocess.Popen[bytes] | None = None
        self._start()

    @property
    def pid(self) -> int | None:
        """The number of its process, or of its last one."""
        return None if self._popen is None else self._popen.pid

    def check(self) -> None:
        """Start it again if it died.

        Raises:
            RllabError: that has been too often.
        """
        if self._popen is None or self._popen.poll() is None:
            return
        if time.monotonic() - self._started > FORGIVEN_AFTER:
            self._deaths = 0
        self._deaths += 1
        obituary = f"the process that {self.does} {self._obituary(self._popen.returncode)}"
        if self._deaths > RESTARTS:
            raise RllabError(f"{obituary}, for the {self._deaths}th time; see {self.log}")
        self.note(f"{obituary}; it is started again")
        self._close_input()
        self._start()

    def close(self) -> None:
        """Let it put its things in order, and end it."""
        if os.getpid() != self._parent or self._popen is None:
            return  # a forked copy of the training ends: the process is not its own
        self._close_input()
        popen, self._popen = self._popen, None
        try:
            popen.wait(LAST_WORDS_SECONDS)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()

    def _start(self) -> None:
        self._started = time.monotonic()
        with explained_write_errors(self.log):
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self._log_began = self.log.stat().st_size if self.log.exists() else 0
            with open(self.log, "ab") as log:
                self._popen = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM.format(path=sys.path, module=self.module)],
                    stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log,
                )  # fmt: skip
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._popen.stdin.write(self._job)
            self._popen.stdin.flush()

    def _close_input(self) -> None:
        if self._popen is not None and self._popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._popen.stdin.close()

    def _obituary(self, code: int) -> str:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        with contextlib.suppress(OSError), open(self.log, "rb") as log:
            log.seek(self._log_began)
            lines = log.read()[-10_000:].decode(errors="replace").strip().splitlines()
            return f"{how} ({lines[-1]})" if lines else how
        return how


class Assistants:
    """The processes beside one training."""

    def __init__(self, *assistants: Assistant) -> None:
        self.assistants = assistants

    def check(self) -> None:
        """Start again who died; raises RllabError if that has been too often."""
        for assistant in self.assistants:
            assistant.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for assistant in self.assistants:
            assistant._close_input()  # all at once, so that none waits for another
        for assistant in self.assistants:
            assistant.close()


def work(do: Callable[[dict[str, Any], threading.Event], None]) -> None:
    """What an assistant's `main` does: `do` its job until the event says that it is to end.

    An RllabError ends it with code 2, and its sentence as the last line of the standard error.
    """
    # The terminal sends Ctrl-C, and a scheduler its SIGTERM, to every process: when to stop is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    job = json.loads(sys.stdin.buffer.readline() or "null")
    if job is None:  # the parent is gone already
        return
    ending = threading.Event()
    threading.Thread(target=_watch, args=(ending,), name="parent", daemon=True).start()
    try:
        do(job, ending)
    except RllabError as error:
        if not ending.is_set():
            print(error, file=sys.stderr, flush=True)
            raise SystemExit(2) from None


def _watch(ending: threading.Event) -> None:
    """Say when the parent has closed the input or died, and do not let that be ignored for ever."""
    while os.read(0, 1):
        pass
    ending.set()
    time.sleep(2 * LAST_WORDS_SECONDS)
    os._exit(1)  # files are written beside their place and renamed, and the store's transactions are undone
