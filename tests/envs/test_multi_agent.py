"""PettingZoo's games as rows: who acts, what each receives and when its game ends, masks, seeds, snapshots, sentences."""

import importlib.util
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pettingzoo")

from envs.errors import RllabError
from envs.make import EnvConfig, list_environments, make_single, make_vector, reset
from envs.render import record_episode
from envs.snapshot import capture, restore

TIC_TAC_TOE = "pettingzoo:classic/tictactoe_v3"
X_WINS = [0, 3, 1, 4, 2]
"""Moves in turns: three in the first column (its cells are numbered downwards)."""


def made(id: str, copies: int = 1, seed: int | None = 0, **settings: Any) -> Any:
    env = make_vector(EnvConfig(id, copies, **settings))
    reset(env, seed)
    return env


def legal(env: Any, observations: Any, infos: Any, generator: np.random.Generator) -> Any:
    """A random legal action for each row."""
    masks = observations["action_mask"] if isinstance(observations, dict) else np.ones((env.num_envs, 3))
    return np.array([generator.choice(np.flatnonzero(mask)) if mask.any() else 0 for mask in masks])


def test_each_player_of_each_copy_is_a_row_and_acts_in_its_turn() -> None:
    env = make_vector(EnvConfig(TIC_TAC_TOE, 3))
    observations, infos = reset(env, 0)
    assert env.num_envs == 6
    assert env.single_action_space.n == 9
    assert observations["observation"].shape == (6, 3, 3, 2)
    np.testing.assert_array_equal(infos["acting"], [True, False] * 3)
    _, _, _, _, infos = env.step(np.zeros(6, int))
    np.testing.assert_array_equal(infos["acting"], [False, True] * 3)


def test_a_game_that_x_wins_ends_for_both_players_at_once_with_1_and_minus_1() -> None:
    env = made(TIC_TAC_TOE)
    for move in X_WINS[:-1]:
        _, rewards, terminated, truncated, infos = env.step(np.array([move, move]))
        assert not rewards.any()
        assert not (terminated | truncated).any()
        assert "final_obs" not in infos
    observations, rewards, terminated, truncated, infos = env.step(np.array([X_WINS[-1]] * 2))
    np.testing.assert_array_equal(rewards, [1, -1])
    assert terminated.all()
    assert not truncated.any()
    np.testing.assert_array_equal(infos["acting"], [True, False])
    assert not observations["observation"].any()  # the next game's
    own = np.array([[1, 1, 1], [0, 0, 0], [0, 0, 0]])
    others = np.array([[0, 0, 0], [1, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(infos["final_obs"][0]["observation"], np.stack([own, others], -1))
    np.testing.assert_array_equal(infos["final_obs"][1]["observation"], np.stack([others, own], -1))


def test_on_the_next_step_nobody_acts_after_a_game_and_then_the_next_one_begins() -> None:
    env = made(TIC_TAC_TOE, autoreset="next_step")
    for move in X_WINS:
        observations, *_, infos = env.step(np.array([move, move]))
    assert not infos["acting"].any()
    assert observations["observation"][0].sum() == 5
    observations, rewards, terminated, _, infos = env.step(np.array([0, 0]))
    assert not rewards.any()
    assert not terminated.any()
    assert not observations["observation"].any()
    np.testing.assert_array_equal(infos["acting"], [True, False])


def test_players_that_are_out_wait_until_the_game_is_over_for_all() -> None:
    env = made("pettingzoo:toy_games:Attrition")  # they last 1, 3 and 2 steps
    np.testing.assert_array_equal(env.unwrapped.acting, [True] * 3)
    steps = [env.step(np.array([5, 6, 7])) for _ in range(4)]
    np.testing.assert_array_equal([step[1] for step in steps], [[6, 8, 10], [0, 8, 10], [0, 8, 0], [6, 8, 10]])
    ends = [[True, False, False], [False, False, True], [False] * 3, [True, False, False]]
    np.testing.assert_array_equal([step[2] for step in steps], ends)
    np.testing.assert_array_equal([step[3] for step in steps], [[False] * 3] * 2 + [[False, True, False], [False] * 3])
    acting = [[False, True, True], [False, True, False], [True] * 3, [False, True, True]]
    np.testing.assert_array_equal([step[4]["acting"] for step in steps], acting)
    np.testing.assert_array_equal(steps[1][0], [[0, 1], [1, 2], [2, 2]])  # who waits sees what it saw last
    np.testing.assert_array_equal(steps[2][0], [[0, 0], [1, 0], [2, 0]])
    np.testing.assert_array_equal(steps[2][4]["final_obs"][1], [1, 3])


def test_a_player_receives_at_its_turn_what_the_others_moves_brought_it() -> None:
    env = made("pettingzoo:toy_games:Alternating")
    rewards = [env.step(np.zeros(2, int))[1] for _ in range(3)]
    # The first pays 1 and gets 10 for the answer, pays 1 for the last move; the second gets 10 before its first turn.
    np.testing.assert_array_equal(rewards, [[0, 10], [9, 0], [-1, 9]])


def test_a_time_limit_truncates_all_players_with_what_each_sees_and_has_received() -> None:
    env = made("pettingzoo:toy_games:Alternating", max_episode_steps=2, env_kwargs={"length": 9})
    env.step(np.zeros(2, int))
    _, rewards, terminated, truncated, infos = env.step(np.zeros(2, int))
    np.testing.assert_array_equal(rewards, [9, -1])
    assert truncated.all()
    assert not terminated.any()
    np.testing.assert_array_equal(np.stack(list(infos["final_obs"])), [[2], [2]])
    assert env.step(np.zeros(2, int))[0][1] == 1  # what the second sees of a new game's first move


def test_against_random_players_the_learner_takes_the_next_seat_in_every_game() -> None:
    env = make_vector(EnvConfig(TIC_TAC_TOE, 1, opponent="random"))
    observations, infos = reset(env, 0)
    assert env.num_envs == 1
    generator, stones, games = np.random.default_rng(0), [observations["observation"].sum()], 0
    while games < 60:
        assert infos["acting"].all()
        observations, rewards, terminated, truncated, infos = env.step(legal(env, observations, infos, generator))
        assert not truncated.any()  # which is how an illegal move would end the game
        if terminated[0]:
            games += 1
            stones.append(observations["observation"].sum())
            assert rewards[0] in (-1, 0, 1)
        else:
            assert rewards[0] == 0
    assert stones == [0, 1] * 30 + [0]


def test_the_seats_of_a_simultaneous_game_change_too() -> None:
    env = made("pettingzoo:toy_games:Attrition", opponent="random")
    lengths, players, count = [], [], 0
    for _ in range(12):
        _, rewards, terminated, truncated, _ = env.step(np.array([0]))
        players.append(rewards[0])
        count += 1
        if terminated[0] or truncated[0]:
            lengths.append(count)
            count = 0
    assert lengths == [1, 3, 2] * 2
    assert players == [1, 2, 2, 2, 3, 3] * 2


def test_what_the_learner_receives_before_its_first_turn_comes_with_its_first_step() -> None:
    env = made("pettingzoo:toy_games:Alternating", opponent="random")  # of three moves the first has two
    assert [env.step(np.zeros(1, int))[1][0] for _ in range(3)] == [9, -1, 10 - 1 + 10]


def test_copies_begin_on_different_seats_and_a_seed_begins_them_again() -> None:
    env = make_vector(EnvConfig(TIC_TAC_TOE, 4, opponent="random"))
    for _ in range(2):
        observations, _ = reset(env, 0)
        assert observations["observation"].sum((1, 2, 3)).tolist() == [0, 1, 0, 1]
        for _ in range(7):
            env.step(observations["action_mask"].argmax(1))


def trajectory(env: Any, steps: int, seed: int = 7) -> list[Any]:
    """What happens under random legal actions."""
    generator, seen = np.random.default_rng(seed), []
    observations, infos = env.unwrapped._observations, {}
    for _ in range(steps):
        observations, rewards, terminated, _, infos = env.step(legal(env, observations, infos, generator))
        parts = observations.values() if isinstance(observations, dict) else [observations]
        seen.append([*(np.array(part).tolist() for part in parts), rewards.tolist(), terminated.tolist()])
    return seen


def test_one_seed_gives_one_course_of_events_and_another_another() -> None:
    one, same, other = (trajectory(made(TIC_TAC_TOE, 2, seed, opponent="random"), 60) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_no_copy_repeats_another() -> None:
    env = made("pettingzoo:sisl/pursuit_v5", 2)
    first, second = np.split(env.unwrapped._observations, 2)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("opponent", ["self", "random"])
@pytest.mark.parametrize(
    "id", [TIC_TAC_TOE, "pettingzoo:classic/rps_v2", "pettingzoo:sisl/pursuit_v5", "pettingzoo:toy_games"]
)
def test_a_snapshot_in_the_middle_of_a_game_leads_to_the_same_future(id: str, opponent: Any) -> None:
    env = made(id, 2, 5, opponent=opponent)
    trajectory(env, 13)
    snapshot = capture(env)
    future = trajectory(env, 40, seed=1)
    again = made(id, 2, 99, opponent=opponent)
    assert restore(again, snapshot) == {}
    np.testing.assert_array_equal(again.unwrapped.acting, made_acting(snapshot))
    assert trajectory(again, 40, seed=1) == future


def made_acting(snapshot: Any) -> list[bool]:
    """Who acts in a snapshot."""
    copies = snapshot["environments"].values()
    return [bool(acts) for copy in copies for acts in copy["observations"]["items"]["1"]]


def test_a_game_that_ignores_its_seed_begins_anew_and_says_so() -> None:
    env = made("pettingzoo:toy_games:Unrepeatable", 2)
    env.step(np.zeros(6, int))
    snapshot = capture(env)
    anew = restore(env, snapshot)
    assert sorted(anew) == list(range(6))
    assert all(observation[1] == 0 for observation in anew.values())
    assert env.unwrapped.acting.all()


def test_snapshots_of_other_games_are_refused() -> None:
    with pytest.raises(RllabError, match=r"tictactoe_v3 cannot be restored into pettingzoo:classic/rps_v2"):
        restore(made("pettingzoo:classic/rps_v2"), capture(made(TIC_TAC_TOE)))
    with pytest.raises(RllabError, match="2 environments cannot be restored into 1"):
        restore(made(TIC_TAC_TOE), capture(made(TIC_TAC_TOE, 2)))


def test_a_film_shows_a_whole_game_from_the_empty_board_to_the_last_move() -> None:
    moves = iter(X_WINS)
    frames = list(record_episode(EnvConfig(TIC_TAC_TOE), lambda *_: np.array([next(moves)] * 2), seed=0))
    assert len(frames) == 6
    assert all(np.any(frame != before) for before, frame in pairwise(frames))


def test_players_with_different_spaces_are_refused_with_both() -> None:
    with pytest.raises(
        RllabError, match=r"action spaces differ: player_0 has Discrete\(10\), player_1 has Discrete\(11\)\."
    ):
        make_vector(EnvConfig("pettingzoo:toy_games:Unequal"))


@pytest.mark.parametrize(
    ("id", "sentence"),
    [
        ("pettingzoo:classic/tictactoe_v1", "Its newest version is 'pettingzoo:classic/tictactoe_v3'"),
        ("pettingzoo:classic/tictactoe", "Its newest version is 'pettingzoo:classic/tictactoe_v3'"),
        ("pettingzoo:classic/tiktaktoe_v3", "Did you mean pettingzoo:classic/tictactoe_v3"),
        ("pettingzoo:no_such_module", "cannot be imported: No module named 'no_such_module'"),
        ("pettingzoo:toy_games:no_such", "has no function 'no_such'"),
        ("pettingzoo:json", "has no function 'parallel_env' or 'env'"),
        ("pettingzoo:toy_games:no_game", "makes a str, which is no environment of PettingZoo"),
    ],
)
def test_a_name_that_is_no_game_is_told_in_a_sentence(id: str, sentence: str) -> None:
    with pytest.raises(RllabError, match=sentence):
        make_vector(EnvConfig(id))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"vectorization": "workers"}, "use sync, not workers"),
        ({"termination": "restart"}, "termination 'restart' is not for it"),
        ({"max_episode_steps": 0}, "at least 1"),
        ({"protocol": "mnih2015"}, "for Atari's games"),
        ({"env_kwargs": {"size": 4}}, "takes no argument 'size'"),
    ],
)
def test_what_games_cannot_do_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RllabError, match=sentence):
        make_vector(EnvConfig(TIC_TAC_TOE, **settings))


def test_an_opponent_is_for_games_and_a_single_environment_is_not() -> None:
    with pytest.raises(RllabError, match="'CartPole-v1' is for one player"):
        make_vector(EnvConfig("CartPole-v1", opponent="random"))
    with pytest.raises(RllabError, match="is a game of several players"):
        make_single(EnvConfig(TIC_TAC_TOE))


def test_without_pettingzoo_the_sentence_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "pettingzoo" else found(name, *rest)
    )
    with pytest.raises(
        RllabError, match=r"needs PettingZoo, which is not installed: pip install 'rllab\[multi-agent\]'"
    ):
        make_vector(EnvConfig(TIC_TAC_TOE))


def test_a_fault_names_the_copy_its_seed_and_the_step() -> None:
    env = made("pettingzoo:toy_games:Attrition", 2)
    env.unwrapped.matches[1].game.env.step = lambda actions: 1 / 0
    with pytest.raises(RllabError, match=r"environment 1 \(seed \d+\) failed at step 1: ZeroDivisionError"):
        env.step(np.zeros(6, int))


def test_the_list_of_environments_has_pettingzoos_games_in_their_newest_versions() -> None:
    listed = {info.id: info.installed for info in list_environments() if info.family == "PettingZoo"}
    assert listed[TIC_TAC_TOE]
    assert listed["pettingzoo:classic/connect_four_v3"]
    assert listed["pettingzoo:classic/chess_v6"] == (importlib.util.find_spec("chess") is not None)
