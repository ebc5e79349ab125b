"""What is learnt on MuJoCo from comparisons, beside the same agent on the true reward (Christiano et al. 2017, fig. 2).

PPO with its preset, 700 and 1400 comparisons by an oracle, the reward model and the questions by default; every episode
has 1000 steps, on both sides. One run at a time, each noted in a file of JSON lines, so that an interrupted benchmark
goes on where it was. At the end the last policy plays 20 fresh episodes by its most probable actions.
"""

import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from common import console, print_machine
from rich.table import Table

from preference.config import PreferenceConfig, QueryConfig
from preference.experiment import learn
from preference.horizon import constant_horizon
from rllab.experiment import evaluate, train
from rllab.runs import Run

EPISODES, EVALUATION_SEED = 20, 12_345


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    envs: tuple[str, ...] = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5")
    """Gymnasium ids."""
    labels: tuple[int, ...] = (0, 700, 1400)
    """Comparisons; 0: the true reward."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds, the same on all sides."""
    steps: int = 300_000
    """Environment steps, those of the first questions included."""
    out: Path = Path("runs/preference-control.jsonl")
    """Where finished runs are noted; what is noted there already is not run again."""


@dataclass
class Outcome:
    """One finished training."""

    env: str
    labels: int
    seed: int
    steps: int
    seconds: float
    training: float
    """Mean true return of the last 100 training episodes."""
    evaluation: float
    """Mean true return of the fresh ones."""
    correlation: float
    """Pearson's, between learned and true reward a step, when it was last measured; NaN on the true reward."""


def measure(env: str, labels: int, seed: int, steps: int) -> Outcome:
    """Train once and evaluate."""
    settings = {
        "steps": steps, "seed": seed, "evaluation_every": 0, "checkpoint_every": 0, "tensorboard": False,
        "termination": constant_horizon(env),
    }  # fmt: skip
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        if labels:
            preference = PreferenceConfig(query=QueryConfig(labels=labels))
            run = learn("ppo", env, preference, out=out, quiet=True, **settings)
        else:
            run = train("ppo", env, out=out, quiet=True, **settings)
        seconds = time.perf_counter() - began
        rows = Run.open(out).read_metrics()
        correlations = [row["reward/step_pearson"] for row in rows if "reward/step_pearson" in row]
        mean = evaluate(run, episodes=EPISODES, seed=EVALUATION_SEED, deterministic=True).mean
    correlation = correlations[-1] if correlations else float("nan")
    return Outcome(env, labels, seed, steps, seconds, rows[-1]["return_mean"], mean, correlation)


def noted(path: Path) -> list[Outcome]:
    """The runs that the file holds."""
    return [Outcome(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def report(outcomes: list[Outcome], arguments: Arguments) -> None:
    """Print true returns by seed, and the ratio of their means to the true reward's."""
    table = Table(title=f"PPO after {arguments.steps:,} steps: true returns", title_justify="left")
    table.add_column("")
    for heading in ("training, by seed", "mean", "evaluation, by seed", "mean", "ratio", "correlation", "s/run"):
        table.add_column(heading, justify="right")
    for env in arguments.envs:
        reference = None
        for labels in sorted(arguments.labels):
            these = [o for o in outcomes if (o.env, o.labels, o.steps) == (env, labels, arguments.steps)]
            if not these:
                continue
            these.sort(key=lambda outcome: outcome.seed)
            training, fresh = [o.training for o in these], [o.evaluation for o in these]
            mean = float(np.mean(training))
            reference = mean if labels == 0 else reference
            table.add_row(
                f"{env}, " + (f"{labels} comparisons" if labels else "true reward"),
                "  ".join(f"{value:,.0f}" for value in training),
                f"{mean:,.0f}",
                "  ".join(f"{value:,.0f}" for value in fresh),
                f"{np.mean(fresh):,.0f}",
                "–" if reference is None else f"{mean / reference:.2f}",
                f"{np.mean([o.correlation for o in these]):.2f}" if labels else "–",
                f"{np.mean([o.seconds for o in these]):,.0f}",
            )
    console.print(table)


def main(arguments: Arguments) -> None:
    """Train what is missing, then print."""
    print_machine("mujoco")
    torch.set_num_threads(1)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    done = {(o.env, o.labels, o.seed, o.steps) for o in noted(arguments.out)}
    for seed in arguments.seeds:
        for env in arguments.envs:
            for labels in arguments.labels:
                if (env, labels, seed, arguments.steps) in done:
                    continue
                outcome = measure(env, labels, seed, arguments.steps)
                with arguments.out.open("a") as file:
                    file.write(json.dumps(asdict(outcome)) + "\n")
                console.print(
                    f"{env}, {labels} labels, seed {seed}: {outcome.training:,.0f} in training, "
                    f"{outcome.evaluation:,.0f} evaluated ({outcome.seconds:,.0f} s)"
                )
    report(noted(arguments.out), arguments)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
