"""Random numbers of which every row has its own, so that its sample does not depend on the batch that it is in."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from envs.errors import RllabError

BLOCK = 64
"""How many numbers are drawn for a row at a time; one call a row and step would cost more than the sampling."""


def row_seeds(seed: int, rows: int) -> list[int]:
    """A seed for each row, by NumPy's SeedSequence, so that the rows of seeds 0 and 1 have nothing in common."""
    return [int(np.random.SeedSequence((seed, row)).generate_state(1, np.uint64)[0] >> 1) for row in range(rows)]


class RowNoise:
    """For each row, uniform numbers from its own generator, drawn in blocks."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        """One seed a row; `device` is where the numbers are wanted."""
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._device = device
        self._block = torch.empty(len(seeds), 0)
        self._next = 0

    def draw(self) -> Tensor:
        """The next number of each row, `[N, 1]` from 0 to 1 - 2⁻²⁴."""
        if self._next == self._block.shape[1]:
            drawn = [torch.rand(BLOCK, generator=generator) for generator in self._generators]
            self._block, self._next = torch.stack(drawn).to(self._device), 0
        self._next += 1
        return self._block[:, self._next - 1 : self._next]

    def select(self, rows: Tensor) -> None:
        """Keep some rows, `[M]`."""
        self._block = self._block[rows]
        self._generators = [self._generators[row] for row in rows.tolist()]


def draw_tokens(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """A token of each row, by the inverse of the cumulative distribution.

    Args:
        probabilities: float32 `[N, V]`; they need not add up to 1. Where it is 0, a token never comes; what is less
            probable than about 2⁻²⁴ = 6e-8 is not resolved.
        uniform: float32 `[N, 1]`, at most 1 - 2⁻²⁴.

    Returns:
        int64 `[N]`.

    Raises:
        RllabError: a row has no token that may come, or is not made of numbers.
    """
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1:]
    # Rounded, the product is below the total, so that the first sum above it ends at a token of probability above 0.
    chosen = torch.searchsorted(cumulative, uniform * total, right=True)
    if int(chosen.max()) >= probabilities.shape[-1]:
        raise RllabError(
            "There is no token to draw: the model's logits are not numbers, or all tokens are banned; look at the "
            "model's weights and at banned_tokens."
        )
    return chosen[:, 0]
