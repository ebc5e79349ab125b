"""What a report is about, read from a run's folder and its store: answers, measures, alarms, and clips in order."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from preference.alarms import MEANINGS
from preference.comparisons import Clip, Comparison, Label, Pair
from preference.config import PreferenceConfig
from preference.experiment import REWARD_FOLDER, STORE_FILE
from preference.measures import PreferenceMeasures
from preference.reward_model import RewardModel
from preference.store import Sheet, Store
from preference.stored import StoredComparisons, held_out_in_run
from preference.watch import WINDOW
from rllab.metrics import METRICS_FILE
from rllab.runs import Run

SHOWN = 3
"""Best and worst clips."""


@dataclass(frozen=True)
class RankedClip:
    """A clip with what the reward model thinks of it."""

    clip: Clip
    rewards: NDArray[np.float32]
    """`[E, L]`, of the ensemble's members."""
    sheet: Sheet | None
    """Its frames, if they have been drawn."""

    @property
    def mean(self) -> float:
        """The mean learned reward of a step."""
        return float(self.rewards.mean())


@dataclass(frozen=True)
class Record:
    """A run of `learn`."""

    run: Run
    config: PreferenceConfig
    rows: Sequence[Mapping[str, float]]
    """The metrics."""
    asked: tuple[Pair, ...]
    """Every question of the run, in the order in which they were asked."""
    answers: Mapping[Any, tuple[Comparison, ...]]
    """The comparisons that count, skips among them, by the pair's id."""
    measures: Mapping[str, PreferenceMeasures]
    """Of held-out comparisons by the last model, and of the newest ones as they were predicted before they were learnt
    from; without those that there are none of."""
    alarms: tuple[tuple[int, str], ...]
    """Steps and sentence of each alarm for reward hacking."""
    best: tuple[RankedClip, ...]
    worst: tuple[RankedClip, ...]
    """The worst first; none is among the best."""
    fps: float
    notes: tuple[str, ...]
    """Sentences about what is missing."""

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Read everything.

        Raises:
            RllabError: it is no run of `learn`, or its store is not there.
        """
        run = Run.open(path)
        if "preference" not in run.config:
            raise RllabError(f"{path} has learnt from no comparisons: draw it with `rllab compare {path}`")
        config = PreferenceConfig.from_json(run.config["preference"])
        rows = run.read_metrics() if (path / METRICS_FILE).exists() else []  # a run that waits for its first answers
        notes: list[str] = []
        model = None
        try:
            model = RewardModel.load(path / REWARD_FOLDER)
        except RllabError:
            notes.append("The run has not come to an end, so that its reward model is not saved yet.")
        with Store.open(config.store or path / STORE_FILE) as store:
            run_id = run.config["run_id"]
            found = store.comparisons(run_id).added
            known = {item.pair.id: item.pair for item in found} | {pair.id: pair for pair in store.open_pairs(run_id)}
            asked = tuple(sorted(known.values(), key=lambda pair: pair.created))
            stored = None
            if any(item.preference is not None for item in found):
                stored = StoredComparisons.read(store, run_id)
            ranked: list[RankedClip] = []
            if model is not None and stored is not None:
                ranked = _ranked(store, model, list(stored.clips.values()))
            fps = store.task.fps
        answers: dict[Any, tuple[Comparison, ...]] = {}
        for item in found:
            answers[item.pair.id] = (*answers.get(item.pair.id, ()), item)
        measures = {} if stored is None else _measures(run, config, stored, model, notes)
        half = min(SHOWN, len(ranked) // 2)
        return cls(
            run, config, rows, asked, answers, measures, tuple(_alarms(rows)), tuple(ranked[:half]),
            tuple(ranked[::-1][:half]), fps, tuple(notes),
        )  # fmt: skip

    def last(self, name: str) -> float:
        """The newest finite value of a metric; NaN if there is none."""
        values = (row[name] for row in reversed(self.rows) if math.isfinite(row.get(name, math.nan)))
        return next(values, math.nan)

    def count(self, label: Label) -> int:
        """How many answers that count say so."""
        return sum(item.answer.label is label for items in self.answers.values() for item in items)

    @property
    def answered(self) -> int:
        """How many answers count."""
        return sum(map(len, self.answers.values()))

    @property
    def asked_at(self) -> NDArray[np.float64]:
        """At which step of the training each question was asked `[Q]`, to within one update.

        By the row of metrics that first counts so many questions; those that no row counts yet, at the last one.
        """
        counts = np.array([row.get("reward/asked", 0) for row in self.rows], np.float64)
        steps = np.array([row["steps"] for row in self.rows], np.float64)
        if not len(steps):
            return np.zeros(len(self.asked))
        places = np.searchsorted(np.maximum.accumulate(counts), np.arange(1, len(self.asked) + 1))
        result: NDArray[np.float64] = steps[np.minimum(places, len(steps) - 1)]
        return result


def _ranked(store: Store, model: RewardModel, clips: Sequence[Clip]) -> list[RankedClip]:
    """The clips by mean learned reward, the best first; with frames where they will be shown."""
    rewards = [model.member_rewards(clip.arrays) for clip in clips]
    order = sorted(range(len(clips)), key=lambda i: -float(rewards[i].mean()))
    shown = {*order[:SHOWN], *order[-SHOWN:]}
    return [RankedClip(clips[i], rewards[i], store.sheet(clips[i].id) if i in shown else None) for i in order]


def _measures(
    run: Run, config: PreferenceConfig, stored: StoredComparisons, model: RewardModel | None, notes: list[str]
) -> dict[str, PreferenceMeasures]:
    measures: dict[str, PreferenceMeasures] = {}
    if model is not None:
        try:
            held_out = held_out_in_run(run)
        except RllabError as error:
            notes.append(f"Which comparisons were held out is not known: {error}")
        else:
            measures["held out"] = stored.only(lambda item: str(item.answer.id) in held_out).measures(model)
    query, steps = config.query, run.config["loop"]["steps"]
    # The decay plays no part in how many are asked first.
    initial = query.schedule(steps, query.length(stored.task.fps), image=False).initial
    newest = [item for item in stored.comparisons if "probability" in item.pair.details][initial:][-WINDOW:]
    predicted = [float(item.pair.details["probability"]) for item in newest]
    measures["newest pairs"] = PreferenceMeasures.of(
        np.array(predicted), np.array([item.preference for item in newest], np.float64)
    )
    return {name: measure for name, measure in measures.items() if measure.count}


def _alarms(rows: Sequence[Mapping[str, float]]) -> list[tuple[int, str]]:
    """The alarms that sounded, as the training wrote them down: at which steps, and what each means."""
    active: set[str] = set()
    result = []
    for row in rows:
        if "reward/fits" not in row:  # alarms are looked at after each fit
            continue
        now = {name for name in MEANINGS if row.get(f"reward/alarm_{name}")}
        result += [(int(row["steps"]), MEANINGS[name]) for name in sorted(now - active)]
        active = now
    return result
