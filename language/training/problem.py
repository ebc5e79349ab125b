"""What is learnt: where batches come from, what they cost, how good a model is. The contract of the supervised loop."""

from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Loss:
    """What a batch costs."""

    total: Tensor
    """The sum over its targets; a penalty that is a mean is multiplied by `count` before it is added."""
    count: int
    """Targets."""
    tokens: int
    """Tokens that went through the model, for rates."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Further numbers to note."""


class Problem(Protocol[Batch]):
    """What is learnt."""

    goal: str
    """The number of an evaluation by which the best is told."""
    higher_is_better: bool
    """Of the goal."""

    def batch(self) -> Batch:
        """The next one. Raises RllabError if there is nothing to learn from."""

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Of one batch."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """How good the model is on data that it does not learn from; called without gradients, in evaluation mode."""

    def operations(self, model: nn.Module, tokens: int) -> float:
        """Arithmetic of learning from so many tokens, for the share of the machine's peak; 0 if it is not known."""

    def state_dict(self) -> dict[str, Any]:
        """What its batches depend on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
