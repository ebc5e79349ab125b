"""Policy: what every agent trains, be it a small MLP, an LSTM or a GPT.

A policy wraps one `torch.nn.Module` whose forward pass gives distribution parameters and values for a `Batch`. Its
weights live in one flat buffer, actor first and critic last, of which the module's parameters are views:
a gradient norm, an optimiser step, a TRPO direction or a checkpoint is then one vector operation.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from envs.normalise import RewardScaling
from rllab.policies.distributions import Distribution
from rllab.policies.fast import FastActorCritic
from rllab.policies.flat import flatten_parameters, laid_flat, shaped
from rllab.rollout import Batch, Rollout


@dataclass(frozen=True)
class Evaluation:
    """What a policy says of a batch; the leading shape of each is that of `batch.actions`, `[B]` or `[B, T]`."""

    log_prob: Tensor
    entropy: Tensor
    value: Tensor
    parameters: Tensor | None
    """`[..., D]`: the distribution's parameters; None where they were not asked for and would take much memory."""


class Policy(ABC):
    """An actor and a critic over one flat parameter buffer.

    The module is called as `module(batch, actor=True, critic=True)` and returns `(parameters [..., D] | None,
    values [...] | None)`. It evaluates steps, or whole rows in one pass if `rows` is True (recurrent policies,
    language models): agents then make minibatches of rows.
    """

    rows = False
    single_threaded = False
    """Whether its arithmetic is so small that one thread is faster than several."""
    evaluation_chunk = 2048
    """Steps of a rollout that are evaluated at a time, where nothing needs gradients."""
    fast: FastActorCritic | None = None
    """The hand-written path over the same weights, where there is one."""
    reward_scaling: RewardScaling | None = None
    """Running scale of the rewards it was trained on, if they were scaled; evaluation never uses it."""

    def __init__(self, module: nn.Module, critic: list[nn.Parameter], device: torch.device | str = "cpu") -> None:
        """Lay out `module`'s parameters flat, the `critic`'s (on which no action depends) last.

        Those that are frozen (`requires_grad` False) stay where they are, outside of the buffer.
        """
        self.module = module.to(device)
        self.device = torch.device(device)
        of_critic = {id(parameter) for parameter in critic}
        trained = [p for p in module.parameters() if p.requires_grad]
        self._actor = [p for p in trained if id(p) not in of_critic]
        ordered = self._actor + [p for p in trained if id(p) in of_critic]
        self.actor_size = sum(p.numel() for p in self._actor)
        self.flat = flatten_parameters(ordered)
        """Every parameter, `[P]`; `flat.grad` holds every gradient."""

    @abstractmethod
    def distribution(self, parameters: Tensor, action_mask: Tensor | None = None) -> Distribution:
        """The action distribution with these parameters `[..., D]`."""

    def evaluate(self, batch: Batch, *, parameters: bool = True) -> Evaluation:
        """Log-probability and entropy of the batch's actions and the value of its observations.

        `backward()` on a loss made of them adds to `flat.grad`.

        Args:
            batch: steps or whole rows.
            parameters: whether those of the distributions are wanted, as they are for a KL divergence. A policy whose
                distributions are large (a language model's) may do without them otherwise.
        """
        found, value = self.module(batch)
        distribution = self.distribution(found, batch.action_mask)
        return Evaluation(distribution.log_prob(batch.actions), distribution.entropy(), value, found)

    def value(self, batch: Batch) -> Tensor:
        """The critic alone, `[...]`: gradients reach the critic's own parameters and nothing else."""
        value: Tensor = self.module(batch, actor=False)[1]
        return value

    def fisher(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        """The function v ↦ F·v over the actor's parameters, F the mean Fisher matrix of the batch's states.

        Gauss–Newton form (Martens 2020, section 9): J pushes v forward to the distribution's parameters, the
        distribution multiplies by its own Fisher matrix, Jᵀ pulls back. Both graphs are built once: Jᵀu is linear
        in a dummy u, so its derivative with respect to u, applied to v, is J·v.
        """
        weights = batch.weights.view(batch.valid.shape).unsqueeze(-1)
        with _twice_differentiable_kernels(), torch.enable_grad():
            parameters = self.module(batch, critic=False)[0]
            dummy = torch.zeros_like(parameters, requires_grad=True)
            pulled_dummy = torch.autograd.grad(parameters, self._actor, dummy, create_graph=True)
        distribution = self.distribution(parameters.detach(), batch.action_mask)

        def product(vector: Tensor) -> Tensor:
            pieces = torch.split(vector, [p.numel() for p in self._actor])
            tangents = [shaped(piece, p) for piece, p in zip(pieces, self._actor, strict=True)]
            (pushed,) = torch.autograd.grad(pulled_dummy, dummy, tangents, retain_graph=True)
            cotangent = distribution.fisher_product(pushed) * weights
            pulled = torch.autograd.grad(parameters, self._actor, cotangent, retain_graph=True)
            return torch.cat([laid_flat(piece) for piece in pulled])

        return product

    def zero_gradient(self) -> None:
        """Empty the gradient buffer."""
        assert self.flat.grad is not None
        self.flat.grad.zero_()

    def gradient(self, loss: Tensor, parameters: Tensor) -> Tensor:
        """The loss's gradient with respect to `flat` or a leaf of it, in place in the gradient buffer."""
        assert parameters.grad is not None
        self.zero_gradient()
        loss.backward()  # type: ignore[no-untyped-call]
        return parameters.grad

    def actor_parameters(self) -> Tensor:
        """The actor's part of `flat` as a leaf `[actor_size]` sharing memory with it, gradient included."""
        return self._leaf(slice(0, self.actor_size))

    def critic_parameters(self) -> Tensor:
        """The critic's part of `flat`, likewise."""
        return self._leaf(slice(self.actor_size, None))

    def _leaf(self, piece: slice) -> Tensor:
        assert self.flat.grad is not None
        leaf = self.flat.detach()[piece].requires_grad_()
        leaf.grad = self.flat.grad[piece]
        return leaf

    def adapt(self, rollout: Rollout) -> None:
        """Let running statistics see a rollout; the loop calls it *after* the agent's update, never before.

        Statistics that moved between acting and learning would make the first ratios differ from 1.
        """

    def state_dict(self) -> dict[str, Any]:
        """Weights by name, and whatever statistics belong to the policy."""
        state: dict[str, Any] = {"weights": dict(self.module.state_dict())}
        if self.reward_scaling is not None:
            state["reward_scaling"] = self.reward_scaling.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state; weights are copied into the flat buffer."""
        self.module.load_state_dict(state["weights"])
        if self.reward_scaling is not None:
            self.reward_scaling.load_state_dict(state["reward_scaling"])


@contextmanager
def _twice_differentiable_kernels() -> Iterator[None]:
    """Kernels whose backward pass can itself be differentiated: attention's math backend, torch's own recurrences."""
    onednn = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        with (
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
            torch.backends.cudnn.flags(enabled=False),
        ):
            yield
    finally:
        torch._C._set_mkldnn_enabled(onednn)
