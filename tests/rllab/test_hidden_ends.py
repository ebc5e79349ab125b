"""Games whose ends are hidden from the agent (constant horizons): people are told their scores all the same."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_tasks import policy_for

from envs.make import EnvConfig, make_vector
from envs.render import record_episode
from envs.snapshot import capture, restore
from rllab.collect import EnvCollector
from rllab.episodes import EpisodeRecorder
from rllab.evaluate import Evaluator
from rllab.experiment import train
from rllab.runs import Run

HIDING = ("ignored", "absorbing", "restart")


def cart_pole(termination: str, vectorization: str = "sync", **more: Any) -> EnvConfig:
    return EnvConfig(
        "CartPole-v1", 2, vectorization, autoreset="same_step", termination=termination, workers=1, **more
    )  # type: ignore[arg-type]  # fmt: skip


def collected(config: EnvConfig, steps: int) -> Any:
    """A rollout of a policy that takes no notice of what it sees, so that the actions are the same in every kind."""
    vector_env = make_vector(config)
    try:
        policy = policy_for(vector_env)
        for parameter in policy.module.parameters():
            parameter.data.zero_()
        return EnvCollector(vector_env, policy, steps, seed=3, check_bounds=False).collect(policy)
    finally:
        vector_env.close()


def record(recorder: EpisodeRecorder, rewards: list[float], done: list[int], hidden: list[int]) -> Any:
    row = [np.array([values], kind) for values, kind in ((rewards, float), (done, bool), (hidden, bool))]
    returns, lengths = recorder.record(row[0], row[1], np.ones_like(row[1]), row[2])
    return returns.tolist(), lengths.tolist()


def test_an_episode_with_a_game_inside_is_told_by_its_games_and_what_was_cut_is_not() -> None:
    # Two games of 2 and 3 steps, a cut one of 1; then a whole episode of 2 steps in which no game ended.
    games = [[1, 1, 2, 2, 2, 100, 5, 5], [0, 0, 0, 0, 0, 1, 0, 1], [0, 1, 0, 0, 1, 0, 0, 0]]
    assert record(EpisodeRecorder(1), *games) == ([2, 6, 10], [2, 3, 2])


def test_a_game_that_ends_with_its_episode_is_told_once() -> None:
    games = [[1, 1, 4, 4], [0, 1, 0, 1], [0, 1, 0, 0]]
    assert record(EpisodeRecorder(1), *games) == ([2, 8], [2, 2])


@pytest.mark.parametrize("cut", range(1, 8))
def test_games_go_on_across_rollouts_and_states(cut: int) -> None:
    games = [[1, 1, 2, 2, 2, 100, 5, 5], [0, 0, 0, 0, 0, 1, 0, 1], [0, 1, 0, 0, 1, 0, 0, 0]]
    first, second = EpisodeRecorder(1), EpisodeRecorder(1)
    before = record(first, *(values[:cut] for values in games))
    second.load_state_dict(first.state_dict())
    after = record(second, *(values[cut:] for values in games))
    assert (before[0] + after[0], before[1] + after[1]) == ([2, 6, 10], [2, 3, 2])
    assert second.means() == {"return_mean": 6.0, "length_mean": 7 / 3}


def test_a_row_that_began_anew_has_no_game_behind_it() -> None:
    recorder = EpisodeRecorder(1)
    record(recorder, [1, 1], [0, 0], [1, 0])
    recorder.forget(0)
    assert record(recorder, [3, 3], [0, 1], [0, 0]) == ([6], [2])


@pytest.mark.parametrize("vectorization", ["sync", "workers"])
@pytest.mark.parametrize("termination", HIDING)
def test_scores_are_those_of_the_games_and_the_agent_sees_no_end(termination: str, vectorization: str) -> None:
    plain = collected(cart_pole("episode"), 400)
    hidden = collected(cart_pole(termination, vectorization), 400)
    assert not (hidden.terminated | hidden.truncated).any()
    if termination == "restart":
        assert len(plain.episode_returns) > 10
        assert hidden.episode_returns.tolist() == plain.episode_returns.tolist()
        assert hidden.episode_lengths.tolist() == plain.episode_lengths.tolist()
    else:
        firsts = [int(np.flatnonzero(row)[0]) for row in plain.terminated.numpy()]
        assert sorted(hidden.episode_lengths.tolist()) == sorted(first + 1 for first in firsts)
        assert hidden.episode_returns.tolist() == hidden.episode_lengths.tolist()


def test_hidden_ends_are_told_in_the_steps_of_the_visible_ones() -> None:
    plain, hidden = collected(cart_pole("episode"), 300), collected(cart_pole("restart"), 300)
    np.testing.assert_array_equal(hidden.hidden_ends, plain.terminated.numpy())
    assert plain.hidden_ends is None
    np.testing.assert_array_equal(hidden.rewards, plain.rewards)


@pytest.mark.parametrize("termination", HIDING)
def test_an_evaluation_is_of_the_games(termination: str) -> None:
    results = []
    for kind in ("episode", termination):
        with Evaluator(cart_pole(kind), 8, seed=1) as evaluator:
            policy = policy_for(evaluator.env)
            for parameter in policy.module.parameters():
                parameter.data.zero_()
            results.append(evaluator(policy))
    assert results[1].returns.tolist() == results[0].returns.tolist()
    assert results[1].lengths.tolist() == results[0].lengths.tolist()
    assert results[0].length_mean < 50


def test_a_game_that_lasts_to_the_time_limit_is_one() -> None:
    for termination in HIDING:
        rollout = collected(cart_pole(termination, max_episode_steps=5), 10)
        assert rollout.episode_lengths.tolist() == [5, 5, 5, 5]


def test_the_scores_of_atari_games_that_follow_each_other_silently_are_the_emulators() -> None:
    config = EnvConfig("BreakoutNoFrameskip-v4", 1, "sync", termination="restart")
    vector_env = make_vector(config)
    vector_env.reset(seed=0)
    scores, score, told, ends = [], 0.0, [], []
    lives = 5
    for step in range(900):
        _, rewards, terminated, truncated, infos = vector_env.step(np.array([1 if step % 10 == 0 else 2]))
        assert not terminated.any()
        assert not truncated.any()
        score += float(rewards[0])
        left = vector_env.envs[0].unwrapped.ale.lives()
        if left > lives:  # only a new game gives lives back
            scores.append(score)
            ends.append(step)
            score = 0.0
        lives = left
        if "hidden_end" in infos:
            told.append(step)
    vector_env.close()
    assert len(ends) >= 2
    assert told == ends
    assert sum(scores) > 0


def test_a_snapshot_knows_that_the_end_is_past() -> None:
    config = cart_pole("ignored")
    first, second = make_vector(config), make_vector(config)
    first.reset(seed=0)
    ended = [False, False]
    for _ in range(60):
        infos = first.step(np.zeros(2, np.int64))[4]
        ended = [a or b for a, b in zip(ended, infos.get("hidden_end", [False, False]), strict=True)]
    assert all(ended)
    second.reset(seed=1)
    restore(second, capture(first))
    assert all("hidden_end" not in second.step(np.zeros(2, np.int64))[4] for _ in range(60))


def test_a_training_under_silent_restarts_reports_returns_from_the_first_games_on(tmp_path: Path) -> None:
    run = train(
        "ppo", "CartPole-v1", termination="restart", num_envs=2, rollout_steps=128, minibatch_size=64, epochs=1,
        steps=512, evaluation_every=0, tensorboard=False, quiet=True, out=tmp_path / "run",
    )  # fmt: skip
    rows = Run.open(run.path).read_metrics()
    assert all(math.isfinite(row["return_mean"]) and row["return_mean"] < 200 for row in rows)


def test_a_film_of_games_that_follow_each_other_is_of_one() -> None:
    frames = list(record_episode(cart_pole("restart"), lambda observations, infos: np.zeros(1, np.int64), seed=0))
    assert 8 <= len(frames) <= 12
