"""Translate: train a Transformer, or an LSTM with attention, on pairs of sentences, and translate with it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from envs.errors import RllabError
from language.cli.lines import answer_lines
from language.cli.runs import (
    RunOptions,
    check_initial_flags,
    check_vocabulary_flag,
    file_texts,
    folder_text,
    take_kind,
    train,
)
from language.models.folder import configuration_class, load_initial, load_model
from language.models.lstm_translation import LSTMTranslationConfig
from language.models.transformer import TransformerConfig
from language.tasks.translation import PAPERS_DECODING, TranslationModel, Translator
from language.training.schedules import noam_peak
from language.training.training_config import TrainingConfig
from language.training.translation import TranslationConfig
from language.training.translation_run import PairsConfig, TranslationTraining
from rllab.cli.arguments import Flag, parse
from rllab.cli.console import print_facts, quoted
from rllab.cli.report import report_run
from rllab.cli.subcommands import Subcommand, Subcommands

Configuration = TypeVar("Configuration")
_WARMUP = 400
_TRANSFORMER = TransformerConfig(4_096, 256, layers=3, heads=4, width=256, norm="pre")
SMALL: dict[str, Any] = {
    "transformer": _TRANSFORMER,
    "lstm-translation": LSTMTranslationConfig(4_096, 256, layers=2, width=398),
}
"""What two cores train in minutes, of about equal sizes; the papers' are a few flags away. Normalisation comes before
each part: with the paper's, after it, a small model needs far longer until it attends to the source."""
TRAINING = {
    "transformer": TrainingConfig(
        steps=5_000, learning_rate=round(noam_peak(_TRANSFORMER.width, _WARMUP) / 2, 5), schedule="noam",
        warmup=_WARMUP, weight_decay=0.0, beta_2=0.98, epsilon=1e-9, clip_norm=0.0,
    ),
    "lstm-translation": TrainingConfig(
        steps=5_000, learning_rate=1e-3, schedule="cosine", warmup=_WARMUP, weight_decay=0.0, beta_2=0.98, clip_norm=5.0
    ),
}  # fmt: skip
"""Adam as in section 5.3, with a shorter warm-up, at half of the rate that the paper's formula gives for it. Luong et
al. clip gradients at 5."""


@dataclass(frozen=True)
class TrainOptions(RunOptions):
    """Which pairs, and where the run goes."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = ()
    """Pairs a line, set apart by a tabulator, also with .gz."""
    data: str | None = None
    """In place of files: trans-de-en (of the Debian package of that name), or the path of such a word list."""
    columns: tuple[int, int] = (0, 1)
    """Which cells of a line are the source and the target, counted from 0."""
    entries: Flag = False
    """Learn from the words and phrases of the word list too, which are never in validation or test."""
    reverse: Flag = False
    """Translate the other way round."""
    tokenizer: Path | None = None
    """A tokenizer's folder; by default byte-level byte-pair encoding is trained on both languages together."""
    initial: Path | None = None
    """A run or a model's folder to go on from, on these pairs, with its sizes and its tokenizer."""
    average: int = 5
    """How many of the last checkpoints are averaged at the end; 1: none."""


@dataclass(frozen=True)
class TrainArguments(Generic[Configuration]):
    """The flags of `rllab language translate train`, by part."""

    options: TrainOptions
    model: Configuration
    translation: TranslationConfig
    training: TrainingConfig


@dataclass(frozen=True)
class RunArguments:
    """Translate texts, or the lines of standard input."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run of `rllab language translate train`, or a model's folder."""
    texts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")] = ()
    """What to translate; without any, lines are read."""
    beams: int = PAPERS_DECODING.beams
    """Hypotheses of beam search; 1 takes the likeliest token each time."""
    length_penalty: float = PAPERS_DECODING.length_penalty
    """α of the divisor ((5 + n)/6)^α of a translation of n tokens."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, …"""


def _train(argv: Sequence[str]) -> int:
    kind = take_kind(argv, SMALL, "language translate train", "[FILE …] [--data NAME] …", __doc__ or "")
    if kind is None:
        return 0
    default = TrainArguments(TrainOptions(), SMALL[kind], TranslationConfig(), TRAINING[kind])
    arguments: TrainArguments[Any] = parse(
        TrainArguments[configuration_class(kind)], argv[1:], f"language translate train {kind}",  # type: ignore[misc]
        description=f"Train a {kind} on pairs of sentences.", default=default,
    )  # fmt: skip
    options = arguments.options
    check_initial_flags(options.initial, arguments.model != SMALL[kind], options.tokenizer)
    check_vocabulary_flag(arguments.model.vocabulary_size, SMALL[kind].vocabulary_size, options.tokenizer)
    pairs = PairsConfig(
        file_texts(options.files), options.data, options.columns, options.entries, options.reverse,
        folder_text(options.tokenizer),
    )  # fmt: skip
    model = arguments.model if options.initial is None else load_initial(options.initial, kind)[0].config
    recipe = TranslationTraining(
        model_kind=kind, model=model, training=arguments.training, device=options.device, pairs=pairs,
        translation=arguments.translation, average=options.average, initial=folder_text(options.initial),
    )  # fmt: skip
    name = Path(options.data).name if options.data else None
    run = train(recipe, options.folder(options.files, name, kind, recipe.training.seed), options)
    if isinstance(run, int):
        return run
    if not options.quiet:
        report_run(run.path, run.stop_reason, [("translate", f"rllab language translate run {quoted(run.path)} TEXT")])
        print_facts(run.facts)
    return 0


def _run(argv: Sequence[str]) -> int:
    arguments: RunArguments = parse(RunArguments, argv, "language translate run")
    model, tokenizer = load_model(arguments.model, arguments.device)
    if not isinstance(model, TranslationModel):
        raise RllabError(
            f"{arguments.model} has a model of the class {type(model).__name__}, which translates nothing; give a run "
            "of `rllab language translate train`."
        )
    decoding = replace(PAPERS_DECODING, beams=arguments.beams, length_penalty=arguments.length_penalty)
    if decoding.beams == 1:
        decoding = replace(decoding, temperature=0.0)
    translator = Translator(model, tokenizer, decoding, device=arguments.device)
    if arguments.texts:
        print("\n".join(translator.translate(arguments.texts)))
        return 0
    return answer_lines(
        lambda line: print(*translator.translate([line]), flush=True),
        "Type a sentence and press Enter; an empty line ends.", empty_ends=False,
    )  # fmt: skip


command = Subcommands(
    "language translate",
    {
        "train": Subcommand("Train a model on pairs of sentences.", _train),
        "run": Subcommand("Translate texts, or the lines of standard input.", _run),
    },
    __doc__ or "",
    "rllab language translate train transformer --data trans-de-en --out runs/de-en",
)
