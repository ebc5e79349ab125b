"""Stable-Baselines3's off-policy agents learn from preferences in the one training loop, their buffers relabelled."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip("stable_baselines3")
from envs.errors import RllabError
from envs.make import EnvConfig
from preference.config import PreferenceConfig, QueryConfig
from preference.entropy import StateEntropy, neighbour_distances
from preference.fit import FitConfig
from preference.off_policy import AGENT_FILE, OffPolicyRun, learn_off_policy, load_agent, resume
from preference.off_policy_config import OffPolicyConfig, OffPolicyRunConfig
from preference.reward_model import RewardConfig, RewardModel
from rllab.callbacks import Callback
from rllab.cli.main import main
from rllab.interrupt import Interrupted
from rllab.loop_config import LoopConfig
from rllab.runs import Run
from rllab.workshop import EVALUATION_SEED

COUNTING, IN_PARTS, PICTURES = "OffPolicyCounting-v0", "OffPolicyInParts-v0", "OffPolicyPictures-v0"


class InParts(gymnasium.Env[Any, Any]):
    """A Dict observation whose parts are not in alphabetical order, and choices that are rewarded by their number."""

    def __init__(self) -> None:
        self.observation_space = spaces.Dict(
            b=spaces.Box(-1, 1, (2,), np.float32), a=spaces.Discrete(3), c=spaces.Box(-1, 1, (1,), np.float32)
        )
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), float(action), False, False, {}


class Pictures(gymnasium.Env[Any, Any]):
    """Images with the channels last, which move on by the choice."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 255, (60, 50, 3), np.uint8)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.image = self.np_random.integers(0, 255, (60, 50, 3)).astype(np.uint8)
        return self.image, {}

    def step(self, action: Any) -> Any:
        self.image = np.roll(self.image, int(action) + 1, axis=0)
        return self.image, float(action), False, False, {}


class Counting(gymnasium.Env[Any, Any]):
    """Observes how many steps its episode has had, and the last action; the reward is the action."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-10, 100, (2,), np.float64)
        self.action_space = spaces.Box(-3, 5, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(2), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return np.array([self.count, action[0]]), float(action[0]), False, False, {}


gymnasium.register(COUNTING, Counting, max_episode_steps=7)
gymnasium.register(IN_PARTS, InParts, max_episode_steps=9)
gymnasium.register(PICTURES, Pictures, max_episode_steps=20)

SMALL = OffPolicyConfig(rollout_steps=32, learning_starts=64, batch_size=16, hidden_sizes=(16,), gradient_steps=0.1)
PREFERENCE = PreferenceConfig(
    query=QueryConfig(labels=16, clip_steps=5),
    reward=RewardConfig(members=2, reward_hidden_sizes=(8,)),
    fit=FitConfig(fit_epochs=2),
)
LOOP = LoopConfig(steps=320, evaluation_every=0, checkpoint_every=0, tensorboard=False)


def learned(
    out: Path, agent: str = "sac", env: str | EnvConfig = COUNTING, *, config: OffPolicyConfig = SMALL,
    preference: PreferenceConfig = PREFERENCE, loop: LoopConfig = LOOP, callbacks: Any = (),
) -> OffPolicyRun:  # fmt: skip
    return learn_off_policy(
        agent, env, preference, config=config, loop=loop, out=out, callbacks=callbacks, quiet=True, seed=1
    )  # fmt: skip


def stored(agent: Any) -> tuple[Any, ...]:
    """Observations, actions as the environment got them, next observations and rewards, in the buffer's order."""
    buffer = agent.replay_buffer
    filled = buffer.buffer_size if buffer.full else buffer.pos
    actions = agent.policy.unscale_action(buffer.actions[:filled])
    return tuple(
        array.astype(np.float32)
        for array in (buffer.observations[:filled], actions, buffer.next_observations[:filled], buffer.rewards[:filled])
    )  # fmt: skip


class BufferWatch(Callback):
    """Looks at the agent's rewards after each update, and keeps what the last look found."""

    def __init__(self) -> None:
        self.largest_error = 0.0
        self.looks = 0

    def after_update(self, training: Any, rollout: Any, metrics: Any) -> None:
        observations, actions, following, rewards = stored(training.agent.model)
        replay = training.reward_model
        if replay.relabelled_fits == 0 or replay.relabelled_fits != replay.learner.fits:
            return  # exploring; or fitted since the update, which the next one sees to
        model = replay.learner.model
        error = np.abs(model.reward(observations, actions, following) - rewards).max()
        self.largest_error, self.looks = max(self.largest_error, float(error)), self.looks + 1


@pytest.mark.parametrize("buffer_size", [1000, 96], ids=["growing", "going round"])
@pytest.mark.parametrize("reads", ["observation_action", "observation_action_next"])
def test_every_stored_reward_is_what_the_newest_model_says_of_its_transition(
    tmp_path: Path, buffer_size: int, reads: Any
) -> None:
    watch = BufferWatch()
    config = replace(SMALL, buffer_size=buffer_size)
    preference = replace(PREFERENCE, reward=replace(PREFERENCE.reward, reads=reads))
    env = EnvConfig(COUNTING, num_envs=2)
    run = learned(tmp_path / "run", env=env, config=config, preference=preference, callbacks=[watch])
    assert watch.looks >= 3
    assert watch.largest_error < 1e-5
    observations, _, following, rewards = stored(run.agent)
    # An episode's last step leads to its own last observation and not to the next one's first.
    np.testing.assert_array_equal(following[..., 0], observations[..., 0] + 1)
    assert rewards.std() > 0


def test_choices_and_observations_in_parts_are_relabelled_as_the_model_reads_them(tmp_path: Path) -> None:
    env = EnvConfig(IN_PARTS, num_envs=2)
    run = learned(tmp_path / "run", "dqn", env, loop=replace(LOOP, steps=256))
    buffer: Any = run.agent.replay_buffer
    parts, filled = buffer.observations, buffer.pos
    one_hot = np.eye(3, dtype=np.float32)[parts["a"][:filled, :, 0]]
    observations = np.concatenate([parts["b"][:filled], parts["c"][:filled], one_hot], axis=-1)
    expected = run.reward_model.reward(observations, buffer.actions[:filled, :, 0])
    np.testing.assert_allclose(buffer.rewards[:filled], expected, rtol=1e-4, atol=1e-5)


def test_images_are_relabelled_as_the_agent_stores_them(tmp_path: Path) -> None:
    config = replace(SMALL, rollout_steps=8, learning_starts=8, batch_size=4, buffer_size=200, hidden_sizes=None)
    query, reward = QueryConfig(labels=4, clip_steps=4), RewardConfig(members=1, reads="observation_action_next")
    preference = PreferenceConfig(query=query, reward=reward, fit=FitConfig(fit_epochs=1))
    run = learned(
        tmp_path / "run", "dqn", EnvConfig(PICTURES, num_envs=2), config=config, preference=preference,
        loop=replace(LOOP, steps=64),
    )  # fmt: skip
    buffer: Any = run.agent.replay_buffer
    steps = (buffer.observations, buffer.actions[..., 0], buffer.next_observations, buffer.rewards)
    *read, rewards = (array[: buffer.pos] for array in steps)
    assert read[0].shape[2:] == (3, 60, 50)
    np.testing.assert_allclose(rewards, run.reward_model.reward(*read), rtol=1e-4, atol=1e-4)


def test_without_relabelling_the_first_fit_alone_reaches_old_steps(tmp_path: Path) -> None:
    watch = BufferWatch()
    run = learned(tmp_path / "run", config=replace(SMALL, relabel=False), callbacks=[watch])
    assert watch.largest_error > 1e-4
    assert np.abs(stored(run.agent)[3]).min() > 0  # nothing is left without a learned reward


def test_the_environments_own_reward_never_reaches_the_buffer(tmp_path: Path) -> None:
    class Look(Callback):
        found: list[Any] = []  # noqa: RUF012

        def after_collect(self, training: Any, rollout: Any) -> None:
            view = training.agent.view
            self.found.append(view.buffer.rewards[view.newest(32)].copy())
            np.testing.assert_allclose(rollout.environment_rewards, rollout.actions[..., 0], rtol=1e-5)

    learned(tmp_path / "run", callbacks=[look := Look()])
    assert len(look.found) >= 3
    assert all(np.array_equal(rewards, np.zeros((32, 1))) for rewards in look.found)


# State entropy.


def test_novelty_is_the_log_of_the_distance_to_the_fifth_neighbour_over_its_deviation() -> None:
    generator = np.random.default_rng(0)
    states = generator.standard_normal((40, 3)) * [1, 10, 0.1] + 1000
    distances = np.sqrt(((states[:, None] - states[None]) ** 2).sum(-1))
    fifth = np.sort(distances, axis=1)[:, 5]  # the first is the state itself
    np.testing.assert_allclose(neighbour_distances(states[:7], states), fifth[:7], rtol=1e-9)
    rewards = StateEntropy().rewards(states, states)
    np.testing.assert_allclose(rewards, np.log(fifth) / np.log(fifth).std(), rtol=1e-5)


def test_the_deviation_is_that_of_all_rewards_so_far() -> None:
    entropy, generator = StateEntropy(2), np.random.default_rng(1)
    states = generator.standard_normal((30, 2))
    first = np.log(neighbour_distances(states[:20], states[:20], 2))
    entropy.rewards(states[:20], states[:20])
    second = np.log(neighbour_distances(states[20:], states, 2))
    rewards = entropy.rewards(states[20:], states)
    np.testing.assert_allclose(rewards, second / np.concatenate([first, second]).std(), rtol=1e-5)
    again = entropy.rewards(states[20:], states, observe=False)
    np.testing.assert_array_equal(again, rewards)


def test_few_and_equal_states_have_finite_novelty() -> None:
    assert neighbour_distances(np.array([[0.0], [3.0]]), np.array([[0.0], [3.0]]), 5).tolist() == [3.0, 3.0]
    assert np.isfinite(StateEntropy().rewards(np.zeros((10, 2)), np.zeros((10, 2)))).all()
    assert np.isfinite(StateEntropy().rewards(np.zeros((1, 2)), np.zeros((1, 2)))).all()


def test_an_agent_explores_before_the_first_questions(tmp_path: Path) -> None:
    config = replace(SMALL, pretraining_steps=128)
    run = learned(tmp_path / "run", config=config, loop=replace(LOOP, steps=256), callbacks=[watch := BufferWatch()])
    rows = Run.open(run.path).read_metrics()
    exploring = [row for row in rows if "reward/state_entropy" in row]
    assert [row["steps"] for row in exploring] == [32, 64, 96, 128]
    assert all(row["reward/labels"] == 0 for row in exploring)
    assert rows[4]["reward/labels"] >= 4
    assert rows[-1]["reward/labels"] == 16
    assert watch.largest_error < 1e-5


# Runs.


def test_a_run_of_sac_on_pendulum_leaves_a_folder_like_the_others(tmp_path: Path) -> None:
    loop = LoopConfig(steps=300, evaluation_every=150, evaluation_episodes=1, tensorboard=False)
    run = learned(tmp_path / "run", env="Pendulum-v1", loop=loop)
    last = Run.open(run.path).read_metrics()[-1]
    for name in ("return_mean", "policy_loss", "value_loss", "reward/labels", "reward/step_pearson", "reward/fits"):
        assert name in last
    assert last["reward/labels"] == 16
    assert run.evaluation is not None
    assert last["evaluation/return_mean"] == pytest.approx(run.evaluation.mean)
    agent = load_agent(run.path)
    observation = np.array([1.0, 0.0, 0.5, 0.0], np.float32)  # the last number would mark an absorbing end
    np.testing.assert_array_equal(
        agent.predict(observation, deterministic=True)[0], run.agent.predict(observation, deterministic=True)[0]
    )
    model = RewardModel.load(run.path / "reward")
    steps = (observation[None], np.zeros((1, 1), np.float32))
    np.testing.assert_array_equal(model.reward(*steps), run.reward_model.reward(*steps))


def test_evaluate_plays_the_policy_that_training_evaluated_and_watch_films_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = LoopConfig(steps=200, evaluation_every=200, evaluation_episodes=2, tensorboard=False)
    run = learned(tmp_path / "run", env="Pendulum-v1", loop=loop)
    seed = str(run.config.seed + EVALUATION_SEED)
    capsys.readouterr()
    assert main(["evaluate", str(run.path), "--episodes", "2", "--seed", seed, "--json"]) == 0
    assert run.evaluation is not None
    assert json.loads(capsys.readouterr().out)["returns"] == run.evaluation.returns.tolist()
    video = tmp_path / "short.gif"
    assert main(["watch", str(run.path), "--output", str(video), "--max-steps", "3"]) == 0
    assert video.stat().st_size > 1000


@pytest.mark.parametrize(("agent", "env"), [("td3", "Pendulum-v1"), ("dqn", "CartPole-v1")])
def test_the_other_agents_learn_too(tmp_path: Path, agent: str, env: str) -> None:
    run = learned(tmp_path / "run", agent, env, loop=replace(LOOP, steps=256))
    last = Run.open(run.path).read_metrics()[-1]
    assert np.isfinite(last["value_loss"])
    assert last["reward/labels"] == 16


def test_the_same_seed_gives_the_same_run_and_an_interrupted_one_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    class Interrupt(Callback):
        def after_update(self, training: Any, rollout: Any, metrics: Any) -> None:
            if training.steps >= 192:
                os.kill(os.getpid(), signal.SIGINT)

    config = replace(SMALL, pretraining_steps=64)
    whole = learned(tmp_path / "whole", config=config)
    with pytest.raises(Interrupted):
        learned(tmp_path / "cut", config=config, callbacks=[Interrupt()])
    assert (tmp_path / "cut" / AGENT_FILE).exists()
    resumed = resume(tmp_path / "cut", quiet=True)
    rows = [Run.open(run.path).read_metrics() for run in (whole, resumed)]
    timeless = [[{k: v for k, v in row.items() if "second" not in k} for row in some] for some in rows]
    assert json.dumps(timeless[0]) == json.dumps(timeless[1])
    for one, other in zip(stored(whole.agent), stored(resumed.agent), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_configuration_comes_back_from_json() -> None:
    config = OffPolicyRunConfig("td3", EnvConfig("Pendulum-v1"), SMALL, LOOP, 3)
    assert OffPolicyRunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("agent", "env", "settings", "sentence"),
    [
        ("ppo", "Pendulum-v1", {}, "'ppo' does not learn from a replay buffer: choose one of sac, td3, dqn"),
        ("sac", "CartPole-v1", {}, r"sac needs continuous actions \(a Box\), and CartPole-v1 has Discrete\(2\): use dqn"),
        ("dqn", "Pendulum-v1", {}, "dqn chooses among discrete actions, and Pendulum-v1 has Box.*: use sac or td3"),
        ("sac", "Pendulum-v1", {"config": OffPolicyConfig(buffer_size=10)}, "a replay buffer of 10 steps cannot hold"),
        ("sac", "Pendulum-v1", {"device": "abacus"}, "cannot learn Pendulum-v1"),
        ("sac", "Pendulum-v9", {}, "Pendulum"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_told_in_a_sentence_and_leaves_nothing_behind(
    tmp_path: Path, agent: str, env: str, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RllabError, match=sentence):
        learn_off_policy(agent, env, PREFERENCE, loop=LOOP, out=tmp_path / "run", quiet=True, **settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "settings",
    [{"rollout_steps": 0}, {"tau": 0.0}, {"pretraining_steps": -1}, {"discount": 1.5}, {"entropy_neighbours": 0}],
)
def test_settings_out_of_their_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RllabError, match=next(iter(settings))):
        OffPolicyConfig(**settings)


@pytest.mark.slow
def test_sac_learns_pendulum_from_200_comparisons(tmp_path: Path) -> None:
    preference = PreferenceConfig(query=QueryConfig(labels=200))
    loop = LoopConfig(steps=15_000, evaluation_every=5_000, tensorboard=False)
    run = learn_off_policy("sac", "Pendulum-v1", preference, loop=loop, out=tmp_path / "run", quiet=True)
    assert run.evaluation is not None
    assert run.evaluation.mean > -250
