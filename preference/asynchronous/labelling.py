"""The labelling process, where a synthetic teacher or a file answers: takes pairs from the queue, and answers them."""

import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from preference.asynchronous.supervise import Assistant, work
from preference.comparisons import Answer, Pair
from preference.config import PreferenceConfig
from preference.desk import Patience
from preference.store import Store
from preference.teachers import FileTeacher, SyntheticTeacher, Teacher

BATCH = 20
"""Pairs answered at a time."""
LEASE_SECONDS = 60.0
IDLE_SECONDS = 0.2
"""Between looks into an empty queue."""


class Labelling:
    """Answers the questions of one run."""

    def __init__(self, teacher: Teacher, store: Store, run: str, name: str, patience: Patience) -> None:
        """`name`: the annotator's; what an earlier process of this name had in hand is answered first."""
        self.teacher, self.store, self.run, self.name, self.patience = teacher, store, run, name, patience

    def step(self) -> int:
        """Answer some pairs; returns how many."""
        pairs = self._take()
        if not pairs:
            return 0
        ids = dict.fromkeys(clip for pair in pairs for clip in (pair.first, pair.second))
        clips = {clip.id: clip for clip in self.patience(lambda: self.store.clips(ids))}
        labels = self.teacher.label([(clips[pair.first], clips[pair.second]) for pair in pairs])
        answers = [
            Answer(uuid.uuid5(pair.id, self.name), pair.id, self.name, label)
            for pair, label in zip(pairs, labels, strict=True)
        ]
        self.patience(lambda: self.store.answer(answers))
        return len(answers)

    def _take(self) -> list[Pair]:
        pairs = [pair for pair in self.patience(lambda: self.store.leased(self.name)) if pair.run == self.run]
        while len(pairs) < BATCH:
            pair = self.patience(lambda: self.store.lease(self.name, LEASE_SECONDS, run=self.run))
            if pair is None:
                break
            pairs.append(pair)
        return pairs[:BATCH]


def teacher_of(preference: PreferenceConfig, seed: int, answered: int = 0) -> Teacher:
    """The teacher that answers by itself; `answered`: how many pairs an earlier process of its has answered."""
    if preference.teacher == "file":
        assert preference.answers is not None
        return FileTeacher(preference.answers)
    entropy = [seed, 0x7EAC4E6, answered] if answered else [seed, 0x7EAC4E6]
    return SyntheticTeacher(preference.judgement, np.random.default_rng(np.random.SeedSequence(entropy)))


def start_labelling(preference: PreferenceConfig, job: dict[str, Any], log: Path, note: Any) -> Assistant:
    """The process; `job` has `store` (a URL), `run`, `preference` and `seed`."""
    return Assistant(f"answers as the teacher '{preference.teacher}'", __name__, job, log, note)


def main() -> None:
    """Answers until the parent ends."""
    work(_work)


def _work(job: dict[str, Any], ending: threading.Event) -> None:
    preference = PreferenceConfig.from_json(job["preference"])
    patience = Patience(lambda sentence: print(sentence, file=sys.stderr, flush=True), ending.is_set)
    with patience(lambda: Store.open(job["store"], timeout=5.0)) as store:
        answered = patience(store.progress).by_annotator.get(preference.teacher, 0)
        teacher = teacher_of(preference, job["seed"], answered)
        labelling = Labelling(teacher, store, job["run"], preference.teacher, patience)
        while not ending.is_set():
            if not labelling.step():
                ending.wait(IDLE_SECONDS)
