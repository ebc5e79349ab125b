"""Supervised trainings on several processes, started by torchrun as a user would."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from several_processes import command, rllab

from language.models.folder import load_model
from rllab.runs import Run

WORDS = [
    "the",
    "a",
    "film",
    "was",
    "good",
    "bad",
    "dull",
    "bright",
    "story",
    "actor",
    "plot",
    "ends",
    "begins",
    "slow",
    "fine",
]
SIZES = [
    "--layers",
    "1",
    "--width",
    "16",
    "--heads",
    "2",
    "--length",
    "16",
    "--context",
    "16",
    "--vocabulary-size",
    "280",
    "--batch-size",
    "4",
    "--steps",
    "12",
    "--evaluation-every",
    "6",
]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = random.Random(0)
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(" ".join(generator.choices(WORDS, k=20)) for _ in range(300)))
    return path


def pretrain(processes: int, texts: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return rllab(processes, "language", "pretrain", "gpt", str(texts), *SIZES, "--out", str(out), *arguments)


def weights(run: Path) -> dict[str, Any]:
    return load_model(run)[0].state_dict()


def same(one: Path, other: Path) -> None:
    expected = weights(one)
    for name, tensor in weights(other).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6)


def test_two_processes_learn_what_one_learns_from_the_same_batches(texts: Path, tmp_path: Path) -> None:
    for processes in (1, 2):
        found = pretrain(processes, texts, tmp_path / str(processes), "--dropout", "0", "--accumulation", "4")
        assert found.returncode == 0, found.stderr
        assert found.stdout.count("Test perplexity") == 1  # the others say nothing
    same(tmp_path / "1", tmp_path / "2")
    one, two = (Run.open(tmp_path / str(processes)).read_metrics() for processes in (1, 2))
    assert [row["tokens"] for row in one] == [row["tokens"] for row in two]
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-5)


def test_a_training_goes_on_on_several_processes_as_if_it_had_never_stopped(texts: Path, tmp_path: Path) -> None:
    # Dropout's generators, of which each process has its own, go on too.
    given = ["--dropout", "0.2", "--accumulation", "2", "--schedule", "constant"]
    assert pretrain(2, texts, tmp_path / "whole", *given).returncode == 0
    assert pretrain(2, texts, tmp_path / "parts", *given, "--steps", "6").returncode == 0
    assert rllab(2, "resume", str(tmp_path / "parts"), "--steps", "12").returncode == 0
    same(tmp_path / "whole", tmp_path / "parts")
    assert Run.open(tmp_path / "parts").read_metrics()[-1]["steps"] == 12


def test_an_interrupted_training_is_saved_by_all_at_the_same_step(texts: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["language", "pretrain", "gpt", str(texts), *SIZES, "--out", str(run), "--accumulation", "2"]
    process = subprocess.Popen(
        command(2, *arguments, "--steps", "1000000", "--evaluation-every", "0"), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip
    metrics = run / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 3) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    steps = Run.open(run).checkpoints.latest()
    assert steps is not None, errors
    assert steps == json.loads(metrics.read_text().splitlines()[-1])["steps"]
    assert errors.count(f"rllab resume {run}") == 1
    assert rllab(2, "resume", str(run), "--steps", str(steps + 3)).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gpt", "--accumulation", "3"], "An accumulation of 3 does not divide among 2 processes; choose a multiple"),
        (["awd-lstm", "--accumulation", "2"], "reads on from batch to batch, as the AWD-LSTM does, is trained in one"),
    ],
)
def test_what_cannot_be_shared_is_said_once(arguments: list[str], sentence: str, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    found = rllab(2, "language", "pretrain", arguments[0], str(texts), *arguments[1:], "--out", str(out))
    assert found.returncode != 0
    assert found.stderr.count(f"rllab: error: {sentence}") + found.stderr.count(sentence) >= 1
    assert found.stderr.count("rllab: error") == 1
    assert not out.exists()


def test_what_knows_nothing_of_processes_says_so_and_touches_nothing(tmp_path: Path) -> None:
    found = rllab(2, "train", "ppo", "CartPole-v1", "--seeds", "2", "--steps", "100", "--out", str(tmp_path / "seeds"))
    assert found.stderr.count("start it without torchrun") == 1
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    learn = ["preference", "learn", "CartPole-v1", "--out", str(tmp_path / "run"), "--overwrite"]
    assert rllab(2, *learn).stderr.count("start it without torchrun") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "config.json"]


def test_what_calls_itself_a_rank_without_torchrun_is_one_process() -> None:
    environment = {**os.environ, "RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    found = subprocess.run(command(1, "--version"), capture_output=True, text=True, env=environment, timeout=60)
    assert found.stdout.startswith("rllab ")


def test_what_is_wrong_in_one_process_alone_is_what_is_said(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "partial.py").write_text(
        "import os\n\n\ndef reward(prompts, responses):\n"
        "    if os.environ['RANK'] == '1':\n        raise TimeoutError('no answer')\n"
        "    return [len(text) for text in responses]\n"
    )
    assert pretrain(1, texts, tmp_path / "model", "--steps", "1").returncode == 0
    found = rllab(
        2, "language", "tune", str(tmp_path / "model"), "--reward", "python:partial:reward", "--prompts", str(texts),
        "--prompt-tokens", "4", "--maximum-new-tokens", "8", "--responses", "8", "--minibatch-responses", "4",
        "--evaluation-every", "0", "--out", str(tmp_path / "run"), folder=tmp_path,
    )  # fmt: skip
    assert found.returncode != 0
    assert "TimeoutError: no answer" in found.stderr
    assert "Connection closed" not in found.stderr


def test_an_agent_learns_in_environments_of_two_processes_and_goes_on_exactly(tmp_path: Path) -> None:
    given = [
        "train",
        "ppo",
        "CartPole-v1",
        "--no-preset",
        "--num-envs",
        "4",
        "--rollout-steps",
        "32",
        "--minibatch-size",
        "64",
    ]
    given += ["--normalise-observations", "--scale-rewards", "--evaluation-every", "200", "--no-tensorboard"]
    assert rllab(2, *given, "--steps", "512", "--out", str(tmp_path / "whole")).returncode == 0
    assert rllab(2, *given, "--steps", "256", "--out", str(tmp_path / "parts")).returncode == 0
    assert rllab(2, "resume", str(tmp_path / "parts"), "--steps", "512").returncode == 0
    whole, parts = (Run.open(tmp_path / name).checkpoints.load()[1] for name in ("whole", "parts"))
    assert whole["loop"]["steps"] == parts["loop"]["steps"] >= 512
    for name, tensor in whole["policy"]["weights"].items():
        assert torch.equal(parts["policy"]["weights"][name], tensor), name
    # Both processes' observations are in the moments that both normalise by; they are of different episodes.
    assert int(whole["policy"]["observation_moments"]["count"]) == whole["loop"]["steps"]
    first, second = whole["collectors"]
    assert not (first["observations"]["0"] == second["observations"]["0"]).all()
    assert len(whole["policy"]["reward_scaling"]["discounted_returns"]) == 4
    found = rllab(1, "resume", str(tmp_path / "parts"), "--steps", "640")
    assert found.returncode == 0
    assert "was trained by 2 processes and not by 1" in found.stderr
