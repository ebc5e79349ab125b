"""Action masks: from infos and from observations, in both autoreset modes, with and without recurrence."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from toy_tasks import AnySpaces, MaskedObservation, policy_for, vector_of

from envs.make import EnvConfig, make_vector
from rllab.agents import AGENTS, CONFIGS
from rllab.collect import EnvCollector
from rllab.evaluate import Evaluator, film
from rllab.rollout import Rollout

MODES = ("same_step", "next_step")
NUMBERS = spaces.Box(-1, 1, (2,), np.float32)


def require_masked_probabilities(policy: Any, rollout: Rollout) -> None:
    """The stored log-probabilities are those of a softmax over the legal actions alone."""
    assert rollout.action_mask is not None
    zeros = torch.zeros_like(rollout.rewards)
    logits = policy.evaluate(rollout.experience(zeros, zeros)).parameters.detach()
    logits = logits.view(*rollout.rewards.shape, -1).masked_fill(~rollout.action_mask, -torch.inf)
    chosen = torch.log_softmax(logits, -1).gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(chosen, rollout.log_probs, rtol=1e-5, atol=1e-5)
    assert bool(rollout.action_mask.gather(-1, rollout.actions.unsqueeze(-1)).all())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("recurrence", ["none", "lstm", "gru"])
@pytest.mark.parametrize("agent", ["ppo", "trpo", "reinforce"])
def test_masks_from_the_observation_hold_with_and_without_recurrence(mode: str, recurrence: str, agent: str) -> None:
    env = vector_of(mode, MaskedObservation(), MaskedObservation())
    policy = policy_for(env, recurrence=recurrence)
    learner = AGENTS[agent](policy, CONFIGS[agent](rollout_steps=16, minibatch_size=16))  # type: ignore[call-arg]
    collector = EnvCollector(env, policy, 16)
    for _ in range(2):
        rollout = collector.collect(policy)
        require_masked_probabilities(policy, rollout)
        metrics = learner.update(rollout)
        assert metrics["entropy"] < np.log(3) + 1e-5


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("recurrence", ["none", "lstm"])
@pytest.mark.parametrize("steps", [3, 8])
def test_masks_that_infos_send_only_now_and_then_hold_where_they_were_sent(
    mode: str, recurrence: str, steps: int
) -> None:
    env = vector_of(
        mode, AnySpaces(NUMBERS, spaces.Discrete(3), "seldom"), AnySpaces(NUMBERS, spaces.Discrete(3), "seldom")
    )
    policy = policy_for(env, recurrence=recurrence)
    collector = EnvCollector(env, policy, steps)
    rollouts = [collector.collect(policy) for _ in range(4)]
    for rollout in rollouts:
        require_masked_probabilities(policy, rollout)
        assert rollout.action_mask is not None
        assert bool(rollout.action_mask[..., 0].all())
    free = torch.cat([rollout.action_mask[..., 1] for rollout in rollouts], dim=1)  # type: ignore[index]
    assert bool(free.any())
    assert not bool(free.all())


@pytest.mark.parametrize("mode", MODES)
def test_taxi_is_only_ever_asked_for_what_it_allows(mode: str) -> None:
    taxi = next(id for id in ("Taxi-v4", "Taxi-v3") if id in gymnasium.registry)
    config = EnvConfig(taxi, num_envs=3, autoreset=mode, max_episode_steps=7)  # type: ignore[arg-type]
    env = make_vector(config)
    policy = policy_for(env)
    rules = gymnasium.make(taxi).unwrapped
    collector = EnvCollector(env, policy, 25)
    for _ in range(2):
        rollout = collector.collect(policy)
        require_masked_probabilities(policy, rollout)
        assert rollout.action_mask is not None
        for row, column in rollout.valid.nonzero().tolist():
            expected = rules.action_mask(int(rollout.observations[row, column]))  # type: ignore[attr-defined]
            assert rollout.action_mask[row, column].int().tolist() == expected.tolist()
    env.close()


class MaskedPair(AnySpaces):
    """Two choices, and an info that allows only the last of each, as a tuple of masks."""

    def __init__(self) -> None:
        super().__init__(NUMBERS, spaces.MultiDiscrete([3, 2]))

    def info(self) -> dict[str, Any]:
        return {"action_mask": (np.array([0, 0, 1], np.int8), np.array([0, 1], np.int8))}

    def step(self, action: Any) -> Any:
        assert action.tolist() == [2, 1]
        return self.observation_space.sample(), 0.0, False, True, self.info()


@pytest.mark.parametrize("mode", MODES)
def test_each_choice_of_a_multi_discrete_action_has_a_mask(mode: str) -> None:
    env = vector_of(mode, MaskedPair(), MaskedPair())
    policy = policy_for(env)
    rollout = EnvCollector(env, policy, 8).collect(policy)
    assert rollout.actions[rollout.valid].unique(dim=0).tolist() == [[2, 1]]
    torch.testing.assert_close(rollout.log_probs, torch.zeros_like(rollout.log_probs))


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("autoreset", MODES)
@pytest.mark.parametrize("recurrence", ["none", "lstm"])
def test_evaluation_plays_by_the_masks(deterministic: bool, autoreset: str, recurrence: str) -> None:
    config = EnvConfig("toy/MaskedObservation-v0", autoreset=autoreset)  # type: ignore[arg-type]
    with Evaluator(config, 5, deterministic=deterministic) as evaluator:
        result = evaluator(policy_for(evaluator.env, recurrence=recurrence))
    assert result.lengths.tolist() == [6] * 5


class FilmedMasks(AnySpaces):
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(NUMBERS, spaces.Discrete(3), "always")
        self.render_mode = render_mode

    def render(self) -> Any:
        return np.zeros((8, 8, 3), np.uint8)


def test_films_are_played_by_the_masks_of_infos() -> None:
    gymnasium.register("toy/FilmedMasks-v0", entry_point=FilmedMasks)
    config = EnvConfig("toy/FilmedMasks-v0", num_envs=1)
    env = make_vector(config)
    policy = policy_for(env)
    with torch.no_grad():  # nothing is as attractive as the illegal action
        list(policy.module.actor.parameters())[-1].copy_(torch.tensor([0.0, 5.0, 0.0]))
    frames = list(film(policy, config))
    del gymnasium.registry["toy/FilmedMasks-v0"]
    assert len(frames) == 6
