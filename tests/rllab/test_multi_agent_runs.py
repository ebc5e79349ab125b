"""Runs on PettingZoo's games: the commands on them, opponents in evaluations, and what self-play learns."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pettingzoo")

import rllab
from envs.errors import RllabError
from envs.make import EnvConfig, make_vector
from rllab.cli.main import main
from rllab.evaluate import EvaluationResult, Evaluator, against
from rllab.policies import ActorCritic, PolicyConfig

TIC_TAC_TOE = "pettingzoo:classic/tictactoe_v3"
ROCK_PAPER_SCISSORS = "pettingzoo:classic/rps_v2"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training, by the command."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    flags = "--steps 600 --num-envs 2 --rollout-steps 32 --minibatch-size 64 --evaluation-every 300 --no-tensorboard"
    flags += " --evaluation-episodes 4 --quiet --out"
    assert main(["train", "ppo", TIC_TAC_TOE, *flags.split(), str(folder)]) == 0
    return folder


def test_the_command_trains_and_steps_are_moves(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["steps"] >= 600
    assert all(64 < later["steps"] - row["steps"] <= 128 for row, later in pairwise(rows))
    assert rows[-1]["return_mean"] == 0  # what one player wins the other loses
    assert 2 <= rows[-1]["length_mean"] <= 5
    assert -1 <= rows[-1]["evaluation/return_mean"] <= 1


def test_evaluate_tells_how_many_games_were_won(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--episodes", "20", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    returns = np.array(document["returns"])
    assert document["opponent"] == "random"
    assert document["won"] == (returns > 0).mean()
    assert document["won"] + document["drawn"] + document["lost"] == pytest.approx(1)
    assert main(["evaluate", str(run), "--episodes", "20", "--opponent", "self", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert "won" not in document
    assert sum(document["returns"]) == 0
    assert main(["evaluate", str(run), "--episodes", "2"]) == 0
    assert "Won, drawn, lost" in capsys.readouterr().out


def test_watch_compare_and_resume_take_the_run(run: Path, tmp_path: Path) -> None:
    assert main(["watch", str(run), "--output", str(tmp_path / "game.gif"), "--max-steps", "2"]) == 0
    assert main(["compare", str(run), "--output", str(tmp_path / "curve.png")]) == 0
    assert main(["resume", str(run), "--steps", "700", "--quiet"]) == 0
    assert main(["envs", "pettingzoo"]) == 0
    assert all((tmp_path / name).stat().st_size for name in ("game.gif", "curve.png"))


@pytest.mark.parametrize("command", [["train", "ppo", "CartPole-v1", "--opponent", "random"], ["train", "ppo", "pettingzoo:classic/tictactoe"]])  # fmt: skip
def test_what_cannot_be_played_ends_in_one_sentence(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--steps", "10"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_by_itself_an_evaluation_has_an_opponent_where_players_take_turns() -> None:
    assert against(EnvConfig(TIC_TAC_TOE), "auto").opponent == "random"
    assert against(EnvConfig(ROCK_PAPER_SCISSORS), "auto").opponent == "self"
    assert against(EnvConfig("pettingzoo:pettingzoo.classic.rps_v2:env"), "auto").opponent == "random"
    assert against(EnvConfig("CartPole-v1"), "auto").opponent == "self"
    assert against(EnvConfig(TIC_TAC_TOE), "self").opponent == "self"
    with pytest.raises(RllabError, match="for one player"):
        Evaluator(against(EnvConfig("CartPole-v1"), "random"))


def test_shares_of_won_drawn_and_lost_games_go_by_the_sign_of_the_return() -> None:
    result = EvaluationResult(np.array([1.0, 0.5, 0.0, -2.0]), np.ones(4, int))
    assert result.won_drawn_lost == (0.5, 0.25, 0.25)


@pytest.mark.parametrize("recurrence", ["none", "lstm"])
@pytest.mark.parametrize("env", [EnvConfig(TIC_TAC_TOE), EnvConfig(ROCK_PAPER_SCISSORS, max_episode_steps=5)])
def test_evaluations_of_all_players_count_each_players_own_steps(env: EnvConfig, recurrence: str) -> None:
    vector_env = make_vector(env)
    policy = ActorCritic(
        vector_env.single_observation_space, vector_env.single_action_space, PolicyConfig(recurrence=recurrence)
    )  # fmt: skip
    with Evaluator(env, 16, deterministic=False) as evaluator:
        result = evaluator(policy)
        again = evaluator(policy)
    assert len(result.returns) == 16
    assert result.returns.sum() == 0
    np.testing.assert_array_equal(result.returns, again.returns)
    if env.max_episode_steps:
        assert (result.lengths == 5).all()
    else:
        assert ((result.lengths >= 2) & (result.lengths <= 5)).all()


def test_an_evaluation_against_an_opponent_is_the_same_each_time() -> None:
    env = EnvConfig(TIC_TAC_TOE, opponent="random")
    vector_env = make_vector(env)
    policy = ActorCritic(vector_env.single_observation_space, vector_env.single_action_space)
    with Evaluator(env, 13, deterministic=False) as evaluator:
        one, other = evaluator(policy), evaluator(policy)
    np.testing.assert_array_equal(one.returns, other.returns)
    np.testing.assert_array_equal(one.lengths, other.lengths)


@pytest.mark.slow
def test_self_play_beats_a_random_opponent_at_tic_tac_toe(tmp_path: Path) -> None:
    run = rllab.train("ppo", TIC_TAC_TOE, out=tmp_path / "run", quiet=True, evaluation_every=0, tensorboard=False)
    result = rllab.evaluate(run, episodes=400, checkpoint="latest")
    won, _, lost = result.won_drawn_lost
    assert won > 0.8  # a player at random wins 0.44 and loses as many, over both seats
    assert lost < 0.05
