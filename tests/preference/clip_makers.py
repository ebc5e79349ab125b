"""Clips and comparisons of known truth for tests."""

import uuid

import numpy as np
from numpy.typing import NDArray

from preference.comparisons import Clip
from preference.dataset import ComparisonData
from preference.inputs import Inputs
from preference.reward_model import RewardConfig, RewardModel

VECTOR = Inputs((3,), (1,), ())


def make_clip(generator: np.random.Generator, length: int = 10, weights: NDArray[np.float64] | None = None) -> Clip:
    """A clip of random steps, whose true reward is linear in observation and action."""
    observations = generator.standard_normal((length, 3)).astype(np.float32)
    actions = generator.uniform(-1, 1, (length, 1)).astype(np.float32)
    following = generator.standard_normal((length, 3)).astype(np.float32)
    weights = np.array([1.0, -2.0, 0.5, 1.0]) if weights is None else weights
    rewards = (np.concatenate([observations, actions], axis=1) @ weights).astype(np.float32)
    arrays = {"observations": observations, "actions": actions, "next_observations": following, "rewards": rewards}
    return Clip(uuid.UUID(int=int(generator.integers(2**62))), arrays)


def make_data(
    count: int, members: int = 1, *, seed: int = 0, length: int = 10, held_out: float = 0.0, bootstrap: bool = True,
    flipped: float = 0.0, ragged: bool = False,
) -> ComparisonData:  # fmt: skip
    """Comparisons by true return, a share of them flipped."""
    generator = np.random.default_rng(seed)
    data = ComparisonData(members, np.random.default_rng(seed + 1), held_out=held_out, bootstrap=bootstrap)
    for _ in range(count):
        lengths = generator.integers(1, length + 1, 2) if ragged else (length, length)
        first, second = (make_clip(generator, int(size)) for size in lengths)
        better = float(first.arrays["rewards"].sum() > second.arrays["rewards"].sum())
        data.add(first, second, 1 - better if generator.random() < flipped else better)
    return data


def make_model(members: int = 1, **settings: object) -> RewardModel:
    """A small reward model."""
    return RewardModel(VECTOR, RewardConfig(members=members, reward_hidden_sizes=(16, 16), **settings))  # type: ignore[arg-type]
