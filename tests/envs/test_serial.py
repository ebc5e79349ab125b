from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from toy_environments import Faulty, Frugal, Spaces

from envs.episode import Episode
from envs.errors import RllabError
from envs.make import EnvConfig, list_environments, make_vector, reset
from envs.rows import describe_row
from envs.serial import SerialVectorEnv
from envs.snapshot import capture, restore

MODES = {"same_step": AutoresetMode.SAME_STEP, "next_step": AutoresetMode.NEXT_STEP}
NUMBERS = spaces.Box(-1, 1, (3,), np.float32)
SPACES = {
    "scalar": spaces.Box(-1, 1, (), np.float32),
    "double precision": spaces.Box(-1, 1, (2, 2), np.float64),
    "bytes": spaces.Box(0, 255, (4, 4, 1), np.uint8),
    "discrete": spaces.Discrete(4, start=-2),
    "multi-discrete": spaces.MultiDiscrete([[3, 2], [2, 5]]),
    "multi-binary": spaces.MultiBinary((2, 2)),
    "nested": spaces.Dict(a=NUMBERS, b=spaces.Tuple([spaces.Discrete(3), spaces.Dict(c=spaces.MultiBinary(2), d=NUMBERS)])),
}  # fmt: skip


def leaves(tree):
    if isinstance(tree, dict):
        return [leaf for part in tree.values() for leaf in leaves(part)]
    if isinstance(tree, tuple):
        return [leaf for part in tree for leaf in leaves(part)]
    return [np.array(tree)]


def play(vector_env, steps):
    """All that is observed over some steps, copied: leaves of observations, the rest, and what the infos have of it."""
    vector_env.action_space.seed(5)
    observations, infos = vector_env.reset(seed=list(range(vector_env.num_envs)))
    seen = [leaves(observations) + masks(infos)]
    for _ in range(steps):
        observations, *rest, infos = vector_env.step(vector_env.action_space.sample())
        seen.append(leaves(observations) + leaves(tuple(rest)) + finals(infos) + masks(infos))
    return seen


def finals(infos):
    return [leaf for final in infos.get("final_obs", ()) if final is not None for leaf in leaves(final)] + [
        np.array(infos.get("_final_obs", 0))
    ]


def masks(infos):
    return [np.array(mask) for mask in infos.get("action_mask", ()) if mask is not None] + [
        np.array(infos.get("_action_mask", 0))
    ]


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        for left, right in zip(one, other, strict=True):
            assert (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "id", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "Blackjack-v1", "Taxi-v4", "HalfCheetah-v5", "LunarLander-v3"]
)
def test_trajectories_equal_those_of_gymnasiums_own_vector_environment(id, mode):
    ours = make_vector(EnvConfig(id, 3, "sync", mode, max_episode_steps=9))
    theirs = SyncVectorEnv(
        [lambda: gymnasium.make(id, max_episode_steps=9, disable_env_checker=True)] * 3, autoreset_mode=MODES[mode]
    )
    assert_same(play(ours, 60), play(theirs, 60))
    assert ours.metadata["autoreset_mode"] is MODES[mode]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", SPACES)
def test_every_space_that_arrays_hold_is_batched_as_gymnasium_does_it(kind, mode):
    constructors = [partial(Spaces, SPACES[kind], SPACES[kind])] * 3
    ours = SerialVectorEnv(constructors, MODES[mode])
    theirs = SyncVectorEnv(constructors, autoreset_mode=MODES[mode])
    assert_same(play(ours, 13), play(theirs, 13))


def test_what_a_step_returns_outlives_one_more_step():
    vector_env = make_vector(EnvConfig("Pendulum-v1", 2))
    reset(vector_env, 0)
    actions = np.ones((2, 1), np.float32)
    returned = vector_env.step(actions)[:4]
    copies = [part.copy() for part in returned]
    vector_env.step(-actions)
    for part, copied in zip(returned, copies, strict=True):
        np.testing.assert_array_equal(part, copied)


def test_a_final_observation_is_the_episodes_own_even_if_the_environment_reuses_its_array():
    vector_env = SerialVectorEnv([Frugal])
    vector_env.reset(seed=0)
    for _ in range(3):
        observations, *_, infos = vector_env.step(np.zeros((1, 1), np.float32))
    np.testing.assert_array_equal(infos["final_obs"][0], [3.0])
    np.testing.assert_array_equal(observations, [[0.0]])


def test_an_environment_may_keep_its_action_while_the_caller_writes_the_next():
    vector_env = SerialVectorEnv([Frugal])
    vector_env.reset(seed=0)
    actions = np.array([[0.25]], np.float32)
    assert vector_env.step(actions)[1] == 0.25
    actions[:] = 0.75
    assert vector_env.step(actions)[1] == 0.5


def test_plain_numbers_and_lists_are_converted():
    class Plain(Spaces):
        def step(self, action):
            return {"numbers": [0, 1.5], "choice": 1, "bits": (True, False)}, 1, False, False, {}

    space = spaces.Dict(
        numbers=spaces.Box(-9, 9, (2,), np.float32), choice=spaces.Discrete(2), bits=spaces.MultiBinary(2)
    )
    vector_env = SerialVectorEnv([partial(Plain, space, spaces.Discrete(2))])
    vector_env.reset(seed=0)
    observations, rewards, *_ = vector_env.step(np.array([0]))
    np.testing.assert_array_equal(observations["numbers"], [[0, 1.5]])
    assert (observations["choice"][0], rewards[0]) == (1, 1.0)
    np.testing.assert_array_equal(observations["bits"], [[1, 0]])


def test_a_time_limit_stays_inside_of_the_wrappers_that_a_registration_adds():
    vector_env = make_vector(EnvConfig("toy_environments:Skipping-v0", 1, env_kwargs={"noise": 0.0}))
    reset(vector_env, 0)
    truncations = [bool(vector_env.step(np.array([step % 2]))[3][0]) for step in range(2)]
    assert truncations == [False, True]  # four steps of two skipped ones


@pytest.mark.parametrize("kind", ["classic control", "toy text", "Box2D", "MuJoCo"])
def test_gymnasiums_own_environments_return_what_they_may(kind):
    for environment in list_environments():
        if environment.family == kind and environment.installed:
            vector_env = make_vector(EnvConfig(environment.id, 1, "sync", max_episode_steps=3))
            reset(vector_env, 0)
            for _ in range(4):
                vector_env.step(vector_env.action_space.sample())
            vector_env.close()


FAULTS = {
    "raise": "failed at step 7: ValueError: a hinge broke.",
    "shape": "returned an observation of shape [3] and dtype float32 where shape [2] and dtype float32 are expected",
    "dtype": "returned an observation of shape [2] and dtype float64 where shape [2] and dtype float32 are expected",
    "list": "returned an observation of shape [2] and dtype <U32 where shape [2] and dtype float32 are expected",
    "reward": "returned the reward NoneType None where a number is expected",
    "rewards": "returned the reward ndarray array([1.]) where a number is expected",
    "terminated": "returned terminated = int 1 where a boolean is expected",
    "truncated": "returned truncated = NoneType None where a boolean is expected",
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_of_an_environment_is_told_in_one_sentence_that_names_it(what):
    vector_env = SerialVectorEnv([partial(Faulty, what, 7, only_seed=11)] * 3)
    vector_env.reset(seed=[10, 11, 12])
    for _ in range(6):
        vector_env.step(np.zeros(3, int))
    with pytest.raises(RllabError) as caught:
        vector_env.step(np.zeros(3, int))
    sentence = str(caught.value)
    assert sentence.startswith(f"environment 1 (seed 11) {FAULTS[what]}")
    assert "step 7" in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_a_fault_at_a_reset_is_told_too():
    vector_env = SerialVectorEnv([partial(Faulty, "raise", 0)] * 2)
    with pytest.raises(
        RllabError, match=r"^environment 0 \(seed 4\) failed at its reset after step 0: ValueError: a hi"
    ):
        vector_env.reset(seed=4)


@pytest.mark.parametrize(
    ("space", "value", "sentence"),
    [
        (spaces.Dict(a=NUMBERS), {"b": 0}, r"an observation with keys \['b'\] where keys \['a'\] are expected"),
        (spaces.Dict(a=NUMBERS), 0, r"an observation with int 0 where keys \['a'\] are expected"),
        (spaces.Tuple([NUMBERS]), (0, 1), "an observation with 2 parts where 1 parts are expected"),
        (spaces.Dict(a=spaces.Tuple([NUMBERS])), {"a": (0.0,)}, r"an observation\['a'\]\[0\] of shape \[\]"),
        (spaces.Discrete(3), 0.5, "of shape .* and dtype float64 where shape .* and dtype int64 are expected"),
        (spaces.Box(0, 255, (1,), np.uint8), [300], "that is no array of uint8: list .300."),
        (NUMBERS, [[1], [1, 2]], "that is no array of float32: list"),
    ],
)
def test_observations_of_another_form_than_their_space_are_refused(space, value, sentence):
    class Other(Spaces):
        def step(self, action):
            return value, 0.0, False, False, {}

    vector_env = SerialVectorEnv([partial(Other, space, spaces.Discrete(2))])
    vector_env.reset(seed=0)
    with pytest.raises(RllabError, match=f"^environment 0 \\(seed 0\\) returned .*{sentence}"):
        vector_env.step(np.array([0]))


def test_actions_of_another_shape_are_refused():
    vector_env = make_vector(EnvConfig("Pendulum-v1", 2))
    reset(vector_env, 0)
    with pytest.raises(RllabError, match=r"actions of shape \[2, 1\], not \[1\]"):
        vector_env.step(np.zeros(1, np.float32))


def test_environments_of_different_spaces_are_refused():
    with pytest.raises(RllabError, match="have different spaces"):
        SerialVectorEnv([Faulty, Frugal])


def test_a_row_is_described_with_its_seed_also_after_a_restore():
    vector_env, resumed = (make_vector(EnvConfig("Pendulum-v1", 2)) for _ in range(2))
    assert describe_row(vector_env, 1) == "environment 1"
    vector_env.reset(seed=[7, 8])
    restore(resumed, capture(vector_env))
    assert describe_row(vector_env, 1) == describe_row(resumed, 1) == "environment 1 (seed 8)"
    assert describe_row(make_vector(EnvConfig("CartPole-v1", 2, "native")), 1) == "environment 1"


def test_an_episode_is_cut_after_its_most_steps():
    episode = Episode(Faulty(), max_episode_steps=2)
    for _ in range(2):
        episode.reset(seed=0)
        assert [episode.step(0)[2:4] for _ in range(2)] == [(False, False), (False, True)]
