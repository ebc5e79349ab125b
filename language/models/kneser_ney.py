"""N-grams with modified Kneser–Ney smoothing: what a neural language model must be better than.

Chen, Goodman 1999, "An empirical study of smoothing techniques for language modeling", section 3 (interpolated, three
discounts an order, estimated from counts of counts). Counts are sorted arrays; nothing is done token by token.

An n-gram is written as one number, (row of its first n − 1 tokens among the n-grams of that length) × vocabulary + its
last token, so that those of one context lie side by side, whatever the order and the vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from language.data.blocks import TokenFile

Discounts = tuple[float, float, float]
"""What is taken from counts of 1, of 2, and of 3 or more."""
FALLBACK: Discounts = (0.5, 1.0, 1.5)
"""Where counts of counts give none, as of single tokens that are all frequent; kenlm's `--discount_fallback`."""


@dataclass(frozen=True)
class KneserNeyConfig:
    """The size of a model of n-grams."""

    vocabulary_size: int
    """Tokens."""
    order: int = 5
    """Tokens of the longest n-grams: the last is predicted from the others."""
    discounts: tuple[Discounts, ...] | None = None
    """Of each order from 1 on; None estimates them from the counts (Chen and Goodman, equation 26). Three equal ones
    are the Kneser–Ney smoothing that is not modified."""

    def __post_init__(self) -> None:
        if self.vocabulary_size < 1 or self.order < 1:
            raise RllabError(
                f"vocabulary_size and order must be at least 1, not {self.vocabulary_size} and {self.order}."
            )
        if self.discounts is not None and len(self.discounts) != self.order:
            raise RllabError(f"There are discounts for {len(self.discounts)} orders, and {self.order} orders.")
        if any(not 0 <= discount <= count for some in self.discounts or () for count, discount in enumerate(some, 1)):
            raise RllabError("No discount may be below 0, or greater than the count that it is taken from.")


@dataclass(frozen=True)
class Order:
    """All n-grams of one length."""

    codes: NDArray[np.int64]
    """`[G]`, ascending."""
    shares: NDArray[np.float64]
    """`[G]`, (count − discount) / counts of all n-grams of its context."""
    remainders: NDArray[np.float64]
    """`[contexts]`, what discounting left for the next shorter context; 1 where a context has no counts."""
    discounts: Discounts
    """What was taken."""


class _Found(NamedTuple):
    """The n-grams of one length in a stream."""

    codes: NDArray[np.int64]
    """`[G]`, ascending, each once."""
    first: NDArray[np.int64]
    """`[G]`, where each begins for the first time."""
    rows: NDArray[np.int64]
    """`[n − length + 1]`, which of the G begins at each place."""
    counts: NDArray[np.int64]
    """`[G]`, how often each occurs."""

    @classmethod
    def of(cls, codes: NDArray[np.int64]) -> Self:
        return cls(*np.unique(codes, return_index=True, return_inverse=True, return_counts=True))


class KneserNey:
    """The model. The shortest n-grams are mixed with the same probability for each token, so that none has 0."""

    def __init__(self, config: KneserNeyConfig, orders: Sequence[Order]) -> None:
        """Keep what `train` counted: the n-grams of each length from 1 on."""
        self.config, self.orders = config, tuple(orders)

    @classmethod
    def train(cls, ids: NDArray[Any], config: KneserNeyConfig) -> Self:
        """Count a stream of tokens.

        The longest n-grams have the counts of their occurrences, shorter ones those of the different tokens before
        them.

        Args:
            ids: int `[n]`, such as a `TokenFile`'s. N-grams go across the ends of documents.
            config: the size.

        Raises:
            RllabError: an id is outside the vocabulary, or there are fewer tokens than the order.
        """
        tokens = _checked(ids, config.vocabulary_size)
        if len(tokens) < config.order:
            raise RllabError(
                f"{len(tokens)} tokens have no n-gram of {config.order}; give more text, or a lower order."
            )
        orders, contexts, size = [], 1, config.vocabulary_size
        found = _Found.of(tokens)  # all have the one empty context
        for order in range(1, config.order + 1):
            counts, longer = found.counts, None
            if order < config.order:
                longer = _Found.of(found.rows[:-1] * size + tokens[order:])
                # A longer one that begins at place i ends with the shorter one that begins at i + 1.
                counts = np.bincount(found.rows[longer.first + 1], minlength=len(found.codes))
            given = None if config.discounts is None else config.discounts[order - 1]
            orders.append(_order(found.codes, counts, size, contexts, given))
            contexts, found = len(found.codes), longer or found
        return cls(config, orders)

    def log_probabilities(self, ids: NDArray[Any]) -> NDArray[np.float64]:
        """The log-probability, in nats, of each token of a stream `[n]` given all those before it that n-grams see.

        Raises RllabError if an id is outside the vocabulary.
        """
        tokens = _checked(ids, self.config.vocabulary_size)
        probabilities = np.full(len(tokens), 1 / self.config.vocabulary_size)
        # The row of the context before each token; −1 where it was never seen, or the stream begins within it.
        contexts = np.zeros(len(tokens), np.int64)
        for order in self.orders:
            known = contexts >= 0
            rows = np.where(known, _rows(order.codes, contexts * self.config.vocabulary_size + tokens), -1)
            probabilities *= np.where(known, order.remainders[contexts], 1)
            probabilities += np.where(rows >= 0, order.shares[rows], 0)
            contexts = np.concatenate([[-1], rows[:-1]])
        found: NDArray[np.float64] = np.log(probabilities)
        return found

    def distribution(self, context: Sequence[int]) -> NDArray[np.float64]:
        """The probabilities `[V]` of the token after a context, of which the last order − 1 tokens count."""
        size = self.config.vocabulary_size
        probabilities = np.full(size, 1 / size)
        tokens = _checked(np.asarray(context, np.int64), size)
        for number, order in enumerate(self.orders):
            row = self._row(tokens[len(tokens) - number :]) if number <= len(tokens) else -1
            if row < 0:
                break
            begin, end = np.searchsorted(order.codes, [row * size, (row + 1) * size])
            probabilities *= order.remainders[row]
            probabilities[order.codes[begin:end] - row * size] += order.shares[begin:end]
        return probabilities

    def perplexity(self, file: TokenFile) -> dict[str, float]:
        """Loss a token, in nats, and its exponential, over all tokens of a file but the first, which is given.

        It sees the tokens before each, as many as its order uses, where `language_modelling.perplexity` of the same
        file hides those before the block: that favours the n-grams.

        Raises:
            RllabError: the file has a single token, or one outside the vocabulary.
        """
        if len(file) < 2:
            raise RllabError(f"{file.path} has {len(file)} token, and nothing to predict; give more text.")
        loss = -float(self.log_probabilities(file.ids)[1:].mean())
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}

    def _row(self, tokens: NDArray[np.int64]) -> int:
        """The row of an n-gram among those of its length; −1 if it was not seen."""
        row = 0
        for order, token in zip(self.orders, tokens, strict=False):
            if row >= 0:
                row = int(_rows(order.codes, np.array([row * self.config.vocabulary_size + token]))[0])
        return row


def estimated_discounts(counts: NDArray[Any]) -> Discounts:
    """Chen and Goodman's discounts of n-grams with these counts; `FALLBACK` where there are too few to tell."""
    ones, twos, threes, fours = (int(np.count_nonzero(counts == count)) for count in range(1, 5))
    if not (ones and twos and threes):
        return FALLBACK
    share = ones / (ones + 2 * twos)
    found = (1 - 2 * share * twos / ones, 2 - 3 * share * threes / twos, 3 - 4 * share * fours / threes)
    return found if all(0 <= discount <= count for count, discount in enumerate(found, 1)) else FALLBACK


def _order(
    codes: NDArray[np.int64], counts: NDArray[np.int64], size: int, contexts: int, discounts: Discounts | None
) -> Order:  # fmt: skip
    chosen = estimated_discounts(counts) if discounts is None else discounts
    taken = np.array([0.0, *chosen])[np.minimum(counts, 3)]
    context = codes // size
    totals = np.bincount(context, counts, contexts)
    left = np.bincount(context, taken, contexts)
    nothing = totals == 0
    totals[nothing], left[nothing] = 1, 1
    return Order(codes, (counts - taken) / totals[context], left / totals, chosen)


def _rows(codes: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each wanted one is among ascending ones; −1 if it is not there."""
    places = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    return np.where(codes[places] == wanted, places, -1)


def _checked(ids: NDArray[Any], size: int) -> NDArray[np.int64]:
    tokens = np.asarray(ids, np.int64)
    if len(tokens) and not (tokens.min() >= 0 and tokens.max() < size):
        raise RllabError(
            f"The ids go from {tokens.min()} to {tokens.max()}, outside the vocabulary of {size:,} tokens."
        )
    return tokens
