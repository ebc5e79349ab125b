"""Play episodes with the policies of runs, in fresh environments, and sum up their returns."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rllab.cli.arguments import Flag, RunPaths, at_least_one, checkpoint_named, parse
from rllab.cli.console import interval, number, print_table
from rllab.evaluate import Evaluator
from rllab.experiment import load_with_config
from rllab.runs import find_runs, is_run


@dataclass(frozen=True)
class EvaluateArguments:
    """Play episodes with a run's policy in fresh environments, with their own rewards and frozen normalisers."""

    runs: RunPaths
    """Run folders; a folder of runs stands for each of them."""
    episodes: int = 100
    """Episodes for each run."""
    checkpoint: str = "best"
    """best (by the evaluations during training; the latest if there were none), latest, or a step."""
    stochastic: Flag = False
    """Sample the actions, rather than take the most probable one (the mean of a Gaussian)."""
    seed: int = 0
    """Of the episodes, and of sampled actions."""
    json: Flag = False
    """Print JSON: an object with env, episodes, mean, std, iqm, ci95 and returns; several runs give a list."""


def command(argv: Sequence[str]) -> int:
    """`rllab evaluate RUN…`."""
    arguments: EvaluateArguments = parse(EvaluateArguments, argv, "evaluate")
    checkpoint = checkpoint_named(arguments.checkpoint)
    paths = find_runs(at_least_one(arguments.runs, "evaluate"))
    results = [_evaluate(path, checkpoint, arguments) for path in paths]
    if arguments.json:
        documents = [document for document, _ in results]
        one = len(arguments.runs) == 1 and is_run(arguments.runs[0])
        named = [{"run": str(path), **document} for path, document in zip(paths, documents, strict=True)]
        print(json.dumps(documents[0] if one else named))
        return 0
    print_table(
        ("Run", "Environment", "Step", "Mean", "Std", "IQM", "95 % interval"),
        [
            (
                str(path),
                document["env"],
                f"{step:,}",
                number(document["mean"]),
                number(document["std"]),
                number(document["iqm"]),
                interval(*document["ci95"]),
            )
            for path, (document, step) in zip(paths, results, strict=True)
        ],
        right=("Step", "Mean", "Std", "IQM", "95 % interval"),
    )
    how = "sampling its actions" if arguments.stochastic else "by its most probable actions"
    print(f"{arguments.episodes} episodes each, {how}; the interval is that of the interquartile mean (IQM).")
    return 0


def _evaluate(
    path: Path, checkpoint: int | Literal["best", "latest"], arguments: EvaluateArguments
) -> tuple[dict[str, Any], int]:
    """What `--json` prints of a run, and the step of the checkpoint that was played."""
    policy, config, step = load_with_config(path, checkpoint)
    with Evaluator(
        config.env, arguments.episodes, seed=arguments.seed, deterministic=not arguments.stochastic
    ) as evaluator:
        result = evaluator(policy)
    document = {
        "env": config.env.id,
        "episodes": arguments.episodes,
        **result.summary(),
        "returns": result.returns.tolist(),
    }
    return document, step
