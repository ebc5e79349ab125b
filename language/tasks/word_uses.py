"""Vectors from ELMo: of whole texts, and of one word in each text where it stands, to compare its senses.

Peters et al. 2018, "Deep contextualized word representations" (1802.05365), section 5.3 and table 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from envs.errors import RllabError
from language.models.contextual_vectors import contextual_vectors
from language.models.elmo import ELMo, ELMoLanguageModel
from language.tokenizers.tokenizer import Tokenizer
from language.tokenizers.word import WordLevel


@dataclass(frozen=True)
class Use:
    """A word where it stands."""

    text: int
    """The number of its text."""
    place: int
    """How many words of the text are before it."""
    words: list[str]
    """All of the text."""
    vector: NDArray[np.float32]
    """`[2 width]`."""


class Pair(NamedTuple):
    """Two of several vectors."""

    similarity: float
    """The cosine of the angle between them."""
    first: int
    """The number of one."""
    second: int
    """The number of the other, which is greater."""


def elmo_of(model: nn.Module) -> ELMo | None:
    """The encoder of an ELMo; None of another model."""
    if isinstance(model, ELMoLanguageModel):
        return model.encoder
    return model if isinstance(model, ELMo) else None


def text_vectors(
    model: ELMo, tokenizer: Tokenizer, texts: Sequence[str], layer: int = -1
) -> NDArray[np.float32]:  # fmt: skip
    """The mean of the words' vectors of each text, float32 `[n, 2 width]`.

    Args:
        model: the encoder.
        tokenizer: the one that it was trained with; it splits texts into words.
        texts: any.
        layer: 0 the words by themselves, −1 the last.

    Raises:
        RllabError: the tokenizer is not one of words, a text has none, or there is no such layer.
    """
    found = contextual_vectors(model, _words(tokenizer, texts), layer)
    return torch.stack([vectors.mean(0) for vectors in found]).float().cpu().numpy()


def uses_of(
    model: ELMo, tokenizer: Tokenizer, texts: Sequence[str], word: str, layer: int = -1
) -> list[Use]:  # fmt: skip
    """Each place where a word stands, whatever its case; arguments and errors as of `text_vectors`.

    Texts without the word are passed over. Raises RllabError if no text has it.
    """
    split = _words(tokenizer, texts)
    having = [number for number, words in enumerate(split) if any(_equal(word, other) for other in words)]
    if not having:
        raise RllabError(f"No text has the word '{word}'; give one that has, or choose another word.")
    found = contextual_vectors(model, [split[number] for number in having], layer)
    return [
        Use(number, place, split[number], vectors[place].float().cpu().numpy())
        for number, vectors in zip(having, found, strict=True)
        for place, other in enumerate(split[number])
        if _equal(word, other)
    ]


def nearest_pairs(vectors: NDArray[np.float32], count: int) -> list[Pair]:
    """The pairs of vectors `[n, width]` by their cosine, the most alike first, at most so many."""
    directions = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    similarities = directions @ directions.T
    pairs = [Pair(float(similarities[pair]), *pair) for pair in combinations(range(len(vectors)), 2)]
    return sorted(pairs, key=lambda pair: -pair.similarity)[:count]


def _words(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[str]]:
    if not isinstance(tokenizer, WordLevel):
        raise RllabError("ELMo reads words, and its tokenizer must be of the kind `word`; give the one of its run.")
    split = [tokenizer.words(text) for text in texts]
    for number, words in enumerate(split, 1):
        if not words:
            raise RllabError(f"Text {number:,} has no words, so that it has no vector; leave it out.")
    return split


def _equal(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()
