"""Fine-tuning from rewards on several processes: the same prompts, responses and steps as on one."""

import subprocess
from pathlib import Path

import pytest
import torch
from several_processes import rllab
from tiny_texts import RESPONSE, write_model_and_prompts

from language.models.folder import load_model
from language.preferences.text_evaluation import read_evaluations
from rllab.runs import Run

AGENTS = {
    # Each rollout is one minibatch: how it is shuffled makes no difference. More conjugate gradients magnify rounding.
    "ppo": ["--epochs", "2", "--target-kl", "0.01"],
    "trpo": ["--critic-epochs", "2", "--cg-iterations", "3"],
    "reinforce": ["--baseline", "leave_one_out", "--group-size", "4", "--whiten-rewards", "shift"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights, and prompts."""
    return write_model_and_prompts(tmp_path_factory.mktemp("tune"))


def tune(processes: int, folder: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return rllab(
        processes, "language", "tune", str(folder / "model"), "--reward", "python:tiny_texts:share_of_a", "--prompts",
        str(folder / "prompts.txt"), "--prompt-tokens", "0", "--maximum-new-tokens", str(RESPONSE), "--responses", "16",
        "--minibatch-responses", "16", "--steps", "150", "--evaluation-every", "100", "--normalise-rewards", "16",
        # With Adam's own ε the sign of a derivative that is 0 but for rounding would decide its weight's step.
        "--adam-epsilon", "0.01", "--learning-rate", "0.01", "--no-tensorboard", "--out", str(out), *more,
    )  # fmt: skip


def same(one: Path, other: Path) -> None:
    expected = load_model(one)[0].state_dict()
    for name, tensor in load_model(other)[0].state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("agent", AGENTS)
def test_two_processes_learn_what_one_does(agent: str, folder: Path, tmp_path: Path) -> None:
    for processes in (1, 2):
        found = tune(processes, folder, tmp_path / str(processes), "--agent", agent, *AGENTS[agent])
        assert found.returncode == 0, found.stderr
    one, two = (Run.open(tmp_path / str(processes)).read_metrics() for processes in (1, 2))
    assert [row["steps"] for row in two] == [row["steps"] for row in one]
    for name in ("return_mean", "score_std", "kl_response", "beta", "entropy"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], rel=1e-3, abs=1e-6), name
    same(tmp_path / "1", tmp_path / "2")
    scores = [[row["score"] for row in read_evaluations(tmp_path / str(count))] for count in (1, 2)]
    assert scores[1] == pytest.approx(scores[0], rel=1e-6)


def test_a_tuning_goes_on_on_two_processes_as_if_it_had_never_stopped(folder: Path, tmp_path: Path) -> None:
    more = ["--agent", "ppo", "--minibatch-responses", "4", "--kl-target", "1"]
    assert tune(2, folder, tmp_path / "whole", *more, "--steps", "300").returncode == 0
    assert tune(2, folder, tmp_path / "parts", *more).returncode == 0
    assert rllab(2, "resume", str(tmp_path / "parts"), "--steps", "300").returncode == 0
    same(tmp_path / "whole", tmp_path / "parts")
    # On another number of processes the same prompts come next, with the same random numbers.
    assert rllab(1, "resume", str(tmp_path / "whole"), "--steps", "400").returncode == 0
    assert rllab(2, "resume", str(tmp_path / "parts"), "--steps", "400").returncode == 0
    one, two = (Run.open(tmp_path / name).read_metrics()[-1] for name in ("whole", "parts"))
    assert two["kl_response"] == pytest.approx(one["kl_response"], abs=0.1)
    assert two["beta"] == pytest.approx(one["beta"])


def test_what_does_not_divide_is_said(folder: Path, tmp_path: Path) -> None:
    found = tune(2, folder, tmp_path / "run", "--agent", "ppo", "--minibatch-responses", "1")
    assert found.returncode != 0
    assert found.stderr.count(f"minibatch_size must be a multiple of {2 * RESPONSE}, not {RESPONSE}") == 1
    assert not (tmp_path / "run").exists()
