"""Training a classifier of texts: which texts, from which pre-trained model, and what is said of it at the end."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import nn

from language.data.order import shuffled
from language.models.documents import Form, check_form
from language.models.folder import check_vocabulary, load_initial, make_model
from language.tasks.document_readers import reader_of
from language.tokenizers.files import load_tokenizer
from language.tokenizers.tokenizer import Progress, Tokenizer
from language.training.classification import (
    Classification,
    ClassificationConfig,
    LabelledDocument,
    classes_of,
)
from language.training.classification_kinds import ClassifierKind, classifier_kind
from language.training.epochs import batch_count
from language.training.fine_tuning import FineTuningConfig
from language.training.labelled_texts import LabelledTexts, LabelledTextsConfig, few_of_each
from language.training.pretraining import layer_groups
from language.training.pretraining_kinds import KINDS
from language.training.recipe import TOKENIZER_FOLDER, Recipe, tokenizer_of
from language.training.slanted import GradualUnfreezing, SlantedConfig
from language.training.supervised import SupervisedTraining
from language.training.training_config import TrainingConfig
from preference.measures import wilson_interval
from rllab.runs import Run

_ANY = TrainingConfig()


@dataclass(frozen=True)
class ClassificationRun:
    """What came of it."""

    path: Path
    """The run's folder."""
    stop_reason: str | None
    """Why training ended before its configured epochs."""
    classes: tuple[str, ...]
    """Their names."""
    documents: int
    """How many were learnt from."""
    confusion: tuple[tuple[int, ...], ...]
    """How often a document of the test part of each class (rows) was taken for each class (columns)."""
    loss: float
    """Of a document of the test part, in nats."""

    @property
    def tested(self) -> int:
        """Documents of the test part, which was looked at by nobody before."""
        return sum(map(sum, self.confusion))

    @property
    def right(self) -> int:
        """How many of them were taken for what they are."""
        return sum(row[place] for place, row in enumerate(self.confusion))

    @property
    def accuracy(self) -> float:
        """Their share."""
        return self.right / self.tested

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of it."""
        return wilson_interval(self.right, self.tested)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What a command says of it: names and values."""
        return [
            ("Learnt from", f"{self.documents:,} documents"),
            ("Test accuracy", shown_share(self.right, self.tested)),
            ("Test loss", f"{self.loss:.3f}"),
        ]


def shown_share(right: int, tested: int) -> str:
    """An accuracy with Wilson's 95 % interval, to read."""
    low, high = wilson_interval(right, tested)
    return f"{right / tested:.1%} of {tested:,} documents (95 % interval {low:.1%} to {high:.1%})"


@dataclass(frozen=True, kw_only=True)
class ClassificationTraining(Recipe[ClassificationRun]):
    """A classifier learns, on top of a pre-trained model or from random weights."""

    run_kind: ClassVar[str] = "language-classification"

    texts: LabelledTextsConfig
    """What is classified."""
    batches: ClassificationConfig
    """How documents become batches."""
    fine_tuning: FineTuningConfig
    """How it learns."""
    training: TrainingConfig = _ANY
    """The same in steps, which are known once the documents are."""
    initial: str | None = None
    """A run or a folder of a pre-trained model, whose sizes, weights and tokenizer it begins with."""

    @property
    def goal(self) -> str:
        """See `Recipe`."""
        return Classification.goal

    @property
    def higher_is_better(self) -> bool:
        """See `Recipe`."""
        return Classification.higher_is_better

    @property
    def _kind(self) -> ClassifierKind:
        return classifier_kind(self.model_kind)

    @cached_property
    def _parts(self) -> dict[str, list[LabelledTexts]]:
        """The documents: for training and validation as many as are asked for."""
        parts = self.texts.parts()
        seed = self.fine_tuning.seed
        if self.texts.labels:
            parts["training"] = few_of_each(parts["training"], self.texts.labels, seed)
        if self.texts.validation:
            parts["validation"] = shuffled(parts["validation"], 0)[: self.texts.validation]
        return parts

    def prepare(self, folder: Path, progress: Progress | None) -> Self:
        """Take the pre-trained model's tokenizer, or train one; look at the documents."""
        form: Form = getattr(self.model, "form", "classification")
        check_form(form, len(self._parts["training"][0].texts), "A document")
        model, tokenizer = self._model_and_tokenizer(progress)
        tokenizer.save(folder / TOKENIZER_FOLDER)
        if not model.classes:
            found = classes_of([labelled.label for labelled in self._parts["training"]])
            model = replace(model, classes=self.texts.choices or found)
        epoch_batches = batch_count(len(self._parts["training"]), self.batches.batch_size)
        recipe = replace(self, model=model, training=self.fine_tuning.training(epoch_batches))
        recipe._problem(folder, "test")  # whatever is wrong with a document is said before training begins
        return recipe

    def _model_and_tokenizer(self, progress: Progress | None) -> tuple[Any, Tokenizer]:
        kind = self._kind
        if self.initial is not None:
            loaded, tokenizer = load_initial(self.initial, kind.pretrained)
            return kind.with_pretrained(self.model, loaded.config), tokenizer
        if self.texts.tokenizer is not None:
            tokenizer = load_tokenizer(self.texts.tokenizer)
        else:
            texts = [text for labelled in self.texts.parts()["training"] for text in labelled.texts]
            tokenizer = KINDS[kind.pretrained].tokenizer(texts, self.model.vocabulary_size, progress)
        sizes = replace(getattr(self.model, kind.part), vocabulary_size=len(tokenizer))
        return kind.with_pretrained(self.model, sizes), tokenizer

    def _problem(self, folder: Path, held_out: str) -> Classification:
        tokenizer = tokenizer_of(folder)
        check_vocabulary(tokenizer, self.model.vocabulary_size)
        reader = reader_of(self.model, tokenizer)

        def documents(part: str) -> Sequence[LabelledDocument]:
            labelled = self._parts[part]
            read = reader.read([each.texts for each in labelled])
            return [LabelledDocument(document, each.label) for document, each in zip(read, labelled, strict=True)]

        return Classification(
            documents("training"), documents(held_out), self.batches, self.training.seed, self.device,
            classes=self.model.classes, collate=reader.collate,
        )  # fmt: skip

    def assemble(self, run: Run, quiet: bool) -> SupervisedTraining[Any]:
        """See `Recipe`."""
        problem = self._problem(run.path, "validation")
        model = make_model(self.model_kind, self.model)
        if self.initial is not None and run.checkpoints.latest() is None:
            load_encoder: Any = model.load_encoder
            load_encoder(load_initial(self.initial, self._kind.pretrained)[0])
        model = model.to(self.device)
        layers = layer_groups(model)
        groups = SlantedConfig(factor=self.fine_tuning.layer_factor).groups(layers)
        before_step = None
        if self.fine_tuning.gradual_unfreezing:
            before_step = GradualUnfreezing(layers, self.fine_tuning.epoch_steps(problem.epoch_batches))
        return SupervisedTraining(
            model, problem, self.training, run=run, groups=groups, before_step=before_step, quiet=quiet
        )

    def finish(self, training: SupervisedTraining[Any], run: Run) -> ClassificationRun:
        """Classify the test part."""
        problem = self._problem(run.path, "test")
        model: nn.Module = training.model
        return ClassificationRun(
            run.path, run.stop_reason(), problem.classes, len(problem.training),
            tuple(map(tuple, problem.confusion(model))), problem.evaluate(model)["loss"],
        )  # fmt: skip
