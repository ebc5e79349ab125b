"""Vectors of texts from a trained model, or of a word in each of several sentences."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray
from torch import nn

from envs.errors import RllabError
from language.models.folder import load_model
from language.tasks.vectors import Pooling, vectors
from language.tasks.word_uses import Use, elmo_of, nearest_pairs, text_vectors, uses_of
from language.tokenizers.tokenizer import Tokenizer
from rllab.cli.arguments import Flag, parse
from rllab.cli.console import print_facts, print_table
from rllab.files import explained_write_errors

_LONGEST = 80
"""Characters of a text that a table shows."""
_AROUND = 7
"""Words that it shows on either side of a word."""


@dataclass(frozen=True)
class EmbedArguments:
    """Vectors of texts as JSON lines, from a BERT, a GPT, an AWD-LSTM or an ELMo."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run, or a model's folder."""
    texts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")] = ()
    """What to embed; without any, lines are read."""
    pooling: Pooling = "mean"
    """How tokens become one vector: their mean; the first one's, BERT's [CLS]; or the last one's, which in a GPT and an
    AWD-LSTM has seen the others."""
    out: Path | None = None
    """Write float32 [texts, width] as NumPy's .npy in place of JSON lines."""
    word: str | None = None
    """Vectors of this word wherever it stands, by an ELMo; sentences without it are passed over."""
    nearest: Flag = False
    """Print the pairs of texts, or of places of the word, whose vectors are most alike, by their cosine."""
    count: int = 10
    """How many pairs."""
    layer: int = -1
    """Of an ELMo: 0 the words by themselves, -1 the last layer."""
    batch_size: int = 32
    """Texts at a time."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, …"""


@dataclass(frozen=True)
class _Found:
    """What has vectors."""

    vectors: NDArray[np.float32]
    """`[n, width]`."""
    rows: list[dict[str, Any]]
    """What to say of each: the text, and of a word where it is."""
    shown: list[str]
    """The same for a table."""


def command(argv: Sequence[str]) -> int:
    """`rllab language embed MODEL [TEXT …]`."""
    arguments: EmbedArguments = parse(EmbedArguments, argv, "language embed")
    if arguments.count < 1 or arguments.batch_size < 1:
        raise RllabError(
            f"--count and --batch-size must be at least 1, not {arguments.count} and {arguments.batch_size}."
        )
    model, tokenizer = load_model(arguments.model, arguments.device)
    texts = list(arguments.texts) or list(_lines())
    if not texts:
        raise RllabError("There is no text; name one after the model, or pipe lines in.")
    found = _embed(model, tokenizer, texts, arguments)
    if arguments.nearest:
        _print_pairs(found, arguments.count)
    if arguments.out is not None:
        with explained_write_errors(arguments.out):
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            with arguments.out.open("wb") as file:
                np.save(file, found.vectors)
        rows, width = found.vectors.shape
        print_facts([("Vectors", f"{rows:,}, of {width:,} numbers each"), ("File", str(arguments.out))])
    elif not arguments.nearest:
        for row, vector in zip(found.rows, found.vectors, strict=True):
            print(json.dumps({**row, "vector": vector.tolist()}, ensure_ascii=False))
    return 0


def _lines() -> Iterator[str]:
    if sys.stdin.isatty():
        print("Type a text a line; Ctrl-D ends.", file=sys.stderr)
    for line in sys.stdin:
        yield line.rstrip("\n")


def _embed(model: nn.Module, tokenizer: Tokenizer, texts: list[str], arguments: EmbedArguments) -> _Found:
    elmo = elmo_of(model)
    if arguments.word is not None:
        if elmo is None:
            raise RllabError(f"--word needs an ELMo, and {arguments.model} has a {type(model).__name__}.")
        uses = uses_of(elmo, tokenizer, texts, arguments.word, arguments.layer)
        return _Found(
            np.stack([use.vector for use in uses]),
            [{"text": texts[use.text], "word": arguments.word, "place": use.place} for use in uses],
            [_around(use) for use in uses],
        )
    if elmo is None:
        if arguments.layer != -1:
            raise RllabError(f"--layer is for an ELMo, and {arguments.model} has a {type(model).__name__}.")
        computed = vectors(
            model, tokenizer, texts, arguments.pooling, batch_size=arguments.batch_size, device=arguments.device
        )  # fmt: skip
    elif arguments.pooling != "mean":
        raise RllabError(f"The pooling '{arguments.pooling}' makes no sense for an ELMo; there is mean.")
    else:
        computed = text_vectors(elmo, tokenizer, texts, arguments.layer)
    return _Found(computed, [{"text": text} for text in texts], [_cut(text) for text in texts])


def _print_pairs(found: _Found, count: int) -> None:
    if len(found.rows) < 2:
        raise RllabError("A pair needs two vectors, and there is one; give more texts.")
    print_table(
        ("Cosine", "One", "The other"),
        [
            (f"{pair.similarity:.4f}", found.shown[pair.first], found.shown[pair.second])
            for pair in nearest_pairs(found.vectors, count)
        ],
        right=("Cosine",),
    )


def _around(use: Use) -> str:
    """A word in brackets, with those beside it."""
    begin, end = max(0, use.place - _AROUND), use.place + _AROUND + 1
    words = [*use.words[begin : use.place], f"[{use.words[use.place]}]", *use.words[use.place + 1 : end]]
    return f"{'… ' if begin else ''}{' '.join(words)}{' …' if end < len(use.words) else ''}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
