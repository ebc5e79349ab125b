"""Tagging words with BERT, such as names of persons and places (Devlin et al. 2018, section 5.3).

A word's tag is told from its first piece; the others have none, and are not learnt from. A sentence that is longer than
the context is read in parts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.models.bert_input import Markers, Packed, padded
from language.models.bert_tasks import BERTTagger
from language.tasks.tagged_words import TaggedSentence, are_spans, span_scores
from language.tokenizers.tokenizer import Tokenizer
from language.training.classification import class_numbers
from language.training.epochs import Epochs
from language.training.problem import Loss

_MARKERS = 2
"""[CLS] and [SEP]."""


@dataclass(frozen=True)
class TaggingConfig:
    """How sentences become batches."""

    batch_size: int = 32
    """Sentences (appendix A.3: 16 or 32)."""
    length: int = 128
    """Tokens at most; longer sentences are read in parts. No more than the model's context."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise RllabError(f"batch_size must be at least 1, not {self.batch_size}.")
        if self.length <= _MARKERS:
            raise RllabError(f"length must be at least 3, for [CLS], a token and [SEP], not {self.length}.")


class Part(NamedTuple):
    """A sentence, or as much of one as is read at once."""

    packed: Packed
    """What is read."""
    firsts: list[int]
    """Where in it each word's first piece is."""


class TaggingBatch(NamedTuple):
    """Parts, padded on the right."""

    tokens: Tensor
    """int64 `[N, T]`."""
    valid: Tensor
    """bool `[N, T]`."""
    firsts: Tensor
    """bool `[N, T]`, M of them true, where a word's first piece is."""
    tags: Tensor
    """int64 `[M]`, the numbers of the words' tags, row by row."""


class Reader:
    """Turns words into what BERT reads."""

    def __init__(self, tokenizer: Tokenizer, length: int) -> None:
        """Raises RllabError if the tokenizer lacks [CLS] or [SEP]."""
        self.tokenizer, self.markers, self.room = tokenizer, Markers.of(tokenizer), length - _MARKERS
        unknown = tokenizer.special.unknown
        self._unknown = None if unknown is None else tokenizer.vocabulary[unknown]

    def parts(self, words: Sequence[str]) -> Iterator[Part]:
        """A sentence in parts of as many whole words as fit; of a word that does not fit alone, its first pieces.

        Raises RllabError if a word has no tokens and there is no unknown one for it.
        """
        tokens: list[int] = []
        firsts: list[int] = []
        for word in words:
            pieces = self._pieces(word)
            if firsts and len(tokens) + len(pieces) > self.room:
                yield Part(self.markers.pack(tokens), firsts)
                tokens, firsts = [], []
            firsts.append(len(tokens) + 1)
            tokens += pieces
        if firsts:
            yield Part(self.markers.pack(tokens), firsts)

    def _pieces(self, word: str) -> list[int]:
        pieces = self.tokenizer.ids(word)[: self.room]
        if not pieces and self._unknown is None:
            raise RllabError(f"The word {word!r} has no tokens, and there is none for the unknown; leave it out.")
        return pieces or [self._unknown or 0]


class Tagging:
    """Each sentence once in an epoch; cross-entropy of its words' tags; a `Problem` for a `BERTTagger`.

    Attributes:
        tags: the names of the tags, in alphabetical order, which the model's configuration is to have.
        goal: `f1` of spans where the tags are O, B-… and I-…, else `accuracy`.
        epoch_batches: how many batches an epoch has.
    """

    higher_is_better = True

    def __init__(
        self, training: Sequence[TaggedSentence], held_out: Sequence[TaggedSentence], tokenizer: Tokenizer,
        config: TaggingConfig | None = None, seed: int = 0, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """Take sentences.

        Raises:
            RllabError: there are none, all words have the same tag, a tag of the held-out sentences is not in the
                training, or the tokenizer lacks [CLS] or [SEP].
        """
        config = config or TaggingConfig()
        for name, sentences in (("training", training), ("validation", held_out)):
            if not sentences:
                raise RllabError(f"There is no sentence for {name}; give one at least.")
        self.tags = tuple(sorted({tag for sentence in training for tag in sentence.tags}))
        if len(self.tags) < 2:
            raise RllabError(f"All words have the tag '{self.tags[0]}'; there must be two at least.")
        self.config, self.held_out, self.device = config, held_out, device
        self.goal = "f1" if are_spans(self.tags) else "accuracy"
        reader = Reader(tokenizer, config.length)
        self._parts: list[Part] = []
        self._numbers: list[Tensor] = []
        for sentence in training:
            numbers = class_numbers(sentence.tags, self.tags)
            parts = list(reader.parts(sentence.words))
            self._parts += parts
            self._numbers += torch.split(numbers, [len(part.firsts) for part in parts])
        self._held_out_numbers = [class_numbers(sentence.tags, self.tags) for sentence in held_out]
        self._held_out_parts = [list(reader.parts(sentence.words)) for sentence in held_out]
        self._epochs = Epochs([len(part.packed.tokens) for part in self._parts], config.batch_size, seed)
        self.epoch_batches = self._epochs.batches

    def batch(self) -> TaggingBatch:
        """The next one."""
        chosen = self._epochs.next()
        tags = torch.cat([self._numbers[number] for number in chosen]).to(self.device)
        return TaggingBatch(*collated([self._parts[number] for number in chosen], self.device), tags)

    def loss(self, model: nn.Module, batch: TaggingBatch) -> Loss:
        """The sum of cross-entropies, in nats."""
        logits = model(batch.tokens, batch.valid)[batch.firsts].float()
        total, count = functional.cross_entropy(logits, batch.tags, reduction="sum"), len(batch.tags)
        right = int((logits.detach().argmax(1) == batch.tags).sum())
        return Loss(total, count, int(batch.valid.sum()), {"accuracy": right / count})

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Loss a word, in nats, the share of words whose tag is right, and precision, recall and F1 of spans."""
        logits = word_logits(model, self._held_out_parts, self.config.batch_size, self.device)
        together, numbers = torch.cat(logits).cpu(), torch.cat(self._held_out_numbers)
        judged = {
            "loss": functional.cross_entropy(together, numbers).item(),
            "accuracy": (together.argmax(1) == numbers).float().mean().item(),
        }
        if self.goal == "f1":
            found = [[self.tags[number] for number in row.argmax(1).tolist()] for row in logits]
            judged |= span_scores([sentence.tags for sentence in self.held_out], found)._asdict()
        return judged

    def operations(self, model: nn.Module, tokens: int) -> float:
        """Not known: fine-tuning is short."""
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        """Where in an epoch it is."""
        return self._epochs.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there."""
        self._epochs.load_state_dict(state)


def collated(parts: Sequence[Part], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Parts as tokens, where they are, and where words' first pieces are, each `[N, T]`."""
    batch = padded([part.packed for part in parts], device)
    firsts = torch.zeros_like(batch.valid)
    rows = torch.tensor([row for row, part in enumerate(parts) for _ in part.firsts], device=device)
    firsts[rows, torch.tensor([place for part in parts for place in part.firsts], device=device)] = True
    return batch.tokens, batch.valid, firsts


def word_logits(
    model: nn.Module, sentences: Sequence[Sequence[Part]], batch_size: int = 32, device: torch.device | str = "cpu"
) -> list[Tensor]:
    """Logits `[words, tags]` of each sentence, given as its parts; those of about equal lengths are read together.

    The model is to be in evaluation mode.
    """
    parts = [part for sentence in sentences for part in sentence]
    order = sorted(range(len(parts)), key=lambda number: len(parts[number].packed.tokens))
    found: list[Tensor] = [torch.empty(0)] * len(parts)
    with torch.no_grad():
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            tokens, valid, firsts = collated([parts[number] for number in chosen], device)
            logits = model(tokens, valid)[firsts].float()
            for number, rows in zip(chosen, torch.split(logits, [len(parts[n].firsts) for n in chosen]), strict=True):
                found[number] = rows
    remaining = iter(found)
    return [torch.cat([next(remaining) for _ in sentence]) for sentence in sentences]


@dataclass(frozen=True)
class Tagger:
    """A trained model and its tokenizer."""

    model: BERTTagger
    """In evaluation mode; its configuration names the tags."""
    tokenizer: Tokenizer
    """The one that it was trained with."""
    batch_size: int = 32
    """Sentences at a time."""
    device: torch.device | str = "cpu"
    """Where the model is."""

    def tag(self, words: Sequence[str]) -> list[str]:
        """The tag of each word of a sentence. Raises RllabError if there is no word."""
        return self.tag_all([words])[0]

    def tag_all(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """The tags of the words of several sentences. Raises RllabError if one has no word."""
        for number, words in enumerate(sentences, 1):
            if not words:
                raise RllabError(f"Sentence {number:,} has no words; leave it out.")
        reader = Reader(self.tokenizer, self.model.config.bert.context)
        parts = [list(reader.parts(words)) for words in sentences]
        logits = word_logits(self.model, parts, self.batch_size, self.device)
        return [[self.model.config.tags[number] for number in row.argmax(1).tolist()] for row in logits]
