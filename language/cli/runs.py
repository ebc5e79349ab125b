"""What the commands that train have in common: a kind that comes first, the flags of a run, how it is reported."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from envs.errors import RllabError
from language.tokenizers.files import load_tokenizer
from language.training.recipe import Recipe
from rllab.cli.arguments import Flag
from rllab.cli.report import report_interruption
from rllab.interrupt import Interrupted
from rllab.runs import default_folder

Result = TypeVar("Result")


@dataclass(frozen=True)
class RunOptions:
    """Where a run goes."""

    out: Path | None = None
    """The run's folder; by default a new one under runs/."""
    device: str = "cpu"
    """Where to train: cpu, cuda, cuda:1, …"""
    overwrite: Flag = False
    """Replace a run that lies there."""
    quiet: Flag = False
    """Print nothing but warnings and errors."""

    def folder(self, files: Sequence[Path], data: str | None, kind: str, seed: int) -> Path:
        """`out`, or a new folder that is named after the data and the kind of model."""
        name = data or (files[0].stem if files else "texts")
        return self.out or default_folder(name.replace("/", "-"), kind, seed)


def take_kind(argv: Sequence[str], kinds: Collection[str], command: str, usage: str, purpose: str) -> str | None:
    """The kind of model, which is named first; None if help was asked for, which is then printed.

    Raises RllabError if there is no such kind.
    """
    kind = argv[0] if argv else ""
    if kind in ("-h", "--help"):
        print(f"usage: rllab {command} KIND {usage}\n\n{purpose}\n\nKinds: {', '.join(kinds)}")
        print(f"\n`rllab {command} KIND --help` lists a kind's flags.")
        return None
    if kind not in kinds:
        near = get_close_matches(kind, kinds, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(kinds)}"
        raise RllabError(f"name the kind of model first, `{command.rpartition(' ')[2]} KIND …`; {hint}")
    return kind


def train(recipe: Recipe[Result], out: Path, options: RunOptions) -> Result | int:
    """What came of a training; the exit code, once it is reported, of one that was interrupted."""
    try:
        return recipe.run(out, overwrite=options.overwrite, quiet=options.quiet)
    except Interrupted as error:
        return report_interruption(error, out)


def check_initial_flags(initial: Path | None, sizes_given: bool, tokenizer: Path | None) -> None:
    """Raise RllabError if a model to begin with is given, and what it brings along is given too."""
    if initial is None:
        return
    if sizes_given:
        raise RllabError("--initial brings its own sizes; leave the model's flags out.")
    if tokenizer is not None:
        raise RllabError("--initial brings its own tokenizer; leave --tokenizer out.")


def check_vocabulary_flag(wanted: int, default: int, tokenizer: Path | None) -> None:
    """Raise RllabError if a number of tokens is asked for that the tokenizer which is named does not have."""
    if tokenizer is not None and wanted != default and wanted != (has := len(load_tokenizer(tokenizer))):
        raise RllabError(
            f"--vocabulary-size {wanted} does not match the tokenizer in {tokenizer}, which has {has:,} tokens; leave "
            "the flag out, for a model has as many as its tokenizer."
        )


def folder_text(path: Path | None) -> str | None:
    """A path as configurations keep it."""
    return None if path is None else str(path)


def file_texts(paths: Sequence[Path]) -> tuple[str, ...]:
    """Paths as configurations keep them."""
    return tuple(map(str, paths))
