"""A process beside the training for tests: it says its number in a file, and does what it is told."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

from envs.errors import RllabError
from preference.asynchronous.supervise import work


def main() -> None:
    work(_work)


def _work(job: dict[str, Any], ending: threading.Event) -> None:
    with open(job["file"], "a") as file:
        file.write(f"{os.getpid()}\n")
    if job["does"] == "refuse":
        raise RllabError("there is nothing to do.")
    if job["does"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    ending.wait()
    Path(job["file"]).with_suffix(".tidy").touch()
