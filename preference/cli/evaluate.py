"""Measure a reward model: on stored comparisons, against a true reward, or against another reward (EPIC)."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from envs.errors import RllabError
from rllab.cli.arguments import Flag, checkpoint_named, parse
from rllab.cli.console import number, print_facts

if TYPE_CHECKING:
    from preference.epic import Transitions
    from preference.evaluation import PlayedMeasures
    from preference.measures import PreferenceMeasures
    from preference.reward_model import RewardModel
    from preference.stored import StoredComparisons

ModelPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]


@dataclass(frozen=True)
class EvaluateArguments:
    """Measure a reward model: on stored comparisons, against a true reward, or against another reward (EPIC).

    Without --store and --run, a run's model is measured on the run's own comparisons.
    """

    model: ModelPath
    """A run of `rllab preference learn`, or the folder of a reward model."""
    store: str | None = None
    """Measure on the comparisons of this store: a file, a URL or a run of `rllab preference learn`."""
    run: Path | None = None
    """Measure against the environment's own reward, on episodes that this run's policy plays."""
    held_out: Flag = False
    """Only on comparisons that the model was not fitted to."""
    episodes: int = 20
    """Episodes to play with --run."""
    checkpoint: str = "best"
    """Of --run: best, latest, or a step."""
    actions: Literal["run", "sampled", "most_probable"] = "run"
    """Of --run: sampled; most_probable; run: as the run's own evaluations do."""
    epic: str | None = None
    """The EPIC distance from this reward too: another model (a run or a folder), or MODULE:FUNCTION, which takes
    observations [B, *obs], actions and next observations and gives rewards [B]. Over the transitions of the episodes of
    --run, or of the clips in --store."""
    discount: float | None = None
    """γ of the EPIC distance; by default the run's, or 0.99."""
    output: Path | None = None
    """Draw the reliability plot of the comparisons there (.png, .svg, .pdf)."""
    seed: int = 0
    """Of the episodes, of sampled actions and of what EPIC draws."""
    json: Flag = False
    """Print JSON."""


def command(argv: Sequence[str]) -> int:
    """`rllab preference evaluate MODEL`."""
    arguments: EvaluateArguments = parse(EvaluateArguments, argv, "preference evaluate")
    from preference.cli.places import load_model, open_store, store_of
    from preference.evaluation import model_as_reward, play_and_compare, reward_named
    from preference.stored import StoredComparisons

    if arguments.discount is not None and not 0 <= arguments.discount <= 1:
        raise RllabError(f"--discount must lie in [0, 1], not {arguments.discount}")
    model, owner = load_model(arguments.model)
    where = arguments.store
    if where is None and arguments.run is None:
        if owner is None:
            raise RllabError("say what to measure it on: --store STORE for comparisons, or --run RUN for a true reward")
        where = str(store_of(owner))
    if where is None and (arguments.held_out or arguments.output):
        raise RllabError("--held-out and --output are about comparisons: name their --store")
    document: dict[str, Any] = {"model": str(arguments.model)}
    coverage: Transitions | None = None
    if where is not None:
        with open_store(where) as store:
            stored = StoredComparisons.read(store)
        measures = _on_store(model, stored, owner, arguments)
        document["comparisons"] = {name: measure.to_metrics() for name, measure in measures.items()}
        if arguments.epic is not None and arguments.run is None:
            coverage = _clip_transitions(stored)
        if not arguments.json:
            _print_comparisons(measures, arguments)
        if arguments.output is not None:
            from preference.plots import plot_reliability

            plot_reliability(measures, arguments.output, stored.task.environment)
    if arguments.run is not None:
        checkpoint = checkpoint_named(arguments.checkpoint)
        played = play_and_compare(
            model, arguments.run, arguments.episodes, checkpoint, arguments.actions, arguments.seed
        )  # fmt: skip
        coverage = played.transitions
        document["true_reward"] = played.to_metrics()
        if not arguments.json:
            _print_played(played, arguments.run)
    if arguments.epic is not None:
        assert coverage is not None
        discount = _discount(arguments, owner)
        other = reward_named(arguments.epic, model.inputs)
        distance = model_as_reward(model).distance(other, coverage, discount, arguments.seed)
        document["epic"] = {"reward": arguments.epic, "distance": distance, "discount": discount}
        if not arguments.json:
            over = "the clips of the store" if arguments.run is None else f"{arguments.episodes} episodes"
            print_facts([
                ("EPIC distance", f"{number(distance)} from {arguments.epic} (0: equivalent, 1: opposite; 0.707: "
                 f"unrelated), over {len(coverage):,} transitions of {over}, γ {discount:g}"),
            ])  # fmt: skip
    if arguments.json:
        print(json.dumps(_plain(document), indent=2))
    return 0


def _on_store(
    model: "RewardModel", stored: "StoredComparisons", owner: Path | None, arguments: EvaluateArguments
) -> dict[str, "PreferenceMeasures"]:
    """The measures of all comparisons, or apart by what the model has learnt from where that is known."""
    from preference.cli.places import held_out_answers

    held_out = held_out_answers(arguments.model, owner)
    here = stored.only(lambda item: str(item.answer.id) in held_out)
    if arguments.held_out:
        if not len(here):
            raise RllabError(
                "none of these comparisons is known to have been held out from the model: leave out --held-out, or "
                "name the store that it was fitted to"
            )
        return {"held out": here.measures(model)}
    if not len(here):
        return {"all": stored.measures(model)}
    rest = stored.only(lambda item: str(item.answer.id) not in held_out)
    return {"held out": here.measures(model), "the others": rest.measures(model)}


def _clip_transitions(stored: "StoredComparisons") -> "Transitions":
    from preference.playing import transitions_of

    return transitions_of([dict(clip.arrays) for clip in stored.clips.values()])


def _discount(arguments: EvaluateArguments, owner: Path | None) -> float:
    if arguments.discount is not None:
        return arguments.discount
    from rllab.runs import Run

    run = owner or arguments.run
    return 0.99 if run is None else float(Run.open(run).config["agent"]["discount"])


def _print_comparisons(measures: dict[str, "PreferenceMeasures"], arguments: EvaluateArguments) -> None:
    from preference.cli.measures import LEGEND, print_measures

    print_measures(measures)
    print(LEGEND)
    if arguments.output is not None:
        print(f"Reliability plot: {arguments.output}")


def _print_played(played: "PlayedMeasures", run: Path) -> None:
    from rllab.cli.console import print_table

    correlation = played.correlation
    print_table(
        ("Against the true reward", "Pearson", "Spearman"),
        [
            (f"per step ({played.steps:,})", number(correlation.pearson_step), number(correlation.spearman_step)),
            (
                f"per episode ({len(played.true_returns):,})",
                number(correlation.pearson_episode),
                number(correlation.spearman_episode),
            ),
        ],
        right=("Pearson", "Spearman"),
    )
    true, learned, spread = played.true_returns, played.learned_returns, played.spread
    print_facts([
        ("Policy", f"{run}, at {played.policy_steps:,} steps"),
        ("True return", f"{number(float(true.mean()))} ± {number(float(true.std()))}"),
        ("Learned return", f"{number(float(learned.mean()))} ± {number(float(learned.std()))}"),
        ("Ensemble spread", f"mean {number(spread.mean)}, 95 % below {number(spread.percentile_95)}, in the unit of "
                            f"the learned reward ({played.members} members)"),
    ])  # fmt: skip
    if len(true) < 3:
        print("Correlations per episode need at least 3 episodes to say anything.")
    for note in played.notes:
        print(note)


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
