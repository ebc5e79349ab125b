"""Train a reward model of texts on comparisons, or cross-validate it."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from envs.errors import RllabError
from language.cli.runs import train
from language.cli.sft import TunedOptions, left_out
from language.models.lora import LoRAConfig
from language.preferences.reward import RewardTraining, ScoringConfig, cross_validated
from language.preferences.reward_measures import Predictions
from language.preferences.sft import RowsConfig
from language.training.training_config import TrainingConfig
from preference.measures import PreferenceMeasures
from rllab.cli.arguments import parse
from rllab.cli.console import print_facts, print_table, quoted
from rllab.cli.report import report_run

TRAINING = TrainingConfig(
    steps=500, learning_rate=1e-4, warmup=20, weight_decay=0.01, beta_2=0.999, evaluation_every=25, patience=6,
    checkpoint_every=100,
)  # fmt: skip
"""Reward models overfit soon: training ends when six evaluations in a row were not the best."""


@dataclass(frozen=True)
class Options(TunedOptions):
    """Which model, and what it learns from."""

    folds: int = 0
    """Cross-validate with so many folds of the prompts and leave no model; 0: train one."""


@dataclass(frozen=True)
class RewardArguments:
    """The flags of `rllab language reward`, by part."""

    options: Options
    rows: RowsConfig
    reward: ScoringConfig
    lora: LoRAConfig
    training: TrainingConfig


def command(argv: Sequence[str]) -> int:
    """`rllab language reward MODEL FILE…`."""
    default = RewardArguments(
        Options(model=tyro.MISSING), RowsConfig(too_long="cut"), ScoringConfig(), LoRAConfig(), TRAINING
    )  # fmt: skip
    arguments: RewardArguments = parse(RewardArguments, argv, "language reward", description=__doc__, default=default)
    options = arguments.options
    if options.folds < 0 or options.folds == 1:
        raise RllabError(f"--folds must be 0 (train a model) or 2 or more, not {options.folds}.")
    if arguments.rows.too_long != "cut":
        raise RllabError("A reward model reads the end of texts that are too long, always; leave --too-long at cut.")
    recipe = RewardTraining.of(
        options.model, options.texts, arguments.rows, arguments.reward, arguments.training, options.device,
        arguments.lora,
    )  # fmt: skip
    if options.folds:

        def told(fold: int, predictions: Predictions) -> None:
            if not options.quiet:
                print(f"fold {fold}: accuracy {predictions.measures.accuracy:.1%}", flush=True)

        print_predictions(cross_validated(recipe, options.folds, told), f"cross-validated in {options.folds} folds")
        return 0
    run = train(recipe, options.run_folder("reward", recipe.training.seed), options)
    if isinstance(run, int):
        return run
    if not options.quiet:
        folder = quoted(run.path)
        report_run(run.path, run.stop_reason, [
            ("learn from it", f"rllab language tune MODEL --reward model:{folder}"),
            ("judge by it", f"rllab language evaluate MODEL --reward model:{folder} --prompts FILE"),
        ])  # fmt: skip
        print_facts([("Comparisons", f"{run.comparisons:,} learnt from{left_out(0, run.dropped)}")])
        print_predictions(run.predictions, "held out")
    return 0


def print_predictions(found: Predictions, what: str) -> None:
    """A table of the model's measures beside the baseline's."""
    rows = [row("reward model", found.measures), row("length alone", found.baseline_measures)]
    print_table(COLUMNS, rows, right=COLUMNS[1:])
    measures = found.measures
    print_facts([
        ("Comparisons", f"{measures.count:,} {what}, {measures.ties:,} of them ties, which accuracy leaves out"),
        ("Cross-entropy", f"{found.loss:.4f} nats with the votes' means (0.6931 knows nothing)"),
        ("Length", f"Spearman's correlation with the score {found.length_correlation:+.2f}"),
    ])  # fmt: skip


COLUMNS = ("Predictor", "Accuracy", "95 % interval", "NLL", "Brier", "Calibration error")


def row(name: str, measures: PreferenceMeasures) -> tuple[str, ...]:
    """Of the table."""
    return (
        name, f"{measures.accuracy:.1%}", f"{measures.accuracy_low:.1%}–{measures.accuracy_high:.1%}",
        f"{measures.negative_log_likelihood:.4f}", f"{measures.brier:.4f}", f"{measures.calibration_error:.3f}",
    )  # fmt: skip
