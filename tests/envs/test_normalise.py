import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from envs.errors import RllabError
from envs.normalise import RewardScaling, RunningMoments

samples = arrays(np.float64, st.tuples(st.integers(1, 40), st.just(3)), elements=st.floats(-100, 100))


@given(samples, st.lists(st.integers(0, 40), max_size=5))
def test_moments_are_those_of_all_samples_however_they_are_split(values, cuts):
    moments = RunningMoments((3,))
    for batch in np.split(values, sorted(min(cut, len(values)) for cut in cuts)):
        moments.update(batch)
    assert moments.count == len(values)
    np.testing.assert_allclose(moments.mean, values.mean(axis=0), atol=1e-10)
    np.testing.assert_allclose(moments.variance, values.var(axis=0), atol=1e-8)


@given(samples, st.integers(0, 2**40 - 1))
def test_masked_samples_leave_no_trace(values, bits):
    valid = np.array([bits >> index & 1 for index in range(len(values))], bool)
    masked, selected = RunningMoments((3,)), RunningMoments((3,))
    masked.update(np.where(valid[:, None], values, np.nan), valid)
    selected.update(values[valid])
    assert masked.count == valid.sum()
    np.testing.assert_array_equal(masked.mean, selected.mean)
    np.testing.assert_array_equal(masked.variance, selected.variance)


def test_leading_axes_are_samples():
    values = np.random.default_rng(0).normal(3, 2, (4, 5, 2)).astype(np.float32)
    moments = RunningMoments((2,))
    moments.update(values, np.ones((4, 5), bool))
    assert moments.count == 20
    np.testing.assert_allclose(moments.mean, values.mean((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(moments.variance, values.var((0, 1)), rtol=1e-5)


def test_moments_stay_accurate_far_from_zero():
    values = 1e8 + np.random.default_rng(0).normal(size=1000)
    moments = RunningMoments()
    for batch in np.split(values, 100):
        moments.update(batch)
    assert moments.variance == pytest.approx(values.var(), rel=1e-6)


def test_moments_are_updated_in_place():
    moments = RunningMoments((2,))
    mean, variance = moments.mean, moments.variance
    moments.update([[1.0, 2.0], [3.0, 6.0]])
    moments.load_state_dict({**moments.state_dict(), "variance": np.array([9.0, 9.0])})
    np.testing.assert_array_equal(mean, [2.0, 4.0])
    np.testing.assert_array_equal(variance, [9.0, 9.0])


def test_moments_survive_saving():
    moments, loaded = RunningMoments((2,)), RunningMoments((2,))
    moments.update([[1.0, 2.0], [3.0, 6.0]])
    loaded.load_state_dict(moments.state_dict())
    for each in (moments, loaded):
        each.update([[0.0, 0.0]])
    np.testing.assert_array_equal(loaded.mean, moments.mean)
    np.testing.assert_array_equal(loaded.variance, moments.variance)
    with pytest.raises(RllabError, match="shape"):
        RunningMoments((3,)).load_state_dict(moments.state_dict())


def returns_one_by_one(rewards, done, valid, discount):
    """R_t = γ·R_{t−1}·(1 − done_{t−1}) + r_t over the valid steps, as the definition reads."""
    found = []
    for row_rewards, row_done, row_valid in zip(rewards, done, valid, strict=True):
        carried = 0.0
        for reward, ended, exists in zip(row_rewards, row_done, row_valid, strict=True):
            if exists:
                found.append(discount * carried + reward)
                carried = 0.0 if ended else found[-1]
    return np.array(found)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 33), st.integers(1, 33))
def test_rewards_are_divided_by_the_deviation_of_discounted_returns(seed, num_rows, first, second):
    generator = np.random.default_rng(seed)
    shape = (num_rows, first + second)
    rewards = generator.normal(size=shape)
    done, valid = generator.random(shape) < 0.2, generator.random(shape) < 0.8
    scaling = RewardScaling(num_rows, discount=0.9, clip=np.inf)
    scaling(rewards[:, :first], done[:, :first], valid[:, :first])
    scaled = scaling(rewards[:, first:], done[:, first:], valid[:, first:])
    expected = returns_one_by_one(rewards, done, valid, 0.9)
    assert scaling.moments.count == len(expected)
    if len(expected) > 0:
        assert scaling.moments.mean == pytest.approx(expected.mean(), abs=1e-9)
        np.testing.assert_allclose(scaled, rewards[:, first:] / np.sqrt(expected.var() + 1e-8), rtol=1e-5)


def test_constant_rewards_without_end_accumulate_to_the_geometric_series():
    scaling = RewardScaling(1, discount=0.99)
    for _ in range(3):
        scaling(np.ones((1, 2048)), np.zeros((1, 2048), bool))
    assert scaling.discounted_returns[0] == pytest.approx(1 / (1 - 0.99))


def test_the_return_starts_again_after_an_episode_in_next_step_autoreset():
    scaling = RewardScaling(1, discount=0.5)
    # Two steps, the end, the step that only resets (reward 0, not valid), and a new episode's first step.
    done = np.array([[False, False, True, False, False]])
    valid = np.array([[True, True, True, False, True]])
    scaling(np.array([[1.0, 1.0, 1.0, 0.0, 4.0]]), done, valid)
    expected = np.array([1.0, 1.5, 1.75, 4.0])
    assert scaling.moments.count == 4
    assert scaling.moments.mean == pytest.approx(expected.mean())
    assert scaling.moments.variance == pytest.approx(expected.var())
    assert scaling.discounted_returns[0] == 4.0


def test_frozen_scaling_changes_nothing_in_itself():
    scaling = RewardScaling(2, discount=0.9)
    rewards, done = np.random.default_rng(0).normal(size=(2, 9)), np.zeros((2, 9), bool)
    scaled = scaling(rewards, done)
    before = scaling.state_dict()
    np.testing.assert_array_equal(scaling(rewards, done, update=False), scaled)
    assert all(np.array_equal(before[name], value) for name, value in scaling.state_dict().items())


def test_scaled_rewards_are_clipped():
    scaling = RewardScaling(1, discount=0.0, clip=2.0)
    scaled = scaling(np.array([[100.0] + [0.0] * 99]), np.zeros((1, 100), bool))
    assert scaled.dtype == np.float32
    assert scaled.max() == 2.0


def test_scaling_survives_saving():
    rewards, done = np.random.default_rng(0).normal(size=(2, 9)), np.zeros((2, 9), bool)
    scaling, loaded = RewardScaling(2, 0.9), RewardScaling(2, 0.9)
    scaling(rewards, done)
    loaded.load_state_dict(scaling.state_dict())
    np.testing.assert_array_equal(loaded(rewards, done), scaling(rewards, done))
    with pytest.raises(RllabError, match="2 environments do not fit 3"):
        RewardScaling(3, 0.9).load_state_dict(scaling.state_dict())


def test_rewards_of_the_wrong_number_of_rows_are_refused():
    with pytest.raises(RllabError, match="one row per environment"):
        RewardScaling(2, 0.9)(np.ones((3, 4)), np.zeros((3, 4), bool))
