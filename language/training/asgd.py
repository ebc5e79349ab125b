"""NT-ASGD: the average of the weights, from when the validation loss does not fall any more.

Merity, Keskar, Socher 2017, "Regularizing and optimizing LSTM language models" (1708.02182), section 3, algorithm 1.
The optimizer goes on as it was, in the paper plain SGD; what is used of the model is the mean of its weights after each
step.
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from envs.errors import RllabError


class NonMonotoneAverage:
    """The average, and when it begins.

    Attributes:
        losses: every validation loss so far.
        steps: how many steps are in the average; 0 before it begins.
        begun: whether it has begun.
    """

    def __init__(self, parameters: Iterable[Tensor], patience: int = 5) -> None:
        """Of these parameters.

        Args:
            parameters: of the model.
            patience: n, how many of the last validation losses are not looked at (paper: 5).

        Raises:
            RllabError: the patience is below 1.
        """
        if patience < 1:
            raise RllabError(f"patience must be at least 1, not {patience}.")
        self._parameters = list(parameters)
        self._means: list[Tensor] = []
        self.patience, self.losses, self.steps, self.begun = patience, list[float](), 0, False

    def observe(self, validation_loss: float) -> bool:
        """Take a validation loss; whether the average begins now: the loss is above the best but for the last n."""
        earlier = self.losses[: -self.patience]
        begins = not self.begun and len(earlier) > 0 and validation_loss > min(earlier)
        self.losses.append(validation_loss)
        self.begun = self.begun or begins
        return begins

    @torch.no_grad()
    def after_step(self) -> None:
        """Take the weights into the average, if it has begun; to be called after each step of the optimizer."""
        if not self.begun:
            return
        self.steps += 1
        if self.steps == 1:
            self._means = [parameter.detach().clone() for parameter in self._parameters]
            return
        for mean, parameter in zip(self._means, self._parameters, strict=True):
            mean.lerp_(parameter, 1 / self.steps)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The parameters are their averages inside of the block; nothing changes where there are none yet."""
        if self.steps == 0:
            yield
            return
        saved = [parameter.detach().clone() for parameter in self._parameters]
        self._set(self._means)
        try:
            yield
        finally:
            self._set(saved)

    def state_dict(self) -> dict[str, Any]:
        """All that changes."""
        means = [mean.clone() for mean in self._means]
        return {"losses": copy.copy(self.losses), "steps": self.steps, "begun": self.begun, "means": means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.losses, self.steps, self.begun = list(state["losses"]), state["steps"], state["begun"]
        self._means = [mean.clone() for mean in state["means"]]

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)
