"""A budget of questions: how many have been asked, when the next are due, and about which pairs none is asked again."""

from collections.abc import Iterable, Mapping
from typing import Any

from preference.comparisons import Pair
from preference.queries import LabelSchedule


class Budget:
    """Counts questions against a schedule.

    Attributes:
        schedule: how many labels should have been asked for by which step.
        batch_size: how many pairs are asked about at a time.
        asked: how many pairs have been asked about.
    """

    def __init__(self, schedule: LabelSchedule, query_batch: int = 0) -> None:
        """`query_batch`: pairs asked about at a time; 0: a twentieth of the labels."""
        self.schedule = schedule
        self.batch_size = query_batch or max(1, round(schedule.labels / 20))
        self.asked = 0
        self._known: set[frozenset[str]] = set()
        """The pairs that were asked about."""

    @property
    def labels(self) -> int:
        """How many questions there are in all."""
        return self.schedule.labels

    def due(self, steps: int) -> int:
        """How many are to be asked after so many steps; 0 while they are not a batch."""
        due = self.schedule.due(steps) - self.asked
        return due if due >= self.batch_size or (due > 0 and steps >= self.schedule.steps) else 0

    def next_due(self, steps: int) -> int | None:
        """The step, from `steps` on, at which the next are asked; None if all have been."""
        if self.asked >= self.labels:
            return None
        low, high = steps, max(steps, self.schedule.steps)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.due(middle) else (middle + 1, high)
        return low

    def note_asked(self, pairs: Iterable[Pair]) -> None:
        """Count pairs that the store has among those that were asked about: they are not asked again."""
        known = {frozenset((str(pair.first), str(pair.second))) for pair in pairs}
        self._known |= known
        self.asked = max(self.asked, len(known))

    def state_dict(self) -> dict[str, Any]:
        """What was asked."""
        return {"asked": self.asked, "known": [sorted(key) for key in sorted(self._known, key=sorted)]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.asked = state["asked"]
        self._known = {frozenset(key) for key in state["known"]}
