"""Whether speed cost learning: PPO on CartPole-v1 with equal hyper-parameters and seeds, beside Stable-Baselines3.

The settings are those of rl-baselines3-zoo: 8 environments, 32 steps, minibatches of 256, 20 epochs, γ 0.98, λ 0.8,
learning rate and clip range linear from 1e-3 and 0.2, no entropy bonus. Counted are the environment steps until the
mean return of the last 100 training episodes first reaches 475, looked at after each rollout on both sides.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from common import console, print_machine
from rich.table import Table

from rllab.agents.agent import Metrics
from rllab.callbacks import Callback
from rllab.config import configure
from rllab.rollout import Rollout
from rllab.statistics import bootstrap_interval
from rllab.train import Training
from rllab.workshop import Workshop

ENV = "CartPole-v1"
THRESHOLD, WINDOW = 475.0, 100
NUM_ENVS, ROLLOUT_STEPS, MINIBATCH_SIZE, EPOCHS = 8, 32, 256, 20
DISCOUNT, GAE_LAMBDA, LEARNING_RATE, CLIP_RANGE = 0.98, 0.8, 1e-3, 0.2


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    seeds: int = 5
    """Seeds 0, 1, … of each side."""
    steps: int = 100_000
    """Steps that the schedules run over; a seed that has not reached the threshold by then counts as this many."""


class StopAtTrainingReturn(Callback):
    """Stops when the window of training episodes is full and its mean has reached the threshold."""

    def __init__(self) -> None:
        self.returns: deque[float] = deque(maxlen=WINDOW)

    def after_update(self, training: Training, rollout: Rollout, metrics: Metrics) -> None:
        """Take in the episodes that ended in this rollout."""
        assert rollout.episode_returns is not None
        self.returns.extend(rollout.episode_returns.tolist())
        if len(self.returns) == WINDOW and statistics.mean(self.returns) >= THRESHOLD:
            training.stop("reached the threshold")


def rllab(seed: int, steps: int) -> int | None:
    """Steps to the threshold by rllab; None if it was not reached."""
    settings = {
        "num_envs": NUM_ENVS, "rollout_steps": ROLLOUT_STEPS, "minibatch_size": MINIBATCH_SIZE, "epochs": EPOCHS,
        "discount": DISCOUNT, "gae_lambda": GAE_LAMBDA, "learning_rate": LEARNING_RATE, "clip_range": CLIP_RANGE,
        "learning_rate_schedule": "linear", "clip_range_schedule": "linear", "entropy_coefficient": 0.0,
        "steps": steps, "seed": seed, "evaluation_every": 0, "checkpoint_every": 0,
    }  # fmt: skip
    with Workshop(configure("ppo", ENV, settings, preset=False)) as workshop:
        training = workshop.training(None, [StopAtTrainingReturn()], quiet=True)
        training.run()
        return training.steps if training.stop_reason is not None else None


def stable_baselines3(seed: int, steps: int) -> int | None:
    """Steps to the threshold by Stable-Baselines3; None if it was not reached."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    class StopAtReturn(BaseCallback):
        reached: int | None = None

        def _on_step(self) -> bool:
            return self.reached is None

        def _on_rollout_end(self) -> None:
            returns = [episode["r"] for episode in self.model.ep_info_buffer or ()]
            if len(returns) == WINDOW and np.mean(returns) >= THRESHOLD:
                self.reached = self.num_timesteps

    model = PPO(
        "MlpPolicy", make_vec_env(ENV, NUM_ENVS, seed=seed), n_steps=ROLLOUT_STEPS, batch_size=MINIBATCH_SIZE,
        n_epochs=EPOCHS, gamma=DISCOUNT, gae_lambda=GAE_LAMBDA, ent_coef=0.0, seed=seed, device="cpu",
        learning_rate=lambda remaining: LEARNING_RATE * remaining, clip_range=lambda remaining: CLIP_RANGE * remaining,
    )  # fmt: skip
    callback = StopAtReturn()
    model.learn(steps, callback)
    return callback.reached


def main(arguments: Arguments) -> None:
    """Measure and print."""
    print_machine("stable-baselines3")
    torch.set_num_threads(1)
    sides: dict[str, Callable[[int, int], int | None]] = {"rllab": rllab, "Stable-Baselines3": stable_baselines3}
    reached: dict[str, list[int | None]] = {name: [] for name in sides}
    for seed in range(arguments.seeds):
        for name, train in sides.items():
            began = time.perf_counter()
            steps = train(seed, arguments.steps)
            reached[name].append(steps)
            told = "not reached" if steps is None else f"{steps:,} steps"
            console.print(f"{name}, seed {seed}: {told} ({time.perf_counter() - began:.0f} s)")

    table = Table(title=f"Steps until {WINDOW} episodes average {THRESHOLD:.0f}", title_justify="left")
    table.add_column("")
    for heading in ("by seed", "mean", "95 % interval", "median", "95 % interval"):
        table.add_column(heading, justify="right")
    intervals = []
    for name, found in reached.items():
        counts = [arguments.steps if steps is None else steps for steps in found]
        of_mean, of_median = bootstrap_interval(counts, np.mean), bootstrap_interval(counts, np.median)
        intervals.append(of_mean)
        table.add_row(
            name,
            "  ".join(f"{steps:,}" if steps is not None else f"over {arguments.steps:,}" for steps in found),
            f"{statistics.mean(counts):,.0f}",
            f"{of_mean[0]:,.0f} – {of_mean[1]:,.0f}",
            f"{statistics.median(counts):,.0f}",
            f"{of_median[0]:,.0f} – {of_median[1]:,.0f}",
        )
    console.print(table)
    (low, high), (other_low, other_high) = intervals
    overlap = low <= other_high and other_low <= high
    console.print(f"The intervals of the means {'overlap' if overlap else 'do not overlap'}.")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
