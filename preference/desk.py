"""The desk between a learner and its teacher: questions go to the store, answers come from it or on the spot."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from preference.comparisons import Answer, Clip, Comparison, Pair
from preference.store import Store, StoreUnavailable
from preference.teachers import Teacher

Result = TypeVar("Result")
RETRY_SECONDS = 2.0
"""Between attempts to reach a store that is locked or gone."""


@dataclass(frozen=True)
class Question:
    """A pair of clips to be compared."""

    first: Clip
    second: Clip
    strategy: str
    """How it was chosen."""
    probability: float
    """P(first is better) by the ensemble, before it knows the answer."""

    def pair(self, run: str) -> Pair:
        """As the store keeps it; the same clips in the same run are the same pair."""
        identity = uuid.uuid5(uuid.UUID(run), f"{self.first.id} {self.second.id}")
        details = {"probability": self.probability}
        return Pair(identity, self.first.id, self.second.id, run, self.strategy, details=details)


@dataclass(frozen=True)
class Answered:
    """What has come in."""

    added: list[tuple[Comparison, Clip, Clip]] = field(default_factory=list)
    """Each with its first and second clip."""
    withdrawn: list[uuid.UUID] = field(default_factory=list)
    """Ids of answers that were taken back."""


class Desk(Protocol):
    """Takes questions, and gives answers when there are some."""

    def ask(self, questions: Sequence[Question]) -> Answered:
        """Put questions; the answers that come at once."""

    def poll(self) -> Answered:
        """The answers that have come since the last call."""

    def clips(self, ids: Sequence[str]) -> list[Clip]:
        """Clips that were asked about, by their ids."""

    def state_dict(self) -> dict[str, Any]:
        """What the next answers depend on."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""


class TeacherDesk:
    """A teacher who answers on the spot; the store keeps the record."""

    def __init__(self, teacher: Teacher, store: Store, run: str, name: str, note: Callable[[str], None]) -> None:
        """`name`: the annotator's, on record; `note` tells a person something."""
        self.teacher, self.store, self.run, self.name, self.note = teacher, store, run, name, note

    def ask(self, questions: Sequence[Question]) -> Answered:
        labels = self.teacher.label([(question.first, question.second) for question in questions])
        pairs = [question.pair(self.run) for question in questions]
        clips = [clip for question in questions for clip in (question.first, question.second)]
        answers = [
            Answer(uuid.uuid5(pair.id, self.name), pair.id, self.name, label)
            for pair, label in zip(pairs, labels, strict=True)
        ]

        def record() -> None:
            self.store.add_clips(clips)
            self.store.ask(pairs)
            self.store.answer(answers)

        patiently(record, self.note)
        comparisons = (Comparison(pair, answer) for pair, answer in zip(pairs, answers, strict=True))
        return Answered([(item, asked.first, asked.second) for item, asked in zip(comparisons, questions, strict=True)])

    def poll(self) -> Answered:
        return Answered()

    def clips(self, ids: Sequence[str]) -> list[Clip]:
        return patiently(lambda: self.store.clips(map(uuid.UUID, ids)), self.note)

    def state_dict(self) -> dict[str, Any]:
        return {"teacher": self.teacher.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.teacher.load_state_dict(state["teacher"])


class StoreDesk:
    """Somebody else answers, in their own time: people on the labelling page, or a teacher's process."""

    def __init__(
        self, store: Store, run: str, note: Callable[[str], None], *, deliver: Callable[[Sequence[Clip]], None] | None
    ) -> None:
        """`deliver` is given the clips that are asked about, to draw them."""
        self.store, self.run, self.note, self.deliver = store, run, note, deliver
        self._cursor = 0
        self._polled = 0.0

    def ask(self, questions: Sequence[Question]) -> Answered:
        clips = [clip for question in questions for clip in (question.first, question.second)]

        def record() -> None:
            self.store.add_clips(clips)
            self.store.ask([question.pair(self.run) for question in questions])

        patiently(record, self.note)
        if self.deliver is not None:
            self.deliver(clips)
        return Answered()

    def poll(self) -> Answered:
        now = time.monotonic()
        if now - self._polled < 0.5:  # people are slow, and a query costs as much as a small rollout
            return Answered()
        self._polled = now
        changes = patiently(lambda: self.store.comparisons(self.run, self._cursor), self.note)
        self._cursor = changes.cursor
        if not changes.added and not changes.withdrawn:
            return Answered()
        wanted = [clip for item in changes.added for clip in (item.pair.first, item.pair.second)]
        clips = {clip.id: clip for clip in patiently(lambda: self.store.clips(dict.fromkeys(wanted)), self.note)}
        added = [(item, clips[item.pair.first], clips[item.pair.second]) for item in changes.added]
        return Answered(added, list(changes.withdrawn))

    def clips(self, ids: Sequence[str]) -> list[Clip]:
        return patiently(lambda: self.store.clips(map(uuid.UUID, ids)), self.note)

    def state_dict(self) -> dict[str, Any]:
        return {"cursor": self._cursor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._cursor = int(state["cursor"])


def patiently(call: Callable[[], Result], note: Callable[[str], None]) -> Result:
    """What `call` gives, made again while the store is unavailable: training pauses, says so, and goes on."""
    paused = False
    while True:
        try:
            result = call()
        except StoreUnavailable as error:
            if not paused:
                note(f"paused: {error} Trying again every {RETRY_SECONDS:g} s.")
            paused = True
            time.sleep(RETRY_SECONDS)
        else:
            if paused:
                note("the store of comparisons is there again; going on")
            return result
