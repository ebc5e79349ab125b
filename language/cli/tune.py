"""Fine-tune a language model from rewards, by PPO, TRPO or REINFORCE."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from envs.errors import RllabError
from language.cli.runs import RunOptions
from language.preferences.collect import RewardConfig
from language.preferences.policy import TextPolicyConfig
from language.preferences.prompts import PromptsConfig
from language.preferences.responses import ResponsesConfig
from language.preferences.rewards import FORMS
from language.preferences.text_evaluation import read_evaluations
from language.preferences.tune import BEST_FOLDER, TunedRun, tune
from language.preferences.tuning_config import DEFAULTS, BatchConfig, TuneConfig, TuneLoopConfig
from rllab.agents import AgentConfig
from rllab.cli.arguments import parse
from rllab.cli.console import number, print_facts, print_next, print_table, quoted
from rllab.cli.report import report_interruption
from rllab.interrupt import Interrupted
from rllab.runs import default_folder

AgentKind = TypeVar("AgentKind", bound=AgentConfig)
_DERIVED = {"rollout_steps": "--maximum-new-tokens", "minibatch_size": "--minibatch-responses"}
"""Fields of an agent that follow from others, and the flags of those."""


@dataclass(frozen=True)
class Options(RunOptions):
    """Which model, and what it is to learn."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = Path()
    """A run of `rllab language pretrain`, `sft` or `tune`, or a model's folder. It is also the reference."""
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
    loop: TuneLoopConfig
    agent_settings: AgentKind


def command(argv: Sequence[str]) -> int:
    """`rllab language tune MODEL --agent AGENT --reward …`."""
    name = _agent(argv)
    default = TuneArguments(
        Options(model=tyro.MISSING, agent=name), PromptsConfig(), ResponsesConfig(), RewardConfig(), BatchConfig(),
        TextPolicyConfig(), TuneLoopConfig(), DEFAULTS[name],
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
        arguments.drawing, arguments.rewarding, arguments.batch, arguments.policy, arguments.loop, options.seed,
        options.device,
    )  # fmt: skip
    out = options.out or default_folder(options.model.resolve().name, f"tune-{name}", options.seed)
    if not options.quiet:
        print(f"{name} tunes {options.model} for {' + '.join(options.reward)}, in {out}", flush=True)
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


def report(run: TunedRun) -> None:
    """Print how it went, some samples, and what to do next."""
    facts = [("Run", str(run.path)), ("Steps", f"{run.steps:,} tokens of responses")]
    if run.stop_reason:
        facts.append(("Stopped", run.stop_reason))
    rows = read_evaluations(run.path)
    judge = "Gold score" if run.config.gold else "Score"
    if rows:
        best = max(rows, key=lambda row: float(row["gold"]))
        facts += [
            (judge, f"{number(rows[0]['gold'])} at {rows[0]['steps']:,} steps, {number(rows[-1]['gold'])} at the end"),
            ("Best", f"{number(best['gold'])} at {best['steps']:,} steps, {best['kl_response']:.2f} nats away"),
            ("KL", f"{rows[-1]['kl_response']:.2f} nats a response at the end"),
        ]  # fmt: skip
    print()
    print_facts(facts)
    if rows:
        samples = [(_shown(s["prompt"]), _shown(s["response"]), f"{s['score']:.2f}") for s in rows[-1]["samples"]]
        print()
        print_table(("Prompt", "Response", "Score"), samples, right=("Score",))
    folder = quoted(run.path)
    print_next([
        ("write with it", f"rllab language generate {folder} --prompt 'This film'"),
        ("with the best by evaluation", f"rllab language generate {quoted(run.path / BEST_FOLDER)}"),
        ("train it further", f"rllab resume {folder} --steps {2 * max(run.steps, run.config.loop.steps)}"),
    ])  # fmt: skip


def _shown(text: str) -> str:
    """A text on one line, not too long."""
    line = " ".join(text.split())
    return line if len(line) <= 100 else line[:99] + "…"
