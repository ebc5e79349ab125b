"""Returns and advantages equal plain loops, closed forms and Stable-Baselines3's."""

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from torch import Tensor

from rllab.returns import discounted_sum, generalised_advantages, rewards_to_go

FALSE = torch.zeros(1, 1, dtype=torch.bool)


def flags(drawn: int, shape: tuple[int, int], chance: float) -> Tensor:
    return torch.from_numpy(np.random.default_rng(drawn).random(shape) < chance)


def plain_advantages(
    rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, truncated: Tensor, valid: Tensor,
    discount: float, gae_lambda: float,
) -> NDArray[np.float64]:  # fmt: skip
    """Equation 16 of Schulman et al. 2016 column by column, in double precision."""
    advantages = np.zeros(rewards.shape)
    for n in range(rewards.shape[0]):
        following = 0.0
        for t in reversed(range(rewards.shape[1])):
            future = 0.0 if terminated[n, t] else float(next_values[n, t])
            delta = float(rewards[n, t]) + discount * future - float(values[n, t])
            cut = bool(terminated[n, t] or truncated[n, t])
            following = delta + (0.0 if cut else discount * gae_lambda * following)
            following = following if valid[n, t] else 0.0
            advantages[n, t] = following
    return advantages


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 4), columns=st.integers(1, 40), seed=st.integers(0, 10_000),
    discount=st.sampled_from([0.0, 0.9, 0.99, 1.0]), gae_lambda=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    chance=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)  # fmt: skip
def test_advantages_equal_a_plain_loop_whatever_the_shape_and_the_flags(
    rows: int, columns: int, seed: int, discount: float, gae_lambda: float, chance: float
) -> None:
    shape = (rows, columns)
    generator = torch.Generator().manual_seed(seed)
    rewards, values, next_values = (torch.randn(shape, generator=generator) for _ in range(3))
    terminated, truncated = flags(seed, shape, chance), flags(seed + 1, shape, chance)
    valid = flags(seed + 2, shape, 0.8)
    arguments = (rewards, values, next_values, terminated, truncated, valid)
    computed = generalised_advantages(*arguments, discount=discount, gae_lambda=gae_lambda)
    np.testing.assert_allclose(computed, plain_advantages(*arguments, discount, gae_lambda), atol=2e-4)


@settings(deadline=None, max_examples=60)
@given(rows=st.integers(1, 3), columns=st.integers(1, 70), seed=st.integers(0, 10_000))
def test_the_doubling_scan_solves_its_recurrence_and_leaves_its_inputs_alone(
    rows: int, columns: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    terms = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    factors = 1.2 * torch.rand(rows, columns, generator=generator, dtype=torch.float64) - 0.1
    before = terms.clone(), factors.clone()
    solved = discounted_sum(terms, factors)
    following = torch.cat([solved[:, 1:], torch.zeros(rows, 1)], dim=1)
    torch.testing.assert_close(solved, terms + factors * following)
    assert torch.equal(terms, before[0])
    assert torch.equal(factors, before[1])


def time_limited(columns: int, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """One row of reward 1 whose episodes are cut every `limit` steps; neither flag means termination."""
    truncated = (torch.arange(columns) % limit == limit - 1).unsqueeze(0)
    return torch.ones(1, columns), torch.zeros(1, columns, dtype=torch.bool), truncated


@pytest.mark.parametrize("gae_lambda", [0.0, 0.95, 1.0])
def test_a_constant_reward_under_a_time_limit_returns_what_an_endless_episode_would(gae_lambda: float) -> None:
    rewards, terminated, truncated = time_limited(24, 8)
    values = torch.full((1, 24), 100.0)  # 1 / (1 - 0.99): the time limit is not part of the task
    advantages = generalised_advantages(
        rewards,
        values,
        values,
        terminated,
        truncated,
        torch.ones_like(terminated),
        discount=0.99,
        gae_lambda=gae_lambda,
    )
    torch.testing.assert_close(advantages + values, torch.full((1, 24), 100.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("gae_lambda", "fixed_point"), [(0.0, 7.4766), (0.95, 4.6433), (1.0, 4.3966)])
def test_merging_the_flags_would_teach_a_value_of_four_to_seven_instead_of_a_hundred(
    gae_lambda: float, fixed_point: float
) -> None:
    rewards, terminated, truncated = time_limited(24, 8)
    merged = (rewards, truncated, terminated)  # time limits passed as terminations

    def mean_return(value: float) -> float:
        rewards, terminated, truncated = merged
        values = torch.full((1, 24), value)
        arguments = (rewards, values, values, terminated, truncated, torch.ones_like(terminated))
        advantages = generalised_advantages(*arguments, discount=0.99, gae_lambda=gae_lambda)
        return float((advantages + values).mean())

    # A critic that cannot see the clock, fitted again and again to the mean return it causes, ends there.
    value = 100.0
    for _ in range(100):
        value = mean_return(value)
    assert value == pytest.approx(fixed_point, abs=1e-3)


def test_lambda_0_is_the_one_step_error_and_lambda_1_the_discounted_return_less_the_value() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 9, generator=generator), torch.randn(2, 10, generator=generator)
    nowhere = FALSE.expand(2, 9)
    arguments = (rewards, values[:, :-1], values[:, 1:], nowhere, nowhere, ~nowhere)
    one_step = generalised_advantages(*arguments, discount=0.9, gae_lambda=0.0)
    torch.testing.assert_close(one_step, rewards + 0.9 * values[:, 1:] - values[:, :-1])
    monte_carlo = generalised_advantages(*arguments, discount=0.9, gae_lambda=1.0)
    for t in range(9):
        discounts = 0.9 ** torch.arange(9 - t)
        expected = (rewards[:, t:] * discounts).sum(1) + 0.9 ** (9 - t) * values[:, -1] - values[:, t]
        torch.testing.assert_close(monte_carlo[:, t], expected)


def test_a_terminated_step_has_no_future_and_a_truncated_one_its_next_value() -> None:
    one = torch.ones(1, 1)
    ended = torch.ones(1, 1, dtype=torch.bool)

    def advantage(terminated: Tensor, truncated: Tensor) -> float:
        arguments = (one, 3 * one, 7 * one, terminated, truncated, ended)
        return float(generalised_advantages(*arguments, discount=0.5, gae_lambda=0.9))

    assert advantage(FALSE, FALSE) == advantage(FALSE, ended) == 1 + 0.5 * 7 - 3
    assert advantage(ended, FALSE) == advantage(ended, ended) == 1 - 3


def test_an_end_cuts_the_trace_so_that_no_advantage_leaks_between_episodes() -> None:
    zeros, nowhere = torch.zeros(1, 6), FALSE.expand(1, 6)
    end_at_2 = torch.arange(6).unsqueeze(0) == 2
    reward_at_4 = (torch.arange(6).unsqueeze(0) == 4).float()
    for terminated, truncated in ((end_at_2, nowhere), (nowhere, end_at_2)):
        arguments = (reward_at_4, zeros, zeros, terminated, truncated, ~nowhere)
        advantages = generalised_advantages(*arguments, discount=0.5, gae_lambda=1.0)
        assert advantages.tolist() == [[0, 0, 0, 0.5, 1, 0]]


@pytest.mark.parametrize("seed", range(3))
def test_advantages_equal_those_of_stable_baselines3(seed: int) -> None:
    rows, columns = 3, 11
    space = gymnasium.spaces.Box(-1, 1, (1,))
    buffer = RolloutBuffer(columns, space, space, device="cpu", gamma=0.97, gae_lambda=0.9, n_envs=rows)
    generator = np.random.default_rng(seed)
    rewards = generator.standard_normal((columns, rows)).astype(np.float32)
    values = generator.standard_normal((columns + 1, rows)).astype(np.float32)
    done = generator.random((columns, rows)) < 0.2
    buffer.rewards, buffer.values = rewards, values[:-1]
    # Theirs are terminations only, told by the next column's "episode start".
    buffer.episode_starts = np.concatenate([np.ones((1, rows)), done[:-1]]).astype(np.float32)
    buffer.compute_returns_and_advantage(torch.from_numpy(values[-1]), done[-1])

    terminated = torch.from_numpy(done.T)
    current, following = torch.from_numpy(values[:-1].T), torch.from_numpy(values[1:].T)
    advantages = generalised_advantages(
        torch.from_numpy(rewards.T), current, following, terminated, torch.zeros_like(terminated),
        torch.ones_like(terminated), discount=0.97, gae_lambda=0.9,
    )  # fmt: skip
    np.testing.assert_allclose(advantages.numpy().T, buffer.advantages, atol=1e-5)
    np.testing.assert_allclose((advantages + current).numpy().T, buffer.returns, atol=1e-5)


def test_the_discounted_sum_of_a_constant_reward_approaches_one_over_one_minus_discount() -> None:
    nowhere = FALSE.expand(1, 2000)
    returns, _ = rewards_to_go(torch.ones(1, 2000), nowhere, nowhere, ~nowhere, discount=0.99)
    assert float(returns[0, 0]) == pytest.approx(1 / (1 - 0.99), rel=1e-5)
    assert float(returns[0, -100]) == pytest.approx((1 - 0.99**100) / (1 - 0.99), rel=1e-5)


def test_rewards_to_go_add_up_to_an_episodes_end_of_either_kind() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]])
    terminated = torch.tensor([[False, True, False, False, False, False]])
    truncated = torch.tensor([[False, False, False, True, False, False]])
    everywhere = torch.ones_like(terminated)
    returns, complete = rewards_to_go(rewards, terminated, truncated, everywhere, discount=0.5)
    assert returns.tolist() == [[2, 2, 8, 8, 32, 32]]
    assert complete.tolist() == [[True, True, True, True, False, False]]


def test_columns_that_do_not_exist_give_nothing_to_a_return_and_are_never_complete() -> None:
    rewards = torch.tensor([[1.0, 1.0, 50.0, 1.0, 1.0]])
    terminated = torch.tensor([[False, True, False, False, True]])
    valid = torch.tensor([[True, True, False, True, True]])
    returns, complete = rewards_to_go(rewards, terminated, torch.zeros_like(valid), valid, discount=1.0)
    assert returns.tolist() == [[2, 1, 0, 2, 1]]
    assert complete.tolist() == [[True, True, False, True, True]]


def test_an_end_told_in_a_column_that_does_not_exist_completes_no_episode() -> None:
    rewards = torch.ones(1, 3)
    terminated = torch.tensor([[False, False, True]])
    valid = torch.tensor([[True, True, False]])
    _, complete = rewards_to_go(rewards, terminated, torch.zeros_like(valid), valid, discount=1.0)
    assert not complete.any()


def test_what_stands_in_columns_that_do_not_exist_changes_no_advantage() -> None:
    generator = torch.Generator().manual_seed(3)
    rewards, values, next_values = (torch.randn(2, 9, generator=generator) for _ in range(3))
    terminated, truncated = flags(1, (2, 9), 0.2), flags(2, (2, 9), 0.2)
    valid = flags(3, (2, 9), 0.6)
    arguments = [rewards, values, next_values, terminated, truncated]
    scrambled = [torch.where(valid, a, torch.randn(2, 9, generator=generator).mul(1e6).to(a.dtype)) for a in arguments]
    one, other = (generalised_advantages(*a, valid, discount=0.9, gae_lambda=0.8) for a in (arguments, scrambled))
    assert torch.equal(one, other)
