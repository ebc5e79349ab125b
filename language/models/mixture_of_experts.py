"""The sparsely-gated mixture of experts: many feed-forward networks, of which each token uses k.

Shazeer, Mirhoseini, Maziarz, Davis, Le, Hinton, Dean, "Outrageously large neural networks: the sparsely-gated
mixture-of-experts layer", 2017, sections 2 and 4, appendices A and B.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.capacity import within_capacity
from language.models.experts import Dispatch, Experts
from language.models.gating import Choice, Gate, SecondaryGates, capacity_of, squared_variation

Overflow = Literal["next", "pass"]


@dataclass(frozen=True)
class MixtureConfig:
    """A layer of experts. The defaults are the paper's MoE-32 (appendix C.1)."""

    width: int = 512
    """Numbers of a token's vector, in and out."""
    feed_forward_width: int = 1024
    """Hidden units of an expert."""
    experts: int = 32
    """How many there are, in all groups together."""
    k: int = 4
    """How many a token is sent to; with groups, how many groups, and how many experts in each of them."""
    groups: int = 1
    """Above 1, a first gate chooses groups and a gate of each group its experts (appendix B; the paper has 16)."""
    noisy: bool = True
    """In training, choose by logits with Gaussian noise of a learnt deviation (section 2.1)."""
    importance_weight: float = 0.1
    """w of the loss on the variation of the experts' summed weights (appendix C.1)."""
    load_weight: float = 0.1
    """w of the loss on the variation of how many tokens the experts may expect (appendix C.1)."""
    capacity_factor: float | None = None
    """In training, an expert takes this many times its even share of tokens; None (the paper) for no limit."""
    overflow: Overflow = "next"
    """Beyond an expert's capacity a token goes to the next of its ranking, or passes it by."""

    def __post_init__(self) -> None:
        for name in ("width", "feed_forward_width", "experts", "k", "groups"):
            if getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.experts % self.groups:
            raise RllabError(f"{self.experts} experts do not divide into {self.groups} groups; change either.")
        if self.k > self.experts_a_group:
            raise RllabError(f"Of {self.experts_a_group} experts no {self.k} can be chosen; lower k or add experts.")
        if self.groups > 1 and self.k > self.groups:
            raise RllabError(f"Of {self.groups} groups no {self.k} can be chosen; lower k or take more groups.")
        for name in ("importance_weight", "load_weight"):
            if not getattr(self, name) >= 0:
                raise RllabError(f"{name} must be at least 0, not {getattr(self, name)}.")
        if self.load_weight > 0 and not self.noisy:
            raise RllabError("Without noise the load has no derivative; set load_weight to 0 or noisy to true.")
        if self.capacity_factor is not None and not self.capacity_factor > 0:
            raise RllabError(f"capacity_factor must be above 0, not {self.capacity_factor}.")
        if self.overflow not in ("next", "pass"):
            raise RllabError(f"overflow must be next or pass, not {self.overflow}.")

    @property
    def experts_a_group(self) -> int:
        """Experts that one gate chooses from on the last level."""
        return self.experts // self.groups

    @property
    def experts_a_token(self) -> int:
        """Experts that a token is sent to: k, or with groups k²."""
        return self.k if self.groups == 1 else self.k**2


@dataclass(frozen=True)
class MixtureReport:
    """What a layer did with S tokens, padding among them, of which only the valid ones count."""

    importance: Tensor
    """`[E]`, the sum of each expert's weights, as the gates chose."""
    load: Tensor
    """`[E]`, the tokens that each expert may expect (appendix A), or without noise those that chose it."""
    auxiliary_loss: Tensor
    """w·CV(importance)² + w·CV(load)², to be added to the task's loss."""
    assignments: Tensor
    """int64 `[S, A]`, the experts that took each token (A = k, or k² with groups); −1 where none did."""
    weights: Tensor
    """`[S, A]`, theirs; 0 where none took it."""
    counts: Tensor
    """int64 `[E]`, the tokens that each expert took."""
    moved: Tensor
    """How many times a token was sent on to another expert since the one it was for was full."""
    dropped: Tensor
    """How many times no expert had room."""
    passed: Tensor
    """How many tokens no expert took at all."""


class MixtureOfExperts(nn.Module):
    """The layer. It stands where a feed-forward network would: `output, report = layer(x, valid)`."""

    def __init__(self, config: MixtureConfig = MixtureConfig()) -> None:
        super().__init__()
        self.config = config
        grouped = config.groups > 1
        self.gate = Gate(config.width, config.groups if grouped else config.experts, config.k, config.noisy)
        self.secondary = (
            SecondaryGates(config.width, config.groups, config.experts_a_group, config.k, config.noisy)
            if grouped
            else None
        )
        self.experts = Experts(config.experts, config.width, config.feed_forward_width)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> tuple[Tensor, MixtureReport]:
        """Send each token to its experts.

        Args:
            x: `[..., width]`.
            valid: bool `[...]`, true where a token is; None if all are. Others are sent to no expert and count nowhere.

        Returns:
            `[..., width]`, 0 where no token is or no expert had room, and what was done.
        """
        flat = x.reshape(-1, x.shape[-1])
        places = None if valid is None or bool(valid.all()) else valid.reshape(-1).nonzero()[:, 0]
        rows = flat if places is None else flat.index_select(0, places)
        routing = self._flat(rows) if self.secondary is None else self._grouped(rows, self.secondary)
        output = self.experts(rows, routing.assignments, routing.weights)
        assignments, weights = routing.assignments, routing.weights
        if places is not None:
            output = torch.zeros_like(flat).index_copy(0, places, output)
            assignments = assignments.new_full((len(flat), assignments.shape[1]), -1).index_copy(0, places, assignments)
            weights = weights.new_zeros(len(flat), weights.shape[1]).index_copy(0, places, weights)
        return output.view_as(x), self._report(routing, assignments, weights)

    def _flat(self, x: Tensor) -> "_Routing":
        choice = self.gate(x)
        loads = choice.loads().sum(0)
        importance = _sums(choice.experts, choice.weights, self.config.experts)
        offsets = choice.experts.new_zeros(len(x))
        assignments, weights, moved = self._limited(choice, offsets)
        return _Routing(assignments, weights, importance, loads, moved)

    def _grouped(self, x: Tensor, secondary: SecondaryGates) -> "_Routing":
        """Appendix B: a row for each token and group that it is sent to."""
        config = self.config
        primary = self.gate(x)
        groups = primary.experts.reshape(-1)
        choice = secondary(x, Dispatch.of(primary.experts, config.groups))
        offsets = groups * config.experts_a_group
        of_groups = primary.weights.reshape(-1, 1)
        importance = _sums(choice.experts + offsets[:, None], choice.weights * of_groups, config.experts)
        of_claims = choice.loads()
        in_groups = of_claims.new_zeros(config.groups, of_claims.shape[1]).index_add(0, groups, of_claims)
        sizes = torch.bincount(groups, minlength=config.groups).clamp(min=1)
        loads = primary.loads().sum(0)[:, None] * in_groups / sizes[:, None]
        assignments, weights, moved = self._limited(choice, offsets)
        shape = (len(x), config.experts_a_token)
        return _Routing(assignments.view(shape), (weights * of_groups).view(shape), importance, loads.view(-1), moved)

    def _limited(self, choice: Choice, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Experts over all groups and their weights, after capacity; and how many claims were moved."""
        config = self.config
        wished = choice.experts + offsets[:, None]
        moved = wished.new_zeros(())
        # In evaluation nothing is dropped: what a model says of a text must not depend on what else is in the batch.
        if config.capacity_factor is None or not self.training or not wished.numel():
            return wished, choice.weights, moved
        capacity = capacity_of(config.capacity_factor, wished.numel(), config.experts)
        move = config.overflow == "next"
        taken = within_capacity(choice.experts, choice.logits, offsets, capacity, config.experts, move)
        if not move:
            return taken, choice.weights.masked_fill(taken < 0, 0), moved
        absent = taken < 0
        logits = choice.logits.gather(-1, (taken - offsets[:, None]).clamp(min=0))
        # A row that nobody took keeps its logits, as the softmax of nothing has no derivative.
        logits = logits.masked_fill(absent & ~absent.all(-1, keepdim=True), -torch.inf)
        weights = torch.softmax(logits, -1).masked_fill(absent, 0)
        return taken, weights, ((taken >= 0) & (taken != wished)).sum()

    def _report(self, routing: "_Routing", assignments: Tensor, weights: Tensor) -> MixtureReport:
        config = self.config
        loss = config.importance_weight * squared_variation(routing.importance)
        loss = loss + config.load_weight * squared_variation(routing.load)
        taken = routing.assignments >= 0
        counts = torch.bincount(routing.assignments[taken], minlength=config.experts)
        return MixtureReport(
            routing.importance.detach(), routing.load.detach(), loss, assignments, weights.detach(), counts,
            routing.moved, (~taken).sum(), (~taken).all(-1).sum(),
        )  # fmt: skip


@dataclass(frozen=True)
class _Routing:
    assignments: Tensor
    weights: Tensor
    importance: Tensor
    load: Tensor
    moved: Tensor


def _sums(experts: Tensor, weights: Tensor, number: int) -> Tensor:
    """`[E]`, the weights of each expert added up."""
    return weights.new_zeros(number).index_add(0, experts.reshape(-1), weights.reshape(-1))
