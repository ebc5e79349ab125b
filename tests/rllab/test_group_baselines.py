"""Baselines by group and ratios by row: hand-worked values, gradients, and what they refuse."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_language import RESPONSE, TokenCollector, TokenPolicy, target_score

from envs.errors import RllabError
from rllab.agents import PPO, PPOConfig, Reinforce, ReinforceConfig
from rllab.agents.adam import NumpyAdam, TorchAdam
from rllab.agents.ppo import Evaluation
from rllab.groups import group_advantages, row_advantages
from rllab.rollout import Experience, Rollout

COMMON: dict[str, Any] = {"rollout_steps": RESPONSE, "discount": 1.0, "minibatch_size": 8 * RESPONSE}


def rows_of(rewards: list[list[float]], lengths: list[int], group: list[int] | None = None) -> Rollout:
    """Responses with these rewards, whose last tokens end them."""
    values = torch.tensor(rewards)
    columns = torch.arange(values.shape[1])
    valid = columns < torch.tensor(lengths)[:, None]
    zeros = torch.zeros_like(values)
    return Rollout(
        observations=zeros, actions=zeros.long(), rewards=values, terminated=columns == torch.tensor(lengths)[:, None] - 1,
        truncated=torch.zeros_like(valid), valid=valid, log_probs=zeros, values=zeros, next_values=zeros,
        environment_rewards=values, group=None if group is None else torch.tensor(group),
    )  # fmt: skip


def test_leave_one_out_takes_off_the_mean_of_the_others() -> None:
    returns, group = torch.tensor([1.0, 5.0, 6.0, 10.0, 2.0]), torch.tensor([7, 3, 7, 7, 3])
    # Group 7 has 1, 6, 10: 1 − 8, 6 − 5.5, 10 − 3.5. Group 3 has 5, 2.
    expected = torch.tensor([-7.0, 3.0, 0.5, 6.5, -3.0])
    torch.testing.assert_close(group_advantages(returns, group, "leave_one_out"), expected)


def test_a_groups_advantages_are_centred_and_of_deviation_one_if_divided() -> None:
    returns, group = torch.tensor([1.0, 3.0, 0.0, 0.0]), torch.tensor([0, 0, 1, 1])
    torch.testing.assert_close(group_advantages(returns, group, "group"), torch.tensor([-1.0, 1.0, 0.0, 0.0]))
    divided = group_advantages(returns, group, "group", divide=True)
    torch.testing.assert_close(divided, torch.tensor([-1.0, 1.0, 0.0, 0.0]) / 1.0001)


def test_equal_returns_have_no_advantage_however_they_are_rounded() -> None:
    returns = torch.full((3,), 0.1).repeat(2)
    for divide in (False, True):
        assert float(group_advantages(returns, torch.arange(6) // 3, "group", divide=divide).abs().max()) < 1e-3


def test_every_token_of_a_response_has_its_advantage_and_padding_none() -> None:
    rollout = rows_of([[0.5, 0.5, 0.0], [4.0, 9.0, 9.0]], [3, 1], [0, 0])
    found = row_advantages(rollout, "leave_one_out", discount=1.0, divide=False)
    torch.testing.assert_close(found, torch.tensor([[-3.0, -3.0, -3.0], [3.0, 0.0, 0.0]]))


def test_a_discounted_return_is_that_of_the_first_token() -> None:
    rollout = rows_of([[1.0, 1.0], [0.0, 0.0]], [2, 2], [0, 0])
    found = row_advantages(rollout, "leave_one_out", discount=0.5, divide=False)
    torch.testing.assert_close(found[:, 0], torch.tensor([1.5, -1.5]))


def test_leave_one_out_is_the_batch_mean_baseline_times_a_constant_where_there_is_one_group() -> None:
    returns = torch.randn(6, generator=torch.Generator().manual_seed(0))
    found = group_advantages(returns, torch.zeros(6, dtype=torch.int64), "leave_one_out")
    torch.testing.assert_close(found, (returns - returns.mean()) * 6 / 5)


@pytest.mark.parametrize("baseline", ["leave_one_out", "group"])
def test_what_has_no_groups_is_refused(baseline: Any) -> None:
    with pytest.raises(RllabError, match="no groups"):
        row_advantages(rows_of([[1.0], [2.0]], [1, 1]), baseline, discount=1.0, divide=True)
    with pytest.raises(RllabError, match="at least 2 responses"):
        row_advantages(rows_of([[1.0], [2.0]], [1, 1], [0, 1]), baseline, discount=1.0, divide=True)
    unended = replace(rows_of([[1.0], [2.0]], [1, 1], [0, 0]), terminated=torch.zeros(2, 1, dtype=torch.bool))
    with pytest.raises(RllabError, match="one whole episode"):
        row_advantages(unended, baseline, discount=1.0, divide=True)


def grouped_rollout(policy: TokenPolicy, rows: int = 16) -> Rollout:
    return replace(TokenCollector(target_score, rows).collect(policy), group=torch.arange(rows) // 4)


@pytest.mark.parametrize("baseline", ["leave_one_out", "group"])
def test_reinforce_follows_the_gradient_of_its_groups_advantages(baseline: Any) -> None:
    policy = TokenPolicy()
    rollout = grouped_rollout(policy)
    advantages = row_advantages(rollout, baseline, discount=1.0, divide=False)
    evaluation = policy.evaluate(rollout.experience(advantages, advantages))
    loss = -(evaluation.log_prob * advantages)[rollout.valid].mean()
    expected = policy.gradient(loss, policy.actor_parameters()).clone()

    config = ReinforceConfig(
        rollout_steps=RESPONSE, discount=1.0, baseline=baseline, group_deviation=False, normalise_advantages=False,
        max_grad_norm=0.0,
    )  # fmt: skip
    agent = Reinforce(policy, config)
    metrics = agent.update(rollout)
    assert metrics["gradient_norm"] == pytest.approx(float(expected.norm()), rel=1e-5)
    assert "value_loss" not in metrics
    assert policy.flat.grad is not None
    torch.testing.assert_close(policy.flat.grad[: policy.actor_size], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("advantage", ["leave_one_out", "group"])
def test_ppo_without_a_critic_leaves_the_critic_alone(advantage: Any) -> None:
    policy = TokenPolicy()
    before = policy.flat.detach().clone()
    metrics = PPO(policy, PPOConfig(**COMMON, advantage=advantage)).update(grouped_rollout(policy))
    assert torch.equal(policy.flat.detach()[policy.actor_size :], before[policy.actor_size :])
    assert not torch.equal(policy.flat.detach()[: policy.actor_size], before[: policy.actor_size])
    assert not {"value_loss", "explained_variance"} & set(metrics)


def experience_with(log_ratios: Tensor, advantages: Tensor, valid: Tensor) -> tuple[Experience, Evaluation]:
    zeros = torch.zeros_like(advantages)
    batch = Experience(
        observations=zeros, actions=zeros.long(), valid=valid, log_probs=zeros, values=zeros, advantages=advantages,
        returns=zeros,
    )  # fmt: skip
    return batch, Evaluation(log_ratios, zeros, zeros, None)


def test_a_sequence_ratio_is_the_product_over_the_row_clipped_once() -> None:
    agent = PPO(TokenPolicy(), PPOConfig(**COMMON, ratio="sequence", advantage="group", normalise_advantages="none"))
    # Row 0: 1.1 · 1.1 = 1.21 is clipped to 1.2, though neither factor is. Row 1: 0.5 · 2 = 1; padding does not count.
    log_ratios = torch.tensor([[1.1, 1.1], [0.5, 2.0], [1.1, 7.0]]).log().requires_grad_()
    advantages = torch.tensor([[2.0, 2.0], [-3.0, -3.0], [1.0, 0.0]])
    valid = torch.tensor([[True, True], [True, True], [True, False]])
    batch, evaluation = experience_with(log_ratios, advantages, valid)
    loss, measured = agent.loss(batch, evaluation, 0.2)
    assert float(loss.detach()) == pytest.approx(-(2 * 1.2 - 3 * 1.0 + 1 * 1.1) / 3)
    assert float(measured["clip_fraction"]) == pytest.approx(1 / 3)
    expected_kl = (0.21 - math.log(1.21) + 0.1 - math.log(1.1)) / 3
    assert float(measured["approximate_kl"]) == pytest.approx(expected_kl, rel=1e-4)
    loss.backward()
    # d r / d log r = r; the clipped row and padding have none.
    torch.testing.assert_close(log_ratios.grad, torch.tensor([[0.0, 0.0], [1.0, 1.0], [-1.1 / 3, 0.0]]))


def test_rows_of_one_token_have_the_same_loss_by_token_and_by_sequence() -> None:
    log_ratios, advantages = torch.tensor([[0.3], [-0.1], [0.05]]), torch.tensor([[1.0], [-2.0], [0.5]])
    batch, evaluation = experience_with(log_ratios, advantages, torch.ones(3, 1, dtype=torch.bool))
    losses = [
        float(PPO(TokenPolicy(), PPOConfig(**COMMON, ratio=ratio, advantage="group")).loss(batch, evaluation, 0.2)[0])
        for ratio in ("token", "sequence")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_sequence_ratio_is_refused_where_steps_are_learnt_from() -> None:
    with pytest.raises(RllabError, match="whole rows"):
        PPOConfig(ratio="sequence").check(2, rows=False)


def test_epsilon_inside_the_bias_correction_is_tensorflows_adam() -> None:
    gradients = torch.tensor([[1e-3, 0.2, -5.0], [2e-3, -0.1, 4.0], [0.0, 0.3, 1.0]])
    rate, epsilon = 0.1, 1e-2
    for kind in (TorchAdam, NumpyAdam):
        parameters = torch.zeros(3).requires_grad_()
        parameters.grad = torch.zeros(3)
        adam = kind(parameters, rate, epsilon, epsilon_inside=True)
        expected, mean, square = torch.zeros(3), torch.zeros(3), torch.zeros(3)
        for step, gradient in enumerate(gradients, 1):
            parameters.grad.copy_(gradient)
            adam.step()
            mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient.square()
            # Kingma & Ba 2015, end of section 2, with ε̂: TensorFlow's form.
            corrected = rate * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
            expected -= corrected * mean / (square.sqrt() + epsilon)
        torch.testing.assert_close(parameters.detach(), expected, rtol=1e-4, atol=1e-7)
