"""What runs have come to, read from their folders: the tables that end `rllab train` and `rllab resume`."""

import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rllab.cli.console import interval, number, print_facts, print_next, print_table, quoted
from rllab.launched import TOGETHER
from rllab.progress import format_count, format_duration
from rllab.runs import Run
from rllab.statistics import bootstrap_interval, iqm

if TYPE_CHECKING:
    from rllab.interrupt import Interrupted


@dataclass(frozen=True)
class Outcome:
    """A run in a few numbers; NaN stands for what has not been measured."""

    run: Run
    steps: int
    seconds: float
    training_return: float
    """Mean return of the last training episodes."""
    evaluation: float
    """Mean return of the last evaluation."""
    evaluation_std: float
    best: float
    """Mean return of the best evaluation."""
    best_steps: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read it from a run's metrics. Raises RllabError if there are none."""
        run = Run.open(path)
        rows = run.read_metrics()
        last = rows[-1] if rows else {}
        evaluations = [row for row in rows if math.isfinite(row.get("evaluation/return_mean", math.nan))]
        final = evaluations[-1] if evaluations else {}
        best = max(evaluations, key=lambda row: row["evaluation/return_mean"], default={})
        return cls(
            run=run,
            steps=int(last.get("steps", 0)),
            seconds=last.get("seconds", 0.0),
            training_return=last.get("return_mean", math.nan),
            evaluation=final.get("evaluation/return_mean", math.nan),
            evaluation_std=final.get("evaluation/return_std", math.nan),
            best=best.get("evaluation/return_mean", math.nan),
            best_steps=int(best.get("steps", 0)),
        )

    @property
    def rate(self) -> str:
        """Steps a second over the whole training."""
        return format_count(self.steps / self.seconds) if self.seconds else "–"


def report_run(path: Path, stop_reason: str | None = None, further: Sequence[tuple[str, str]] = ()) -> None:
    """Print how a training went, and what to do next: `further` purposes and commands too."""
    outcome = Outcome.of(path)
    if "goal" in outcome.run.config:
        _report_supervised(outcome, stop_reason, further)
        return
    facts = [
        ("Run", str(path)),
        ("Steps", f"{outcome.steps:,} in {format_duration(outcome.seconds)} ({outcome.rate} steps/s)"),
    ]
    if stop_reason:
        facts.append(("Stopped", stop_reason))
    if math.isfinite(outcome.training_return):
        facts.append(("Training return", f"{number(outcome.training_return)} (mean of the last episodes)"))
    if math.isfinite(outcome.evaluation):
        count = outcome.run.config["loop"]["evaluation_episodes"]
        episodes = "1 episode" if count == 1 else f"{count} episodes"
        facts += [
            ("Evaluation", f"{number(outcome.evaluation)} ± {number(outcome.evaluation_std)} ({episodes})"),
            ("Best", f"{number(outcome.best)} at {outcome.best_steps:,} steps"),
        ]
    print()
    print_facts(facts)
    run, steps_wanted = quoted(path), outcome.run.config["loop"]["steps"]
    commands = [
        ("evaluate it", f"rllab evaluate {run} --episodes 100"),
        ("watch it", f"rllab watch {run} --output {quoted(path / 'videos' / 'policy.mp4')}"),
    ]
    resume = ("train it further", f"rllab resume {run} --steps {2 * max(outcome.steps, steps_wanted)}")
    print_next([*commands, *further, resume])


def _report_supervised(outcome: Outcome, stop_reason: str | None, further: Sequence[tuple[str, str]]) -> None:
    """Of a run that was trained on data, whose configuration names the number it is judged by."""
    config, path = outcome.run.config, outcome.run.path
    goal = f"evaluation/{config['goal']}"
    judged = [row for row in outcome.run.read_metrics() if math.isfinite(row.get(goal, math.nan))]
    facts = [
        ("Run", str(path)),
        ("Steps", f"{outcome.steps:,} in {format_duration(outcome.seconds)} ({outcome.rate} steps/s)"),
    ]
    if stop_reason:
        facts.append(("Stopped", stop_reason))
    if judged:
        best = (max if config["higher_is_better"] else min)(judged, key=lambda row: row[goal])
        facts += [
            (config["goal"].replace("_", " ").capitalize(), f"{number(judged[-1][goal])} on held-out data"),
            ("Best", f"{number(best[goal])} at {int(best['steps']):,} steps"),
        ]
    print()
    print_facts(facts)
    steps = 2 * max(outcome.steps, config["loop"]["steps"])
    print_next([*further, ("train it further", f"rllab resume {quoted(path)} --steps {steps}")])


def report_runs(parent: Path, paths: Sequence[Path]) -> None:
    """Print how several trainings of one configuration went, and what to do next; nothing if there are none."""
    outcomes = [Outcome.of(path) for path in paths]
    if not outcomes:
        return
    columns = ("Run", "Steps", "Time", "Steps/s", "Training return", "Evaluation", "Best")
    rows = [
        (
            outcome.run.path.name,
            f"{outcome.steps:,}",
            format_duration(outcome.seconds),
            outcome.rate,
            number(outcome.training_return),
            number(outcome.evaluation),
            number(outcome.best),
        )
        for outcome in outcomes
    ]
    print()
    print_table(columns, rows, right=columns[1:])
    evaluations = [outcome.evaluation for outcome in outcomes if math.isfinite(outcome.evaluation)]
    if len(evaluations) > 1:
        ends = interval(*bootstrap_interval(evaluations))
        average = f"{number(iqm(evaluations))}, 95 % interval {ends} over {len(evaluations)} seeds"
        print_facts([("Interquartile mean of the evaluations", average), ("Folder", str(parent))])
    folder = quoted(parent)
    print_next(
        [
            ("evaluate them", f"rllab evaluate {folder} --episodes 100"),
            ("plot them", f"rllab compare {folder} --output {quoted(parent / 'learning-curves.png')}"),
        ]
    )


def report_interruption(error: "Interrupted", path: Path) -> int:
    """Say where an interrupted training (or a folder of several) lies and how to go on; returns the exit code."""
    resume = shlex.join(["rllab", "resume", str(path)])
    if TOGETHER.rank == 0:
        print(f"rllab: {error}; saved in {path}\nrllab: go on with: {resume}", file=sys.stderr)
    return error.exit_code
