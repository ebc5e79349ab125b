"""SQuAD's files in both versions, and its two measures, worked by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envs.errors import RllabError
from language.tasks.squad import Answer, Question, answer_scores, exact_match, f1, normalised, read_squad

CONTEXT = "Ada Lovelace wrote the first program in 1843, Élise says."
QUESTION = Question("q1", "Who wrote it?", CONTEXT, (Answer("Ada Lovelace", 0), Answer("Lovelace", 4)))
NONE = Question("q2", "Who sings?", CONTEXT)


def document(**changes: Any) -> dict[str, Any]:
    row = {"id": "q1", "question": "Who wrote it?", "answers": [{"text": "Ada Lovelace", "answer_start": 0}], **changes}
    return {"version": "1.1", "data": [{"title": "T", "paragraphs": [{"context": CONTEXT, "qas": [row]}]}]}


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_files_of_both_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "squad.json"
    expected = Question("q1", "Who wrote it?", CONTEXT, (Answer("Ada Lovelace", 0),))
    assert read_squad(written(path, document())) == [expected]
    assert read_squad(written(path, document(is_impossible=False))) == [expected]
    impossible = document(is_impossible=True, answers=[], plausible_answers=[{"text": "1843", "answer_start": 40}])
    assert read_squad(written(path, impossible)) == [replace(expected, answers=())]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ({"data": [{"paragraphs": [{"context": "a", "qas": [{"question": "b"}]}]}]}, r"data\[0\].paragraphs\[0\].qas\[0\]: KeyError 'id'"),
        ({"data": [{"paragraphs": [{"qas": []}]}]}, r"data\[0\].paragraphs\[0\]: KeyError 'context'"),
        ([], "the document: TypeError"),
        ({"data": []}, "has no question"),
        (document(answers=[{"text": "Ada Lovelace", "answer_start": 1}]), "'Ada Lovelace' of the question q1 is not at character 1"),
        (document(answers=[{"text": "Ada", "answer_start": None}]), "TypeError"),
    ],
)  # fmt: skip
def test_a_file_of_another_format_is_refused_with_the_place(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(RllabError, match=message):
        read_squad(written(tmp_path / "squad.json", content))
    with pytest.raises(RllabError, match="cannot be read"):
        read_squad(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("The  Cat's hat!", "cats hat"),
        ("a an the", ""),
        ("An apple, a day", "apple day"),
        ("Theatre of Athens", "theatre of athens"),
        ("half-time", "halftime"),
        ("$1.5 million", "15 million"),
        ("“quoted”", "“quoted”"),  # Unicode's marks are not ASCII's
    ],
)
def test_answers_are_normalised_as_in_the_official_program(answer: str, plain: str) -> None:
    assert normalised(answer) == plain


@pytest.mark.parametrize(
    ("found", "right", "exact", "overlap"),
    [
        ("Ada Lovelace", ["Ada Lovelace", "Lovelace"], 1, 1),
        ("the Lovelace.", ["Ada Lovelace", "Lovelace"], 1, 1),
        ("Countess Ada Lovelace", ["Ada Lovelace", "Lovelace"], 0, 2 * (2 / 3) * 1 / (2 / 3 + 1)),
        ("Ada", ["Ada Lovelace"], 0, 2 / 3),
        ("in the year 1843", ["1843 in June"], 0, 2 * 2 / (3 + 3)),
        ("to be or", ["to be or not to be"], 0, 2 * 3 / (3 + 6)),
        ("to to to", ["to be to"], 0, 2 * 2 / 6),
        ("Babbage", ["Ada Lovelace"], 0, 0),
        ("", ["Ada Lovelace"], 0, 0),
        ("", [], 1, 1),
        ("Ada", [], 0, 0),
        ("", ["the"], 1, 1),
    ],
)
def test_exact_match_and_f1_are_those_worked_by_hand(
    found: str, right: list[str], exact: float, overlap: float
) -> None:
    assert exact_match(found, right) == exact
    assert f1(found, right) == pytest.approx(overlap)


def test_scores_are_means_over_questions() -> None:
    assert answer_scores(["Ada", ""], [QUESTION, NONE]) == pytest.approx((0.5, (2 / 3 + 1) / 2))
    with pytest.raises(RllabError, match="as many answers"):
        answer_scores(["Ada"], [QUESTION, NONE])
