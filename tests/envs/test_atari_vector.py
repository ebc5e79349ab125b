"""ale-py's vector environment under both protocols: lives, scores, cuts, and snapshots that come back exactly."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import envs.atari_vector
from envs.atari import MAX_FRAMES, PROTOCOLS, dress, emulator_arguments
from envs.errors import RllabError
from envs.make import EnvConfig, make_vector, reset
from envs.registry import find_spec

pytest.importorskip("ale_py")
MNIH, MACHADO = PROTOCOLS["mnih2015"], PROTOCOLS["machado2018"]


def make(game: str, protocol: Any, num_envs: int = 2, max_frames: int = MAX_FRAMES) -> envs.atari_vector.AtariVector:
    find_spec("ALE/Pong-v5")  # keeps the emulator quiet
    return envs.atari_vector.AtariVector(game, num_envs, protocol, max_frames=max_frames, threads=1)


def actions_for(env: envs.atari_vector.AtariVector, steps: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(env.single_action_space.n, size=(steps, env.num_envs))


def test_a_lost_life_is_terminal_for_the_agent_while_the_game_goes_on() -> None:
    env = make("breakout", MNIH)
    before, infos = env.reset(seed=0)
    lives = infos["lives"]
    assert lives.tolist() == [5, 5]
    lost = over = 0
    for actions in actions_for(env, 400):
        observations, _, terminated, truncated, infos = env.step(actions)
        assert not truncated.any()
        for row in range(2):
            if infos["episode_over"][row]:
                assert terminated[row]
                assert observations[row, :-1].max() == 0  # the next game's first frame alone
                assert (infos["final_obs"][row][:-1] == before[row, 1:]).all()
                over += 1
            else:
                assert terminated[row] == (infos["lives"][row] < lives[row])
                assert (observations[row, :-1] == before[row, 1:]).all()  # a lost life breaks nothing
                lost += int(terminated[row])
        lives = np.where(infos["episode_over"], 5, infos["lives"])
        before = observations.copy()
    assert lost > 4
    assert over > 1


def test_machados_protocol_knows_no_lives() -> None:
    env = make("breakout", MACHADO)
    env.reset(seed=0)
    ends = []
    for actions in actions_for(env, 400):
        _, _, terminated, _, infos = env.step(actions)
        assert (terminated == infos["episode_over"]).all()
        ends += infos["lives"][terminated].tolist()
    assert ends
    assert not any(ends)


def test_scores_are_the_games_own_and_not_clipped() -> None:
    env = make("space_invaders", MNIH)
    env.reset(seed=0)
    rewards = np.concatenate([env.step(actions)[1] for actions in actions_for(env, 300)])
    assert rewards.max() >= 5
    assert rewards.dtype == np.float64


@pytest.mark.parametrize("protocol", [MNIH, MACHADO], ids=lambda protocol: protocol.name)
def test_sticky_actions_make_the_difference_between_equal_actions(protocol: Any) -> None:
    """Without no-ops games differ only by what the emulator makes of their actions."""
    env = make("breakout", replace(protocol, most_noops=0), num_envs=3)
    env.reset(seed=0)
    same = True
    for actions in actions_for(env, 60)[:, :1].repeat(3, axis=1):
        observations, *_ = env.step(actions)
        same = same and bool((observations == observations[:1]).all())
    assert same == (protocol.sticky == 0)


def test_a_game_that_is_cut_is_truncated_and_its_final_observation_kept() -> None:
    env = make("pong", MACHADO, max_frames=80)
    env.reset(seed=0)
    for step, actions in enumerate(actions_for(env, 40), start=1):
        observations, _, terminated, truncated, infos = env.step(actions)
        assert not terminated.any()
        assert truncated.tolist() == [step % 20 == 0] * 2
        assert ("final_obs" in infos) == (step % 20 == 0)
        if step % 20 == 0:
            assert all(infos["final_obs"][row][:-1].max() > 0 for row in range(2))
            assert observations[:, :-1].max() == 0


@pytest.mark.parametrize("vectorization", ["native", "sync"])
def test_a_life_lost_on_the_step_that_cuts_the_game_ends_the_game(vectorization: Any) -> None:
    """ale-py calls that step terminated and not truncated, and begins a new game in the next."""
    if vectorization == "sync":
        pytest.importorskip("cv2")
    chosen = np.random.default_rng(0).integers(4, size=(150, 1))

    def play(**limit: Any) -> tuple[list[Any], Any]:
        config = EnvConfig("BreakoutNoFrameskip-v4", num_envs=1, vectorization=vectorization, **limit)
        env = make_vector(config)
        reset(env, 0)
        return [(*map(np.copy, out[:4]), out[4]) for out in map(env.step, chosen)], env

    uncut, _ = play()
    lost = next(step for step, out in enumerate(uncut, start=1) if out[2][0])
    cut, _ = play(max_episode_steps=lost)
    observations, _, _, _, infos = cut[lost - 1]
    assert infos["episode_over"][0]
    assert observations[0, :-1].max() == 0  # the next game's first frame
    assert (cut[lost][0][0, :-1] == observations[0, 1:]).all()


def test_games_are_cut_after_as_many_actions_one_by_one_as_natively() -> None:
    pytest.importorskip("cv2")
    for vectorization in ("native", "sync"):
        env = make_vector(
            EnvConfig("BreakoutNoFrameskip-v4", num_envs=1, vectorization=vectorization, max_episode_steps=10)  # type: ignore[arg-type]
        )
        reset(env, 0)
        ends = [step for step in range(1, 41) if env.step(np.array([0]))[3][0]]
        assert ends == [10, 20, 30, 40]


def test_the_same_seed_gives_the_same_games_and_another_seed_others() -> None:
    runs = []
    for seed in (1, 1, 2):
        env = make("space_invaders", MNIH)
        env.reset(seed=seed)
        runs.append(np.array([env.step(actions)[0][:, -1].sum((1, 2)) for actions in actions_for(env, 100)]))
    assert (runs[0] == runs[1]).all()
    assert (runs[0] != runs[2]).any()
    assert (runs[0][:, 0] != runs[0][:, 1]).any(), "the games of one run differ too"


@pytest.mark.parametrize("protocol", [MNIH, MACHADO], ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("when", [0, 1, 290])
def test_a_snapshot_goes_on_as_the_games_would_have(protocol: Any, when: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envs.atari_vector, "RELOAD_AFTER", 120)  # loads anew on the way, and begins games without
    env = make("breakout", protocol)
    env.reset(seed=3)
    actions = actions_for(env, when + 150)
    for chosen in actions[:when]:
        env.step(chosen)
    snapshot = env.get_snapshot()
    again = make("breakout", protocol)
    assert again.set_snapshot(snapshot) == {}
    for chosen in actions[when:]:
        expected, got = env.step(chosen), again.step(chosen)
        for mine, other in zip(expected[:4], got[:4], strict=True):
            assert (mine == other).all()
    checks = (env.get_snapshot(), again.get_snapshot())
    assert checks[0]["generators"] == checks[1]["generators"]
    assert (checks[0]["seeds"] == checks[1]["seeds"]).all()


def test_a_snapshot_that_does_not_lead_back_says_which_games_began_anew() -> None:
    env = make("breakout", MNIH)
    env.reset(seed=3)
    for actions in actions_for(env, 30):
        env.step(actions)
    snapshot = env.get_snapshot()
    snapshot["checks"][1] ^= 1
    again = make("breakout", MNIH)
    anew = again.set_snapshot(snapshot)
    assert list(anew) == [1]
    assert anew[1][:-1].max() == 0


def test_the_vectors_frames_are_those_of_gymnasiums_wrappers() -> None:
    """Two implementations of one protocol: from equal starts equal actions give equal pixels."""
    pytest.importorskip("cv2")
    import gymnasium

    protocol = replace(MNIH, most_noops=0)
    env = make("breakout", protocol, num_envs=1)
    config = EnvConfig("BreakoutNoFrameskip-v4")
    single = dress(gymnasium.make(find_spec(config.id), **emulator_arguments(config, protocol)), protocol)
    observations, _ = env.reset(seed=0)
    observation, _ = single.reset(seed=0)
    for chosen in actions_for(env, 250)[:, 0]:
        assert np.abs(observations[0].astype(int) - observation).max() <= 1  # one grey level of rounding
        observations, rewards, terminated, _, infos = env.step(np.array([chosen]))
        observation, reward, ended, _, info = single.step(int(chosen))
        assert (rewards[0], terminated[0], infos["lives"][0]) == (reward, ended, info["lives"])
        if ended:
            assert infos["episode_over"][0] == info["episode_over"]
            observation, _ = single.reset()
            if info["episode_over"]:
                break
    single.close()


def test_a_rom_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(RllabError, match="no ROM 'pongg'"):
        make("pongg", MNIH)
