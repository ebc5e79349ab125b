"""Play episodes with the policies of runs, in fresh environments, and sum up their returns."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from envs.atari import game_of
from envs.atari_scores import human_normalised
from envs.registry import ATARI, family_of, find_spec
from rllab.cli.arguments import Flag, RunPaths, at_least_one, checkpoint_named, parse
from rllab.cli.console import interval, number, print_table
from rllab.evaluate import Evaluator, against
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
    actions: Literal["run", "sampled", "most_probable"] = "run"
    """sampled; most_probable (the mean of a Gaussian); run: as the run's own evaluations do."""
    seed: int = 0
    """Of the episodes, and of sampled actions."""
    opponent: Literal["run", "auto", "self", "random"] = "run"
    """Who plays the other players of PettingZoo's games. random: uniformly among the legal actions; self: the policy;
    auto: random where players take turns, else as in training; run: as in the run's own evaluations."""
    json: Flag = False
    """Print JSON: an object with env, episodes, actions, mean, std, iqm, ci95 and returns, for Atari human_normalised
    too, against an opponent won, drawn and lost; several runs give a list."""


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
    columns = ["Run", "Environment", "Step", "Actions", "Mean", "Std", "IQM", "95 % interval"]
    scored = any("human_normalised" in document for document, _ in results)
    played = any("opponent" in document for document, _ in results)
    shares = ["Won", "Drawn", "Lost"]
    print_table(
        columns + ["Human-normalised"] * scored + shares * played,
        [
            (
                str(path),
                document["env"],
                f"{step:,}",
                document["actions"].replace("_", " "),
                number(document["mean"]),
                number(document["std"]),
                number(document["iqm"]),
                interval(*document["ci95"]),
                *([_percent(document.get("human_normalised"))] * scored),
                *([_percent(document.get(share.lower())) for share in shares] * played),
            )
            for path, (document, step) in zip(paths, results, strict=True)
        ],
        right=("Step", "Mean", "Std", "IQM", "95 % interval", "Human-normalised", *shares),
    )
    print(f"{arguments.episodes} episodes each; the interval is that of the interquartile mean (IQM).")
    if scored:
        print("Human-normalised: the mean, where 0 % is play at random and 100 % a professional's (Wang et al. 2016).")
    if played:
        print("Won, drawn, lost: returns above, of and below 0, against players who choose at random; seats in turn.")
    return 0


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _evaluate(
    path: Path, checkpoint: int | Literal["best", "latest"], arguments: EvaluateArguments
) -> tuple[dict[str, Any], int]:
    """What `--json` prints of a run, and the step of the checkpoint that was played."""
    policy, config, step = load_with_config(path, checkpoint)
    deterministic = {"run": config.loop.evaluation_deterministic, "sampled": False, "most_probable": True}
    opponent = config.loop.evaluation_opponent if arguments.opponent == "run" else arguments.opponent
    env = against(config.env, opponent)
    with Evaluator(
        env, arguments.episodes, seed=arguments.seed, deterministic=deterministic[arguments.actions]
    ) as evaluator:
        result = evaluator(policy)
    document = {
        "env": config.env.id,
        "episodes": arguments.episodes,
        "actions": "most_probable" if deterministic[arguments.actions] else "sampled",
        **result.summary(),
        "returns": result.returns.tolist(),
    }
    spec = find_spec(config.env.id)
    if family_of(spec) is ATARI and (normalised := human_normalised(game_of(spec), result.mean)) is not None:
        document["human_normalised"] = normalised
    if env.opponent != "self":
        document["opponent"] = env.opponent
        document["won"], document["drawn"], document["lost"] = result.won_drawn_lost
    return document, step
