"""Texts into sentences, and documents of sentences on disk."""

from pathlib import Path

import numpy as np
import pytest

from envs.errors import RllabError
from language.data.sentence_files import SentenceFile, write_sentence_file
from language.data.sentences import split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It rains. We stay!  Why? Because.", ["It rains.", "We stay!", "Why?", "Because."]),
        ("Dr. Smith met J. Doe of the U.S. Army at 9 a.m. Monday.", ["Dr. Smith met J. Doe of the U.S. Army at 9 a.m. Monday."]),
        ("So did I. You too.", ["So did I.", "You too."]),
        ("He said “Go.” She went (at last.) And he?", ["He said “Go.”", "She went (at last.)", "And he?"]),
        ("A line\nand another\n\n  \nthe end", ["A line", "and another", "the end"]),
        ("It costs 3.50 or v2.0 of it... so what... Well. 12 of them.", ["It costs 3.50 or v2.0 of it... so what...", "Well.", "12 of them."]),
        ("Él vino. Ángel no.", ["Él vino.", "Ángel no."]),
        (" \n ", []),
    ],
)  # fmt: skip
def test_texts_are_cut_into_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


def test_documents_come_back_from_their_files(tmp_path: Path) -> None:
    file = write_sentence_file(tmp_path / "part", [[[1, 2], [], [3]], [], [[]], [[4, 5, 6]]], 7)
    for opened in (file, SentenceFile.open(tmp_path / "part")):
        assert len(opened) == 2
        assert opened.documents.tolist() == [0, 2, 3]
        assert [opened.between(place, place + 1).tolist() for place in range(3)] == [[1, 2], [3], [4, 5, 6]]
        assert opened.between(0, 2).tolist() == [1, 2, 3]
        assert [opened.reaching(0, 2, tokens) for tokens in (1, 2, 3, 4)] == [1, 1, 2, 2]
        assert opened.ids.dtype == np.uint16


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    write_sentence_file(tmp_path / "one", [[[1, 2], [3]]], 7)
    np.save(tmp_path / "one" / "sentences.npy", np.array([0, 2]))
    with pytest.raises(RllabError, match="do not belong together"):
        SentenceFile.open(tmp_path / "one")
    np.save(tmp_path / "one" / "documents.npy", np.array([0.0, 2.0]))
    with pytest.raises(RllabError, match="not offsets"):
        SentenceFile.open(tmp_path / "one")
    with pytest.raises(RllabError, match="cannot be read"):
        SentenceFile.open(tmp_path / "none")
    with pytest.raises(RllabError, match="gave no tokens"):
        write_sentence_file(tmp_path / "empty", [[[]]], 7)
    assert not (tmp_path / "empty").exists()
