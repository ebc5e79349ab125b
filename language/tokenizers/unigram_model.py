"""The Unigram language model: the best segmentation of a word into pieces, and all there are.

Kudo: Subword Regularization (2018), section 3.2. The probability of a segmentation is the product of those of its
pieces; Viterbi's algorithm finds the best.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from language.tokenizers.byte_alphabet import utf8
from language.tokenizers.pipeline import Piece, unknown_character

UNKNOWN = -1
"""Stands for the id of a character that is no piece."""
_PENALTY = 10.0  # an unknown character costs so much more than the least probable piece, as in sentencepiece


class Edge(NamedTuple):
    """A piece that may stand somewhere in a word."""

    begin: int
    """Its first character."""
    token_id: int
    """Its id, or `UNKNOWN`."""
    score: float
    """Its log-probability."""


class UnigramModel:
    """Pieces with their log-probabilities."""

    def __init__(self, scores: Mapping[str, float], ids: Mapping[str, int]) -> None:
        """`scores` has the log-probability of each piece, `ids` its id."""
        self._ids = dict(ids)
        self.unknown_score = min(scores.values(), default=0.0) - _PENALTY
        # Beginnings of pieces are in the table too, so that a search ends where no piece goes on.
        self._scores = {piece[:end]: -math.inf for piece in scores for end in range(1, len(piece))}
        self._scores.update(scores)

    def segment(self, word: str) -> list[Piece]:
        """The most probable segmentation; `UNKNOWN` stands for characters that are no pieces.

        Of equally probable ones that whose last piece is longest, and so on from the end, as in sentencepiece and in
        Hugging Face's implementation.
        """
        scores, length = self._scores, len(word)
        best = [-math.inf] * (length + 1)
        best[0] = 0.0
        back = [0] * (length + 1)
        unknown: set[int] = set()
        for begin in range(length):
            so_far = best[begin]
            for end in range(begin + 1, length + 1):
                score = scores.get(word[begin:end])
                if score is None:
                    break
                if so_far + score > best[end]:
                    best[end] = so_far + score
                    back[end] = begin
            if scores.get(word[begin], -math.inf) == -math.inf:
                unknown.add(begin)
                if so_far + self.unknown_score > best[begin + 1]:
                    best[begin + 1] = so_far + self.unknown_score
                    back[begin + 1] = begin
        pieces, end = [], length
        while end:
            begin = back[end]
            single = end - begin == 1 and begin in unknown
            pieces.append((UNKNOWN if single else self._ids[word[begin:end]], begin, end))
            end = begin
        return pieces[::-1]

    def edges(self, word: str) -> list[list[Edge]]:
        """The lattice of a word: for each place after its first character, the pieces that end there."""
        edges: list[list[Edge]] = [[] for _ in word]
        for begin in range(len(word)):
            for end in range(begin + 1, len(word) + 1):
                score = self._scores.get(word[begin:end])
                if score is None:
                    break
                if score > -math.inf:
                    edges[end - 1].append(Edge(begin, self._ids[word[begin:end]], score))
            if self._scores.get(word[begin], -math.inf) == -math.inf:
                edges[begin].append(Edge(begin, UNKNOWN, self.unknown_score))
        return edges


def express_unknown(
    word: str, pieces: list[Piece], unknown_id: int | None, byte_ids: Sequence[int] | None = None
) -> list[Piece]:
    """The pieces of a word with tokens in place of `UNKNOWN`.

    Args:
        word: the word.
        pieces: its pieces; unknown characters are single.
        unknown_id: one token for each run of them; None if there is none.
        byte_ids: in place of that, the ids of the 256 bytes, by which unknown characters are written in UTF-8.

    Raises:
        RllabError: a character is unknown, and there is nothing to stand for it.
    """
    if all(token_id != UNKNOWN for token_id, _, _ in pieces):
        return pieces
    expressed: list[Piece] = []
    before = 0
    for token_id, begin, end in pieces:
        if token_id != UNKNOWN:
            expressed.append((token_id, begin, end))
        elif byte_ids is not None:
            expressed += [(byte_ids[byte], begin, end) for byte in utf8(word[begin:end])]
        elif unknown_id is None:
            raise unknown_character(word[begin])
        elif before == UNKNOWN:
            expressed[-1] = (unknown_id, expressed[-1][1], end)
        else:
            expressed.append((unknown_id, begin, end))
        before = token_id
    return expressed
