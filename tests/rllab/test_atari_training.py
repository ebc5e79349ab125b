"""Training on Atari: the agent learns from clipped rewards and lives, people see games and scores."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rllab
from envs.atari_scores import human_normalised
from envs.make import EnvConfig, make_vector
from rllab.cli.main import main
from rllab.collect import EnvCollector
from rllab.config import configure
from rllab.evaluate import Evaluator
from rllab.frames import FrameStacks
from rllab.policies import ActorCritic
from rllab.rollout import Rollout

pytest.importorskip("ale_py")
SETTINGS: dict[str, Any] = {"num_envs": 2, "rollout_steps": 16, "minibatch_size": 16, "epochs": 1, "quiet": True}


def collect(id: str, steps: int, **settings: Any) -> tuple[Rollout, EnvCollector]:
    vector_env = make_vector(EnvConfig(id, num_envs=2, workers=1, **settings))
    policy = ActorCritic(vector_env.single_observation_space, vector_env.single_action_space)
    collector = EnvCollector(vector_env, policy, steps, seed=0, clip_rewards=True)
    return collector.collect(policy), collector


@pytest.mark.parametrize("vectorization", ["native", "sync"])
def test_the_agent_sees_lives_and_clipped_rewards_while_people_see_games_and_scores(vectorization: str) -> None:
    if vectorization == "sync":
        pytest.importorskip("cv2")
    rollout, collector = collect("SpaceInvadersNoFrameskip-v4", 700, vectorization=vectorization)
    ends = int((rollout.terminated | rollout.truncated).sum())
    assert rollout.episode_returns is not None
    assert ends >= 3 * len(rollout.episode_returns) >= 3  # three lives a game
    assert set(rollout.rewards.unique().tolist()) == {0.0, 1.0}
    assert rollout.environment_rewards.max() >= 5
    # What is not in a finished game is in the games under way.
    total = rollout.episode_returns.sum() + collector.episodes._return.sum()
    assert total == pytest.approx(float(rollout.environment_rewards.sum()))
    assert all(score % 5 == 0 for score in rollout.episode_returns)


def test_a_rollouts_observations_are_frames_stored_once() -> None:
    rollout, _ = collect("PongNoFrameskip-v4", 32)
    assert isinstance(rollout.observations, FrameStacks)
    assert rollout.observations.shape == (2, 32, 4, 84, 84)
    assert rollout.observations.dtype == torch.uint8
    assert len(rollout.observations.frames) <= 2 * (33 + 3) + 4 * int(rollout.terminated.sum())


def test_first_ratios_are_one_whatever_pieces_the_rollout_was_evaluated_in() -> None:
    config = configure("ppo", "PongNoFrameskip-v4", {"num_envs": 2, "rollout_steps": 16, "minibatch_size": 8})
    vector_env = make_vector(config.env)
    policy = ActorCritic(vector_env.single_observation_space, vector_env.single_action_space)
    policy.evaluation_chunk = 7
    rollout = EnvCollector(vector_env, policy, 16, seed=0).collect(policy)
    agent = rllab.PPO(policy, config.agent)  # type: ignore[arg-type]
    batch = agent.experience(rollout, torch.zeros(2, 16), torch.zeros(2, 16))
    with torch.no_grad():
        ratio = (policy.evaluate(batch).log_prob - batch.log_probs).exp()
    torch.testing.assert_close(ratio, torch.ones(32), atol=1e-5, rtol=0)


def test_evaluation_plays_whole_games() -> None:
    vector_env = make_vector(EnvConfig("BreakoutNoFrameskip-v4", num_envs=1))
    policy = ActorCritic(vector_env.single_observation_space, vector_env.single_action_space)
    with Evaluator(EnvConfig("BreakoutNoFrameskip-v4"), episodes=2, deterministic=False) as evaluator:
        result = evaluator(policy)
    assert result.lengths.min() > 100  # five lives; one takes some 25 to 40 steps at random


@pytest.mark.parametrize("settings", [{}, {"image_network": "impala"}, {"precision": "bfloat16"}], ids=str)
@pytest.mark.parametrize("agent", ["reinforce", "trpo", "ppo"])
def test_every_agent_trains_and_resumes_on_atari(agent: str, settings: dict[str, Any], tmp_path: Path) -> None:
    if agent != "ppo" and settings:
        pytest.skip("networks do not depend on the agent")
    special = {"trpo": {"cg_iterations": 2, "critic_epochs": 1}, "reinforce": {"critic_epochs": 1}}.get(agent, {})
    chosen = {**SETTINGS, **settings, **special, "steps": 64, "evaluation_every": 0}
    if agent != "ppo":
        del chosen["epochs"]
    run = rllab.train(agent, "PongNoFrameskip-v4", out=tmp_path / "run", **chosen)
    assert run.steps == 64
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(value) for row in rows for name, value in row.items() if value is not None)
    assert rllab.resume(run.path, steps=128, quiet=True).steps == 128


def test_evaluate_prints_the_human_normalised_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {**SETTINGS, "steps": 32, "evaluation_every": 0, "max_episode_steps": 60}
    run = rllab.train("ppo", "ALE/Breakout-v5", out=tmp_path / "run", **settings)
    assert main(["evaluate", str(run.path), "--episodes", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["human_normalised"] == human_normalised("breakout", document["mean"])
    assert document["actions"] == "sampled"  # as the preset evaluates
    assert main(["evaluate", str(run.path), "--episodes", "2", "--actions", "most_probable"]) == 0
    printed = capsys.readouterr().out
    assert "Human-normalised" in printed
    assert "most probable" in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ALE/Pongg-v5"], "Did you mean ALE/Pong-v5"),
        (["PongNoFrameskip-v4", "--protocol", "machado2018"], "contradicts 'PongNoFrameskip-v4'"),
        (["CartPole-v1", "--protocol", "mnih2015"], "is for Atari's games"),
        (["ALE/Pong-v5", "--env-kwargs", '{"frameskip": 2}'], "decides 'frameskip' itself"),
        (["ALE/Pong-v5", "--vectorization", "envpool"], "use native"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "ppo", *arguments, "--out", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "run").exists()
