"""Strengths of items from comparisons between them: the classical Bradley–Terry model.

Item i beats item j with probability p_i / (p_i + p_j). Fitted by the minorise–maximise iteration of Hunter, "MM
Algorithms for Generalized Bradley–Terry Models" (2004), section 2. The items are runs, policies or checkpoints, whose
clips were compared.
"""

import math
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.errors import RllabError
from preference.comparisons import Comparison

Floats: TypeAlias = NDArray[np.float64]

ELO_PER_NAT = 400.0 / math.log(10.0)
"""On Elo's scale 400 points are odds of 10 to 1."""
_MOST_NAMES = 5  # in one sentence


@dataclass(frozen=True, eq=False)
class Ratings:
    """Strengths of K items, on a logarithmic scale whose mean over the items is 0."""

    names: tuple[str, ...]
    """`[K]`."""
    log_strengths: Floats
    """log p, `[K]`."""
    covariance: Floats
    """Of the log-strengths, `[K, K]`; its rows sum to 0, as the scale's origin is the items' own mean."""
    comparisons: float
    """How many they stand on."""

    @property
    def strengths(self) -> Floats:
        """p, `[K]`, of geometric mean 1."""
        return np.exp(self.log_strengths)

    @property
    def standard_errors(self) -> Floats:
        """Of the log-strengths, `[K]`."""
        return np.sqrt(np.maximum(self.covariance.diagonal(), 0.0))

    @property
    def order(self) -> list[int]:
        """The items' indices, the strongest first."""
        return [int(index) for index in np.argsort(-self.log_strengths, kind="stable")]

    def interval(self, confidence: float = 0.95) -> tuple[Floats, Floats]:
        """The low and the high end of each log-strength's interval, `[K]` each, by the normal approximation."""
        half = _quantile(confidence) * self.standard_errors
        return self.log_strengths - half, self.log_strengths + half

    def probability(self, first: int, second: int) -> float:
        """How probably one item beats another, by their indices."""
        difference = float(self.log_strengths[first] - self.log_strengths[second])
        return 0.5 * (1.0 + math.tanh(difference / 2.0))  # the logistic function, without overflow

    def difference(self, first: int, second: int, confidence: float = 0.95) -> tuple[float, float, float]:
        """log p_first − log p_second with its interval's ends.

        It may exclude 0 though the two items' own intervals overlap.
        """
        contrast = np.zeros(len(self.names))
        contrast[first] += 1.0
        contrast[second] -= 1.0
        estimate = float(contrast @ self.log_strengths)
        half = _quantile(confidence) * math.sqrt(max(0.0, float(contrast @ self.covariance @ contrast)))
        return estimate, estimate - half, estimate + half

    def elo(self, confidence: float = 0.95, mean: float = 1500.0) -> tuple[Floats, Floats, Floats]:
        """Ratings on Elo's scale with their intervals' ends, `[K]` each; the items' mean is `mean`."""
        low, high = self.interval(confidence)
        rating, low, high = (mean + ELO_PER_NAT * values for values in (self.log_strengths, low, high))
        return rating, low, high


def fit_strengths(
    wins: ArrayLike,
    names: Sequence[str] | None = None,
    *,
    prior: float = 0.0,
    tolerance: float = 1e-10,
    max_iterations: int = 100_000,
) -> Ratings:
    """The most probable strengths, and their covariance from the observed information.

    Args:
        wins: `[K, K]`; entry (i, j) is how often i beat j. A tie is half a win each way.
        names: of the items; their numbers by default.
        prior: every item is thought to have met, so often in addition, an item of strength 1, and to have won half
            of it. 0 is maximum likelihood, which exists only if, however the items are divided in two, each side has
            won against the other (Ford 1957). Any larger number makes strengths finite, and draws them together;
            1 is weak.
        tolerance: the iteration ends when every item's expected wins are its wins to within this share of its
            comparisons.
        max_iterations: of the iteration.

    Raises:
        RllabError: the matrix is none of wins, the strengths have no finite maximum (the sentence says who must be
            compared, or who always won), or the iteration does not arrive.
    """
    table = np.array(wins, np.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not len(table):
        raise RllabError(f"Wins must be a square matrix, one row and column an item, but its shape is {table.shape}.")
    if not (np.isfinite(table).all() and (table >= 0.0).all()):
        raise RllabError("A number of wins must be finite and at least 0.")
    if not 0.0 <= prior < math.inf:
        raise RllabError(f"The ratings' prior must be 0 or more, not {prior}.")
    count = len(table)
    labels = tuple(str(index) for index in range(count)) if names is None else tuple(names)
    if len(labels) != count:
        raise RllabError(f"{len(labels)} names do not fit {count} items.")
    np.fill_diagonal(table, 0.0)  # nobody learns from an item that met itself
    if prior == 0.0:
        _check_bounded(table, labels)

    games = table + table.T
    won = table.sum(axis=1) + prior / 2.0
    played = games.sum(axis=1) + prior
    strengths = np.ones(count)
    for _ in range(max_iterations):
        # Hunter's equation 3; a prior's item has strength 1.
        weights = (games / (strengths[:, None] + strengths)).sum(axis=1) + prior / (strengths + 1.0)
        if (np.abs(won - strengths * weights) <= tolerance * played).all():
            break
        strengths = won / weights
        if prior == 0.0:
            strengths /= np.exp(np.log(strengths).mean())
    else:
        raise RllabError(
            f"Ratings did not converge in {max_iterations} iterations: the comparisons hardly connect the items; "
            "compare more, or give a prior such as 1."
        )
    log_strengths = np.log(strengths)
    return Ratings(
        labels, log_strengths - log_strengths.mean(), _covariance(games, log_strengths, prior), float(games.sum() / 2.0)
    )


def rate(comparisons: Iterable[Comparison], owner: Callable[[uuid.UUID], str], *, prior: float = 0.0) -> Ratings:
    """Rate whoever owns the clips: runs, policies, checkpoints.

    Args:
        comparisons: those that count; skipped ones and those between two clips of one owner say nothing.
        owner: the owner's name, by the id of a clip; a dict's `__getitem__` will do.
        prior: see `fit_strengths`.

    Raises:
        RllabError: there is nothing to rate, or `fit_strengths` cannot.
    """
    outcomes = []
    for comparison in comparisons:
        preference = comparison.preference
        first, second = owner(comparison.pair.first), owner(comparison.pair.second)
        if preference is not None and first != second:
            outcomes.append((first, second, preference))
    if not outcomes:
        raise RllabError("No comparison is between clips of two different owners; label pairs that mix them.")
    names = sorted({name for first, second, _ in outcomes for name in (first, second)})
    index = {name: place for place, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    for first, second, preference in outcomes:
        wins[index[first], index[second]] += preference
        wins[index[second], index[first]] += 1.0 - preference
    return fit_strengths(wins, names, prior=prior)


def _covariance(games: Floats, log_strengths: Floats, prior: float) -> Floats:
    """The inverse of the observed information in log-strengths, seen from the items' mean."""
    difference = log_strengths[:, None] - log_strengths
    # The variance of one game: P·(1 − P) = ¼·(1 − tanh²(d/2)), without overflow.
    information = -games * (1.0 - np.tanh(difference / 2.0) ** 2) / 4.0
    np.fill_diagonal(information, -information.sum(axis=1))
    information[np.diag_indices_from(information)] += prior * (1.0 - np.tanh(log_strengths / 2.0) ** 2) / 4.0
    count = len(games)
    centring = np.eye(count) - 1.0 / count
    if prior == 0.0:
        # The likelihood does not know the mean; adding a wall along it makes the inverse the pseudo-inverse's.
        information = information + 1.0 / count
    covariance: Floats = centring @ np.linalg.inv(information) @ centring
    return covariance


def _check_bounded(wins: Floats, names: tuple[str, ...]) -> None:
    """Ford's condition: every item must be reachable from every other along "has won against"."""
    beaten = _reachable(wins > 0.0)
    mutual = beaten & beaten.T
    if mutual.all():
        return
    together = _reachable((wins + wins.T) > 0.0)
    if not together.all():
        group = together[0]
        raise RllabError(
            f"{_listed(names, group)} were never compared with {_listed(names, ~group)}, not even through others; "
            "compare them, or give a prior such as 1."
        )
    # A class of the order "has won against" that nobody outside reaches: it exists, as the order has no cycles.
    for group in mutual:
        if not beaten[~group][:, group].any():
            raise RllabError(
                f"{_listed(names, group)} never lost against {_listed(names, ~group)}, so that no finite strength is "
                "the most likely; compare more, or give a prior such as 1."
            )


def _reachable(edges: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether a path leads from row to column; every item reaches itself."""
    paths = edges | np.eye(len(edges), dtype=bool)
    for _ in range(max(1, math.ceil(math.log2(len(edges) + 1)))):
        paths = (paths.astype(np.float64) @ paths) > 0.0
    return paths


def _listed(names: tuple[str, ...], chosen: NDArray[np.bool_]) -> str:
    listed = [name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen]
    rest = len(listed) - _MOST_NAMES
    return ", ".join(listed[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1.0 + confidence) / 2.0)
