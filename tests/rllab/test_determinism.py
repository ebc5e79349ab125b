"""The same seed and configuration give the same run, wherever and however it is stepped; another seed another one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_processes import require_equal_runs

import rllab
from envs.make import EnvConfig, make_vector
from rllab.collect import EnvCollector
from rllab.policies import ActorCritic, PolicyConfig
from rllab.rollout import Rollout

SETTINGS: dict[str, Any] = {
    "steps": 256, "num_envs": 2, "rollout_steps": 32, "minibatch_size": 32, "hidden_sizes": (8,),
    "evaluation_every": 128, "evaluation_episodes": 2, "checkpoint_every": 128, "max_episode_steps": 20,
    "tensorboard": False, "quiet": True,
}  # fmt: skip


def run_of(folder: Path, agent: str, env: str, **settings: Any) -> Path:
    return rllab.train(agent, env, out=folder, **{**SETTINGS, **settings}).path


@pytest.mark.parametrize("agent", ["ppo", "trpo", "reinforce"])
@pytest.mark.parametrize(("env", "settings"), [
    ("CartPole-v1", {}),
    ("CartPole-v1", {"vectorization": "sync", "recurrence": "gru", "recurrent_size": 4}),
    ("Pendulum-v1", {"normalise_observations": True, "scale_rewards": True, "fast_path": False}),
])  # fmt: skip
def test_the_same_seed_gives_the_same_run(tmp_path: Path, agent: str, env: str, settings: dict[str, Any]) -> None:
    one = run_of(tmp_path / "one", agent, env, seed=3, **settings)
    torch.rand(7)  # random numbers that somebody else draws from the global generators change nothing
    np.random.rand(7)
    two = run_of(tmp_path / "two", agent, env, seed=3, **settings)
    require_equal_runs(one, two)


def test_a_fresh_process_gives_the_same_run(tmp_path: Path) -> None:
    settings = {**SETTINGS, "seed": 5}
    code = f"import rllab; rllab.train('ppo', 'Pendulum-v1', out={str(tmp_path / 'two')!r}, **{settings!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    one = run_of(tmp_path / "one", "ppo", "Pendulum-v1", seed=5)
    assert process.wait(120) == 0
    require_equal_runs(one, tmp_path / "two")


def test_training_leaves_the_global_generators_alone(tmp_path: Path) -> None:
    before_torch, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    run_of(tmp_path / "run", "ppo", "CartPole-v1")
    assert torch.equal(before_torch, torch.get_rng_state())
    np.testing.assert_array_equal(before_numpy, np.random.get_state()[1])  # type: ignore[index]


@pytest.mark.parametrize("agent", ["ppo", "trpo", "reinforce"])
def test_another_seed_gives_another_run(tmp_path: Path, agent: str) -> None:
    states = [rllab.load(run_of(tmp_path / str(seed), agent, "CartPole-v1", seed=seed), 0).flat for seed in (0, 1)]
    assert not torch.equal(*states)
    rows = [(tmp_path / str(seed) / "metrics.jsonl").read_text() for seed in (0, 1)]
    assert rows[0] != rows[1]


def test_neighbouring_seeds_share_no_environment() -> None:
    """Gymnasium's own seeds would make the second environment of seed 0 the first of seed 1."""
    firsts = [rollouts("Pendulum-v1", "sync", "same_step", seed=seed)[0].observations[:, 0] for seed in (0, 1)]
    everything = torch.cat(firsts)
    assert len(torch.unique(everything, dim=0)) == len(everything)


def rollouts(env: str, vectorization: str, autoreset: str, seed: int = 0) -> list[Rollout]:
    vector_env = make_vector(EnvConfig(env, 3, vectorization, autoreset, max_episode_steps=7))  # type: ignore[arg-type]
    policy = ActorCritic(
        vector_env.single_observation_space, vector_env.single_action_space, PolicyConfig(hidden_sizes=(8,)), seed=seed
    )
    collector = EnvCollector(vector_env, policy, 10, seed)
    collected = [collector.collect(policy) for _ in range(3)]
    collector.close()
    return collected


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", "Taxi-v4"])
def test_worker_processes_give_the_same_rollouts_as_this_one(env: str, autoreset: str) -> None:
    one_by_one = rollouts(env, "sync", autoreset)
    side_by_side = rollouts(env, "workers", autoreset)
    for left, right in zip(one_by_one, side_by_side, strict=True):
        for name in ("observations", "actions", "rewards", "terminated", "truncated", "valid", "log_probs", "values",
                     "next_values"):  # fmt: skip
            assert torch.equal(getattr(left, name), getattr(right, name)), name
        assert left.episode_returns is not None
        assert right.episode_returns is not None
        np.testing.assert_array_equal(left.episode_returns, right.episode_returns)
    assert sum(int(rollout.truncated.sum()) for rollout in one_by_one) >= 3
