"""Stable-Baselines3's replay buffer, read as rollouts and relabelled."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from rllab.nested import leaves_of, map_nested
from rllab.policies.distributions import action_family
from rllab.rollout import Rollout

_PIECE = 2**16
"""Columns of the buffer that are read at a time, so that a large one is not in memory twice."""


class ReplayBufferView:
    """Reads and relabels the replay buffer of an agent."""

    def __init__(self, model: OffPolicyAlgorithm) -> None:
        self.model = model
        self.family = action_family(model.action_space)

    @property
    def buffer(self) -> Any:
        """Stable-Baselines3's replay buffer."""
        return self.model.replay_buffer

    @property
    def filled(self) -> int:
        """Its columns (steps of all environments) that hold something."""
        return int(self.buffer.buffer_size if self.buffer.full else self.buffer.pos)

    def newest(self, columns: int) -> NDArray[np.int64]:
        """Where the last columns are, oldest first."""
        index: NDArray[np.int64] = (self.buffer.pos - columns + np.arange(columns)) % self.buffer.buffer_size
        return index

    def pieces(self) -> Iterator[NDArray[np.int64]]:
        """All of them, in pieces."""
        for start in range(0, self.filled, _PIECE):
            yield np.arange(start, min(start + _PIECE, self.filled))

    def rollout(self, columns: NDArray[np.int64]) -> Rollout:
        """Columns as a rollout `[N, T]`, with the rewards that the buffer has; of log-probabilities and values it has
        none, and they are 0."""
        buffer = self.buffer

        def rows(leaf: NDArray[Any]) -> torch.Tensor:
            array = np.ascontiguousarray(np.swapaxes(leaf[columns], 0, 1))
            return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array)

        rewards, truncated = rows(buffer.rewards), rows(buffer.timeouts) > 0
        nothing = torch.zeros_like(rewards)
        return Rollout(
            observations=map_nested(rows, buffer.observations), actions=self._actions(buffer.actions[columns]),
            rewards=rewards, terminated=(rows(buffer.dones) > 0) & ~truncated, truncated=truncated,
            valid=torch.ones(rewards.shape, dtype=torch.bool), log_probs=nothing, values=nothing, next_values=nothing,
            environment_rewards=rewards, next_observations=map_nested(rows, buffer.next_observations),
        )  # fmt: skip

    def _actions(self, stored: NDArray[Any]) -> torch.Tensor:
        """Stored actions `[T, N, A]` as a rollout has them, `[N, T, *act]`: a Box's are stored scaled to [−1, 1]."""
        actions, space = np.swapaxes(stored, 0, 1), self.model.action_space
        if isinstance(space, gymnasium.spaces.Box):
            low, high = space.low.reshape(-1), space.high.reshape(-1)
            actions = low + (0.5 * (actions + 1.0) * (high - low))
        shaped = np.ascontiguousarray(actions.reshape(*actions.shape[:2], *self.family.shape))
        return torch.from_numpy(shaped).to(self.family.dtype)

    def write(self, columns: NDArray[np.int64], rewards: torch.Tensor) -> None:
        """Put rewards `[N, T]` into columns."""
        self.buffer.rewards[columns] = rewards.numpy().T

    def relabel(self, reward: Callable[[Rollout], torch.Tensor]) -> None:
        """Put the rewards that `reward` gives to a rollout, `[N, T]`, in place of all that are stored."""
        for columns in self.pieces():
            self.write(columns, reward(self.rollout(columns)))

    def state_dict(self) -> dict[str, Any]:
        """What is stored, and where it goes on."""
        named = {name: getattr(self.buffer, name) for name in ("actions", "rewards", "dones", "timeouts")}
        for name in ("observations", "next_observations"):
            leaves = leaves_of(getattr(self.buffer, name))
            named |= {f"{name}.{number}": leaf for number, leaf in enumerate(leaves)}
        return {
            "arrays": {name: array[: self.filled] for name, array in named.items()},
            "pos": int(self.buffer.pos), "full": bool(self.buffer.full),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for name, array in state["arrays"].items():
            home, _, number = name.partition(".")
            leaves = leaves_of(getattr(self.buffer, home))
            leaves[int(number or 0)][: len(array)] = array
        self.buffer.pos, self.buffer.full = state["pos"], state["full"]
