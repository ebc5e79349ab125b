"""Examples in random batches of about equal lengths, each once in an epoch; goes on exactly where it was."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from language.training.language_modelling import random_state

SORTED_BATCHES = 50
"""So many batches' examples are sorted together, as in ULMFiT's program."""


class Epochs:
    """The numbers of examples, batch by batch.

    Attributes:
        batches: how many batches an epoch has.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int = 0, sorted_batches: int = SORTED_BATCHES
    ) -> None:  # fmt: skip
        """Of examples of so many tokens; see `shuffled_batches`."""
        self._lengths, self._batch_size, self._sorted_batches = np.asarray(lengths), batch_size, sorted_batches
        self.batches = batch_count(len(lengths), batch_size)
        self._generator = np.random.default_rng(seed)
        self._begin()

    def _begin(self) -> None:
        self._state = random_state(self._generator)
        self._drawn = shuffled_batches(self._lengths, self._batch_size, self._sorted_batches, self._generator)
        self._next = 0

    def next(self) -> NDArray[np.int64]:
        """The numbers of the next batch."""
        if self._next == len(self._drawn):
            self._begin()
        self._next += 1
        return self._drawn[self._next - 1]

    def state_dict(self) -> dict[str, Any]:
        """The random generator as it was before this epoch, and how many batches of it are done."""
        return {"generator": self._state, "done": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in that epoch."""
        self._generator.bit_generator.state = state["generator"]
        self._begin()
        self._next = state["done"]


def batch_count(examples: int, batch_size: int) -> int:
    """How many batches there are of nearly equal sizes, so that none has a single example if more were asked for.

    A single example cannot be learnt from with batch normalisation, nor should it weigh as much as a batch.
    """
    count = math.ceil(examples / batch_size)
    return count if batch_size == 1 else min(count, max(examples // 2, 1))


def shuffled_batches(
    lengths: NDArray[np.int64], batch_size: int, sorted_batches: int, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """The numbers of all examples in random batches of about equal lengths, in random order.

    Args:
        lengths: `[examples]`, tokens of each.
        batch_size: how large batches are, nearly.
        sorted_batches: so many random batches' examples are sorted by length before they are cut into batches.
        generator: decides.
    """
    drawn = np.array_split(generator.permutation(len(lengths)), batch_count(len(lengths), batch_size))
    batches: list[NDArray[np.int64]] = []
    for first in range(0, len(drawn), sorted_batches):
        together = drawn[first : first + sorted_batches]
        numbers = np.concatenate(together)
        numbers = numbers[np.argsort(lengths[numbers], kind="stable")]
        batches += np.array_split(numbers, np.cumsum([len(batch) for batch in together])[:-1])
    return [batches[number] for number in generator.permutation(len(batches))]
