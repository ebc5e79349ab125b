"""Rollout: everything an agent learns from, one type for every source; Batch and Experience, pieces of it.

Rows are trajectories and columns are time, `[N, T]`: N environments or N responses, T steps or T tokens.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from rllab import distributed
from rllab.nested import Nested, map_nested


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a policy evaluates. The leading shape is `[B]` (steps) or `[B, T]` (whole rows).

    Losses are means weighted by `valid`, so an agent never knows whether it was given steps or rows.
    """

    observations: Nested
    """`[B, *obs]` or `[B, T, *obs]` (nested); for text `[B, P + T]` token ids."""
    actions: Tensor
    """`[..., *act]`, as sampled (Gaussian actions before clipping to the environment's bounds)."""
    valid: Tensor
    """Bool `[...]`: which steps exist. Autoreset rows, dead agents and padding do not."""
    action_mask: Tensor | None = None
    """Bool `[..., A]`: legal actions (at least one in every step)."""
    starts: Tensor | None = None
    """Bool `[B, T]`: columns whose observation begins an episode (recurrent state is reset there)."""
    hidden: Tensor | None = None
    """`[B, S]`: recurrent state at the first column."""

    @cached_property
    def weights(self) -> Tensor:
        """Flat weights of the steps in a mean: 1/count where a step exists, else 0.

        Of several processes that train together the count is the mean of theirs: then the mean over processes of what
        each finds is the mean over all steps.
        """
        weights = self.valid.flatten().float()
        return weights / distributed.mean_(weights.sum()).clamp_min(1)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values` `[...]` over the steps that exist; 0 if none does."""
        return torch.dot(values.flatten(), self.weights)

    def select(self, index: Tensor | slice) -> Self:
        """The entries at `index` along the first dimension, of every field."""
        return self._map(lambda leaf: leaf[index])

    def flatten(self) -> Self:
        """Rows `[N, T, ...]` as independent steps `[N·T, ...]`; recurrent state has no meaning there."""
        return replace(self, starts=None, hidden=None)._map(lambda leaf: leaf.flatten(0, 1))

    def to(self, device: torch.device | str) -> Self:
        """The same batch with every tensor on `device`."""
        return self._map(lambda leaf: leaf.to(device))

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The batch with `function` applied to every tensor of every field that is there."""
        fields = {name: map_nested(function, getattr(self, name)) for name in self._present}
        return type(self)(**fields)

    @cached_property
    def _present(self) -> list[str]:
        return [field.name for field in dataclasses.fields(self) if getattr(self, field.name) is not None]

    def minibatches(self, size: int, generator: np.random.Generator) -> Iterator[Self]:
        """One epoch: shuffle once, then contiguous slices of `size` entries of the first dimension.

        The number of minibatches depends on the shape alone, never on `valid`, so processes that train
        together always agree on it. One gather an epoch, then slices without a copy.
        """
        permutation = torch.from_numpy(generator.permutation(len(self.valid))).to(self.valid.device)
        shuffled = self.select(permutation)
        for start in range(0, len(self.valid), size):
            yield shuffled.select(slice(start, start + size))


@dataclass(frozen=True, kw_only=True)
class Experience(Batch):
    """A batch with what an agent's loss needs besides."""

    log_probs: Tensor
    """`[...]`, under the policy that acted."""
    values: Tensor
    """`[...]`, the critic's values when the rollout was made."""
    advantages: Tensor
    """`[...]`"""
    returns: Tensor
    """`[...]`, what the critic learns."""
    parameters: Tensor | None = None
    """`[..., D]`, the acting policy's distribution parameters, where an agent needs the exact KL divergence."""


@dataclass(frozen=True)
class Rollout:
    """Trajectories `[N, T]` with what the acting policy thought of them."""

    observations: Nested
    """`[N, T, *obs]` (nested tensors); for text `[N, P + T]` token ids."""
    actions: Tensor
    """`[N, T, *act]`, as sampled."""
    rewards: Tensor
    """`[N, T]`, what the agent learns from: after relabelling and scaling."""
    terminated: Tensor
    """Bool `[N, T]`: the episode ended in a state without a future."""
    truncated: Tensor
    """Bool `[N, T]`: the episode was cut (time limit); its value goes on in `next_values`."""
    valid: Tensor
    """Bool `[N, T]`: which steps exist."""
    log_probs: Tensor
    """`[N, T]`, under the policy that acted."""
    values: Tensor
    """`[N, T]`, the critic's."""
    next_values: Tensor
    """`[N, T]`: the value of each step's true next observation, whatever the autoreset mode."""
    environment_rewards: Tensor
    """`[N, T]`: the environment's own rewards, for reporting."""
    action_mask: Tensor | None = None
    starts: Tensor | None = None
    hidden: Tensor | None = None
    """As in `Batch`."""
    next_observations: Nested | None = None
    """`[N, T, *obs]`: each step's true next observation, an episode's last one included, where it was asked for."""
    group: Tensor | None = None
    """Int64 `[N]`: which rows answer the same question, such as responses to one prompt; for baselines by group."""
    episode_returns: np.ndarray | None = None
    episode_lengths: np.ndarray | None = None
    """Raw returns and lengths of the episodes that ended in this rollout, in the order they ended."""
    hidden_ends: np.ndarray | None = None
    """Bool `[N, T]`: ends that are hidden from the agent, for reports alone; None without any."""

    @property
    def num_steps(self) -> int:
        """How many steps exist (columns that only reset an environment do not count)."""
        return int(self.valid.sum())

    def experience(self, advantages: Tensor, returns: Tensor) -> Experience:
        """The rows, with what the agent made of the rewards (each `[N, T]`)."""
        return Experience(
            observations=self.observations,
            actions=self.actions,
            valid=self.valid,
            action_mask=self.action_mask,
            starts=self.starts,
            hidden=self.hidden,
            log_probs=self.log_probs,
            values=self.values,
            advantages=advantages,
            returns=returns,
        )

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; how rewards are relabelled."""
        return replace(self, **changes)

    def to(self, device: torch.device | str) -> Self:
        """The same rollout with every tensor on `device`."""
        tensors = {
            field.name: map_nested(lambda leaf: leaf.to(device), value)
            for field in dataclasses.fields(self)
            if field.name not in ("episode_returns", "episode_lengths", "hidden_ends")
            and (value := getattr(self, field.name)) is not None
        }
        return replace(self, **tensors)
