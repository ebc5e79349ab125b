"""Fine-tune a language model on comparisons by a direct method: DPO or IPO."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from language.cli.runs import train
from language.cli.sft import TunedOptions, left_out
from language.models.lora import LoRAConfig
from language.preferences.direct import DirectConfig
from language.preferences.direct_run import DirectRun, DirectTraining
from language.preferences.sft import RowsConfig
from language.preferences.tune import REFERENCE_FOLDER
from language.training.training_config import TrainingConfig
from rllab.cli.arguments import parse
from rllab.cli.console import print_facts, quoted
from rllab.cli.report import report_run

TRAINING = TrainingConfig(
    steps=300, learning_rate=5e-5, warmup=20, weight_decay=0.0, beta_2=0.999, evaluation_every=25, patience=6,
    checkpoint_every=100,
)  # fmt: skip
"""For millions of weights; Rafailov et al. (appendix B) take 1e-6 for billions."""


@dataclass(frozen=True)
class Options(TunedOptions):
    """Which model, and what it learns from."""

    kl_responses: int = 64
    """Responses to held-out prompts from which the divergence from the reference is estimated at the end; 0: none."""
    kl_tokens: int = 64
    """The longest of them."""


@dataclass(frozen=True)
class DirectArguments:
    """The flags of `rllab language direct`, by part."""

    options: Options
    direct: DirectConfig
    rows: RowsConfig
    lora: LoRAConfig
    training: TrainingConfig


def command(argv: Sequence[str]) -> int:
    """`rllab language direct MODEL FILE…`."""
    default = DirectArguments(Options(model=tyro.MISSING), DirectConfig(), RowsConfig(), LoRAConfig(), TRAINING)
    arguments: DirectArguments = parse(DirectArguments, argv, "language direct", description=__doc__, default=default)
    options = arguments.options
    recipe = DirectTraining.of(
        options.model, options.texts, arguments.rows, arguments.direct, arguments.training, options.device,
        arguments.lora, kl_responses=options.kl_responses, kl_tokens=options.kl_tokens,
    )  # fmt: skip
    run = train(recipe, options.run_folder(arguments.direct.method, recipe.training.seed), options)
    if isinstance(run, int):
        return run
    if not options.quiet:
        report(run)
    return 0


def report(run: DirectRun) -> None:
    """Print how it went."""
    folder, reference = quoted(run.path), quoted(run.path / REFERENCE_FOLDER)
    report_run(run.path, run.stop_reason, [
        ("write with it", f"rllab language generate {folder} --prompt '…'"),
        ("judge it", f"rllab language evaluate {folder} --reference {reference} --prompts FILE --reward …"),
    ])  # fmt: skip
    held = run.held_out
    facts = [("Comparisons", f"{run.comparisons:,} learnt from{left_out(run.too_long, run.dropped)}")]
    if "accuracy_low" in held:
        interval = f"{held['accuracy_low']:.1%}–{held['accuracy_high']:.1%}"
        facts += [
            ("Accuracy", f"{held['accuracy']:.1%} ({interval}) of held-out better responses have the higher reward"),
            ("Margin", f"{held['margin']:.3f} between implicit rewards"),
            ("Log-ratios", f"{held['log_ratio_better']:+.2f} nats a better response, "
                           f"{held['log_ratio_worse']:+.2f} a worse one"),
        ]  # fmt: skip
    if run.kl is not None:
        facts.append(
            ("KL", f"{run.kl[0]:.2f} ± {run.kl[1]:.2f} nats a response from the reference, on held-out prompts")
        )
    print_facts(facts)
