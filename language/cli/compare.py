"""Compare methods that tune a language model, at several divergences: agents, direct methods, best-of-n, by a judge."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from envs.errors import RllabError
from language.preferences.compare import Comparison
from language.preferences.compare_config import BEST_OF_N, DIRECT, CompareConfig, LearningConfig, MethodsConfig, Piece
from language.preferences.frontier import Baseline, Point, reached
from language.preferences.policy import TextPolicyConfig
from language.preferences.prompts import PromptsConfig
from language.preferences.responses import ResponsesConfig
from language.preferences.rewards import FORMS
from language.preferences.tuning_config import BatchConfig
from rllab.cli.arguments import Flag, parse
from rllab.cli.console import number, print_facts, print_table
from rllab.cli.processes import Job, run_jobs
from rllab.distributed import require_alone
from rllab.interrupt import Interrupted
from rllab.progress import format_duration
from rllab.runs import default_folder


@dataclass(frozen=True)
class Options:
    """Which model, by which judge."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = Path()
    """A run of `rllab language pretrain`, `sft` or `tune`, or a model's folder: what all methods begin with."""
    gold: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[WEIGHT*]KIND:ARGUMENT")] = ()
    """The judge, the sum of these. See below for the kinds."""
    reward: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[WEIGHT*]KIND:ARGUMENT")] = ()
    """What is learnt from, the sum of these; by default a reward model of pairs that the model writes and the judge
    labels. The direct methods learn from the same pairs."""
    out: Path | None = None
    """The comparison's folder; one that was begun goes on. By default a new one under runs/."""
    jobs: int = 1
    """How many trainings at a time, a process each."""
    axis: Literal["root", "plain"] = "root"
    """Draw against √KL (root) or KL (plain)."""
    title: str = ""
    """Above the figure."""
    only: tuple[str, ...] = ()
    """Do no more than these trainings, named as their folders are."""
    device: str = "cpu"
    """Where to train: cpu, cuda, cuda:1, …"""
    quiet: Flag = False
    """Print nothing but warnings and errors."""


@dataclass(frozen=True)
class CompareArguments:
    """The flags of `rllab language compare`, by part."""

    options: Options
    methods: MethodsConfig
    learning: LearningConfig
    prompts: PromptsConfig
    drawing: ResponsesConfig
    batch: BatchConfig
    policy: TextPolicyConfig


def command(argv: Sequence[str]) -> int:
    """`rllab language compare MODEL --gold …`."""
    default = CompareArguments(
        Options(model=tyro.MISSING), MethodsConfig(), LearningConfig(), PromptsConfig(evaluation_prompts=128),
        ResponsesConfig(), BatchConfig(), TextPolicyConfig(value_head="shared"),
    )  # fmt: skip
    arguments: CompareArguments = parse(
        CompareArguments, argv, "language compare", description=f"{__doc__} Rewards: {FORMS}.", default=default
    )
    options = arguments.options
    if options.jobs < 1:
        raise RllabError(f"--jobs must be at least 1, not {options.jobs}.")
    require_alone("Methods are compared")
    config = CompareConfig(
        str(options.model), options.gold, options.reward, arguments.methods, arguments.learning, arguments.prompts,
        arguments.drawing, arguments.batch, arguments.policy, options.device,
    )  # fmt: skip
    out = options.out or default_folder(options.model.resolve().name, "compare", 0)
    comparison = Comparison(config, out)
    names = {piece.name for piece in comparison.pieces}
    for name in options.only:
        if name not in names:
            raise RllabError(f"There is no training '{name}' in this comparison; there are {', '.join(sorted(names))}.")
    try:
        _prepare(comparison, options.quiet)
        pieces = [piece for piece in comparison.missing() if not options.only or piece.name in options.only]
        if options.jobs > 1 and len(pieces) > 1:
            code = _beside_each_other(comparison, pieces, options, argv)
        else:
            code = _one_by_one(comparison, pieces, options.quiet)
    except Interrupted as error:
        print(f"rllab: {error}; the same command with --out {out} goes on", file=sys.stderr)
        return error.exit_code
    if options.only and options.quiet:  # a process of `--jobs`: its parent gathers
        return code
    files = comparison.write(options.title, options.axis == "root")
    if not options.quiet:
        report(comparison.points(), comparison.baseline())
        print_facts([("Folder", str(out)), ("Written", ", ".join(path.name for path in files))])
        if left := comparison.missing():
            print(f"{len(left)} of {len(comparison.pieces)} are not done: the same command with --out {out} goes on")
    return code


def _prepare(comparison: Comparison, quiet: bool) -> None:
    if not quiet:
        print(f"comparison in {comparison.folder}", flush=True)
    trained = comparison.prepare(quiet)
    if trained is not None and not quiet:
        measures = trained.predictions.measures
        print(
            f"reward model of {trained.comparisons:,} pairs: {measures.accuracy:.1%} of held-out ones are predicted",
            flush=True,
        )


def _told(comparison: Comparison, pieces: Sequence[Piece], jobs: int) -> None:
    agents = [piece for piece in pieces if piece.method not in (*DIRECT, BEST_OF_N)]
    done = len(comparison.pieces) - len(pieces)
    text = f"{len(pieces)} to do" + (f", {done} done before" if done else "")
    if agents:
        seconds = comparison.seconds_needed(agents)
        beside = f", {jobs} at a time if so many cores are free" if jobs > 1 else ""
        text += f"; the {len(agents)} of agents take about {format_duration(seconds / jobs)}{beside}"
    print(text, flush=True)


def _one_by_one(comparison: Comparison, pieces: Sequence[Piece], quiet: bool) -> int:
    if pieces and not quiet:
        _told(comparison, pieces, 1)
    for place, piece in enumerate(pieces, 1):
        if not quiet:
            print(f"[{place}/{len(pieces)}] {piece.name}", flush=True)
        last = comparison.make(piece, quiet)[-1]
        if not quiet:
            print(f"    KL {last.kl:.2f}, proxy {number(last.proxy)}, gold {number(last.gold)}", flush=True)
    return 0


def _beside_each_other(comparison: Comparison, pieces: Sequence[Piece], options: Options, argv: Sequence[str]) -> int:
    if not options.quiet:
        _told(comparison, pieces, options.jobs)
    # Of a flag given twice the last one counts.
    jobs = [
        Job(comparison.folder / piece.name, [
            "language", "compare", *argv, "--out", str(comparison.folder), "--only", piece.name, "--jobs", "1",
            "--quiet",
        ])
        for piece in pieces
    ]  # fmt: skip
    learning = comparison.config.learning
    direct_steps = round(learning.direct_epochs * learning.pairs / 16)
    steps = sum(
        0 if piece.method == BEST_OF_N else direct_steps if piece.method in DIRECT else learning.steps
        for piece in pieces
    )
    ending = run_jobs(jobs, options.jobs, max(1, steps), quiet=options.quiet)
    if ending.interruption is not None:
        raise ending.interruption
    return ending.exit_code


def report(points: Sequence[Point], baseline: Baseline) -> None:
    """Print what each method reached in each setting."""
    columns = ("Method", "At", "Seeds", "KL", "Proxy", "Gold", "95 % interval", "Gain in σ", "Wins", "95 % interval ")
    rows = [("model as it began", "", "", "0", number(baseline.proxy), number(baseline.gold), "", "0", "", "")]
    for each in reached(points, baseline):
        low, high = each.gold_interval
        rows.append((
            each.method, each.setting, str(each.seeds), f"{each.kl:.2f}", number(each.proxy), number(each.gold),
            f"{number(low)} to {number(high)}" if each.seeds > 1 else "–", f"{each.gain:+.2f}",
            f"{each.win_rate:.1%}", "–".join(f"{end:.1%}" for end in each.win_interval),
        ))  # fmt: skip
    print_table(columns, rows, right=columns[2:])
