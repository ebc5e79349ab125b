"""How well a learned reward agrees with the true one where both are known: Pearson's and Spearman's coefficients."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.errors import RllabError

_ROUNDING = 1e-12  # a deviation smaller than this share of the values is arithmetic, not variation


def pearson(first: ArrayLike, second: ArrayLike) -> float:
    """Pearson's correlation of two equally many numbers; NaN if there are fewer than two or one side does not vary.

    Raises:
        RllabError: the shapes differ.
    """
    x, y = _matching(first, second)
    if len(x) < 2:
        return math.nan
    scales = [np.abs(values).max() for values in (x, y)]
    x, y = x - x.mean(), y - y.mean()
    norms = [float(np.linalg.norm(values)) for values in (x, y)]
    if any(norm <= _ROUNDING * scale * math.sqrt(len(x)) for norm, scale in zip(norms, scales, strict=True)):
        return math.nan
    return float(np.clip((x / norms[0]) @ (y / norms[1]), -1.0, 1.0))


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation: Pearson's of `mean_ranks`. NaN and errors as there."""
    x, y = _matching(first, second)
    return pearson(mean_ranks(x), mean_ranks(y))


def mean_ranks(values: ArrayLike) -> NDArray[np.float64]:
    """The rank of each of `[n]` values from 1 up; equal ones share the mean of the ranks that they take up."""
    array = np.asarray(values, np.float64)
    _, places, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2.0)[places.reshape(-1)]
    return ranks


@dataclass(frozen=True)
class RewardCorrelation:
    """A learned reward beside the true one; NaN where a coefficient is not defined."""

    pearson_step: float
    """Over all steps of all episodes."""
    spearman_step: float
    pearson_episode: float
    """Over the episodes' sums, undiscounted."""
    spearman_episode: float

    @staticmethod
    def of(learned: Sequence[ArrayLike], true: Sequence[ArrayLike]) -> "RewardCorrelation":
        """Correlate rewards; each argument has one array a whole episode, of as many rewards as it has steps.

        Raises:
            RllabError: the numbers of episodes, or of steps in an episode, differ.
        """
        if len(learned) != len(true):
            raise RllabError(f"Learned rewards of {len(learned)} episodes do not fit true ones of {len(true)}.")
        pairs = [_matching(one, other) for one, other in zip(learned, true, strict=True)]
        if not pairs:
            return RewardCorrelation(math.nan, math.nan, math.nan, math.nan)
        steps = [np.concatenate(side) for side in zip(*pairs, strict=True)]
        sums = [[float(rewards.sum()) for rewards in side] for side in zip(*pairs, strict=True)]
        return RewardCorrelation(pearson(*steps), spearman(*steps), pearson(*sums), spearman(*sums))

    def to_metrics(self, prefix: str = "") -> dict[str, float]:
        """The numbers by name, for a row of metrics; those that are not defined are left out."""
        return {f"{prefix}{name}": value for name, value in asdict(self).items() if math.isfinite(value)}


def _matching(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise RllabError(
            f"Values of shape {x.shape} and {y.shape} cannot be correlated: give as many of each, in a row."
        )
    return x, y
