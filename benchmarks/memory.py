"""Whether memory stays flat: a minute of training, its growth extrapolated to ten million steps.

Trains as `rllab train` does, with a run folder, and notes the resident memory of this process once a second. The
first third is left out (buffers are allocated, caches fill); a line through the rest gives bytes a step.
"""

import gc
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from common import console, print_machine
from rich.table import Table

from rllab.agents.agent import Metrics
from rllab.callbacks import Callback
from rllab.config import configure
from rllab.rollout import Rollout
from rllab.runs import Run
from rllab.train import Training
from rllab.workshop import Workshop


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    envs: tuple[str, ...] = ("CartPole-v1", "HalfCheetah-v5", "PongNoFrameskip-v4")
    """Gymnasium ids, trained by PPO with their presets."""
    seconds: float = 60.0
    """How long each is trained."""
    extrapolate: int = 10_000_000
    """Steps."""


class Resident(Callback):
    """Notes steps and resident bytes once a second, after an update, and stops when time is up."""

    def __init__(self, seconds: float) -> None:
        self.next = time.perf_counter()
        self.ends = self.next + seconds
        self.points: list[tuple[int, int]] = []

    def after_update(self, training: Training, rollout: Rollout, metrics: Metrics) -> None:
        """Note a point."""
        now = time.perf_counter()
        if now < self.next:
            return
        self.next = now + 1.0
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.points.append((training.steps, pages * 4096))
        if now > self.ends:
            training.stop("time is up")


def measure(env: str, seconds: float) -> list[tuple[int, int]]:
    """Steps and resident bytes, second by second."""
    settings: dict[str, Any] = {"steps": 10_000_000, "evaluation_every": 0, "checkpoint_every": 20_000}
    config = configure("ppo", env, settings)
    resident = Resident(seconds)
    with (
        tempfile.TemporaryDirectory() as folder,
        Workshop(config) as workshop,
        Run.create(Path(folder) / "run", config.to_json()) as run,
    ):
        workshop.training(run, [resident], quiet=True).run()
    return resident.points


def main(arguments: Arguments) -> None:
    """Measure and print."""
    print_machine()
    table = Table(title=f"Resident memory over {arguments.seconds:.0f} s of PPO", title_justify="left")
    table.add_column("")
    for heading in ("steps", "at a third", "at the end", f"growth over {arguments.extrapolate:,} steps"):
        table.add_column(heading, justify="right")
    for env in arguments.envs:
        points = np.array(measure(env, arguments.seconds), float)
        kept = points[len(points) // 3 :]
        slope = float(np.polyfit(kept[:, 0], kept[:, 1], 1)[0])
        table.add_row(
            env,
            f"{points[-1, 0]:,.0f}",
            f"{kept[0, 1] / 1e6:,.1f} MB",
            f"{kept[-1, 1] / 1e6:,.1f} MB",
            f"{slope * arguments.extrapolate / 1e6:,.0f} MB",
        )
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
