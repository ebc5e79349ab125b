"""How good word vectors are: Google's analogies, and people's ratings of similarity (WordSim-353, SimLex-999).

Mikolov, Chen, Corrado, Dean 2013 (analogies); Finkelstein et al. 2002 (WordSim-353); Hill, Reichart, Korhonen 2015
(SimLex-999). The package gensim carries the three files.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from language.data.records import decoded_lines
from language.embeddings.word_vectors import AnalogyMethod, WordVectors, analogy_scores
from preference.correlation import spearman

FILES = {"analogies": "questions-words.txt", "wordsim": "wordsim353.tsv", "simlex": "simlex999.txt"}
"""The files' names in gensim's package."""
_QUESTIONS_AT_ONCE = 256


@dataclass(frozen=True)
class AnalogyResult:
    """Answers to the questions of one section, or of all."""

    section: str
    correct: int
    asked: int
    """Questions of which all four words are known."""
    total: int
    """All questions."""

    @property
    def accuracy(self) -> float:
        """Correct answers of those that were asked; NaN if none was."""
        return self.correct / self.asked if self.asked else float("nan")


@dataclass(frozen=True)
class SimilarityResult:
    """How well cosines agree with people's ratings."""

    spearman: float
    """Spearman's rank correlation; NaN if fewer than two pairs are known."""
    asked: int
    """Pairs of which both words are known."""
    total: int
    """All pairs."""


def evaluate_analogies(
    vectors: WordVectors, path: Path | str | None = None, *, restrict: int | None = 30_000,
    method: AnalogyMethod = "3cosadd",
) -> list[AnalogyResult]:  # fmt: skip
    """Ask for the fourth word of each question; the three given ones are no answers. Capitals do not count.

    Args:
        vectors: the most frequent words first.
        path: questions as in Google's file, sections begin with a colon; by default gensim's copy.
        restrict: only the first words are known and can be answers; 30,000 is the authors' program's default.
        method: 3cosadd or 3cosmul.

    Returns:
        By section, and "all" at the end.

    Raises:
        RllabError: the file is not there, or a line is no question.
    """
    known = vectors if restrict is None else vectors.restricted(restrict)
    folded = {word.casefold(): place for place, word in reversed(list(enumerate(known.words)))}
    path = bundled("analogies") if path is None else Path(path)
    sections: dict[str, list[list[str]]] = {}
    questions: list[list[str]] = sections.setdefault("questions", [])
    for number, line in enumerate(decoded_lines(path), 1):
        if line.startswith(":"):
            questions = sections.setdefault(line[1:].strip(), [])
        elif words := line.split():
            if len(words) != 4:
                raise RllabError(f"Line {number:,} of {path} is no analogy of four words; mend the file.")
            questions.append([word.casefold() for word in words])
    results = []
    for name, asked in sections.items():
        places = np.array([[folded[word] for word in four] for four in asked if all(word in folded for word in four)])
        correct = sum(
            _correct(known, places[first : first + _QUESTIONS_AT_ONCE], method)
            for first in range(0, len(places), _QUESTIONS_AT_ONCE)
        )
        if asked:
            results.append(AnalogyResult(name, correct, len(places), len(asked)))
    totals = [sum(getattr(result, name) for result in results) for name in ("correct", "asked", "total")]
    return [*results, AnalogyResult("all", *totals)]


def evaluate_similarity(vectors: WordVectors, path: Path | str) -> SimilarityResult:
    """Compare cosines with people's ratings; pairs with an unknown word are left out. Capitals do not count.

    Args:
        vectors: any.
        path: lines of two words and a number, set apart by tabulators; those that begin with # say nothing.

    Raises:
        RllabError: the file is not there, or a line is no such pair.
    """
    folded = {word.casefold(): place for place, word in reversed(list(enumerate(vectors.words)))}
    ratings, cosines, total = [], [], 0
    for number, line in enumerate(decoded_lines(Path(path)), 1):
        if line.startswith("#") or not line.strip():
            continue
        try:
            first, second, rating = line.split("\t")
            value = float(rating)
        except ValueError as error:
            raise RllabError(f"Line {number:,} of {path} is not two words and a rating; mend the file.") from error
        total += 1
        places = folded.get(first.casefold()), folded.get(second.casefold())
        if places[0] is not None and places[1] is not None:
            ratings.append(value)
            cosines.append(float(vectors.directions[places[0]] @ vectors.directions[places[1]]))
    return SimilarityResult(spearman(ratings, cosines), len(ratings), total)


def bundled(name: str) -> Path:
    """One of `FILES` in the installed package gensim, which is not imported. Raises RllabError if it is not there."""
    specification = find_spec("gensim")
    folders = specification.submodule_search_locations if specification else None
    path = Path(next(iter(folders or ["gensim"]))) / "test" / "test_data" / FILES[name]
    if not path.is_file():
        raise RllabError(f"{FILES[name]} comes with gensim, which is missing; `pip install gensim`, or give a path.")
    return path


def _correct(vectors: WordVectors, questions: NDArray[np.int64], method: AnalogyMethod) -> int:
    scores = analogy_scores(vectors.directions, questions[:, :3], method)
    np.put_along_axis(scores, questions[:, :3], -np.inf, axis=1)
    return int((scores.argmax(1) == questions[:, 3]).sum())
