"""Rate runs from comparisons of clips that their policies play (Bradley–Terry), with intervals."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro

from envs.errors import RllabError
from rllab.cli.arguments import Flag, checkpoint_named, parse
from rllab.cli.console import number, print_next, print_table, quoted

if TYPE_CHECKING:
    from preference.comparisons import Comparison
    from preference.ratings import Ratings
    from preference.store import Store

TeacherName = Literal["oracle", "boltzmann", "myopic", "mistake", "skip", "equal", "human"]
Runs = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN ...]")]
STORE_NAME, FIGURE_NAME = "comparisons.sqlite", "ratings.png"


@dataclass(frozen=True)
class RateArguments:
    """Rate runs from comparisons of clips that their policies play in one environment.

    With --store the comparisons are those in a store, by whomever, and nothing is played.
    """

    runs: Runs = ()
    """Run folders, or folders of runs; with --store, those to rate, by default all that own clips in it."""
    labels: int = 200
    """Comparisons to ask for; every two runs meet equally often."""
    teacher: TeacherName = "oracle"
    """Who answers: a synthetic teacher that sees the true reward, or human: the questions are put into the store, and
    the command is given again when people have answered them."""
    episodes: int = 10
    """Episodes that each run plays, to cut clips from."""
    clip_steps: int = 0
    """Steps of a clip; 0: one and a half seconds of the environment's own time."""
    checkpoint: str = "best"
    """best (by the evaluations during training; the latest if there were none), latest, or a step."""
    prior: float = 1.0
    """Games that each run is thought to have played, and half won, against an average one: it keeps the rating of a run
    that always won finite. 0: maximum likelihood."""
    store: str | None = None
    """Rate from the comparisons in this store: a file, or a database's URL."""
    out: Path = Path("ratings")
    """Folder of what is made: the clips and answers, and a figure. A second call with the same runs adds to it."""
    seed: int = 0
    """Of the episodes, the questions and the teacher."""
    json: Flag = False
    """Print JSON."""

    def __post_init__(self) -> None:
        if self.clip_steps < 0:
            raise RllabError(f"--clip-steps must be 0 (choose for me) or more, not {self.clip_steps}")


def command(argv: Sequence[str]) -> int:
    """`rllab preference rate RUN…`."""
    arguments: RateArguments = parse(RateArguments, argv, "preference rate")
    from preference.cli.places import open_store
    from preference.contest import owner_of
    from preference.plots import plot_ratings
    from rllab.runs import find_runs

    paths = find_runs(arguments.runs)
    if arguments.store is None:
        checkpoint_named(arguments.checkpoint)
        answered = _contest(paths, arguments)
        if not answered:
            return 0
    with open_store(arguments.store or str(arguments.out / STORE_NAME)) as store:
        names = {owner_of(path): str(path) for path in paths}
        comparisons, owners = _between(store, names)
        annotators = sorted({comparison.answer.annotator for comparison in comparisons})
        environment = store.task.environment
    ratings, meetings = _rate(comparisons, owners, arguments.prior)
    figure = plot_ratings(ratings, arguments.out / FIGURE_NAME, environment)
    if arguments.json:
        print(json.dumps(_document(ratings), indent=2))
        return 0
    _print_ratings(ratings, meetings)
    print(
        f"{ratings.comparisons:g} comparisons by {', '.join(annotators)}. A rating is on Elo's scale, where 400 points "
        f"are odds of 10 to 1 and the mean is 1500; intervals are of 95 %. Figure: {figure}"
    )
    return 0


def _contest(paths: Sequence[Path], arguments: RateArguments) -> bool:
    """Play, ask, and keep it in the store in `out`; whether there are answers now."""
    from preference.contest import ask_teacher, default_clip_steps, draw_pairs, enter, play_clips, task_for
    from preference.store import Store
    from preference.teachers import TEACHERS, SyntheticTeacher

    contestants = enter(paths, checkpoint_named(arguments.checkpoint))
    steps = arguments.clip_steps or default_clip_steps(contestants[0].env)
    drawing, answering = (
        np.random.default_rng(child) for child in np.random.SeedSequence([arguments.seed, 0x4A7E]).spawn(2)
    )
    clips = []
    for contestant in contestants:
        # The same episodes for all: their starts favour nobody.
        clips.append(play_clips(contestant, arguments.episodes, steps, arguments.seed))
        if not arguments.json:
            print(
                f"{contestant.path}: {len(clips[-1])} clips of {steps} steps from {arguments.episodes} episodes, by "
                f"the policy at {contestant.policy_steps:,} steps",
                flush=True,
            )
    pairs = draw_pairs(clips, arguments.labels, drawing)
    known = {clip.id: clip for own in clips for clip in own}
    asked = [known[identifier] for pair in pairs for identifier in (pair.first, pair.second)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    with Store.open(arguments.out / STORE_NAME, task_for(asked[0], contestants[0].env)) as store:
        store.add_clips(asked)
        new = store.ask(pairs)
        if arguments.teacher != "human":
            teacher = SyntheticTeacher(TEACHERS[arguments.teacher], answering)
            ask_teacher(store, pairs, asked, teacher, arguments.teacher)
            return True
        waiting = len(store.open_pairs())
        answered = store.progress().answered
    if new or not answered:
        print(f"{waiting} questions wait for people's answers in {arguments.out / STORE_NAME}")
        print_next([("rate the runs when they have been answered", _again(arguments))])
    return bool(answered) and not new


def _again(arguments: RateArguments) -> str:
    runs = " ".join(quoted(run) for run in arguments.runs)
    return f"rllab preference rate {runs} --store {quoted(arguments.out / STORE_NAME)} --out {quoted(arguments.out)}"


def _between(store: "Store", names: Mapping[str, str]) -> tuple[list["Comparison"], dict[object, str]]:
    """The comparisons between the runs that are named (all, if none is), and the owner's name by a clip's id."""
    found = [item for item in store.comparisons().added if item.preference is not None]
    ids = dict.fromkeys(clip for item in found for clip in (item.pair.first, item.pair.second))
    owners: dict[object, str] = {
        clip.id: names.get(clip.run, clip.run or "unknown")
        for clip in store.clips(ids)
        if not names or clip.run in names
    }
    comparisons = [item for item in found if item.pair.first in owners and item.pair.second in owners]
    if not comparisons:
        whose = "these runs" if names else "any runs"
        raise RllabError(f"{store.database.name} has no comparison between clips of {whose}: label some pairs first")
    return comparisons, owners


def _rate(
    comparisons: Sequence["Comparison"], owners: Mapping[object, str], prior: float
) -> tuple["Ratings", dict[str, tuple[float, int]]]:
    """The ratings, and what each has won of how many."""
    from preference.ratings import rate

    ratings = rate(comparisons, owners.__getitem__, prior=prior)
    won = dict.fromkeys(ratings.names, (0.0, 0))
    for item in comparisons:
        preference = item.preference
        first, second = owners[item.pair.first], owners[item.pair.second]
        if preference is None or first == second:
            continue
        for name, share in ((first, preference), (second, 1 - preference)):
            won[name] = (won[name][0] + share, won[name][1] + 1)
    return ratings, won


def _print_ratings(ratings: "Ratings", won: Mapping[str, tuple[float, int]]) -> None:
    rating, low, high = ratings.elo()
    order = ratings.order
    rows = []
    for place, index in enumerate(order):
        name = ratings.names[index]
        better = ""
        if place + 1 < len(order):
            _, least, most = ratings.difference(index, order[place + 1])
            ends = " – ".join(f"{_probability(value):.0%}" for value in (least, most))
            better = f"{ratings.probability(index, order[place + 1]):.0%} [{ends}]"
        wins, games = won[name]
        rows.append((
            name, f"{rating[index]:.0f}", f"[{low[index]:.0f}, {high[index]:.0f}]",
            number(float(ratings.strengths[index])), f"{wins:g} of {games}", better or "–",
        ))  # fmt: skip
    columns = ("Run", "Rating", "95 % interval", "Strength", "Won", "Beats the next")
    print_table(columns, rows, right=columns[1:])


def _probability(log_odds: float) -> float:
    return float(0.5 * (1 + np.tanh(log_odds / 2)))


def _document(ratings: "Ratings") -> list[dict[str, object]]:
    rating, low, high = ratings.elo()
    order = ratings.order
    return [
        {
            "run": ratings.names[index],
            "elo": float(rating[index]),
            "elo_ci95": [float(low[index]), float(high[index])],
            "log_strength": float(ratings.log_strengths[index]),
            "beats_next": ratings.probability(index, order[place + 1]) if place + 1 < len(order) else None,
        }
        for place, index in enumerate(order)
    ]
