import json
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import FrameStackObservation, NormalizeObservation, RecordEpisodeStatistics
from hypothesis import given
from hypothesis import strategies as st

from envs.episode import Episode
from envs.errors import RllabError
from envs.make import EnvConfig, make_single, make_vector, reset
from envs.plain_data import NotPlainError, decode, encode, identical
from envs.snapshot import capture, restore


def save(snapshot, folder):
    """Writes a snapshot as JSON and NPZ, without pickle: fails on anything that is not plain."""
    stored = {}

    def replace(value):
        if isinstance(value, np.ndarray):
            stored[f"array{len(stored)}"] = value
            return {"__array__": f"array{len(stored) - 1}"}
        return {key: replace(item) for key, item in value.items()} if isinstance(value, dict) else value

    folder.joinpath("snapshot.json").write_text(json.dumps(replace(snapshot), allow_nan=False))
    np.savez(folder / "snapshot.npz", **stored)


def load(folder):
    stored = np.load(folder / "snapshot.npz", allow_pickle=False)

    def replace(value):
        if isinstance(value, dict) and "__array__" in value:
            return stored[value["__array__"]]
        return {key: replace(item) for key, item in value.items()} if isinstance(value, dict) else value

    return replace(json.loads(folder.joinpath("snapshot.json").read_text()))


def roll(vector_env, actions):
    """Everything that an agent sees over some steps: observations, rewards, terminations, truncations."""
    steps = [[np.copy(part) for part in vector_env.step(action)[:4]] for action in actions]
    return [np.array(column) for column in zip(*steps, strict=True)]


def assert_same_bits(first, second):
    for left, right in zip(first, second, strict=True):
        assert left.dtype == right.dtype
        assert left.tobytes() == right.tobytes()


def interrupt(config, before, after, folder):
    """Runs, and takes a snapshot on the way; the remaining actions and what followed them."""
    vector_env = make_vector(config)
    reset(vector_env, 3)
    actions = [vector_env.action_space.sample() for _ in range(before + after)]
    steps = roll(vector_env, actions[:before])
    save(capture(vector_env), folder)
    followed = roll(vector_env, actions[before:])
    vector_env.close()
    return steps, actions[before:], followed


def resume(config, actions, folder):
    vector_env = make_vector(config)
    assert restore(vector_env, load(folder)) == {}
    followed = roll(vector_env, actions)
    vector_env.close()
    return followed


def settings(**chosen):
    return {"num_envs": 3, **chosen}


@pytest.mark.parametrize(
    "config",
    [
        EnvConfig("CartPole-v1", **settings()),
        EnvConfig("CartPole-v1", **settings(vectorization="sync", autoreset="next_step")),
        EnvConfig("CartPole-v1", **settings(vectorization="sync", autoreset="same_step")),
        EnvConfig("Acrobot-v1", **settings(max_episode_steps=50)),
        EnvConfig("Pendulum-v1", **settings(max_episode_steps=50)),
        EnvConfig("MountainCar-v0", **settings(max_episode_steps=50)),
        EnvConfig("MountainCarContinuous-v0", **settings(max_episode_steps=50)),
        EnvConfig("FrozenLake-v1", **settings()),
        EnvConfig("HalfCheetah-v5", **settings(max_episode_steps=50)),
        EnvConfig("Hopper-v5", **settings()),
        EnvConfig("Ant-v5", **settings(num_envs=1, max_episode_steps=50)),
        EnvConfig("Humanoid-v5", **settings(num_envs=1)),
        EnvConfig("Reacher-v5", **settings(num_envs=1)),
        EnvConfig("LunarLander-v3", **settings()),
        EnvConfig("LunarLanderContinuous-v3", **settings(env_kwargs={"enable_wind": True})),
        EnvConfig("BipedalWalker-v3", **settings()),
        EnvConfig("BipedalWalkerHardcore-v3", **settings(num_envs=2, max_episode_steps=100)),
        EnvConfig("toy_environments:SelfKeepingWalk-v0", **settings()),
        EnvConfig("toy_environments:ObjectWalk-v0", **settings()),
    ],
    ids=lambda config: f"{config.id}-{config.vectorization}-{config.autoreset}",
)
def test_a_restored_environment_continues_bit_for_bit_after_several_episodes(config, tmp_path):
    (*_, terminated, truncated), actions, followed = interrupt(config, 220, 130, tmp_path)
    assert (terminated | truncated).any(), "no episode has ended before the snapshot"
    assert_same_bits(resume(config, actions, tmp_path), followed)


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
@pytest.mark.parametrize("vectorization", ["native", "sync", "workers"])
def test_a_snapshot_taken_just_as_an_episode_ends_continues_bit_for_bit(vectorization, autoreset, tmp_path):
    if (vectorization, autoreset) == ("native", "same_step"):
        pytest.skip("native environments reset on the next step")
    # Four lengths around a common time limit: the step before the end, the end, the reset, and the one after.
    config = EnvConfig("CartPole-v1", 2, vectorization, autoreset, max_episode_steps=8)
    for before in (7, 8, 9, 10):
        _, actions, followed = interrupt(config, before, 20, tmp_path)
        assert_same_bits(resume(config, actions, tmp_path), followed)


def test_a_snapshot_can_be_restored_into_an_environment_in_use(tmp_path):
    for id in ("CartPole-v1", "BipedalWalker-v3", "HalfCheetah-v5"):
        config = EnvConfig(id, 2, "sync", "next_step", max_episode_steps=30)
        _, actions, followed = interrupt(config, 45, 45, tmp_path)
        used = make_vector(config)
        reset(used, 9)
        roll(used, actions[:30])  # The time limit: both environments are about to reset.
        assert restore(used, load(tmp_path)) == {}
        assert_same_bits(roll(used, actions), followed)


def test_a_restored_run_can_be_interrupted_again(tmp_path):
    config = EnvConfig("LunarLander-v3", 2)
    _, actions, followed = interrupt(config, 150, 100, tmp_path)
    vector_env = make_vector(config)
    restore(vector_env, load(tmp_path))
    roll(vector_env, actions[:10])
    save(capture(vector_env), tmp_path)
    assert_same_bits(resume(config, actions[10:], tmp_path), [column[10:] for column in followed])


@pytest.mark.parametrize("id", ["CartPole-v1", "HalfCheetah-v5", "LunarLander-v3", "BipedalWalker-v3"])
def test_another_process_continues_bit_for_bit(id, tmp_path):
    config = EnvConfig(id, 2)
    _, actions, followed = interrupt(config, 150, 60, tmp_path)
    np.save(tmp_path / "actions.npy", np.array(actions))
    program = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
from pathlib import Path
import numpy as np
from envs.make import EnvConfig
from test_snapshot import resume
folder = Path({str(tmp_path)!r})
np.savez(folder / "followed.npz", *resume(EnvConfig({id!r}, 2), np.load(folder / "actions.npy"), folder))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert_same_bits(np.load(tmp_path / "followed.npz").values(), followed)


def test_bipedal_walker_does_not_depend_on_earlier_episodes():
    def episode(earlier):
        env = make_single(EnvConfig("BipedalWalker-v3"))
        for seed in range(earlier):
            env.reset(seed=seed)
            for _ in range(40):
                env.step(np.ones(4, np.float32))
        first, _ = env.reset(seed=100)
        return [first, *(env.step(np.full(4, 0.3, np.float32))[0] for _ in range(60))]

    np.testing.assert_array_equal(episode(earlier=3), episode(earlier=0))


def test_wrappers_continue_too(tmp_path):
    def make():
        env = make_single(EnvConfig("LunarLander-v3"))
        return Episode(FrameStackObservation(NormalizeObservation(RecordEpisodeStatistics(env)), 3))

    env = make()
    env.action_space.seed(0)
    env.reset(seed=0)
    actions = [env.action_space.sample() for _ in range(300)]

    def play(env, actions):
        seen = []
        for action in actions:
            observation, reward, terminated, truncated, _ = env.step(action)
            seen.append(np.append(np.ravel(observation), reward))
            if terminated or truncated:
                seen.append(np.ravel(env.reset()[0]))
        return seen

    play(env, actions[:200])
    save(env.snapshot(), tmp_path)
    followed = play(env, actions[200:])
    resumed = make()
    assert resumed.restore(load(tmp_path))
    for left, right in zip(play(resumed, actions[200:]), followed, strict=True):
        np.testing.assert_array_equal(left, right)


def test_options_of_the_reset_are_replayed():
    env = make_single(EnvConfig("toy_environments:ObjectWalk-v0"))
    env.reset(seed=1, options={"offset": 2.0})
    snapshot = env.snapshot()
    resumed = make_single(EnvConfig("toy_environments:ObjectWalk-v0"))
    assert resumed.restore(snapshot)
    np.testing.assert_array_equal(resumed.last_observation, env.last_observation)


def test_an_environment_that_cannot_be_replayed_is_reset_and_says_so(tmp_path):
    config = EnvConfig("toy_environments:UnrepeatableWalk-v0", 2)
    interrupt(config, 20, 0, tmp_path)
    vector_env = make_vector(config)
    fresh = restore(vector_env, load(tmp_path))
    assert sorted(fresh) == [0, 1]
    np.testing.assert_array_equal(fresh[1], vector_env.envs[1].last_observation)
    assert [env.elapsed_steps for env in vector_env.envs] == [0, 0]


def test_a_native_environment_of_unknown_state_is_reset_and_says_so():
    vector_env = make_vector(EnvConfig("CartPole-v1", 2))
    reset(vector_env, 0)
    vector_env.engine = object()
    snapshot = capture(vector_env)
    assert snapshot == {"native": None}
    assert sorted(restore(vector_env, snapshot)) == [0, 1]


def test_a_snapshot_of_another_environment_is_refused():
    cart_pole, pendulum = (make_vector(EnvConfig(id, 2, "sync")) for id in ("CartPole-v1", "Pendulum-v1"))
    reset(cart_pole, 0)
    snapshot = capture(cart_pole)
    with pytest.raises(RllabError, match="cannot be restored into"):
        restore(pendulum, snapshot)
    with pytest.raises(RllabError, match="2 environments cannot be restored into 3"):
        restore(make_vector(EnvConfig("CartPole-v1", 3, "sync")), snapshot)
    with pytest.raises(RllabError, match="cannot be exchanged"):
        restore(make_vector(EnvConfig("CartPole-v1", 2, "native")), snapshot)


def test_copying_a_mujoco_environment_would_not_do():
    """Why snapshots exist: what follows a step depends on more than positions and velocities."""
    env = gymnasium.make("Ant-v5")
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(20):
        env.step(env.action_space.sample())
    action, simulation = env.action_space.sample(), env.unwrapped.data
    twin = gymnasium.make("Ant-v5")
    twin.reset(seed=0)
    twin.unwrapped.set_state(simulation.qpos.copy(), simulation.qvel.copy())
    assert env.step(action)[1] != twin.step(action)[1]


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.floats(width=32).map(np.float32)
    | st.lists(st.integers(-5, 5)).map(lambda items: np.array(items, np.int16)),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(plain)
def test_plain_data_comes_back_equal_in_bits_and_types(value):
    encoded = encode(value)
    assert identical(encode(decode(encoded)), encoded)


def test_a_scalar_keeps_its_type():
    position, velocity = decode(encode((np.float32(0.1), 0.1)))
    assert type(position) is np.float32
    assert type(velocity) is float


def test_an_array_under_two_names_is_not_plain():
    array = np.zeros(4)
    with pytest.raises(NotPlainError):
        encode({"whole": array, "part": array[1:]})


@pytest.mark.parametrize("protocol", ["none", "mnih2015"])
def test_an_atari_game_continues_bit_for_bit(protocol, tmp_path):
    pytest.importorskip("ale_py")
    config = EnvConfig("ALE/Breakout-v5", 2, "sync", max_episode_steps=50, protocol=protocol)
    _, actions, followed = interrupt(config, 70, 60, tmp_path)
    assert_same_bits(resume(config, actions, tmp_path), followed)


def test_numpys_text_keeps_its_type(tmp_path):
    save({"text": encode(np.str_("K"))}, tmp_path)
    restored = decode(load(tmp_path)["text"])
    assert restored == "K"
    assert type(restored) is np.str_


def test_every_toy_text_environment_continues_exactly(tmp_path):
    for id in ("Blackjack-v1", "FrozenLake-v1", "CliffWalking-v1", "Taxi-v4"):
        config = EnvConfig(id, num_envs=2, vectorization="sync")
        first, second = make_vector(config), make_vector(config)
        reset(first, 3)
        for step in range(15):
            first.step(np.array([step % 2, 1]))
        save(capture(first), tmp_path)
        reset(second, 4)
        assert restore(second, load(tmp_path)) == {}
        for step in range(15):
            actions = np.array([1, step % 2])
            for one, other in zip(first.step(actions)[:4], second.step(actions)[:4], strict=True):
                np.testing.assert_array_equal(one, other)
        first.close()
        second.close()
