"""Questions on paragraphs: files in SQuAD's format, and its two measures.

Rajpurkar et al. 2016, "SQuAD: 100,000+ questions for machine comprehension of text" (section 6.1 has the measures), and
Rajpurkar, Jia, Liang 2018, "Know what you don't know" (version 2.0, where questions may have no answer).
"""

import json
import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from envs.errors import RllabError

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Answer(NamedTuple):
    """An answer that people gave."""

    text: str
    """A part of the context."""
    start: int
    """Its first character there."""


@dataclass(frozen=True)
class Question:
    """A question on a text."""

    name: str
    """Its `id`."""
    question: str
    """What is asked."""
    context: str
    """The text that is to have the answer."""
    answers: tuple[Answer, ...] = ()
    """Those that people gave; none where the text has no answer."""

    def __post_init__(self) -> None:
        for text, start in self.answers:
            if not text or start < 0 or self.context[start : start + len(text)] != text:
                raise RllabError(
                    f"The answer {text!r} of the question {self.name} is not at character {start:,} of its context; "
                    "correct it, or leave the question out."
                )


class AnswerScores(NamedTuple):
    """How well questions were answered."""

    exact_match: float
    """The share of questions whose answer is one of people's, normalised."""
    f1: float
    """The mean over questions of the words' F1, with that of people's answers with which it is highest."""


def read_squad(path: Path | str) -> list[Question]:
    """The questions of a JSON file in the format of SQuAD 1.1 or 2.0.

    A question with `is_impossible` has no answers (its `plausible_answers` are not looked at).

    Raises:
        RllabError: the file cannot be read, has another format (it says where), or no question, or an answer is not
            where it is said to be.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise RllabError(f"{path} cannot be read ({error.strerror or error}); check the path.") from error
    except ValueError as error:
        raise RllabError(f"{path} is not JSON ({error}); give a file in SQuAD's format.") from error
    questions = list(_questions(document, path))
    if not questions:
        raise RllabError(f"{path} has no question; give a file that has some.")
    return questions


def _questions(document: Any, path: Path) -> Iterator[Question]:
    where = "the document"
    try:
        for number, article in enumerate(document["data"]):
            for place, paragraph in enumerate(article["paragraphs"]):
                where = f"data[{number}].paragraphs[{place}]"
                context = paragraph["context"]
                for index, row in enumerate(paragraph["qas"]):
                    where = f"data[{number}].paragraphs[{place}].qas[{index}]"
                    given = [] if row.get("is_impossible") else row.get("answers", [])
                    answers = tuple(Answer(answer["text"], int(answer["answer_start"])) for answer in given)
                    yield Question(str(row["id"]), row["question"], context, answers)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise RllabError(
            f"{path} is not in SQuAD's format ({where}: {type(error).__name__} {error}); it needs data, paragraphs, "
            "context, qas, id, question and answers."
        ) from error


def normalised(answer: str) -> str:
    """An answer as it is compared: small letters, no ASCII punctuation, no articles, single spaces."""
    lowered = answer.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", lowered).split())


def exact_match(found: str, right: Sequence[str]) -> float:
    """1 if an answer is one of the right ones, normalised, else 0. With no right one, the empty answer is right."""
    return float(any(normalised(found) == normalised(answer) for answer in _accepted(right)))


def f1(found: str, right: Sequence[str]) -> float:
    """The highest F1 of an answer's words with those of a right one; an empty answer's is 1 if the other is empty."""
    return max(_f1(normalised(found).split(), normalised(answer).split()) for answer in _accepted(right))


def _accepted(right: Sequence[str]) -> Sequence[str]:
    # As in the program of version 2.0: an answer that is nothing but an article or a mark says nothing.
    return [answer for answer in right if normalised(answer)] or [""]


def _f1(found: list[str], right: list[str]) -> float:
    if not found or not right:
        return float(found == right)
    common = sum((Counter(found) & Counter(right)).values())
    return 2 * common / (len(found) + len(right))


def answer_scores(found: Sequence[str], questions: Sequence[Question]) -> AnswerScores:
    """Both measures over questions, for an answer to each, empty where none is told.

    Raises RllabError if there is no question, or not as many answers.
    """
    if not questions or len(found) != len(questions):
        raise RllabError(f"There must be a question and as many answers, not {len(questions)} and {len(found)}.")
    right = [[answer.text for answer in question.answers] for question in questions]
    pairs = list(zip(found, right, strict=True))
    return AnswerScores(
        sum(exact_match(text, answers) for text, answers in pairs) / len(pairs),
        sum(f1(text, answers) for text, answers in pairs) / len(pairs),
    )
