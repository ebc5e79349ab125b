"""How good a preference model is: accuracy, likelihood, calibration, and how far its ensemble agrees.

Definitions and sources are in docs/measures.md.
"""

import math
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.errors import RllabError

BINS = 10
"""Equal-width bins of the reliability plot and of the calibration error."""
SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)
"""Probabilities enter logarithms as at least this and at most 1 minus this, so that one saturated prediction costs
36 nats and not an infinity."""


def wilson_interval(successes: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval for a share (Wilson 1927); unlike ±1.96 standard errors it is sound near 0 and 1.

    Args:
        successes: how many; halves are allowed.
        count: of how many; 0 gives (0, 1).
        confidence: how often such an interval should hold the true share.
    """
    if count == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    share = successes / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Predictions in bins of equal width over [0, 1], each with its right edge in the next; all `[bins]`."""

    edges: NDArray[np.float64]
    """`[bins + 1]`."""
    counts: NDArray[np.int64]
    """Comparisons in each bin."""
    predicted: NDArray[np.float64]
    """Mean predicted probability; NaN in an empty bin."""
    observed: NDArray[np.float64]
    """Mean preference; NaN in an empty bin."""

    @staticmethod
    def of(probabilities: ArrayLike, preferences: ArrayLike, bins: int = BINS) -> "Reliability":
        """Sort predictions and what was answered, both `[pairs]`, into bins."""
        predictions, answers = np.asarray(probabilities, np.float64), np.asarray(preferences, np.float64)
        edges = np.linspace(0.0, 1.0, bins + 1)
        places = np.clip(np.searchsorted(edges, predictions, side="right") - 1, 0, bins - 1)
        counts = np.bincount(places, minlength=bins)
        divisor = np.where(counts, counts, np.nan)
        predicted = np.bincount(places, predictions, minlength=bins) / divisor
        observed = np.bincount(places, answers, minlength=bins) / divisor
        return Reliability(edges, counts, predicted, observed)

    @property
    def error(self) -> float:
        """The expected calibration error, Σ (n_b / n)·|observed − predicted|; NaN without any comparison."""
        total = int(self.counts.sum())
        return float(np.nansum(self.counts * np.abs(self.observed - self.predicted)) / total) if total else math.nan


@dataclass(frozen=True)
class PreferenceMeasures:
    """Predicted probabilities against what was answered. All numbers but the counts are NaN without comparisons."""

    count: int
    """Comparisons, ties included."""
    ties: int
    """Comparisons with μ = ½; accuracy leaves them out."""
    accuracy: float
    """Share of the decided comparisons whose more probable side won; a prediction of exactly ½ counts a half."""
    accuracy_low: float
    accuracy_high: float
    """Wilson's 95 % interval of the accuracy."""
    negative_log_likelihood: float
    """Mean cross-entropy with μ, in nats; log 2 ≈ 0.693 for a model that knows nothing."""
    brier: float
    """Mean of (P − μ)²; ¼ on decided comparisons for a model that knows nothing."""
    calibration_error: float
    """Expected calibration error over ten equal-width bins of P(first)."""
    reliability: Reliability = field(repr=False, compare=False)
    """The bins behind it."""

    @staticmethod
    def of(probabilities: ArrayLike, preferences: ArrayLike) -> "PreferenceMeasures":
        """Measure predictions.

        Args:
            probabilities: P(first is better), `[pairs]`.
            preferences: μ(1) of 1, 0 or ½, `[pairs]`; leave skipped pairs out.

        Raises:
            RllabError: the shapes differ, a probability is outside [0, 1], or a preference outside the set.
        """
        predictions, answers = np.asarray(probabilities, np.float64), np.asarray(preferences, np.float64)
        if predictions.ndim != 1 or predictions.shape != answers.shape:
            raise RllabError(
                f"Probabilities of shape {predictions.shape} and preferences of shape {answers.shape} must both be "
                "one number a pair."
            )
        if not ((predictions >= 0.0) & (predictions <= 1.0)).all():
            raise RllabError("A predicted probability is not a number from 0 to 1; check the reward model.")
        if not np.isin(answers, (0.0, 0.5, 1.0)).all():
            raise RllabError("A preference must be 1, 0 or ½; leave skipped pairs out.")

        decided = answers != 0.5
        won = np.where(predictions == 0.5, 0.5, (predictions > 0.5) == (answers > 0.5))[decided]
        successes, decisions = float(won.sum()), int(decided.sum())
        accuracy, low, high = math.nan, math.nan, math.nan
        if decisions:
            accuracy = successes / decisions
            low, high = wilson_interval(successes, decisions)
        likelihood, brier = math.nan, math.nan
        if len(answers):
            clipped = np.clip(predictions, SMALLEST_PROBABILITY, 1.0 - SMALLEST_PROBABILITY)
            likelihood = float(-(answers * np.log(clipped) + (1.0 - answers) * np.log1p(-clipped)).mean())
            brier = float(np.square(predictions - answers).mean())
        bins = Reliability.of(predictions, answers)
        ties = len(answers) - decisions
        return PreferenceMeasures(len(answers), ties, accuracy, low, high, likelihood, brier, bins.error, bins)

    def to_metrics(self, prefix: str = "") -> dict[str, float]:
        """The numbers by name, for a row of metrics; those that are not defined are left out."""
        return _metrics(
            prefix,
            comparisons=self.count,
            ties=self.ties,
            accuracy=self.accuracy,
            accuracy_low=self.accuracy_low,
            accuracy_high=self.accuracy_high,
            nll=self.negative_log_likelihood,
            brier=self.brier,
            calibration_error=self.calibration_error,
        )


@dataclass(frozen=True)
class Spread:
    """How far an ensemble's members are apart: their population standard deviation, summarised over items.

    Items are steps, clips or pairs; NaN without any.
    """

    mean: float
    median: float
    percentile_95: float
    maximum: float

    @staticmethod
    def of(spreads: ArrayLike) -> "Spread":
        """Summarise `spreads` `[...]`, one number an item."""
        values = np.asarray(spreads, np.float64).reshape(-1)
        if not values.size:
            return Spread(math.nan, math.nan, math.nan, math.nan)
        median, percentile_95 = np.quantile(values, (0.5, 0.95))
        return Spread(float(values.mean()), float(median), float(percentile_95), float(values.max()))

    def to_metrics(self, prefix: str = "") -> dict[str, float]:
        """The numbers by name, for a row of metrics; those that are not defined are left out."""
        return _metrics(
            prefix, mean=self.mean, median=self.median, percentile_95=self.percentile_95, maximum=self.maximum
        )


def ensemble_spread(members: ArrayLike) -> NDArray[np.float64]:
    """The members' population standard deviation `[...]`; `members` is `[M, ...]`, one prediction a member and item."""
    spread: NDArray[np.float64] = np.asarray(members, np.float64).std(axis=0)
    return spread


@dataclass(frozen=True)
class Regret:
    """What was lost against a reference, such as the same agent on the true reward: its mean return minus one's own."""

    absolute: float
    """In the unit of the returns; below 0 if the reference was beaten."""
    normalised: float
    """0 for the reference's return, 1 for the floor's (a random policy's); NaN without a floor below the reference."""

    @staticmethod
    def of(returns: ArrayLike, reference: ArrayLike, floor: ArrayLike | None = None) -> "Regret":
        """Compare means of true returns, any shapes: one's own, the reference's, and perhaps a random policy's.

        Raises:
            RllabError: there is no return, or one is not finite.
        """
        own, best = _mean_return(returns), _mean_return(reference)
        worst = math.nan if floor is None else _mean_return(floor)
        normalised = (best - own) / (best - worst) if best > worst else math.nan
        return Regret(best - own, normalised)

    def to_metrics(self, prefix: str = "") -> dict[str, float]:
        """The numbers by name, for a row of metrics; those that are not defined are left out."""
        return _metrics(prefix, regret=self.absolute, normalised_regret=self.normalised)


def _mean_return(returns: ArrayLike) -> float:
    values = np.asarray(returns, np.float64)
    if not values.size or not np.isfinite(values).all():
        raise RllabError("Regret needs at least one return on each side, all of them finite.")
    return float(values.mean())


def _metrics(prefix: str, **numbers: float) -> dict[str, float]:
    return {f"{prefix}{name}": number for name, number in numbers.items() if math.isfinite(number)}
