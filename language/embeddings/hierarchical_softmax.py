"""Hierarchical softmax: a word's probability as a product of binary choices on its way down a Huffman tree.

Morin and Bengio, "Hierarchical Probabilistic Neural Network Language Model", 2005; the Huffman tree is of Mikolov et
al., "Distributed Representations of Words and Phrases and their Compositionality", 2013, section 2.1.
"""

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from language.embeddings.negative_sampling import Gradients, sigmoid
from language.embeddings.rows import add_rows

Array = NDArray[np.float32]


@dataclass(frozen=True)
class HuffmanTree:
    """The way from the root to each of V words, past inner nodes 0 … V − 2; the root is V − 2."""

    nodes: NDArray[np.int64]
    """`[V, L]`, the inner nodes, the root first; −1 behind the end."""
    codes: NDArray[np.int8]
    """`[V, L]`, 0 or 1: which way each of them is left; 1 is the more frequent side. 0 behind the end."""

    @classmethod
    def of_counts(cls, counts: NDArray[np.int64]) -> "HuffmanTree":
        """Join the two rarest subtrees until there is one; of equally frequent ones the older."""
        size = len(counts)
        parent, bit = np.full(2 * size - 1, -1), np.zeros(2 * size - 1, np.int8)
        heap = [(int(count), place) for place, count in enumerate(counts)]
        heapq.heapify(heap)
        for node in range(size, 2 * size - 1):
            rare, left = heapq.heappop(heap)
            frequent, right = heapq.heappop(heap)
            parent[left] = parent[right] = node
            bit[right] = 1
            heapq.heappush(heap, (rare + frequent, node))
        ways: list[list[int]] = [[] for _ in range(2 * size - 1)]
        bits: list[list[int]] = [[] for _ in range(2 * size - 1)]
        for node in range(2 * size - 3, -1, -1):  # a parent has a higher number than its children
            above = int(parent[node])
            ways[node], bits[node] = [*ways[above], above - size], [*bits[above], int(bit[node])]
        longest = max(map(len, ways[:size]))
        nodes, codes = np.full((size, longest), -1), np.zeros((size, longest), np.int8)
        for word in range(size):
            nodes[word, : len(ways[word])] = ways[word]
            codes[word, : len(bits[word])] = bits[word]
        return cls(nodes, codes)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """`[V]`, the choices on the way to each word."""
        return np.asarray((self.nodes >= 0).sum(1))


class HierarchicalSoftmax:
    """The output layer of hierarchical softmax; P(word | h) = Π σ(±n·h) over the nodes n on its way, + for code 0.

    Attributes:
        outputs: `[V − 1, d]`, the inner nodes' vectors.
        tree: the ways.
    """

    block, blocks = 32, 1

    def __init__(self, counts: NDArray[np.int64], dimensions: int) -> None:
        """Build the tree; the vectors begin as zeros, as in the authors' program."""
        self.tree = HuffmanTree.of_counts(counts)
        self.outputs: Array = np.zeros((len(counts) - 1, dimensions), np.float32)
        self._place = np.zeros(len(counts), np.int64)

    def gradients(
        self, hidden: Array, centres: NDArray[np.int64], pairs: Array, generator: np.random.Generator,
        with_loss: bool = False,
    ) -> Gradients:  # fmt: skip
        """Gradients of Σ log σ((1 − 2·code) n·h) over the nodes on the way to each centre, summed over pairs.

        Many ways of a block begin alike, so each node's scores with all hidden vectors are taken once.

        Args:
            hidden: `[1, R, d]`, h.
            centres: `[1, T]`, the words to be predicted.
            pairs: `[1, R, T]`, 1 where h predicts the word, else 0.
            generator: not used; nothing is drawn.
            with_loss: compute the loss too.
        """
        [vectors], [words], [active] = hidden, centres, pairs
        ways, codes = self.tree.nodes[words], self.tree.codes[words]
        which, step = np.nonzero(ways >= 0)
        rows, column = self._distinct(ways[which, step])
        # Whether a centre's way passes a node, and whether it leaves it by code 0: [T, nodes].
        passes, zeros = np.zeros((2, len(words), len(rows)), np.float32)
        passes[which, column] = 1
        zeros[which, column] = 1 - codes[which, step]
        nodes = self.outputs[rows]
        scores = vectors @ nodes.T
        passed, zero = active @ passes, active @ zeros
        loss = None
        if with_loss:
            total = (passed * np.logaddexp(0, scores) - zero * scores).sum()
            loss = float(total) / max(float(active.sum()), 1.0)
        errors = zero
        errors -= passed * sigmoid(scores)
        return Gradients((errors @ nodes)[None], rows, errors.T @ vectors, loss)

    def add(self, gradients: Gradients, step: float) -> None:
        """Go a step up."""
        add_rows(self.outputs, gradients.rows, np.float32(step) * gradients.outputs)

    def _distinct(self, nodes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The different nodes `[n]`, and which of them each of `nodes` is; without sorting."""
        order = np.arange(len(nodes))
        self._place[nodes] = order  # the last of equal ones stays
        last = self._place[nodes]
        first_seen = last == order
        return nodes[first_seen], (np.cumsum(first_seen) - 1)[last]
