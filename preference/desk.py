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
POLL_SECONDS = 0.5
"""Between looks for answers: people are slow, and a look costs as much as a small rollout."""


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

    def open(self) -> int:
        """How many questions are unanswered; if none is, the next `poll` gives all answers there are."""

    def clips(self, ids: Sequence[str]) -> list[Clip]:
        """Clips that were asked about, by their ids."""

    def asked(self) -> list[Pair]:
        """The pairs of this run that the store has, answered or open."""

    def state_dict(self) -> dict[str, Any]:
        """What the next answers depend on."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""


class Patience:
    """Makes calls to a store again while it is unavailable: training pauses, says so once, and goes on."""

    def __init__(self, note: Callable[[str], None], ending: Callable[[], bool] = lambda: False) -> None:
        """`note` tells a person something; `ending`: whether somebody asked to stop."""
        self.note, self.ending = note, ending

    def __call__(self, call: Callable[[], Result]) -> Result:
        """What `call` gives, however long it takes.

        Raises:
            StoreUnavailable: the store is, and somebody asked to stop.
        """
        paused = False
        while True:
            try:
                result = call()
            except StoreUnavailable as error:
                if self.ending():
                    raise
                if not paused:
                    self.note(f"paused: {error} Trying again every {RETRY_SECONDS:g} s.")
                paused = True
                time.sleep(RETRY_SECONDS)
            else:
                if paused:
                    self.note("the store of comparisons is there again; going on")
                return result


class Illustrator(Protocol):
    """Draws the clips that are asked about (`preference.drawing.Drawing`)."""

    def deliver(self, clips: Sequence[Clip]) -> None:
        """Have clips drawn that are about to be asked about."""

    def collect(self) -> None:
        """Put into the store what has been drawn, without waiting."""


class TeacherDesk:
    """A teacher who answers on the spot; the store keeps the record."""

    def __init__(
        self, teacher: Teacher, store: Store, run: str, name: str, patience: Patience,
        illustrator: Illustrator | None = None,
    ) -> None:  # fmt: skip
        """`name`: the annotator's, on record; `patience`: with the store; `illustrator`: None draws nothing."""
        self.teacher, self.store, self.run, self.name = teacher, store, run, name
        self.patience, self.illustrator = patience, illustrator

    def ask(self, questions: Sequence[Question]) -> Answered:
        labels = self.teacher.label([(question.first, question.second) for question in questions])
        pairs = [question.pair(self.run) for question in questions]
        clips = [clip for question in questions for clip in (question.first, question.second)]
        answers = [
            Answer(uuid.uuid5(pair.id, self.name), pair.id, self.name, label)
            for pair, label in zip(pairs, labels, strict=True)
        ]
        if self.illustrator is not None:
            self.illustrator.deliver(clips)

        def record() -> None:
            self.store.add_clips(clips)
            self.store.ask(pairs)
            self.store.answer(answers)

        self.patience(record)
        comparisons = (Comparison(pair, answer) for pair, answer in zip(pairs, answers, strict=True))
        return Answered([(item, asked.first, asked.second) for item, asked in zip(comparisons, questions, strict=True)])

    def poll(self) -> Answered:
        if self.illustrator is not None:
            self.illustrator.collect()
        return Answered()

    def open(self) -> int:
        return 0

    def clips(self, ids: Sequence[str]) -> list[Clip]:
        return self.patience(lambda: self.store.clips(map(uuid.UUID, ids)))

    def asked(self) -> list[Pair]:
        return self.patience(lambda: _pairs_of(self.store, self.run))

    def state_dict(self) -> dict[str, Any]:
        return {"teacher": self.teacher.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.teacher.load_state_dict(state["teacher"])


class StoreDesk:
    """Somebody else answers, in their own time: people on the labelling page, or a teacher's process."""

    def __init__(self, store: Store, run: str, patience: Patience, illustrator: Illustrator | None = None) -> None:
        """`patience`: with the store; `illustrator`: None draws nothing."""
        self.store, self.run, self.patience, self.illustrator = store, run, patience, illustrator
        self._cursor = 0
        self._next_poll = 0.0

    def ask(self, questions: Sequence[Question]) -> Answered:
        clips = [clip for question in questions for clip in (question.first, question.second)]
        # Before they can be asked about, so that no clip is left undrawn by whoever kills this process.
        if self.illustrator is not None:
            self.illustrator.deliver(clips)

        def record() -> None:
            self.store.add_clips(clips)
            self.store.ask([question.pair(self.run) for question in questions])

        self.patience(record)
        return Answered()

    def poll(self) -> Answered:
        now = time.monotonic()
        if now < self._next_poll:
            return Answered()
        self._next_poll = now + POLL_SECONDS
        if self.illustrator is not None:
            self.illustrator.collect()
        changes = self.patience(lambda: self.store.comparisons(self.run, self._cursor))
        wanted = dict.fromkeys(clip for item in changes.added for clip in (item.pair.first, item.pair.second))
        clips = {clip.id: clip for clip in self.patience(lambda: self.store.clips(wanted))} if wanted else {}
        self._cursor = changes.cursor
        added = [(item, clips[item.pair.first], clips[item.pair.second]) for item in changes.added]
        return Answered(added, list(changes.withdrawn))

    def open(self) -> int:
        count = len(self.patience(lambda: self.store.open_pairs(self.run)))
        if not count:
            self._next_poll = 0.0
        return count

    def clips(self, ids: Sequence[str]) -> list[Clip]:
        return self.patience(lambda: self.store.clips(map(uuid.UUID, ids)))

    def asked(self) -> list[Pair]:
        return self.patience(lambda: _pairs_of(self.store, self.run))

    def state_dict(self) -> dict[str, Any]:
        return {"cursor": self._cursor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._cursor = int(state["cursor"])


def _pairs_of(store: Store, run: str) -> list[Pair]:
    answered = (item.pair for item in store.comparisons(run).added)
    return list({pair.id: pair for pair in (*answered, *store.open_pairs(run))}.values())
