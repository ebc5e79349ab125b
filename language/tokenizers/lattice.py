"""Lattices of many words at once: every way of cutting them into pieces, summed over or searched for the best.

A word of n characters has n + 1 nodes, the places between its characters; an edge is a piece of the vocabulary that
stands there. Forward, backward and Viterbi's recursions (Kudo, Subword Regularization, 2018, section 3.2) go over the
nodes from left to right; here they go over all words at the same time, so that a step is a few operations of NumPy on
all edges that end so many characters into their words.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

_NODES_A_CHUNK = 60_000
"""Words are taken so many nodes at a time: what is read again and again then stays in the processor's cache."""


@dataclass(frozen=True)
class _Step:
    """Edges that end the same number of characters into their words, side by side where they share their end."""

    edges: slice
    groups: slice


class Lattices:
    """The lattices of words, given in the order of their lengths."""

    def __init__(self, starts: Integers, begins: Integers, ends: Integers, pieces: Integers) -> None:
        """Put the edges in order.

        Args:
            starts: `[W + 1]` the first node of each word, and the number of nodes; shorter words first.
            begins: `[E]` the node where each edge begins.
            ends: `[E]` the node where it ends.
            pieces: `[E]` the piece it stands for.
        """
        self.starts = starts
        lengths = np.diff(starts)
        chunk_of_word = starts[:-1] // _NODES_A_CHUNK
        offsets = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        self._place = np.repeat(chunk_of_word, lengths) * (lengths.max(initial=0) + 1) + offsets
        order = np.lexsort((begins, ends, self._place[ends]))
        self._set_edges(begins[order], ends[order], pieces[order])

    def _set_edges(self, begins: Integers, ends: Integers, pieces: Integers) -> None:
        self.begins, self.pieces = begins, pieces
        new_group = np.flatnonzero(np.diff(ends, prepend=-1))
        self._group_starts = new_group
        self._group_sizes = np.diff(new_group, append=len(ends))
        self._group_ends = ends[new_group]
        place = self._place[self._group_ends]
        first = [*np.flatnonzero(np.diff(place, prepend=-1)).tolist(), len(new_group)]
        edge_of_group = [*new_group.tolist(), len(ends)]
        self._steps = [_Step(slice(edge_of_group[a], edge_of_group[b]), slice(a, b)) for a, b in pairwise(first)]

    def keep(self, kept: Flags, numbers: Integers, words: Flags | None = None) -> None:
        """Take out the edges of pieces that are gone, and of words that matter no more.

        Args:
            kept: `[P]` whether a piece stays.
            numbers: `[P]` the new number of each that does.
            words: `[W]` whether a word stays; by default all do. Those that do not have no segmentation any more.
        """
        ends = np.repeat(self._group_ends, self._group_sizes)
        stays = kept[self.pieces]
        if words is not None:
            stays &= np.repeat(words, np.diff(self.starts))[self.begins]
        self._set_edges(self.begins[stays], ends[stays], numbers[self.pieces[stays]])

    @property
    def _finals(self) -> Integers:
        return self.starts[1:] - 1

    def expected_counts(self, scores: Floats, word_counts: Floats) -> tuple[Floats, float]:
        """How often each piece is expected in the words, over all segmentations by their probabilities.

        Args:
            scores: `[P]` log-probabilities of the pieces.
            word_counts: `[W]` how often each word occurs.

        Returns:
            `[P]` expected counts, and the log-likelihood of the words. A word that cannot be cut has none.
        """
        forward = np.zeros(self.starts[-1])
        # The probability of an edge among those that share its end; the way back needs nothing else.
        shares = np.empty(len(self.pieces))
        for step in self._steps:
            values = forward[self.begins[step.edges]] + scores[self.pieces[step.edges]]
            starts = self._group_starts[step.groups] - step.edges.start
            sizes = self._group_sizes[step.groups]
            highest = np.maximum.reduceat(values, starts)
            values -= np.repeat(highest, sizes)
            np.exp(values, out=values)
            sums = np.add.reduceat(values, starts)
            forward[self._group_ends[step.groups]] = highest + np.log(sums)
            np.divide(values, np.repeat(sums, sizes), out=shares[step.edges])
        passing = np.zeros(self.starts[-1])  # how often a node is passed
        passing[self._finals] = word_counts
        for step in reversed(self._steps):
            through = shares[step.edges]
            through *= np.repeat(passing[self._group_ends[step.groups]], self._group_sizes[step.groups])
            np.add.at(passing, self.begins[step.edges], through)
        counts = np.bincount(self.pieces, shares, len(scores))
        return counts.astype(np.float64, copy=False), float(word_counts @ forward[self._finals])

    def best_paths(self, scores: Floats) -> "BestPaths":
        """Viterbi's segmentation of each word; of equally good ones that whose last piece is longest."""
        best = np.full(self.starts[-1], -np.inf)
        best[self.starts[:-1]] = 0.0
        back = np.full(self.starts[-1], -1)
        for step in self._steps:
            values = best[self.begins[step.edges]] + scores[self.pieces[step.edges]]
            starts = self._group_starts[step.groups] - step.edges.start
            sizes = self._group_sizes[step.groups]
            highest = np.maximum.reduceat(values, starts)
            ends = self._group_ends[step.groups]
            best[ends] = highest
            winners = np.flatnonzero(values == np.repeat(highest, sizes))[::-1]
            back[np.repeat(ends, sizes)[winners]] = winners + step.edges.start
        return BestPaths(self, best[self._finals], back)


@dataclass(frozen=True)
class BestPaths:
    """The best segmentation of each word."""

    lattices: Lattices
    """Of the words."""
    scores: Floats
    """`[W]` log-probabilities; minus infinity where a word cannot be cut."""
    back: Integers
    """For each node, the edge by which its best path comes; -1 where there is none."""

    def walk(self) -> Iterator[tuple[Integers, Integers]]:
        """The pieces from the last to the first: the words that have one more, and that piece of each."""
        words = np.flatnonzero(np.isfinite(self.scores))
        nodes = self.lattices.starts[words + 1] - 1
        while len(words):
            edges = self.back[nodes]
            yield words, self.lattices.pieces[edges]
            nodes = self.lattices.begins[edges]
            unfinished = nodes != self.lattices.starts[words]
            words, nodes = words[unfinished], nodes[unfinished]

    def counts(self, pieces: int, word_counts: Floats) -> Floats:
        """`[P]` how often each piece stands in the best segmentations of the words."""
        counts = np.zeros(pieces)
        for words, found in self.walk():
            counts += np.bincount(found, word_counts[words], pieces)
        return counts
