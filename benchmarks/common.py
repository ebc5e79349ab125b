"""What every benchmark shares: interleaved repetitions, medians and ratios, the machine, and our side's training.

A rate depends on the machine, on what else it does and on the minute, so no figure here stands alone. Contenders do
the same work in one process, in turns (A B C, A B C, …) after a warm-up turn each, and what is claimed of them is
the ratio of their medians. Steps per CPU second, summed over threads, are printed too: they suffer least where the
machine is shared, and they show what a second thread costs.
"""

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from envs.make import reset
from envs.registry import family_of, find_spec
from envs.simulators import quiet_mujoco
from rllab.config import configure
from rllab.runs import Run
from rllab.workshop import Workshop

console = Console(width=None if os.isatty(1) else 140)


@dataclass(frozen=True)
class Sample:
    """One repetition of a contender."""

    steps: int
    """How much work was done: environment steps."""
    seconds: float
    """By the wall clock."""
    cpu_seconds: float
    """Of all threads together."""


@dataclass(frozen=True)
class Contender:
    """Something that does the work once each time `measure` is called."""

    name: str
    measure: Callable[[], Sample]
    side: str
    """"rllab", a peer's name, "limit" (our environments alone) or "peer's limit" (the peer's alone)."""
    threads: int = 1
    """What `torch.set_num_threads` is given before each repetition."""


@dataclass
class Result:
    """All repetitions of a contender but its warm-up."""

    contender: Contender
    samples: list[Sample] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Steps per second of wall time, one a repetition."""
        return [sample.steps / sample.seconds for sample in self.samples]

    @property
    def median(self) -> float:
        """The median of `rates`."""
        return statistics.median(self.rates)

    @property
    def cpu_median(self) -> float:
        """The median of steps per CPU second."""
        return statistics.median(sample.steps / sample.cpu_seconds for sample in self.samples)


def timed(work: Callable[[], int]) -> Callable[[], Sample]:
    """A measurement of `work`, which returns the steps it did in this process."""

    def measure() -> Sample:
        wall, cpu = time.perf_counter(), time.process_time()
        steps = work()
        return Sample(steps, time.perf_counter() - wall, time.process_time() - cpu)

    return measure


def interleave(contenders: Sequence[Contender], repetitions: int) -> list[Result]:
    """Let the contenders take turns: one warm-up each, which is dropped, then `repetitions` rounds."""
    results = [Result(contender) for contender in contenders]
    threads = torch.get_num_threads()
    try:
        for turn in range(repetitions + 1):
            for result in results:
                torch.set_num_threads(result.contender.threads)
                sample = result.contender.measure()
                if turn > 0:
                    result.samples.append(sample)
    finally:
        torch.set_num_threads(threads)
    return results


def print_rates(title: str, results: Sequence[Result], *, peer: str) -> None:
    """Print rates, ratios to the fastest contender of side `peer`, and shares of the contender of side "limit".

    The first ratio is of steps per second, the second of steps per CPU second. Contenders of sides "limit" and
    "peer's limit" do not train, so they have no ratio.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in ("threads", "steps/s, median", "min – max", "× peer", "steps per CPU s", "× peer", "of the limit"):
        table.add_column(heading, justify="right")
    peers = [result for result in results if result.contender.side == peer]
    best = max(peers, key=lambda result: result.median)
    limit = max(result.median for result in results if result.contender.side == "limit")
    for result in results:
        trains = "limit" not in result.contender.side
        table.add_row(
            result.contender.name + (" ←" if result is best and len(peers) > 1 else ""),
            str(result.contender.threads),
            f"{result.median:,.0f}",
            f"{min(result.rates):,.0f} – {max(result.rates):,.0f}",
            f"{result.median / best.median:.2f}" if trains else "",
            f"{result.cpu_median:,.0f}",
            f"{result.cpu_median / best.cpu_median:.2f}" if trains else "",
            f"{result.median / limit:.0%}" if trains else "",
        )
    console.print(table)
    name, threads = best.contender.name, best.contender.threads
    console.print(f"The peer is {name} with {threads} thread{'s' if threads > 1 else ''}, the faster choice here.\n")


def print_machine(*packages: str) -> None:
    """Say what the figures were measured on and with: processor, cores, load, versions, threads."""
    names = ["torch", "numpy", "gymnasium", *packages]
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    console.print(f"{_processor()}, {os.cpu_count()} cores{load}; Python {platform.python_version()}")
    console.print(", ".join(f"{name} {version(name) or 'absent'}" for name in names))
    console.print(", ".join(f"{name}={os.environ.get(name, 'unset')}" for name in variables) + "\n")


def version(distribution: str) -> str | None:
    """The installed version of a distribution; None if it is absent."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def rllab_training(
    name: str, agent: str, env: str, steps: int, settings: dict[str, Any], *, folder: Path | None = None,
    threads: int = 1,
) -> Contender:  # fmt: skip
    """Our side: one training, made as `rllab.train` makes it, that goes on for `steps` at each repetition.

    Args:
        name: in the table.
        agent: reinforce, ppo or trpo.
        env: a Gymnasium id.
        steps: environment steps in a repetition.
        settings: any fields of the configuration; presets are not used.
        folder: where to leave a run (metrics, TensorBoard, a checkpoint each repetition); by default nothing is
            written. Evaluation is off either way, since it is work that the peers do not do.
        threads: of torch; policies of small networks take one whatever this is.
    """
    config = configure(agent, env, {**settings, "evaluation_every": 0, "checkpoint_every": 0}, preset=False)
    run = None if folder is None else Run.create(folder, config.to_json())
    training = Workshop(config).training(run, quiet=True)

    def train() -> int:
        before = training.steps
        training.config = replace(training.config, steps=before + steps)
        training.run()
        return training.steps - before

    return Contender(name, timed(train), side="rllab", threads=threads)


def sb3_environments(env: str, num_envs: int, seed: int = 0) -> Any:
    """The peer's vector environment, as its `make_vec_env` makes it by default: one after another."""
    from stable_baselines3.common.env_util import make_vec_env

    with quiet_mujoco(needed=family_of(find_spec(env)).package == "mujoco"):
        return make_vec_env(env, num_envs, seed=seed)


def sb3_training(name: str, make: Callable[[], Any], steps: int, *, threads: int) -> Contender:
    """The peer: a Stable-Baselines3 algorithm that goes on learning for `steps` at each repetition."""
    model = make()

    def learn() -> int:
        before: int = model.num_timesteps
        model.learn(steps, reset_num_timesteps=False)
        return int(model.num_timesteps) - before

    return Contender(name, timed(learn), side="Stable-Baselines3", threads=threads)


def stepping(name: str, vector_env: gymnasium.vector.VectorEnv[Any, Any, Any], columns: int) -> Contender:
    """The limit: the environments stepped by random actions, drawn beforehand, and nothing else."""
    reset(vector_env, 0)
    actions = [vector_env.action_space.sample() for _ in range(64)]

    def step() -> int:
        for column in range(columns):
            vector_env.step(actions[column % len(actions)])
        return columns * vector_env.num_envs

    return Contender(name, timed(step), side="limit")


def sb3_stepping(name: str, vector_env: Any, columns: int) -> Contender:
    """The peer's own limit: its vector environment stepped by random actions."""
    vector_env.reset()
    actions = [np.stack([vector_env.action_space.sample() for _ in range(vector_env.num_envs)]) for _ in range(64)]

    def step() -> int:
        for column in range(columns):
            vector_env.step(actions[column % len(actions)])
        return columns * int(vector_env.num_envs)

    return Contender(name, timed(step), side="peer's limit")
