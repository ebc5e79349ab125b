"""Experience as NumPy arrays, for the gradients that are written out by hand."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rllab.rollout import Experience

Array = NDArray[np.float32]


@dataclass(frozen=True)
class ExperienceArrays:
    """What hand-written gradients read of an `Experience` of steps, sharing its memory; every array is `[B, …]`.

    It makes the same minibatches from the same generator as `Experience` does, without a torch call: among small
    NumPy operations each of those costs several times what it costs by itself.
    """

    observations: NDArray[Any]
    actions: NDArray[Any]
    valid: NDArray[np.bool_]
    log_probs: Array
    advantages: Array
    returns: Array
    action_mask: NDArray[np.bool_] | None
    weights: Array
    """1/count where a step exists, else 0."""

    @classmethod
    def of(cls, batch: Experience) -> Self:
        """The arrays of a batch of steps on the CPU."""
        return cls(
            batch.observations.numpy(),
            batch.actions.numpy(),
            batch.valid.numpy(),
            batch.log_probs.numpy(),
            batch.advantages.numpy(),
            batch.returns.numpy(),
            None if batch.action_mask is None else batch.action_mask.numpy(),
            batch.weights.numpy(),
        )

    def minibatches(self, size: int, generator: np.random.Generator) -> Iterator[Self]:
        """One epoch: shuffled once, then slices of `size` steps."""
        permutation = generator.permutation(len(self.valid))
        observations, actions = self.observations[permutation], self.actions[permutation]
        valid, log_probs = self.valid[permutation], self.log_probs[permutation]
        advantages, returns = self.advantages[permutation], self.returns[permutation]
        masks = None if self.action_mask is None else self.action_mask[permutation]
        exists = valid.astype(np.float32)
        for start in range(0, len(valid), size):
            piece = slice(start, start + size)
            weights = exists[piece]
            yield type(self)(
                observations[piece], actions[piece], valid[piece], log_probs[piece], advantages[piece],
                returns[piece], None if masks is None else masks[piece], weights / max(weights.sum(), 1),
            )  # fmt: skip
