"""Whatever cannot work ends in one sentence, and leaves nothing half-written behind."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import safetensors.torch
import toy_tasks
from gymnasium import spaces

import rllab
from envs.errors import RllabError
from rllab.callbacks import Callback
from rllab.checkpoints import CheckpointWarning
from rllab.runs import Run

SMALL: dict[str, Any] = {
    "steps": 256, "num_envs": 4, "vectorization": "sync", "rollout_steps": 16, "minibatch_size": 32, "hidden_sizes": (8,),
    "evaluation_every": 0, "checkpoint_every": 64, "quiet": True, "tensorboard": False,
}  # fmt: skip


def train(out: Path, env: str = "CartPole-v1", agent: str = "ppo", **settings: Any) -> rllab.TrainedRun:
    return rllab.train(agent, env, out=out, **{**SMALL, **settings})


def require_one_sentence(error: BaseException) -> None:
    text = str(error)
    assert "\n" not in text
    assert "Traceback" not in text
    assert 20 < len(text) < 400


class Unsupported(toy_tasks.Scripted):
    def __init__(self, part: str) -> None:
        super().__init__()
        if part == "text observation":
            self.observation_space = spaces.Text(5)  # type: ignore[assignment]
        elif part == "sequence observation":
            self.observation_space = spaces.Sequence(spaces.Discrete(2))  # type: ignore[assignment]
        elif part == "dict action":
            self.action_space = spaces.Dict(a=spaces.Discrete(2))  # type: ignore[assignment]
        else:
            self.action_space = spaces.Box(0, 9, (2,), np.int64)  # type: ignore[assignment]


class Refuses(toy_tasks.Scripted):
    def __init__(self, size: int = 1) -> None:
        raise ValueError("the size\nis wrong")


gymnasium.register("toy/Unsupported-v0", entry_point=Unsupported)
gymnasium.register("toy/Refuses-v0", entry_point=Refuses)
UNSUPPORTED = ("text observation", "sequence observation", "dict action", "integer box action")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"env": "CartPol-v1"}, "CartPole-v1"),
        ({"env": "CartPole-v99"}, "CartPole-v1"),
        ({"env": "no_such_module:Thing-v0"}, "no_such_module"),
        ({"env": "toy/Refuses-v0"}, "size"),
        ({"env_kwargs": {"unknown": 1}}, "unknown"),
        ({"env": "toy/Scripted-v0", "vectorization": "native"}, "native"),
        ({"vectorization": "native", "autoreset": "same_step"}, "next_step"),
        ({"max_episode_steps": 0}, "max_episode_steps"),
        ({"num_envs": 0}, "num_envs"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"device": "abacus"}, "abacus"),
        ({"device": ""}, "device"),
        ({"device": "meta"}, "meta"),
        ({"minibatch_size": 48}, "minibatch_size"),
        ({"minibatch_size": 128}, "minibatch_size"),
        ({"recurrence": "lstm", "minibatch_size": 8}, "minibatch_size"),
        ({"agent": "trpo", "minibatch_size": 48}, "minibatch_size"),
        ({"agent": "reinforce", "minibatch_size": 48}, "minibatch_size"),
        ({"agent": "sarsa"}, "sarsa"),
        ({"learning_rte": 1}, "learning_rate"),
        ({"seed": -1}, "seed"),
        *(({"env": "toy/Unsupported-v0", "env_kwargs": {"part": part}}, "agents cannot") for part in UNSUPPORTED),
    ],
)
def test_a_start_that_cannot_work_is_told_in_a_sentence_and_leaves_no_folder(
    tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(RllabError) as caught:
        train(tmp_path / "runs" / "run", **settings)
    require_one_sentence(caught.value)
    assert named in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_environment_that_fails_to_reset_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="the simulator did not start"):
        train(tmp_path / "run", "toy/Failing-v0", env_kwargs={"what": "reset"})
    assert list(tmp_path.iterdir()) == []


def test_arguments_that_config_json_cannot_hold_leave_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RllabError, match="env_kwargs"):
        train(tmp_path / "run", "toy/Scripted-v0", env_kwargs={"reward": np.float32(1)})
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_and_settings_beside_it_are_refused(tmp_path: Path) -> None:
    """They would otherwise be ignored without a word."""
    config = rllab.configure("ppo", "CartPole-v1")
    with pytest.raises(RllabError, match="configuration"):
        rllab.train(config, out=tmp_path / "run", steps=10)
    with pytest.raises(RllabError, match="configuration"):
        rllab.train(config, "Pendulum-v1", out=tmp_path / "run")
    with pytest.raises(RllabError, match="CartPole-v1"):
        rllab.train("ppo", out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["observation", "reward", "huge_reward", "final_observation"])
@pytest.mark.parametrize("agent", ["ppo", "trpo", "reinforce"])
def test_an_environment_gone_bad_stops_training_before_anything_is_learned_from_it(
    tmp_path: Path, what: str, agent: str
) -> None:
    with np.errstate(all="ignore"), pytest.raises(RllabError, match=r"environment 0 .*not finite.* at step ") as caught:
        train(
            tmp_path / "run",
            "toy/Failing-v0",
            agent,
            env_kwargs={"what": what, "at": 40 if what.startswith("final") else 42},
        )
    require_one_sentence(caught.value)
    run = Run.open(tmp_path / "run")
    assert run.checkpoints.latest() == 128
    assert run.read_metrics()[-1]["steps"] == 128
    assert rllab.load(run.path).flat.isfinite().all()


@pytest.mark.parametrize("agent", ["ppo", "trpo", "reinforce"])
@pytest.mark.parametrize("fast_path", [True, False])
def test_a_loss_that_explodes_stops_training_with_a_good_checkpoint(
    tmp_path: Path, agent: str, fast_path: bool
) -> None:
    rate = "critic_learning_rate" if agent == "reinforce" else "learning_rate"
    with np.errstate(all="ignore"), pytest.raises(RllabError, match=r"not finite.*learning rate") as caught:
        train(tmp_path / "run", agent=agent, fast_path=fast_path, checkpoint_every=1, **{rate: 1e25})
    require_one_sentence(caught.value)
    for step in Run.open(tmp_path / "run").checkpoints.steps():
        assert rllab.load(tmp_path / "run", step).flat.isfinite().all()


def test_reinforce_without_a_finished_episode_says_what_to_raise(tmp_path: Path) -> None:
    with pytest.raises(RllabError, match="rollout_steps"):
        train(tmp_path / "run", "Pendulum-v1", "reinforce", baseline="none")


@pytest.mark.parametrize("damage", ["truncated arrays", "flipped byte", "no manifest", "no state"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_with_a_warning(tmp_path: Path, damage: str) -> None:
    run = train(tmp_path / "run")
    assert Run.open(run.path).checkpoints.steps() == [128, 192, 256]
    folder = run.path / "checkpoints" / "256"
    arrays = folder / "arrays.safetensors"
    if damage == "truncated arrays":
        arrays.write_bytes(arrays.read_bytes()[:-10])
    elif damage == "flipped byte":
        content = bytearray(arrays.read_bytes())
        content[-5] ^= 1
        arrays.write_bytes(bytes(content))
    elif damage == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        (folder / "state.json").unlink()
    with pytest.warns(CheckpointWarning, match="192"):
        rllab.load(run.path)
    with pytest.warns(CheckpointWarning, match="192"):
        resumed = rllab.resume(run.path, quiet=True)
    assert resumed.steps == 256
    np.testing.assert_array_equal(resumed.policy.flat.detach().numpy(), run.policy.flat.detach().numpy())
    assert rllab.load(run.path, 256) is not None


def test_with_every_checkpoint_damaged_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    run = train(tmp_path / "run")
    for file in run.path.glob("checkpoints/*/arrays.safetensors"):
        file.write_bytes(b"")
    for call in (rllab.load, rllab.resume, rllab.evaluate):
        with pytest.raises(RllabError, match="nothing to go on from") as caught:
            call(run.path)
        require_one_sentence(caught.value)


def test_what_is_no_run_is_told_so(tmp_path: Path) -> None:
    train(tmp_path / "cartpole")
    for call in (rllab.load, rllab.resume, rllab.evaluate):
        with pytest.raises(RllabError, match="did you mean .*cartpole"):
            call(tmp_path / "cartpol")
    with pytest.raises(RllabError, match="step 5 .*256"):
        rllab.load(tmp_path / "cartpole", 5)
    (tmp_path / "cartpole" / "config.json").write_text("{")
    with pytest.raises(RllabError, match="damaged"):
        rllab.load(tmp_path / "cartpole")


def test_a_config_of_another_version_is_told_so(tmp_path: Path) -> None:
    run = train(tmp_path / "run")
    document = json.loads((run.path / "config.json").read_text())
    document["agent"]["momentum_of_tomorrow"] = 1
    (run.path / "config.json").write_text(json.dumps(document))
    for call in (rllab.load, rllab.resume, rllab.evaluate):
        with pytest.raises(RllabError, match="does not fit this version"):
            call(run.path)


def test_a_folder_with_a_run_is_not_written_over_unless_asked(tmp_path: Path) -> None:
    run = train(tmp_path / "run")
    before = (run.path / "metrics.jsonl").read_bytes()
    with pytest.raises(RllabError, match="already holds a run"):
        train(tmp_path / "run", seed=1)
    assert (run.path / "metrics.jsonl").read_bytes() == before
    train(tmp_path / "run", seed=1, overwrite=True)
    assert (run.path / "metrics.jsonl").read_bytes() != before


def test_overwriting_with_a_configuration_that_cannot_work_leaves_the_old_run(tmp_path: Path) -> None:
    run = train(tmp_path / "run")
    with pytest.raises(RllabError):
        train(tmp_path / "run", "CartPol-v1", overwrite=True)
    assert rllab.load(run.path) is not None


def test_a_run_in_use_is_left_alone(tmp_path: Path) -> None:
    code = f"import rllab; rllab.train('ppo', 'CartPole-v1', out={str(tmp_path / 'run')!r}, steps=10**9, quiet=True)"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.02)
        for call in (lambda: rllab.resume(tmp_path / "run"), lambda: train(tmp_path / "run", overwrite=True)):
            with pytest.raises(RllabError, match="in use"):
                call()
        assert rllab.load(tmp_path / "run", "latest") is not None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("where", ["arrays", "sync"])
def test_a_disk_that_fills_while_a_checkpoint_is_written_costs_nothing_but_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    straight = train(tmp_path / "straight")

    class FillDisk(Callback):
        def after_update(self, training: Any, rollout: Any, metrics: Any) -> None:
            if training.steps + rollout.num_steps == 192 and armed:
                armed.clear()
                target = (safetensors.torch, "save_file") if where == "arrays" else (os, "fsync")

                def full(*_: Any, **__: Any) -> None:
                    raise OSError(errno.ENOSPC, "No space left on device")

                monkeypatch.setattr(*target, full)

    armed = ["once"]
    with pytest.raises(RllabError, match="disk is full") as caught:
        train(tmp_path / "run", callbacks=[FillDisk()])
    require_one_sentence(caught.value)
    monkeypatch.undo()
    checkpoints = Run.open(tmp_path / "run").checkpoints
    assert checkpoints.latest() in (64, 128)
    assert {path.name for path in checkpoints.folder.iterdir()} <= {"index.json", "0", "64", "128"}
    resumed = rllab.resume(tmp_path / "run", quiet=True)
    assert resumed.steps == 256
    np.testing.assert_array_equal(resumed.policy.flat.detach().numpy(), straight.policy.flat.detach().numpy())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_is_full_for_metrics_stops_training_in_a_sentence(tmp_path: Path) -> None:
    class FillDisk(Callback):
        def after_checkpoint(self, training: Any) -> None:
            if training.steps == 0:
                (tmp_path / "run" / "metrics.jsonl").symlink_to("/dev/full")

    with pytest.raises(RllabError, match="disk is full"):
        train(tmp_path / "run", callbacks=[FillDisk()])
    assert rllab.load(tmp_path / "run") is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_place_that_cannot_be_written_is_told_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RllabError, match="could not be written"):
        train(tmp_path / "run")


def test_a_place_under_a_file_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RllabError):
            train(out)
