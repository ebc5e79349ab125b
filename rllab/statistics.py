"""Scores over seeds and tasks, with their uncertainty.

Few runs say little: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(2021) report the interquartile mean with stratified bootstrap intervals (section 4), and so does this lab.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Statistic: TypeAlias = Callable[..., Any]
"""A reduction such as `np.mean`, `np.median` or `iqm`: called as `statistic(array, axis=-1)`."""


def iqm(scores: npt.ArrayLike, axis: int | None = None) -> Any:
    """The interquartile mean: the mean without the lowest and the highest quarter of the scores.

    A quarter is rounded down, so up to three scores give their mean. With `axis` None all scores are pooled,
    those of different tasks too, as rliable does; a float comes back, else an array without that axis.
    Raises ValueError when there is no score.
    """
    array = np.asarray(scores, dtype=np.float64)
    array = array.reshape(-1) if axis is None else np.moveaxis(array, axis, -1)
    count = array.shape[-1]
    if count == 0:
        raise ValueError("the interquartile mean of no scores is not defined")
    quarter = count // 4
    if quarter == 0:
        return array.mean(axis=-1)
    # A partition puts every score on its side of both cuts without sorting them all.
    array = np.partition(array, (quarter, count - quarter - 1), axis=-1)
    return array[..., quarter : count - quarter].mean(axis=-1)


def bootstrap_interval(
    scores: npt.ArrayLike,
    statistic: Statistic = iqm,
    confidence: float = 0.95,
    resamples: int = 10_000,
    generator: np.random.Generator | int = 0,
) -> tuple[float, float]:
    """The percentile bootstrap interval of a statistic over seeds, stratified over tasks.

    Args:
        scores: `[seeds]` or `[seeds, tasks]`. Each task's seeds are drawn again with replacement,
            independently of the other tasks; then all are pooled.
        statistic: what the interval is of.
        confidence: how often such an interval should hold the true value.
        resamples: how many times to draw; Agarwal et al. use between 2,000 and 50,000.
        generator: the random generator, or a seed for one; the same seed gives the same interval.

    Returns the low and the high end; with one seed both are the statistic itself, which says nothing about
    its uncertainty. Raises ValueError when there is no score or the shape is another.
    """
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim not in (1, 2) or array.size == 0:
        raise ValueError(f"scores must be [seeds] or [seeds, tasks] and not empty, but their shape is {array.shape}")
    array = array.reshape(len(array), -1)
    seeds, tasks = array.shape
    draws = np.random.default_rng(generator).integers(seeds, size=(resamples, seeds, tasks))
    resampled = array[draws, np.arange(tasks)].reshape(resamples, seeds * tasks)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(statistic(resampled, axis=-1), (tail, 1.0 - tail))
    return float(low), float(high)


class Summary(TypedDict):
    """What is reported about the returns of an evaluation; `ci95` is the interval of `iqm`."""

    mean: float
    std: float
    iqm: float
    ci95: list[float]


def summarise(returns: npt.ArrayLike) -> Summary:
    """Mean, population standard deviation, interquartile mean and its 95 % bootstrap interval.

    `returns` holds one number an episode. Raises ValueError when there is none.
    """
    array = np.asarray(returns, dtype=np.float64).reshape(-1)
    interval = bootstrap_interval(array)
    return Summary(mean=float(array.mean()), std=float(array.std()), iqm=float(iqm(array)), ci95=list(interval))


def explained_variance(values: npt.ArrayLike, returns: npt.ArrayLike, valid: npt.ArrayLike | None = None) -> float:
    """How much of the returns' variance the values predict: 1 − Var(returns − values) / Var(returns).

    1 is a perfect critic, 0 one that knows only the mean, below 0 worse than that. All three arguments have
    one shape; steps that are not `valid` do not count. NaN when the returns do not vary.
    """
    predicted, actual = np.asarray(values, dtype=np.float64), np.asarray(returns, dtype=np.float64)
    if valid is not None:
        mask = np.asarray(valid, dtype=bool)
        predicted, actual = predicted[mask], actual[mask]
    variance = actual.var() if actual.size else 0.0
    return float(1.0 - (actual - predicted).var() / variance) if variance > 0.0 else float("nan")


def rolling_mean(x: npt.ArrayLike, y: npt.ArrayLike, width: float) -> Floats:
    """At each point the mean of `y` over the points whose `x` lies in (x − width, x]; `x` ascends."""
    positions, values = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if width <= 0.0:
        return values
    totals = np.concatenate(([0.0], np.cumsum(values)))
    first = np.searchsorted(positions, positions - width, side="right")
    end = np.arange(1, len(positions) + 1)
    means: Floats = (totals[end] - totals[first]) / (end - first)
    return means


class LearningCurve(NamedTuple):
    """A curve over several seeds; all four are `[points]`."""

    grid: Floats
    """Environment steps, or seconds."""
    centre: Floats
    """The statistic over seeds."""
    low: Floats
    """The low end of its bootstrap interval."""
    high: Floats
    """The high end of its bootstrap interval."""


def series(rows: Sequence[Mapping[str, float]], x: str, y: str, smoothing_steps: float = 0.0) -> tuple[Floats, Floats]:
    """Two columns of a run's metrics, from the rows where both are finite, `x` ascending.

    `y` is averaged over the last `smoothing_steps` environment steps, whichever column `x` is.
    """
    nan = float("nan")
    columns = np.array([[row.get(name, nan) for name in (x, y, "steps")] for row in rows], dtype=np.float64)
    columns = columns.reshape(-1, 3)
    columns = columns[np.isfinite(columns).all(axis=1)]
    columns = columns[np.argsort(columns[:, 0], kind="stable")]
    return columns[:, 0], rolling_mean(columns[:, 2], columns[:, 1], smoothing_steps)


def learning_curve(
    runs: Sequence[Sequence[Mapping[str, float]]],
    x: Literal["steps", "seconds"] = "steps",
    grid: int | npt.ArrayLike = 200,
    *,
    y: str = "return_mean",
    smoothing_steps: float = 0.0,
    statistic: Statistic = iqm,
    confidence: float = 0.95,
    resamples: int = 2_000,
    generator: int = 0,
) -> LearningCurve:
    """One curve over the seeds of a method, with a pointwise bootstrap band.

    Args:
        runs: each seed's metrics, as `Run.read_metrics` gives them.
        x: the horizontal axis.
        grid: where to evaluate, or at how many points, evenly over the range that every seed covers. The
            seeds are interpolated linearly; beyond what all of them cover the curve is NaN, not a guess.
        y: which column.
        smoothing_steps: over how many of the last environment steps to average each seed first.
        statistic, confidence, resamples: see `bootstrap_interval`.
        generator: a seed. All points see the same resamples, so that the band is as smooth as the seeds.

    Seeds without any finite number are left out. The curve is empty when none is left, or when the seeds
    have no range in common.
    """
    curves = [series(rows, x, y, smoothing_steps) for rows in runs]
    curves = [curve for curve in curves if len(curve[0])]
    start = max((positions[0] for positions, _ in curves), default=np.inf)
    end = min((positions[-1] for positions, _ in curves), default=-np.inf)
    if isinstance(grid, int):
        points = np.linspace(start, end, grid) if start <= end else np.empty(0)
    else:
        points = np.asarray(grid, dtype=np.float64)
    centre, low, high = np.full((3, len(points)), np.nan)
    for index in np.flatnonzero((start <= points) & (points <= end)):
        scores = [float(np.interp(points[index], positions, values)) for positions, values in curves]
        centre[index] = statistic(np.array(scores), axis=-1)
        low[index], high[index] = bootstrap_interval(scores, statistic, confidence, resamples, generator)
    return LearningCurve(points, centre, low, high)
