"""Statistics against closed forms, SciPy, and their own definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rllab.statistics import (
    bootstrap_interval,
    explained_variance,
    iqm,
    learning_curve,
    rolling_mean,
    series,
    summarise,
)

scores = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)


@given(scores)
def test_iqm_is_the_trimmed_mean_that_rliable_uses(values: list[float]) -> None:
    assert iqm(values) == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-12, abs=1e-6)


def test_iqm_ignores_the_best_and_the_worst_quarter() -> None:
    assert iqm([-1e9, 1.0, 3.0, 1e9]) == 2.0
    assert iqm([1.0, 2.0, 9.0]) == 4.0  # too few to leave any out
    assert iqm([7.0]) == 7.0


def test_iqm_pools_tasks_and_follows_an_axis() -> None:
    array = np.random.default_rng(0).standard_normal((8, 3, 5))
    assert iqm(array) == pytest.approx(stats.trim_mean(array, 0.25, axis=None))
    for axis in (0, 1, 2, -1):
        np.testing.assert_allclose(iqm(array, axis=axis), stats.trim_mean(array, 0.25, axis=axis))


def test_the_iqm_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no scores"):
        iqm([])


def test_the_bootstrap_of_a_mean_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).normal(100.0, 15.0, 20)
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=2)
    low, high = bootstrap_interval(values, np.mean, resamples=20_000)
    # Two sets of 20,000 resamples agree to a fraction of the interval's width of about 13.
    assert low == pytest.approx(expected.confidence_interval.low, abs=0.4)
    assert high == pytest.approx(expected.confidence_interval.high, abs=0.4)


def test_the_bootstrap_of_two_equally_likely_scores_is_binomial() -> None:
    # Of two draws from {0, 1} the mean is 0, ½, 1 with probability ¼, ½, ¼.
    assert bootstrap_interval([0.0, 1.0], np.mean, confidence=0.4) == (0.5, 0.5)
    assert bootstrap_interval([0.0, 1.0], np.mean, confidence=0.6) == (0.0, 1.0)


def test_tasks_are_strata() -> None:
    # Scores that differ only between tasks leave nothing to chance: each resample holds every task equally.
    by_task = np.tile([0.0, 10.0, 20.0], (4, 1))
    assert bootstrap_interval(by_task, np.mean) == (10.0, 10.0)
    low, high = bootstrap_interval(by_task.reshape(-1), np.mean)
    assert low < 10.0 < high


def test_seeds_are_drawn_independently_for_each_task() -> None:
    # Were whole rows drawn, the two tasks would always cancel.
    opposite = np.array([[1.0, -1.0], [-1.0, 1.0]])
    low, high = bootstrap_interval(opposite, np.mean)
    assert (low, high) == (-1.0, 1.0)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.arange(10.0)
    assert bootstrap_interval(values, generator=5) == bootstrap_interval(values, generator=np.random.default_rng(5))
    assert bootstrap_interval(values, generator=5, resamples=50) != bootstrap_interval(
        values, generator=6, resamples=50
    )


@pytest.mark.parametrize("shape", [(0,), (3, 0), (2, 2, 2), ()])
def test_scores_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        bootstrap_interval(np.zeros(shape))


def test_a_summary_holds_the_usual_numbers() -> None:
    summary = summarise([1.0, 2.0, 3.0, 10.0])
    assert summary["mean"] == 4.0
    assert summary["std"] == pytest.approx(math.sqrt(12.5))
    assert summary["iqm"] == 2.5
    assert summary["ci95"] == list(bootstrap_interval([1.0, 2.0, 3.0, 10.0]))
    assert summarise([500.0] * 3) == {"mean": 500.0, "std": 0.0, "iqm": 500.0, "ci95": [500.0, 500.0]}


def test_explained_variance_of_a_perfect_an_ignorant_and_a_harmful_critic() -> None:
    returns = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert explained_variance(returns + 7.0, returns) == 1.0
    assert explained_variance(np.zeros((2, 2)), returns) == 0.0
    assert explained_variance(-returns, returns) == -3.0


def test_explained_variance_counts_valid_steps_only() -> None:
    returns, values = np.array([1.0, 2.0, 99.0]), np.array([1.0, 2.0, -99.0])
    assert explained_variance(values, returns, valid=np.array([True, True, False])) == 1.0


def test_explained_variance_of_constant_or_absent_returns_is_not_a_number() -> None:
    assert math.isnan(explained_variance([1.0, 2.0], [3.0, 3.0]))
    assert math.isnan(explained_variance([1.0], [3.0], valid=[False]))


def test_rolling_mean_averages_over_a_width_not_a_count() -> None:
    positions, values = [0.0, 1.0, 2.0, 10.0], [4.0, 0.0, 2.0, 8.0]
    assert rolling_mean(positions, values, 2.0).tolist() == [4.0, 2.0, 1.0, 8.0]
    assert rolling_mean(positions, values, 0.0).tolist() == values
    assert rolling_mean(positions, values, 100.0).tolist() == [4.0, 2.0, 2.0, 3.5]
    assert rolling_mean([], [], 1.0).tolist() == []


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30), st.floats(0.1, 50))
def test_rolling_mean_equals_its_definition(values: list[float], width: float) -> None:
    positions = np.cumsum(np.linspace(0.5, 3.0, len(values)))
    expected = [
        np.mean([y for x, y in zip(positions, values, strict=True) if here - width < x <= here]) for here in positions
    ]
    np.testing.assert_allclose(rolling_mean(positions, values, width), expected, atol=1e-9)


def rows(steps: list[float], returns: list[float], steps_per_second: float = 10.0) -> list[dict[str, float]]:
    return [
        {"steps": step, "seconds": step / steps_per_second, "return_mean": value}
        for step, value in zip(steps, returns, strict=True)
    ]


def test_a_series_leaves_out_rows_without_a_finite_number() -> None:
    metrics = [*rows([1, 2, 3], [math.nan, 5.0, 6.0]), {"steps": 4.0}]
    positions, values = series(metrics, "steps", "return_mean")
    assert (positions.tolist(), values.tolist()) == ([2.0, 3.0], [5.0, 6.0])


def test_seeds_are_aligned_by_interpolation_over_their_common_range() -> None:
    runs = [rows([0, 10, 20], [0.0, 10.0, 20.0]), rows([5, 15], [15.0, 25.0]), rows([0, 30], [5.0, 35.0])]
    curve = learning_curve(runs, grid=11)
    np.testing.assert_allclose(curve.grid, np.linspace(5, 15, 11))
    # The seeds are x, x + 10 and x + 5: their mean (three are too few to trim) is x + 5.
    np.testing.assert_allclose(curve.centre, curve.grid + 5)
    np.testing.assert_allclose(curve.low, curve.grid)
    np.testing.assert_allclose(curve.high, curve.grid + 10)


def test_a_curve_by_seconds_uses_each_seeds_own_clock() -> None:
    runs = [rows([0, 100], [0.0, 100.0], 10.0), rows([0, 100], [0.0, 100.0], 20.0)]
    curve = learning_curve(runs, "seconds", grid=np.array([2.0, 5.0, 6.0]), statistic=np.mean)
    np.testing.assert_allclose(curve.centre, [30.0, 75.0, np.nan])


def test_a_step_without_a_score_from_every_seed_is_no_guess() -> None:
    curve = learning_curve([rows([0, 10], [0, 1]), rows([5, 10], [1, 1])], grid=np.array([0.0, 5.0, 10.0, 11.0]))
    assert np.isnan(curve.centre).tolist() == [True, False, False, True]
    assert np.isnan(curve.low).tolist() == np.isnan(curve.high).tolist() == [True, False, False, True]


def test_one_seed_has_a_band_of_no_width() -> None:
    curve = learning_curve([rows([0, 10], [0.0, 10.0])], grid=5)
    np.testing.assert_array_equal(curve.low, curve.centre)
    np.testing.assert_array_equal(curve.high, curve.centre)


@pytest.mark.parametrize("runs", [[], [[]], [rows([0, 1], [0, 0]), rows([5, 6], [0, 0])]])
def test_seeds_with_nothing_in_common_have_an_empty_curve(runs: list[list[dict[str, float]]]) -> None:
    assert all(len(part) == 0 for part in learning_curve(runs))
