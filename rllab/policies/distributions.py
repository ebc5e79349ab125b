"""Action distributions: categorical, multi-categorical, Bernoulli and diagonal Gaussian.

Each is a view of one parameter tensor `[..., D]`, the network's output, and offers what the agents need:
log-probabilities, entropy, KL divergence, the most likely action, sampling, and the product with its own Fisher
matrix in those parameters (Martens 2020, section 9: with it TRPO's Fisher product is Jᵀ·F·J). Sampling takes
its noise as an argument, so all randomness lives in the collector's one generator and every implementation
of a policy turns the same noise into the same action.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import gymnasium
import numpy as np
import torch
from torch import Tensor

from envs.errors import RllabError

LOG_SQRT_TWO_PI = 0.5 * math.log(2 * math.pi)
MASKED = -1e30
"""The logit of an illegal action: probability exactly 0 in float32, yet finite, so that 0·log 0 is 0."""


class Distribution(Protocol):
    """A batch of action distributions `[...]`."""

    parameters: Tensor
    """`[..., D]`"""

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-probability (density) of each action, `[...]`."""

    def entropy(self) -> Tensor:
        """Entropy in nats, `[...]`."""

    def kl(self, other: Any) -> Tensor:
        """KL(self ‖ other) in nats, `[...]`; `other` is of the same kind."""

    def mode(self) -> Tensor:
        """The most likely action."""

    def sample(self, noise: Tensor) -> Tensor:
        """The action that `noise` `[..., size]` stands for (see `ActionFamily.draw_noise`)."""

    def fisher_product(self, tangent: Tensor) -> Tensor:
        """F·tangent, F the Fisher matrix in `parameters`, `[..., D]`."""


class Categorical:
    """One of A actions; parameters are logits `[..., A]`, illegal actions masked out."""

    def __init__(self, parameters: Tensor, mask: Tensor | None = None) -> None:
        self.parameters = parameters
        masked = parameters if mask is None else parameters.masked_fill(~mask, MASKED)
        self.log_probs = torch.log_softmax(masked, dim=-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        return self.log_probs.gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def kl(self, other: "Categorical") -> Tensor:
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum(-1)

    def mode(self) -> Tensor:
        return self.log_probs.argmax(-1)

    def sample(self, noise: Tensor) -> Tensor:
        # The Gumbel-max trick: argmax of log-probabilities plus Gumbel noise is an exact sample.
        return (self.log_probs + noise).argmax(-1)

    def fisher_product(self, tangent: Tensor) -> Tensor:
        probabilities = self.log_probs.exp()
        return probabilities * (tangent - (probabilities * tangent).sum(-1, keepdim=True))


class MultiCategorical:
    """Several independent categorical choices; parameters are their logits side by side `[..., ΣA]`."""

    def __init__(self, parameters: Tensor, sizes: list[int], mask: Tensor | None = None) -> None:
        self.parameters, self.sizes = parameters, sizes
        masks = [None] * len(sizes) if mask is None else torch.split(mask, sizes, dim=-1)
        logits = torch.split(parameters, sizes, dim=-1)
        self.parts = [Categorical(part, legal) for part, legal in zip(logits, masks, strict=True)]

    def log_prob(self, actions: Tensor) -> Tensor:
        return torch.stack([part.log_prob(actions[..., i]) for i, part in enumerate(self.parts)]).sum(0)

    def entropy(self) -> Tensor:
        return torch.stack([part.entropy() for part in self.parts]).sum(0)

    def kl(self, other: "MultiCategorical") -> Tensor:
        return torch.stack([a.kl(b) for a, b in zip(self.parts, other.parts, strict=True)]).sum(0)

    def mode(self) -> Tensor:
        return torch.stack([part.mode() for part in self.parts], dim=-1)

    def sample(self, noise: Tensor) -> Tensor:
        noises = torch.split(noise, self.sizes, dim=-1)
        return torch.stack([part.sample(n) for part, n in zip(self.parts, noises, strict=True)], dim=-1)

    def fisher_product(self, tangent: Tensor) -> Tensor:
        tangents = torch.split(tangent, self.sizes, dim=-1)
        return torch.cat([p.fisher_product(v) for p, v in zip(self.parts, tangents, strict=True)], dim=-1)


class Bernoulli:
    """A independent yes/no choices; parameters are logits of "yes" `[..., A]`."""

    def __init__(self, parameters: Tensor, mask: Tensor | None = None) -> None:
        self.parameters = parameters
        # An illegal bit may only be 0.
        self.logits = parameters if mask is None else parameters.masked_fill(~mask, MASKED)

    def log_prob(self, actions: Tensor) -> Tensor:
        signs = 2.0 * actions.to(self.logits.dtype) - 1.0
        return torch.nn.functional.logsigmoid(signs * self.logits).sum(-1)

    def entropy(self) -> Tensor:
        p = self.logits.sigmoid()
        return (torch.nn.functional.softplus(self.logits) - p * self.logits).sum(-1)

    def kl(self, other: "Bernoulli") -> Tensor:
        p = self.logits.sigmoid()
        softplus = torch.nn.functional.softplus
        return (p * (self.logits - other.logits) - softplus(self.logits) + softplus(other.logits)).sum(-1)

    def mode(self) -> Tensor:
        return (self.logits > 0).to(torch.int8)

    def sample(self, noise: Tensor) -> Tensor:
        return (noise < self.logits.sigmoid()).to(torch.int8)

    def fisher_product(self, tangent: Tensor) -> Tensor:
        p = self.logits.sigmoid()
        return p * (1 - p) * tangent


class DiagonalGaussian:
    """Independent normals; parameters are means and log standard deviations side by side `[..., 2A]`."""

    def __init__(self, parameters: Tensor) -> None:
        self.parameters = parameters
        self.mean, self.log_std = parameters.chunk(2, dim=-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        deviations = (actions - self.mean) * torch.exp(-self.log_std)
        return -(0.5 * deviations.square() + self.log_std + LOG_SQRT_TWO_PI).sum(-1)

    def entropy(self) -> Tensor:
        return (self.log_std + (0.5 + LOG_SQRT_TWO_PI)).sum(-1)

    def kl(self, other: "DiagonalGaussian") -> Tensor:
        change = self.log_std - other.log_std
        distance = (self.mean - other.mean) * torch.exp(-other.log_std)
        # By expm1 a divergence from itself is exactly 0, and a small one keeps its digits.
        return (0.5 * (torch.expm1(2 * change) + distance.square()) - change).sum(-1)

    def mode(self) -> Tensor:
        return self.mean

    def sample(self, noise: Tensor) -> Tensor:
        return self.mean + torch.exp(self.log_std) * noise

    def fisher_product(self, tangent: Tensor) -> Tensor:
        mean, log_std = tangent.chunk(2, dim=-1)
        return torch.cat([mean * torch.exp(-2 * self.log_std), 2 * log_std], dim=-1)


@dataclass(frozen=True)
class ActionFamily:
    """How an action space becomes a distribution: sizes, the noise a sample takes, and the way to build it."""

    space: gymnasium.Space[Any]
    size: int
    """How many numbers the network puts out for it (a Gaussian's means; its log-std are parameters apart)."""
    noise: Literal["gumbel", "uniform", "normal"]
    """What a sample takes, `size` numbers of it."""
    shape: tuple[int, ...]
    """The shape of one action in a rollout; several-dimensional Boxes are kept flat."""
    dtype: torch.dtype
    build: Callable[[Tensor, Tensor | None], Distribution]
    """From parameters `[..., D]` and an action mask."""
    maskable: bool = True

    @property
    def is_gaussian(self) -> bool:
        """Whether the parameters end with state-independent log standard deviations."""
        return self.noise == "normal"

    def draw_noise(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Noise for that many samples, float32 `[*shape, size]`."""
        full = (*shape, self.size)
        if self.noise == "normal":
            return generator.standard_normal(full, dtype=np.float32)
        if self.noise == "gumbel":
            return generator.gumbel(size=full).astype(np.float32)
        return generator.random(full, dtype=np.float32)

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """Actions `[N, *shape]` in the environment's own form: clipped to a Box's bounds, offset, reshaped."""
        space = self.space
        if isinstance(space, gymnasium.spaces.Box):
            shaped = actions.reshape(len(actions), *space.shape)
            # (np.clip costs several times as much for a handful of numbers.)
            clipped: np.ndarray = np.minimum(np.maximum(shaped, space.low), space.high)
            return clipped.astype(space.dtype, copy=False)
        if isinstance(space, gymnasium.spaces.Discrete):
            return actions + space.start if space.start else actions
        if isinstance(space, gymnasium.spaces.MultiDiscrete):
            offset: np.ndarray = actions.reshape(len(actions), *space.shape) + space.start
            return offset.astype(space.dtype, copy=False)
        return actions.reshape(len(actions), *(space.shape or ()))


def action_family(space: gymnasium.Space[Any]) -> ActionFamily:
    """The distribution family for an action space.

    Raises RllabError for spaces that no family covers.
    """
    spaces = gymnasium.spaces
    if isinstance(space, spaces.Discrete):
        return ActionFamily(space, int(space.n), "gumbel", (), torch.int64, Categorical)
    if isinstance(space, spaces.MultiDiscrete):
        sizes = [int(n) for n in space.nvec.flatten()]
        return ActionFamily(
            space, sum(sizes), "gumbel", (len(sizes),), torch.int64,
            lambda parameters, mask: MultiCategorical(parameters, sizes, mask),
        )  # fmt: skip
    if isinstance(space, spaces.MultiBinary):
        size = int(np.prod(space.shape))
        return ActionFamily(space, size, "uniform", (size,), torch.int8, Bernoulli)
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        size = int(np.prod(space.shape))
        return ActionFamily(
            space, size, "normal", (size,), torch.float32,
            lambda parameters, mask: DiagonalGaussian(parameters), maskable=False,
        )  # fmt: skip
    raise RllabError(
        f"the agents cannot act in the space {space}: they handle Discrete, Box (of floats), MultiDiscrete and "
        "MultiBinary; wrap the environment to give one of these"
    )
