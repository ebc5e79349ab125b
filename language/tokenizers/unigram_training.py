"""Unigram's training: a large vocabulary, fitted by expectation maximisation and pruned until it is small enough.

Kudo: Subword Regularization: Improving Neural Network Translation Models with Multiple Subword Candidates (2018),
section 3.2. What the paper leaves open is done as in sentencepiece's trainer: two rounds of EM between prunings, a
quarter of the pieces pruned each time, a Bayesian M-step (digamma), and an estimate of the loss by Viterbi's
segmentation of the corpus and of the piece itself.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from envs.errors import RllabError
from language.tokenizers.lattice import Flags, Floats, Lattices
from language.tokenizers.tokenizer import Progress
from language.tokenizers.unigram_seeds import CountedWords, Seeds, find_seeds

LEAST_EXPECTED = 0.5
"""A piece that is expected less often in the corpus is dropped. (sentencepiece's `kExpectedFrequencyThreshold`.)"""
_MARGIN = 1.1  # pruning ends at 1.1 times the size; the rest goes by probability, as in sentencepiece
_RESOLUTION = 2.0**10


@dataclass(frozen=True)
class Fitting:
    """How a Unigram vocabulary is fitted; the defaults are sentencepiece's."""

    longest: int = 16
    """Characters that a piece may have."""
    seed_size: int = 1_000_000
    """How many substrings of the corpus the training begins with."""
    kept: float = 0.75
    """The share of the pieces that a pruning leaves."""
    rounds: int = 2
    """Rounds of expectation maximisation between two prunings."""
    one_script: bool = True
    """Whether a piece has letters of one script alone, or no letters: `end.` is then always more than one."""

    def __post_init__(self) -> None:
        if self.longest < 1 or self.seed_size < 1 or self.rounds < 1 or not 0 < self.kept < 1:
            raise RllabError(
                "Unigram's training needs pieces of at least 1 character, 1 seed, 1 round of EM and a kept share "
                f"between 0 and 1, not {self.longest}, {self.seed_size}, {self.rounds} and {self.kept}."
            )


def digamma(values: Floats) -> Floats:
    """The derivative of the logarithm of the gamma function, of positive numbers."""
    shifted, correction = values.copy(), np.zeros_like(values)
    for _ in range(6):  # ψ(x) = ψ(x + 1) − 1/x, until the asymptotic series is exact to 1e-12
        small = shifted < 6
        correction[small] += 1 / shifted[small]
        shifted[small] += 1
    inverse = 1 / (shifted * shifted)
    series = inverse * (1 / 12 - inverse * (1 / 120 - inverse * (1 / 252 - inverse * (1 / 240 - inverse / 132))))
    return np.log(shifted) - 0.5 / shifted - series - correction


def rounded(score: float) -> float:
    """A log-probability as a multiple of 2⁻¹⁰.

    Sums of such numbers are exact in 32 bits (up to 16,384), so that equally good segmentations are ties everywhere,
    whatever the order and the precision in which they are summed.
    """
    return round(score * _RESOLUTION) / _RESOLUTION


def covered(counts: Mapping[str, int], alphabet: Iterable[str]) -> Mapping[str, int]:
    """Counted words without what is not in an alphabet: they are cut there, and the parts counted."""
    known = set(alphabet)
    parts: Counter[str] = Counter()
    for word, count in counts.items():
        if known.issuperset(word):
            parts[word] += count
        else:
            for is_known, part in groupby(word, known.__contains__):
                if is_known:
                    parts["".join(part)] += count
    return parts


def train_unigram(
    counts: Mapping[str, int], size: int, fitting: Fitting, progress: Progress | None = None
) -> list[tuple[str, float]]:
    """Learn a vocabulary.

    Args:
        counts: how often each word of the corpus occurs.
        size: how many pieces there may be. All characters of the words are among them.
        fitting: how it is done.
        progress: told the number of pieces that are left.

    Returns:
        The pieces with their log-probabilities, the most probable first. There are fewer than `size` if the corpus has
        no more substrings that are of use.
    """
    words = CountedWords.of(counts)
    seeds = find_seeds(words, fitting.seed_size, fitting.longest, fitting.one_script)
    vocabulary = _Vocabulary(words, seeds)
    target = math.ceil(_MARGIN * size)
    while True:
        for _ in range(fitting.rounds):
            vocabulary.fit()
        if progress is not None:
            progress("pruning pieces", len(vocabulary), size)
        if len(vocabulary) <= target:
            break
        vocabulary.prune(max(target, int(fitting.kept * len(vocabulary))))
    return vocabulary.most_probable(size)


class _Vocabulary:
    """The pieces that are left, the first of which are all characters, with the lattices that they span."""

    def __init__(self, words: CountedWords, seeds: Seeds) -> None:
        begins, lengths, pieces = seeds.occurrences
        word_of_place = np.repeat(np.arange(len(words.counts)), np.diff(words.starts))
        nodes = begins + word_of_place[begins]  # a word has one node more than characters
        self.strings = seeds.strings(words.text)
        self.characters = seeds.characters
        self.word_counts = words.counts
        self.scores = np.log(seeds.counts * seeds.lengths) - np.log(seeds.counts @ seeds.lengths)
        self.lattices = Lattices(words.starts + np.arange(len(words.starts)), nodes, nodes + lengths, pieces)
        self._split_pieces(seeds)

    def _split_pieces(self, seeds: Seeds) -> None:
        """Make the lattices of the pieces: what they are cut into if they are not there themselves."""
        begins, lengths, pieces = seeds.occurrences
        order = np.argsort(begins, kind="stable")
        first_at = np.searchsorted(begins[order], np.arange(begins.max() + seeds.lengths.max() + 1))
        by_length = np.argsort(seeds.lengths, kind="stable")
        starts = np.concatenate([[0], np.cumsum(seeds.lengths[by_length] + 1)])
        low = first_at[seeds.begins[by_length]]
        many = first_at[seeds.begins[by_length] + seeds.lengths[by_length]] - low
        row = np.repeat(np.arange(len(by_length)), many)
        edge = order[np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many) + low[row]]
        piece = by_length[row]
        offset = begins[edge] - seeds.begins[piece]
        inside = (offset + lengths[edge] <= seeds.lengths[piece]) & (pieces[edge] != piece)
        row, edge = row[inside], edge[inside]
        node = starts[row] + offset[inside]
        self._piece_of_row = by_length  # -1 once the piece is gone
        self._piece_lattices = Lattices(starts, node, node + lengths[edge], pieces[edge])

    def __len__(self) -> int:
        return len(self.strings)

    def fit(self) -> None:
        """A round of expectation maximisation; pieces that are hardly expected go, characters never."""
        expected, _ = self.lattices.expected_counts(self.scores, self.word_counts)
        expected[: self.characters] = np.maximum(expected[: self.characters], LEAST_EXPECTED)
        self._keep(expected >= LEAST_EXPECTED)
        expected = expected[expected >= LEAST_EXPECTED]
        self.scores = digamma(expected) - digamma(np.array([expected.sum()]))

    def prune(self, size: int) -> None:
        """Leave `size` pieces, those whose loss would cost most."""
        losses = self.losses()
        losses[: self.characters] = np.inf
        order = np.argsort(-losses, kind="stable")
        kept = np.zeros(len(self), bool)
        kept[order[: max(size, self.characters)]] = True
        self._keep(kept & (losses > -np.inf))

    def losses(self) -> Floats:
        """By how much the corpus would lose likelihood, nearly, if each piece was cut into others; `[P]`.

        Its uses pass to the pieces of its own best segmentation, and nothing else changes. It is minus infinity where
        that segmentation is more probable than the piece itself.
        """
        counts = self.lattices.best_paths(self.scores).counts(len(self), self.word_counts)
        paths = self._piece_lattices.best_paths(self.scores)
        passed_on = np.zeros(len(paths.scores))
        parts = np.zeros(len(paths.scores))
        own = counts[self._piece_of_row]
        with np.errstate(divide="ignore"):
            for rows, pieces in paths.walk():
                passed_on[rows] += np.log(counts[pieces] + own[rows])
                parts[rows] += 1
            total = counts.sum()
            before = np.log(own) - np.log(total)
        after = passed_on - parts * np.log(total + own * (parts - 1))
        loss = np.full(len(self), np.inf)
        rows = np.flatnonzero(parts)
        used = rows[own[rows] > 0]
        loss[self._piece_of_row[rows]] = 0.0
        loss[self._piece_of_row[used]] = own[used] * (before[used] - after[used])
        needless = rows[paths.scores[rows] > self.scores[self._piece_of_row[rows]]]
        loss[self._piece_of_row[needless]] = -np.inf
        return loss

    def _keep(self, kept: Flags) -> None:
        if kept.all():
            return
        numbers = np.where(kept, np.cumsum(kept) - 1, -1)
        self.lattices.keep(kept, numbers)
        rows = self._piece_of_row
        self._piece_of_row = np.where(rows >= 0, numbers[rows], -1)
        self._piece_lattices.keep(kept, numbers, self._piece_of_row >= 0)
        self.strings = [string for string, stays in zip(self.strings, kept, strict=True) if stays]
        self.scores = self.scores[kept]

    def most_probable(self, size: int) -> list[tuple[str, float]]:
        """All characters and the most probable of the other pieces, the most probable first."""
        others = np.argsort(-self.scores[self.characters :], kind="stable") + self.characters
        chosen = [*range(self.characters), *others[: max(size - self.characters, 0)].tolist()]
        pieces = [(self.strings[piece], rounded(float(self.scores[piece]))) for piece in chosen]
        return sorted(pieces, key=lambda piece: (-piece[1], piece[0]))
