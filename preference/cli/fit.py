"""Learn a reward model from stored comparisons alone, without the environment."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from envs.errors import RllabError
from preference.fit import FitConfig
from preference.reward_model import RewardConfig
from rllab.cli.arguments import Flag, parse
from rllab.cli.console import number, print_facts, print_next, quoted

if TYPE_CHECKING:
    from preference.stored import StoredComparisons

StoreName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
"""A store: a file, a database's URL, or a run of `learn` that has one."""


@dataclass(frozen=True)
class FitOptions:
    """What is learnt from, and where the model goes."""

    store: StoreName
    """A store of comparisons: its file, its database's URL, or a run of `rllab preference learn`."""
    out: Path | None = None
    """The model's folder, a new or an empty one; by default `reward-model` beside the store's file."""
    run: str | None = None
    """Only comparisons that the run of this id asked for; by default all in the store."""
    epochs: int | None = None
    """Passes over the comparisons; by default 4 times --fit-epochs, as for the first fit of a run."""
    seed: int = 0
    """Of the weights, of what is held out and of the minibatches."""
    quiet: Flag = False
    """Print nothing but warnings and errors."""


@dataclass(frozen=True)
class FitArguments:
    """Learn a reward model from stored comparisons alone, without the environment."""

    options: FitOptions
    reward: RewardConfig = dataclasses.field(default_factory=RewardConfig)
    fit: FitConfig = dataclasses.field(default_factory=FitConfig)


def command(argv: Sequence[str]) -> int:
    """`rllab preference fit STORE [flags]`."""
    arguments: FitArguments = parse(FitArguments, argv, "preference fit")
    from preference.cli.measures import LEGEND, print_measures
    from preference.cli.places import open_store, refuse_occupied
    from preference.plots import plot_reliability
    from preference.stored import REPORTS, StoredComparisons, fit_stored

    options = arguments.options
    if options.seed < 0:
        raise RllabError(f"--seed must be 0 or more, not {options.seed}")
    with open_store(options.store) as store:
        out = options.out or _beside(store.database.path)
        refuse_occupied(out)
        stored = StoredComparisons.read(store, options.run)
        name = store.database.name
    if not options.quiet:
        print(describe(stored, name), flush=True)

    live = sys.stdout.isatty()

    def tell(done: int, total: int, loss: float) -> None:
        if options.quiet:
            return
        line = f"epoch {done}/{total}  training loss {loss:.4f}"
        if live:
            print(line, end="\r" if done < total else "\n", flush=True)
        elif done == total or done * 4 // total > (done - max(1, total // REPORTS)) * 4 // total:  # by quarters
            print(line, flush=True)

    fitted = fit_stored(
        stored, arguments.reward, arguments.fit, epochs=options.epochs, seed=options.seed, progress=tell
    )  # fmt: skip
    about = {"environment": stored.task.environment, "comparisons": len(stored), "seed": options.seed}
    fitted.save(out, about)
    measures = {"learnt from": fitted.training, "held out": fitted.held_out}
    figure = plot_reliability(measures, out / "reliability.png", stored.task.environment)
    if options.quiet:
        return 0
    print_measures(measures)
    print(LEGEND)
    losses = fitted.losses
    print()
    print_facts([
        ("Loss", f"{number(losses['reward/training_loss'])} in training, {number(losses['reward/held_out_loss'])} on "
                 f"what was held out; ratio {number(losses['reward/loss_ratio'])}, λ {losses['reward/l2']:.2g}"),
        ("Model", str(out)),
        ("Reliability", str(figure)),
    ])  # fmt: skip
    print_next([
        ("measure it on other comparisons", f"rllab preference evaluate {quoted(out)} --store OTHER_STORE"),
        ("measure it against a true reward", f"rllab preference evaluate {quoted(out)} --run RUN"),
    ])  # fmt: skip
    return 0


def describe(stored: "StoredComparisons", name: str) -> str:
    """In sentences: how many comparisons there are, by whom, and what became of skips and repetitions."""
    by = ", ".join(f"{annotator} ({count:,})" for annotator, count in stored.annotators.most_common())
    text = f"{len(stored):,} comparisons of {len(stored.clips):,} clips of {stored.task.environment} in {name}, by {by}"
    if stored.skipped:
        text += f"; {stored.skipped:,} skipped ones say nothing and are left out"
    if stored.repeated:
        text += f"; {stored.repeated:,} pairs were answered by several annotators, and every answer counts"
    return f"{text}."


def _beside(path: Path | None) -> Path:
    if path is None:
        raise RllabError("name the model's folder by --out, since the store is no file that it could lie beside")
    return path.parent / "reward-model"
