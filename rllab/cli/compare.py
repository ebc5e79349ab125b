"""Compare runs: learning curves with intervals over seeds, and a table of how well each method ended."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.errors import RllabError
from rllab.cli.arguments import RunPaths, at_least_one, parse
from rllab.cli.console import interval, number, print_table
from rllab.descriptions import Description, describe
from rllab.plots import Rows, plot_comparison
from rllab.progress import format_count
from rllab.runs import Run, find_runs, is_run
from rllab.statistics import bootstrap_interval, iqm, series

_LONGEST_LABEL = 60
# What does not change how well a method learns, and where it runs.
_INCIDENTAL = {
    "seed", "device", "evaluation_every", "evaluation_episodes", "checkpoint_every", "keep_checkpoints", "tensorboard",
    "histograms", "video_every", "fast_path", "run_id", "store", "prepared",
}  # fmt: skip


@dataclass(frozen=True)
class CompareArguments:
    """Draw the learning curves of runs, by steps and by wall-clock time, and print how they ended.

    Runs that differ in nothing but their seeds are one method: its curve is the interquartile mean over them, in
    its 95 % bootstrap interval. Folders of runs that are named separately stay apart.
    """

    runs: RunPaths
    """Run folders, or folders of runs."""
    output: Path = Path("comparison.png")
    """The figure; .png, .svg and .pdf are among the formats."""
    metric: str | None = None
    """The column of metrics.jsonl to compare, such as evaluation/return_mean; by default return_mean, of supervised
    trainings what their evaluations are told by."""
    title: str | None = None
    """Above the figure; by default what is learnt, such as an environment's id, if it is but one thing."""


@dataclass(frozen=True)
class Method:
    """Runs that differ in nothing but their seeds."""

    settings: Mapping[str, Any]
    """Their configuration, flat, without what is incidental."""
    folder: Path | None
    """The folder of runs that they were named by, if they were."""
    runs: list[Run]
    described: Description
    """The first of them."""


def command(argv: Sequence[str]) -> int:
    """`rllab compare RUN…`."""
    arguments: CompareArguments = parse(CompareArguments, argv, "compare")
    methods = group(at_least_one(arguments.runs, "compare"))
    described = methods[0].described
    for other in methods:
        if other.described.steps != described.steps:
            raise RllabError(
                f"{methods[0].runs[0].path} counts {described.steps.lower()} and {other.runs[0].path} "
                f"{other.described.steps.lower()}; compare them apart."
            )
    metric = arguments.metric or described.goal
    metrics = {
        label: [run.read_metrics() for run in method.runs]
        for label, method in zip(labels(methods), methods, strict=True)
    }
    if not any(metric in row for runs in metrics.values() for rows in runs for row in rows):
        known = sorted({name for runs in metrics.values() for rows in runs for row in rows for name in row})
        raise RllabError(f"no run has measured '{metric}'; there are {', '.join(known) or 'no metrics yet'}")
    tasks = {method.described.task for method in methods}
    title = tasks.pop() if arguments.title is None and len(tasks) == 1 else arguments.title or ""
    plot_comparison(metrics, arguments.output, title, y=metric, described=described)
    evaluated = described.evaluated
    final = [f"Final {described.name(metric).lower() if metric == described.goal else metric}"]
    final += ["Final evaluation"] * (metric != evaluated)
    columns = ("Method", "Seeds", "Steps", *final)
    rows = (_row(label, runs, metric, evaluated) for label, runs in metrics.items())
    print_table(columns, (row[: len(columns)] for row in rows), right=columns[1:])
    print(f"Interquartile means over seeds, in their 95 % bootstrap intervals. Figure: {arguments.output}")
    return 0


def group(paths: Iterable[Path]) -> list[Method]:
    """The methods among runs and folders of runs, in the order of their first run."""
    methods: dict[tuple[str, Path | None], Method] = {}
    seen: set[Path] = set()
    for path in paths:
        folder = None if is_run(path) else path
        for run_path in find_runs([path]):
            if run_path.resolve() in seen:
                continue
            seen.add(run_path.resolve())
            run = Run.open(run_path)
            settings = _settings(run.config)
            key = (json.dumps(settings, sort_keys=True), folder)
            if key not in methods:
                methods[key] = Method(settings, folder, [], describe(run))
            methods[key].runs.append(run)
    return list(methods.values())


def labels(methods: Sequence[Method]) -> list[str]:
    """A short name for each method: the agent, and whatever else tells it from the others."""
    several_tasks = len({method.described.task for method in methods}) > 1
    result = []
    for method in methods:
        settings, described = method.settings, method.described
        name = described.method
        if several_tasks or len(methods) == 1:
            name += f" {described.task}"
        # Other methods and other tasks have other settings anyway: only its own kind counts.
        rivals = [
            other.settings
            for other in methods
            if other is not method
            and (other.described.method, other.described.task) == (described.method, described.task)
        ]
        differing = [key for key in settings if any(rival.get(key) != settings[key] for rival in rivals)]
        label = " ".join([name, *(f"{key}={settings[key]}" for key in differing)])
        if method.folder is not None and (len(label) > _LONGEST_LABEL or settings in rivals):
            label = f"{name} {method.folder.name or method.folder}"
        result.append(label)
    # Whatever is still equal, folders of one name say, gets a number.
    return [
        f"{label} ({result[:i].count(label) + 1})" if result.count(label) > 1 else label
        for i, label in enumerate(result)
    ]


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration without its parts' names, except where a field's name is in two of them."""
    flat = {name: value for name, value in config.items() if not isinstance(value, dict)}
    for part, fields in config.items():
        if isinstance(fields, dict):
            new = {name: value for name, value in fields.items() if name not in flat or flat[name] != value}
            flat |= {f"{part}.{name}" if name in flat else name: value for name, value in new.items()}
    return {name: value for name, value in flat.items() if name not in _INCIDENTAL}


def _row(label: str, runs: Sequence[Rows], metric: str, evaluated: str) -> tuple[str, ...]:
    steps = max((int(rows[-1]["steps"]) for rows in runs if rows), default=0)
    return (label, str(len(runs)), format_count(steps), _final(runs, metric), _final(runs, evaluated))


def _final(runs: Sequence[Rows], column: str) -> str:
    """The interquartile mean over seeds of a column's last value, and its interval."""
    last = [values[-1] for rows in runs if len(values := series(rows, "steps", column)[1])]
    if not last:
        return "–"
    return number(iqm(last)) + (f" {interval(*bootstrap_interval(last))}" if len(last) > 1 else "")
