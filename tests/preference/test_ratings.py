"""Ratings are the maximum of Bradley and Terry's likelihood, with honest intervals, or one sentence why there is none."""

import math
import uuid

import numpy as np
import pytest
import scipy.optimize
from numpy.typing import NDArray

from envs.errors import RllabError
from preference.comparisons import Answer, Comparison, Label, Pair
from preference.ratings import fit_strengths, rate

BASEBALL = np.array([
    [0, 7, 9, 7, 7, 9, 11],
    [6, 0, 7, 5, 11, 9, 9],
    [4, 6, 0, 7, 7, 8, 12],
    [6, 8, 6, 0, 6, 7, 10],
    [6, 2, 6, 7, 0, 7, 12],
    [4, 4, 5, 6, 6, 0, 6],
    [2, 4, 1, 3, 1, 7, 0],
])  # fmt: skip
"""Wins of the row's team over the column's: American League East, 1987 (Agresti, "Categorical Data Analysis", 2002)."""
TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")


def negative_log_posterior(log_strengths: NDArray[np.float64], wins: NDArray[np.float64], prior: float) -> float:
    difference = log_strengths[:, None] - log_strengths
    likelihood = (wins * np.logaddexp(0.0, -difference)).sum()
    return float(likelihood + prior / 2 * (np.logaddexp(0.0, log_strengths) + np.logaddexp(0.0, -log_strengths)).sum())


def played(strengths: NDArray[np.float64], games: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Wins of a tournament in which every pair meets `games` times."""
    wins = np.zeros((len(strengths), len(strengths)))
    for i, j in zip(*np.triu_indices(len(strengths), 1), strict=True):
        wins[i, j] = generator.binomial(games, 1.0 / (1.0 + math.exp(strengths[j] - strengths[i])))
        wins[j, i] = games - wins[i, j]
    return wins


@pytest.mark.parametrize(("won", "lost"), [(3, 1), (50, 50), (1, 999)])
def test_two_items_have_odds_of_their_wins_and_a_closed_form_error(won: int, lost: int) -> None:
    ratings = fit_strengths([[0, won], [lost, 0]])
    estimate, low, high = ratings.difference(0, 1)
    assert estimate == pytest.approx(math.log(won / lost), abs=1e-7)
    assert (high - low) / 2 == pytest.approx(1.959964 * math.sqrt(1 / won + 1 / lost), rel=1e-5)
    assert ratings.probability(0, 1) == pytest.approx(won / (won + lost))
    # Each lies half the difference from the mean, so that its error is half that of the difference.
    assert ratings.standard_errors == pytest.approx([math.sqrt(1 / won + 1 / lost) / 2] * 2, rel=1e-5)


def test_baseball_teams_have_the_published_strengths_and_errors() -> None:
    # R's package BradleyTerry2 on the same table, relative to Baltimore.
    published = {
        "Milwaukee": (1.5814, 0.3433), "Detroit": (1.4364, 0.3396), "Toronto": (1.2945, 0.3367),
        "New York": (1.2476, 0.3359), "Boston": (1.1077, 0.3339), "Cleveland": (0.6839, 0.3319),
    }  # fmt: skip
    ratings = fit_strengths(BASEBALL, TEAMS)
    for index, team in enumerate(TEAMS[:-1]):
        estimate, low, high = ratings.difference(index, 6)
        assert (estimate, (high - low) / (2 * 1.959964)) == pytest.approx(published[team], abs=6e-5)
    assert ratings.comparisons == 273


@pytest.mark.parametrize("prior", [0.0, 0.5, 4.0])
def test_strengths_are_where_another_optimiser_ends(prior: float) -> None:
    generator = np.random.default_rng(1)
    wins = played(generator.normal(0.0, 1.0, 6), 6, generator) + 0.5
    wins[generator.random((6, 6)) < 0.2] = 0.0
    np.fill_diagonal(wins, 0.0)
    ratings = fit_strengths(wins, prior=prior)
    found = scipy.optimize.minimize(negative_log_posterior, np.zeros(6), (wins, prior), method="BFGS", tol=1e-9).x
    assert ratings.log_strengths == pytest.approx(found - found.mean(), abs=1e-5)
    assert ratings.log_strengths.mean() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("prior", [0.0, 2.0])
def test_the_covariance_is_the_inverse_curvature_without_the_direction_of_all(prior: float) -> None:
    ratings = fit_strengths(BASEBALL, prior=prior)
    # The mode itself, not seen from the mean: with a prior it lies where the prior's gradient vanishes too.
    mode = scipy.optimize.minimize(
        negative_log_posterior, ratings.log_strengths, (BASEBALL, prior), method="BFGS", tol=1e-9
    ).x
    count, step = len(mode), 1e-3
    curvature = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            for sign_i in (-1, 1):
                for sign_j in (-1, 1):
                    moved = mode + step * (sign_i * np.eye(count)[i] + sign_j * np.eye(count)[j])
                    value = negative_log_posterior(moved, BASEBALL, prior)
                    curvature[i, j] += sign_i * sign_j * value / (4 * step**2)
    centring = np.eye(count) - 1 / count
    expected = centring @ np.linalg.pinv(curvature, rcond=1e-6) @ centring
    np.testing.assert_allclose(ratings.covariance, expected, atol=2e-5)
    np.testing.assert_allclose(ratings.covariance.sum(axis=1), 0.0, atol=1e-10)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(2)
    truth = np.array([1.0, 0.4, 0.0, -0.5, -0.9])
    held = []
    for _ in range(400):
        ratings = fit_strengths(played(truth, 40, generator))
        low, high = ratings.interval(0.9)
        held.append((low <= truth) & (truth <= high))
    # 400 tournaments: four deviations of a share of 0.9 are 0.06.
    assert np.mean(held, axis=0) == pytest.approx(0.9, abs=0.06)


def test_a_tie_is_half_a_win_each_way() -> None:
    names, _, comparisons = answered([("a", "b", Label.FIRST)] * 2 + [("b", "a", Label.TIE)] * 2)
    ratings = rate(comparisons, names.__getitem__)
    assert ratings.difference(0, 1)[0] == pytest.approx(math.log(3.0 / 1.0), abs=1e-7)


def test_on_elos_scale_ten_to_one_is_four_hundred_points() -> None:
    rating, low, high = fit_strengths([[0, 10], [1, 0]]).elo()
    assert rating[0] - rating[1] == pytest.approx(400.0)
    assert rating.mean() == pytest.approx(1500.0)
    assert (low < rating).all()
    assert (rating < high).all()


def test_a_long_chain_of_neighbours_converges() -> None:
    count = 30
    wins = np.zeros((count, count))
    for index in range(count - 1):
        wins[index, index + 1], wins[index + 1, index] = 2.0, 1.0
    ratings = fit_strengths(wins)
    assert np.diff(ratings.log_strengths) == pytest.approx(-math.log(2.0), abs=1e-4)
    assert ratings.order == list(range(count))


def test_a_lopsided_chain_has_the_odds_and_errors_of_its_links() -> None:
    wins = np.zeros((4, 4))
    for index in range(3):
        wins[index, index + 1], wins[index + 1, index] = 300.0, 1.0
    estimate, low, high = fit_strengths(wins).difference(0, 3)
    assert estimate == pytest.approx(3 * math.log(300), abs=1e-5)
    assert (high - low) / 2 == pytest.approx(1.959964 * math.sqrt(3 * (1 + 1 / 300)), rel=1e-4)


def test_groups_that_never_met_are_named() -> None:
    wins = np.zeros((4, 4))
    wins[0, 1] = wins[1, 0] = wins[2, 3] = wins[3, 2] = 1.0
    with pytest.raises(RllabError, match="a, b were never compared with c, d"):
        fit_strengths(wins, "abcd")


def test_who_never_lost_is_named() -> None:
    wins = np.array([[0, 1, 2], [1, 0, 3], [0, 0, 0]])
    with pytest.raises(RllabError, match="a, b never lost against c"):
        fit_strengths(wins, "abc")
    with pytest.raises(RllabError, match="a never lost against b"):
        fit_strengths([[0, 5], [0, 0]], "ab")


def test_fords_condition_is_about_paths_and_not_about_direct_wins() -> None:
    # a beats b, b beats c, c beats a: nobody has both won and lost against anybody, and all are equal.
    ratings = fit_strengths([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    assert ratings.log_strengths == pytest.approx([0.0, 0.0, 0.0], abs=1e-9)


def test_a_prior_rates_what_has_no_maximum_and_puts_the_undefeated_first() -> None:
    ratings = fit_strengths([[0, 5, 0], [0, 0, 0], [0, 0, 0]], "abc", prior=1.0)
    assert ratings.order == [0, 2, 1]
    assert ratings.log_strengths[0] == pytest.approx(-ratings.log_strengths[1], abs=1e-7)
    assert ratings.log_strengths[2] == pytest.approx(0.0, abs=1e-7)
    # Seen from the mean, x₂ is (2·x₂ − (x₀ + x₁)) / 3. The prior's one even game leaves x₂ a variance of 4; the sum of
    # the two mirrored others is not moved by their own games, so that its variance is 2 / c, c the prior's curvature.
    c = (1.0 - math.tanh(ratings.log_strengths[0] / 2.0) ** 2) / 4.0
    assert ratings.standard_errors[2] == pytest.approx(math.sqrt((4 * 4 + 2 / c) / 9), rel=1e-5)


def test_a_stronger_prior_draws_items_closer_together() -> None:
    spreads = [float(np.ptp(fit_strengths(BASEBALL, prior=prior).log_strengths)) for prior in (0.0, 1.0, 10.0, 100.0)]
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[0] > 2 * spreads[-1]


def test_items_that_hardly_connect_are_one_sentence() -> None:
    with pytest.raises(RllabError, match="did not converge in 5 iterations"):
        fit_strengths(BASEBALL, max_iterations=5)


@pytest.mark.parametrize(
    ("wins", "words"),
    [([[0, 1]], "square"), ([[0, -1], [1, 0]], "at least 0"), ([[0, math.nan], [1, 0]], "finite")],
)
def test_what_is_no_table_of_wins_is_refused(wins: list[list[float]], words: str) -> None:
    with pytest.raises(RllabError, match=words):
        fit_strengths(wins)
    with pytest.raises(RllabError, match="3 names do not fit 2 items"):
        fit_strengths([[0, 1], [1, 0]], "abc")
    with pytest.raises(RllabError, match="prior"):
        fit_strengths([[0, 1], [1, 0]], prior=-1.0)


def answered(
    rows: list[tuple[str, str, Label]],
) -> tuple[dict[uuid.UUID, str], list[Pair], list[Comparison]]:
    """The owner of each clip, the pairs, and their answers."""
    owners: dict[uuid.UUID, str] = {}
    pairs, comparisons = [], []
    for first, second, label in rows:
        pair = Pair(uuid.uuid4(), uuid.uuid4(), uuid.uuid4())
        owners |= {pair.first: first, pair.second: second}
        pairs.append(pair)
        comparisons.append(Comparison(pair, Answer(uuid.uuid4(), pair.id, "Ada", label)))
    return owners, pairs, comparisons


def test_owners_are_rated_by_all_their_clips_and_skips_and_pairs_of_one_owner_say_nothing() -> None:
    rows = [("run-b", "run-a", Label.FIRST)] * 3 + [("run-b", "run-a", Label.SECOND), ("run-a", "run-b", Label.SKIP)]
    owners, _, comparisons = answered([*rows, ("run-a", "run-a", Label.FIRST)])
    ratings = rate(comparisons, owners.__getitem__)
    assert ratings.names == ("run-a", "run-b")
    assert ratings.comparisons == 4
    assert ratings.strengths[1] / ratings.strengths[0] == pytest.approx(3.0)


def test_comparisons_within_one_owner_rate_nobody() -> None:
    owners, _, comparisons = answered([("a", "a", Label.FIRST), ("a", "b", Label.SKIP)])
    with pytest.raises(RllabError, match="two different owners"):
        rate(comparisons, owners.__getitem__)


def test_one_item_alone_is_average() -> None:
    ratings = fit_strengths([[7.0]])
    assert ratings.log_strengths.tolist() == [0.0]
    assert ratings.standard_errors.tolist() == [0.0]
