"""TRPO's direction is the natural gradient, its step keeps to the trust region, and both equal sb3-contrib's."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sb3_contrib
import torch
from stable_twins import fill, largest_difference, twin
from synthetic import BOX, DISCRETE, IMAGE, MULTI_BINARY, MULTI_DISCRETE, VECTOR, make_policy, make_rollout
from torch import Tensor

from envs.errors import RllabError
from rllab.agents import TRPO, TRPOConfig
from rllab.agents.agent import standardised
from rllab.agents.trpo import conjugate_gradients
from rllab.policies import ActorCritic
from rllab.rollout import Rollout

KINDS: dict[str, tuple[dict[str, Any], bool]] = {
    "fast": ({}, False),
    "modules": ({"fast_path": False}, False),
    "masked": ({}, True),
    "box": ({"action_space": BOX}, False),
    "normalised box by modules": ({"normalise_observations": True, "fast_path": False, "action_space": BOX}, False),
    "multi_discrete masked": ({"action_space": MULTI_DISCRETE}, True),
    "multi_binary": ({"action_space": MULTI_BINARY}, False),
    "lstm": ({"recurrence": "lstm"}, False),
    "gru, two torsos, masked": ({"recurrence": "gru", "share_torso": False}, True),
    "images": ({"observation_space": IMAGE, "hidden_sizes": (), "spread": 0.003}, False),
}


def config_for(**fields: Any) -> TRPOConfig:
    return TRPOConfig(**{"minibatch_size": 8, "critic_epochs": 1, **fields})


def surrogate_and_divergence(
    policy: ActorCritic, rollout: Rollout, old_log_prob: Tensor, old_parameters: Tensor
) -> tuple[float, float]:
    """E[ratio · A] with standardised advantages, and the mean KL divergence from the old policy."""
    agent = TRPO(policy, config_for())
    advantages = agent.advantages(rollout)
    batch = agent.experience(rollout, advantages, advantages)
    with torch.no_grad():
        evaluation = policy.evaluate(batch)
    ratio = (evaluation.log_prob - old_log_prob).exp()
    old, new = (policy.distribution(p, batch.action_mask) for p in (old_parameters, evaluation.parameters))
    return float(batch.mean(ratio * standardised(batch.advantages, batch))), float(batch.mean(old.kl(new)))


def evaluated(policy: ActorCritic, rollout: Rollout) -> tuple[Tensor, Tensor]:
    """Log-probabilities and distribution parameters, as flat as the agent's batch."""
    batch = TRPO(policy, config_for()).experience(rollout, rollout.rewards, rollout.rewards)
    with torch.no_grad():
        evaluation = policy.evaluate(batch)
    return evaluation.log_prob, evaluation.parameters


@pytest.mark.parametrize("size", [1, 2, 7, 20])
def test_conjugate_gradients_solve_a_system_in_as_many_products_as_it_has_unknowns(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    factor = torch.randn(size, size, generator=generator, dtype=torch.float64)
    matrix = factor @ factor.T + torch.eye(size, dtype=torch.float64)
    target = torch.randn(size, generator=generator, dtype=torch.float64)
    solution, products = conjugate_gradients(lambda v: matrix @ v, target, size + 2)
    torch.testing.assert_close(solution, torch.linalg.solve(matrix, target), rtol=1e-4, atol=1e-5)
    assert products <= size + 1


def test_conjugate_gradients_leave_the_target_alone_and_stop_where_there_is_nothing_to_solve() -> None:
    target = torch.tensor([3.0, 4.0])
    conjugate_gradients(lambda v: 2 * v, target, 5)
    assert target.tolist() == [3, 4]
    assert conjugate_gradients(lambda v: v, torch.zeros(3), 5) == (pytest.approx(torch.zeros(3)), 0)


def test_conjugate_gradients_stop_at_a_direction_without_positive_curvature() -> None:
    solution, products = conjugate_gradients(lambda v: -v, torch.ones(3), 5)
    assert not solution.any()
    assert products == 1


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_conjugate_gradients_solve_systems_of_any_scale(scale: float) -> None:
    matrix = torch.diag(torch.tensor([1.0, 2.0, 4.0]))
    solution, _ = conjugate_gradients(lambda v: matrix @ v, torch.full((3,), scale), 10)
    torch.testing.assert_close(solution / scale, torch.tensor([1.0, 0.5, 0.25]))


@pytest.mark.parametrize("action_space", [DISCRETE, BOX], ids=["discrete", "box"])
@pytest.mark.parametrize("fast_path", [True, False])
def test_the_natural_gradient_step_is_the_closed_form_with_an_explicit_fisher_matrix(
    action_space: Any, fast_path: bool
) -> None:
    policy = make_policy(VECTOR, action_space, hidden_sizes=(3,), fast_path=fast_path)
    rollout = make_rollout(policy, 5, 8)
    config = config_for(line_search=False, cg_iterations=200, cg_damping=0.1, max_kl=0.01)
    agent = TRPO(policy, config)
    advantages = agent.advantages(rollout)
    batch = agent.experience(rollout, advantages, advantages)
    batch = replace(batch, advantages=standardised(batch.advantages, batch))
    # At ratio 1 the surrogate's gradient is the policy gradient E[∇log π · A].
    gain = batch.mean(policy.evaluate(batch).log_prob * batch.advantages)
    gradient = policy.gradient(gain, policy.actor_parameters()).clone()
    product = policy.fisher(batch)
    matrix = torch.stack([product(column) for column in torch.eye(policy.actor_size)])
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-3, atol=1e-5)
    damped = (matrix + 0.1 * torch.eye(policy.actor_size)).double()
    direction = torch.linalg.solve(damped, gradient.double())
    expected = (2 * 0.01 / (gradient.double() @ direction)).sqrt() * direction

    before = policy.actor_parameters().detach().clone()
    metrics = agent.update(rollout)
    step = policy.actor_parameters().detach() - before
    torch.testing.assert_close(step, expected.float(), rtol=1e-3, atol=1e-5)
    assert metrics["backtracks"] == metrics["line_search_failed"] == 0
    assert metrics["step_size"] == pytest.approx(float((2 * 0.01 / (gradient.double() @ direction)).sqrt()), rel=1e-3)
    # ½ sᵀ(F + λI)s = δ: the quadratic model's divergence is the trust region's with damping.
    assert float(0.5 * step.double() @ damped @ step.double()) == pytest.approx(0.01, rel=1e-2)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_accepted_step_keeps_to_the_trust_region_and_improves_the_surrogate(kind: str) -> None:
    arguments, masked = KINDS[kind]
    policy = make_policy(**arguments)
    accepted = 0
    for seed in range(3 if "images" in kind else 8):
        rollout = make_rollout(policy, 4, 8, masked=masked, seed=seed)
        old_log_prob, old_parameters = evaluated(policy, rollout)
        before, exactly_zero = surrogate_and_divergence(policy, rollout, old_log_prob, old_parameters)
        assert exactly_zero == 0
        metrics = TRPO(policy, config_for(max_kl=0.05)).update(rollout)
        after, divergence = surrogate_and_divergence(policy, rollout, old_log_prob, old_parameters)
        assert divergence <= 0.05 * (1 + 1e-4)
        if not metrics["line_search_failed"]:
            accepted += 1
            assert after > before
            assert metrics["kl"] == pytest.approx(divergence, rel=1e-3, abs=1e-7)
            assert metrics["surrogate_improvement"] == pytest.approx(after - before, rel=1e-3, abs=1e-6)
    assert accepted >= 3


def test_large_steps_backtrack_until_they_fit() -> None:
    policy = make_policy(VECTOR, BOX)
    metrics = TRPO(policy, config_for(max_kl=1.0, cg_damping=1e-4)).update(make_rollout(policy, 4, 8))
    assert metrics["backtracks"] >= 1
    assert metrics["kl"] <= 1.0


def test_a_step_within_the_trust_region_that_worsens_the_surrogate_is_not_taken() -> None:
    policy = make_policy(VECTOR, BOX)
    rollout = make_rollout(policy, 4, 8, gaps=False)
    zeros = torch.zeros(4, 8)
    # An advantage of 1 everywhere: the surrogate is the mean ratio, which falls to 0 once the policy leaves its data.
    rollout = rollout.replace(rewards=zeros + 1, values=zeros, next_values=zeros)
    config = config_for(discount=0.0, gae_lambda=0.0, max_kl=1e4, normalise_advantages=False)
    one_try = TRPO(policy, replace(config, backtrack_steps=1)).update(rollout)
    assert one_try["line_search_failed"] == 1
    found = TRPO(policy, replace(config, backtrack_steps=60)).update(rollout)
    assert found["line_search_failed"] == 0
    assert found["surrogate_improvement"] > 0


def test_a_line_search_that_fails_restores_the_actor_exactly_and_says_so() -> None:
    policy = make_policy(VECTOR, BOX)
    rollout = make_rollout(policy, 4, 8)
    before = policy.flat.detach().clone()
    # One try at a step the quadratic model is wrong about: as above, it would have to backtrack.
    metrics = TRPO(policy, config_for(max_kl=1.0, cg_damping=1e-4, backtrack_steps=1)).update(rollout)
    assert metrics["line_search_failed"] == 1
    assert metrics["kl"] == metrics["step_size"] == metrics["surrogate_improvement"] == 0
    assert torch.equal(policy.flat[: policy.actor_size], before[: policy.actor_size])
    assert not torch.equal(policy.flat[policy.actor_size :], before[policy.actor_size :])  # the critic goes on


def test_without_a_line_search_the_step_is_taken_whatever_it_does() -> None:
    policy = make_policy(VECTOR, BOX)
    metrics = TRPO(policy, config_for(max_kl=1.0, cg_damping=1e-4, line_search=False)).update(
        make_rollout(policy, 4, 8)
    )
    assert metrics["line_search_failed"] == 0
    assert metrics["kl"] > 1.0


@pytest.mark.parametrize("fast_path", [True, False])
def test_a_gradient_of_zero_leaves_the_policy_alone(fast_path: bool) -> None:
    policy = make_policy(fast_path=fast_path)
    rollout = make_rollout(policy, 4, 8)
    zeros = torch.zeros(4, 8)
    rollout = rollout.replace(rewards=zeros, values=zeros, next_values=zeros)
    before = policy.flat.detach()[: policy.actor_size].clone()
    metrics = TRPO(policy, config_for()).update(rollout)
    assert torch.equal(policy.flat.detach()[: policy.actor_size], before)
    assert np.isnan(metrics.pop("explained_variance"))  # nothing varies that could be explained
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["kl"] == 0


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_step_does_not_depend_on_the_scale_of_the_rewards(scale: float) -> None:
    def step(factor: float) -> Tensor:
        policy = make_policy()
        rollout = make_rollout(policy, 4, 8)
        scaled = {name: factor * getattr(rollout, name) for name in ("rewards", "values", "next_values")}
        before = policy.actor_parameters().detach().clone()
        metrics = TRPO(policy, config_for(normalise_advantages=False)).update(rollout.replace(**scaled))
        assert not metrics["line_search_failed"]
        return policy.actor_parameters().detach() - before

    torch.testing.assert_close(step(scale), step(1.0), rtol=2e-2, atol=2e-4)


@pytest.mark.parametrize("kind", ["discrete", "discrete by modules", "box", "box by modules"])
def test_a_step_is_sb3_contribs(kind: str) -> None:
    policy = make_policy(VECTOR, BOX if "box" in kind else DISCRETE, fast_path="modules" not in kind)
    rollout = make_rollout(policy, 4, 16, gaps=False)
    # Their defaults: 15 iterations, damping 0.1, backtracking 0.8 × 10, δ 0.01. Their divergence of a Gaussian is the
    # mean over its dimensions, not the sum, so their F is ours / 3: as damping and δ of 3 times theirs would be here.
    scale = 3 if "box" in kind else 1
    agent = TRPO(
        policy,
        config_for(
            cg_iterations=15, cg_damping=0.1 * scale, max_kl=0.01 * scale, normalise_advantages=False, minibatch_size=64
        ),
    )
    advantages = agent.advantages(rollout)
    model = twin(
        sb3_contrib.TRPO, "MlpPolicy", policy, rollout, n_critic_updates=1, batch_size=64, normalize_advantage=False
    )
    fill(model, rollout, advantages, advantages + rollout.values)
    before = policy.actor_parameters().detach().clone()
    model.train()
    metrics = agent.update(rollout)
    assert not metrics["line_search_failed"]
    assert float((policy.actor_parameters().detach() - before).abs().max()) > 5e-3
    with torch.no_grad():  # the critics, fitted each in its own way, aside
        policy.critic_parameters().copy_(_critic_of(model))
    assert largest_difference(model, policy) < 1e-4


def _critic_of(model: Any) -> Tensor:
    layers = [*model.policy.mlp_extractor.value_net, model.policy.value_net]
    return torch.cat([p.detach().flatten() for layer in layers for p in layer.parameters()])


def test_the_critic_is_fitted_to_the_returns_and_the_actor_stays_through_it() -> None:
    for kind in ("fast", "lstm", "gru, two torsos, masked"):
        arguments, masked = KINDS[kind]
        policy = make_policy(**arguments)
        rollout = make_rollout(policy, 4, 8, masked=masked)
        zeros = torch.zeros(4, 8)
        # No advantage anywhere, so that the actor has no reason of its own to move; returns of 3 for the critic.
        rollout = rollout.replace(rewards=zeros, values=zeros + 3, next_values=zeros + 3)
        config = config_for(discount=1.0, gae_lambda=0.0, critic_epochs=40, learning_rate=0.02)
        rollout = rollout.replace(terminated=torch.zeros_like(rollout.terminated))
        before = policy.flat.detach()[: policy.actor_size].clone()
        first = TRPO(policy, replace(config, critic_epochs=1)).update(rollout)
        last = TRPO(policy, config).update(rollout)
        assert last["value_loss"] < 0.7 * first["value_loss"]
        assert torch.equal(policy.flat.detach()[: policy.actor_size], before)


def test_the_fisher_matrix_may_be_measured_on_a_share_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy()
    sizes = []
    fisher = policy.fisher
    monkeypatch.setattr(policy, "fisher", lambda batch: (sizes.append(len(batch.valid)), fisher(batch))[1])
    for fraction, size in ((1.0, 40), (0.1, 4), (0.001, 1)):
        metrics = TRPO(policy, config_for(fisher_fraction=fraction)).update(make_rollout(policy, 5, 8))
        assert sizes.pop() == size
        assert metrics["kl"] <= 0.01


def test_what_stands_in_steps_that_do_not_exist_changes_nothing() -> None:
    def update(scrambled: bool) -> ActorCritic:
        policy = make_policy()
        rollout = make_rollout(policy, 5, 8, masked=True)
        if scrambled:
            noise = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
            names = ("rewards", "log_probs", "values", "next_values")
            changes = {name: torch.where(rollout.valid, getattr(rollout, name), noise) for name in names}
            changes["actions"] = torch.where(rollout.valid, rollout.actions, 0)
            changes["observations"] = torch.where(rollout.valid.unsqueeze(-1), rollout.observations, 1.0)
            rollout = rollout.replace(**changes)
        TRPO(policy, config_for()).update(rollout)
        return policy

    torch.testing.assert_close(update(False).flat, update(True).flat, rtol=0, atol=1e-5)


def test_an_entropy_bonus_raises_the_entropy() -> None:
    policy = make_policy(spread=0.6)
    rollout = make_rollout(policy, 5, 8)
    zeros = torch.zeros(5, 8)
    rollout = rollout.replace(rewards=zeros, values=zeros, next_values=zeros)
    agent = TRPO(policy, config_for(entropy_coefficient=1.0))
    entropies = [agent.update(rollout)["entropy"] for _ in range(3)]
    assert entropies[0] < entropies[1] < entropies[2]


def test_a_reward_that_is_not_finite_stops_training_and_changes_nothing() -> None:
    policy = make_policy()
    rollout = make_rollout(policy, 5, 8)
    rewards = rollout.rewards.clone()
    rewards[0, 0] = float("nan")
    before = policy.flat.detach().clone()
    with pytest.raises(RllabError, match="not finite"):
        TRPO(policy, config_for()).update(rollout.replace(rewards=rewards))
    assert torch.equal(policy.flat, before)
