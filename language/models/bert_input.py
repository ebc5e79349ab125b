"""What BERT reads: [CLS] A [SEP], or [CLS] A [SEP] B [SEP] (Devlin et al. 2018, figure 2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from envs.errors import RllabError
from language.models.padding import pad_right
from language.tokenizers.tokenizer import Tokenizer


class Packed(NamedTuple):
    """One input, without padding."""

    tokens: list[int]
    """Ids."""
    segments: list[int]
    """0 up to the first [SEP], and 1 after it."""


class PackedBatch(NamedTuple):
    """Inputs, padded on the right."""

    tokens: Tensor
    """int64 `[N, T]`."""
    valid: Tensor
    """bool `[N, T]`."""
    segments: Tensor
    """int64 `[N, T]`."""


@dataclass(frozen=True)
class Markers:
    """The ids of the tokens that hold an input together."""

    classifier: int
    """[CLS]."""
    separator: int
    """[SEP]."""

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """A tokenizer's. Raises RllabError if it lacks one."""
        return cls(special_id(tokenizer, "classifier"), special_id(tokenizer, "separator"))

    def pack(self, first: Sequence[int], second: Sequence[int] | None = None) -> Packed:
        """One text, or two, as an input."""
        tokens = [self.classifier, *first, self.separator]
        segments = [0] * len(tokens)
        if second is not None:
            tokens += [*second, self.separator]
            segments += [1] * (len(second) + 1)
        return Packed(tokens, segments)


def special_id(tokenizer: Tokenizer, name: str) -> int:
    """The id of a special token by the name of its field in `SpecialTokens`. Raises RllabError if there is none."""
    token = tokenizer.special.names().get(name)
    if token is None:
        raise RllabError(
            f"BERT needs a tokenizer with a {name} token, and this one has none; train one with it, such as WordPiece "
            "(`rllab language tokenizer train wordpiece`)."
        )
    return tokenizer.vocabulary[token]


def padded(inputs: Sequence[Packed], device: torch.device | str = "cpu") -> PackedBatch:
    """Inputs as one batch."""
    tokens, valid = pad_right([row.tokens for row in inputs], device)
    segments, _ = pad_right([row.segments for row in inputs], device)
    return PackedBatch(tokens, valid, segments)
