"""word2vec: skip-gram and CBOW, with negative sampling or hierarchical softmax.

Mikolov, Chen, Corrado, Dean, "Efficient Estimation of Word Representations in Vector Space", 2013, section 3, and the
authors' program where the paper is silent (dynamic windows, learning rates, how CBOW spreads its error).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from language.embeddings.hierarchical_softmax import HierarchicalSoftmax
from language.embeddings.negative_sampling import NegativeSampling
from language.embeddings.rows import add_rows
from language.embeddings.sampling import keep_probabilities, noise_table
from language.embeddings.vocabulary import Corpus
from language.embeddings.windows import WindowBatch, window_batches
from language.embeddings.word_vectors import WordVectors
from rllab.threads import single_threaded

Array = NDArray[np.float32]
Report = Callable[[float, float, float], None]
"""Told now and then: the share of the training that is done, the learning rate, the mean loss a pair since last."""

_BATCHES_A_LOSS, _BATCHES_A_REPORT = 40, 200  # a loss costs half as much as the step itself
_SHARED = {"skip-gram": 64, "cbow": 32}  # negatives of a block; CBOW has one pair a centre, skip-gram about six
_REPETITIONS = 3  # of the most frequent word in a batch, on average


@dataclass(frozen=True)
class Word2VecConfig:
    """How vectors are learnt. The defaults are those of the authors' program."""

    architecture: Literal["skip-gram", "cbow"] = "skip-gram"
    """Predict the words around a word from it (in rare words the better), or a word from those around it (faster)."""
    objective: Literal["negative-sampling", "hierarchical-softmax"] = "negative-sampling"
    """How a word is predicted without the whole vocabulary's softmax."""
    dimensions: int = 100
    """Numbers in a vector."""
    window: int = 5
    """The farthest that a word is looked at, on either side."""
    negatives: int = 5
    """Random words that each pair is told from; 5 to 20 for small corpora, 2 to 5 for large ones (paper, 2.2)."""
    noise_power: float = 0.75
    """Negatives are drawn in proportion to their counts to this power."""
    subsample: float = 1e-3
    """Words of a larger share of the corpus are dropped now and then; 0 keeps all."""
    epochs: int = 5
    """Passes through the corpus."""
    learning_rate: float | None = None
    """At the beginning; 0.025 for skip-gram and 0.05 for CBOW unless it is given."""
    last_learning_rate: float = 1e-4
    """At the end; in between it falls in a straight line."""
    seed: int = 0
    """Equal seeds and corpora give equal vectors."""

    def __post_init__(self) -> None:
        for name in ("dimensions", "window", "negatives", "epochs"):
            if getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.subsample < 0 or self.last_learning_rate < 0:
            raise RllabError("subsample and last_learning_rate must be at least 0")
        if self.learning_rate is not None and self.learning_rate <= 0:
            raise RllabError(f"learning_rate must be above 0, not {self.learning_rate}")

    @property
    def first_learning_rate(self) -> float:
        """The rate at the beginning."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 0.025 if self.architecture == "skip-gram" else 0.05


class Word2Vec:
    """A model in training.

    Attributes:
        inputs: `[V, d]`, the words' vectors.
        layer: the output layer, with vectors of its own.
    """

    def __init__(self, corpus: Corpus, config: Word2VecConfig = Word2VecConfig()) -> None:
        """Draw the first vectors, each number from ±½/d.

        Raises:
            RllabError: the vocabulary has a single word, of which nothing can be learnt.
        """
        counts = corpus.vocabulary.counts
        if len(counts) < 2:
            raise RllabError("The vocabulary has a single word; give more text, or lower the minimum count.")
        self.corpus, self.config = corpus, config
        self._generator = np.random.default_rng(config.seed)
        drawn = self._generator.random((len(counts), config.dimensions), np.float32)
        self.inputs: Array = (drawn - np.float32(0.5)) / np.float32(config.dimensions)
        self._keep = keep_probabilities(counts, config.subsample)
        self.layer: NegativeSampling | HierarchicalSoftmax
        if config.objective == "negative-sampling":
            noise = noise_table(counts, config.noise_power)
            self.layer = NegativeSampling(noise, config.dimensions, config.negatives, _SHARED[config.architecture])
        else:
            self.layer = HierarchicalSoftmax(counts, config.dimensions)

    def train(self, report: Report | None = None) -> WordVectors:
        """Go through the corpus `config.epochs` times.

        Args:
            report: is told how it goes.

        Raises:
            RllabError: the vectors are not finite any more.
        """
        first, last = self.config.first_learning_rate, self.config.last_learning_rate
        losses: list[float] = []
        number = 0
        block, blocks = self.batch_size()
        with single_threaded():
            for epoch in range(self.config.epochs):
                done = epoch / self.config.epochs
                batches = window_batches(
                    self.corpus, self._keep, self.config.window, self._generator, block=block, blocks=blocks
                )
                for batch in batches:
                    rate = max(first + (last - first) * done, last)
                    number += 1
                    loss = self.step(batch, rate, with_loss=number % _BATCHES_A_LOSS == 0)
                    if loss is not None:
                        losses.append(loss)
                    done = (epoch + batch.done) / self.config.epochs
                    if report is not None and losses and number % _BATCHES_A_REPORT == 0:
                        report(done, rate, float(np.mean(losses)))
                        losses.clear()
                if not np.isfinite(self.inputs).all():
                    raise RllabError(f"Learning diverged in epoch {epoch + 1}; lower the learning rate from {first:g}.")
        return WordVectors(self.corpus.vocabulary.words, self.inputs)

    def batch_size(self) -> tuple[int, int]:
        """Centres in a block, and blocks in a batch.

        A batch's gradients are all taken at the vectors before it. One after another, steps for the same word would
        correct each other; together they could overshoot. So a batch is the smaller, the more often its most frequent
        word is to be expected in it; in a text of few different words it has a few words only.
        """
        shares = self.corpus.vocabulary.counts * self._keep
        fitting = max(int(_REPETITIONS * shares.sum() / shares.max()), 2)
        block = min(self.layer.block, fitting)
        return block, max(min(self.layer.blocks, fitting // block), 1)

    def step(self, batch: WindowBatch, rate: float, with_loss: bool = False) -> float | None:
        """Learn from one batch; the loss a pair before it, if asked for."""
        contexts = self.inputs[batch.contexts]
        if self.config.architecture == "skip-gram":
            hidden, pairs = contexts, batch.pairs
        else:
            # The mean of the words in each centre's window predicts the centre and nothing else.
            sizes = batch.pairs.sum(1)
            mixture = batch.pairs / np.maximum(sizes, 1)[:, None, :]
            hidden = mixture.swapaxes(1, 2) @ contexts
            pairs = np.eye(sizes.shape[1], dtype=np.float32) * (sizes > 0)[:, None, :]
        gradients = self.layer.gradients(hidden, batch.centres, pairs, self._generator, with_loss)
        self.layer.add(gradients, rate)
        to_contexts = gradients.hidden
        if self.config.architecture == "cbow":
            # The authors' program gives each word of a window the whole error of the mean, not its 1/n.
            to_contexts = batch.pairs @ gradients.hidden
        to_contexts *= np.float32(rate)
        add_rows(self.inputs, batch.contexts, to_contexts)
        return gradients.loss
