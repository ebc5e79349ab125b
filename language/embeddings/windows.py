"""A corpus as batches of blocks: consecutive words, and which of them are in whose window.

A block has T centre words that follow each other and the w words on either side. Each word's vector is looked up once
for the block instead of once for each pair, and all pairs' scores are one matrix product.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from language.embeddings.vocabulary import Corpus

_CHUNK_WORDS = 200_000


@dataclass(frozen=True)
class WindowBatch:
    """B blocks of T centres and C = T + 2w context words."""

    contexts: NDArray[np.int64]
    """`[B, C]`, word ids."""
    centres: NDArray[np.int64]
    """`[B, T]`, word ids: columns w to w + T of the contexts."""
    pairs: NDArray[np.float32]
    """`[B, C, T]`, 1 where the context word is in the centre's window and in its text, else 0."""
    done: float
    """The share of this pass through the corpus that is done after the batch."""


def window_batches(
    corpus: Corpus, keep: NDArray[np.float32], window: int, generator: np.random.Generator, *,
    block: int = 32, blocks: int = 8,
) -> Iterator[WindowBatch]:  # fmt: skip
    """One pass through the corpus.

    Frequent words are dropped at random before windows are laid, and each centre's window reaches 1 to `window` words,
    each reach equally probable, as in the authors' program (so a window never crosses texts; nor, as the corpus is
    streamed, every 200,000th word).

    Args:
        corpus: the words.
        keep: `[V]`, the probability that an occurrence of a word is kept.
        window: the farthest reach.
        generator: of which words are kept and how far windows reach.
        block: T, centres in a block.
        blocks: B, blocks in a batch; the last of a chunk may have fewer.
    """
    seen = 0
    # How far each context word of a block is from each centre; never 0, which is the centre itself.
    distance = np.abs(np.arange(block + 2 * window)[:, None] - window - np.arange(block))
    distance[distance == 0] = window + 1
    distance = distance.astype(np.int16)
    for ids, texts in corpus.chunks(_CHUNK_WORDS):
        kept = generator.random(len(ids), np.float32) < keep[ids]
        count = int(kept.sum())
        tail = -count % block
        # Words that fill up the edges stand in texts that do not exist: -1, and -2 for centres.
        words = np.pad(ids[kept].astype(np.int64), (window, window + tail))
        own = np.pad(texts[kept], (window, window + tail), constant_values=-1)
        reach = generator.integers(1, window + 1, size=(count + tail) // block * block, dtype=np.int16)
        contexts = sliding_window_view(words, block + 2 * window)[::block]
        context_texts = sliding_window_view(own, block + 2 * window)[::block]
        centre_texts = np.where(own < 0, -2, own)[window : window + len(reach)].reshape(-1, block)
        reach = reach.reshape(-1, block)
        for first in range(0, len(reach), blocks):
            part = slice(first, first + blocks)
            pairs = distance <= reach[part, None, :]
            pairs &= context_texts[part, :, None] == centre_texts[part, None, :]
            batch = contexts[part].copy()
            share = min(first + blocks, len(reach)) / len(reach)
            yield WindowBatch(
                batch, batch[:, window : window + block], pairs.astype(np.float32),
                (seen + share * len(ids)) / len(corpus),
            )  # fmt: skip
        seen += len(ids)
