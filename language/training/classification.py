"""Learning the classes of documents: batches of about equal lengths, cross-entropy, accuracy.

For ULMFiT's classifier (Howard, Ruder 2018, 1801.06146, section 3.3), and any model that gives logits of classes for
documents that are padded on the right.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.models.padding import pad_right
from language.training.language_modelling import random_state
from language.training.supervised import Loss


@dataclass(frozen=True)
class ClassificationConfig:
    """How documents become batches."""

    batch_size: int = 64
    """Documents at most, nearly (Howard and Ruder 2018, section 4.1: 64)."""
    sorted_batches: int = 50
    """So many batches' documents, drawn at random, are sorted by length before they are cut into batches. With 1,
    batches are random; with more there is less padding."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "sorted_batches"):
            if getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}.")


class LabelledDocument(NamedTuple):
    """A document and its class."""

    tokens: Sequence[int]
    """At least one."""
    label: str
    """The name of its class."""


class ClassificationBatch(NamedTuple):
    """Documents, padded on the right."""

    tokens: Tensor
    """int64 `[N, T]`."""
    valid: Tensor
    """bool `[N, T]`."""
    labels: Tensor
    """int64 `[N]`, the numbers of their classes."""


class Classification:
    """Each document once in an epoch; cross-entropy of its class; a `Problem`.

    The model is one whose `forward(tokens, valid)` gives logits `[N, classes]`.

    Attributes:
        classes: the names of the classes, in alphabetical order; their numbers are their places.
        epoch_batches: how many batches an epoch has.
    """

    goal, higher_is_better = "accuracy", True

    def __init__(
        self, training: Sequence[LabelledDocument], held_out: Sequence[LabelledDocument], config: ClassificationConfig,
        seed: int = 0, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """Take documents.

        Raises:
            RllabError: there are none, one has no tokens, there is one class only, or a label of the held-out documents
                is not in the training's.
        """
        for name, documents in (("training", training), ("validation", held_out)):
            if not documents:
                raise RllabError(f"There is no document for {name}; give one at least.")
            if not all(len(document.tokens) for document in documents):
                raise RllabError(f"A document for {name} has no tokens; leave it out, or give it a begin token.")
        self.training, self.held_out, self.config, self.device = training, held_out, config, device
        self.classes = tuple(sorted({document.label for document in training}))
        if len(self.classes) < 2:
            raise RllabError(f"All documents have the label '{self.classes[0]}'; there must be two at least.")
        self._labels = class_numbers([document.label for document in training], self.classes)
        self._held_out_labels = class_numbers([document.label for document in held_out], self.classes)
        self._lengths = np.array([len(document.tokens) for document in training])
        self.epoch_batches = batch_count(len(training), config.batch_size)
        self.generator = np.random.default_rng(seed)
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._state = random_state(self.generator)
        self._batches = shuffled_batches(self._lengths, self.config, self.generator)
        self._next = 0

    def batch(self) -> ClassificationBatch:
        """The next one."""
        if self._next == len(self._batches):
            self._begin_epoch()
        chosen = self._batches[self._next]
        self._next += 1
        tokens, valid = pad_right([self.training[number].tokens for number in chosen], self.device)
        return ClassificationBatch(tokens, valid, self._labels[torch.from_numpy(chosen)].to(self.device))

    def loss(self, model: nn.Module, batch: ClassificationBatch) -> Loss:
        """The sum of cross-entropies, in nats."""
        logits = model(batch.tokens, batch.valid).float()
        total, count = functional.cross_entropy(logits, batch.labels, reduction="sum"), len(batch.labels)
        right = int((logits.detach().argmax(1) == batch.labels).sum())
        return Loss(total, count, int(batch.valid.sum()), {"accuracy": right / count})

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Loss a document, in nats, and the share of held-out documents whose class has the highest logit."""
        documents = [document.tokens for document in self.held_out]
        logits = class_logits(model, documents, self.config.batch_size, self.device).cpu()
        return {
            "loss": functional.cross_entropy(logits, self._held_out_labels).item(),
            "accuracy": (logits.argmax(1) == self._held_out_labels).float().mean().item(),
        }

    def operations(self, model: nn.Module, tokens: int) -> float:
        """Not known: which layers and which tokens have derivatives changes while it is fine-tuned."""
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        """The random generator as it was before this epoch, and how many batches of it are done."""
        return {"generator": self._state, "done": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in that epoch."""
        self.generator.bit_generator.state = state["generator"]
        self._begin_epoch()
        self._next = state["done"]


def class_numbers(labels: Sequence[str], classes: Sequence[str]) -> Tensor:
    """The places of labels among the classes, int64 `[N]`. Raises RllabError if one is not among them."""
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = sorted({label for label in labels if label not in numbers})
    if unknown:
        raise RllabError(
            f"The label '{unknown[0]}' was not in the training; it knows {', '.join(classes)}. Train with it, or leave "
            "its documents out."
        )
    return torch.tensor([numbers[label] for label in labels])


def class_logits(
    model: nn.Module, documents: Sequence[Sequence[int]], batch_size: int = 64, device: torch.device | str = "cpu"
) -> Tensor:
    """Logits float32 `[documents, classes]`, in the documents' order; those of about equal lengths are read together.

    Args:
        model: in evaluation mode; `forward(tokens, valid)` gives logits.
        documents: token ids, one at least in each.
        batch_size: how many are read at once.
        device: where the model is.
    """
    order = sorted(range(len(documents)), key=lambda number: len(documents[number]))
    found = []
    with torch.no_grad():
        for first in range(0, len(order), batch_size):
            rows = [documents[number] for number in order[first : first + batch_size]]
            found.append(model(*pad_right(rows, device)).float())
    return torch.cat(found)[torch.tensor(order).argsort().to(device)]


def batch_count(documents: int, batch_size: int) -> int:
    """How many batches there are of nearly equal sizes, so that none has a single document if more were asked for.

    A single document cannot be learnt from with batch normalisation, nor should it weigh as much as a batch.
    """
    count = math.ceil(documents / batch_size)
    return count if batch_size == 1 else min(count, max(documents // 2, 1))


def shuffled_batches(
    lengths: NDArray[np.int64], config: ClassificationConfig, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """The numbers of all documents in random batches of about equal lengths, in random order.

    Args:
        lengths: `[documents]`, tokens of each.
        config: how large batches are, and how many are sorted together.
        generator: decides.
    """
    drawn = np.array_split(generator.permutation(len(lengths)), batch_count(len(lengths), config.batch_size))
    batches: list[NDArray[np.int64]] = []
    for first in range(0, len(drawn), config.sorted_batches):
        together = drawn[first : first + config.sorted_batches]
        numbers = np.concatenate(together)
        numbers = numbers[np.argsort(lengths[numbers], kind="stable")]
        batches += np.array_split(numbers, np.cumsum([len(batch) for batch in together])[:-1])
    return [batches[number] for number in generator.permutation(len(batches))]
