"""Random words: the noise of negative sampling by an alias table, and the sub-sampling of frequent words.

Mikolov, Sutskever, Chen, Corrado, Dean, "Distributed Representations of Words and Phrases and their Compositionality",
2013, sections 2.2 and 2.3; Walker, "An Efficient Method for Generating Discrete Random Variables …", 1977, in Vose's
linear-time form, 1991.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


class AliasTable:
    """Draws from a discrete distribution in constant time a draw.

    Attributes:
        acceptance: `[n]`, float32; the probability that a column's draw is its own index.
        alias: `[n]`, the index that it is otherwise.
    """

    def __init__(self, weights: ArrayLike) -> None:
        """Build the table for weights `[n]`, at least 0 with a positive sum."""
        weights = np.asarray(weights, np.float64)
        scaled = weights * (len(weights) / weights.sum())
        acceptance, alias = np.ones(len(weights)), np.arange(len(weights))
        small = np.flatnonzero(scaled < 1).tolist()
        large = np.flatnonzero(scaled >= 1).tolist()
        while small and large:
            poor, rich = small.pop(), large.pop()
            acceptance[poor], alias[poor] = scaled[poor], rich
            scaled[rich] -= 1 - scaled[poor]
            (small if scaled[rich] < 1 else large).append(rich)
        # What is left over is 1 but for rounding.
        self.acceptance, self.alias = acceptance.astype(np.float32), alias

    def probabilities(self) -> NDArray[np.float64]:
        """`[n]`, the distribution that the table draws from."""
        own = self.acceptance.astype(np.float64)
        return (own + np.bincount(self.alias, 1 - own, len(own))) / len(own)

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.int64]:
        """Indices of this shape, independent of each other."""
        columns = generator.integers(len(self.alias), size=shape)
        accepted = generator.random(shape, np.float32) < self.acceptance[columns]
        return np.where(accepted, columns, self.alias[columns])


def noise_table(counts: NDArray[np.int64], power: float = 0.75) -> AliasTable:
    """The noise distribution: each word in proportion to its count to the power of ¾ (section 2.2)."""
    return AliasTable(counts.astype(np.float64) ** power)


def keep_probabilities(counts: NDArray[np.int64], threshold: float = 1e-3) -> NDArray[np.float32]:
    """The probability `[V]` that an occurrence of a word is kept; all 1 if the threshold is 0.

    √(t/f) + t/f, at most 1, where f is the word's share of the corpus: what the authors' program does. Section 2.3 of
    the paper has √(t/f) alone.
    """
    if threshold <= 0:
        return np.ones(len(counts), np.float32)
    ratio = threshold / (counts / counts.sum())
    return np.asarray(np.minimum(np.sqrt(ratio) + ratio, 1.0), np.float32)
