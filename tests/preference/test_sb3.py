"""Any Stable-Baselines3 program takes a learned reward: what it is given is the model's, what is counted stays true."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray

pytest.importorskip("stable_baselines3")
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecTransposeImage

from envs.errors import RllabError
from preference.inputs import Inputs, StepReader
from preference.reward_model import RewardConfig, RewardModel
from preference.sb3 import ENVIRONMENT_REWARD, RewardVecEnv

NUMBERS = spaces.Box(-1, 1, (2,), np.float64)
IMAGE = spaces.Box(0, 255, (60, 50, 3), np.uint8)


class Told(gymnasium.Env[Any, Any]):
    """Random observations, all of which are remembered, the last ones too. Episodes of three steps end either way."""

    def __init__(self, observation_space: Any = NUMBERS, action_space: Any = None) -> None:
        self.observation_space = observation_space
        self.action_space = action_space or spaces.Box(-1, 1, (1,), np.float32)
        self.observation_space.seed(0)
        self.steps: list[tuple[Any, Any, Any]] = []
        self.episode = self.count = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.count, self.episode = 0, self.episode + 1
        self.observation = self.observation_space.sample()
        return self.observation, {}

    def step(self, action: Any) -> Any:
        following = self.observation_space.sample()
        self.steps.append((self.observation, action, following))
        self.observation, self.count = following, self.count + 1
        over = self.count == 3
        return following, 10.0, over and self.episode % 2 == 0, over and self.episode % 2 == 1, {}


def model_of(observation_space: Any, action_space: Any, reads: Any = "observation_action_next") -> RewardModel:
    inputs = Inputs.of(observation_space, action_space)
    return RewardModel(inputs, RewardConfig(members=2, reads=reads, reward_hidden_sizes=(8,)), seed=3)


def rewards_of(venv: RewardVecEnv, actions: list[NDArray[Any]]) -> NDArray[np.float32]:
    """Of `[T, N]` steps."""
    venv.reset()
    return np.array([venv.step(action)[1] for action in actions])


def flat(space: Any, observation: Any) -> NDArray[Any]:
    return np.concatenate([np.ravel(observation[key]) for key in space.spaces]) if isinstance(space, spaces.Dict) else (
        observation
    )  # fmt: skip


@pytest.mark.parametrize("reads", ["observation", "observation_action", "observation_action_next"])
def test_a_step_is_rewarded_by_what_the_model_says_of_it_and_of_an_episodes_true_last_observation(reads: str) -> None:
    envs = [Told(), Told()]
    model = model_of(NUMBERS, envs[0].action_space, reads)
    venv = RewardVecEnv(DummyVecEnv([lambda: envs[0], lambda: envs[1]]), model)
    actions = list(np.random.default_rng(0).uniform(-1, 1, (7, 2, 1)).astype(np.float32))
    rewards = rewards_of(venv, actions)
    for row, env in enumerate(envs):
        before, acted, after = (np.array(part, np.float32) for part in zip(*env.steps, strict=True))
        np.testing.assert_allclose(rewards[:, row], model.reward(before, acted, after), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("space", "given", "kept"),
    [
        (spaces.Box(-1, 1, (2, 1), np.float32), [[[3.0], [-0.5]]], [[1.0, -0.5]]),
        (spaces.Discrete(3), [2], [2]),
        (spaces.Discrete(3, start=5), [6], [1]),
        (spaces.MultiDiscrete([3, 2]), [[2, 1]], [[2, 1]]),
        (spaces.MultiBinary(3), [[1, 0, 1]], [[1, 0, 1]]),
    ],
)
def test_actions_reach_the_model_as_clips_keep_them(space: Any, given: Any, kept: Any) -> None:
    env = Told(NUMBERS, space)
    model = model_of(NUMBERS, space)
    venv = RewardVecEnv(DummyVecEnv([lambda: env]), model)
    reward = rewards_of(venv, [np.array(given)])[0]
    before, _, after = env.steps[0]
    expected = model.reward(before[None].astype(np.float32), np.array(kept), after[None].astype(np.float32))
    np.testing.assert_allclose(reward, expected, rtol=1e-5, atol=1e-6)


def test_dict_observations_are_read_in_the_order_of_their_keys() -> None:
    space = spaces.Dict(b=spaces.Box(-1, 1, (2,), np.float32), a=spaces.Box(-1, 1, (1,), np.float32))
    env = Told(space)
    model = model_of(space, env.action_space)
    venv = RewardVecEnv(DummyVecEnv([lambda: env]), model)
    rewards = rewards_of(venv, list(np.zeros((4, 1, 1), np.float32)))
    before, after = (np.array([flat(space, step[side]) for step in env.steps]) for side in (0, 2))
    np.testing.assert_allclose(rewards[:, 0], model.reward(before, np.zeros((4, 1)), after), rtol=1e-5, atol=1e-6)


def test_images_are_rewarded_alike_on_either_side_of_the_transposition() -> None:
    last, first = IMAGE, spaces.Box(0, 255, (3, 60, 50), np.uint8)
    action_space = spaces.Discrete(2)
    models = [model_of(last, action_space), model_of(first, action_space)]
    models[1].load_state_dict(models[0].state_dict())
    actions = [np.array([1])] * 4
    wraps: list[Callable[[Any, RewardModel], RewardVecEnv]] = [
        RewardVecEnv,
        lambda venv, model: RewardVecEnv(VecTransposeImage(venv), model),
    ]
    rewards = [
        rewards_of(wrap(DummyVecEnv([lambda: Told(IMAGE, action_space)]), model), actions)
        for wrap in wraps for model in models
    ]  # fmt: skip
    assert np.std(rewards[0]) > 0
    for other in rewards[1:]:
        np.testing.assert_array_equal(other, rewards[0])


def test_the_environments_own_reward_is_told_and_monitors_count_it() -> None:
    venv = DummyVecEnv([lambda: Monitor(Told())])
    rewarded = RewardVecEnv(venv, model_of(NUMBERS, venv.action_space))
    rewarded.reset()
    infos = [rewarded.step(np.zeros((1, 1)))[3][0] for _ in range(3)]
    assert [info[ENVIRONMENT_REWARD] for info in infos] == [10.0] * 3
    assert infos[-1]["episode"]["r"] == 30.0


def test_ppo_learns_from_it_and_is_evaluated_on_true_returns(tmp_path: Path) -> None:
    envs = [Told(), Told()]
    model = model_of(NUMBERS, envs[0].action_space)
    model.save(tmp_path)
    venv = RewardVecEnv(DummyVecEnv([lambda: Monitor(envs[0]), lambda: Monitor(envs[1])]), tmp_path)
    agent = PPO("MlpPolicy", venv, n_steps=3, batch_size=6, n_epochs=1, gamma=0.0, device="cpu").learn(6)
    for row, env in enumerate(envs):
        before, acted, after = (np.array(part, np.float32) for part in zip(*env.steps[:3], strict=True))
        np.testing.assert_allclose(
            agent.rollout_buffer.rewards.reshape(3, 2)[:, row], model.reward(before, acted, after), rtol=1e-5, atol=1e-6
        )
    mean, _ = evaluate_policy(agent, venv, n_eval_episodes=2)
    assert mean == 30.0


def test_a_model_of_another_environment_is_refused_in_a_sentence() -> None:
    other = model_of(spaces.Box(-1, 1, (5,)), spaces.Discrete(2))
    with pytest.raises(
        RllabError, match=r"numbers of shape \(5,\) with actions of choices \(2,\), and the environment"
    ):
        RewardVecEnv(DummyVecEnv([Told]), other)
    taller = model_of(spaces.Box(0, 255, (3, 50, 60), np.uint8), spaces.Discrete(2))
    with pytest.raises(RllabError, match="images of shape"):
        RewardVecEnv(DummyVecEnv([lambda: Told(IMAGE, spaces.Discrete(2))]), taller)
    assert StepReader(IMAGE, spaces.Discrete(2)).inputs.channels_last


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(RllabError, match="holds no reward model"):
        RewardVecEnv(DummyVecEnv([Told]), tmp_path)
