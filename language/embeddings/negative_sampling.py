"""Negative sampling: each pair of words is told from pairs with random words.

Mikolov et al., "Distributed Representations of Words and Phrases and their Compositionality", 2013, section 2.2,
equation 4. As in Ji, Satish, Li, Dubey, "Parallelizing Word2Vec in Shared and Distributed Memory", 2016, nearby pairs
share their negatives, which turns dot products into matrix products: each block of centres has K of them, and each
weighs k/K, so that the expected gradient is that of k negatives a pair.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from language.embeddings.rows import add_rows
from language.embeddings.sampling import AliasTable

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Gradients:
    """Of the log-likelihood, to be gone up."""

    hidden: Array
    """`[B, R, d]`, with respect to what the words were predicted from."""
    rows: NDArray[np.int64]
    """`[n]`, rows of the output matrix; a row may stand more than once."""
    outputs: Array
    """`[n, d]`, with respect to those rows."""
    loss: float | None
    """The negative log-likelihood a pair, if it was asked for."""


class NegativeSampling:
    """The output layer of negative sampling.

    Attributes:
        outputs: `[V, d]`, the words' output vectors.
    """

    block, blocks = 32, 8

    def __init__(self, noise: AliasTable, dimensions: int, negatives: int, shared: int = 64) -> None:
        """Begin with zeros, as the authors' program does.

        Args:
            noise: the distribution of negatives.
            dimensions: d.
            negatives: k, how many a pair weigh.
            shared: K, how many are drawn for a block.
        """
        self.noise, self.negatives, self.shared = noise, negatives, shared
        self.outputs: Array = np.zeros((len(noise.alias), dimensions), np.float32)

    def gradients(
        self, hidden: Array, centres: NDArray[np.int64], pairs: Array, generator: np.random.Generator,
        with_loss: bool = False,
    ) -> Gradients:  # fmt: skip
        """Gradients of log σ(u·h) + (k/K) Σ log σ(−n·h), summed over pairs; negatives that are the target are left out.

        Args:
            hidden: `[B, R, d]`, h.
            centres: `[B, T]`, the words to be predicted, whose output vectors are u.
            pairs: `[B, R, T]`, 1 where h predicts the word, else 0.
            generator: of the negatives.
            with_loss: compute the loss too.
        """
        drawn = self.noise.draw((len(centres), self.shared), generator)
        positive, negative = self.outputs[centres], self.outputs[drawn]
        scores, noise_scores = hidden @ positive.swapaxes(1, 2), hidden @ negative.swapaxes(1, 2)
        # How many pairs each hidden vector is told from a negative for: [B, R, K].
        hits = (centres[:, :, None] == drawn[:, None, :]).astype(np.float32)
        weights = pairs.sum(2, keepdims=True) - pairs @ hits
        weights *= np.float32(self.negatives / self.shared)
        loss = None
        if with_loss:
            total = (pairs * np.logaddexp(0, -scores)).sum() + (weights * np.logaddexp(0, noise_scores)).sum()
            loss = float(total) / max(float(pairs.sum()), 1.0)
        pull, push = sigmoid(-scores), sigmoid(noise_scores)
        pull *= pairs
        push *= -weights
        to_hidden = pull @ positive
        to_hidden += push @ negative
        dimensions = hidden.shape[2]
        to_outputs = np.concatenate([pull.swapaxes(1, 2) @ hidden, push.swapaxes(1, 2) @ hidden], axis=1)
        rows = np.concatenate([centres, drawn], axis=1).reshape(-1)
        return Gradients(to_hidden, rows, to_outputs.reshape(-1, dimensions), loss)

    def add(self, gradients: Gradients, step: float) -> None:
        """Go a step up."""
        add_rows(self.outputs, gradients.rows, np.float32(step) * gradients.outputs)


def sigmoid(values: Array) -> Array:
    """1 / (1 + e^−x), by the hyperbolic tangent, which never overflows."""
    half: Array = np.tanh(np.float32(0.5) * values)
    half *= np.float32(0.5)
    half += np.float32(0.5)
    return half
