"""Episodes that only their time limit ends."""

import json
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from envs.atari_vector import AtariVector
from envs.config import EnvConfig
from envs.errors import RllabError
from envs.make import autoreset_mode, checks_bounds, make_single, make_vector, reset
from envs.plain_data import identical
from envs.serial import SerialVectorEnv
from envs.snapshot import capture, restore


def play(vector_env, steps, seed=0, start=None):
    """Observations, rewards, terminations and truncations `[steps, N, …]` under random actions."""
    generator = np.random.default_rng(seed)
    if start is None:
        reset(vector_env, seed)
    else:
        start(generator)
    space, count = vector_env.single_action_space, vector_env.num_envs
    columns = []
    for _ in range(steps):
        if isinstance(space, gymnasium.spaces.Discrete):
            actions = generator.integers(space.n, size=count)
        else:
            actions = generator.uniform(space.low, space.high, (count, *space.shape)).astype(space.dtype)
        columns.append([np.copy(part) for part in vector_env.step(actions)[:4]])
    return [np.array(column) for column in zip(*columns, strict=True)]


@pytest.mark.parametrize("termination", ["ignored", "absorbing", "restart"])
@pytest.mark.parametrize("vectorization", ["auto", "workers"])
def test_every_episode_of_the_cart_pole_has_exactly_500_steps(termination, vectorization):
    vector_env = make_vector(EnvConfig("CartPole-v1", 2, vectorization, termination=termination, workers=1))
    observations, _, terminated, truncated = play(vector_env, 1001)
    vector_env.close()
    assert np.isfinite(observations).all()
    assert not terminated.any()
    np.testing.assert_array_equal(np.argwhere(truncated[:, 0])[:, 0], [499, 999])
    np.testing.assert_array_equal(truncated[:, 0], truncated[:, 1])


@pytest.mark.parametrize("action", [0, 1])
def test_a_cart_pushed_one_way_for_ever_keeps_a_finite_state_and_can_be_drawn(action):
    env = make_single(EnvConfig("CartPole-v1", termination="ignored"), render_mode="rgb_array")
    env.reset(seed=0)
    for _ in range(500):
        *_, truncated, _ = env.step(action)
    state = env.unwrapped.state.copy()
    assert truncated
    assert abs(state[0]) > 262, "not so far that pygame's 16 bits would matter"
    assert np.isfinite(state).all()
    assert env.render().shape == (400, 600, 3)
    np.testing.assert_array_equal(env.unwrapped.state, state)


def test_a_fallen_pole_is_worth_nothing_and_warns_of_nothing():
    env = make_single(EnvConfig("CartPole-v1", termination="ignored"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):  # in the second episode as in the first
            env.reset(seed=0)
            rewards = np.array([env.step(1)[1] for _ in range(30)])
            # Gymnasium pays for the step of the fall, too.
            fall = int(rewards.sum())
            np.testing.assert_array_equal(rewards, np.arange(30) < fall)
            assert 5 < fall < 15


def test_a_walker_that_may_fall_gets_its_own_rewards_for_it():
    config = EnvConfig("Hopper-v5", 1, termination="ignored", max_episode_steps=200)
    env, own = make_single(config), gymnasium.make("Hopper-v5", terminate_when_unhealthy=False)
    env.reset(seed=1)
    own.reset(seed=1)
    healthy = []
    for _ in range(200):
        action = env.action_space.sample()
        _, reward, terminated, truncated, info = env.step(action)
        assert reward == own.step(action)[1]
        assert not terminated
        healthy.append(info["reward_survive"])
    assert truncated
    assert {0.0, 1.0} == set(healthy)
    assert env.unwrapped._terminate_when_unhealthy is False


def test_a_restart_shows_the_next_start_in_the_step_that_ends_and_keeps_that_steps_reward():
    silent = make_vector(EnvConfig("CartPole-v1", 2, "sync", termination="restart", max_episode_steps=120))
    usual = make_vector(EnvConfig("CartPole-v1", 2, "sync", autoreset="same_step", max_episode_steps=120))
    hidden, shown = play(silent, 119), play(usual, 119)
    np.testing.assert_array_equal(hidden[0], shown[0])
    np.testing.assert_array_equal(hidden[1], shown[1])
    assert shown[2].any(axis=0).all()
    assert not hidden[2].any()
    assert not hidden[3].any()
    assert play(silent, 120)[3][-1].all()


def test_restarts_do_not_set_back_the_time_limit_of_an_environment_with_wrappers_of_its_own():
    config = EnvConfig("toy_environments:Skipping-v0", 1, termination="restart", max_episode_steps=50)
    _, _, terminated, truncated = play(make_vector(config), 100)
    np.testing.assert_array_equal(np.flatnonzero(truncated), [49, 99])
    assert not terminated.any()


@pytest.mark.parametrize(
    "config",
    [
        EnvConfig("CartPole-v1", 2, termination="ignored", max_episode_steps=70),
        EnvConfig("CartPole-v1", 2, "workers", termination="restart", max_episode_steps=70, workers=1),
        EnvConfig("Hopper-v5", 2, termination="ignored", max_episode_steps=70),
        EnvConfig("Hopper-v5", 2, termination="absorbing", max_episode_steps=170),
        EnvConfig("LunarLander-v3", 2, termination="absorbing", max_episode_steps=250),
        EnvConfig("LunarLander-v3", 2, termination="restart", max_episode_steps=250),
        EnvConfig("BipedalWalker-v3", 1, termination="restart", max_episode_steps=250),
        EnvConfig("toy_environments:ObjectWalk-v0", 2, termination="restart"),
        EnvConfig("ALE/Pong-v5", 1, termination="restart", max_episode_steps=250),
    ],
    ids=lambda config: f"{config.id}-{config.termination}",
)
def test_a_restored_environment_continues_bit_for_bit(config):
    vector_env, resumed = make_vector(config), make_vector(config)
    _, _, terminated, _ = play(vector_env, 150)
    assert not terminated.any()
    snapshot = capture(vector_env)
    assert restore(resumed, snapshot) == {}
    for first, second in zip(
        play(vector_env, 110, 1, start=lambda _: None), play(resumed, 110, 1, start=lambda _: None), strict=True
    ):
        assert identical(first, second)
    vector_env.close()
    resumed.close()


def test_all_ends_are_one_absorbing_state_with_reward_0_that_a_number_of_its_own_marks():
    env = make_single(EnvConfig("CartPole-v1", termination="absorbing"))
    plain = make_single(EnvConfig("CartPole-v1"))
    assert env.observation_space.shape == (5,)
    observation, _ = env.reset(seed=0)
    expected, _ = plain.reset(seed=0)
    np.testing.assert_array_equal(observation, [*expected, 0])
    over, steps = False, 0
    while not over:
        observation, reward, terminated, truncated, _ = env.step(1)
        expected, expected_reward, over, *_ = plain.step(1)
        np.testing.assert_array_equal(observation, [*expected, 0])
        assert (reward, terminated, truncated) == (expected_reward, False, False)
        steps += 1
    for step in range(steps, 500):
        observation, reward, terminated, truncated, _ = env.step(0)
        np.testing.assert_array_equal(observation, [0, 0, 0, 0, 1])
        assert env.observation_space.contains(observation)
        assert (reward, terminated, truncated) == (0, False, step == 499)
    observation, _ = env.reset()
    assert observation[-1] == 0


def test_observations_that_are_no_vector_stay_what_they_were_last():
    env = make_single(EnvConfig("toy_environments:ObjectWalk-v0", termination="absorbing"))
    env.reset(seed=0)
    seen = [env.step(env.action_space.sample())[:3] for _ in range(30)]
    assert not any(terminated for *_, terminated in seen)
    assert [reward for _, reward, _ in seen[-3:]] == [0, 0, 0]
    assert identical(seen[-1][0], seen[-2][0])


def test_a_game_begun_anew_is_stacked_upon_the_last_one():
    config = EnvConfig("BreakoutNoFrameskip-v4", 1, termination="restart", env_kwargs={"full_action_space": False})
    env = make_single(config)
    observation, info = env.reset(seed=0)
    lives = [info["lives"]]
    for step in range(600):
        previous = observation
        observation, _, terminated, truncated, info = env.step(1 if step % 10 == 0 else 2)
        np.testing.assert_array_equal(observation[:3], previous[1:])
        lives.append(info["lives"])
        assert not terminated
        assert not truncated
    changes = np.diff(lives)
    assert (changes == -1).sum() > 4, "no life was lost"
    assert (changes > 0).any(), "no game was begun anew"


def test_what_a_batch_cannot_do_by_itself_is_done_one_by_one_or_refused():
    for id in ("CartPole-v1", "ALE/Pong-v5"):
        config = EnvConfig(id, 1, termination="restart")
        vector_env = make_vector(config)
        assert isinstance(vector_env, SerialVectorEnv)
        assert autoreset_mode(vector_env) is AutoresetMode.SAME_STEP
        with pytest.raises(RllabError, match="termination 'restart' rules out"):
            make_vector(EnvConfig(id, 1, "native", termination="restart"))
    assert isinstance(make_vector(EnvConfig("ALE/Pong-v5", 1)), AtariVector)
    with pytest.raises(RllabError, match="EnvPool's 'CartPole-v1' cannot be used"):
        make_vector(EnvConfig("CartPole-v1", 1, "envpool", termination="ignored"))


@pytest.mark.parametrize("id", ["LunarLander-v3", "ALE/Pong-v5", "PongNoFrameskip-v4"])
def test_a_simulator_that_cannot_go_on_is_refused_with_what_to_use(id):
    with pytest.raises(RllabError, match="use termination '(restart|absorbing)'"):
        make_vector(EnvConfig(id, 1, termination="ignored"))


def test_an_environment_that_fails_past_its_end_says_what_to_use():
    class Brittle(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.over = False
            return np.zeros(1, np.float32), {}

        def step(self, action):
            if self.over:
                raise ValueError("over is over")
            self.over = True
            return np.zeros(1, np.float32), 0.0, True, False, {}

    gymnasium.register("Brittle-v0", Brittle, max_episode_steps=9)
    try:
        vector_env = make_vector(EnvConfig("Brittle-v0", 1, termination="ignored"))
        reset(vector_env, 0)
        vector_env.step(np.array([0]))
        with pytest.raises(RllabError, match=r"past its end \(ValueError: over is over\): use termination 'restart'"):
            vector_env.step(np.array([0]))
    finally:
        del gymnasium.registry["Brittle-v0"]


@pytest.mark.parametrize("termination", ["ignored", "restart"])
def test_a_horizon_without_an_end_is_refused(termination):
    gymnasium.register("Endless-v0", "toy_environments:RandomWalk")
    try:
        with pytest.raises(RllabError, match="no time limit"):
            make_vector(EnvConfig("Endless-v0", 1, termination=termination))
        make_vector(EnvConfig("Endless-v0", 1, termination=termination, max_episode_steps=9))
    finally:
        del gymnasium.registry["Endless-v0"]


def test_the_horizon_of_atari_is_its_cap_of_frames():
    for protocol in ("auto", "none"):
        env = make_single(EnvConfig("ALE/Pong-v5", termination="restart", protocol=protocol))
        limit = env._limit if protocol == "none" else env.env.max_steps
        assert limit == 27_000


def test_bounds_do_not_bind_past_the_end():
    assert not checks_bounds(EnvConfig("CartPole-v1", termination="ignored"))
    assert checks_bounds(EnvConfig("CartPole-v1", termination="restart"))


def test_the_choice_is_part_of_the_configuration_as_json():
    document = json.loads(json.dumps(vars(EnvConfig("CartPole-v1", termination="ignored"))))
    assert EnvConfig(**document).termination == "ignored"
