"""PPO's curve on an Atari game beside Stable-Baselines3's: the same settings, the same number of steps, one side a run.

The settings are those of `ppo_atari.py`, falling linearly over `horizon` steps; the run ends after `steps` of them. A
point of the curve, noted after every tenth rollout, is the mean score of the last 100 whole games, as the game gave it.
Each side runs on one thread, so that both can run side by side on two cores; `--plot` draws what has been noted.
"""

import json
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from common import console, print_machine
from ppo_atari import (
    CLIP_RANGE,
    ENTROPY_COEFFICIENT,
    EPOCHS,
    LEARNING_RATE,
    MINIBATCH_SIZE,
    ROLLOUT_STEPS,
    sb3_atari,
)

from rllab.agents.agent import Metrics
from rllab.callbacks import Callback
from rllab.config import configure
from rllab.plots import PALETTE
from rllab.rollout import Rollout
from rllab.train import Training
from rllab.workshop import Workshop

WINDOW, EVERY = 100, 10


@dataclass(frozen=True)
class Arguments:
    """What to run."""

    side: Literal["rllab", "peer"] = "rllab"
    """Whom to train."""
    game: str = "Pong"
    """The game."""
    steps: int = 2_000_000
    """Environment steps to train for; a step is four frames."""
    horizon: int = 10_000_000
    """Steps over which the learning rate and the clip range fall to 0."""
    seed: int = 0
    """The seed of the run."""
    out: Path = Path("runs/atari-learning.jsonl")
    """Where points are noted as they come."""
    plot: Path | None = None
    """Draw what is noted there, such as curves.png, and train nothing."""


class Notebook:
    """Appends points to the file."""

    def __init__(self, arguments: Arguments) -> None:
        self.arguments, self.began, self.rollouts = arguments, time.perf_counter(), 0

    def note(self, steps: int, score: float, games: int) -> None:
        """One rollout has been learnt from."""
        self.rollouts += 1
        if self.rollouts % EVERY:
            return
        point = {
            "side": self.arguments.side, "game": self.arguments.game, "seed": self.arguments.seed, "steps": steps,
            "score": score, "games": games, "seconds": round(time.perf_counter() - self.began, 1),
            "resident_mb": resident_megabytes(),
        }  # fmt: skip
        with self.arguments.out.open("a") as file:
            file.write(json.dumps(point) + "\n")


def resident_megabytes() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * 4096 / 2**20, 1)


def train_rllab(arguments: Arguments) -> None:
    """Our preset for the family."""
    settings = {"steps": arguments.horizon, "seed": arguments.seed, "evaluation_every": 0, "checkpoint_every": 0}
    config = configure("ppo", f"{arguments.game}NoFrameskip-v4", {**settings, "workers": 1})
    notebook = Notebook(arguments)

    class Note(Callback):
        def __init__(self) -> None:
            self.games = 0

        def after_update(self, training: Training, rollout: Rollout, metrics: Metrics) -> None:
            self.games += len(rollout.episode_returns)
            notebook.note(training.steps, metrics["return_mean"], self.games)
            if training.steps >= arguments.steps:
                training.stop("enough steps")

    with Workshop(config) as workshop:
        workshop.training(None, [Note()], quiet=True).run()


def train_peer(arguments: Arguments) -> None:
    """Stable-Baselines3's PPO with its wrappers."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback

    notebook = Notebook(arguments)
    scores: deque[float] = deque(maxlen=WINDOW)

    class Note(BaseCallback):
        games = 0

        def _on_step(self) -> bool:
            for info in self.locals["infos"]:
                if "episode" in info:
                    scores.append(info["episode"]["r"])
                    self.games += 1
            return self.num_timesteps < arguments.steps

        def _on_rollout_end(self) -> None:
            notebook.note(self.num_timesteps, float(np.mean(scores)) if scores else float("nan"), self.games)

    model = PPO(
        "CnnPolicy", sb3_atari(arguments.game, arguments.seed), n_steps=ROLLOUT_STEPS, batch_size=MINIBATCH_SIZE,
        n_epochs=EPOCHS, learning_rate=lambda left: LEARNING_RATE * left, clip_range=lambda left: CLIP_RANGE * left,
        ent_coef=ENTROPY_COEFFICIENT, seed=arguments.seed, device="cpu",
    )  # fmt: skip
    model.learn(arguments.horizon, Note())


def draw(arguments: Arguments, path: Path) -> None:
    """The scores over steps, a line for each side and seed."""
    from matplotlib.figure import Figure

    points = [json.loads(line) for line in arguments.out.read_text().splitlines()]
    figure = Figure(figsize=(6.4, 3.8), layout="constrained", dpi=120)
    panel = figure.subplots()
    styles = {"rllab": (PALETTE[0], "-", "rllab"), "peer": (PALETTE[1], "--", "Stable-Baselines3")}
    labelled: set[str] = set()
    for side, seed in sorted({(p["side"], p["seed"]) for p in points if p["game"] == arguments.game}):
        these = [p for p in points if (p["side"], p["seed"], p["game"]) == (side, seed, arguments.game)]
        colour, line, label = styles[side]
        panel.plot(
            [p["steps"] / 1e6 for p in these], [p["score"] for p in these], line, color=colour, linewidth=1.4,
            label=None if side in labelled else label,
        )  # fmt: skip
        labelled.add(side)
    panel.set(title=f"PPO, {arguments.game}NoFrameskip-v4", xlabel="million environment steps (four frames each)")
    panel.set_ylabel("mean score of the last 100 games")
    panel.grid(alpha=0.3)
    panel.legend(loc="upper left")
    figure.savefig(path)
    console.print(f"Figure: {path}")


def main(arguments: Arguments) -> None:
    """Train one side, or draw."""
    if arguments.plot is not None:
        draw(arguments, arguments.plot)
        return
    print_machine("stable-baselines3", "ale-py")
    torch.set_num_threads(1)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    (train_rllab if arguments.side == "rllab" else train_peer)(arguments)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
