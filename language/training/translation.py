"""Learning to translate (Vaswani et al. 2017, section 5): batches by tokens, teacher forcing, label smoothing.

A target is read shifted by one: the decoder is given a begin token and all but the last token, and is to say all tokens
and an end token. A source ends with an end token too, as in the authors' tensor2tensor.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.models.padding import pad_right
from language.tokenizers.tokenizer import Tokenizer
from language.training.language_modelling import random_state
from language.training.peak import training_operations
from language.training.problem import Loss

IdPair = tuple[list[int], list[int]]
"""A source with its end token, and its target with begin and end token."""


@dataclass(frozen=True)
class TranslationConfig:
    """How pairs become batches, and what they cost."""

    batch_tokens: int = 600
    """Tokens of a batch at most, of sources and of targets each, padding included (paper: about 25,000; on a small
    machine many small steps learn more in a minute than few large ones)."""
    longest: int = 100
    """Pairs with more tokens on either side are not learnt from."""
    smoothing: float = 0.1
    """ε of label smoothing (section 5.4)."""
    evaluation_pairs: int = 1_000
    """So many of the held-out pairs are evaluated, the first ones; 0: all."""

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise RllabError(f"smoothing must be at least 0 and below 1, not {self.smoothing}.")
        if self.longest < 2 or self.batch_tokens < self.longest:
            raise RllabError(
                f"longest must be at least 2 and batch_tokens at least as large, so that each pair fits into a batch; "
                f"they are {self.longest} and {self.batch_tokens}."
            )
        if self.evaluation_pairs < 0:
            raise RllabError(f"evaluation_pairs must be 0 or more, not {self.evaluation_pairs}.")


class TranslationBatch(NamedTuple):
    """Sources and targets, padded on the right."""

    source: Tensor
    """int64 `[N, S]`."""
    source_valid: Tensor
    """bool `[N, S]`."""
    target: Tensor
    """int64 `[N, T + 1]`, from the begin token to the end token."""
    target_valid: Tensor
    """bool `[N, T + 1]`."""

    @property
    def tokens(self) -> int:
        """Of both languages, without padding and begin tokens."""
        return int(self.source_valid.sum() + self.target_valid[:, 1:].sum())


class Judged(NamedTuple):
    """What a model's logits are worth, summed over the targets that exist."""

    smoothed: Tensor
    """Cross-entropy with smoothed targets, in nats."""
    plain: Tensor
    """Cross-entropy with the targets themselves."""
    right: Tensor
    """Targets that have the highest logit."""
    targets: int
    """How many."""


class Translation:
    """Pairs in batches of about equal lengths; cross-entropy of each next token of the target.

    The model is one whose `forward(source, target, source_valid)` gives logits.
    """

    goal, higher_is_better = "loss", False

    def __init__(
        self, training: Sequence[IdPair], held_out: Sequence[IdPair], config: TranslationConfig, seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """Raises RllabError if no pair is short enough, on either side of the split."""
        self.config, self.device = config, device
        self.training = [pair for pair in training if max(map(len, pair)) <= config.longest]
        chosen = held_out[: config.evaluation_pairs or None]
        self.held_out = [pair for pair in chosen if max(map(len, pair)) <= config.longest]
        for name, pairs in (("training", self.training), ("validation", self.held_out)):
            if not pairs:
                raise RllabError(
                    f"No pair for {name} has at most {config.longest} tokens on either side; give more pairs, or raise "
                    "longest."
                )
        self.generator = np.random.default_rng(seed)
        self._lengths = np.array([[len(source), len(target) - 1] for source, target in self.training])
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._state = random_state(self.generator)
        self._batches = shuffled_batches(self._lengths, self.config.batch_tokens, self.generator)
        self._next = 0

    def batch(self) -> TranslationBatch:
        """The next one; each pair comes once in an epoch."""
        if self._next == len(self._batches):
            self._begin_epoch()
        chosen = self._batches[self._next]
        self._next += 1
        return padded([self.training[number] for number in chosen], self.device)

    def loss(self, model: nn.Module, batch: TranslationBatch) -> Loss:
        """The sum of cross-entropies with smoothed targets, in nats."""
        logits = model(batch.source, batch.target[:, :-1], batch.source_valid)
        judged = judge(logits, batch.target[:, 1:], batch.target_valid[:, 1:], self.config.smoothing)
        metrics = {
            "cross_entropy": judged.plain.item() / max(judged.targets, 1),
            "accuracy": judged.right.item() / max(judged.targets, 1),
        }
        return Loss(judged.smoothed, judged.targets, batch.tokens, metrics)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Loss a token without smoothing, in nats, perplexity, and the share of tokens that are right."""
        plain, right, count = 0.0, 0.0, 0
        for batch in in_order(self.held_out, self.config.batch_tokens, self.device):
            logits = model(batch.source, batch.target[:, :-1], batch.source_valid)
            judged = judge(logits, batch.target[:, 1:], batch.target_valid[:, 1:])
            plain, right, count = plain + judged.plain.item(), right + judged.right.item(), count + judged.targets
        loss = plain / count
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "accuracy": right / count}

    def operations(self, model: nn.Module, tokens: int) -> float:
        """About half of the tokens go through the encoder and half through the decoder: half of the weights each.

        Attention's own products, which are few for single sentences, are not counted.
        """
        return training_operations(model, tokens // 2, layers=0, width=0, length=0)

    def state_dict(self) -> dict[str, Any]:
        """The random generator as it was before this epoch, and how many batches of it are done."""
        return {"generator": self._state, "done": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in that epoch."""
        self.generator.bit_generator.state = state["generator"]
        self._begin_epoch()
        self._next = state["done"]


def id_pairs(pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> list[IdPair]:
    """Texts as ids. Raises RllabError if the tokenizer has no begin or no end token."""
    begin, end = begin_and_end(tokenizer)
    sources, targets = (tokenizer.encode_batch([pair[side] for pair in pairs]) for side in (0, 1))
    return [([*source, end], [begin, *target, end]) for source, target in zip(sources, targets, strict=True)]


def begin_and_end(tokenizer: Tokenizer) -> tuple[int, int]:
    """The ids of the two. Raises RllabError if one is missing."""
    special = tokenizer.special
    if special.begin is None or special.end is None:
        raise RllabError("Translation needs a tokenizer with a begin and an end token; train it with both.")
    return tokenizer.vocabulary[special.begin], tokenizer.vocabulary[special.end]


def judge(logits: Tensor, targets: Tensor, valid: Tensor, smoothing: float = 0.0) -> Judged:
    """Cross-entropy, also with smoothed targets, and accuracy, of the targets that exist.

    Smoothing (Szegedy et al. 2016, section 7, which the paper cites) moves the share ε of a target's probability to the
    uniform distribution over all V tokens, the right one included: it has 1 - ε + ε/V, each other ε/V, as in
    `torch.nn.functional.cross_entropy`. (tensor2tensor gave ε/(V - 1) to the others only; for V = 37,000 the
    difference is in the sixth digit.) So the loss of a perfect model is not 0, but the entropy of that distribution.

    Args:
        logits: `[N, T, V]`.
        targets: int64 `[N, T]`.
        valid: bool `[N, T]`, true where a target is.
        smoothing: ε.
    """
    wanted, chosen = targets[valid], logits[valid].float()
    log_probabilities = chosen.log_softmax(-1)
    plain = functional.nll_loss(log_probabilities, wanted, reduction="sum")
    uniform = -log_probabilities.mean(-1).sum() if smoothing else plain
    right = (chosen.detach().argmax(-1) == wanted).sum()
    return Judged((1 - smoothing) * plain + smoothing * uniform, plain.detach(), right, len(wanted))


def shuffled_batches(
    lengths: NDArray[np.int64], batch_tokens: int, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """The numbers of all pairs in batches of about equal lengths, in random order.

    Args:
        lengths: `[n, 2]`, tokens of sources and targets.
        batch_tokens: how many a batch has at most on each side, padding included; a pair that is longer is a batch.
        generator: decides which pairs of equal lengths come together, and the order of the batches.
    """
    order = generator.permutation(len(lengths))
    order = order[np.lexsort((lengths[order, 0], lengths[order, 1]))]
    batches = cut(lengths, order, batch_tokens)
    return [batches[number] for number in generator.permutation(len(batches))]


def cut(lengths: NDArray[np.int64], order: NDArray[np.int64], batch_tokens: int) -> list[NDArray[np.int64]]:
    """Pairs in an order, in batches as large as fit; see `shuffled_batches`."""
    batches, first, longest = [], 0, 0
    for place, number in enumerate(order):
        longest = max(longest, int(lengths[number].max()))
        if place > first and longest * (place + 1 - first) > batch_tokens:
            batches.append(order[first:place])
            first, longest = place, int(lengths[number].max())
    return [*batches, order[first:]]


def in_order(
    pairs: Sequence[IdPair], batch_tokens: int, device: torch.device | str = "cpu"
) -> Iterator[TranslationBatch]:
    """All pairs once, by length, in batches of at most so many tokens on either side."""
    lengths = np.array([[len(source), len(target) - 1] for source, target in pairs])
    for chosen in cut(lengths, np.lexsort((lengths[:, 0], lengths[:, 1])), batch_tokens):
        yield padded([pairs[number] for number in chosen], device)


def padded(pairs: Sequence[IdPair], device: torch.device | str = "cpu") -> TranslationBatch:
    """Pairs as one batch."""
    return TranslationBatch(
        *pad_right([source for source, _ in pairs], device), *pad_right([target for _, target in pairs], device)
    )
