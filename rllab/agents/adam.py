"""Adam (Kingma & Ba 2015) on one flat tensor: torch's fused kernel, or NumPy for small policies on the CPU."""

import math
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

BETAS = (0.9, 0.999)
"""Decay of the first and second moments (Kingma & Ba 2015, algorithm 1)."""


def effective_epsilon(epsilon: float, step: int) -> float:
    """What ε inside the bias correction is outside of it: √(v/c) + ε/√c, with c = 1 − β₂ᵗ, t the step from 1."""
    return epsilon / math.sqrt(1 - BETAS[1] ** step)


class Adam(Protocol):
    """Steps down the gradient that lies in the parameters' `grad`."""

    learning_rate: float

    def gradient_norm(self) -> float:
        """The gradient's Euclidean norm."""

    def scale_gradient(self, factor: float) -> None:
        """Multiply the gradient in place."""

    def step(self) -> None:
        """One step."""

    def state_dict(self) -> dict[str, Any]:
        """`step`, `exp_avg` and `exp_avg_sq`, as torch names them; empty before the first step."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state, of either implementation."""


class TorchAdam:
    """`torch.optim.Adam`, fused."""

    def __init__(
        self, parameters: Tensor, learning_rate: float, epsilon: float, epsilon_inside: bool = False
    ) -> None:  # fmt: skip
        self.learning_rate, self.epsilon, self.epsilon_inside = learning_rate, epsilon, epsilon_inside
        self._parameters = parameters
        self._adam = torch.optim.Adam([parameters], lr=learning_rate, betas=BETAS, eps=epsilon, fused=True)

    def gradient_norm(self) -> float:
        return float(torch.linalg.vector_norm(self._gradient))

    def scale_gradient(self, factor: float) -> None:
        self._gradient.mul_(factor)

    def step(self) -> None:
        group = self._adam.param_groups[0]
        group["lr"] = self.learning_rate
        if self.epsilon_inside:
            done = self._adam.state[self._parameters].get("step", 0)
            group["eps"] = effective_epsilon(self.epsilon, int(done) + 1)
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        return dict(self._adam.state_dict()["state"].get(0, {}))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        complete = self._adam.state_dict()
        complete["state"] = {0: state} if state else {}
        self._adam.load_state_dict(complete)

    @property
    def _gradient(self) -> Tensor:
        assert self._parameters.grad is not None
        return self._parameters.grad


class NumpyAdam:
    """The same arithmetic on views of a small tensor: its dozen short operations cost less than one torch call.

    (Among NumPy's operations, that is, where torch's kernels find everything cold.)
    """

    def __init__(
        self, parameters: Tensor, learning_rate: float, epsilon: float, epsilon_inside: bool = False
    ) -> None:  # fmt: skip
        assert parameters.grad is not None
        self.learning_rate, self.epsilon, self.epsilon_inside = learning_rate, epsilon, epsilon_inside
        self._parameters, self._gradient = parameters.detach().numpy(), parameters.grad.numpy()
        self._mean, self._square = np.zeros_like(self._parameters), np.zeros_like(self._parameters)
        self._scratch = np.empty_like(self._parameters)
        self._steps = 0

    def gradient_norm(self) -> float:
        return math.sqrt(np.dot(self._gradient, self._gradient))

    def scale_gradient(self, factor: float) -> None:
        np.multiply(self._gradient, np.float32(factor), out=self._gradient)

    def step(self) -> None:
        first, second = BETAS
        self._steps += 1
        mean, square, scratch = self._mean, self._square, self._scratch
        np.multiply(self._gradient, np.float32(1 - first), out=scratch)
        np.multiply(mean, np.float32(first), out=mean)
        np.add(mean, scratch, out=mean)
        np.multiply(self._gradient, self._gradient, out=scratch)
        np.multiply(scratch, np.float32(1 - second), out=scratch)
        np.multiply(square, np.float32(second), out=square)
        np.add(square, scratch, out=square)
        np.sqrt(square, out=scratch)
        np.multiply(scratch, np.float32(1 / math.sqrt(1 - second**self._steps)), out=scratch)
        epsilon = effective_epsilon(self.epsilon, self._steps) if self.epsilon_inside else self.epsilon
        np.add(scratch, np.float32(epsilon), out=scratch)
        np.divide(mean, scratch, out=scratch)
        np.multiply(scratch, np.float32(self.learning_rate / (1 - first**self._steps)), out=scratch)
        np.subtract(self._parameters, scratch, out=self._parameters)

    def state_dict(self) -> dict[str, Any]:
        if self._steps == 0:
            return {}
        moments = torch.from_numpy(self._mean), torch.from_numpy(self._square)
        return {"step": torch.tensor(float(self._steps)), "exp_avg": moments[0], "exp_avg_sq": moments[1]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps = int(state["step"]) if state else 0
        self._mean[:] = state["exp_avg"].numpy() if state else 0
        self._square[:] = state["exp_avg_sq"].numpy() if state else 0
