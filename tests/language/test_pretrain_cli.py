"""`rllab language pretrain` and `generate`: a run that can be gone on with, text as it comes, clear refusals."""

import io
import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up import sentence

from envs.errors import RllabError
from language.cli.main import command
from language.models.folder import load_model, save_model
from language.models.gpt import GPT
from language.models.huggingface import save_gpt
from language.models.mixture_of_experts import MixtureConfig, MixtureOfExperts
from language.tokenizers.byte_bpe import ByteLevelBPE, ByteLevelBPEConfig
from language.training.language_modelling import LanguageModelling
from language.training.problem import Loss
from rllab.cli.main import main
from rllab.experiment import resume
from rllab.runs import Run

SIZE = [
    "--layers", "1", "--heads", "2", "--width", "16", "--context", "32", "--length", "16", "--vocabulary-size", "300",
    "--batch-size", "4", "--steps", "6", "--warmup", "2", "--evaluation-every", "3", "--checkpoint-every", "2",
]  # fmt: skip


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of made-up sentences, enough for each part of the split."""
    chosen = random.Random(0)
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(sentence(chosen, 12) for _ in range(400)))
    return path


@pytest.fixture(scope="module")
def trained(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert command(["pretrain", "gpt", str(texts), "--out", str(out), "--quiet", *SIZE]) == 0
    return out


def test_a_run_has_what_the_agents_runs_have_and_the_model(trained: Path) -> None:
    run = Run.open(trained)
    assert [row["steps"] for row in run.read_metrics()] == [1, 2, 3, 4, 5, 6]
    assert run.checkpoints.latest() == 6
    model, tokenizer = load_model(trained)
    assert model.config.vocabulary_size == len(tokenizer) == run.config["model"]["vocabulary_size"] == 300
    assert not model.training


def test_a_finished_run_goes_on_with_more_steps_as_one_that_had_them_from_the_start(
    texts: Path, tmp_path: Path
) -> None:
    arguments = ["pretrain", "gpt", str(texts), "--quiet", "--schedule", "constant", *SIZE]
    command([*arguments, "--out", str(tmp_path / "short"), "--steps", "4"])
    resume(tmp_path / "short", steps=6, quiet=True)
    command([*arguments, "--out", str(tmp_path / "long")])
    ours, theirs = (load_model(tmp_path / name)[0].state_dict() for name in ("short", "long"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_that_goes_on_ends_with_what_it_would_have_said_uninterrupted(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["language", "pretrain", "gpt", str(texts), "--schedule", "constant", *SIZE]
    assert main([*arguments, "--out", str(tmp_path / "long")]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Test")]
    assert main([*arguments, "--out", str(tmp_path / "short"), "--steps", "4", "--quiet"]) == 0
    assert main(["resume", str(tmp_path / "short"), "--steps", "6"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("Test")] == said
    assert len(said) == 2


def test_text_is_written_for_prompts_and_for_lines(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(["generate", str(trained), "--prompt", "the film", "--maximum-new-tokens", "8"]) == 0
    written = capsys.readouterr().out
    assert written.startswith("the film")
    assert written.endswith("\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("the film\n"))
    assert command(["generate", str(trained), "--maximum-new-tokens", "8"]) == 0
    assert capsys.readouterr().out == written
    assert command(["generate", str(trained), "--prompt", "the film", "--temperature", "0", "--beams", "2"]) == 0


def test_what_cannot_work_is_one_sentence_with_exit_code_2(
    trained: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short.txt").write_text("one line\n")
    other = tmp_path / "tokenizer"
    ByteLevelBPE.train([texts.read_text()], ByteLevelBPEConfig(280)).save(other)
    cases = {
        "there are gpt": ["pretrain", "elephant"],
        "longer than the model's context": ["pretrain", "gpt", str(texts), *SIZE, "--length", "64"],
        "3 heads do not divide": ["pretrain", "gpt", str(texts), *SIZE, "--heads", "3"],
        "Of 2 experts no 3 can be chosen": [
            "pretrain", "gpt", str(texts), *SIZE, "--experts", "2", "--experts-a-token", "3",
        ],
        "experts_every must lie from 1 to 1 layers": ["pretrain", "gpt", str(texts), *SIZE, "--experts", "2"],
        "already holds a run": ["pretrain", "gpt", str(texts), "--out", str(trained), *SIZE],
        "--vocabulary-size 300 does not match": [
            "pretrain", "transformer-lm", str(texts), "--tokenizer", str(other), *SIZE,
        ],
        "holds no trained model": ["generate", str(tmp_path), "--prompt", "a"],
        "No text falls into": [
            "pretrain", "gpt", str(tmp_path / "short.txt"), "--out", str(tmp_path / "r"), "--tokenizer",
            str(trained / "tokenizer"), *SIZE,
        ],
    }  # fmt: skip
    for said, arguments in cases.items():
        assert main(["language", *arguments]) == 2, said
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error


def test_a_run_that_has_not_come_to_its_end_is_said_to_be_one_to_go_on_with(trained: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("model"))
    with pytest.raises(RllabError, match="not come to its end.* `rllab resume"):
        load_model(tmp_path / "run")


def test_a_gpt_with_experts_is_trained_with_their_losses_and_read_again(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    experts = ["--layers", "2", "--experts", "4", "--experts-a-token", "1"]
    assert command(["pretrain", "gpt", str(texts), "--out", str(out), "--quiet", *SIZE, *experts]) == 0
    assert all(row["auxiliary_loss"] > 0 for row in Run.open(out).read_metrics())
    model, _ = load_model(out)
    assert isinstance(model, GPT)
    assert [isinstance(block.feed_forward, MixtureOfExperts) for block in model.blocks] == [False, True]
    assert model.blocks[1].feed_forward.config == MixtureConfig(16, 64, experts=4, k=1)
    assert command(["generate", str(out), "--prompt", "the film", "--maximum-new-tokens", "3"]) == 0
    assert command(["inspect", str(out)]) == 0
    assert "Gets more often" in capsys.readouterr().out
    with pytest.raises(RllabError, match="transformers' GPT has no experts"):
        save_gpt(model, tmp_path / "exported")


def test_a_training_that_diverges_keeps_its_best_model_to_begin_from(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, loss = [], LanguageModelling.loss

    def diverging(self: LanguageModelling, model: Any, batch: Any) -> Loss:
        calls.append(batch)
        found = loss(self, model, batch)
        return replace(found, total=found.total * math.nan) if len(calls) == 5 else found

    monkeypatch.setattr(LanguageModelling, "loss", diverging)
    out = tmp_path / "run"
    assert main(["language", "pretrain", "gpt", str(texts), "--out", str(out), "--quiet", *SIZE]) == 2
    assert f"Lower the learning rate, or clip gradients. {out} keeps the model" in capsys.readouterr().err
    best = Run.open(out).checkpoints.load(3)[1]["model"]  # evaluated after 3 steps
    assert all(torch.equal(best[name], tensor) for name, tensor in load_model(out)[0].state_dict().items())
    again = ["--initial", str(out), "--learning-rate", "1e-4", "--steps", "2", "--length", "16", "--quiet"]
    assert command(["pretrain", "gpt", str(texts), "--out", str(tmp_path / "again"), *again]) == 0


def test_a_model_that_could_not_be_read_again_is_not_written(trained: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(trained)
    experts = MixtureOfExperts(MixtureConfig(width=16, feed_forward_width=16, experts=4, k=2))
    with pytest.raises(RllabError, match="other parts than a gpt of its configuration"):
        save_model(tmp_path / "model", GPT(model.config, {0: experts}), tokenizer)
    assert not (tmp_path / "model").exists()


def test_a_model_with_another_tokenizer_is_refused(trained: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(trained / "model", copy)
    document = json.loads((copy / "model.json").read_text())
    document["config"]["vocabulary_size"] = 301
    (copy / "model.json").write_text(json.dumps(document))
    with pytest.raises(RllabError, match="damaged"):
        load_model(copy)
