"""Fine-tune a language model from rewards, by PPO, TRPO or REINFORCE."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from envs.errors import RllabError
from language.cli.runs import RunOptions
from language.models.lora import LoRAConfig
from language.preferences.collect import RewardConfig
from language.preferences.policy import TextPolicyConfig
from language.preferences.prompts import PromptsConfig
from language.preferences.responses import ResponsesConfig
from language.preferences.rewards import FORMS
from language.preferences.teaching_config import TeachingConfig
from language.preferences.text_evaluation import read_evaluations
from language.preferences.tune import BEST_FOLDER, REWARD_FOLDER, TunedRun, tune
from language.preferences.tuning_config import DEFAULTS, BatchConfig, TuneConfig, TuneLoopConfig
from rllab.agents import AgentConfig
from rllab.cli.arguments import parse
from rllab.cli.console import number, print_facts, print_next, print_table, quoted
from rllab.cli.report import report_interruption
from rllab.interrupt import Interrupted
from rllab.runs import Run, default_folder

AgentKind = TypeVar("AgentKind", bound=AgentConfig)
_DERIVED = {"rollout_steps": "--maximum-new-tokens", "minibatch_size": "--minibatch-responses"}
"""Fields of an agent that follow from others, and the flags of those."""
_TAUGHT = {True: "Learned score", False: "True score"}
"""What evaluations judge by where people, or synthetic teachers, compare."""


@dataclass(frozen=True)
class Options(RunOptions):
    """Which model, and what it is to learn."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = Path()
    """A run of `rllab language pretrain`, `sft` or `tune`, or a model's folder, also one that transformers wrote, a
    .gguf file or hub:OWNER/NAME. It is also the reference."""
    agent: str = "ppo"
    """ppo, trpo or reinforce; `--agent NAME --help` lists its flags."""
    reward: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[WEIGHT*]KIND:ARGUMENT")] = ()
    """What is rewarded, the sum of these. See below for the kinds."""
    gold: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[WEIGHT*]KIND:ARGUMENT")] = ()
    """By what evaluations judge, if not by the reward."""
    seed: int = 0
    """Of prompts, responses and minibatches: the same seed gives the same run."""


@dataclass(frozen=True)
class TuneArguments(Generic[AgentKind]):
    """The flags of `rllab language tune`, by part."""

    options: Options
    prompts: PromptsConfig
    drawing: ResponsesConfig
    rewarding: RewardConfig
    batch: BatchConfig
    policy: TextPolicyConfig
    lora: LoRAConfig
    loop: TuneLoopConfig
    teaching: TeachingConfig
    agent_settings: AgentKind


def command(argv: Sequence[str]) -> int:
    """`rllab language tune MODEL --agent AGENT --reward …`."""
    name = _agent(argv)
    default = TuneArguments(
        Options(model=tyro.MISSING, agent=name), PromptsConfig(), ResponsesConfig(), RewardConfig(), BatchConfig(),
        TextPolicyConfig(), LoRAConfig(), TuneLoopConfig(), TeachingConfig(), DEFAULTS[name],
    )  # fmt: skip
    generic: Any = TuneArguments
    arguments: TuneArguments[Any] = parse(
        generic[type(DEFAULTS[name])], argv, "language tune", default=default,
        description=f"Fine-tune a language model from rewards by {name}. Rewards: {FORMS}.",
    )  # fmt: skip
    options = arguments.options
    for field, flag in _DERIVED.items():
        if getattr(arguments.agent_settings, field) != getattr(DEFAULTS[name], field):
            raise RllabError(f"--{field.replace('_', '-')} follows from the responses here; use {flag}.")
    config = TuneConfig(
        arguments.agent_settings, str(options.model), options.reward, options.gold, arguments.prompts,
        arguments.drawing, arguments.rewarding, arguments.batch, arguments.policy, arguments.loop, arguments.teaching,
        options.seed, options.device, arguments.lora,
    )  # fmt: skip
    out = options.out or default_folder(options.model.resolve().name, f"tune-{name}", options.seed)
    if not options.quiet:
        print(f"{name} tunes {options.model} for {_aim(config)}, in {out}", flush=True)
    try:
        run = tune(config, out, overwrite=options.overwrite, quiet=options.quiet)
    except Interrupted as error:
        return report_interruption(error, out)
    if not options.quiet:
        report(run)
    return 0


def _agent(argv: Sequence[str]) -> str:
    """The agent that was asked for, as its flags depend on it."""
    name = "ppo"
    for place, word in enumerate(argv):
        if word.startswith("--agent="):
            name = word.removeprefix("--agent=")
        elif word == "--agent" and place + 1 < len(argv):
            name = argv[place + 1]
    if name not in DEFAULTS:
        near = get_close_matches(name, DEFAULTS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(DEFAULTS)}"
        raise RllabError(f"There is no agent '{name}'; {hint}")
    return name


def _aim(config: TuneConfig) -> str:
    """What the model is tuned for."""
    if config.teaching.on:
        return f"what {' + '.join(config.teaching.teacher)} prefers in {config.teaching.labels:,} comparisons"
    return " + ".join(config.reward)


def report(run: TunedRun) -> None:
    """Print how it went, some samples, and what to do next."""
    facts = [("Run", str(run.path)), ("Steps", f"{run.steps:,} tokens of responses")]
    if run.stop_reason:
        facts.append(("Stopped", run.stop_reason))
    rows = read_evaluations(run.path)
    teaching = run.config.teaching
    judge = "Gold score" if run.config.gold else _TAUGHT[teaching.human] if teaching.on else "Score"
    if teaching.on:
        facts.append(("Comparisons", _compared(run)))
    if rows:
        best = max(rows, key=lambda row: float(row["gold"]))
        facts += [
            (judge, f"{number(rows[0]['gold'])} before, {number(rows[-1]['gold'])} at the end"),
            ("Best", f"{number(best['gold'])} at {best['steps']:,} steps, {best['kl_response']:.2f} nats away"),
            ("KL", f"{rows[-1]['kl_response']:.2f} nats a response at the end"),
        ]  # fmt: skip
    print()
    print_facts(facts)
    if rows:
        samples = [
            (_shown(a["prompt"]), _shown(a["response"]), _shown(b["response"]), f"{a['score']:.2f} → {b['score']:.2f}")
            for a, b in zip(rows[0]["samples"], rows[-1]["samples"], strict=True)
        ]
        print()
        print_table(("Prompt", "Before", "After", "Score"), samples, right=("Score",))
    folder = quoted(run.path)
    if teaching.on:
        reward = quoted(run.path / REWARD_FOLDER)
        further = [
            ("keep what was compared", f"rllab preference export {folder} FILE --format chosen"),
            ("learn from the same reward", f"rllab language tune MODEL --reward model:{reward}"),
        ]
    else:
        further = []
    print_next([
        ("write with it", f"rllab language generate {folder} --prompt 'This film'"),
        ("with the best by evaluation", f"rllab language generate {quoted(run.path / BEST_FOLDER)}"),
        ("train it further", f"rllab resume {folder} --steps {2 * max(run.steps, run.config.loop.steps)}"),
        *further,
    ])  # fmt: skip


def _compared(run: TunedRun) -> str:
    """How many answers there are, and how well the reward predicts those that it did not learn from."""
    rows = Run.open(run.path).read_metrics()
    said = f"{rows[-1]['reward/labels']:,.0f} answers that say something" if rows else "none"
    held_out = [row for row in rows if "reward/held_out_accuracy" in row]
    if not held_out:
        return said
    last = held_out[-1]
    low, high = (f"{last[f'reward/held_out_accuracy_{end}']:.0%}" for end in ("low", "high"))
    return (
        f"{said}; the reward agrees with {last['reward/held_out_accuracy']:.0%} ({low} to {high}) of the "
        f"{last['reward/held_out_comparisons'] - last['reward/held_out_ties']:.0f} that it did not learn from"
    )


def _shown(text: str) -> str:
    """A text on one line, not too long."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"
