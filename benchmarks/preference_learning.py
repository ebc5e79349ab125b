"""Pendulum learnt from 200 comparisons, beside imitation: the last policy's true return, and CPU seconds end to end.

The peer's side is its documentation's "Learn a reward function using preference comparisons" as it stands there, its
agent the one that is trained within. Ours has the same 32-32 network as a reward, and PPO with the settings found best
here; beside it with those of the peer. Our agent on the true reward shows what can be expected of it.

By `--task cartpole`, CartPole with a fixed horizon of 500 steps instead, where a fall is an absorbing state; there the
peer is left out.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro
from common import console, print_machine
from peer_process import PeerProcess
from rich.table import Table

from preference.config import PreferenceConfig, QueryConfig
from preference.experiment import learn
from preference.reward_model import RewardConfig
from rllab.experiment import TrainedRun, evaluate, train
from rllab.threads import single_threaded


@dataclass(frozen=True)
class Task:
    """What is learnt, and how."""

    env: str
    agent: dict[str, Any]
    preference: PreferenceConfig
    peer_settings: dict[str, Any] = field(default_factory=dict)
    """Those of the agent's settings that are different on the peer's side."""


TASKS = {
    "pendulum": Task(
        "Pendulum-v1",
        {
            "steps": 50_000, "num_envs": 8, "rollout_steps": 256, "minibatch_size": 64, "epochs": 10, "discount": 0.95,
            "gae_lambda": 0.95, "learning_rate": 3e-3, "learning_rate_schedule": "linear", "clip_range": 0.1,
            "clip_range_schedule": "constant", "entropy_coefficient": 0.01, "log_std_init": 0.5,
            "termination": "episode",
        },
        PreferenceConfig(
            query=QueryConfig(labels=200, clip_steps=50),
            reward=RewardConfig(members=1, reward_hidden_sizes=(32, 32), reward_activation="relu"),
        ),
        {"discount": 0.97, "learning_rate": 2e-3, "learning_rate_schedule": "constant", "log_std_init": 0.0},
    ),
    "cartpole": Task(
        "CartPole-v1",
        {
            "steps": 300_000, "num_envs": 8, "rollout_steps": 500, "minibatch_size": 500, "epochs": 10,
            "discount": 0.99, "gae_lambda": 0.95, "clip_range_schedule": "constant", "termination": "absorbing",
        },
        PreferenceConfig(query=QueryConfig(labels=200), reward=RewardConfig(reward_hidden_sizes=(32, 32))),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    task: Literal["pendulum", "cartpole"] = "pendulum"
    """What to learn."""
    peer_python: Path | None = None
    """The interpreter of a virtual environment with imitation 1.0.1 (benchmarks/README.md says how to make one);
    without it only our side is measured."""
    seeds: int = 3
    """Seeds 0, 1, … of each side."""
    episodes: int = 100
    """Episodes of the true environment that the last policy plays, by its most probable actions."""
    peer_iterations: tuple[int, ...] = (5,)
    """How often the peer asks and fits: 5 in its documentation, which recommends 60; since each takes at least one
    rollout of 2,048 steps, 60 are 123,000 steps."""


@dataclass(frozen=True)
class Outcome:
    """Of one seed."""

    returned: float
    cpu_seconds: float


def measured(start: Callable[[], TrainedRun], episodes: int) -> Outcome:
    """One of our trainings, in this process."""
    started = time.process_time()
    run = start()
    cpu_seconds = time.process_time() - started
    return Outcome(
        evaluate(run, episodes=episodes, seed=1000, deterministic=True, checkpoint="latest").mean, cpu_seconds
    )


def ours(task: Task, settings: dict[str, Any], folder: Path, episodes: int) -> Callable[[], Outcome]:
    """Our training from comparisons, when it is called."""
    return lambda: measured(
        lambda: learn("ppo", task.env, task.preference, out=folder / "learnt", **settings), episodes
    )


def main(arguments: Arguments) -> None:
    """All sides take turns, seed by seed."""
    task = TASKS[arguments.task]
    print_machine()
    outcomes: dict[str, list[Outcome]] = {}
    with ExitStack() as stack:
        stack.enter_context(single_threaded())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        peer = None
        if arguments.task == "pendulum" and arguments.peer_python is not None:
            peer = stack.enter_context(PeerProcess(arguments.peer_python, "peer_imitation.py"))
            versions = peer.ask("versions")
            console.print("The peer: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "\n")
        elif arguments.task == "pendulum":
            console.print("imitation is left out: --peer-python names the interpreter that has it.\n")
        for seed in range(arguments.seeds):
            common = {
                **task.agent, "seed": seed, "evaluation_every": 0, "checkpoint_every": 0, "overwrite": True,
                "quiet": True,
            }  # fmt: skip
            like_peer = {**common, **task.peer_settings}
            sides = {"rllab": ours(task, common, folder, arguments.episodes)}
            if task.peer_settings:
                sides["rllab, the peer's settings of PPO"] = ours(task, like_peer, folder, arguments.episodes)
            sides["rllab, on the true reward"] = lambda common=common: measured(
                lambda: train("ppo", task.env, out=folder / "true", **common), arguments.episodes
            )
            for iterations in arguments.peer_iterations if peer is not None else ():
                sides[f"imitation, {iterations} iterations"] = lambda n=iterations, seed=seed: peer_outcome(
                    peer, task, n, seed, arguments.episodes
                )
            for name, side in sides.items():
                outcome = side()
                outcomes.setdefault(name, []).append(outcome)
                console.print(f"seed {seed}, {name}: {outcome.returned:.1f} in {outcome.cpu_seconds:.1f} CPU s")
    print_outcomes(task, outcomes, arguments)


def peer_outcome(peer: PeerProcess, task: Task, iterations: int, seed: int, episodes: int) -> Outcome:
    """The peer's training of one seed."""
    answer = peer.ask(
        "learn", steps=task.agent["steps"], labels=task.preference.query.labels, iterations=iterations, seed=seed,
        episodes=episodes,
    )  # fmt: skip
    return Outcome(answer["return"], answer["cpu_seconds"])


def print_outcomes(task: Task, outcomes: dict[str, list[Outcome]], arguments: Arguments) -> None:
    """Returns by seed and their median; CPU seconds, and how many times as many as ours the others took."""
    labels, steps = task.preference.query.labels, task.agent["steps"]
    title = f"{task.env}, {steps:,} steps, {labels} comparisons: true returns over {arguments.episodes} episodes"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in (*(f"seed {seed}" for seed in range(arguments.seeds)), "median", "CPU s, median", "× ours"):
        table.add_column(heading, justify="right")
    our_seconds = statistics.median(outcome.cpu_seconds for outcome in next(iter(outcomes.values())))
    for name, each in outcomes.items():
        cpu_seconds = statistics.median(outcome.cpu_seconds for outcome in each)
        table.add_row(
            name,
            *(f"{outcome.returned:.1f}" for outcome in each),
            f"{statistics.median(outcome.returned for outcome in each):.1f}",
            f"{cpu_seconds:.1f}",
            f"{cpu_seconds / our_seconds:.2f}",
        )
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
