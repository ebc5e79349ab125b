"""Environments and workers that go wrong while training: one sentence, and a checkpoint to go on from."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from toy_faulty import ID

import rllab
from rllab.callbacks import Callback
from rllab.cli.main import main
from rllab.runs import Run

SETTINGS: dict[str, Any] = {
    "num_envs": 4, "rollout_steps": 16, "minibatch_size": 64, "hidden_sizes": (8,), "evaluation_every": 0,
    "checkpoint_every": 64, "tensorboard": False,
}  # fmt: skip
FAULTS = {
    "raises": r"environment 0 \({worker}seed \d+\) failed at step 50: ValueError: a hinge broke",
    "dtype": r"environment 0 \({worker}seed \d+\) .*float64.*float32.*step 50",
    "shape": r"environment 0 \({worker}seed \d+\) .*shape \[1\].*shape \[2\].*step 50",
    "bounds": r"environment 0 \({worker}seed \d+\) gave an observation of .* outside .*\[-1, 1\].* at step 50",
}


@pytest.mark.parametrize("vectorization", ["sync", "workers"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_environment_ends_training_with_a_sentence_and_a_good_checkpoint(
    fault: str, vectorization: Any, tmp_path: Path
) -> None:
    arguments = {"fault": fault, "at": 50}
    worker = "worker 0, " if vectorization == "workers" else ""
    with pytest.raises(rllab.RllabError, match=FAULTS[fault].format(worker=worker)) as caught:
        rllab.train(
            "ppo", ID, out=tmp_path / "run", quiet=True, steps=1_000, env_kwargs=arguments,
            vectorization=vectorization, workers=2, **SETTINGS,
        )  # fmt: skip
    assert "\n" not in str(caught.value)
    assert Run.open(tmp_path / "run").checkpoints.latest() == 3 * 64  # the fourth rollout holds step 50
    assert rllab.load(tmp_path / "run") is not None


def test_the_command_prints_the_sentence_alone_and_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--num-envs", "2", "--rollout-steps", "32", "--minibatch-size", "64", "--out", str(tmp_path / "run")]
    kwargs = ["--env-kwargs", '{"fault": "bounds", "at": 40}', "--vectorization", "workers"]
    assert main(["train", "ppo", ID, "--steps", "500", "--quiet", *flags, *kwargs]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("rllab: error: environment 0 (worker 0, seed ")
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err


def test_bounds_can_be_let_pass(tmp_path: Path) -> None:
    run = rllab.train(
        "ppo", ID, out=tmp_path / "run", quiet=True, steps=256, env_kwargs={"fault": "bounds", "at": 10},
        check_bounds=False, **SETTINGS,
    )  # fmt: skip
    assert run.steps == 256


class KillWorker(Callback):
    """Kills a worker, as the system does when memory runs out."""

    def after_update(self, training: Any, rollout: Any, metrics: Any) -> None:
        if training.updates == 3:
            os.kill(training.collector.env.unwrapped._workers[1].process.pid, signal.SIGKILL)


def test_a_worker_killed_from_outside_ends_the_run_cleanly_and_it_resumes(tmp_path: Path) -> None:
    sentence = (
        r"Worker 1 with environment 2 \(seed \d+\) and environment 3 \(seed \d+\) was killed by SIGKILL at step 48"
    )
    settings = {**SETTINGS, "vectorization": "workers", "workers": 2, "steps": 640}
    with pytest.raises(rllab.RllabError, match=sentence):
        rllab.train("ppo", ID, out=tmp_path / "run", quiet=True, callbacks=[KillWorker()], **settings)
    assert Run.open(tmp_path / "run").checkpoints.latest() == 128  # it died before the next was taken
    assert rllab.resume(tmp_path / "run", quiet=True).steps == 640
