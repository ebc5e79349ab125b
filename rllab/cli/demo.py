"""Show in a few minutes what the lab does: train an agent, evaluate it, plot its learning and film it.

The demonstration is a list of acts, entry points of the group `rllab.demo_acts` in the order of their names; each
returns the rows it adds to the table at the end.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from envs.errors import RllabError
from envs.render import frames_per_second, write_video
from rllab.cli.arguments import parse
from rllab.cli.console import interval, number, print_next, print_table, quoted
from rllab.config import configure
from rllab.evaluate import film
from rllab.experiment import evaluate, load, train
from rllab.plots import plot_run
from rllab.progress import format_count, format_duration
from rllab.runs import Run

THRESHOLD = 475.0
"""The mean return over 100 episodes at which CartPole-v1 counts as solved (Gymnasium's own `reward_threshold`)."""
CONTROL_RUN = "cartpole-ppo"
"""The first act's run, in the demonstration's folder."""
_PLOTTED = ("steps", "return_mean", "length_mean", "entropy", "evaluation/return_mean", "evaluation/length_mean")


@dataclass(frozen=True)
class DemoArguments:
    """Show in a few minutes what the lab does: train an agent, evaluate it, plot its learning and film it."""

    out: Path | None = None
    """An empty or new folder for all that is made; by default a new one in runs/."""


@dataclass(frozen=True)
class Result:
    """What an act has come to."""

    rows: list[tuple[str, str]]
    """What happened, and where things lie: names and values for the table."""
    next_commands: list[tuple[str, str]]
    """Purposes and commands to try."""
    failure: str | None = None
    """One sentence if the act did not reach its goal."""


@dataclass(frozen=True)
class Act:
    """A part of the demonstration."""

    title: str
    play: Callable[[Path], Result]
    """Takes the folder for what it makes; the first line of its docstring announces it."""


def command(argv: Sequence[str]) -> int:
    """`rllab demo`; exit code 1 if an act did not reach its goal."""
    arguments: DemoArguments = parse(DemoArguments, argv, "demo")
    out = arguments.out or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RllabError(f"{out} is not an empty folder; choose another with --out")
    began = time.perf_counter()
    acts = [entry.load() for entry in sorted(entry_points(group="rllab.demo_acts"), key=lambda entry: entry.name)]
    results = []
    for index, act in enumerate(acts, start=1):
        scene = (act.play.__doc__ or "").partition("\n")[0]
        print(f"Act {index} of {len(acts)}, {act.title}: {scene}", flush=True)
        results.append(act.play(out))
    rows = [(act.title if row == 0 else "", *cells) for act, result in zip(acts, results, strict=True)
            for row, cells in enumerate(result.rows)]  # fmt: skip
    print()
    print_table(("Act", "", "What happened"), rows)
    print(f"All of it took {format_duration(time.perf_counter() - began)} and lies in {out}")
    print_next([command for result in results for command in result.next_commands])
    failures = [result.failure for result in results if result.failure is not None]
    for failure in failures:
        print(f"rllab: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _control(folder: Path) -> Result:
    """PPO learns CartPole-v1 to its threshold, is evaluated in 100 fresh episodes, plotted and filmed."""
    # Only how often it is looked at, and when that is enough, differ from the preset.
    config = configure(
        "ppo", "CartPole-v1", {"evaluation_every": 10_000, "evaluation_episodes": 50, "stop_at": THRESHOLD}
    )
    run = train(config, out=folder / CONTROL_RUN)
    metrics = Run.open(run.path).read_metrics()
    seconds = metrics[-1]["seconds"]

    summary = evaluate(run, episodes=100).summary()
    shown = [{name: row[name] for name in _PLOTTED if name in row} for row in metrics]
    plot = plot_run(shown, folder / "learning-curve.png", "PPO on CartPole-v1")
    video = folder / "cartpole.mp4"
    write_video(video, film(load(run.path), config.env), frames_per_second(config.env))

    rows = [
        ("Trained", f"{run.steps:,} steps in {format_duration(seconds)} ({format_count(run.steps / seconds)} steps/s)"),
        ("Stopped because", run.stop_reason or "all steps were done"),
        ("Evaluated", f"mean return {number(summary['mean'])} of 500 over 100 episodes (solved from {THRESHOLD:g})"),
        ("", f"interquartile mean {number(summary['iqm'])}, 95 % interval {interval(*summary['ci95'])}"),
        ("Run", str(run.path)),
        ("Learning curve", str(plot)),
        ("Video", str(video)),
    ]
    path = quoted(run.path)
    next_commands = [
        ("all its numbers", f"tensorboard --logdir {path}"),
        ("evaluate it again", f"rllab evaluate {path} --episodes 100 --seed 1"),
        ("train another", "rllab train trpo CartPole-v1"),
        ("see what there is", "rllab envs --preset"),
    ]
    failure = None
    if summary["mean"] < THRESHOLD:
        failure = f"CartPole-v1 was not solved: its mean return is {number(summary['mean'])}, below {THRESHOLD:g}"
    return Result(rows, next_commands, failure)


CONTROL = Act("Control", _control)
"""The first act."""
