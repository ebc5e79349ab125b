"""What is trained here can be evaluated by Stable-Baselines3: `predict` keeps its contract."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from toy_tasks import SPACES, MaskedObservation, Memory, Scripted, policy_for, remember, vector_of

import rllab
from rllab.policies import ActorCritic, PolicyConfig

pytest.importorskip("stable_baselines3")
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv


def monitored(env: gymnasium.Env[Any, Any]) -> Any:
    return Monitor(env)


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run whose policy has a normaliser."""
    return rllab.train(
        "ppo", "Pendulum-v1", out=tmp_path_factory.mktemp("runs") / "pendulum", steps=512, num_envs=4, rollout_steps=32,
        minibatch_size=64, normalise_observations=True, evaluation_every=0, tensorboard=False, quiet=True,
    ).path  # fmt: skip


def test_a_loaded_policy_evaluates_to_the_same_returns_episode_by_episode(pendulum: Path) -> None:
    policy = rllab.load(pendulum)
    vec_env = DummyVecEnv([lambda: monitored(gymnasium.make("Pendulum-v1"))])
    vec_env.seed(11)
    returns, lengths = evaluate_policy(policy, vec_env, n_eval_episodes=3, return_episode_rewards=True)  # type: ignore[arg-type]

    env, expected = gymnasium.make("Pendulum-v1"), []
    observation, _ = env.reset(seed=11)
    for _ in range(3):
        total, over = 0.0, False
        while not over:
            actions, _ = policy.act(observation[None], None)
            observation, reward, _, over, _ = env.step(np.clip(actions[0], -2, 2))
            total += float(reward)
        expected.append(total)
        observation, _ = env.reset()
    assert returns == pytest.approx(expected, rel=1e-5)
    assert lengths == [200, 200, 200]


def test_a_single_environment_gives_a_mean_like_our_own(pendulum: Path) -> None:
    mean, _ = evaluate_policy(rllab.load(pendulum), monitored(gymnasium.make("Pendulum-v1")), n_eval_episodes=10)  # type: ignore[arg-type]
    ours = rllab.evaluate(pendulum, episodes=10)
    assert abs(float(mean) - ours.mean) < 4 * ours.std / 10**0.5 + 1


@pytest.mark.parametrize("count", [1, 3])
def test_scripted_returns_agree_exactly(count: int) -> None:
    policy = policy_for(vector_of("same_step", Scripted()))
    vec_env = DummyVecEnv([lambda: monitored(Scripted((5,), ("truncated",), reward=1.5))] * count)
    returns, _ = evaluate_policy(policy, vec_env, n_eval_episodes=6, return_episode_rewards=True)  # type: ignore[arg-type]
    assert returns == [7.5] * 6


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("recurrence", ["lstm", "gru"])
def test_memory_is_handed_from_call_to_call_and_emptied_between_episodes(count: int, recurrence: str) -> None:
    policy = policy_for(vector_of("same_step", Memory()), recurrence=recurrence, recurrent_size=1, hidden_sizes=())
    remember(policy)
    vec_env = DummyVecEnv([lambda: monitored(Memory())] * count)
    vec_env.seed(2)
    returns, _ = evaluate_policy(policy, vec_env, n_eval_episodes=24, return_episode_rewards=True)  # type: ignore[arg-type]
    assert returns == [3.0] * 24


def test_masks_in_observations_are_kept() -> None:
    policy = policy_for(vector_of("same_step", MaskedObservation()))
    vec_env = DummyVecEnv([lambda: monitored(MaskedObservation())] * 2)  # refuses what is illegal
    _, lengths = evaluate_policy(policy, vec_env, n_eval_episodes=4, deterministic=False, return_episode_rewards=True)  # type: ignore[arg-type]
    assert lengths == [6] * 4


@pytest.mark.parametrize("case", SPACES)
@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("recurrence", ["none", "lstm"])
def test_single_observations_and_batches_give_actions_of_the_space(
    case: str, deterministic: bool, recurrence: str
) -> None:
    observation_space, action_space = SPACES[case]
    policy = ActorCritic(
        observation_space, action_space,
        PolicyConfig(hidden_sizes=(8,), recurrence=recurrence, recurrent_size=4),  # type: ignore[arg-type]
    )  # fmt: skip
    observation_space.seed(0)
    observations = [observation_space.sample() for _ in range(3)]
    action, state = policy.predict(observations[0], deterministic=deterministic)
    assert action in action_space
    assert (state is None) == (recurrence == "none")

    from gymnasium.vector.utils import concatenate, create_empty_array

    batch = concatenate(observation_space, observations, create_empty_array(observation_space, 3))
    actions, state = policy.predict(batch, episode_start=np.ones(3, bool), deterministic=deterministic)
    assert len(actions) == 3
    assert all(action in action_space for action in actions)
    if recurrence != "none":
        assert state is not None
        assert len(state[0]) == 3
    if deterministic:
        np.testing.assert_allclose(actions[0], action, rtol=1e-4, atol=1e-5)


def test_sampled_actions_follow_the_global_seed() -> None:
    policy = policy_for(vector_of("same_step", Scripted()))
    batch = np.zeros((50, 2), np.float32)
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(policy.predict(batch)[0].tolist())
    assert draws[0] == draws[1] != draws[2]


def test_masks_may_be_given_as_to_maskable_ppo() -> None:
    policy = ActorCritic(spaces.Box(-1, 1, (2,)), spaces.Discrete(3), PolicyConfig(hidden_sizes=(4,)))
    masks = np.array([[False, True, False]] * 20)
    actions, _ = policy.predict(np.zeros((20, 2), np.float32), action_masks=masks)
    assert actions.tolist() == [1] * 20
    assert policy.predict(np.zeros(2, np.float32), action_masks=masks[0])[0] == 1
