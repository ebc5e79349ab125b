"""How ULMFiT is fine-tuned: slanted triangular learning rates, one for each group of layers, which thaw one by one.

Howard, Ruder 2018, "Universal language model fine-tuning for text classification" (1801.06146), sections 3.2 and 3.3.
The triangle itself is the schedule `slanted` of `language.training.schedules`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from envs.errors import RllabError
from language.training.optimizers import Group
from language.training.supervised import SupervisedTraining
from language.training.training_config import TrainingConfig

LayerGroups = Sequence[Sequence[nn.Parameter]]
"""Parameters that learn alike, the lowest layer first."""


@dataclass(frozen=True)
class SlantedConfig:
    """The paper's numbers."""

    cut_fraction: float = 0.1
    """Share of the steps in which the learning rate rises (section 3.2)."""
    ratio: float = 32.0
    """How many times smaller the smallest rate is than the largest (section 3.2)."""
    factor: float = 2.6
    """How many times smaller a layer's rate is than that of the layer above it (section 3.2); 1: all learn alike."""
    beta_1: float = 0.7
    """Adam's, of the mean of gradients, in place of its usual 0.9 (section 4.1)."""
    beta_2: float = 0.99
    """Adam's, of the mean of their squares (section 4.1)."""

    def __post_init__(self) -> None:
        if not 0 < self.cut_fraction < 1:
            raise RllabError(f"cut_fraction must lie between 0 and 1, not be {self.cut_fraction}.")
        for name in ("ratio", "factor"):
            if not getattr(self, name) >= 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}.")

    def training(self, config: TrainingConfig) -> TrainingConfig:
        """A training of the same length and highest rate, with the triangle and Adam's numbers."""
        return replace(
            config, schedule="slanted", warmup=max(math.floor(config.steps * self.cut_fraction), 1),
            floor=1 / self.ratio, beta_1=self.beta_1, beta_2=self.beta_2,
        )  # fmt: skip

    def groups(self, layers: LayerGroups) -> list[Group]:
        """For `SupervisedTraining`: the last layer learns at the training's rate, each below more slowly."""
        last = len(layers) - 1
        return [Group(list(group), self.factor ** (number - last)) for number, group in enumerate(layers)]


def unfreeze(layers: LayerGroups, count: int) -> None:
    """Let the last layers learn, and no other.

    The gradients of what is frozen are taken away, so that no optimizer moves it by an old one.

    Raises:
        RllabError: the count is below 1.
    """
    if count < 1:
        raise RllabError(f"At least one group of layers must learn, not {count}.")
    for number, group in enumerate(layers):
        learns = number >= len(layers) - count
        for parameter in group:
            parameter.requires_grad_(learns)
            if not learns:
                parameter.grad = None


class GradualUnfreezing:
    """The last group learns in the first epoch, one more in each that follows; `SupervisedTraining`'s `before_step`."""

    def __init__(self, layers: LayerGroups, epoch_steps: int) -> None:
        """Begin with everything unfrozen, as optimizers leave out what is frozen when they are made.

        Args:
            layers: parameters, the lowest layer first.
            epoch_steps: how many steps of the optimizer an epoch has.

        Raises:
            RllabError: an epoch has no step.
        """
        if epoch_steps < 1:
            raise RllabError(f"An epoch must have at least one step, not {epoch_steps}.")
        self._layers, self._epoch_steps, self._learning = layers, epoch_steps, 0

    def __call__(self, training: SupervisedTraining[Any]) -> None:
        """Unfreeze what the training's next step needs."""
        count = min(training.steps // self._epoch_steps + 1, len(self._layers))
        if count != self._learning:
            unfreeze(self._layers, count)
            self._learning = count
