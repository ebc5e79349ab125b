"""The command as torchrun starts it, several times."""

import os
import subprocess
import sys
from pathlib import Path


def command(processes: int, *arguments: str) -> list[str]:
    launched = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *(launched if processes > 1 else []), "-m", "rllab", *arguments]


def rllab(processes: int, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Modules are found beside this one, or in `folder`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder or Path(__file__).parent)}
    return subprocess.run(
        command(processes, *arguments), capture_output=True, text=True, env=environment, timeout=300
    )  # fmt: skip
