"""Pairs of segments for BERT's pre-training (Devlin et al. 2018, section 3.1 and appendix A.2).

A segment is one or more sentences in a row. After the authors' program, but that each pair is drawn by itself in place
of going through the documents, and that a first segment always has a sentence after it: so the share of pairs that
follow each other is the configured one, where theirs is lower the more often a sentence fills a pair.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from language.data.sentence_files import SentenceFile

MARKERS = 3
"""[CLS] and two [SEP]."""


class SegmentPair(NamedTuple):
    """Two segments."""

    first: NDArray[Any]
    """Ids, one at least."""
    second: NDArray[Any]
    """Ids, one at least."""
    follows: bool
    """Whether the second follows the first in a document."""


@dataclass(frozen=True)
class Cut:
    """What is taken away from one segment."""

    front: int
    """Tokens at its beginning."""
    back: int
    """Tokens at its end."""

    def of(self, segment: NDArray[Any]) -> NDArray[Any]:
        """What is left."""
        return segment[self.front : len(segment) - self.back]


class PairSampler:
    """Draws pairs from documents."""

    def __init__(self, file: SentenceFile, length: int, short: float, from_elsewhere: float) -> None:
        """Take documents.

        Args:
            file: the documents.
            length: tokens of a pair at most, markers included.
            short: the share of pairs that are made for a random length from 2 tokens on.
            from_elsewhere: the share of pairs whose second segment is from another document.

        Raises:
            RllabError: there are less than two documents, or none has two sentences.
        """
        if len(file) < 2:
            raise RllabError(
                f"{file.path} has one document only, and the second segments of half of the pairs come from others; "
                "give more texts."
            )
        counts = np.diff(file.documents)
        # The first of each document's last sentences but one: how many sentences before it have another one after them.
        self._starts = np.concatenate([[0], np.cumsum(counts - 1)])
        if not self._starts[-1]:
            raise RllabError(
                f"No document in {file.path} has two sentences, so none has what follows another; give whole texts, "
                "not single sentences."
            )
        self.file, self.most = file, length - MARKERS
        self.short, self.from_elsewhere = short, from_elsewhere

    def draw(self, generator: np.random.Generator) -> SegmentPair:
        """A pair; each sentence that has one after it begins the first segment equally often."""
        file = self.file
        place = int(generator.integers(self._starts[-1]))
        document = int(np.searchsorted(self._starts, place, side="right")) - 1
        # Each earlier document has one sentence that is not counted among the places: its last.
        begin, end = place + document, int(file.documents[document + 1])
        aimed = int(generator.integers(2, self.most + 1)) if generator.random() < self.short else self.most
        last = max(file.reaching(begin, end, aimed), begin + 2)
        between = int(generator.integers(begin + 1, last))
        first = file.between(begin, between)
        follows = generator.random() >= self.from_elsewhere
        if follows:
            second = file.between(between, last)
        else:
            second = self._elsewhere(document, aimed - len(first), generator)
        cuts = cuts_of(len(first), len(second), self.most, generator)
        return SegmentPair(cuts[0].of(first), cuts[1].of(second), follows)

    def _elsewhere(self, document: int, tokens: int, generator: np.random.Generator) -> NDArray[Any]:
        """Sentences of another document, from a random one on, until there are so many tokens."""
        other = int(generator.integers(len(self.file) - 1))
        other += other >= document
        begin, end = (int(place) for place in self.file.documents[other : other + 2])
        begin = int(generator.integers(begin, end))
        return self.file.between(begin, self.file.reaching(begin, end, tokens))


def cuts_of(first: int, second: int, most: int, generator: np.random.Generator) -> tuple[Cut, Cut]:
    """What is taken away from two segments of so many tokens to have `most` in all.

    Tokens are taken from the longer one, one by one, each at random from the front or the back, to avoid more shapes
    than a text has; from the second where both are equally long.
    """
    left = max(first + second - most, 0)
    from_longer = min(left, abs(first - second))
    taken = [from_longer, 0] if first > second else [0, from_longer]
    left -= from_longer
    taken = [taken[0] + left // 2, taken[1] + (left + 1) // 2]
    fronts = [int(generator.binomial(count, 0.5)) for count in taken]
    return (Cut(fronts[0], taken[0] - fronts[0]), Cut(fronts[1], taken[1] - fronts[1]))
