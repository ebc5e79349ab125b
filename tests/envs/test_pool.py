import importlib.util

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from envs.errors import RllabError
from envs.make import EnvConfig, autoreset_mode, make_vector, reset
from envs.pool import PoolVectorEnv
from envs.rows import describe_row
from envs.snapshot import capture, restore

RIGHT = np.ones(2, int)


def make(id="CartPole-v1", num_envs=2, **settings):
    pytest.importorskip("envpool")
    return make_vector(EnvConfig(id, num_envs, "envpool", **settings))


def test_an_ended_episode_is_followed_by_a_step_that_ignores_its_action_and_earns_nothing():
    first, second = (make(max_episode_steps=4) for _ in range(2))
    assert autoreset_mode(first) is AutoresetMode.NEXT_STEP
    for vector_env in (first, second):
        reset(vector_env, 0)
        for _ in range(4):
            *_, terminated, truncated, infos = vector_env.step(RIGHT)
        assert (terminated.any(), truncated.all(), infos) == (False, True, {})
    (observations, rewards, *ends, _), (others, *_) = first.step(RIGHT), second.step(1 - RIGHT)
    assert rewards.tolist() == [0.0, 0.0]
    assert rewards.dtype == np.float64
    assert not np.any(ends)
    np.testing.assert_array_equal(observations, others)
    assert (np.abs(observations) <= 0.05).all(), "no first observation of CartPole"


def test_a_fallen_pole_terminates_and_does_not_truncate():
    vector_env = make()
    reset(vector_env, 0)
    ends = [vector_env.step(RIGHT)[2:4] for _ in range(15)]
    assert np.any([terminated for terminated, _ in ends])
    assert not np.any([truncated for _, truncated in ends])


def test_a_seed_settles_every_environment_and_no_two_are_alike():
    def episode(seed, vector_env):
        first, _ = reset(vector_env, seed)
        return [first, *(vector_env.step(RIGHT)[0] for _ in range(30))]

    vector_env = make()
    once, again, other = episode(3, vector_env), episode(3, vector_env), episode(4, make())
    np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(once, episode(3, make()))
    assert len(np.unique([*once[0], *other[0]], axis=0)) == 4
    assert describe_row(vector_env, 1) == f"environment 1 (seed {vector_env.unwrapped.seeds[1]})"


def test_a_reset_without_a_seed_goes_on_with_other_episodes():
    vector_env = make()
    assert not np.array_equal(reset(vector_env, 0)[0], reset(vector_env, None)[0])


def test_observations_stay_as_they_are():
    vector_env = make("HalfCheetah-v5")
    reset(vector_env, 0)
    actions = np.ones((2, 6))
    first = vector_env.step(actions)[0]
    copied = first.copy()
    for _ in range(3):
        vector_env.step(-actions)
    np.testing.assert_array_equal(first, copied)


def test_there_are_no_snapshots_so_a_restore_begins_anew_and_says_so():
    vector_env = make()
    snapshot = capture(vector_env)
    assert snapshot == {"native": None}
    reset(vector_env, 0)
    assert capture(vector_env) == snapshot
    assert sorted(restore(vector_env, snapshot)) == [0, 1]


def test_arguments_reach_the_environment():
    costs = [
        make("HalfCheetah-v5", env_kwargs={"ctrl_cost_weight": weight, "forward_reward_weight": 0.0})
        for weight in (0, 1)
    ]
    for vector_env in costs:
        reset(vector_env, 0)
    rewards = [vector_env.step(np.ones((2, 6)))[1] for vector_env in costs]
    np.testing.assert_allclose(rewards, [[0, 0], [-6, -6]])


@pytest.mark.parametrize(
    ("id", "settings", "sentence"),
    [
        ("toy_environments:RandomWalk-v1", {}, "EnvPool has no 'RandomWalk-v1' .*: use sync or workers"),
        ("ALE/Pong-v5", {}, "ale-py's own vector environment, not by EnvPool: use native"),
        ("CartPole-v1", {"autoreset": "same_step"}, "reset on the next step"),
        ("CartPole-v1", {"env_kwargs": {"gravitas": 1}}, "EnvPool could not make 'CartPole-v1': .*gravitas"),
        ("CartPole-v1", {"max_episode_steps": 0}, "at least 1, not 0"),
    ],
)
def test_what_envpool_cannot_do_is_refused_with_what_to_do(id, settings, sentence):
    with pytest.raises(RllabError, match=sentence):
        make(id, **settings)


def test_its_environments_cannot_be_drawn():
    with pytest.raises(RllabError, match="cannot be drawn here: use sync"):
        make_vector(EnvConfig("CartPole-v1", 2, "envpool"), render_mode="rgb_array")


def test_actions_of_another_shape_are_refused_before_they_end_the_process():
    vector_env = make()
    with pytest.raises(RllabError, match="must be reset before"):
        vector_env.step(RIGHT)
    reset(vector_env, 0)
    with pytest.raises(RllabError, match=r"actions of shape \[2\], not \[1\]"):
        vector_env.step(np.array([1]))


def test_without_the_package_it_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RllabError, match=r"not installed: pip install envpool\.$"):
        PoolVectorEnv("CartPole-v1", 2)
