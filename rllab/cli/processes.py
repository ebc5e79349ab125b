"""Several trainings beside each other, a process each: how `--seeds` trains, and how their folder is resumed."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

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
class Outcome:
    """How the jobs ended."""

    signal: int | None = None
    """The signal that ended them all early."""
    not_begun: list[Job] = field(default_factory=list)
    """Those that it came before."""
    codes: dict[Path, int] = field(default_factory=dict)
    """The exit codes, by run."""

    @property
    def exit_code(self) -> int:
        """The code for the command as a whole."""
        if self.signal is not None:
            return 128 + self.signal
        return max(self.codes.values(), default=0)


@dataclass
class _Process:
    job: Job
    process: subprocess.Popen[bytes]
    stderr: IO[bytes]


def run_jobs(jobs: Sequence[Job], at_once: int, total_steps: int, *, quiet: bool = False) -> Outcome:
    """Run each job in a process of its own, `at_once` at a time, under one progress line.

    A signal that asks this process to stop is handed on once to each of them: each saves a checkpoint and ends.
    What a job says on its standard error is printed when it ends.

    Args:
        jobs: what to run.
        at_once: how many at a time.
        total_steps: where the jobs end, all steps together.
        quiet: no progress line.
    """
    outcome, waiting, running = Outcome(), deque(jobs), list[_Process]()
    progress = Progress(total_steps, start=_steps_of(jobs), quiet=quiet)

    def stop(number: int, _frame: FrameType | None) -> None:
        if outcome.signal is None:
            progress.note("stopping after each run's update, then saving their checkpoints (Ctrl-C again to stop at once)")
        outcome.signal = number
        for one in running:
            one.process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    with progress, _handling(stop):
        while running or (waiting and outcome.signal is None):
            while waiting and len(running) < at_once and outcome.signal is None:
                running.append(_start(waiting.popleft(), at_once))
            time.sleep(_POLL_SECONDS)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                outcome.codes[one.job.folder] = _close(one, progress)
            progress.update(_steps_of(jobs), {"return_mean": _mean_return(jobs)})
    outcome.not_begun = list(waiting)
    return outcome


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
