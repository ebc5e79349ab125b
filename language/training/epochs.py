"""Examples in random batches of about equal lengths, each once in an epoch; goes on exactly where it was."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from language.training.classification import ClassificationConfig, batch_count, shuffled_batches
from language.training.language_modelling import random_state


class Epochs:
    """The numbers of examples, batch by batch.

    Attributes:
        batches: how many batches an epoch has.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int = 0) -> None:
        """Of examples of so many tokens."""
        self._lengths = np.asarray(lengths)
        self._config = ClassificationConfig(batch_size)
        self.batches = batch_count(len(lengths), batch_size)
        self._generator = np.random.default_rng(seed)
        self._begin()

    def _begin(self) -> None:
        self._state = random_state(self._generator)
        self._drawn = shuffled_batches(self._lengths, self._config, self._generator)
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
