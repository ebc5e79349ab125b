"""BERT's pre-training: filling in masked tokens, and telling whether the second of two segments follows the first.

Devlin et al. 2018, section 3.1 and appendix A.1 and A.2. Pairs are drawn from documents whenever a batch is asked for,
with new masks each time; the authors' program wrote each document ten times with fixed masks instead.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.data.sentence_files import SentenceFile
from language.models.bert import BERTConfig
from language.models.bert_input import Markers, Packed, padded, special_id
from language.tokenizers.tokenizer import Tokenizer
from language.training.language_modelling import random_state
from language.training.peak import training_operations
from language.training.problem import Loss
from language.training.sentence_pairs import PairSampler
from language.training.training_config import TrainingConfig

PAPERS_TRAINING = TrainingConfig(
    steps=1_000_000, learning_rate=1e-4, schedule="linear", warmup=10_000, floor=0.0, weight_decay=0.01, beta_1=0.9,
    beta_2=0.999, epsilon=1e-6, clip_norm=1.0,
)  # fmt: skip
"""The paper's pre-training, of batches of 256 (appendix A.2; epsilon and clipping are the authors' program's)."""
_EVALUATION_SEED = 0


@dataclass(frozen=True)
class MaskedModellingConfig:
    """How documents become batches."""

    batch_size: int = 32
    """Pairs (appendix A.2: 256)."""
    length: int = 128
    """Tokens of a pair at most, with [CLS] and two [SEP] (appendix A.2: 128 for nine tenths of the steps, then 512)."""
    masked: float = 0.15
    """The share of a pair's tokens that are to be told (section 3.1)."""
    most_masked: int | None = None
    """So many of a pair at most, as in the authors' program, whose 20 of 128 and 77 of 512 leave 0.15 as it is."""
    replaced_by_mask: float = 0.8
    """The share of these in whose place [MASK] is read (section 3.1)."""
    replaced_by_random: float = 0.1
    """The share in whose place a random token is read; the others stay as they are (section 3.1)."""
    short: float = 0.1
    """The share of pairs that are made for a shorter, random length, as in the authors' program."""
    from_elsewhere: float = 0.5
    """The share of pairs whose second segment is from another document (section 3.1)."""
    evaluation_rows: int = 1_000
    """Pairs of the held-out documents that are evaluated, always the same with the same masks."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "most_masked", "evaluation_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.length < 5:
            raise RllabError(f"length must be at least 5, for [CLS], two tokens and two [SEP], not {self.length}.")
        for name in ("masked", "replaced_by_mask", "replaced_by_random", "short", "from_elsewhere"):
            if not 0 <= getattr(self, name) <= 1:
                raise RllabError(f"{name} must be from 0 to 1, not {getattr(self, name)}.")
        if self.replaced_by_mask + self.replaced_by_random > 1 + 1e-9:
            raise RllabError("replaced_by_mask and replaced_by_random must not be more than 1 together.")


class MaskedBatch(NamedTuple):
    """Pairs, padded on the right."""

    tokens: Tensor
    """int64 `[N, T]`, some of them masked."""
    valid: Tensor
    """bool `[N, T]`, false in padding."""
    segments: Tensor
    """int64 `[N, T]`."""
    wanted: Tensor
    """bool `[N, T]`, M of them true, where tokens are to be told."""
    targets: Tensor
    """int64 `[M]`, what stood there, row by row."""
    elsewhere: Tensor
    """int64 `[N]`, 0 where the second segment follows the first, 1 where it is from another document."""


class Judged(NamedTuple):
    """What a model says of a batch, summed."""

    masked: Tensor
    """Cross-entropies of the tokens to be told, in nats."""
    right: int
    """How many of them have the highest logit."""
    following: Tensor
    """Cross-entropies of following, in nats."""
    following_right: int
    """Pairs of which it is told rightly whether the second segment follows."""


class MaskedModelling:
    """Pairs of segments with masked tokens; a `Problem`. The model is a `BERTForPretraining`."""

    goal, higher_is_better = "masked_perplexity", False

    def __init__(
        self, training: SentenceFile, held_out: SentenceFile, tokenizer: Tokenizer, config: MaskedModellingConfig,
        seed: int = 0, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """Take documents.

        Raises:
            RllabError: the tokenizer lacks [CLS], [SEP] or [MASK], or has no other tokens; or there are less than two
                documents, or none has two sentences, on either side of the split.
        """
        self.config, self.device = config, device
        self.masker = Masker.of(tokenizer, config)
        self._training = PairSampler(training, config.length, config.short, config.from_elsewhere)
        self._held_out = PairSampler(held_out, config.length, config.short, config.from_elsewhere)
        self.generator = np.random.default_rng(seed)
        self._evaluated: list[MaskedBatch] = []

    def batch(self) -> MaskedBatch:
        """The next one."""
        return self._drawn(self._training, self.config.batch_size, self.generator)

    def _drawn(self, sampler: PairSampler, rows: int, generator: np.random.Generator) -> MaskedBatch:
        pairs = [sampler.draw(generator) for _ in range(rows)]
        packed = [self.masker.markers.pack(pair.first.tolist(), pair.second.tolist()) for pair in pairs]
        elsewhere = torch.tensor([int(not pair.follows) for pair in pairs], device=self.device)
        return self.masker.masked(packed, elsewhere, generator, self.device)

    def loss(self, model: nn.Module, batch: MaskedBatch) -> Loss:
        """The sum of the cross-entropies of masked tokens, and as many times the mean of those of following.

        Divided by the number of masked tokens it is the paper's loss, the sum of both means.
        """
        judged, count, rows = judge(model, batch), len(batch.targets), len(batch.tokens)
        metrics = {
            "masked_loss": judged.masked.item() / max(count, 1), "masked_accuracy": judged.right / max(count, 1),
            "next_sentence_loss": judged.following.item() / rows,
            "next_sentence_accuracy": judged.following_right / rows,
        }  # fmt: skip
        return Loss(judged.masked + count * judged.following / rows, count, int(batch.valid.sum()), metrics)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Losses in nats, perplexity of masked tokens, and shares that are right, on the same pairs and masks always.

        `masked_perplexity` is the exponential of the mean cross-entropy of a masked token; no language model's
        perplexity compares with it, for both sides of the token are given.
        """
        masked, right, count, following, following_right, rows = 0.0, 0, 0, 0.0, 0, 0
        for batch in self._evaluation_batches():
            judged = judge(model, batch)
            masked, right, count = masked + judged.masked.item(), right + judged.right, count + len(batch.targets)
            following, following_right = following + judged.following.item(), following_right + judged.following_right
            rows += len(batch.tokens)
        masked /= max(count, 1)
        return {
            "loss": masked + following / rows, "masked_loss": masked, "masked_perplexity": math.exp(min(masked, 700.0)),
            "masked_accuracy": right / max(count, 1), "next_sentence_loss": following / rows,
            "next_sentence_accuracy": following_right / rows,
        }  # fmt: skip

    def _evaluation_batches(self) -> Sequence[MaskedBatch]:
        if not self._evaluated:
            generator = np.random.default_rng(_EVALUATION_SEED)
            left = self.config.evaluation_rows
            while left > 0:
                rows = min(left, self.config.batch_size)
                self._evaluated.append(self._drawn(self._held_out, rows, generator))
                left -= rows
        return self._evaluated

    def operations(self, model: nn.Module, tokens: int) -> float:
        """Of the layers for all tokens, and of what fills in for the masked ones; the rest is hardly anything."""
        config = cast(BERTConfig, model.config)
        layers = training_operations(
            model.get_submodule("bert.blocks"), tokens, layers=config.layers, width=config.width,
            length=self.config.length,
        )  # fmt: skip
        most = self.config.most_masked or self.config.length
        masked = tokens * min(self.config.masked, most / self.config.length)
        return layers + 6.0 * masked * config.width * (config.vocabulary_size + config.width)

    def state_dict(self) -> dict[str, Any]:
        """The random generator's state."""
        return {"generator": random_state(self.generator)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with it."""
        self.generator.bit_generator.state = state["generator"]


@dataclass(frozen=True)
class Masker:
    """Chooses which tokens are to be told, and what is read in their place."""

    markers: Markers
    """[CLS] and [SEP]."""
    mask: int
    """The id of [MASK]."""
    ordinary: NDArray[np.int64]
    """Ids that may be told, and be put in another's place: all but the special ones."""
    is_ordinary: NDArray[np.bool_]
    """`[V]`, whether an id is one of these."""
    config: MaskedModellingConfig
    """How many."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, config: MaskedModellingConfig) -> "Masker":
        """A tokenizer's. Raises RllabError if it lacks [CLS], [SEP] or [MASK], or has special tokens only."""
        markers, mask = Markers.of(tokenizer), special_id(tokenizer, "mask")
        is_ordinary = np.ones(len(tokenizer), bool)
        is_ordinary[list(tokenizer.special_ids.values())] = False
        if not is_ordinary.any():
            raise RllabError("The tokenizer has special tokens only; train it on texts.")
        return cls(markers, mask, np.flatnonzero(is_ordinary), is_ordinary, config)

    def masked(
        self, rows: Sequence[Packed], elsewhere: Tensor, generator: np.random.Generator,
        device: torch.device | str = "cpu",
    ) -> MaskedBatch:  # fmt: skip
        """Rows as a batch with masks.

        Of a row of n tokens, [CLS] and [SEP] counted, round(0.15 n) are chosen, one at least, but special ones never.
        """
        config = self.config
        tokens, valid, segments = (part.numpy() for part in padded(rows))
        candidates = valid & self.is_ordinary[tokens]
        counts = np.rint(config.masked * valid.sum(1)).astype(np.int64).clip(1, config.most_masked or config.length)
        # The smallest of random numbers, one for each place, are at places that are drawn without replacement.
        drawn = np.where(candidates, generator.random(tokens.shape), np.inf)
        rank = drawn.argsort(1).argsort(1)
        wanted = candidates & (rank < counts[:, None])
        targets = tokens[wanted]
        kind = generator.random(len(targets))
        random = self.ordinary[generator.integers(len(self.ordinary), size=len(targets))]
        replaced = config.replaced_by_mask + config.replaced_by_random
        read = np.where(kind < config.replaced_by_mask, self.mask, np.where(kind < replaced, random, targets))
        tokens[wanted] = read
        parts = [torch.from_numpy(part).to(device) for part in (tokens, valid, segments, wanted, targets)]
        return MaskedBatch(*parts, elsewhere)  # type: ignore[call-arg]


def judge(model: nn.Module, batch: MaskedBatch) -> Judged:
    """How well a model tells the masked tokens, of which alone it computes logits, and what follows."""
    logits, following = model(batch.tokens, batch.valid, batch.segments, batch.wanted)
    logits, following = logits.float(), following.float()
    return Judged(
        functional.cross_entropy(logits, batch.targets, reduction="sum"),
        int((logits.detach().argmax(1) == batch.targets).sum()),
        functional.cross_entropy(following, batch.elsewhere, reduction="sum"),
        int((following.detach().argmax(1) == batch.elsewhere).sum()),
    )
