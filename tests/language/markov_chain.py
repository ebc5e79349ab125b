"""A model with known probabilities: the next token depends on the last one only."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class MarkovChain:
    """Logits of the next token by the last one, `[V, V]`, and a diary of what it was asked."""

    logits: Tensor
    context: int | None = None
    batches: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]]) -> "MarkovChain":
        """From probabilities."""
        return cls(torch.tensor(rows).log())

    @classmethod
    def random(cls, vocabulary: int, seed: int = 0) -> "MarkovChain":
        return cls(torch.randn(vocabulary, vocabulary, generator=torch.Generator().manual_seed(seed)) * 2)

    @property
    def vocabulary_size(self) -> int:
        return len(self.logits)

    def begin(self, tokens: Tensor, valid: Tensor, capacity: int) -> tuple[Tensor, dict[str, Tensor]]:
        self.batches.append(len(tokens))
        return self.logits[tokens[:, -1]], {"last": tokens[:, -1]}

    def step(self, tokens: Tensor, state: dict[str, Tensor]) -> Tensor:
        assert tokens.shape == state["last"].shape
        self.batches.append(len(tokens))
        state["last"] = tokens
        return self.logits[tokens]

    def select(self, state: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        return {"last": state["last"][rows]}

    def log_probability(self, tokens: Sequence[int]) -> float:
        """Of all tokens after the first."""
        table = self.logits.log_softmax(-1)
        return sum(float(table[before, after]) for before, after in itertools.pairwise(tokens))
