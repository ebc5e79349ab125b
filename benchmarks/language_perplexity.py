"""How well language models predict held-out text, beside n-grams with modified Kneser–Ney smoothing.

    .venv/bin/python benchmarks/language_perplexity.py RUN [RUN …]

A run is one of `rllab language pretrain`. N-grams are counted in its training tokens, and everything is asked for the
same test tokens. An n-gram sees the real tokens before each, without the borders of blocks, which favours it over a
model's first row, where a block hides what was before it. Bits are per character and perplexity per word of the decoded
text; the end of a text is one more character and one more word.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from common import console, print_machine
from numpy.typing import NDArray
from rich.table import Table

from envs.errors import RllabError
from language.data.blocks import TokenFile
from language.models.folder import load_model
from language.models.kneser_ney import KneserNey, KneserNeyConfig
from language.models.sizes import parameter_count
from language.tokenizers.tokenizer import Tokenizer
from language.training.held_out import carried_losses, sliding_losses
from rllab.runs import Run


@dataclass(frozen=True)
class Arguments:
    """What to compare."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Runs of `rllab language pretrain`."""
    orders: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Of the n-grams; none leaves them out."""
    tokens: int = 0
    """So many of the test tokens, the first ones; 0: all."""
    batch_size: int = 16
    """Rows at once."""


def main(arguments: Arguments) -> None:
    """Print a table for each set of test tokens."""
    print_machine()
    groups: dict[bytes, list[Path]] = {}
    for run in arguments.runs:
        groups.setdefault(_test(run).ids.tobytes(), []).append(run)
    for runs in groups.values():
        _compare(runs, arguments)


def _compare(runs: list[Path], arguments: Arguments) -> None:
    """The runs with the same test tokens."""
    ids = _test(runs[0]).ids[: arguments.tokens + 1 if arguments.tokens else None]
    rows = (len(ids) - 1) // arguments.batch_size  # recurrent models read the text as so many equal rows
    ids = np.asarray(ids[: rows * arguments.batch_size + 1])
    tokenizer = load_model(runs[0])[1]
    characters, words = _sizes(ids[1:], tokenizer)
    table = Table(
        title=f"{len(ids) - 1:,} test tokens: {characters:,} characters, {words:,} words", title_justify="left"
    )  # fmt: skip
    for name in ("", "is shown"):
        table.add_column(name)
    for name in ("nats a token", "perplexity", "bits a character", "perplexity a word"):
        table.add_column(name, justify="right")
    for name, shown, losses in _rows(runs, ids, len(tokenizer), arguments):
        mean = float(losses.mean())
        total = mean * (len(ids) - 1)
        table.add_row(
            name, shown, f"{mean:.4f}", f"{math.exp(mean):.2f}", f"{total / math.log(2) / characters:.4f}",
            f"{math.exp(total / words):.1f}",
        )  # fmt: skip
    console.print(table)


def _rows(
    runs: list[Path], ids: NDArray[Any], vocabulary_size: int, arguments: Arguments
) -> Iterator[tuple[str, str, NDArray[np.float64]]]:  # fmt: skip
    """A name, what a token is predicted from, and the losses."""
    training = TokenFile.open(runs[0] / "tokens" / "training.npy")
    for order in arguments.orders:
        grams = KneserNey.train(training.ids, KneserNeyConfig(vocabulary_size, order))
        shown = ("nothing", "the token before it")[order - 1] if order < 3 else f"the {order - 1} tokens before it"
        yield f"{order}-gram", shown, -grams.log_probabilities(ids)[1:]
    for run in runs:
        model, _ = load_model(run)
        name = f"{run.name}, {parameter_count(model) / 1e6:.2f} M"
        blocks = Run.open(run).config["modelling"]["length"]
        half = max(1, blocks // 2)
        for stride, shown in ((blocks, f"those of its block of {blocks}"), (half, f"{half} to {blocks}")):
            yield name, shown, sliding_losses(model, ids, blocks, stride, arguments.batch_size)
        if hasattr(model, "forward_from"):
            yield name, "all before it", carried_losses(model, ids, blocks, arguments.batch_size)


def _test(run: Path) -> TokenFile:
    path = run / "tokens" / "test.npy"
    if not path.is_file():
        raise RllabError(f"{run} has no test tokens ({path}); give a run of `rllab language pretrain`.")
    return TokenFile.open(path)


def _sizes(ids: NDArray[Any], tokenizer: Tokenizer) -> tuple[int, int]:
    """Characters and words of a stream; each end of a text is one of both."""
    end = tokenizer.special.end
    borders = np.flatnonzero(ids == tokenizer.vocabulary[end]) if end is not None else np.zeros(0, np.int64)
    texts = [tokenizer.decode(part.tolist()) for part in np.split(ids, borders)]
    return sum(map(len, texts)) + len(borders), sum(len(text.split()) for text in texts) + len(borders)


if __name__ == "__main__":
    try:
        main(tyro.cli(Arguments, description=__doc__))
    except RllabError as error:
        raise SystemExit(f"{error}") from None
