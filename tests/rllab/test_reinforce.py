"""REINFORCE's estimate is the policy gradient; baselines change its variance; the critic is fitted afterwards."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from synthetic import BOX, DISCRETE, VECTOR, make_policy, make_rollout, slow_copy
from torch import Tensor

from envs.errors import RllabError
from rllab.agents import Reinforce, ReinforceConfig
from rllab.policies import ActorCritic
from rllab.rollout import Rollout

ONE = spaces.Box(1, 1, (1,), np.float32)
ARMS = torch.tensor([12.0, 10.0])
"""What the two arms pay on average: far from 0, so that a baseline has something to take off."""


def plain(**fields: Any) -> ReinforceConfig:
    """The bare estimator: no standardisation, no clipping of the gradient."""
    return ReinforceConfig(**{"normalise_advantages": False, "max_grad_norm": 0.0, "minibatch_size": 64, **fields})


def bandit() -> ActorCritic:
    """Two logits (weight + bias of a linear layer on a constant 1) and nothing else; π = (0.31, 0.69)."""
    policy = ActorCritic(ONE, spaces.Discrete(2), make_policy(hidden_sizes=()).config)
    with torch.no_grad():
        policy.flat.zero_()
        policy.module.actor[0].bias.copy_(torch.tensor([0.0, 0.8]))
    return policy


def pulls(policy: ActorCritic, generator: np.random.Generator, rows: int = 64) -> Rollout:
    """One pull a row; every pull is an episode."""
    observations = torch.ones(rows, 1, 1)
    noise = policy.family.draw_noise(generator, (rows,))
    chosen = torch.from_numpy(policy.act(observations[:, 0].numpy(), noise)[0]).unsqueeze(1)
    rewards = ARMS[chosen] + torch.from_numpy(generator.standard_normal((rows, 1))).float()
    log_probs = torch.log_softmax(policy.module.actor[0].bias.detach(), 0)[chosen]
    expected = torch.full((rows, 1), float(torch.softmax(policy.module.actor[0].bias.detach(), 0) @ ARMS))
    yes = torch.ones(rows, 1, dtype=torch.bool)
    return Rollout(
        observations=observations, actions=chosen, rewards=rewards, terminated=yes, truncated=~yes, valid=yes,
        log_probs=log_probs, values=expected, next_values=torch.zeros(rows, 1), environment_rewards=rewards,
    )  # fmt: skip


def estimates(policy: ActorCritic, baseline: Any, repetitions: int = 120) -> Tensor:
    """The agent's gradient of the expected reward with respect to the two logits, `[repetitions, 2]`."""
    agent = Reinforce(policy, plain(baseline=baseline, critic_epochs=1))
    found: list[Tensor] = []
    bias = policy.module.actor[0].bias
    # Adam would move the policy: look at the gradient it is given, in its place.
    agent.optimizer.adam.step = lambda *_: found.append(-bias.grad.clone())  # type: ignore[union-attr, assignment]
    generator = np.random.default_rng(0)
    for _ in range(repetitions):
        agent.update(pulls(policy, generator))
    return torch.stack(found)


def test_on_a_two_armed_bandit_the_estimate_is_the_analytic_gradient_and_a_baseline_changes_only_its_variance() -> None:
    policy = bandit()
    probabilities = torch.softmax(policy.module.actor[0].bias.detach(), 0)
    analytic = probabilities * (ARMS - probabilities @ ARMS)
    variances = {}
    for baseline in ("none", "mean", "value"):
        found = estimates(policy, baseline)
        # A mean over n pulls holds the pull itself, which takes a share 1/n off the estimate.
        expected = analytic * (1 - 1 / 64 if baseline == "mean" else 1)
        error = found.std(0) / len(found) ** 0.5
        assert ((found.mean(0) - expected).abs() < 4 * error).all(), baseline
        variances[baseline] = float(found.var(0).sum())
    assert variances["value"] < variances["none"] / 20
    assert variances["mean"] < variances["none"] / 20


def test_a_baseline_that_depends_on_the_action_would_bias_the_gradient() -> None:
    policy = bandit()
    rollout = pulls(policy, np.random.default_rng(0), rows=5000)
    perfect = rollout.replace(values=ARMS[rollout.actions])  # "does not depend on θ", yet takes the gradient away
    agent = Reinforce(policy, plain(baseline="value", critic_epochs=1, minibatch_size=5000))
    found: list[Tensor] = []
    bias = policy.module.actor[0].bias
    agent.optimizer.adam.step = lambda *_: found.append(-bias.grad.clone())  # type: ignore[union-attr, assignment]
    for one in (rollout, perfect):
        agent.update(one)
    honest, biased = found
    assert honest[0] > 0.3  # analytically 0.43
    assert biased.abs().max() < 0.05


def test_the_gradient_with_respect_to_a_gaussians_mean_is_the_seeds() -> None:
    for fast_path in (True, False):
        policy = make_policy(VECTOR, BOX, hidden_sizes=(), fast_path=fast_path)
        rollout = make_rollout(policy, 1, 1, gaps=False)
        rollout = rollout.replace(terminated=~rollout.terminated)
        agent = Reinforce(policy, plain(baseline="none"))
        agent.update(rollout)
        assert policy.module.log_std is not None
        with torch.no_grad():
            # The update has moved the policy by Adam's step; take it back to the one that acted.
            acted = make_policy(VECTOR, BOX, hidden_sizes=())
            mean = acted.module.actor(rollout.observations[0, 0])
            assert acted.module.log_std is not None
            inverse_covariance = torch.diag(torch.exp(-2 * acted.module.log_std))
        expected = inverse_covariance @ (rollout.actions[0, 0] - mean) * rollout.rewards[0, 0]
        gradient = policy.module.actor[0].bias.grad
        assert gradient is not None
        torch.testing.assert_close(-gradient, expected, rtol=1e-4, atol=1e-5)


def two_episodes(policy: ActorCritic) -> Rollout:
    """One complete episode of 5 steps and one that the rollout's end cuts."""
    rollout = make_rollout(policy, 1, 8, gaps=False)
    terminated = torch.arange(8).unsqueeze(0) == 4
    return rollout.replace(terminated=terminated, truncated=torch.zeros_like(terminated))


@pytest.mark.parametrize("baseline", ["none", "mean"])
def test_steps_of_an_unfinished_episode_do_not_count_without_a_value_to_complete_them(baseline: Any) -> None:
    def update(scramble: float) -> Tensor:
        policy = make_policy()
        rollout = two_episodes(policy)
        unfinished = torch.arange(8).unsqueeze(0) > 4
        rewards = torch.where(unfinished, rollout.rewards + scramble, rollout.rewards)
        actions = torch.where(unfinished, (rollout.actions + int(scramble)) % 4, rollout.actions)
        Reinforce(policy, plain(baseline=baseline)).update(rollout.replace(rewards=rewards, actions=actions))
        assert policy.flat.grad is not None
        return policy.flat.grad.clone()

    assert torch.equal(update(0.0), update(3.0))


def test_a_value_completes_unfinished_episodes() -> None:
    def update(last_value: float) -> Tensor:
        policy = make_policy()
        rollout = two_episodes(policy)
        next_values = rollout.next_values.clone()
        next_values[0, -1] = last_value
        Reinforce(policy, plain(baseline="value", minibatch_size=8)).update(rollout.replace(next_values=next_values))
        return policy.actor_parameters().detach()

    assert not torch.equal(update(0.0), update(100.0))


@pytest.mark.parametrize("baseline", ["none", "mean"])
def test_a_rollout_in_which_no_episode_ended_is_refused_with_a_way_out(baseline: Any) -> None:
    policy = make_policy()
    rollout = make_rollout(policy, 4, 8, gaps=False)
    nowhere = torch.zeros_like(rollout.truncated)
    with pytest.raises(RllabError, match="raise rollout_steps, or use baseline 'value'"):
        Reinforce(policy, plain(baseline=baseline)).update(rollout.replace(truncated=nowhere))


@pytest.mark.parametrize("baseline", ["none", "mean"])
def test_once_episodes_have_ended_a_rollout_in_which_none_does_is_skipped(baseline: Any) -> None:
    policy = make_policy()
    rollout = make_rollout(policy, 4, 8, gaps=False)
    agent = Reinforce(policy, plain(baseline=baseline))
    agent.update(rollout)
    before = policy.flat.detach().clone()
    resumed = Reinforce(policy, plain(baseline=baseline))
    resumed.load_state_dict(agent.state_dict())
    for learner in (agent, resumed):
        metrics = learner.update(rollout.replace(truncated=torch.zeros_like(rollout.truncated)))
        assert metrics["skipped_updates"] == 1
        assert torch.equal(policy.flat, before)


def test_advantages_come_from_the_values_that_acted_not_from_the_critic_fitted_after() -> None:
    for arguments in ({}, {"recurrence": "lstm"}, {"recurrence": "gru", "share_torso": False}):
        updated = []
        for epochs in (1, 30):
            policy = make_policy(**arguments)  # type: ignore[arg-type]
            config = plain(baseline="value", critic_epochs=epochs, minibatch_size=8, critic_learning_rate=0.05)
            metrics = Reinforce(policy, config).update(make_rollout(policy, 4, 8))
            updated.append((policy.flat.detach().clone(), metrics))
        (one, first), (many, last) = updated
        assert torch.equal(one[: policy.actor_size], many[: policy.actor_size])
        assert not torch.equal(one[policy.actor_size :], many[policy.actor_size :])
        assert last["value_loss"] < first["value_loss"]
        assert last["policy_loss"] == first["policy_loss"]


def test_the_critic_learns_the_returns() -> None:
    policy = make_policy(hidden_sizes=(32, 32))
    rollout = make_rollout(policy, 4, 8)
    agent = Reinforce(policy, plain(baseline="value", critic_epochs=400, minibatch_size=32, critic_learning_rate=0.01))
    agent.update(rollout)
    returns = agent.advantages(rollout) + rollout.values
    values = policy.value(rollout.experience(returns, returns))
    errors = (values - returns)[rollout.valid]
    assert float(errors.detach().square().mean()) < 0.05 * float(returns[rollout.valid].var())


def test_standardised_advantages_make_the_step_blind_to_the_rewards_scale_and_offset() -> None:
    gradients = []
    for scale, offset in ((1.0, 0.0), (100.0, 50.0)):
        policy = make_policy()
        rollout = make_rollout(policy, 4, 8)
        ends = torch.ones_like(rollout.valid)
        rollout = rollout.replace(
            rewards=scale * rollout.rewards + offset, terminated=ends, truncated=~ends, valid=ends
        )  # fmt: skip
        Reinforce(policy, plain(baseline="none", normalise_advantages=True)).update(rollout)
        assert policy.flat.grad is not None
        gradients.append(policy.flat.grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("baseline", ["none", "value"])
def test_an_entropy_bonus_raises_the_entropy(baseline: Any) -> None:
    policy = make_policy(spread=0.6)
    rollout = make_rollout(policy, 4, 8)
    zeros = torch.zeros(4, 8)
    rollout = rollout.replace(rewards=zeros, values=zeros, next_values=zeros)
    config = plain(baseline=baseline, entropy_coefficient=0.1, learning_rate=0.02, minibatch_size=8)
    agent = Reinforce(policy, config)
    entropies = [agent.update(rollout)["entropy"] for _ in range(4)]
    assert entropies == sorted(entropies)
    assert entropies[-1] > entropies[0] + 0.01


def test_what_stands_in_steps_that_do_not_exist_changes_nothing() -> None:
    for baseline in ("none", "mean", "value"):
        updated = []
        for scramble in (False, True):
            policy = make_policy()
            rollout = make_rollout(policy, 5, 8, masked=True)
            if scramble:
                noise = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
                names = ("rewards", "log_probs", "values", "next_values")
                changes = {name: torch.where(rollout.valid, getattr(rollout, name), noise) for name in names}
                changes["actions"] = torch.where(rollout.valid, rollout.actions, 0)
                changes["observations"] = torch.where(rollout.valid.unsqueeze(-1), rollout.observations, 1.0)
                changes["terminated"] = rollout.terminated | (~rollout.valid & (noise > 0))
                rollout = rollout.replace(**changes)
            Reinforce(policy, plain(baseline=baseline, minibatch_size=8)).update(rollout)
            updated.append(policy.flat.detach())
        torch.testing.assert_close(*updated, rtol=0, atol=1e-6)


def test_masked_and_module_policies_take_the_same_step() -> None:
    for space, masked in ((DISCRETE, True), (BOX, False)):
        fast = make_policy(VECTOR, space)
        slow = slow_copy(fast)
        rollout = make_rollout(fast, 5, 8, masked=masked)
        for policy in (fast, slow):
            Reinforce(policy, plain(baseline="mean")).update(rollout)
        torch.testing.assert_close(fast.flat, slow.flat, rtol=0, atol=1e-5)


def test_a_reward_that_is_not_finite_stops_training_and_changes_nothing() -> None:
    policy = make_policy()
    rollout = make_rollout(policy, 5, 8)
    before = policy.flat.detach().clone()
    for spoilt in (float("nan"), float("inf")):
        with pytest.raises(RllabError, match="not finite"):
            Reinforce(policy, plain(minibatch_size=8)).update(rollout.replace(rewards=rollout.rewards * spoilt))
        assert torch.equal(policy.flat, before)
