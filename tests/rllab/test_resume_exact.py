"""A run killed at any moment continues as if it had never stopped, bit for bit: real processes, really killed."""

import os
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_processes import INTERRUPTED, differences, finish, require_equal_runs, rows_of, start

import rllab
from envs.registry import family_name
from rllab.experiment import ResumeWarning
from rllab.runs import Run

COMMON: dict[str, Any] = {
    "num_envs": 4, "rollout_steps": 32, "minibatch_size": 64, "hidden_sizes": (16,), "evaluation_every": 1_500,
    "evaluation_episodes": 2, "max_episode_steps": 60, "checkpoint_every": 300, "tensorboard": False,
}  # fmt: skip
ATARI = {"num_envs": 2, "steps": 1_000, "epochs": 1, "max_episode_steps": None, "evaluation_every": 0}
RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "native": ("ppo", "CartPole-v1", {
        "vectorization": "native", "steps": 3_500, "learning_rate_schedule": "linear", "clip_range_schedule": "cosine",
    }),
    "sync": ("ppo", "CartPole-v1", {
        "vectorization": "sync", "steps": 3_000, "objective": "kl_penalty", "target_kl": 0.02, "autoreset": "next_step",
    }),
    "normalised": ("ppo", "Pendulum-v1", {"steps": 4_000, "normalise_observations": True, "scale_rewards": True}),
    "MuJoCo": ("ppo", "HalfCheetah-v5", {"steps": 3_000, "normalise_observations": True, "scale_rewards": True}),
    "Box2D": ("ppo", "LunarLander-v3", {"steps": 3_000}),
    "LSTM": ("ppo", "CartPole-v1", {
        "vectorization": "sync", "steps": 1_500, "recurrence": "lstm", "recurrent_size": 8,
        "normalise_observations": True, "evaluation_every": 0, "epochs": 2,
    }),
    "TRPO": ("trpo", "CartPole-v1", {"steps": 4_000, "fisher_fraction": 0.5, "critic_epochs": 3}),
    "workers": ("ppo", "Hopper-v5", {"steps": 2_500, "vectorization": "workers", "workers": 2}),
    "Atari": ("ppo", "BreakoutNoFrameskip-v4", ATARI),
    "Atari, sticky": ("ppo", "ALE/Breakout-v5", ATARI),
    "Atari, one by one": ("ppo", "ALE/Breakout-v5", {**ATARI, "protocol": "mnih2015", "vectorization": "sync"}),
    "PettingZoo, in turns": ("ppo", "pettingzoo:classic/tictactoe_v3", {"steps": 2_500}),
    "PettingZoo, at once": ("ppo", "pettingzoo:classic/rps_v2", {
        "steps": 1_500, "recurrence": "gru", "recurrent_size": 8, "num_envs": 2, "max_episode_steps": 10,
    }),
    "REINFORCE": ("reinforce", "Taxi-v4", {"steps": 4_000, "entropy_coefficient": 0.01, "critic_epochs": 3}),
}  # fmt: skip


PACKAGES = {"MuJoCo": "mujoco", "Box2D": "Box2D", "Atari": "ale_py", "PettingZoo": "pettingzoo"}


def wait_for(path: Path, process: Any) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size):
        assert process.is_alive(), f"training ended with {process.exitcode}"
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_again_and_again_equals_one_that_never_was(name: str, tmp_path: Path) -> None:
    agent, env, settings = RUNS[name]
    if package := PACKAGES.get(family_name(env)):
        pytest.importorskip(package)
    job = (agent, env, {**COMMON, **settings})

    straight = start(tmp_path / "straight", *job)
    wait_for(tmp_path / "straight" / "config.json", straight)
    began = time.monotonic()
    finish(straight)
    duration = time.monotonic() - began

    moments = np.random.default_rng(len(name))
    killed, kills = tmp_path / "killed", 0
    for _ in range(3):
        process = start(killed, *job)
        wait_for(killed / "config.json", process)
        process.join(moments.uniform(0.02, 0.3) * duration)
        if process.exitcode is not None:
            break
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    finish(start(killed, *job))
    assert kills >= 2
    require_equal_runs(tmp_path / "straight", killed)
    assert len(rows_of(killed)) > 10


def test_an_interrupted_run_saves_and_continues_bit_for_bit(tmp_path: Path) -> None:
    job = ("ppo", "CartPole-v1", {**COMMON, "steps": 40_000, "checkpoint_every": 0, "evaluation_every": 20_000})
    finish(start(tmp_path / "straight", *job))
    process = start(tmp_path / "run", *job)
    wait_for(tmp_path / "run" / "metrics.jsonl", process)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == INTERRUPTED
    reached = Run.open(tmp_path / "run").checkpoints.latest()
    assert reached is not None
    assert 0 < reached < 40_000
    finish(start(tmp_path / "run", *job))
    require_equal_runs(tmp_path / "straight", tmp_path / "run")


def test_a_run_killed_before_its_first_checkpoint_starts_from_the_beginning(tmp_path: Path) -> None:
    settings = {**COMMON, "steps": 512, "quiet": True}
    run = rllab.train("ppo", "CartPole-v1", out=tmp_path / "straight", **settings)
    Run.create(tmp_path / "run", run.config.to_json()).close()
    rllab.resume(tmp_path / "run", quiet=True)
    require_equal_runs(run.path, tmp_path / "run")


@pytest.mark.parametrize("steps", [384, 512])
def test_going_on_from_any_checkpoint_ends_in_the_same_state(tmp_path: Path, steps: int) -> None:
    """The state after a resume is the state that was saved: nothing is forgotten, nothing is done twice."""
    settings = {
        **COMMON,
        "vectorization": "sync",
        "checkpoint_every": 1,
        "keep_checkpoints": 0,
        "quiet": True,
        "steps": steps,
    }
    run = rllab.train("trpo", "Pendulum-v1", out=tmp_path / "run", scale_rewards=True, **settings)
    checkpoints = Run.open(run.path).checkpoints
    _, before = checkpoints.load()
    rows = rows_of(run.path)
    for step in checkpoints.steps()[1:]:
        (run.path / "checkpoints" / str(step)).rename(tmp_path / f"aside-{step}")
    rllab.resume(run.path, quiet=True)
    assert differences(before, checkpoints.load()[1]) == []
    assert rows_of(run.path) == rows


def test_an_environment_that_cannot_be_put_back_is_told_in_a_warning(tmp_path: Path) -> None:
    from toy_unrepeatable import ID

    settings = {**COMMON, "steps": 256, "evaluation_every": 0, "quiet": True}
    run = rllab.train("ppo", ID, out=tmp_path / "run", **settings)
    with pytest.warns(ResumeWarning, match="4 of 4 environments"):
        resumed = rllab.resume(run.path, steps=512, quiet=True)
    assert resumed.steps == 512


def test_exact_resumes_warn_of_nothing(tmp_path: Path) -> None:
    settings = {**COMMON, "steps": 256, "quiet": True}
    run = rllab.train("reinforce", "Pendulum-v1", out=tmp_path / "run", **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResumeWarning)
        rllab.resume(run.path, steps=512, quiet=True)
