"""Adam with gradient clipping, a learning-rate schedule, and a stop at anything not finite."""

import math
from typing import Any, Literal

from torch import Tensor

from envs.errors import RllabError
from rllab import distributed
from rllab.agents.adam import Adam, NumpyAdam, TorchAdam
from rllab.policies.policy import Policy

Schedule = Literal["constant", "linear", "cosine"]


def schedule(kind: Schedule, remaining: float) -> float:
    """The factor on a scheduled quantity when that share of training remains (1 at the start, towards 0)."""
    if kind == "linear":
        return remaining
    if kind == "cosine":
        return 0.5 * (1 - math.cos(math.pi * remaining))
    return 1.0


def require_finite(loss: Any, gradient_norm: float) -> None:
    """Raise RllabError, naming the source, unless a loss and the norm of its gradient are finite."""
    finite_loss = math.isfinite(float(loss))
    if not (finite_loss and math.isfinite(gradient_norm)):
        what = "gradient" if finite_loss else "loss"
        raise RllabError(
            f"the {what} is not finite (NaN or infinite), so training stopped before it could change the policy; "
            "lower the learning rate, or look at the scale of the rewards"
        )


class Optimizer:
    """Adam on a part of a policy's flat buffer."""

    def __init__(
        self, policy: Policy, parameters: Tensor, *, learning_rate: float, epsilon: float, max_grad_norm: float,
        epsilon_inside: bool = False,
    ) -> None:  # fmt: skip
        """`parameters` is `policy.flat` or a leaf that shares its memory (`policy.critic_parameters()`)."""
        self.policy, self.parameters = policy, parameters
        self.learning_rate, self.max_grad_norm = learning_rate, max_grad_norm
        implementation = TorchAdam if policy.fast is None else NumpyAdam
        self.adam: Adam = implementation(parameters, learning_rate, epsilon, epsilon_inside)

    def set_rate(self, kind: Schedule, remaining: float) -> float:
        """Apply a schedule; the result is the learning rate in force."""
        self.adam.learning_rate = self.learning_rate * schedule(kind, remaining)
        return self.adam.learning_rate

    def step(self, loss: Tensor) -> float:
        """One step down the loss's gradient; its norm before clipping. Raises as `apply` does."""
        self.policy.gradient(loss, self.parameters)
        return self.apply(loss.detach())

    def apply(self, loss: Any) -> float:
        """One step down the gradient that lies in the buffer, clipped to `max_grad_norm` (0: never).

        Processes that train together take the mean of their gradients first.

        Returns the norm before clipping. Raises RllabError if the gradient or the `loss` that it belongs to
        is not finite, naming the source; nothing has been changed then.
        """
        assert self.parameters.grad is not None
        distributed.mean_(self.parameters.grad)
        norm = self.adam.gradient_norm()
        require_finite(loss, norm)
        if 0 < self.max_grad_norm < norm:
            self.adam.scale_gradient(self.max_grad_norm / norm)
        self.adam.step()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Adam's step count and moments."""
        return self.adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.adam.load_state_dict(state)
