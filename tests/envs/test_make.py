import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from envs import registry
from envs.atari_vector import AtariVector
from envs.episode import Episode
from envs.errors import RllabError
from envs.make import (
    EnvConfig,
    autoreset_mode,
    checks_bounds,
    clips_rewards,
    list_environments,
    make_single,
    make_vector,
    reset,
)
from envs.serial import SerialVectorEnv
from envs.workers import WorkerVectorEnv


def make(id, **settings):
    return make_vector(EnvConfig(id, **{"num_envs": 2, **settings}))


def test_auto_takes_the_native_vector_environment_where_there_is_one():
    assert type(make("CartPole-v1")).__name__ == "CartPoleVectorEnv"
    assert isinstance(make("Pendulum-v1"), SerialVectorEnv)


@pytest.mark.parametrize("vectorization", ["sync", "workers"])
@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_both_autoreset_modes_can_be_forced(vectorization, autoreset):
    env = make("CartPole-v1", vectorization=vectorization, autoreset=autoreset)
    assert isinstance(env, SerialVectorEnv if vectorization == "sync" else WorkerVectorEnv)
    assert autoreset_mode(env) is AutoresetMode[autoreset.upper()]
    reset(env, 0)
    for _ in range(60):
        *_, terminated, _, infos = env.step(np.array([0, 0]))
        if terminated.any():
            break
    assert ("final_obs" in infos) == (autoreset == "same_step")
    env.close()


def test_autoreset_is_same_step_where_the_environment_allows_it():
    assert autoreset_mode(make("CartPole-v1")) is AutoresetMode.NEXT_STEP
    assert autoreset_mode(make("Pendulum-v1")) is AutoresetMode.SAME_STEP


@pytest.mark.parametrize("id", ["ALE/Pong-v5", "PongNoFrameskip-v4"])
def test_auto_plays_atari_in_ale_pys_vector_environment_by_the_ids_protocol(id):
    env = make(id)
    assert isinstance(env, AtariVector)
    assert env.single_observation_space.shape == (4, 84, 84)


@pytest.mark.parametrize(
    ("obstacle", "config"),
    [
        ("no argument 'mode'", {"env_kwargs": {"mode": 0}}),
        ("in the step that ends one", {"autoreset": "next_step"}),
        ("needs a protocol", {"protocol": "none"}),
    ],
)
def test_what_ale_pys_vector_environment_cannot_do_is_done_one_by_one(obstacle, config):
    env = make("ALE/Pong-v5", num_envs=1, **config)
    assert isinstance(env, SerialVectorEnv)
    assert ("frame_stack" in env.metadata) == ("protocol" not in config)
    with pytest.raises(RllabError, match=obstacle):
        make("ALE/Pong-v5", num_envs=1, vectorization="native", **config)


def test_a_game_whose_end_the_vector_environment_does_not_tell_is_played_one_by_one():
    assert isinstance(make("ALE/Adventure-v5", num_envs=1, protocol="mnih2015"), SerialVectorEnv)
    assert isinstance(make("ALE/Adventure-v5", num_envs=1, protocol="machado2018"), AtariVector)


def test_rewards_are_clipped_as_the_protocol_has_it_unless_told_otherwise():
    assert clips_rewards(EnvConfig("ALE/Pong-v5"))
    assert not clips_rewards(EnvConfig("ALE/Pong-v5", clip_rewards=False))
    assert not clips_rewards(EnvConfig("ALE/Pong-v5", protocol="none"))
    assert not clips_rewards(EnvConfig("CartPole-v1"))
    assert clips_rewards(EnvConfig("CartPole-v1", clip_rewards=True))


def test_bounds_are_checked_but_where_they_are_known_to_be_left():
    assert checks_bounds(EnvConfig("CartPole-v1"))
    assert not checks_bounds(EnvConfig("CartPole-v1", check_bounds=False))
    assert not checks_bounds(EnvConfig("LunarLander-v3"))


def test_same_step_autoreset_makes_auto_leave_the_native_environment():
    assert isinstance(make("CartPole-v1", autoreset="same_step"), SerialVectorEnv)


def test_same_step_autoreset_of_a_native_environment_is_refused():
    with pytest.raises(RllabError, match="reset on the next step"):
        make("CartPole-v1", vectorization="native", autoreset="same_step")


def test_native_vectorization_without_a_native_environment_is_refused():
    with pytest.raises(RllabError, match="no native vector environment"):
        make("Pendulum-v1", vectorization="native")


@pytest.mark.parametrize("vectorization", ["native", "sync"])
def test_max_episode_steps_truncates(vectorization):
    env = make("CartPole-v1", vectorization=vectorization, max_episode_steps=3)
    reset(env, 0)
    truncations = [env.step(np.array([0, 1]))[3].all() for _ in range(3)]
    assert truncations == [False, False, True]


def test_every_single_environment_is_an_episode_around_the_bare_one():
    env = make("CartPole-v1", vectorization="sync")
    assert all(isinstance(single, Episode) and single.env is single.unwrapped for single in env.envs)


@pytest.mark.parametrize("vectorization", ["native", "sync", "workers"])
def test_a_seed_settles_environments_and_spaces(vectorization):
    def episode():
        env = make("CartPole-v1", vectorization=vectorization)
        observations, _ = reset(env, 7)
        actions = [env.action_space.sample() for _ in range(30)]
        trajectory = [observations, *(env.step(action)[0].copy() for action in actions)]
        env.close()
        return np.array(actions), np.array(trajectory)

    for first, second in zip(episode(), episode(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_neighbouring_seeds_share_no_environment():
    env = make("CartPole-v1", vectorization="sync", num_envs=4)
    starts = np.concatenate([reset(env, seed)[0] for seed in range(4)])
    assert len(np.unique(starts, axis=0)) == 16


def test_env_kwargs_reach_the_environment():
    for vectorization in ("native", "sync"):
        env = make("CartPole-v1", vectorization=vectorization, env_kwargs={"sutton_barto_reward": True})
        reset(env, 0)
        np.testing.assert_array_equal(env.step(np.array([0, 0]))[1], [0, 0])


def test_an_id_may_name_the_module_that_registers_it():
    assert make_single(EnvConfig("toy_environments:RandomWalk-v1")).spec.id == "RandomWalk-v1"


def test_an_id_without_version_means_the_newest():
    assert make_single(EnvConfig("Hopper")).spec.id == "Hopper-v5"


def test_making_environments_prints_and_warns_nothing(recwarn, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for id in ("HalfCheetah-v4", "CartPole-v0", "LunarLander-v3", "ALE/Pong-v5"):
        make_single(EnvConfig(id)).close()
    assert not [warning for warning in recwarn if not issubclass(warning.category, DeprecationWarning)]
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("id", "sentence"),
    [
        ("CartPole-v9", "newest version is 'CartPole-v1'"),
        ("HalfCheetah-v3", "newest version is 'HalfCheetah-v5'"),
        ("LunarLander-v2", "newest version is 'LunarLander-v3'"),
        ("cartpole", "Did you mean CartPole-v1"),
        ("Half-Cheetah-v5", "Did you mean HalfCheetah-v5"),
        ("Breakout-v5", "Did you mean ALE/Breakout-v5"),
        ("ALE/Pnog-v5", "Did you mean ALE/Pong-v5"),
        ("zzzz", "rllab envs"),
        ("no_such_module:Env-v0", "Cannot import 'no_such_module'"),
    ],
)
def test_an_unknown_id_is_answered_with_what_to_do(id, sentence):
    with pytest.raises(RllabError, match=sentence):
        make_single(EnvConfig(id))


@pytest.mark.parametrize(
    ("id", "module", "remedy"),
    [
        ("LunarLander-v3", "gymnasium.envs.box2d", "rllab[box2d]"),
        ("Hopper-v5", "gymnasium.envs.mujoco", "rllab[mujoco]"),
    ],
)
def test_a_missing_package_is_answered_with_the_extra_that_installs_it(monkeypatch, id, module, remedy):
    family = registry._FAMILY_OF_MODULE[module]
    missing = registry.Family(family.name, "a_package_that_is_not_there", family.extra)
    monkeypatch.setitem(registry._FAMILY_OF_MODULE, module, missing)

    def fail(*arguments, **settings):
        raise gymnasium.error.DependencyNotInstalled("not installed")

    monkeypatch.setattr("gymnasium.make", fail)
    with pytest.raises(RllabError) as caught:
        make_single(EnvConfig(id))
    assert f"pip install '{remedy}'" in str(caught.value)
    listed = {environment.id: environment for environment in list_environments()}
    assert not listed[id].installed


def test_atari_without_its_package_is_answered_with_the_extra(monkeypatch):
    monkeypatch.delitem(gymnasium.registry, "ALE/Pong-v5", raising=False)

    def fail(name):
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(RllabError) as caught:
        make_single(EnvConfig("ALE/Pong-v5"))
    assert "pip install 'rllab[atari]'" in str(caught.value)


@pytest.mark.parametrize("vectorization", ["native", "sync", "workers"])
def test_unknown_arguments_are_answered_with_the_known_ones(vectorization):
    with pytest.raises(RllabError, match=r"no argument 'gravitas'; it takes sutton_barto_reward\."):
        make("CartPole-v1", vectorization=vectorization, env_kwargs={"gravitas": 1})


def test_a_refused_argument_is_told_in_the_environments_words():
    with pytest.raises(RllabError, match=r"\{'gravity': 3\}: gravity .* must be between -12 and 0\."):
        make("LunarLander-v3", env_kwargs={"gravity": 3})


@pytest.mark.parametrize("settings", [{"num_envs": 0}, {"max_episode_steps": 0}])
def test_numbers_below_one_are_refused(settings):
    with pytest.raises(RllabError, match="at least 1, not 0"):
        make("CartPole-v1", **settings)


def test_the_list_names_each_environment_once_in_its_newest_version():
    listed = {environment.id: environment for environment in list_environments()}
    assert len(listed) == len(list_environments())
    assert listed["CartPole-v1"] == registry.EnvironmentInfo("CartPole-v1", "classic control", True, None, True)
    assert listed["HalfCheetah-v5"].extra == "mujoco"
    assert listed["ALE/Pong-v5"].family == "Atari"
    assert not {"CartPole-v0", "HalfCheetah-v4", "GymV21Environment-v0"} & listed.keys()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("id", ["RandomWalk-v1", "ObjectWalk-v0", "SelfKeepingWalk-v0"])
def test_a_single_environment_passes_gymnasiums_own_check(id):
    check_env(make_single(EnvConfig(f"toy_environments:{id}")), skip_render_check=True)
