"""What people who answer are told of the training: what it does, how far it is, and when it will ask again.

Kept in the store, so that a labelling page shows it wherever it runs. The environment's reward of a clip, or what the
reward model thinks of it, is not in it.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from preference.budget import Budget
from preference.learner import Phase
from preference.store import Store, StoreUnavailable
from rllab.agents.agent import Metrics
from rllab.callbacks import Callback
from rllab.rollout import Rollout
from rllab.train import Training

EVERY_SECONDS = 1.0
"""Between two bulletins, but for the last."""
POINTS = 100
"""Of each curve."""


class Bulletin(Callback):
    """Writes a run's status into the store: `preference.store.Store.statuses` has it.

    A status has `phase` and a `sentence` about it; `step` of `steps`; `asked` of `labels`; `next_questions`, when the
    next ones are expected in seconds since 1970, or None; `accuracy`, points of answers and accuracy on held-out
    pairs; and `progress`, points of steps and the mean return of the last training episodes.
    """

    def __init__(self, store: Store, run: str, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since 1970."""
        self.store, self.run, self.clock = store, run, clock
        self.questions: Budget | None = None
        """What the learner asks, once there is a learner."""
        self._accuracy: list[tuple[float, float]] = []
        self._progress: list[tuple[float, float]] = []
        self._rate = math.nan
        self._next = -math.inf

    def __call__(self, training: Training, phase: Phase) -> None:
        """Tell what is being done, if it is time."""
        if self.clock() >= self._next:
            self._write(training, phase)

    def after_update(self, training: Training, rollout: Rollout, metrics: Metrics) -> None:
        """Take in what was measured."""
        self._rate = metrics.get("steps_per_second", math.nan)
        accuracy, mean = metrics.get("reward/held_out_accuracy", math.nan), metrics.get("return_mean", math.nan)
        if math.isfinite(accuracy):
            self._accuracy.append((metrics["reward/labels"], accuracy))
        if math.isfinite(mean):
            self._progress.append((training.steps, mean))
        self(training, "training")

    def end(self, training: Training) -> None:
        """Tell that no more is asked for now."""
        self._write(training, "finished" if training.steps >= training.config.steps else "stopped")

    def _write(self, training: Training, phase: Phase | str) -> None:
        self._next = self.clock() + EVERY_SECONDS
        assert self.questions is not None
        status = {
            "phase": phase, "sentence": SENTENCES[phase], "step": training.steps, "steps": training.config.steps,
            "asked": self.questions.asked, "labels": self.questions.labels,
            "next_questions": self._expected(training, phase),
            "accuracy": thinned(self._accuracy), "progress": thinned(self._progress),
        }  # fmt: skip
        with suppress(StoreUnavailable):  # the next one will say more
            self.store.set_status(self.run, status)

    def _expected(self, training: Training, phase: str) -> float | None:
        assert self.questions is not None
        if phase != "training" or not self._rate > 0:
            return None
        step = self.questions.next_due(training.steps)
        return None if step is None else self.clock() + (step - training.steps) / self._rate

    def state_dict(self) -> dict[str, Any]:
        """The curves."""
        return {"accuracy": list(self._accuracy), "progress": list(self._progress)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._accuracy, self._progress = ([tuple(point) for point in state[name]] for name in ("accuracy", "progress"))


SENTENCES = {
    "collecting clips": "The agent tries things out, to have something to show.",
    "waiting for answers": "The agent waits for answers before it goes on.",
    "training": "The agent trains on what it has been told.",
    "finished": "The training has come to its end.",
    "stopped": "The training was stopped; it can be resumed.",
}


def thinned(points: Sequence[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """At most `most` of the points, evenly spread, the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]
