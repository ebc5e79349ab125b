"""What is learnt on MuJoCo in a million steps, beside Stable-Baselines3's PPO and sb3-contrib's TRPO.

Both sides have the settings of our presets: for PPO those of the paper (Schulman et al. 2017, table 3: 2048 steps,
minibatches of 64, 10 epochs, 3e-4) falling linearly, for TRPO δ = 0.01 and a batch of 2048; observations and rewards
normalised by running moments on both sides (`VecNormalize` on the peer's). One run at a time, each appending its curve
to a file of JSON lines, so that an interrupted benchmark goes on where it was. A curve is the mean return of the last
100 training episodes, as the environment gave it; at the end the last policy plays 100 fresh episodes, its moments
frozen.
"""

import json
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
import tyro
from common import console, print_machine, sb3_environments
from rich.table import Table

from rllab.agents.agent import Metrics
from rllab.callbacks import Callback
from rllab.config import configure
from rllab.evaluate import Evaluator
from rllab.plots import PALETTE
from rllab.rollout import Rollout
from rllab.statistics import bootstrap_interval
from rllab.train import Training
from rllab.workshop import Workshop

Side = Literal["rllab", "region", "peer"]
SIDES: dict[Side, str] = {"rllab": "rllab", "region": "rllab, the peer's δ", "peer": "Stable-Baselines3"}
WINDOW, EPISODES, EVALUATION_SEED = 100, 100, 12_345


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    agent: Literal["ppo", "trpo"] = "ppo"
    """The agent, on both sides."""
    envs: tuple[str, ...] = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5")
    """Gymnasium ids."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds, the same on both sides."""
    sides: tuple[Side, ...] = ("rllab", "peer")
    """Whom to train; region: TRPO with δ times the number of the action's dimensions, which is what sb3-contrib's δ
    comes to, since it takes the mean of the divergence over them and not their sum."""
    steps: int = 1_000_000
    """Environment steps, over which the learning rate falls."""
    out: Path = Path("runs/mujoco-learning.jsonl")
    """Where finished runs are noted; what is noted there already is not run again."""
    plot: Path | None = None
    """A figure of the curves to write, such as curves.png."""


@dataclass
class Run:
    """One finished training."""

    agent: str
    env: str
    side: Side
    seed: int
    steps: int
    seconds: float
    curve: list[tuple[int, float]]
    """Steps, and the mean return of the last 100 training episodes."""
    returns: list[float]
    """Of the last policy's fresh episodes, by its most probable actions."""


class Curve(Callback):
    """Keeps the training episodes' mean return after every rollout."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []

    def after_update(self, training: Training, rollout: Rollout, metrics: Metrics) -> None:
        """Note a point."""
        self.points.append((training.steps, metrics["return_mean"]))


def train_rllab(
    agent: str, env: str, side: Side, seed: int, steps: int
) -> tuple[list[tuple[int, float]], Callable[[], list[float]]]:
    """Our preset."""
    settings: dict[str, Any] = {"steps": steps, "seed": seed, "evaluation_every": 0, "checkpoint_every": 0}
    config = configure(agent, env, settings)
    if side == "region":
        trpo: Any = config.agent
        dimensions = math.prod(gymnasium.make(env).action_space.shape or ())
        config = replace(config, agent=replace(trpo, max_kl=trpo.max_kl * dimensions))
    curve = Curve()
    with Workshop(config) as workshop:
        workshop.training(None, [curve], quiet=True).run()

    def evaluate() -> list[float]:
        with Evaluator(config.env, EPISODES, seed=EVALUATION_SEED) as evaluator:
            return evaluator(workshop.policy).returns.tolist()

    return curve.points, evaluate


def train_peer(
    agent: str, env: str, side: Side, seed: int, steps: int
) -> tuple[list[tuple[int, float]], Callable[[], list[float]]]:
    """Stable-Baselines3, or sb3-contrib, with the preset's settings by their names."""
    from sb3_contrib import TRPO
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize

    config = configure(agent, env)
    settings: Any = config.agent
    discount = settings.discount
    environments = VecNormalize(sb3_environments(env, config.env.num_envs, seed), gamma=discount)
    rate = settings.learning_rate
    common: dict[str, Any] = {
        "n_steps": settings.rollout_steps, "batch_size": settings.minibatch_size, "gamma": discount,
        "gae_lambda": settings.gae_lambda, "seed": seed, "device": "cpu",
        "learning_rate": (lambda left: rate * left) if settings.learning_rate_schedule == "linear" else rate,
    }  # fmt: skip
    model: Any
    if agent == "ppo":
        model = PPO("MlpPolicy", environments, n_epochs=settings.epochs, **common)
    else:
        model = TRPO(
            "MlpPolicy", environments, n_critic_updates=settings.critic_epochs,
            cg_max_steps=settings.cg_iterations, target_kl=settings.max_kl, **common,
        )  # fmt: skip
    points: list[tuple[int, float]] = []
    returns: deque[float] = deque(maxlen=WINDOW)

    class Note(BaseCallback):
        def _on_step(self) -> bool:
            returns.extend(info["episode"]["r"] for info in self.locals["infos"] if "episode" in info)
            return True

        def _on_rollout_end(self) -> None:
            points.append((self.num_timesteps, float(np.mean(returns)) if returns else float("nan")))

    model.learn(steps, Note())

    def evaluate() -> list[float]:
        fresh = VecNormalize(sb3_environments(env, 8, EVALUATION_SEED), training=False, norm_reward=False)
        fresh.obs_rms = environments.obs_rms
        returns, _ = evaluate_policy(model, fresh, EPISODES, return_episode_rewards=True)
        return [float(value) for value in returns]

    return points, evaluate


def measure(agent: str, env: str, side: Side, seed: int, steps: int) -> Run:
    """Train once and evaluate."""
    began = time.perf_counter()
    points, evaluate = (train_peer if side == "peer" else train_rllab)(agent, env, side, seed, steps)
    seconds = time.perf_counter() - began
    thinned = points[:: max(1, len(points) // 100)]
    if thinned[-1] != points[-1]:
        thinned.append(points[-1])
    return Run(agent, env, side, seed, steps, seconds, thinned, evaluate())


def noted(path: Path) -> list[Run]:
    """The runs that the file holds."""
    return [Run(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def report(runs: list[Run], arguments: Arguments) -> None:
    """Print training and evaluation returns by seed, with intervals of the means over seeds."""
    table = Table(title=f"{arguments.agent.upper()} after {arguments.steps:,} steps", title_justify="left")
    table.add_column("")
    for heading in (
        "last 100 training episodes, by seed",
        "mean",
        "95 %",
        "100 fresh episodes, by seed",
        "mean",
        "s/run",
    ):
        table.add_column(heading, justify="right")
    for env in arguments.envs:
        for side, label in SIDES.items():
            these = [
                r for r in runs if (r.agent, r.env, r.side, r.steps) == (arguments.agent, env, side, arguments.steps)
            ]
            if not these:
                continue
            these.sort(key=lambda run: run.seed)
            last, fresh = [run.curve[-1][1] for run in these], [float(np.mean(run.returns)) for run in these]
            interval = bootstrap_interval(last, np.mean)
            table.add_row(
                f"{env}, {label}",
                "  ".join(f"{value:,.0f}" for value in last),
                f"{np.mean(last):,.0f}",
                f"{interval[0]:,.0f} – {interval[1]:,.0f}",
                "  ".join(f"{value:,.0f}" for value in fresh),
                f"{np.mean(fresh):,.0f}",
                f"{np.mean([run.seconds for run in these]):,.0f}",
            )
    console.print(table)


def draw(runs: list[Run], arguments: Arguments, path: Path) -> None:
    """A panel for each environment: every seed's training returns, by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(arguments.envs), 3.8), layout="constrained", dpi=120)
    panels = figure.subplots(1, len(arguments.envs), squeeze=False)[0]
    styles: dict[Side, tuple[str, str]] = {
        "rllab": (PALETTE[0], "-"), "region": (PALETTE[2], "-."), "peer": (PALETTE[1], "--"),
    }  # fmt: skip
    for panel, env in zip(panels, arguments.envs, strict=True):
        for side, (colour, line) in styles.items():
            label = SIDES[side]
            these = [r for r in runs if (r.agent, r.env, r.side) == (arguments.agent, env, side)]
            for i, run in enumerate(these):
                steps, values = np.array(run.curve).T
                panel.plot(steps / 1e6, values, line, color=colour, linewidth=1.3, label=None if i else label)
        panel.set(title=env, xlabel="million environment steps")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("mean return of the last 100 episodes")
    panels[0].legend(loc="upper left")
    figure.suptitle(f"{arguments.agent.upper()}, a line for each seed")
    figure.savefig(path)
    console.print(f"Figure: {path}")


def main(arguments: Arguments) -> None:
    """Train what is missing, then print."""
    print_machine("stable-baselines3", "sb3-contrib", "mujoco")
    torch.set_num_threads(1)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    done = {(r.agent, r.env, r.side, r.seed, r.steps) for r in noted(arguments.out)}
    for seed in arguments.seeds:
        for env in arguments.envs:
            for side in arguments.sides:
                if (arguments.agent, env, side, seed, arguments.steps) in done:
                    continue
                run = measure(arguments.agent, env, side, seed, arguments.steps)
                with arguments.out.open("a") as file:
                    file.write(json.dumps(run.__dict__) + "\n")
                console.print(
                    f"{run.agent} {env}, {side}, seed {seed}: {run.curve[-1][1]:,.0f} in training, "
                    f"{np.mean(run.returns):,.0f} evaluated ({run.seconds:,.0f} s)"
                )
    report(noted(arguments.out), arguments)
    if arguments.plot is not None:
        draw(noted(arguments.out), arguments, arguments.plot)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
