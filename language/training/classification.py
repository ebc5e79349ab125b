"""Learning the classes of documents: batches of about equal lengths, cross-entropy, accuracy.

For ULMFiT's classifier (Howard, Ruder 2018, 1801.06146, section 3.3), and any model that gives logits of classes for
documents that are padded on the right: GPT's, whose loss has a second part, BERT's, one over ELMo's vectors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.models.padding import pad_right
from language.training.epochs import SORTED_BATCHES, Epochs
from language.training.problem import Loss


@dataclass(frozen=True)
class ClassificationConfig:
    """How documents become batches."""

    batch_size: int = 64
    """Documents at most, nearly (Howard and Ruder 2018, section 4.1: 64)."""
    sorted_batches: int = SORTED_BATCHES
    """So many batches' documents, drawn at random, are sorted by length before they are cut into batches. With 1,
    batches are random; with more there is less padding."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "sorted_batches"):
            if getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}.")


class Document(NamedTuple):
    """What is classified."""

    tokens: Sequence[Any]
    """At least one; ids, or words where a model reads those."""
    segments: Sequence[int] | None = None
    """Of each token, for models that tell two texts apart by it."""
    further: tuple[Sequence[int], ...] = ()
    """Other sequences of the same input, as many in every document, such as one for each answer to a question."""

    @property
    def length(self) -> int:
        """Of its longest sequence, in tokens."""
        return max(len(sequence) for sequence in (self.tokens, *self.further))


class LabelledDocument(NamedTuple):
    """A document and its class."""

    document: Document
    """What is read."""
    label: str
    """The name of its class."""


class ClassificationBatch(NamedTuple):
    """Documents, padded on the right."""

    inputs: tuple[Tensor, ...]
    """What the model takes: tokens, where they are, and whatever comes after."""
    labels: Tensor
    """int64 `[N]`, the numbers of their classes."""


Collate: TypeAlias = Callable[[Sequence[Document]], tuple[Tensor, ...]]
"""From documents to what a model takes, on the CPU: tokens, and bool of the same rows and columns where they are."""


def padded_documents(documents: Sequence[Document]) -> tuple[Tensor, ...]:
    """Ids as tokens int64 `[N, T]` and bool `[N, T]`; `[N, S, T]` where a document has S sequences; segments third."""
    first = documents[0]
    rows = [sequence for document in documents for sequence in (document.tokens, *document.further)]
    tokens, valid = pad_right(rows)
    if first.further:
        shape = (len(documents), 1 + len(first.further), tokens.shape[1])
        return tokens.view(shape), valid.view(shape)
    if first.segments is not None:
        return tokens, valid, pad_right([document.segments or () for document in documents])[0]
    return tokens, valid


class Classification:
    """Each document once in an epoch; cross-entropy of its class; a `Problem`.

    The model is one whose `forward(tokens, valid, …)` gives logits `[N, classes]`. If it has a method
    `with_auxiliary_loss` of the same arguments, which gives the logits and a number to add to each document's loss,
    `[N]`, that is what is learnt from.

    Attributes:
        classes: the names of the classes; their numbers are their places.
        epoch_batches: how many batches an epoch has.
    """

    goal, higher_is_better = "accuracy", True

    def __init__(
        self, training: Sequence[LabelledDocument], held_out: Sequence[LabelledDocument], config: ClassificationConfig,
        seed: int = 0, device: torch.device | str = "cpu", *, classes: Sequence[str] = (),
        collate: Collate = padded_documents,
    ) -> None:  # fmt: skip
        """Take documents.

        Args:
            training: what is learnt from.
            held_out: what the model is judged by.
            config: how they become batches.
            seed: of their order.
            device: where the model is.
            classes: their names in order; by default the labels of the training documents in alphabetical order.
            collate: makes a batch of documents.

        Raises:
            RllabError: there are none, one has no tokens, there is one class only, or a label is not among the classes.
        """
        for name, documents in (("training", training), ("validation", held_out)):
            if not documents:
                raise RllabError(f"There is no document for {name}; give one at least.")
            if not all(len(labelled.document.tokens) for labelled in documents):
                raise RllabError(f"A document for {name} has no tokens; leave it out, or give it a begin token.")
        self.training, self.held_out, self.config, self.device = training, held_out, config, device
        self.collate = collate
        self.classes = tuple(classes) or classes_of([labelled.label for labelled in training])
        self._labels = class_numbers([labelled.label for labelled in training], self.classes)
        self._held_out_labels = class_numbers([labelled.label for labelled in held_out], self.classes)
        lengths = [labelled.document.length for labelled in training]
        self._epochs = Epochs(lengths, config.batch_size, seed, config.sorted_batches)
        self.epoch_batches = self._epochs.batches

    def batch(self) -> ClassificationBatch:
        """The next one."""
        chosen = self._epochs.next()
        inputs = self.collate([self.training[number].document for number in chosen])
        labels = self._labels[torch.from_numpy(chosen)]
        return ClassificationBatch(tuple(part.to(self.device) for part in inputs), labels.to(self.device))

    def loss(self, model: nn.Module, batch: ClassificationBatch) -> Loss:
        """The sum of cross-entropies, in nats, and of what the model adds to them."""
        learn = getattr(model, "with_auxiliary_loss", None)
        logits, further = (model(*batch.inputs), None) if learn is None else learn(*batch.inputs)
        logits, count = logits.float(), len(batch.labels)
        total = functional.cross_entropy(logits, batch.labels, reduction="sum")
        metrics = {"accuracy": int((logits.detach().argmax(1) == batch.labels).sum()) / count}
        if further is not None:
            total = total + further.sum()
            metrics["auxiliary_loss"] = further.detach().mean().item()
        return Loss(total, count, int(batch.inputs[1].sum()), metrics)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Loss a document, in nats, and the share of held-out documents whose class has the highest logit."""
        logits = self.held_out_logits(model)
        return {
            "loss": functional.cross_entropy(logits, self._held_out_labels).item(),
            "accuracy": (logits.argmax(1) == self._held_out_labels).float().mean().item(),
        }

    def held_out_logits(self, model: nn.Module) -> Tensor:
        """Logits `[documents, classes]` of the held-out documents, on the CPU; the model is in evaluation mode."""
        documents = [labelled.document for labelled in self.held_out]
        return class_logits(model, documents, self.config.batch_size, self.device, self.collate).cpu()

    def confusion(self, model: nn.Module) -> list[list[int]]:
        """How often a held-out document of each class (rows) was taken for each class (columns)."""
        size = len(self.classes)
        places = self._held_out_labels * size + self.held_out_logits(model).argmax(1)
        counts: list[list[int]] = places.bincount(minlength=size * size).view(size, size).tolist()
        return counts

    def operations(self, model: nn.Module, tokens: int) -> float:
        """Not known: which layers and which tokens have derivatives changes while it is fine-tuned."""
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        """Where in an epoch it is."""
        return self._epochs.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there."""
        self._epochs.load_state_dict(state)


def classes_of(labels: Sequence[str]) -> tuple[str, ...]:
    """The different ones of labels in alphabetical order. Raises RllabError if there is one only."""
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise RllabError(f"All documents have the label '{classes[0]}'; there must be two at least.")
    return classes


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
    model: nn.Module, documents: Sequence[Document], batch_size: int = 64, device: torch.device | str = "cpu",
    collate: Collate = padded_documents,
) -> Tensor:  # fmt: skip
    """Logits float32 `[documents, classes]`, in the documents' order; those of about equal lengths are read together.

    Args:
        model: in evaluation mode; see `Classification`.
        documents: each with one token at least.
        batch_size: how many are read at once.
        device: where the model is.
        collate: makes a batch of documents.
    """
    order = sorted(range(len(documents)), key=lambda number: documents[number].length)
    found = []
    with torch.no_grad():
        for first in range(0, len(order), batch_size):
            inputs = collate([documents[number] for number in order[first : first + batch_size]])
            found.append(model(*(part.to(device) for part in inputs)).float())
    return torch.cat(found)[torch.tensor(order).argsort().to(device)]
