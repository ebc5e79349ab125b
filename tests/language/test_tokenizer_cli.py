"""`rllab language tokenizer`: train, encode, decode, inspect, and what it says of bad input."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from envs.errors import RllabError
from language.cli.main import command

KINDS = ["word", "character", "byte", "bpe", "byte-bpe", "wordpiece"]
TEXT = "the film is the best film of the year\nno better film than the film of the year\n"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def train(kind: str, corpus: Path, *flags: str) -> Path:
    folder = corpus.parent / kind
    size = () if kind == "byte" else ("--vocabulary-size", "300")
    assert command(["tokenizer", "train", kind, str(corpus), *size, "--out", str(folder), "--quiet", *flags]) == 0
    return folder


def with_input(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_trained_and_decodes_what_it_has_encoded(
    kind: str, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(kind, corpus)
    assert capsys.readouterr().out == ""
    with_input(monkeypatch, TEXT.encode())
    assert command(["tokenizer", "encode", str(folder)]) == 0
    ids = capsys.readouterr().out
    assert len(ids.splitlines()) == 2
    with_input(monkeypatch, ids.encode())
    assert command(["tokenizer", "decode", str(folder)]) == 0
    assert capsys.readouterr().out == TEXT
    assert command(["tokenizer", "inspect", str(folder), str(corpus), "--text", "the film"]) == 0
    shown = capsys.readouterr().out
    tokens = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert f"Tokens       {len(tokens)}" in shown
    assert "2 texts, 77 characters" in shown
    assert "Longest tokens" in shown


def test_compression_is_characters_over_tokens(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train("word", corpus)
    command(["tokenizer", "inspect", str(folder), str(corpus)])
    # 37 + 40 characters, 9 + 9 words.
    assert "Compression  4.278 characters or 4.278 bytes a token" in capsys.readouterr().out


def test_flags_are_the_fields_of_the_kinds_configuration(corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    folder = train("bpe", corpus, "--normaliser", "lowercase", "--end", "<end>", "--end-of-word", "")
    settings = json.loads((folder / "rllab.json").read_text(encoding="utf-8"))["settings"]
    assert (settings["normaliser"], settings["special"]) == ("lowercase", {"unknown": "<unk>", "end": "<end>"})
    with_input(monkeypatch, b"THE<end>")
    command(["tokenizer", "encode", str(folder), "--tokens", "--engine", "python"])
    assert capsys.readouterr().out == "the <end>\n"
    with_input(monkeypatch, b"1 0 1")
    command(["tokenizer", "decode", str(folder), "--keep-special"])
    assert capsys.readouterr().out == "<end> <unk> <end>\n"


def test_training_says_what_it_made_and_how_to_go_on(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = corpus.parent / "new"
    command(["tokenizer", "train", "word", str(corpus), "--out", str(folder)])
    shown = capsys.readouterr().out
    assert "word, 10 tokens" in shown
    assert f"rllab language tokenizer inspect {folder}" in shown


def test_help_lists_subcommands_and_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["--help"]) == 0
    assert command(["tokenizer", "--help"]) == 0
    assert command(["tokenizer", "train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("tokenizer", "vectors", "inspect", "sentencepiece-unigram", *KINDS))
    assert command([]) == 2
    assert command(["tokenizer"]) == 2
    with pytest.raises(SystemExit) as ended:
        command(["tokenizer", "train", "wordpiece", "--help"])
    assert ended.value.code == 0
    assert "--longest-word" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tokeniser"], "no subcommand 'tokeniser' of language; did you mean tokenizer"),
        (["--quiet"], "no option '--quiet' here"),
        (["tokenizer", "enocde"], "did you mean encode"),
        (["tokenizer", "train"], "name the kind of tokenizer first"),
        (["tokenizer", "train", "bep"], "did you mean bpe"),
        (["tokenizer", "train", "bpe", "--out", "x"], "Give files, or a data set by --data"),
        (["tokenizer", "train", "bpe", "nowhere.txt", "--out", "x"], "no file nowhere.txt"),
        (["tokenizer", "encode", "nowhere"], "There is no tokenizer in nowhere"),
    ],
)  # fmt: skip
def test_wrong_commands_are_told_in_a_sentence(arguments: list[str], sentence: str) -> None:
    with pytest.raises(RllabError, match=sentence):
        command(arguments)


def test_a_corpus_that_is_empty_or_not_utf8_is_refused(corpus: Path) -> None:
    corpus.write_bytes(b"")
    with pytest.raises(RllabError, match="corpus is empty"):
        train("bpe", corpus)
    corpus.write_bytes(b"ab\ncd\xff\n")
    with pytest.raises(RllabError, match=r"not UTF-8: byte 0xff at position 5 \(line 2\)"):
        train("bpe", corpus)
    train("bpe", corpus, "--errors", "replace")


def test_wrong_input_is_refused_with_its_place(corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    folder = train("byte", corpus)
    with_input(monkeypatch, b"fine\nno\xe9\n")
    with pytest.raises(RllabError, match=r"byte 0xe9 at position 7 \(line 2\)"):
        command(["tokenizer", "encode", str(folder)])
    with_input(monkeypatch, b"n\xe9\n")
    capsys.readouterr()
    command(["tokenizer", "encode", str(folder), "--errors", "ignore"])
    assert capsys.readouterr().out == "110\n"
    with_input(monkeypatch, b"1 2\n1 two\n")
    with pytest.raises(RllabError, match="Line 2 has something other than ids"):
        command(["tokenizer", "decode", str(folder)])
    with_input(monkeypatch, b"1 256\n")
    with pytest.raises(RllabError, match="Line 1: There is no token with the id 256"):
        command(["tokenizer", "decode", str(folder)])
