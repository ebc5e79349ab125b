"""Word vectors that have been learnt: similarities, nearest neighbours, analogies."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError

AnalogyMethod: TypeAlias = Literal["3cosadd", "3cosmul"]
_EPSILON = 1e-3  # Levy and Goldberg 2014, section 6
_SUGGESTIONS = 3


@dataclass(frozen=True, eq=False)
class WordVectors:
    """A vector for each word. Words are told apart by capitals if the vocabulary does."""

    words: tuple[str, ...]
    """The most frequent first, where that is known."""
    matrix: NDArray[np.float32]
    """`[V, d]`."""

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or len(self.words) != len(self.matrix):
            shape = list(self.matrix.shape)
            raise RllabError(f"{len(self.words):,} words need a matrix of as many rows, not one of shape {shape}.")

    @cached_property
    def index(self) -> dict[str, int]:
        """The place of each word."""
        return {word: place for place, word in enumerate(self.words)}

    @cached_property
    def directions(self) -> NDArray[np.float32]:
        """`[V, d]`, the vectors at length 1; zeros stay zeros."""
        lengths = np.linalg.norm(self.matrix, axis=1, keepdims=True)
        return np.asarray(self.matrix / np.where(lengths > 0, lengths, 1), np.float32)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self.index

    def __getitem__(self, word: str) -> NDArray[np.float32]:
        return np.asarray(self.matrix[self.place(word)])

    def place(self, word: str) -> int:
        """A word's row. Raises RllabError, with words that are spelt alike, if it is not in the vocabulary."""
        found = self.index.get(word)
        if found is None:
            near = self.suggest(word)
            hint = f"did you mean {' or '.join(near)}?" if near else "no word of the vocabulary is spelt like it."
            raise RllabError(f"'{word}' is not among the {len(self):,} words of the vocabulary; {hint}")
        return found

    def suggest(self, word: str) -> list[str]:
        """Up to three words of the vocabulary that are spelt like this one, the likest first."""
        folded = word.casefold()
        if same := [other for other in self.words if other.casefold() == folded]:
            return same[:_SUGGESTIONS]
        # difflib looks at one pair at a time; far shorter or longer words cannot be alike enough.
        candidates = [other for other in self.words if abs(len(other) - len(word)) <= 2]
        return difflib.get_close_matches(word, candidates, n=_SUGGESTIONS, cutoff=0.7)

    def similarity(self, first: str, second: str) -> float:
        """The cosine of the angle between two words' vectors. Raises RllabError for an unknown word."""
        return float(self.directions[self.place(first)] @ self.directions[self.place(second)])

    def nearest(
        self, target: str | NDArray[np.float32], count: int = 10, *, leave_out: Iterable[str] = ()
    ) -> list[tuple[str, float]]:
        """The words of the largest cosine with a word's vector, or with a vector `[d]`, and that cosine.

        Args:
            target: a word, which is left out itself, or a vector.
            count: how many.
            leave_out: words that are no answers.

        Raises:
            RllabError: a word is unknown.
        """
        excluded = {self.place(word) for word in leave_out}
        if isinstance(target, str):
            excluded.add(self.place(target))
            direction = self.directions[self.place(target)]
        else:
            direction = target / (float(np.linalg.norm(target)) or 1.0)
        return self._best(self.directions @ direction, count, excluded)

    def analogy(
        self, first: str, second: str, third: str, count: int = 10, method: AnalogyMethod = "3cosadd"
    ) -> list[tuple[str, float]]:
        """The words that are to `third` as `second` is to `first`, and their scores; the three are no answers.

        3CosAdd is cos(x, b − a + c) with a, b, c at length 1 (Mikolov, Yih, Zweig 2013); 3CosMul is
        cos(x, b)·cos(x, c) / (cos(x, a) + 0.001), cosines moved to [0, 1] (Levy and Goldberg 2014, section 6).

        Raises:
            RllabError: a word is unknown.
        """
        places = [self.place(word) for word in (first, second, third)]
        scores = analogy_scores(self.directions, np.array([places]), method)[0]
        if method == "3cosadd":
            a, b, c = self.directions[places]
            scores = scores / (float(np.linalg.norm(b - a + c)) or 1.0)
        return self._best(scores, count, set(places))

    def restricted(self, count: int) -> "WordVectors":
        """The first words only."""
        return WordVectors(self.words[:count], self.matrix[:count])

    def _best(self, scores: NDArray[np.float32], count: int, excluded: set[int]) -> list[tuple[str, float]]:
        scores = scores.copy()
        scores[list(excluded)] = -np.inf
        count = min(count, len(scores) - len(excluded))
        if count < 1:
            return []
        top = np.argpartition(-scores, count - 1)[:count]
        return [(self.words[place], float(scores[place])) for place in top[np.argsort(-scores[top], kind="stable")]]


def analogy_scores(
    directions: NDArray[np.float32], questions: NDArray[np.int64], method: AnalogyMethod = "3cosadd"
) -> NDArray[np.float32]:
    """Scores `[Q, V]` of every word as the answer to each question; the same for all words up to a factor per question.

    Args:
        directions: `[V, d]`, vectors of length 1.
        questions: `[Q, 3]`, places of a, b, c: a is to b as c is to what?
        method: see `WordVectors.analogy`.
    """
    first, second, third = (directions[questions[:, column]] for column in range(3))
    if method == "3cosadd":
        return np.asarray((second - first + third) @ directions.T)
    shifted = [(side @ directions.T + 1) / 2 for side in (first, second, third)]
    return np.asarray(shifted[1] * shifted[2] / (shifted[0] + np.float32(_EPSILON)))


def joined(vectors: Sequence[WordVectors]) -> WordVectors:
    """The sum of vectors of equal words, such as GloVe's two sets."""
    return WordVectors(vectors[0].words, np.sum([one.matrix for one in vectors], axis=0, dtype=np.float32))
