"""EPIC's distance knows rewards that are the same for every policy, and puts the others where theory says."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from envs.errors import RllabError
from preference.epic import RewardFunction, Transitions, canonically_shaped, epic_distance, pearson_distance

GAMMA = 0.9
Array = NDArray[Any]


def coverage(count: int = 3_000, seed: int = 0) -> Transitions:
    """Independent standard normal states of two numbers and actions of one."""
    generator = np.random.default_rng(seed)
    return Transitions(
        generator.standard_normal((count, 2)),
        generator.standard_normal((count, 1)),
        generator.standard_normal((count, 2)),
    )


def reward(observations: Array, actions: Array, next_observations: Array) -> Array:
    rewards: Array = np.sin(observations[:, 0]) + actions[:, 0] * next_observations[:, 1]
    return rewards


def other(observations: Array, actions: Array, next_observations: Array) -> Array:
    rewards: Array = np.tanh(actions[:, 0]) + observations[:, 1] ** 2
    return rewards


def potential(observations: Array) -> Array:
    values: Array = np.exp(observations[:, 0]) + observations[:, 1] ** 3
    return values


def shaped(base: RewardFunction, factor: float = 1.0, constant: float = 0.0) -> RewardFunction:
    """The same reward for every policy: scaled, shifted and shaped by a potential."""

    def result(observations: Array, actions: Array, next_observations: Array) -> Array:
        shaping = GAMMA * potential(next_observations) - potential(observations)
        changed: Array = factor * np.asarray(base(observations, actions, next_observations)) + constant + shaping
        return changed

    return result


def distance(first: RewardFunction, second: RewardFunction, seed: int = 1, **sizes: int) -> float:
    return epic_distance(
        first, second, coverage(), discount=GAMMA, generator=np.random.default_rng(seed), **({"samples": 500} | sizes)
    )


@pytest.mark.parametrize(("factor", "constant"), [(1.0, 0.0), (3.0, -5.0), (0.01, 100.0)])
def test_shaping_scaling_and_shifting_a_reward_leave_it_at_distance_zero(factor: float, constant: float) -> None:
    assert distance(reward, shaped(reward, factor, constant)) == pytest.approx(0.0, abs=1e-6)


def test_shaping_either_reward_leaves_the_distance_to_another_as_it_was() -> None:
    expected = distance(reward, other)
    assert 0.2 < expected < 1.0
    assert distance(shaped(reward), other) == pytest.approx(expected, abs=1e-9)
    assert distance(reward, shaped(other, 7.0)) == pytest.approx(expected, abs=1e-9)


def test_the_opposite_reward_is_at_distance_one_and_an_unrelated_one_at_the_root_of_a_half() -> None:
    def opposite(observations: Array, actions: Array, next_observations: Array) -> Array:
        return -reward(observations, actions, next_observations)

    def of_action(observations: Array, actions: Array, next_observations: Array) -> Array:
        rewards: Array = actions[:, 0]
        return rewards

    def of_action_squared(observations: Array, actions: Array, next_observations: Array) -> Array:
        rewards: Array = actions[:, 0] ** 2
        return rewards

    assert distance(reward, opposite) == pytest.approx(1.0)
    # a and a² are uncorrelated for a symmetric a; three deviations of a correlation over 3000 samples are 0.055 or so.
    found = distance(of_action, of_action_squared, samples=3_000)
    assert found == pytest.approx(math.sqrt(0.5), abs=0.06)


def test_the_distance_of_two_linear_rewards_is_a_closed_form() -> None:
    # R = w·a + v·s' shaped canonically is w·a + v·s' + γ·E − (a mean that is constant) …: only w·a and v·(s' − E) stay,
    # so with w, v of 1, 1 and 1, −2 and unit variances ρ = (1 − 2) / √(2 · 5).
    def linear(w: float, v: float) -> RewardFunction:
        def result(observations: Array, actions: Array, next_observations: Array) -> Array:
            rewards: Array = w * actions[:, 0] + v * next_observations[:, 1]
            return rewards

        return result

    expected = math.sqrt((1 + 1 / math.sqrt(10)) / 2)
    assert distance(linear(1, 1), linear(1, -2), samples=3_000) == pytest.approx(expected, abs=0.03)


def test_a_reward_of_the_state_alone_is_a_mere_potential_of_its_difference() -> None:
    # R(s) canonically shaped is R(s) + γR(s') − R(s) − γE = γ(R(s') − E): it depends on s' alone.
    def of_state(observations: Array, actions: Array, next_observations: Array) -> Array:
        rewards: Array = observations[:, 0]
        return rewards

    data = coverage(50)
    found = canonically_shaped(of_state, data, GAMMA, data.observations, data.actions, data.next_observations)
    expected = GAMMA * (data.next_observations[:, 0] - data.observations[:, 0].mean())
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_canonical_shaping_is_definition_4_1_summed_out_on_a_finite_problem() -> None:
    table = np.random.default_rng(5).standard_normal((3, 2, 3))

    def tabular(observations: Array, actions: Array, next_observations: Array) -> Array:
        rewards: Array = table[observations, actions, next_observations]
        return rewards

    every = np.array(list(itertools.product(range(3), range(2), range(3))))
    states, actions, next_states = every.T
    found = canonically_shaped(
        tabular, Transitions(states, actions, next_states), GAMMA, states, actions, next_states
    )  # fmt: skip
    expected = [
        table[s, a, following]
        + np.mean([
            GAMMA * table[following, other_action, last] - table[s, other_action, last]
            - GAMMA * table[start, other_action, last]
            for start in range(3) for other_action in range(2) for last in range(3)
        ])
        for s, a, following in every
    ]  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = distance(reward, other, samples=300, canonical_samples=64)
    monkeypatch.setattr("preference.epic._LARGEST_BATCH", 100)
    assert distance(reward, other, samples=300, canonical_samples=64) == pytest.approx(whole, abs=1e-12)


def test_a_mere_potential_has_no_direction_to_compare() -> None:
    def nothing(observations: Array, actions: Array, next_observations: Array) -> Array:
        return np.zeros(len(actions))

    assert math.isnan(distance(reward, shaped(nothing)))
    assert math.isnan(distance(nothing, reward))


def test_the_distance_is_symmetric_and_the_same_for_the_same_generator() -> None:
    assert distance(reward, other) == distance(other, reward) == distance(reward, other)


def test_pearsons_distance_by_hand() -> None:
    assert pearson_distance([1, 2, 3], [2, 4, 6]) == pytest.approx(0.0, abs=1e-7)
    assert pearson_distance([1, 2, 3], [3, 2, 1]) == pytest.approx(1.0)
    assert pearson_distance([1, 2, 3], [1, 2, 1]) == pytest.approx(math.sqrt(0.5))


def test_a_reward_of_another_shape_or_that_is_not_finite_is_refused() -> None:
    with pytest.raises(RllabError, match=r"shape \(500, 2\)"):
        distance(reward, lambda observations, actions, next_observations: observations)
    with pytest.raises(RllabError, match="not finite"):
        distance(reward, lambda observations, actions, next_observations: np.full(len(actions), np.inf))


def test_coverage_without_transitions_or_of_different_lengths_is_refused() -> None:
    with pytest.raises(RllabError, match="0, 0 and 0"):
        Transitions(np.zeros((0, 2)), np.zeros(0), np.zeros((0, 2)))
    with pytest.raises(RllabError, match="3, 2 and 3"):
        Transitions(np.zeros((3, 2)), np.zeros(2), np.zeros((3, 2)))
