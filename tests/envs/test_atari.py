"""The two protocols by name, what contradicts them, and a single game dressed for them."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from envs.atari import MAX_FRAMES, PROTOCOLS, LivesAsEpisodes, dress, emulator_arguments, frame_limit, protocol_of
from envs.errors import RllabError
from envs.make import EnvConfig
from envs.registry import find_spec

pytest.importorskip("ale_py")
pytest.importorskip("cv2")


def protocol(id: str, name: Any = "auto", **env_kwargs: Any) -> str | None:
    chosen = protocol_of(EnvConfig(id, protocol=name, env_kwargs=env_kwargs), find_spec(id))
    return chosen.name if chosen else None


def test_an_id_says_its_protocol() -> None:
    assert protocol("ALE/Pong-v5") == "machado2018"
    assert protocol("PongNoFrameskip-v4") == "mnih2015"
    assert protocol("Pong-v4") is None
    assert protocol("PongNoFrameskip-v0") is None  # its actions are sticky
    assert protocol("ALE/Pong-v5", obs_type="ram") is None
    assert protocol("CartPole-v1") is None


def test_version_five_can_be_played_by_either_protocol_or_raw() -> None:
    assert protocol("ALE/Pong-v5", "mnih2015") == "mnih2015"
    assert protocol("ALE/Pong-v5", "none") is None


@pytest.mark.parametrize(
    ("id", "name", "sentence"),
    [
        ("PongNoFrameskip-v4", "machado2018", r"'machado2018' contradicts 'PongNoFrameskip-v4'.*'ALE/Pong-v5'"),
        ("MsPacmanNoFrameskip-v4", "machado2018", r"'ALE/MsPacman-v5'"),
        ("Pong-v4", "mnih2015", r"skips frames by a rule of its own"),
        ("CartPole-v1", "mnih2015", r"for Atari's games, which 'CartPole-v1' is not"),
    ],
)
def test_a_protocol_that_contradicts_the_id_is_refused(id: str, name: str, sentence: str) -> None:
    with pytest.raises(RllabError, match=sentence):
        protocol(id, name)


@pytest.mark.parametrize("argument", ["frameskip", "repeat_action_probability", "obs_type"])
def test_an_argument_that_the_protocol_decides_is_refused(argument: str) -> None:
    with pytest.raises(RllabError, match=f"decides '{argument}' itself"):
        protocol("ALE/Pong-v5", "machado2018", **{argument: "rgb"})


def test_games_are_cut_after_half_an_hour_or_a_number_of_actions() -> None:
    assert frame_limit(EnvConfig("ALE/Pong-v5")) == MAX_FRAMES == 108_000
    assert frame_limit(EnvConfig("ALE/Pong-v5", max_episode_steps=100)) == 400


def dressed(id: str, name: str) -> gymnasium.Env[Any, Any]:
    spec = find_spec(id)
    config = EnvConfig(id, protocol=name)  # type: ignore[arg-type]
    raw = gymnasium.make(spec, disable_env_checker=True, **emulator_arguments(config, PROTOCOLS[name]))
    return dress(raw, PROTOCOLS[name])


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_dressed_game_shows_four_small_grey_frames(name: str) -> None:
    env = dressed("ALE/Breakout-v5", name)
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    first, _ = env.reset(seed=0)
    second, *_ = env.step(0)
    assert first[:-1].max() == 0
    assert (second[:-1] == first[1:]).all()
    env.close()


def test_a_lost_life_ends_the_episode_and_the_next_begins_where_the_game_is() -> None:
    env = dressed("BreakoutNoFrameskip-v4", "mnih2015")
    _, info = env.reset(seed=0)
    env.action_space.seed(0)
    assert info["lives"] == 5
    lives, games = 5, 0
    while games < 2:
        observation, _, terminated, truncated, info = env.step(env.action_space.sample())
        assert not truncated
        assert terminated == (info["lives"] < lives)
        assert info["episode_over"] == (info["lives"] == 0)
        if terminated:
            games += info["episode_over"]
            again, after = env.reset()
            assert after["lives"] == (info["lives"] or 5)
            assert (again == observation).all() != info["episode_over"]
        lives = after["lives"] if terminated else info["lives"]
    env.close()


def test_a_reset_with_a_seed_begins_a_new_game_even_after_a_lost_life() -> None:
    env = dressed("BreakoutNoFrameskip-v4", "mnih2015")
    assert isinstance(env, LivesAsEpisodes)
    env.reset(seed=0)
    env.action_space.seed(0)
    while not env.step(env.action_space.sample())[2]:
        pass
    assert env.reset(seed=0)[1]["lives"] == 5
    env.close()
