"""`rllab language sft|reward|direct|evaluate|chat`: what they print, that runs follow one another, bad input."""

import io
import json
from pathlib import Path

import pytest
from tiny_preferences import model_folder, records, written
from tiny_texts import LETTERS, gpt, tokenizer

from envs.errors import RllabError
from language.cli import chat, direct, evaluate, reward, sft
from language.decoding import DecodingConfig
from language.models.folder import load_model, save_model
from language.preferences.chat import ChatTemplate
from language.preferences.data import TextsConfig, read_demonstrations
from language.tokenizers.character import CharacterLevel, CharacterLevelConfig
from language.tokenizers.special import SpecialTokens

SHORT = [
    "--steps",
    "12",
    "--learning-rate",
    "0.003",
    "--batch-size",
    "8",
    "--evaluation-every",
    "6",
    "--no-tensorboard",
]
NEW = ["--maximum-new-tokens", "8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("commands")
    model_folder(path / "model")
    written(path / "pairs.jsonl", records())
    return path


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Path:
    """A reward model."""
    out = folder / "scorer"
    arguments = [str(folder / "model"), str(folder / "pairs.jsonl"), *SHORT, "--normalise-tokens", "8", "--quiet"]
    assert reward.command([*arguments, "--out", str(out)]) == 0
    return out


def test_supervised_tuning_then_comparisons_then_a_judge(
    folder: Path, scorer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, tuned, preferred = str(folder / "pairs.jsonl"), tmp_path / "sft", tmp_path / "dpo"
    assert sft.command([str(folder / "model"), pairs, *SHORT, "--out", str(tuned)]) == 0
    printed = capsys.readouterr().out
    assert "84 learnt from" in printed
    assert "perplexity" in printed
    assert f"rllab language direct {tuned} FILE" in printed
    assert (
        direct.command([str(tuned), pairs, *SHORT, "--method", "ipo", "--kl-tokens", "8", "--out", str(preferred)]) == 0
    )
    printed = capsys.readouterr().out
    assert "held-out better responses have the higher reward" in printed
    assert "nats a response from the reference" in printed
    assert evaluate.command([
        str(preferred), "--reference", str(tuned), "--prompts", pairs, "--reward", f"model:{scorer}", *NEW,
        "--best-of", "3", "--write-best", str(tmp_path / "best.jsonl"), "--samples", "2",
    ]) == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert f"{tuned} (reference)" in printed
    assert "Wins" in printed
    assert "0.43 nats" in printed  # log 3 − 2/3
    best = read_demonstrations(TextsConfig((str(tmp_path / "best.jsonl"),))).items
    assert 0 < len(best) <= 16
    assert (
        sft.command([str(tuned), str(tmp_path / "best.jsonl"), *SHORT, "--out", str(tmp_path / "again"), "--quiet"])
        == 0
    )
    assert capsys.readouterr().out == ""


def test_a_reward_model_is_reported_beside_length_and_cross_validated(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(folder / "model"), str(folder / "pairs.jsonl"), *SHORT, "--normalise-tokens", "8"]
    assert reward.command([*arguments, "--out", str(tmp_path / "run"), "--members", "2"]) == 0
    printed = capsys.readouterr().out
    for words in ("reward model", "length alone", "Calibration error", "12 held out", "Spearman"):
        assert words in printed
    assert reward.command([*arguments, "--folds", "3"]) == 0
    printed = capsys.readouterr().out
    assert "fold 3: accuracy" in printed
    assert "96 cross-validated in 3 folds" in printed


def test_models_are_judged_without_reward_or_reference(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "prompts.txt").write_text("ab c dead\nface\nface\n")
    arguments = [str(folder / "model"), "--prompts", str(folder / "prompts.txt"), *NEW, "--prompt-words", "2"]
    assert evaluate.command(arguments) == 0
    printed = capsys.readouterr().out
    assert "ab c" in printed
    assert "dead" not in printed
    assert evaluate.command([*arguments, "--samples", "0"]) == 0
    assert "Response" not in capsys.readouterr().out


def talking(path: Path) -> Path:
    """A model whose letters suffice for turns."""
    letters = CharacterLevel.train(
        [LETTERS, "user: assistant: system:\n"],
        CharacterLevelConfig(special=SpecialTokens(unknown="<unk>", end="<end>")),
    )
    save_model(path, gpt().__class__(gpt().config.__class__(len(letters), 96, 1, 2, 16)), letters)
    return path


def test_a_conversation_is_answered_turn_by_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("ab\nface\n"))
    assert chat.command([str(talking(tmp_path)), "--maximum-new-tokens", "12"]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 2


def test_earlier_turns_are_left_out_until_an_answer_fits_but_never_what_the_system_says(tmp_path: Path) -> None:
    model, letters = load_model(talking(tmp_path))
    talk = chat.Conversation(model, letters, ChatTemplate(), DecodingConfig(maximum_new_tokens=20), "be bad")  # type: ignore[arg-type]
    said = []
    for _ in range(4):
        list(talk.answer("a face"))
        said.append(letters.decode(talk.prompt()))
    assert all(text.startswith("system: be bad\n") for text in said)
    assert all(text.endswith("assistant:") or "assistant:" in text for text in said)
    assert len(talk.turns) == 8
    assert len(talk.prompt()) <= 96 - 20
    with pytest.raises(RllabError, match="say less"):
        list(talk.answer("a" * 90))
    with pytest.raises(RllabError, match="beam search"):
        chat.Conversation(model, letters, ChatTemplate(), DecodingConfig(beams=2))  # type: ignore[arg-type]


def test_the_same_seed_says_the_same(tmp_path: Path) -> None:
    model, letters = load_model(talking(tmp_path))
    texts = []
    for _ in range(2):
        talk = chat.Conversation(model, letters, ChatTemplate(), DecodingConfig(maximum_new_tokens=20, seed=5))  # type: ignore[arg-type]
        texts.append(["".join(talk.answer("face")), "".join(talk.answer("bad"))])
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([{"prompt": "a", "chosen": "b", "rejected": "b"}], "Record 1 .*both responses are the same"),
        ([{"prompt": "a", "chosen": "", "rejected": "b"}], "Record 1 .*chosen response is empty"),
        ([{"prompt": "a", "answer": "b"}], "Record 1 .*no format of preferences"),
        ([{"prompt": "a", "chosen": "b", "rejected": "c"}], "All texts have the same prompt"),
        (
            [{"prompt": f"{'a' * 30}{x}", "chosen": "b", "rejected": "c"} for x in "ab"],
            "All 2 comparisons are longer than the model's context of 24",
        ),
    ],
)
def test_data_that_cannot_be_learnt_from_are_said_in_a_sentence_and_leave_no_run(
    records: list[dict[str, str]], words: str, folder: Path, tmp_path: Path
) -> None:
    path = written(tmp_path / "pairs.jsonl", records)
    with pytest.raises(RllabError, match=words):
        direct.command([str(folder / "model"), str(path), *SHORT, "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_models_that_cannot_do_it_are_said_in_a_sentence(folder: Path, scorer: Path, tmp_path: Path) -> None:
    pairs, model = str(folder / "pairs.jsonl"), str(folder / "model")
    for run in (sft, direct):
        with pytest.raises(RllabError, match="holds no trained model"):
            run.command([str(tmp_path), pairs])
        with pytest.raises(RllabError, match="A TextRewardModel cannot be fine-tuned"):
            run.command([str(scorer), pairs])
    with pytest.raises(RllabError, match="A TextRewardModel cannot become a reward model"):
        reward.command([str(scorer), pairs])
    with pytest.raises(RllabError, match="writes no text"):
        chat.command([str(scorer)])
    with pytest.raises(RllabError, match="There is no file"):
        sft.command([model, str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "run")])
    other = CharacterLevel.train(["hgfedcba "], CharacterLevelConfig(special=SpecialTokens(unknown="<u>", end="<end>")))
    assert len(other) == len(tokenizer())
    save_model(tmp_path / "other", gpt(), other)
    with pytest.raises(RllabError, match="have different tokenizers"):
        evaluate.command([model, "--reference", str(tmp_path / "other"), "--prompts", pairs])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Name at least one model"),
        (["MODEL"], "Name prompts"),
        (["MODEL", "--prompts", "PAIRS", "--best-of", "2"], "needs a --reward"),
        (["MODEL", "--prompts", "PAIRS", "--write-best", "x"], "say of how many"),
        (["MODEL", "--prompts", "PAIRS", "--prompt-field", "question"], "Record 1 of .* has no text under 'question'"),
        (["MODEL", "--prompts", "PAIRS", "--reward", "unknown:x"], "There is no reward 'unknown'"),
    ],
)
def test_what_an_evaluation_lacks_is_said_in_a_sentence(arguments: list[str], words: str, folder: Path) -> None:
    named = {"MODEL": str(folder / "model"), "PAIRS": str(folder / "pairs.jsonl")}
    with pytest.raises(RllabError, match=words):
        evaluate.command([named.get(argument, argument) for argument in arguments])


@pytest.mark.parametrize("command", [sft, reward, direct, evaluate, chat])
def test_help_is_printed_and_unknown_flags_are_a_usage_error(
    command: object, capsys: pytest.CaptureFixture[str]
) -> None:
    run = command.command  # type: ignore[attr-defined]
    with pytest.raises(SystemExit) as ended:
        run(["--help"])
    assert ended.value.code == 0
    assert "usage: rllab language" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        run(["model", "--no-such-flag"])
    assert ended.value.code == 2


def test_faulty_records_are_dropped_and_counted_if_asked_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*records(32), {"prompt": "a", "chosen": "b", "rejected": "b"}]
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(rows))
    arguments = [str(folder / "model"), str(path), *SHORT, "--faulty", "drop", "--kl-responses", "0"]
    assert direct.command([*arguments, "--out", str(tmp_path / "run")]) == 0
    assert "1 of no use" in capsys.readouterr().out
