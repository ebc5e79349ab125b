"""A reward of texts that is learnt beside tuning: from synthetic teachers, exactly, and whatever fails meanwhile."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_teaching import SCORE, model_and_prompts, questions, tuning
from tiny_texts import RESPONSE, policy, share_of_a, tokenizer

from envs.errors import RllabError
from language.cli.tune import command
from language.models.folder import load_model
from language.preferences.data import TextsConfig, read_comparisons
from language.preferences.rewards import make_reward
from language.preferences.teaching import TextTeaching
from language.preferences.teaching_config import TeacherFlaws
from language.preferences.text_evaluation import read_evaluations
from language.preferences.tune import REWARD_FOLDER, resume, tune
from language.preferences.tuning_config import TuneConfig
from preference.comparisons import Label
from preference.exchange import export_store
from preference.experiment import STORE_FILE
from preference.store import Store, Task
from preference.teachers import SCORING
from rllab.runs import Run

TIMED = {"seconds", "steps_per_second"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_and_prompts(tmp_path_factory.mktemp("teaching"))


def test_a_teachers_labels_alone_raise_its_true_score(folder: Path, tmp_path: Path) -> None:
    run = tune(tuning(folder, 1500, labels=80, every=750, reward_epochs=4), tmp_path / "run", quiet=True)
    gold = [row["gold"] for row in read_evaluations(run.path)]
    untaught = questions().responses(policy(), 200)
    assert np.mean(share_of_a(*zip(*untaught, strict=True))) < 0.2
    assert gold[-1] > 0.4
    rows = Run.open(run.path).read_metrics()
    assert 70 <= rows[-1]["reward/labels"] == rows[-1]["reward/asked"] <= 80  # at the end it writes few others
    assert "reward/fits" in rows[0]
    # The model of the reward is one like others.
    assert len(load_model(run.path / REWARD_FOLDER)[1]) == len(tokenizer())
    reward = make_reward((f"model:{run.path / REWARD_FOLDER}",))
    many, none = reward(["ab", "ab"], ["aaaaaaaa", "hhhhhhhh"])
    assert many > none + 1
    assert TuneConfig.from_json(Run.open(run.path).config) == run.config


def test_only_the_order_of_true_scores_reaches_what_learns(folder: Path, tmp_path: Path) -> None:
    """A teacher that never errs says the same of scores that are 7 times as large: the run is the same, bit for bit."""
    runs = [
        tune(tuning(folder, 500, f"{weight}{SCORE}", every=250), tmp_path / f"run{weight}", quiet=True)
        for weight in ("", "7*")
    ]
    assert torch.equal(runs[0].policy.flat, runs[1].policy.flat)
    rows = [Run.open(run.path).read_metrics() for run in runs]
    left_out = TIMED | {"evaluation/return_mean", "evaluation/return_std"}  # by the true scores
    assert [{k: v for k, v in row.items() if k not in left_out} for row in rows[0]] == [
        {k: v for k, v in row.items() if k not in left_out} for row in rows[1]
    ]
    with Store.open(runs[0].path / STORE_FILE) as store:
        found = store.comparisons().added
        assert len(found) == 60
        assert {item.answer.annotator for item in found} == {SCORING}
        for text in store.clips({clip for item in found for clip in (item.pair.first, item.pair.second)}):
            assert set(text.details) == {"prompt", "response"}
            assert not text.arrays


@pytest.mark.parametrize("agent", ["ppo", "trpo", "reinforce"])
def test_a_run_goes_on_bit_for_bit_as_if_it_had_never_stopped(agent: str, folder: Path, tmp_path: Path) -> None:
    flaws = TeacherFlaws(teacher_beta=20.0, teacher_mistakes=0.1)
    whole = tuning(
        folder, 1200, agent=agent, every=600, flaws=flaws, labels=40, reward_members=2, reward_epochs=1,
        rate_decay=200.0,
    )  # fmt: skip
    straight = tune(whole, tmp_path / "straight", quiet=True)
    broken = tmp_path / "broken"
    # Dies between two checkpoints, after further questions and fits.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextTeaching, "after_update", dying(after=4))
        with pytest.raises(Enough):
            tune(whole, broken, quiet=True)
    saved, state = Run.open(broken).checkpoints.load()
    with Store.open(broken / STORE_FILE) as store:
        assert store.progress().answered > state["callbacks"][0]["questions"]["asked"] > 0
    assert 0 < saved < straight.steps
    resumed = resume(broken, quiet=True)
    assert torch.equal(straight.policy.flat, resumed.policy.flat)
    ours, theirs = (Run.open(tmp_path / name).read_metrics() for name in ("broken", "straight"))
    assert [{k: v for k, v in row.items() if k not in TIMED} for row in ours] == [
        {k: v for k, v in row.items() if k not in TIMED} for row in theirs
    ]
    answers = []
    for name in ("broken", "straight"):
        with Store.open(tmp_path / name / STORE_FILE) as store:
            answers.append([(item.pair, item.answer) for item in store.comparisons().added])
    assert answers[0] == answers[1]


class Enough(Exception):
    """Ends a run as nothing that it knows of would."""


def dying(after: int) -> Any:
    """`TextTeaching.after_update`, of which a call after so many raises."""
    real, calls = TextTeaching.after_update, [0]

    def after_update(self: TextTeaching, *arguments: Any) -> None:
        calls[0] += 1
        if calls[0] > after:
            raise Enough
        real(self, *arguments)

    return after_update


class Failing:
    """A teacher that is gone after some calls."""

    calls = 0

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        Failing.calls += 1
        if Failing.calls > 4:
            raise TimeoutError("no answer\nfrom the judge")
        return share_of_a(prompts, responses)


failing = Failing()


def test_a_teacher_that_fails_in_mid_run_stops_it_with_a_sentence_and_a_good_checkpoint(
    folder: Path, tmp_path: Path
) -> None:
    sys.modules["failing_teacher"] = sys.modules[__name__]
    config = tuning(folder, 3000, "python:failing_teacher:failing", every=1, rate_decay=200.0)
    config = replace(config, loop=replace(config.loop, evaluation_every=0))
    with pytest.raises(RllabError, match=r"^The teacher could not answer\. .*TimeoutError: no answer from the judge"):
        tune(config, tmp_path / "run", quiet=True)
    run = Run.open(tmp_path / "run")
    steps = run.checkpoints.latest()
    assert steps == int(run.read_metrics()[-1]["steps"]) > 0
    with Store.open(tmp_path / "run" / STORE_FILE) as store:
        kept = store.progress().answered
        assert kept >= 15
    Failing.calls = -10_000
    again = resume(tmp_path / "run", steps=steps + 600, quiet=True)
    assert again.steps >= steps + 600
    with Store.open(tmp_path / "run" / STORE_FILE) as store:
        assert store.progress().answered > kept


def test_what_was_answered_survives_a_kill(folder: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from tiny_teaching import tuning\nfrom language.preferences.tune import tune\n"
        "config = tuning(Path(sys.argv[2]), 1000, every=200, labels=30, reward_epochs=1, rate_decay=500.0)\n"
        "tune(config, Path(sys.argv[3]), quiet=True)\n"
    )
    target = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", program, str(Path(__file__).parent), str(folder), str(target)])
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if any(int(path.name) > 0 for path in (target / "checkpoints").glob("[0-9]*")):
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with Store.open(target / STORE_FILE) as store:
        before = store.comparisons().added
        texts = store.clips({each for item in before for each in (item.pair.first, item.pair.second)})
        assert len(before) >= 8
        assert all(text.details["response"] for text in texts)
    assert resume(target, quiet=True).steps >= 1000
    with Store.open(target / STORE_FILE) as store:
        after = store.comparisons().added
    assert after[: len(before)] == before
    assert len(before) < len(after) == 30
    steps = [row["steps"] for row in Run.open(target).read_metrics()]
    assert steps == sorted(set(steps))


def test_comparisons_leave_the_store_as_prompt_chosen_and_rejected(folder: Path, tmp_path: Path) -> None:
    run = tune(tuning(folder, 200, labels=20), tmp_path / "run", quiet=True)
    with Store.open(run.path / STORE_FILE) as store:
        export_store(store, tmp_path / "pairs.jsonl", "chosen")
        found = store.comparisons().added
    ties = sum(item.answer.label is Label.TIE for item in found)
    read = read_comparisons(TextsConfig((str(tmp_path / "pairs.jsonl"),))).items
    assert len(read) == len(found) - ties > 0
    assert all(share_of_a([], [each.first]) > share_of_a([], [each.second]) for each in read)


def test_what_cannot_work_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = [
        str(folder / "model"), "--prompts", str(folder / "prompts.txt"), "--prompt-tokens", "0", "--maximum-new-tokens",
        str(RESPONSE), "--responses", "8", "--minibatch-responses", "4", "--steps", "150", "--no-tensorboard", "--out",
        str(out),
    ]  # fmt: skip
    cases: dict[str, list[str]] = {
        "or who compares": [],
        "either given or learnt": ["--teacher", "human", "--reward", SCORE],
        "add --teacher human": ["--reward", SCORE, "--labels", "3"],
        "People answer by themselves": ["--teacher", "human", SCORE],
        "People judge as they do": ["--teacher", "human", "--teacher-beta", "2"],
        "There is no reward 'praise'": ["--teacher", "praise:much"],
        "disagrees with nobody": ["--teacher", SCORE, "--queries", "disagreement"],
        "no coverage": ["--teacher", SCORE, "--queries", "coverage", "--reward-members", "2"],
        "no query strategy": ["--teacher", SCORE, "--queries", "best"],
        "labels must be at least 1": ["--teacher", SCORE, "--labels", "0"],
        "mistake_rate must be from 0 to 1": ["--teacher", SCORE, "--teacher-mistakes", "2"],
        "reward_held_out": ["--teacher", SCORE, "--reward-held-out", "1"],
        "reward_normalise": ["--teacher", SCORE, "--reward-normalise", "1"],
    }
    for words, more in cases.items():
        with pytest.raises(RllabError, match=words):
            command([*arguments, *more])
        assert not out.exists()


def test_a_model_that_always_writes_the_same_gives_nothing_to_compare(folder: Path, tmp_path: Path) -> None:
    config = tuning(folder, 200)
    config = replace(config, drawing=replace(config.drawing, temperature=1e-4))
    with pytest.raises(RllabError, match="nothing to compare; raise the --temperature"):
        tune(config, tmp_path / "run", quiet=True)


def test_a_teacher_to_whom_all_is_equal_teaches_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RllabError, match="All 10 questions are answered, and no reward can be learnt: all 10 .* ties"):
        tune(tuning(folder, 200, "keywords:zebra", labels=10), tmp_path / "run", quiet=True)


def test_a_store_of_clips_is_not_one_of_texts(folder: Path, tmp_path: Path) -> None:
    Store.open(tmp_path / "clips.sqlite", Task("CartPole-v1")).close()
    config = tuning(folder, 200, store=str(tmp_path / "clips.sqlite"))
    with pytest.raises(RllabError, match="it is of clips, not of texts"):
        tune(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_the_command_says_who_compares(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert command([
        str(folder / "model"), "--prompts", str(folder / "prompts.txt"), "--prompt-tokens", "0", "--maximum-new-tokens",
        str(RESPONSE), "--responses", "8", "--minibatch-responses", "4", "--steps", "150", "--evaluation-every", "100",
        "--no-tensorboard", "--out", str(out), "--teacher", SCORE, "2*length:1", "--labels", "20",
        "--reward-normalise", "32",
    ]) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert "prefers in 20 comparisons" in said
    assert "Comparisons" in said
    assert "--format chosen" in said
