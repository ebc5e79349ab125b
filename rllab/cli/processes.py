"""Several trainings beside each other, a process each: how `--seeds` trains, and how their folder is resumed."""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

from envs.errors import RllabError
from rllab.interrupt import Interrupted
from rllab.launched import launched_processes
from rllab.metrics import METRICS_FILE
from rllab.progress import Progress

_POLL_SECONDS = 0.1
_LAST_ROW_BYTES = 8192
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Job:
    """One run to train."""

    folder: Path
    """The run's folder."""
    arguments: Sequence[str]
    """The command's, such as `["train", "ppo", "CartPole-v1", "--out", …]`."""


@dataclass
class Ending:
    """How the jobs ended."""

    signal: int | None = None
    """The signal that ended them all early."""
    not_begun: list[Job] = field(default_factory=list)
    """Those that it came before."""
    codes: dict[Path, int] = field(default_factory=dict)
    """The exit codes, by run."""

    @property
    def interruption(self) -> Interrupted | None:
        """What the training loop would have raised, were it one training."""
        return None if self.signal is None else Interrupted(self.signal)

    @property
    def exit_code(self) -> int:
        """The code for the command as a whole."""
        return max(self.codes.values(), default=0) if self.signal is None else 128 + self.signal


@dataclass
class _Process:
    job: Job
    process: subprocess.Popen[bytes]
    stderr: IO[bytes]


def run_jobs(jobs: Sequence[Job], at_once: int, total_steps: int, *, quiet: bool = False) -> Ending:
    """Run each job in a process of its own, `at_once` at a time, under one progress line.

    A signal that asks this process to stop is handed on once to each of them: each saves a checkpoint and ends.
    What a job says on its standard error is printed when it ends.

    Args:
        jobs: what to run.
        at_once: how many at a time.
        total_steps: where the jobs end, all steps together.
        quiet: no progress line.

    Raises:
        RllabError: torchrun started several of this process.
    """
    if launched_processes() > 1:
        raise RllabError("Several runs, a process each, are trained by one command; start it without torchrun.")
    ending, waiting = Ending(), deque(jobs)
    running: list[_Process] = []
    progress = Progress(total_steps, start=_steps_of(jobs), quiet=quiet)

    def stop(number: int, _frame: FrameType | None) -> None:
        if ending.signal is None:
            progress.note("stopping after each run's update, then saving checkpoints (Ctrl-C again to stop at once)")
        ending.signal = number
        for one in running:
            one.process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    with progress, _handling(stop):
        try:
            while running or (waiting and ending.signal is None):
                while waiting and len(running) < at_once and ending.signal is None:
                    running.append(_start(waiting.popleft(), at_once))
                time.sleep(_POLL_SECONDS)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    ending.codes[one.job.folder] = _close(one, progress)
                progress.update(_steps_of(jobs), {"return_mean": _mean_return(jobs)})
        finally:
            for one in running:  # only if something went wrong here: no run may go on unattended
                one.process.terminate()
    ending.not_begun = list(waiting)
    return ending


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(job: Job, at_once: int) -> _Process:
    # Each process by itself would take every core for the networks that are large enough to need several.
    environment = {"OMP_NUM_THREADS": str(max(1, cores() // at_once)), **os.environ}
    stderr = tempfile.TemporaryFile()  # noqa: SIM115 (until the process ends)
    process = subprocess.Popen(
        [sys.executable, "-m", "rllab", *job.arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        process_group=0,  # so that a terminal's Ctrl-C reaches it once, through `run_jobs`
    )
    return _Process(job, process, stderr)


def _close(one: _Process, progress: Progress) -> int:
    """Pass on what an ended process said, and give its exit code."""
    with one.stderr as file:
        file.seek(0)
        for line in file.read().decode(errors="replace").splitlines():
            # Every process says how to resume its own run; the command as a whole says it once for all.
            if one.process.returncode < 128:
                progress.note(f"{one.job.folder.name}: {line}")
    # Popen gives -n for a process that signal n killed, a shell 128 + n.
    return one.process.returncode if one.process.returncode >= 0 else 128 - one.process.returncode


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _steps_of(jobs: Sequence[Job]) -> int:
    return int(sum(_last_row(job.folder).get("steps", 0) for job in jobs))


def _mean_return(jobs: Sequence[Job]) -> float:
    """The mean over the runs of their latest training return; NaN while there is none."""
    returns = [value for job in jobs if (value := _last_row(job.folder).get("return_mean")) is not None]
    return sum(returns) / len(returns) if returns else math.nan


def _last_row(folder: Path) -> dict[str, Any]:
    """The newest complete row of a run that is being written; empty while there is none."""
    try:
        with open(folder / METRICS_FILE, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _LAST_ROW_BYTES))
            row: dict[str, Any] = json.loads(file.read().split(b"\n")[-2])
            return row
    except (OSError, ValueError, IndexError):
        return {}
