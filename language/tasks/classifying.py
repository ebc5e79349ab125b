"""Classes of texts by trained classifiers, one or several whose probabilities are averaged.

Howard, Ruder 2018 (1801.06146), section 3.3, average a forward and a backward model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.documents import Form
from language.models.folder import load_model
from language.tasks.document_readers import DocumentReader, Texts, reader_of
from language.tokenizers.tokenizer import Tokenizer
from language.training.classification import class_logits


class Verdict(NamedTuple):
    """What a text is taken for."""

    label: str
    """The likeliest class."""
    probability: float
    """Of that class."""
    probabilities: dict[str, float]
    """Of all classes."""


@dataclass(frozen=True)
class Classifier:
    """Trained models of the same classes, each with its tokenizer."""

    models: tuple[nn.Module, ...]
    """In evaluation mode."""
    readers: tuple[DocumentReader, ...]
    """Of each, how it reads."""
    classes: tuple[str, ...]
    """Their names."""
    batch_size: int = 32
    """Texts at a time."""
    device: torch.device | str = "cpu"
    """Where the models are."""

    @classmethod
    def of(
        cls, trained: Sequence[tuple[nn.Module, Tokenizer]], batch_size: int = 32, device: torch.device | str = "cpu"
    ) -> Self:
        """Of models and their tokenizers.

        Raises:
            RllabError: there is none, one is no classifier, or they have different classes or forms of inputs.
        """
        if not trained:
            raise RllabError("Name a trained classifier at least.")
        configs: list[Any] = [model.config for model, _ in trained]
        readers = [reader_of(config, tokenizer) for config, (_, tokenizer) in zip(configs, trained, strict=True)]
        for config, reader in zip(configs, readers, strict=True):
            if config.classes != configs[0].classes:
                ours, theirs = ", ".join(configs[0].classes), ", ".join(config.classes)
                raise RllabError(f"The models have the classes {ours} and {theirs}; they must be the same.")
            if reader.form != readers[0].form:
                raise RllabError(f"The models classify {readers[0].form} and {reader.form}; they must do the same.")
        models = tuple(model for model, _ in trained)
        return cls(models, tuple(readers), configs[0].classes, batch_size, device)

    @classmethod
    def load(cls, folders: Sequence[Path | str], batch_size: int = 32, device: torch.device | str = "cpu") -> Self:
        """Of runs or folders of models. Raises RllabError as `of`, or if one cannot be loaded."""
        return cls.of([load_model(folder, device) for folder in folders], batch_size, device)

    @property
    def form(self) -> Form:
        """What an input is."""
        return self.readers[0].form

    def probabilities(self, inputs: Sequence[Texts]) -> Tensor:
        """Of each class, float32 `[inputs, classes]` on the CPU.

        Args:
            inputs: each one text, or a pair, or a context and its answers, as the models' form says.

        Raises:
            RllabError: an input has the wrong number of texts, or one without a token.
        """
        if not inputs:
            return torch.empty(0, len(self.classes))
        found = []
        for model, reader in zip(self.models, self.readers, strict=True):
            documents = reader.read(inputs)
            found.append(class_logits(model, documents, self.batch_size, self.device, reader.collate).softmax(1).cpu())
        return torch.stack(found).mean(0)

    def classify(self, inputs: Sequence[Texts]) -> list[Verdict]:
        """The likeliest class of each input; arguments and errors as of `probabilities`."""
        return verdicts(self.classes, self.probabilities(inputs))


def verdicts(classes: Sequence[str], probabilities: Tensor) -> list[Verdict]:
    """The likeliest of classes, given the probabilities of all, `[inputs, classes]`."""
    found = []
    for row in probabilities.tolist():
        best = max(range(len(row)), key=row.__getitem__)
        found.append(Verdict(classes[best], row[best], dict(zip(classes, row, strict=True))))
    return found
