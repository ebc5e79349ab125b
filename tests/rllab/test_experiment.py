"""Train, resume, load, evaluate: from one call to a folder that says everything, and back."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rllab
from rllab.callbacks import Callback, StopAtReturn
from rllab.runs import Run

SMALL: dict[str, Any] = {
    "steps": 256, "num_envs": 4, "vectorization": "sync", "rollout_steps": 16, "minibatch_size": 32, "hidden_sizes": (8,),
    "evaluation_every": 128, "evaluation_episodes": 2, "checkpoint_every": 64, "keep_checkpoints": 0, "quiet": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> rllab.TrainedRun:
    """A run with everything that has statistics of its own, and all that TensorBoard shows."""
    return rllab.train(
        "ppo", "Pendulum-v1", out=tmp_path_factory.mktemp("runs") / "pendulum", normalise_observations=True,
        scale_rewards=True, max_episode_steps=20, video_every=128, histograms=True, **SMALL,
    )  # fmt: skip


def test_the_result_says_where_how_far_and_how_well(pendulum: rllab.TrainedRun) -> None:
    assert pendulum.path.is_dir()
    assert pendulum.steps == 256
    assert pendulum.stop_reason is None
    assert pendulum.evaluation is not None
    assert pendulum.evaluation.returns.shape == (2,)
    assert pendulum.config.env.id == "Pendulum-v1"


def test_the_folder_says_everything(pendulum: rllab.TrainedRun) -> None:
    document = json.loads((pendulum.path / "config.json").read_text())
    assert document["agent"]["scale_rewards"] is True
    assert document["policy"]["normalise_observations"] is True
    assert document["env"]["max_episode_steps"] == 20
    assert document["seed"] == 0
    rows = Run.open(pendulum.path).read_metrics()
    assert [row["steps"] for row in rows] == [64, 128, 192, 256]
    assert [row["steps"] for row in rows if "evaluation/return_mean" in row] == [128, 256]
    assert Run.open(pendulum.path).checkpoints.steps() == [0, 64, 128, 192, 256]


def test_tensorboard_has_scalars_histograms_and_a_video(pendulum: rllab.TrainedRun) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(pendulum.path), size_guidance={"histograms": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    assert {"return_mean", "evaluation/return_mean", "policy_loss"} <= set(tags["scalars"])
    assert [event.step for event in events.Scalars("policy_loss")] == [64, 128, 192, 256]
    assert {"weights/actor.0.weight", "gradients/actor.0.weight"} <= set(tags["histograms"])
    assert [event.step for event in events.Histograms("weights/log_std")] == [128, 256]
    assert [image.step for image in events.Images("policy")] == [128, 256]
    assert events.Images("policy")[0].encoded_image_string.startswith(b"GIF8")


def test_a_loaded_policy_is_the_trained_one_with_its_statistics(pendulum: rllab.TrainedRun) -> None:
    policy = rllab.load(pendulum.path, "latest")
    assert torch.equal(policy.flat, pendulum.policy.flat)
    normaliser, trained = policy.module.normaliser, pendulum.policy.module.normaliser
    assert normaliser is not None
    assert trained is not None
    assert torch.equal(normaliser.shift, trained.shift)
    assert torch.equal(normaliser.scale, trained.scale)
    assert normaliser.moments.count == 256
    observations = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(policy.act(observations, None)[0], pendulum.policy.act(observations, None)[0])


def test_every_checkpoint_can_be_loaded_by_its_step(pendulum: rllab.TrainedRun) -> None:
    first, last = rllab.load(pendulum.path, 0), rllab.load(pendulum.path, 256)
    assert not torch.equal(first.flat, last.flat)
    assert first.module.normaliser.moments.count == 0  # type: ignore[union-attr]


def test_evaluating_a_run_is_repeatable_and_in_raw_rewards(pendulum: rllab.TrainedRun) -> None:
    results = [rllab.evaluate(run, episodes=3, seed=7) for run in (pendulum, pendulum.path, str(pendulum.path))]
    assert len({tuple(result.returns) for result in results}) == 1
    assert results[0].lengths.tolist() == [20, 20, 20]
    # Scaled rewards would lie within ±10 · 20, and near 0; Pendulum's own are around −6 a step.
    assert results[0].mean < -20
    assert rllab.evaluate(pendulum, episodes=3, seed=8).mean != results[0].mean


def test_the_best_checkpoint_reproduces_the_best_evaluation(pendulum: rllab.TrainedRun) -> None:
    from rllab.workshop import EVALUATION_SEED

    rows = Run.open(pendulum.path).read_metrics()
    best = max(row.get("evaluation/return_mean", -math.inf) for row in rows)
    again = rllab.evaluate(pendulum, episodes=2, seed=pendulum.config.seed + EVALUATION_SEED, checkpoint="best")
    assert again.mean == best


def test_resuming_with_more_steps_goes_on(tmp_path: Path) -> None:
    run = rllab.train("reinforce", "CartPole-v1", out=tmp_path / "run", **SMALL)
    longer = rllab.resume(run.path, steps=512, quiet=True)
    assert longer.steps == 512
    rows = Run.open(run.path).read_metrics()
    assert [row["steps"] for row in rows] == sorted({row["steps"] for row in rows})
    assert rows[-1]["steps"] == 512


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    run = rllab.train("trpo", "CartPole-v1", out=tmp_path / "run", tensorboard=False, **SMALL)
    before = (run.path / "metrics.jsonl").read_bytes()
    again = rllab.resume(run.path, quiet=True)
    assert torch.equal(again.policy.flat, run.policy.flat)
    assert (run.path / "metrics.jsonl").read_bytes() == before


def test_a_callback_stops_training_early_and_resume_goes_on(tmp_path: Path) -> None:
    run = rllab.train("ppo", "CartPole-v1", out=tmp_path / "run", callbacks=[StopAtReturn(1.0)], **SMALL)
    assert run.stop_reason is not None
    assert run.steps == 128
    assert rllab.resume(run.path, quiet=True).steps == 256


def test_callbacks_see_the_whole_training(tmp_path: Path) -> None:
    class Stop(Callback):
        def after_update(self, training: Any, rollout: Any, metrics: Any) -> None:
            if training.steps >= 100:
                training.stop("enough")

    run = rllab.train("ppo", "CartPole-v1", out=tmp_path / "run", callbacks=[Stop()], **SMALL)
    assert (run.stop_reason, run.steps) == ("enough", 128)


def test_a_run_can_be_trained_from_a_complete_configuration(tmp_path: Path) -> None:
    settings = {name: value for name, value in SMALL.items() if name != "quiet"}
    config = rllab.configure("ppo", "CartPole-v1", settings)
    run = rllab.train(config, out=tmp_path / "one", quiet=True)
    same = rllab.train("ppo", "CartPole-v1", out=tmp_path / "two", **SMALL)
    assert run.config == config == same.config
    assert torch.equal(run.policy.flat, same.policy.flat)


def test_by_default_runs_lie_under_runs_and_never_over_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [rllab.train("ppo", "CartPole-v1", **{**SMALL, "evaluation_every": 0}) for _ in range(2)]
    assert len({run.path for run in runs}) == 2
    assert all(run.path.parent == Path("runs") for run in runs)
    assert rllab.evaluate(runs[0], episodes=1).returns.shape == (1,)


@pytest.mark.parametrize("first", ["rllab.train", "rllab.evaluate", "rllab.cli.main"])
def test_train_evaluate_and_load_are_functions_whatever_is_imported_first(first: str) -> None:
    code = (
        f"import {first}, rllab, rllab.train, rllab.evaluate\n"
        "from rllab.evaluate import Evaluator\n"
        "from rllab.train import Training\n"
        "from rllab import train, evaluate, load, resume, configure\n"
        "import types\n"
        "names = (train, evaluate, load, resume, configure, rllab.train, rllab.evaluate, rllab.load)\n"
        "assert all(isinstance(name, types.FunctionType) for name in names), names\n"
        "assert rllab.Training is Training\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_can_be_had() -> None:
    for name in rllab.__all__:
        assert getattr(rllab, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        rllab.no_such_name  # noqa: B018
