"""A peer that needs other versions of the libraries than ours: it works in its own interpreter, asked line by line.

Its script reads a JSON object a line from standard input, with the task's name under "task" and its arguments beside
it, and answers with one a line on standard output. So both sides can take turns in one run though they share no
process.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Self

from envs.errors import RllabError


class PeerProcess:
    """A peer's interpreter that runs a script of this folder; a context manager."""

    def __init__(self, python: Path, script: str) -> None:
        """Start it with one thread for all its arithmetic; `python`: the interpreter, `script`: a file beside this."""
        single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        # Ours may be the only environment on PATH and PYTHONPATH; the peer's is known by its interpreter alone.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | single
        try:
            self._process = subprocess.Popen(
                [str(python), "-W", "ignore", str(Path(__file__).parent / script)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
            )  # fmt: skip
        except OSError as error:
            raise RllabError(
                f"{python} cannot be run ({error}); name the peer's interpreter by --peer-python"
            ) from error

    def ask(self, task: str, **arguments: Any) -> dict[str, Any]:
        """Have a task done, and wait for what comes of it.

        Raises RllabError with the peer's own words if it failed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"task": task, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RllabError(
                f"the peer's process ended at '{task}': see that its packages can be imported by that interpreter"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RllabError(f"the peer failed at '{task}': {answer['error']}")
        return answer

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
