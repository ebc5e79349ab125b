"""Measures of preference models, against closed forms, hand-worked cases and SciPy."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import RllabError
from preference.correlation import RewardCorrelation, mean_ranks, pearson, spearman
from preference.measures import PreferenceMeasures, Regret, Reliability, Spread, ensemble_spread, wilson_interval


@pytest.mark.parametrize(("successes", "count"), [(0, 10), (10, 10), (3, 10), (81, 263), (999, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_wilsons_interval_is_scipys(successes: int, count: int, confidence: float) -> None:
    expected = scipy.stats.binomtest(successes, count).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, count, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilsons_interval_by_hand() -> None:
    # Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_nothing_is_known_of_a_share_of_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_measures_by_hand() -> None:
    measured = PreferenceMeasures.of([0.9, 0.2, 0.4, 0.7], [1.0, 0.0, 1.0, 0.5])
    assert (measured.count, measured.ties) == (4, 1)
    assert measured.accuracy == pytest.approx(2 / 3)
    assert (measured.accuracy_low, measured.accuracy_high) == wilson_interval(2, 3)
    tie = -0.5 * math.log(0.7) - 0.5 * math.log(0.3)
    assert measured.negative_log_likelihood == pytest.approx((-math.log(0.9) - math.log(0.8) - math.log(0.4) + tie) / 4)
    assert measured.brier == pytest.approx((0.1**2 + 0.2**2 + 0.6**2 + 0.2**2) / 4)
    # Each is alone in its bin: |1 − 0.9|, |0 − 0.2|, |1 − 0.4|, |0.5 − 0.7|, a quarter each.
    assert measured.calibration_error == pytest.approx((0.1 + 0.2 + 0.6 + 0.2) / 4)


def test_a_model_that_knows_nothing_scores_a_half_log_two_and_a_quarter() -> None:
    measured = PreferenceMeasures.of([0.5] * 4, [1.0, 0.0, 1.0, 0.0])
    assert measured.accuracy == 0.5
    assert measured.negative_log_likelihood == pytest.approx(math.log(2))
    assert measured.brier == 0.25
    assert measured.calibration_error == 0.0


def test_a_saturated_mistake_costs_much_but_not_infinitely_much() -> None:
    measured = PreferenceMeasures.of([0.0, 1.0], [1.0, 0.0])
    assert measured.negative_log_likelihood == pytest.approx(52 * math.log(2))
    assert PreferenceMeasures.of([1.0, 0.0], [1.0, 0.0]).negative_log_likelihood == pytest.approx(0.0, abs=1e-15)


def test_answers_drawn_from_the_predictions_are_calibrated_and_overconfidence_is_not() -> None:
    generator = np.random.default_rng(0)
    truth = generator.uniform(size=50_000)
    answers = (generator.uniform(size=truth.size) < truth).astype(float)
    assert PreferenceMeasures.of(truth, answers).calibration_error < 0.01
    # A logit twice too large errs by σ(2z) − σ(z); the mean of that is the error, up to what bins average out.
    overconfident = truth**2 / (truth**2 + (1 - truth) ** 2)
    expected = float(np.abs(overconfident - truth).mean())
    assert PreferenceMeasures.of(overconfident, answers).calibration_error == pytest.approx(expected, abs=0.01)


def test_a_bin_has_its_left_edge_and_only_the_last_its_right_one() -> None:
    bins = Reliability.of([0.0, 0.05, 0.5, 0.95, 1.0], [0.0, 1.0, 1.0, 1.0, 0.0], bins=2)
    assert bins.counts.tolist() == [2, 3]
    assert bins.predicted == pytest.approx([0.025, 2.45 / 3])
    assert bins.observed == pytest.approx([0.5, 2 / 3])
    assert bins.edges.tolist() == [0.0, 0.5, 1.0]


def test_an_empty_bin_is_undefined_and_weighs_nothing() -> None:
    bins = Reliability.of([0.1, 0.2], [0.0, 0.0], bins=2)
    assert math.isnan(bins.predicted[1])
    assert math.isnan(bins.observed[1])
    assert bins.error == pytest.approx(0.15)


def test_without_comparisons_only_the_counts_are_reported() -> None:
    assert PreferenceMeasures.of([], []).to_metrics("held_out/") == {
        "held_out/comparisons": 0,
        "held_out/ties": 0,
    }


def test_ties_alone_have_a_likelihood_but_no_accuracy() -> None:
    metrics = PreferenceMeasures.of([0.5, 0.5], [0.5, 0.5]).to_metrics()
    assert "accuracy" not in metrics
    assert metrics["nll"] == pytest.approx(math.log(2))
    assert (metrics["comparisons"], metrics["ties"]) == (2, 2)


@pytest.mark.parametrize(
    ("probabilities", "preferences", "words"),
    [
        ([0.5], [1.0, 0.0], "shape"),
        ([[0.5]], [[1.0]], "shape"),
        ([1.1], [1.0], "from 0 to 1"),
        ([math.nan], [1.0], "from 0 to 1"),
        ([0.5], [0.3], "1, 0 or ½"),
        ([0.5], [math.nan], "1, 0 or ½"),
    ],
)
def test_what_is_no_prediction_or_preference_is_refused(probabilities: Any, preferences: Any, words: str) -> None:
    with pytest.raises(RllabError, match=words):
        PreferenceMeasures.of(probabilities, preferences)


def test_the_spread_of_an_ensemble_is_its_members_deviation_on_each_item() -> None:
    spread = ensemble_spread([[1.0, 0.0], [3.0, 0.0]])
    assert spread.tolist() == [1.0, 0.0]
    summary = Spread.of(np.arange(101.0))
    assert (summary.mean, summary.median, summary.percentile_95, summary.maximum) == (50.0, 50.0, 95.0, 100.0)
    assert Spread.of([]).to_metrics("spread/") == {}
    assert summary.to_metrics("spread/")["spread/percentile_95"] == 95.0


def test_regret_is_what_is_lost_and_its_share_of_what_could_be_won() -> None:
    regret = Regret.of([70.0, 90.0], [100.0], floor=[0.0, 0.0])
    assert (regret.absolute, regret.normalised) == (20.0, 0.2)
    beaten = Regret.of([120.0], [100.0])
    assert beaten.absolute == -20.0
    assert beaten.to_metrics() == {"regret": -20.0}
    assert math.isnan(Regret.of([1.0], [2.0], floor=[3.0]).normalised)
    with pytest.raises(RllabError, match="at least one return"):
        Regret.of([], [1.0])


numbers = st.lists(
    st.tuples(st.integers(-5, 5), st.floats(-100, 100, allow_subnormal=False)), min_size=3, max_size=30
).filter(lambda rows: len({row[0] for row in rows}) > 1 and np.std([row[1] for row in rows]) > 1e-3)


@settings(deadline=None, max_examples=60)
@given(numbers)
def test_correlations_and_ranks_are_scipys_ties_included(rows: list[tuple[int, float]]) -> None:
    x, y = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    assert pearson(x, y) == pytest.approx(scipy.stats.pearsonr(x, y).statistic, abs=1e-9)
    assert spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-9)
    assert mean_ranks(x).tolist() == scipy.stats.rankdata(x).tolist()


@pytest.mark.parametrize("constant", [[2.0, 2.0, 2.0], [0.0, 0.0, 0.0], [0.1 + 0.2, 0.3, 0.3]])
def test_a_correlation_with_what_does_not_vary_is_undefined(constant: list[float]) -> None:
    assert math.isnan(pearson(constant, [1.0, 2.0, 3.0]))
    assert math.isnan(pearson([1.0], [2.0]))


def test_rewards_are_correlated_over_all_steps_and_over_sums_of_episodes() -> None:
    # Within each episode the learned reward runs against the true one; between episodes it agrees.
    true = [np.array([0.0, 1.0]), np.array([10.0, 11.0, 12.0]), np.array([30.0])]
    learned = [np.array([1.0, 0.0]), np.array([12.0, 11.0, 10.0]), np.array([40.0])]
    found = RewardCorrelation.of(learned, true)
    flat = np.concatenate(learned), np.concatenate(true)
    assert found.pearson_step == pytest.approx(scipy.stats.pearsonr(*flat).statistic)
    assert found.spearman_step == pytest.approx(scipy.stats.spearmanr(*flat).statistic)
    sums = [1.0, 33.0, 40.0], [1.0, 33.0, 30.0]
    assert found.pearson_episode == pytest.approx(scipy.stats.pearsonr(*sums).statistic)
    assert found.spearman_episode == pytest.approx(0.5)
    assert set(found.to_metrics("reward/")) == {
        f"reward/{kind}_{over}" for kind in ("pearson", "spearman") for over in ("step", "episode")
    }


def test_one_episode_has_no_correlation_over_episodes() -> None:
    found = RewardCorrelation.of([[1.0, 2.0]], [[1.0, 3.0]])
    assert set(found.to_metrics()) == {"pearson_step", "spearman_step"}
    assert RewardCorrelation.of([], []).to_metrics() == {}


def test_rewards_of_different_episodes_are_refused() -> None:
    with pytest.raises(RllabError, match="1 episodes do not fit true ones of 2"):
        RewardCorrelation.of([[1.0]], [[1.0], [2.0]])
    with pytest.raises(RllabError, match="cannot be correlated"):
        RewardCorrelation.of([[1.0, 2.0]], [[1.0]])
