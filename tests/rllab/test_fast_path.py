"""The NumPy path of small MLP policies gives what their torch modules give: outputs, gradients, actions, updates."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from synthetic import ACTION_SPACES, BOX, DISCRETE, IMAGE, VECTOR, make_batch, make_policy, make_rollout, slow_copy
from torch import Tensor

from rllab.agents import PPO, TRPO, PPOConfig, Reinforce, ReinforceConfig, TRPOConfig
from rllab.policies import ActorCritic
from rllab.policies.policy import Evaluation
from rllab.rollout import Batch

CASES: dict[str, tuple[Any, dict[str, Any], bool]] = {
    "discrete": (DISCRETE, {}, False),
    "discrete masked relu": (DISCRETE, {"activation": "relu"}, True),
    "discrete masked normalised": (DISCRETE, {"normalise_observations": True}, True),
    "box": (BOX, {"hidden_sizes": (6,)}, False),
    "box relu normalised": (BOX, {"activation": "relu", "normalise_observations": True}, False),
}
"""Action space, configuration, and whether actions are masked."""
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> tuple[ActorCritic, ActorCritic, bool]:
    """A policy with a fast path, the same without, and whether its actions are masked."""
    space, config, masked = CASES[request.param]
    fast = make_policy(VECTOR, space, **config)
    slow = slow_copy(fast)
    assert fast.fast is not None
    assert slow.fast is None
    return fast, slow, masked


Case = tuple[ActorCritic, ActorCritic, bool]


def test_evaluation_is_the_same(case: Case) -> None:
    fast, slow, masked = case
    batch = make_batch(fast, 6, 7, masked=masked)
    one, other = fast.evaluate(batch), slow.evaluate(batch)
    for name in ("log_prob", "entropy", "value", "parameters"):
        assert getattr(one, name).dtype == torch.float32
        torch.testing.assert_close(getattr(one, name), getattr(other, name), **CLOSE)


LOSSES = {
    "log-probability": lambda e: (e.log_prob * torch.linspace(-1, 2, len(e.log_prob))).sum(),
    "entropy": lambda e: e.entropy.square().mean(),
    "value": lambda e: (e.value - 1).square().mean(),
    "parameters": lambda e: (e.parameters * torch.linspace(-1, 2, e.parameters.shape[1])).sum(),
    "all at once": lambda e: (e.log_prob.exp() * e.value + e.entropy * e.parameters.square().sum(1)).mean(),
    "one step only": lambda e: e.log_prob[3] + 2 * e.entropy[4] - e.value[5],
}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_of_any_loss_are_the_same(case: Case, name: str) -> None:
    fast, slow, masked = case
    batch = make_batch(fast, 6, 7, masked=masked)

    def gradient(policy: ActorCritic) -> Tensor:
        evaluation: Evaluation = policy.evaluate(batch)
        return policy.gradient(LOSSES[name](evaluation), policy.flat)

    one, other = gradient(fast), gradient(slow)
    assert one.any()
    torch.testing.assert_close(one, other, **CLOSE)


def test_the_critic_alone_is_the_same(case: Case) -> None:
    fast, slow, _ = case
    batch = make_batch(fast, 6, 7)
    torch.testing.assert_close(fast.value(batch), slow.value(batch), **CLOSE)
    one, other = (p.gradient(p.value(batch).square().sum(), p.flat) for p in (fast, slow))
    torch.testing.assert_close(one, other, **CLOSE)


def test_fisher_products_are_the_same(case: Case) -> None:
    fast, slow, masked = case
    batch = make_batch(fast, 6, 7, masked=masked)
    products = fast.fisher(batch), slow.fisher(batch)
    for seed in range(3):
        vector = torch.randn(fast.actor_size, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(products[0](vector), products[1](vector), **CLOSE)


def test_the_same_noise_gives_the_same_actions(case: Case) -> None:
    fast, slow, masked = case
    batch = make_batch(fast, 20, 20, masked=masked)
    mask = None if batch.action_mask is None else batch.action_mask.numpy()
    drawn = fast.family.draw_noise(np.random.default_rng(0), (400,))
    for noise in (drawn, None):
        before = None if noise is None else noise.copy()
        one, _ = fast.act(batch.observations.numpy(), noise, action_mask=mask)
        other, _ = slow.act(batch.observations.numpy(), noise, action_mask=mask)
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        if noise is not None:
            np.testing.assert_array_equal(noise, before)


def test_weights_changed_in_the_buffer_are_seen_at_once(case: Case) -> None:
    fast, _, masked = case
    batch = make_batch(fast, masked=masked)
    with torch.no_grad():
        fast.flat.mul_(0.5)
    if fast.module.normaliser is not None:
        fast.module.normaliser.adapt(torch.randn(9, 5) + 4, torch.ones(9, dtype=torch.bool))
    torch.testing.assert_close(fast.evaluate(batch).value, slow_copy(fast).evaluate(batch).value, **CLOSE)


def test_what_evaluation_returned_is_not_changed_by_its_backward_pass_nor_by_another(case: Case) -> None:
    fast, _, masked = case
    batch, other = make_batch(fast, masked=masked), make_batch(fast, masked=masked, seed=1)
    one = fast.evaluate(batch)
    before = [t.detach().clone() for t in (one.log_prob, one.entropy, one.value, one.parameters)]
    fast.evaluate(other)
    (one.log_prob.sum() + one.entropy.sum() + one.parameters.sum()).backward()  # type: ignore[no-untyped-call]
    after = [t.detach() for t in (one.log_prob, one.entropy, one.value, one.parameters)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_without_gradients_nothing_is_added_to_the_buffer(case: Case) -> None:
    fast, _, masked = case
    fast.zero_gradient()
    with torch.no_grad():
        assert not fast.evaluate(make_batch(fast, masked=masked)).log_prob.requires_grad
    assert fast.flat.grad is not None
    assert not fast.flat.grad.any()


AGENTS: dict[str, Any] = {
    "ppo": lambda p: PPO(p, PPOConfig(minibatch_size=10, epochs=3, learning_rate=1e-3, entropy_coefficient=0.1)),
    "ppo, advantages as they are, no gradient clipping": lambda p: PPO(
        p, PPOConfig(minibatch_size=20, normalise_advantages="none", max_grad_norm=0, clip_range=0.05)
    ),
    "ppo with one standardisation": lambda p: PPO(p, PPOConfig(minibatch_size=40, normalise_advantages="batch")),
    "ppo with clipped values": lambda p: PPO(p, PPOConfig(minibatch_size=10, value_clip_range=0.1)),
    "ppo with a penalty": lambda p: PPO(p, PPOConfig(minibatch_size=10, objective="kl_penalty")),
    "trpo": lambda p: TRPO(p, TRPOConfig(minibatch_size=10, critic_epochs=2)),
    "reinforce": lambda p: Reinforce(p, ReinforceConfig(minibatch_size=10, critic_epochs=2)),
}


@pytest.mark.parametrize("name", sorted(AGENTS))
@pytest.mark.parametrize("action", ["discrete", "box"])
def test_an_agents_update_is_the_same(name: str, action: str) -> None:
    fast = make_policy(VECTOR, ACTION_SPACES[action])
    slow = slow_copy(fast)
    rollout = make_rollout(fast, 5, 8, masked=action == "discrete")
    # Ratios away from 1, so that both sides of the clipping are met from the first step on.
    moved = rollout.log_probs + 0.3 * torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    rollout = rollout.replace(log_probs=moved)
    before = fast.flat.detach().clone()
    one, other = (AGENTS[name](policy).update(rollout) for policy in (fast, slow))
    assert one.keys() == other.keys()
    for key, measured in one.items():
        assert measured == pytest.approx(other[key], rel=1e-3, abs=1e-4), key
    assert (fast.flat - before).abs().max() > 1e-4
    # Adam turns gradients of rounding size into steps of the learning rate: tolerate few.
    difference = (fast.flat - slow.flat).detach().abs()
    assert difference.mean() < 1e-5
    assert difference.max() < 2e-3


def test_ppos_gradient_by_hand_is_that_of_its_loss() -> None:
    for seed in range(8):
        policy = make_policy(VECTOR, BOX if seed % 2 else DISCRETE, seed=seed)
        rollout = make_rollout(policy, 5, 8, masked=not seed % 2, seed=seed)
        spread = 0.5 * torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))
        rollout = rollout.replace(log_probs=rollout.log_probs + spread)
        config = PPOConfig(
            minibatch_size=40, epochs=1, max_grad_norm=0, entropy_coefficient=0.05 * (seed % 3), value_coefficient=0.7,
            normalise_advantages="minibatch" if seed < 4 else "none",
        )  # fmt: skip
        gradients = []
        for twin in (policy, slow_copy(policy)):
            metrics = PPO(twin, config).update(rollout)
            assert 0 < metrics["clip_fraction"] < 1
            assert twin.flat.grad is not None
            gradients.append(twin.flat.grad)
        torch.testing.assert_close(*gradients, **CLOSE)


@pytest.mark.parametrize(
    "arguments",
    [
        {"observation_space": IMAGE}, {"observation_space": spaces.Discrete(4)}, {"recurrence": "lstm"},
        {"action_space": ACTION_SPACES["multi_discrete"]}, {"action_space": ACTION_SPACES["multi_binary"]},
        {"activation": "silu"}, {"fast_path": False}, {"observation_space": spaces.Tuple((VECTOR, VECTOR))},
    ],
    ids=str,
)  # fmt: skip
def test_policies_of_another_make_go_through_their_modules(arguments: dict[str, Any]) -> None:
    assert make_policy(**arguments, spread=0.0).fast is None


def test_rows_and_views_of_larger_arrays_are_evaluated_like_steps() -> None:
    policy = make_policy(VECTOR, BOX)
    rollout = make_rollout(policy, 3, 6)
    part = Batch(
        observations=rollout.observations[:, 1:4], actions=rollout.actions[:, 1:4], valid=rollout.valid[:, 1:4]
    )
    evaluation = policy.evaluate(part)
    assert evaluation.parameters.shape == (3, 3, 6)
    torch.testing.assert_close(evaluation.log_prob, rollout.log_probs[:, 1:4], **CLOSE)
    torch.testing.assert_close(policy.value(part), rollout.values[:, 1:4], **CLOSE)


def test_a_divergent_step_does_not_hide_in_either_path() -> None:
    for twin in (make_policy(), slow_copy(make_policy())):
        batch = make_batch(twin)
        broken = replace(batch, observations=batch.observations * float("nan"))
        assert twin.evaluate(broken).log_prob.isnan().all()
