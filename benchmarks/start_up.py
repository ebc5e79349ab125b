"""How long until rllab can do something: importing it, and `rllab --help`, each in fresh processes, in turns.

`import rllab` imports a name when it is first used, so two rows stand for it: the package alone, and every public
name. What matters is how much longer either takes than `import torch`, without which nothing can be trained.
"""

import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from common import console, print_machine
from rich.table import Table

EVERY_NAME = "import rllab\nfor name in rllab.__all__: getattr(rllab, name)"
TORCH = "import torch"


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    repetitions: int = 7
    """Fresh processes of each kind, after one that warms the disk's cache."""


def seconds(command: list[str]) -> float:
    """The wall time of a process that must succeed."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main(arguments: Arguments) -> None:
    """Measure and print."""
    print_machine()
    python = sys.executable
    commands = {
        "python -c pass": [python, "-c", "pass"],
        TORCH: [python, "-c", TORCH],
        "import rllab": [python, "-c", "import rllab"],
        "import torch, rllab": [python, "-c", "import torch, rllab"],
        "rllab, every public name": [python, "-c", EVERY_NAME],
    }
    script = Path(python).with_name("rllab")
    if script.exists():
        commands["rllab --help"] = [str(script), "--help"]
    else:
        console.print(f"rllab --help is left out: there is no {script}; install the project first.\n")

    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(arguments.repetitions + 1):
        for name, command in commands.items():
            taken = seconds(command)
            if turn > 0:
                times[name].append(taken)

    table = Table(title=f"Start-up, {arguments.repetitions} fresh processes each", title_justify="left")
    table.add_column("")
    for heading in ("seconds, median", "min – max", f"over {TORCH}"):
        table.add_column(heading, justify="right")
    base = statistics.median(times[TORCH])
    for name, values in times.items():
        median = statistics.median(values)
        table.add_row(name, f"{median:.3f}", f"{min(values):.3f} – {max(values):.3f}", f"{median - base:+.3f}")
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
