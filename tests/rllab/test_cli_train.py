"""`rllab train` and `rllab resume`: flags become the configuration, folders are as asked for, errors are clear."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rllab.cli.main import main
from rllab.runs import Run

SMALL = ["--no-preset", "--num-envs", "2", "--rollout-steps", "64", "--minibatch-size", "64", "--epochs", "1"]
"""A PPO whose updates take no time."""
FAST = [*SMALL, "--evaluation-every", "0", "--no-tensorboard", "--quiet"]


def train(out: Path, *flags: str) -> int:
    """Train a small PPO on CartPole."""
    return main(["train", "ppo", "CartPole-v1", "--steps", "256", "--out", str(out), *FAST, *flags])


def started(*arguments: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "rllab", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_rows(run: Path) -> None:
    """Wait until a run's training is under way."""
    deadline = time.monotonic() + 120
    while not ((run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size):
        assert time.monotonic() < deadline, "the training has not begun"
        time.sleep(0.05)


def test_every_part_of_the_configuration_has_flags(tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ["--clip-range", "0.1", "--hidden-sizes", "8", "4", "--max-episode-steps", "50", "--seed", "7"]
    assert train(out, *flags, "--env-kwargs", '{"sutton_barto_reward": true}', "--target-kl", "0.5") == 0
    config = json.loads((out / "config.json").read_text())
    assert config["agent"]["clip_range"] == 0.1
    assert config["agent"]["target_kl"] == 0.5
    assert config["policy"]["hidden_sizes"] == [8, 4]
    assert config["env"]["max_episode_steps"] == 50
    assert config["env"]["env_kwargs"] == {"sutton_barto_reward": True}
    assert config["loop"]["steps"] == 256
    assert config["seed"] == 7


def test_preset_gives_the_defaults_and_can_be_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    def default_epochs(*flags: str) -> str:
        assert main(["train", "ppo", "CartPole", *flags, "--help"]) == 0
        help_text = " ".join(capsys.readouterr().out.replace("│", "").split())
        return help_text.partition("(K in the paper). (default: ")[2].partition(")")[0]

    from rllab.config import preset_for

    assert default_epochs() == str(preset_for("ppo", "CartPole-v1")["epochs"])
    assert default_epochs("--no-preset") == "4"


@pytest.mark.parametrize("agent", ["reinforce", "trpo"])
def test_every_agent_trains_and_says_what_to_do_next(
    tmp_path: Path, agent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    flags = ["--num-envs", "2", "--rollout-steps", "128", "--minibatch-size", "64", "--evaluation-episodes", "2"]
    assert main(["train", agent, "CartPole-v1", "--no-preset", *flags, "--steps", "256", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"rllab evaluate {out} --episodes 100" in printed
    assert f"rllab resume {out} --steps" in printed
    assert "Evaluation" in printed


def test_quiet_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run") == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_stop_at_ends_training_at_the_first_evaluation_that_reaches_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ["--evaluation-every", "128", "--evaluation-episodes", "2", "--stop-at", "1", "--steps", "100000"]
    assert train(out, *flags) == 0
    [*_, last] = Run.open(out).read_metrics()
    assert last["steps"] < 1000
    assert last["evaluation/return_mean"] >= 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ppo", "CartPol-v1"], "Did you mean CartPole-v1"),
        (["pp", "CartPole-v1"], "did you mean ppo?"),
        (["ppo"], "name the agent and the environment first"),
        (["ppo", "CartPole-v1", *FAST, "--minibatch-size", "100"], "does not divide into minibatches of 100"),
        (["ppo", "CartPole-v1", "--epochs", "0"], "epochs must be at least 1"),
        (["ppo", "CartPole-v1", "--seeds", "0"], "--seeds must be at least 1"),
        (["ppo", "CartPole-v1", *FAST, "--seeds", "2", "--minibatch-size", "100"], "does not divide"),
        (["ppo", "CartPole-v1", *FAST, "--env-kwargs", '{"gravy": 1}'], "takes no argument 'gravy'"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(
    tmp_path: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *arguments, "--out", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert printed.startswith("rllab: error: ")
    assert printed.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "hint"), [(["--minibatch", "64"], "--minibatch-size"), (["--env-kwargs", "3"], "not a JSON object")]
)
def test_flags_that_do_not_parse_are_usage_errors(
    flags: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "ppo", "CartPole-v1", *flags]) == 2
    assert hint in capsys.readouterr().err


def test_existing_run_is_kept_unless_overwriting_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path) == 0
    assert train(tmp_path) == 2
    assert f"rllab resume {tmp_path}" in capsys.readouterr().err
    assert train(tmp_path, "--overwrite", "--seed", "3") == 0
    assert Run.open(tmp_path).config["seed"] == 3


def test_run_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path) == 0
    with Run.open(tmp_path, lock=True):
        assert main(["resume", str(tmp_path), "--steps", "512"]) == 2
    assert "in use by another process" in capsys.readouterr().err


def test_finished_run_has_nothing_to_resume_but_trains_further_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path) == 0
    assert main(["resume", str(tmp_path)]) == 0
    assert "has trained all its steps" in capsys.readouterr().out
    assert main(["resume", str(tmp_path), "--steps", "100"]) == 2
    assert "give --steps a larger number" in capsys.readouterr().err
    assert main(["resume", str(tmp_path), "--steps", "512", "--quiet"]) == 0
    assert Run.open(tmp_path).read_metrics()[-1]["steps"] >= 512


def test_damaged_latest_checkpoint_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(out, "--checkpoint-every", "128") == 0
    *_, before, latest = Run.open(out).checkpoints.steps()
    (out / "checkpoints" / str(latest) / "arrays.safetensors").write_bytes(b"damage")
    process = started("resume", str(out), "--steps", "512", "--quiet")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert errors.startswith("rllab: warning: The checkpoint of step")
    assert f"Step {before} is used in place of step {latest}" in errors
    assert Run.open(out).read_metrics()[-1]["steps"] >= 512


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_saves_a_checkpoint_and_names_the_command_to_go_on(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "run"
    flags = [*FAST, "--steps", "10000000", "--checkpoint-every", "0", "--out", str(out)]
    process = started("train", "ppo", "CartPole-v1", *flags)
    wait_for_rows(out)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code
    assert f"rllab resume {out}" in errors
    assert "Traceback" not in errors
    saved = Run.open(out).checkpoints.latest()
    assert saved == Run.open(out).read_metrics()[-1]["steps"]
    assert main(["resume", str(out), "--steps", str(saved + 128), "--quiet"]) == 0
    assert Run.open(out).read_metrics()[-1]["steps"] >= saved + 128


def test_seeds_train_beside_each_other_and_resume_together(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs"
    flags = [flag for flag in FAST if flag != "--quiet"]
    arguments = ["train", "ppo", "CartPole-v1", *flags, "--steps", "256", "--out", str(out)]
    assert main([*arguments, "--seed", "4", "--seeds", "2", "--jobs", "2"]) == 0
    assert [Run.open(out / f"seed-{seed}").config["seed"] for seed in (4, 5)] == [4, 5]
    assert sorted(path.name for path in out.iterdir()) == ["seed-4", "seed-5"]
    assert f"rllab compare {out}" in capfd.readouterr().out

    assert main([*arguments, "--seed", "5", "--seeds", "2"]) == 2
    assert f"{out} already holds seed-5" in capfd.readouterr().err

    assert main(["resume", str(out / "seed-4"), "--steps", "384", "--quiet"]) == 0
    assert main(["resume", str(out), "--steps", "384"]) == 0
    assert "1 of 2 runs" in capfd.readouterr().out
    assert all(Run.open(out / f"seed-{seed}").read_metrics()[-1]["steps"] >= 384 for seed in (4, 5))


def test_signal_stops_all_seeds_and_says_which_had_not_begun(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    flags = [*FAST, "--steps", "10000000", "--out", str(out), "--seeds", "3", "--jobs", "1"]
    process = started("train", "ppo", "CartPole-v1", *flags)
    wait_for_rows(out / "seed-0")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"rllab resume {out}" in errors
    assert f"--seed 1 --seeds 2 --out {out}" in errors
    first = Run.open(out / "seed-0")
    assert first.checkpoints.latest() == first.read_metrics()[-1]["steps"]
