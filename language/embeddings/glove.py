"""GloVe: vectors whose dot products are the logarithms of co-occurrence counts.

Pennington, Socher, Manning, "GloVe: Global Vectors for Word Representation", 2014, section 3, equation 8: the sum over
pairs of f(X)·(w·c + b + b' − log X)², f(X) = min(1, (X/x_max)^α), is made small by AdaGrad (section 4.2).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from language.embeddings.pair_counts import PairCounts, count_pairs
from language.embeddings.rows import add_rows
from language.embeddings.vocabulary import Corpus
from language.embeddings.word_vectors import WordVectors
from rllab.threads import single_threaded

Array = NDArray[np.float32]
Report = Callable[[float, float, float], None]
"""Told after each epoch: the share of the training that is done, the learning rate, the mean loss a pair."""

_BATCH = 1024


@dataclass(frozen=True)
class GloVeConfig:
    """How vectors are learnt; the defaults are the paper's (section 4.2) but for fewer epochs."""

    dimensions: int = 100
    """Numbers in a vector."""
    window: int = 10
    """The farthest that two words of a pair are apart, on either side."""
    x_max: float = 100.0
    """Counts from here on weigh 1."""
    alpha: float = 0.75
    """Smaller counts weigh (count / x_max) to this power."""
    epochs: int = 15
    """Passes through the pairs; the paper takes 50 below 300 dimensions."""
    learning_rate: float = 0.05
    """Of AdaGrad's first steps."""
    entries_in_memory: int = 20_000_000
    """Pairs that are held at once while counting, 16 bytes each; more are spilled to disk."""
    seed: int = 0
    """Equal seeds and corpora give equal vectors."""

    def __post_init__(self) -> None:
        for name in ("dimensions", "window", "epochs", "entries_in_memory"):
            if getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("x_max", "alpha", "learning_rate"):
            if getattr(self, name) <= 0:
                raise RllabError(f"{name} must be above 0, not {getattr(self, name)}")


class GloVe:
    """A model in training.

    Attributes:
        words: `[V, d + 1]`, the vectors w, each with its bias behind it.
        contexts: `[V, d + 1]`, the vectors c, likewise.
    """

    def __init__(self, vocabulary_size: int, config: GloVeConfig = GloVeConfig()) -> None:
        """Draw the first vectors and biases, each number from ±½/(d + 1), as the authors' program does."""
        self.config = config
        self._generator = np.random.default_rng(config.seed)
        width = config.dimensions + 1
        drawn = self._generator.random((2, vocabulary_size, width), np.float32)
        self.words, self.contexts = (drawn - np.float32(0.5)) / np.float32(width)
        # Sums of squared steps, 1 at first. The authors' program too squares gradients after the learning rate η has
        # been put to them: that is AdaGrad with a rate of 1 whose sums begin at 1/η², 400 for 0.05.
        self._word_squares, self._context_squares = np.ones_like(drawn)

    def train(self, pairs: PairCounts, report: Report | None = None) -> None:
        """Go through the pairs, in both directions, `config.epochs` times in random orders.

        Raises:
            RllabError: no two words occur together, or the vectors are not finite any more.
        """
        if not pairs.entries:
            raise RllabError("No two words stand within a window of each other; give texts of several words.")
        with single_threaded():
            for epoch in range(self.config.epochs):
                losses, total = 0.0, 0
                for rows, columns, counts in self._batches(pairs):
                    losses += self.step(rows, columns, counts) * len(rows)
                    total += len(rows)
                if not np.isfinite(losses):
                    raise RllabError(f"Learning diverged in epoch {epoch + 1}; lower the learning rate.")
                if report is not None:
                    report((epoch + 1) / self.config.epochs, self.config.learning_rate, losses / total)

    def step(self, rows: NDArray[np.int32], columns: NDArray[np.int32], counts: Array) -> float:
        """Learn from pairs: words `[n]`, words in their contexts `[n]`, counts `[n]`; the mean loss before it.

        A word that stands in several pairs gets the sum of their steps, each divided by the root of the squares of all.
        """
        loss, to_words, to_contexts = self.gradients(rows, columns, counts)
        rate = np.float32(-self.config.learning_rate)
        for parameters, squares, places, gradients in (
            (self.words, self._word_squares, rows, to_words),
            (self.contexts, self._context_squares, columns, to_contexts),
        ):
            gradients *= rate
            add_rows(squares, places, gradients * gradients)
            gradients /= np.sqrt(squares[places])
            add_rows(parameters, places, gradients)
        return loss

    def gradients(
        self, rows: NDArray[np.int32], columns: NDArray[np.int32], counts: Array
    ) -> tuple[float, Array, Array]:
        """The mean of ½f(X)·(w·c + b + b' − log X)², and the gradients `[n, d + 1]` of the sum by pairs."""
        words, contexts = self.words[rows], self.contexts[columns]
        scores = np.einsum("nd,nd->n", words[:, :-1], contexts[:, :-1]) + words[:, -1] + contexts[:, -1]
        errors = scores - np.log(counts)
        weights = np.minimum(counts / np.float32(self.config.x_max), 1) ** np.float32(self.config.alpha)
        weighted = weights * errors
        loss = float(0.5 * (weighted * errors).mean())
        # The derivative by a bias is the weighted error itself.
        words[:, -1] = contexts[:, -1] = 1
        words *= weighted[:, None]
        contexts *= weighted[:, None]
        return loss, contexts, words

    def vectors(self, words: tuple[str, ...]) -> WordVectors:
        """The sum of both vectors of each word, which the paper takes (section 4.2)."""
        return WordVectors(words, self.words[:, :-1] + self.contexts[:, :-1])

    def _batches(self, pairs: PairCounts) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32], Array]]:
        for part in self._generator.permutation(pairs.parts):
            first, second, counts = pairs.part(int(part))
            # A pair of equal words met itself from both sides.
            counts = np.where(first == second, 2 * counts, counts)
            mirrored = first != second
            rows = np.concatenate([first, second[mirrored]])
            columns = np.concatenate([second, first[mirrored]])
            both = np.concatenate([counts, counts[mirrored]])
            order = self._generator.permutation(len(rows))
            for start in range(0, len(order), _BATCH):
                chosen = order[start : start + _BATCH]
                yield rows[chosen], columns[chosen], both[chosen]


def train_glove(
    corpus: Corpus, config: GloVeConfig = GloVeConfig(), report: Report | None = None, folder: Path | None = None
) -> WordVectors:  # fmt: skip
    """Count the corpus's pairs, and learn vectors from them.

    Args:
        corpus: the words.
        config: how.
        report: is told how it goes.
        folder: where the counts are kept meanwhile; by default the system's place for temporary files.

    Raises:
        RllabError: there is nothing to learn from, learning diverged, or the disk is full.
    """
    with count_pairs(
        corpus, config.window, entries_in_memory=config.entries_in_memory, folder=folder, seed=config.seed
    ) as pairs:
        model = GloVe(len(corpus.vocabulary), config)
        model.train(pairs, report)
    return model.vectors(corpus.vocabulary.words)
