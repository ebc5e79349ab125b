"""PPO's update moves every parameter as Stable-Baselines3's and sb3-contrib's do, from equal weights and data."""

from typing import Any

import pytest
import sb3_contrib
import stable_baselines3
import torch
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_twins import fill, largest_difference, twin
from synthetic import BOX, DISCRETE, MULTI_DISCRETE, VECTOR, make_policy, make_rollout

from rllab.agents import PPO, PPOConfig

SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({"normalise_advantages": "none"}, {"normalize_advantage": False}),
    "entropy bonus, small clip range": (
        {"normalise_advantages": "none", "entropy_coefficient": 0.05, "clip_range": 0.05, "value_coefficient": 0.8},
        {"normalize_advantage": False, "ent_coef": 0.05, "clip_range": 0.05, "vf_coef": 0.8},
    ),
    "tight gradient norm": (
        {"normalise_advantages": "none", "max_grad_norm": 0.01},
        {"normalize_advantage": False, "max_grad_norm": 0.01},
    ),
}


@pytest.mark.parametrize("settings", sorted(SETTINGS))
@pytest.mark.parametrize("kind", ["discrete", "discrete by modules", "box", "box by modules", "multi_discrete"])
def test_an_update_moves_every_parameter_as_stable_baselines3_does(kind: str, settings: str) -> None:
    space = BOX if "box" in kind else MULTI_DISCRETE if "multi" in kind else DISCRETE
    policy = make_policy(VECTOR, space, fast_path="modules" not in kind)
    rollout = make_rollout(policy, 4, 16, gaps=False)
    rollout = rollout.replace(
        log_probs=rollout.log_probs + 0.2 * torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    )
    ours, theirs = SETTINGS[settings]
    config = PPOConfig(minibatch_size=64, epochs=5, learning_rate=1e-3, **ours)
    agent = PPO(policy, config)
    advantages = agent.advantages(rollout)
    model = twin(
        stable_baselines3.PPO, "MlpPolicy", policy, rollout, batch_size=64, n_epochs=5, learning_rate=1e-3, **theirs
    )
    fill(model, rollout, advantages, advantages + rollout.values)
    assert largest_difference(model, policy) == 0
    before = policy.flat.detach().clone()
    model.train()
    agent.update(rollout)
    assert (policy.flat - before).abs().max() > 3e-3
    assert largest_difference(model, policy) < 1e-4


def test_advantages_standardised_differ_from_stable_baselines3_by_the_sample_correction_alone() -> None:
    policy = make_policy()
    rollout = make_rollout(policy, 4, 16, gaps=False)
    # Theirs divides by the sample deviation (n − 1): ours with advantages shrunk so is the same objective.
    agent = PPO(policy, PPOConfig(minibatch_size=64, epochs=3, value_coefficient=0.0, max_grad_norm=0.0))
    advantages = agent.advantages(rollout)
    theirs = {"vf_coef": 0.0, "max_grad_norm": 1e9, "normalize_advantage": True, "learning_rate": 3e-4}
    model = twin(stable_baselines3.PPO, "MlpPolicy", policy, rollout, batch_size=64, n_epochs=3, **theirs)
    fill(model, rollout, advantages, advantages + rollout.values)
    model.train()
    agent.update(rollout)
    assert largest_difference(model, policy) < 2e-5  # of 9e-4 moved: Adam does not see the gradient's scale


def test_an_update_under_masks_moves_every_parameter_as_maskable_ppo_does() -> None:
    for fast_path in (True, False):
        policy = make_policy(fast_path=fast_path)
        rollout = make_rollout(policy, 4, 16, masked=True, gaps=False)
        config = PPOConfig(minibatch_size=64, epochs=5, normalise_advantages="none", entropy_coefficient=0.05)
        agent = PPO(policy, config)
        advantages = agent.advantages(rollout)
        theirs = {"normalize_advantage": False, "ent_coef": 0.05, "learning_rate": 3e-4}
        model = twin(sb3_contrib.MaskablePPO, "MlpPolicy", policy, rollout, batch_size=64, n_epochs=5, **theirs)
        fill(model, rollout, advantages, advantages + rollout.values)
        model.train()
        metrics = agent.update(rollout)
        assert metrics["gradient_norm"] > 0
        assert largest_difference(model, policy) < 1e-4


@pytest.mark.parametrize("action_space", [DISCRETE, BOX], ids=["discrete", "box"])
def test_rows_are_evaluated_as_recurrent_ppo_does(action_space: Any) -> None:
    policy = make_policy(VECTOR, action_space, recurrence="lstm", share_torso=False)
    rollout = make_rollout(policy, 3, 8)
    kwargs = {"lstm_hidden_size": 6, "enable_critic_lstm": True}
    model = twin(sb3_contrib.RecurrentPPO, "MlpLstmPolicy", policy, rollout, batch_size=24, policy_kwargs=kwargs)
    assert rollout.hidden is not None
    assert rollout.starts is not None
    actor_h, actor_c, critic_h, critic_c = (part.unsqueeze(0) for part in rollout.hidden.chunk(4, dim=-1))
    values, log_probs, entropy = model.policy.evaluate_actions(
        rollout.observations.flatten(0, 1), rollout.actions.flatten(0, 1),
        RNNStates((actor_h, actor_c), (critic_h, critic_c)), rollout.starts.flatten().float(),
    )  # fmt: skip
    evaluation = policy.evaluate(rollout.experience(rollout.rewards, rollout.rewards))
    torch.testing.assert_close(evaluation.log_prob.flatten(), log_probs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(evaluation.value.flatten(), values.flatten(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(evaluation.entropy.flatten(), entropy, rtol=1e-4, atol=1e-5)
