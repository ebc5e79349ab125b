"""PPO's loss is the paper's, and its details behave as they say."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import (
    BOX,
    IMAGE,
    MULTI_BINARY,
    MULTI_DISCRETE,
    VECTOR,
    as_experience,
    make_batch,
    make_policy,
    make_rollout,
    slow_copy,
)
from torch import Tensor

from envs.errors import RllabError
from rllab.agents import PPO, PPOConfig
from rllab.agents.agent import check_division
from rllab.agents.optimizer import schedule
from rllab.policies import ActorCritic
from rllab.policies.policy import Evaluation
from rllab.rollout import Experience

ONE_MINIBATCH: dict[str, Any] = {"minibatch_size": 40, "epochs": 1}


def experience_of(ratio: Tensor, advantage: Tensor, **fields: Tensor) -> tuple[Experience, Evaluation]:
    """A batch and an evaluation of it with these ratios and advantages, the rest 0 unless given."""
    zeros = torch.zeros_like(ratio)
    batch = Experience(
        observations=zeros.unsqueeze(-1), actions=zeros.long(), valid=torch.ones_like(ratio, dtype=torch.bool),
        log_probs=zeros, advantages=advantage, values=fields.get("old_value", zeros),
        returns=fields.get("returns", zeros),
    )  # fmt: skip
    entropy, value = fields.get("entropy", zeros), fields.get("value", zeros)
    return batch, Evaluation(ratio.log(), entropy, value, torch.zeros(len(ratio), 4))


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective"),
    [(0.5, 2.0, 1.0), (1.5, 2.0, 2.4), (0.5, -2.0, -1.6), (1.5, -2.0, -3.0), (1.1, 2.0, 2.2), (1.0, -2.0, -2.0)],
)
def test_the_clipped_objective_takes_the_seeds_values_whatever_path_computes_it(
    ratio: float, advantage: float, objective: float
) -> None:
    agent = PPO(make_policy(), PPOConfig(normalise_advantages="none"))
    batch, evaluation = experience_of(torch.tensor([ratio]), torch.tensor([advantage]))
    _, measured = agent.loss(batch, evaluation, 0.2)
    assert float(measured["policy_loss"]) == pytest.approx(-objective)
    assert float(measured["clip_fraction"]) == float(abs(ratio - 1) > 0.2)

    for policy in (make_policy(), slow_copy(make_policy())):
        rollout = make_rollout(policy, 5, 8, gaps=False)
        # λ = 0 and a value of 0 leave advantage = reward; old log-probabilities set the ratio.
        rollout = rollout.replace(
            log_probs=rollout.log_probs - float(np.log(ratio)), values=torch.zeros(5, 8),
            rewards=torch.full((5, 8), advantage),
        )  # fmt: skip
        config = PPOConfig(normalise_advantages="none", discount=0.0, gae_lambda=0.0, **ONE_MINIBATCH)
        metrics = PPO(policy, config).update(rollout)
        assert metrics["policy_loss"] == pytest.approx(-objective, rel=1e-5)


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"), [(0.5, 2.0, True), (1.5, 2.0, False), (0.5, -2.0, False), (1.5, -2.0, True)]
)
def test_where_clipping_binds_the_gradient_is_exactly_zero(ratio: float, advantage: float, moves: bool) -> None:
    agent = PPO(make_policy(), PPOConfig(normalise_advantages="none"))
    log_prob = torch.tensor([ratio]).log().requires_grad_()
    batch, evaluation = experience_of(torch.tensor([ratio]), torch.tensor([advantage]))
    loss, _ = agent.loss(batch, replace(evaluation, log_prob=log_prob), 0.2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert log_prob.grad is not None
    assert float(log_prob.grad) == pytest.approx(-ratio * advantage if moves else 0.0)


def test_the_loss_is_equation_9_with_its_sign_turned() -> None:
    agent = PPO(make_policy(), PPOConfig(normalise_advantages="none", value_coefficient=0.3, entropy_coefficient=0.07))
    batch, evaluation = experience_of(
        torch.tensor([1.0, 1.0]), torch.tensor([3.0, 1.0]),
        value=torch.tensor([1.0, 2.0]), returns=torch.tensor([2.0, 5.0]), entropy=torch.tensor([0.5, 1.5]),
    )  # fmt: skip
    loss, measured = agent.loss(batch, evaluation, 0.2)
    assert float(measured["value_loss"]) == 5  # (1 + 9) / 2
    assert float(loss) == pytest.approx(-2 + 0.3 * 5 - 0.07 * 1)


@pytest.mark.parametrize(
    ("value", "loss"),
    # Old value 0, return 1, range 0.2: the worse of the new value's error and the clipped one's.
    [(0.5, 0.64), (1.0, 0.64), (0.1, 0.81), (-0.5, 2.25), (3.0, 4.0)],
)
def test_value_clipping_takes_the_worse_of_both_errors(value: float, loss: float) -> None:
    agent = PPO(make_policy(), PPOConfig(value_clip_range=0.2))
    batch, evaluation = experience_of(
        torch.ones(1), torch.ones(1), value=torch.tensor([value]), returns=torch.ones(1)
    )  # fmt: skip
    assert float(agent.loss(batch, evaluation, 0.2)[1]["value_loss"]) == pytest.approx(loss)


FIRST: dict[str, tuple[dict[str, Any], bool]] = {
    "fast": ({}, False),
    "modules": ({"fast_path": False}, False),
    "masked": ({}, True),
    "box": ({"action_space": BOX}, False),
    "normalised": ({"normalise_observations": True}, False),
    "normalised box by modules": ({"normalise_observations": True, "fast_path": False, "action_space": BOX}, False),
    "multi_discrete masked": ({"action_space": MULTI_DISCRETE}, True),
    "multi_binary": ({"action_space": MULTI_BINARY}, False),
    "lstm": ({"recurrence": "lstm"}, False),
    "gru, two torsos, masked": ({"recurrence": "gru", "share_torso": False}, True),
    "images": ({"observation_space": IMAGE, "hidden_sizes": (), "spread": 0.003}, False),
}


@pytest.mark.parametrize("kind", sorted(FIRST))
@pytest.mark.parametrize("objective", ["clip", "kl_penalty"])
def test_every_ratio_of_the_first_minibatch_is_one(kind: str, objective: Any) -> None:
    arguments, masked = FIRST[kind]
    policy = make_policy(**arguments)
    metrics = PPO(policy, PPOConfig(objective=objective, **ONE_MINIBATCH)).update(
        make_rollout(policy, 5, 8, masked=masked)
    )
    assert metrics["clip_fraction"] == 0
    assert abs(metrics["approximate_kl"]) < 1e-6
    assert abs(metrics["policy_loss"]) < 1e-5  # standardised advantages have mean 0


def test_minibatches_meet_every_step_once_an_epoch_in_an_order_that_changes() -> None:
    policy = make_policy()
    batch = as_experience(policy, make_batch(policy, 6, 5), advantages=torch.arange(30.0))
    generator = np.random.default_rng(0)
    epochs = [[m.advantages.tolist() for m in batch.minibatches(7, generator)] for _ in range(2)]
    for epoch in epochs:
        assert [len(minibatch) for minibatch in epoch] == [7, 7, 7, 7, 2]
        assert sorted(step for minibatch in epoch for step in minibatch) == list(range(30))
    assert epochs[0] != epochs[1]


def test_the_number_of_minibatches_does_not_depend_on_which_steps_exist() -> None:
    policy = make_policy()
    batch = as_experience(policy, make_batch(policy, 6, 5))
    nowhere = replace(batch, valid=torch.zeros(30, dtype=torch.bool))
    counts = [len(list(b.minibatches(10, np.random.default_rng(0)))) for b in (batch, nowhere)]
    assert counts == [3, 3]
    assert float(nowhere.mean(torch.ones(30))) == 0


def test_minibatches_of_a_recurrent_policy_are_whole_rows() -> None:
    policy = make_policy(recurrence="lstm")
    batch = as_experience(policy, make_batch(policy, 6, 5))
    minibatches = list(batch.minibatches(2, np.random.default_rng(0)))
    assert [m.valid.shape for m in minibatches] == [(2, 5)] * 3
    assert all(m.hidden is not None and m.hidden.shape == (2, 12) for m in minibatches)
    with torch.no_grad():
        ratios = torch.cat([(policy.evaluate(m).log_prob - m.log_probs).exp() for m in minibatches])
    torch.testing.assert_close(ratios, torch.ones(6, 5))


@pytest.mark.parametrize(
    ("target", "coefficient"),
    [(1e-9, 2.0), (1e9, 0.5)],
)
def test_the_penalty_doubles_far_above_its_target_and_halves_far_below(target: float, coefficient: float) -> None:
    policy = make_policy()
    config = PPOConfig(objective="kl_penalty", kl_penalty_target=target, minibatch_size=40)
    agent = PPO(policy, config)
    metrics = agent.update(make_rollout(policy, 5, 8))
    assert agent.kl_coefficient == metrics["kl_coefficient"] == coefficient


@pytest.mark.parametrize(("share", "coefficient"), [(1.51, 2.0), (1.49, 1.0), (1.0, 1.0), (0.67, 1.0), (0.66, 0.5)])
def test_the_penalty_stays_within_half_again_of_its_target(share: float, coefficient: float) -> None:
    policy = make_policy()
    rollout = make_rollout(policy, 5, 8)
    state = policy.state_dict()["weights"]
    weights = {name: weight.clone() for name, weight in state.items()}

    def update(target: float) -> float:
        policy.module.load_state_dict(weights)
        agent = PPO(policy, PPOConfig(objective="kl_penalty", kl_penalty_target=target, minibatch_size=40))
        return agent.update(rollout)["kl" if target == 1 else "kl_coefficient"]

    divergence = update(1)  # the first update's divergence does not depend on the target
    assert update(divergence / share) == coefficient


def test_the_penalty_is_the_exact_divergence_from_the_old_policy_to_the_new() -> None:
    policy = make_policy()
    batch = as_experience(policy, make_batch(policy), parameters=torch.randn(15, 4))
    agent = PPO(policy, PPOConfig(objective="kl_penalty", kl_penalty_initial=3.0, normalise_advantages="none"))
    evaluation = policy.evaluate(batch)
    loss, measured = agent.loss(batch, evaluation, 0.2)
    assert batch.parameters is not None
    old = torch.distributions.Categorical(logits=batch.parameters)
    new = torch.distributions.Categorical(logits=evaluation.parameters)
    divergence = batch.mean(torch.distributions.kl_divergence(old, new))
    ratio = (evaluation.log_prob - batch.log_probs).exp()
    expected = -batch.mean(ratio * batch.advantages) + 3 * divergence
    torch.testing.assert_close(measured["policy_loss"], expected.detach())
    torch.testing.assert_close(loss, expected + 0.5 * batch.mean((evaluation.value - batch.returns).square()))


def test_the_penalty_survives_a_checkpoint() -> None:
    agent, other = (PPO(make_policy(), PPOConfig(objective="kl_penalty")) for _ in range(2))
    agent.kl_coefficient = 8.0
    other.load_state_dict(agent.state_dict())
    assert other.kl_coefficient == 8


@pytest.mark.parametrize("fast_path", [True, False])
def test_an_update_stops_before_the_step_after_its_divergence_passed_the_target(fast_path: bool) -> None:
    policy = make_policy(fast_path=fast_path)
    rollout = make_rollout(policy, 5, 8)
    config = PPOConfig(minibatch_size=40, epochs=50, learning_rate=0.05, target_kl=0.01)
    stopped = PPO(policy, config).update(rollout)
    assert 0 < stopped["minibatches"] < 50
    twin_policy = make_policy(fast_path=fast_path)
    unstopped = PPO(twin_policy, replace(config, target_kl=None, epochs=int(stopped["minibatches"]))).update(rollout)
    torch.testing.assert_close(policy.flat, twin_policy.flat)
    assert unstopped["minibatches"] == stopped["minibatches"]
    with torch.no_grad():
        experience = rollout.experience(rollout.rewards, rollout.rewards).flatten()
        log_ratio = policy.evaluate(experience).log_prob - experience.log_probs
    assert float(experience.mean(log_ratio.exp() - 1 - log_ratio)) > 1.5 * 0.01


def test_an_old_policy_too_far_away_is_left_alone() -> None:
    policy = make_policy()
    rollout = make_rollout(policy, 5, 8)
    before = policy.flat.detach().clone()
    metrics = PPO(policy, PPOConfig(target_kl=0.01, **ONE_MINIBATCH)).update(
        rollout.replace(log_probs=rollout.log_probs - 1)
    )
    assert metrics["minibatches"] == 0
    assert torch.equal(policy.flat, before)
    assert all(np.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize(("share", "minibatches"), [(1.45, 1), (1.55, 0)])
def test_an_update_stops_at_one_and_a_half_times_the_target(share: float, minibatches: int, fast_path: bool) -> None:
    policy = make_policy(fast_path=fast_path)
    rollout = make_rollout(policy, 5, 8)
    divergence = float(np.exp(0.3) - 1 - 0.3)  # where every ratio is e^0.3
    config = PPOConfig(target_kl=divergence / share, **ONE_MINIBATCH)
    metrics = PPO(policy, config).update(rollout.replace(log_probs=rollout.log_probs - 0.3))
    assert metrics["approximate_kl"] == pytest.approx(divergence, rel=1e-4)
    assert metrics["minibatches"] == minibatches


def test_schedules_begin_at_one_and_never_reach_zero() -> None:
    updates = 50
    for kind, middle in (("linear", 0.5), ("cosine", 0.5), ("constant", 1.0)):
        factors = [schedule(kind, 1 - update / updates) for update in range(updates)]  # type: ignore[arg-type]
        assert factors[0] == 1
        assert factors[updates // 2] == pytest.approx(middle)
        assert factors[-1] > 0
        assert factors == sorted(factors, reverse=True)
    assert schedule("linear", 0.02) == 0.02
    assert schedule("cosine", 1 / 3) == pytest.approx(0.25)


def test_schedules_reach_the_optimiser_and_the_clip_range() -> None:
    policy = make_policy()
    config = PPOConfig(
        learning_rate=1e-3, learning_rate_schedule="linear", clip_range_schedule="cosine", **ONE_MINIBATCH
    )
    agent = PPO(policy, config)
    before = policy.flat.detach().clone()
    metrics = agent.update(make_rollout(policy, 5, 8), remaining=0.25)
    assert metrics["learning_rate"] == pytest.approx(2.5e-4)
    assert metrics["clip_range"] == pytest.approx(0.2 * 0.5 * (1 - np.cos(np.pi / 4)))
    # Adam's first step is the learning rate for every parameter with a gradient well above ε.
    assert float((policy.flat.detach() - before).abs().max()) == pytest.approx(2.5e-4, rel=0.01)


def test_the_gradient_is_scaled_down_to_its_largest_norm_and_never_up() -> None:
    for limit, factor in ((1e-3, None), (1e3, 1.0), (0.0, 1.0)):
        policy = make_policy()
        agent = PPO(policy, PPOConfig(max_grad_norm=limit, **ONE_MINIBATCH))
        norm = agent.update(make_rollout(policy, 5, 8))["gradient_norm"]
        assert policy.flat.grad is not None
        used = float(policy.flat.grad.norm())
        assert used == pytest.approx(limit if factor is None else norm, rel=1e-4)


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rewards", float("nan")), ("rewards", float("inf")), ("log_probs", float("nan")),
        ("next_values", float("nan")), ("observations", float("nan")),
    ],
)  # fmt: skip
def test_a_loss_that_is_not_finite_stops_training_and_changes_nothing(
    field: str, value: float, fast_path: bool
) -> None:
    policy = make_policy(fast_path=fast_path)
    rollout = make_rollout(policy, 5, 8)
    spoilt = getattr(rollout, field).clone()
    spoilt[rollout.valid.nonzero()[0].unbind()[0], rollout.valid.nonzero()[0].unbind()[1]] = value
    if field == "next_values":
        rollout = rollout.replace(terminated=torch.zeros_like(rollout.terminated))
    before = policy.flat.detach().clone()
    agent = PPO(policy, PPOConfig(normalise_advantages="none", **ONE_MINIBATCH))
    with pytest.raises(RllabError, match="not finite"):
        agent.update(rollout.replace(**{field: spoilt}))
    assert torch.equal(policy.flat, before)


@pytest.mark.parametrize("kind", sorted(FIRST))
def test_what_stands_in_steps_that_do_not_exist_changes_nothing(kind: str) -> None:
    arguments, masked = FIRST[kind]

    def update(scrambled: bool) -> tuple[ActorCritic, dict[str, float]]:
        policy = make_policy(**arguments)
        rollout = make_rollout(policy, 5, 8, masked=masked)
        assert not rollout.valid.all()
        if scrambled:
            generator = torch.Generator().manual_seed(1)
            noise = {
                name: torch.randn(5, 8, generator=generator)
                for name in ("rewards", "log_probs", "values", "next_values", "environment_rewards")
            }
            changes = {name: torch.where(rollout.valid, getattr(rollout, name), noise[name]) for name in noise}
            if not policy.rows:  # a recurrent state passes through every column
                shape = (5, 8, *[1] * (rollout.observations.dim() - 2))
                other = torch.ones_like(rollout.observations)
                changes["observations"] = torch.where(rollout.valid.view(shape), rollout.observations, other)
            other_actions = torch.zeros_like(rollout.actions)
            shape = (5, 8, *[1] * (rollout.actions.dim() - 2))
            changes["actions"] = torch.where(rollout.valid.view(shape), rollout.actions, other_actions)
            if rollout.action_mask is not None:
                changes["action_mask"] = rollout.action_mask | ~rollout.valid.unsqueeze(-1)
            rollout = rollout.replace(**changes)
        return policy, PPO(policy, PPOConfig(minibatch_size=8, epochs=2)).update(rollout)

    (one, metrics), (other, other_metrics) = update(False), update(True)
    torch.testing.assert_close(one.flat, other.flat, rtol=0, atol=1e-6)
    for name, value in metrics.items():
        assert other_metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("fast_path", [True, False])
def test_steps_that_do_not_exist_may_hold_anything_finite(fast_path: bool) -> None:
    policy = make_policy(VECTOR, BOX, fast_path=fast_path)
    rollout = make_rollout(policy, 5, 8)
    huge = torch.where(rollout.valid, rollout.log_probs, torch.tensor(-1e6))
    metrics = PPO(policy, PPOConfig(**ONE_MINIBATCH)).update(rollout.replace(log_probs=huge))
    assert all(np.isfinite(value) for value in metrics.values())


def test_a_rollout_that_does_not_divide_is_refused_with_a_size_that_does() -> None:
    with pytest.raises(RllabError, match=r"3 × 10 = 30 steps .* such as 6"):
        check_division(7, 3, 10, rows=False)
    with pytest.raises(RllabError, match="such as 30"):
        check_division(31, 3, 10, rows=False)
    with pytest.raises(RllabError, match="multiple of 10"):
        check_division(15, 3, 10, rows=True)
    check_division(10, 3, 10, rows=True)
    check_division(6, 3, 10, rows=False)


@pytest.mark.parametrize(
    "field", [{"discount": 1.1}, {"gae_lambda": -0.1}, {"epochs": 0}, {"clip_range": 0.0}, {"target_kl": -1.0}]
)
def test_settings_without_meaning_are_refused_by_name(field: dict[str, Any]) -> None:
    with pytest.raises(RllabError, match=next(iter(field))):
        PPOConfig(**field)


def test_two_updates_with_a_checkpoint_between_equal_two_without() -> None:
    def agent_and_rollout() -> tuple[PPO, Any]:
        policy = make_policy(VECTOR, BOX)
        return PPO(policy, PPOConfig(minibatch_size=8)), make_rollout(policy, 5, 8)

    agent, rollout = agent_and_rollout()
    agent.update(rollout)
    saved = agent.state_dict()
    weights = {name: weight.clone() for name, weight in agent.policy.state_dict()["weights"].items()}
    moments = {key: value.clone() for key, value in saved["optimizers"]["adam"].items()}
    generator = agent.generator.bit_generator.state
    agent.update(rollout)

    other, _ = agent_and_rollout()
    other.policy.load_state_dict({"weights": weights})
    other.load_state_dict({**saved, "optimizers": {"adam": moments}, "generator": generator})
    other.update(rollout)
    assert torch.equal(agent.policy.flat, other.policy.flat)
