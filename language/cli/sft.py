"""Fine-tune a language model on prompts and what is to be written after them, or on texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from language.cli.runs import RunOptions, train
from language.models.lora import LoRAConfig
from language.preferences.chat import DEFAULT_TEMPLATE
from language.preferences.data import Faulty, TextsConfig
from language.preferences.sft import FineTunedRun, RowsConfig, SupervisedFineTuning
from language.training.training_config import TrainingConfig
from rllab.cli.arguments import parse
from rllab.cli.console import print_facts, quoted
from rllab.cli.report import report_run
from rllab.runs import default_folder

TRAINING = TrainingConfig(
    steps=500, learning_rate=1e-4, warmup=20, weight_decay=0.0, beta_2=0.999, evaluation_every=50, checkpoint_every=100
)
"""Without decay, which would draw a trained model's weights to 0. The rate is for millions of weights; billions take a
tenth of it."""


@dataclass(frozen=True)
class TunedOptions(RunOptions):
    """Which model, and what it learns from."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = Path()
    """A run of `rllab language pretrain`, `sft`, `tune` or `direct`, or a model's folder, also one that
    transformers wrote, a .gguf file or hub:OWNER/NAME. It is not changed."""
    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = ()
    """.jsonl, .json, .parquet, .csv or .tsv, also with .gz, or hub:OWNER/NAME[/SPLIT]."""
    template: str = DEFAULT_TEMPLATE
    """How a turn of a conversation is written, with {role} and {content}; \\n is a line end."""
    faulty: Faulty = "refuse"
    """What becomes of a record that cannot be learnt from: refuse it with a sentence, or drop it."""

    @property
    def texts(self) -> TextsConfig:
        """As configurations have it."""
        return TextsConfig(tuple(self.files), self.template, self.faulty)

    def run_folder(self, name: str, seed: int) -> Path:
        """`out`, or a new folder that is named after the model."""
        return self.out or default_folder(self.model.resolve().name, name, seed)


@dataclass(frozen=True)
class SFTArguments:
    """The flags of `rllab language sft`, by part."""

    options: TunedOptions
    rows: RowsConfig
    lora: LoRAConfig
    training: TrainingConfig


def command(argv: Sequence[str]) -> int:
    """`rllab language sft MODEL FILE…`."""
    default = SFTArguments(TunedOptions(model=tyro.MISSING), RowsConfig(), LoRAConfig(), TRAINING)
    arguments: SFTArguments = parse(SFTArguments, argv, "language sft", description=__doc__, default=default)
    options = arguments.options
    recipe = SupervisedFineTuning.of(
        options.model, options.texts, arguments.rows, arguments.training, options.device, arguments.lora
    )
    run = train(recipe, options.run_folder("sft", recipe.training.seed), options)
    if isinstance(run, int):
        return run
    if not options.quiet:
        report(run)
    return 0


def report(run: FineTunedRun) -> None:
    """Print how it went."""
    folder = quoted(run.path)
    report_run(run.path, run.stop_reason, [
        ("write with it", f"rllab language generate {folder} --prompt '…'"),
        ("talk with it", f"rllab language chat {folder}"),
        ("learn from comparisons", f"rllab language direct {folder} FILE"),
    ])  # fmt: skip
    print_facts([
        ("Texts", f"{run.texts:,} learnt from{left_out(run.too_long, run.dropped)}"),
        ("Held out", f"perplexity {run.held_out['perplexity']:.3f} a token of what is written"),
    ])  # fmt: skip


def left_out(too_long: int, dropped: int) -> str:
    """What was left out and why, to be added to what was not."""
    reasons = [(too_long, "too long for the context"), (dropped, "of no use")]
    parts = [f"{count:,} {reason}" for count, reason in reasons if count]
    return f"; left out: {', '.join(parts)}" if parts else ""
