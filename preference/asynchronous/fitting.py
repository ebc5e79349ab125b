"""The fitting process: keeps the comparisons and the reward model, goes on fitting, and publishes what it has.

What is published is a checkpoint (`rllab.checkpoints`) of the whole fit, model and optimiser and data: the agent takes
the model from it, and a fitting process that is started again the rest.
"""

import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from envs.errors import RllabError
from preference.asynchronous.supervise import Assistant, work
from preference.bradley_terry import HUMAN_NOISE
from preference.config import PreferenceConfig
from preference.dataset import ClipBatch, ComparisonData
from preference.desk import Answered, Patience, StoreDesk
from preference.fit import Fitter
from preference.fitting import INITIAL_EPOCHS, held_out_measures, learnable, reference_count, spread_measures, take_in
from preference.inputs import Inputs
from preference.reward_model import RewardModel
from preference.store import Store
from rllab.checkpoints import Checkpoints
from rllab.threads import single_threaded

ROUND_EPOCHS = 5
"""Epochs between looks for answers; of images 1."""
PUBLISH_SECONDS = 2.0
"""The least time between two models that are published before the fit is done."""
IDLE_SECONDS = 0.2
SHARE = 1 / 50
"""Of the agent's time, for reading what is published (weighing old and new rewards takes about as much again)."""


class LiveFitting:
    """A fit that goes on while answers come.

    New answers earn it `fit_epochs` epochs more (the first ones `INITIAL_EPOCHS` times as many), never more than that
    at once: when they come faster than it fits it is always fitting, and when none come it waits.

    Attributes:
        owed: epochs yet to be done.
    """

    def __init__(
        self, preference: PreferenceConfig, inputs: Inputs, seed: int, desk: StoreDesk, folder: Path, *,
        enough: int, note: Callable[[str], None],
    ) -> None:  # fmt: skip
        """Begin, or go on from what was published last.

        Args:
            preference: the run's configuration.
            inputs: what the model reads.
            seed: of the weights and of everything drawn.
            desk: where answers come from.
            folder: where to publish.
            enough: answers, skips among them, before the first fit.
            note: tells a person something.
        """
        config = preference.fit
        drawing, shuffling = (np.random.default_rng(child) for child in np.random.SeedSequence([seed, 0xA51C]).spawn(2))
        self.desk, self.enough, self.note = desk, enough, note
        self.model = RewardModel(inputs, preference.reward, seed=seed)
        self.data = ComparisonData(
            preference.reward.members, drawing, held_out=config.held_out, bootstrap=config.bootstrap
        )
        noise = HUMAN_NOISE if preference.teacher == "human" else 0.0
        self.fitter = Fitter(self.model, config, shuffling, noise=noise)
        self.round = 1 if inputs.image else ROUND_EPOCHS
        self.published = Checkpoints(folder)
        self.owed = self.answers = self.publications = 0
        self._losses: dict[str, float] = {}
        self._published_at = -np.inf
        latest = self.published.latest()
        if latest is not None:
            number, state = self.published.load()
            self._load_state_dict(state)
            self.publications = max(number, latest)

    def step(self) -> bool:
        """Take in what has been answered, and fit for some epochs; False if there was nothing to do."""
        changed = self._take(self.desk.poll())
        if changed or (not self.publications and not self.owed):
            self._plan()
        if not self.owed:
            return changed
        epochs = min(self.round, self.owed)
        self._losses = self.fitter.fit(self.data, epochs)
        self.owed -= epochs
        now = time.monotonic()
        if not self.owed or (self.publications and now - self._published_at >= PUBLISH_SECONDS):
            self.publish()
            self._published_at = now
        return True

    def _take(self, answered: Answered) -> bool:
        self.answers += len(answered.added)
        return take_in(self.data, answered) > 0

    def _plan(self) -> None:
        """Owe epochs for new comparisons."""
        # The agent may have had fewer pairs to ask about than were due: then all that were asked are enough.
        early = self.answers < self.enough and (not self.answers or self.desk.open())
        if early or not learnable(self.data, self.note):
            self.owed = 0
            return
        reference = self._reference()
        self.model.observe(self.model.numbers(reference.arrays)[reference.valid])
        self.owed = max(self.owed, self.fitter.config.fit_epochs * (1 if self.publications else INITIAL_EPOCHS))

    def _reference(self) -> ClipBatch:
        """Clips that were asked about, spread over all that were."""
        return sample(self.data, reference_count(self.model))

    def publish(self) -> None:
        """Let the agent have the model, normalised over clips that were asked about."""
        reference = self._reference()
        self.model.normalise_over(reference.arrays, reference.valid)
        self.publications += 1
        self.published.save(self.publications, self._state_dict())

    def _state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "fitter": self.fitter.state_dict(),
            "data": self.data.state_dict(),
            "desk": self.desk.state_dict(),
            "owed": self.owed,
            "answers": self.answers,
            "report": self._losses | held_out_measures(self.data, self.fitter),
        }

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.fitter.load_state_dict(state["fitter"])
        self.data.load_state_dict(state["data"], self.desk.clips(state["data"]["clips"]))
        self.desk.load_state_dict(state["desk"])
        self.owed, self.answers = state["owed"], state["answers"]


class FitElsewhere:
    """In the agent's process: adopts what the fitting process has published (`preference.fitting.Fitting`)."""

    def __init__(
        self, model: RewardModel, data: ComparisonData, folder: Path, check: Callable[[], None],
        note: Callable[[str], None],
    ) -> None:  # fmt: skip
        """`check` sees to it that the process is there; `note` tells why nothing can be learnt yet."""
        self.model, self.data, self.check, self.note = model, data, check, note
        self.published = Checkpoints(folder)
        self._adopted: int | None = None
        self._state: Mapping[str, Any] = {}
        self._next = -np.inf

    def due(self, changed: bool) -> bool:
        self.check()
        if self._adopted is None and changed:
            learnable(self.data, self.note)
        if time.monotonic() < self._next:
            return False
        latest = self.published.latest()
        if latest is None or latest == self._adopted:
            return False
        try:
            _, self._state = self.published.load(latest)
        except RllabError:  # replaced by a newer one just now
            return False
        self._adopted = latest
        return True

    def improve(self, reference: ClipBatch, first: bool) -> dict[str, float]:
        began = time.monotonic()
        self.model.load_state_dict(self._state["model"])
        # The fitting process does not know the newest clips, by which it keeps its scale where the agent is now.
        self.model.normalise_over(reference.arrays, reference.valid)
        report = dict(self._state["report"])
        if self.data.clips:
            report |= spread_measures(self.model, sample(self.data, reference_count(self.model) // 2))
        self._state = {}
        now = time.monotonic()
        self._next = now + (now - began) / SHARE
        return report


def sample(data: ComparisonData, count: int) -> ClipBatch:
    """At most `count` of the clips that were asked about, spread over all of them."""
    return ClipBatch.of(data.clips[:: -(-len(data.clips) // count) or 1])


def start_fitting(job: dict[str, Any], log: Path, note: Callable[[str], None]) -> Assistant:
    """The process; `job` has `store` (a URL), `run`, `preference`, `seed`, `inputs`, `folder` and `enough`."""
    return Assistant("fits the reward", __name__, job, log, note)


def main() -> None:
    """Fits until the parent ends."""
    work(_work)


def _work(job: dict[str, Any], ending: threading.Event) -> None:
    def note(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    preference, inputs = PreferenceConfig.from_json(job["preference"]), Inputs.from_json(job["inputs"])
    patience = Patience(note, ending.is_set)
    with patience(lambda: Store.open(job["store"], timeout=5.0)) as store, single_threaded(not inputs.image):
        fitting = LiveFitting(
            preference, inputs, job["seed"], StoreDesk(store, job["run"], patience), Path(job["folder"]),
            enough=job["enough"], note=note,
        )  # fmt: skip
        while not ending.is_set():
            if not fitting.step():
                ending.wait(IDLE_SECONDS)
        if fitting.owed and fitting.publications:  # what has been fitted since the last publication
            fitting.publish()
