"""`rllab language vectors …`, from text to picture."""

from pathlib import Path

import numpy as np
import pytest

from envs.errors import RllabError
from language.cli.vectors import command
from language.embeddings.formats import load_vectors


@pytest.fixture
def text(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    topics = (["good", "film", "actor", "scene"], ["bread", "butter", "oven", "flour"])
    path = tmp_path / "text.txt"
    path.write_text("".join(" ".join(generator.choice(topics[line % 2], 8)) + "\n" for line in range(200)))
    return path


@pytest.mark.parametrize(
    "options", [[], ["--model", "cbow", "--objective", "hierarchical-softmax"], ["--model", "glove"]]
)
def test_vectors_are_learnt_and_asked_for(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    out = tmp_path / "vectors.bin"
    assert command(["train", str(text), "--out", str(out), "--dimensions", "8", "--epochs", "20", *options]) == 0
    assert f"nearest {out} good" in capsys.readouterr().out
    assert load_vectors(out).matrix.shape == (8, 8)
    assert command(["nearest", str(out), "good", "oven", "--count", "3"]) == 0
    assert capsys.readouterr().out.count("\n") >= 8
    assert command(["analogy", str(out), "good", "film", "bread", "--method", "3cosmul", "--count", "2"]) == 0
    assert "good is to film as bread is to" in capsys.readouterr().out
    assert command(["plot", str(out), "--out", str(tmp_path / "picture.png"), "--words", "good", "film", "oven"]) == 0
    assert (tmp_path / "picture.png").exists()
    assert command(["plot", str(out), "--out", str(tmp_path / "projector"), "--projector"]) == 0
    assert (tmp_path / "projector" / "metadata.tsv").exists()
    assert command(["evaluate", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "analogies: all" in printed
    assert "similarity: simlex999" in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nearest", "VECTORS", "goood"], "did you mean good"),
        (["nearest", "absent.bin", "good"], "absent.bin cannot be read"),
        (["train", "--out", "x.txt"], "Give files, or a data set"),
        (["train", "absent.txt", "--out", "x.txt"], "There is no file absent.txt"),
        (["train", "TEXT", "--out", "x.txt", "--minimum-count", "1000000"], "lower the minimum count"),
        (["train", "TEXT", "--out", "x.txt", "--epochs", "0"], "epochs must be at least 1"),
        (["lern"], "did you mean learn|there are train"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    vectors = tmp_path / "vectors.txt"
    if "VECTORS" in arguments:
        command(["train", str(text), "--out", str(vectors), "--epochs", "1", "--quiet"])
    named = [{"VECTORS": str(vectors), "TEXT": str(text)}.get(argument, argument) for argument in arguments]
    with pytest.raises(RllabError, match=sentence):
        command(named)


def test_the_help_names_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in ("train", "nearest", "analogy", "plot", "evaluate"))
    assert command([]) == 2
