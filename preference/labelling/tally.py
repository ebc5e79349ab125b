"""What has been answered so far, counted as it comes: by whom, on which side, how fast, and how far people agree.

Follows the store by its cursor, so that a page costs the same after a hundred thousand answers.
"""

import threading
import uuid
from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice, pairwise

from preference.comparisons import Answer, Comparison, Label, Pair
from preference.store import Store

PAUSE_SECONDS = 60.0
"""A longer gap between two answers is a pause, and no working time."""
EDGES = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 20, 40)
"""Of the histogram of seconds an answer."""


@dataclass
class Person:
    """One annotator's answers that count."""

    answers: int = 0
    choices: Counter[str] = field(default_factory=Counter)
    """How often left, right, tie and skip."""
    by_day: Counter[str] = field(default_factory=Counter)
    """By local date."""
    seconds: list[float] = field(default_factory=list)
    """Sorted."""
    pairs: list[uuid.UUID] = field(default_factory=list)
    """The pairs answered, in order."""
    today: list[float] = field(default_factory=list)
    """When the answers of the newest day were given, sorted, in seconds since 1970."""


@dataclass(frozen=True)
class _Given:
    annotator: str
    label: Label
    pair: uuid.UUID


class Tally:
    """Counts a store's answers. Methods may be called from several threads; hold `lock` to read several fields."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lock = threading.RLock()
        self.version = 0
        """Grows with every change."""
        self.people: dict[str, Person] = defaultdict(Person)
        self.histogram = [0] * (len(EDGES) + 1)
        self.labels: Counter[Label] = Counter()
        self.seconds: list[float] = []
        """Of all answers that say it, sorted."""
        self.by_run: Counter[str] = Counter()
        """Answers to pairs that are no repetitions, by the run that asked."""
        self.between: dict[tuple[str, str], Counter[tuple[Label, Label]]] = defaultdict(Counter)
        """By two names in alphabetical order, what they said of the same pairs; by one name twice, of repetitions."""
        self.alone: dict[uuid.UUID, str] = {}
        """Pairs, none of them a repetition, that one person has answered, and who."""
        self.repeated: set[tuple[uuid.UUID, str]] = set()
        """Pairs that a person was asked about once more."""
        self._cursor = 0
        self._counted: dict[uuid.UUID, Comparison] = {}
        self._groups: dict[uuid.UUID, list[_Given]] = defaultdict(list)

    def refresh(self) -> bool:
        """Take in what is new; whether there was anything."""
        with self.lock:
            changes = self.store.comparisons(after=self._cursor)
            self._cursor = changes.cursor
            for identifier in changes.withdrawn:
                if (comparison := self._counted.pop(identifier, None)) is not None:
                    self._count(comparison, -1)
            for comparison in changes.added:
                self._counted[comparison.answer.id] = comparison
                self._count(comparison, 1)
            changed = bool(changes.added or changes.withdrawn)
            self.version += changed
            return changed

    @property
    def total(self) -> int:
        """Answers that count."""
        return len(self._counted)

    def _count(self, comparison: Comparison, sign: int) -> None:
        pair, answer = comparison.pair, comparison.answer
        assert answer.label is not None
        person = self.people[answer.annotator]
        person.answers += sign
        person.choices[choice_of(answer.label, answer.swapped)] += sign
        self.labels[answer.label] += sign
        if original_of(pair) == pair.id:
            self.by_run[pair.run] += sign
        moment = datetime.fromtimestamp(answer.created)
        day = moment.date().isoformat()
        person.by_day[day] += sign
        if answer.seconds is not None:
            self.histogram[bisect_left(EDGES, answer.seconds)] += sign
            _put(person.seconds, answer.seconds, sign)
            _put(self.seconds, answer.seconds, sign)
        if sign > 0:
            if not person.today or date_of(person.today[-1]) < day:
                person.today = []
            if not person.today or date_of(person.today[-1]) == day:
                insort(person.today, answer.created)
            person.pairs.append(pair.id)
        else:
            if answer.created in person.today:
                person.today.remove(answer.created)
            person.pairs.remove(pair.id)
        self._group(pair, answer, sign)

    def _group(self, pair: Pair, answer: Answer, sign: int) -> None:
        """Answers to the same two clips belong together: what people agree on, and who was asked alone."""
        original = original_of(pair)
        group = self._groups[original]
        assert answer.label is not None
        given = _Given(answer.annotator, answer.label, pair.id)
        self._agree(group, -1)
        if sign > 0:
            group.append(given)
        else:
            group.remove(given)
        self._agree(group, 1)
        if original != pair.id:
            self.repeated.add((original, answer.annotator))
        names = {each.annotator for each in group}
        if len(names) == 1:
            self.alone[original] = names.pop()
        else:
            self.alone.pop(original, None)

    def _agree(self, group: list[_Given], sign: int) -> None:
        first: dict[str, _Given] = {}
        for given in group:
            if given.annotator in first:
                self.between[given.annotator, given.annotator][first[given.annotator].label, given.label] += sign
            else:
                first[given.annotator] = given
        names = sorted(first)
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                self.between[a, b][first[a].label, first[b].label] += sign

    def others_alone(self, annotator: str, most: int = 200) -> Iterator[uuid.UUID]:
        """The newest pairs that somebody else has answered alone, and this person was not asked about."""
        with self.lock:
            for pair, name in islice(reversed(self.alone.items()), most):
                if name != annotator and (pair, annotator) not in self.repeated:
                    yield pair

    def own_earlier(self, annotator: str, distance: int, most: int = 200) -> Iterator[uuid.UUID]:
        """Pairs that this person answered at least `distance` answers ago, and was not asked about again."""
        with self.lock:
            earlier = self.people[annotator].pairs[: -distance or None][-most:]
            for pair in earlier:
                if pair in self._groups and (pair, annotator) not in self.repeated:
                    yield pair

    def answers_of(self, annotator: str) -> int:
        """How many of a person's answers count."""
        with self.lock:
            return self.people[annotator].answers

    def asked_first(self, run: str | None) -> int:
        """How many answers to pairs (of one run) count that are no repetitions."""
        with self.lock:
            return self.by_run.total() if run is None else self.by_run[run]

    def median_seconds(self, annotator: str) -> float | None:
        """Of a person's answers."""
        values = self.people[annotator].seconds
        return values[len(values) // 2] if values else None

    def today(self, annotator: str, now: float) -> list[float]:
        """When a person gave the answers of the day that `now` is in."""
        times = self.people[annotator].today
        return times if times and date_of(times[-1]) == date_of(now) else []

    def rate_today(self, annotator: str, now: float) -> float | None:
        """A person's answers an hour of working time today; None before there are two."""
        times = self.today(annotator, now)
        gaps = [later - earlier for earlier, later in pairwise(times)]
        working = sum(gap for gap in gaps if gap <= PAUSE_SECONDS)
        counted = sum(gap <= PAUSE_SECONDS for gap in gaps)
        return counted / working * 3600 if working > 0 else None


def original_of(pair: Pair) -> uuid.UUID:
    """The pair that was asked about first, where this one asks once more."""
    repeats = pair.details.get("repeats")
    return pair.id if repeats is None else uuid.UUID(repeats)


def choice_of(label: Label, swapped: bool) -> str:
    """left, right, tie or skip: what was clicked."""
    shown = label.reversed if swapped else label
    return {Label.FIRST: "left", Label.SECOND: "right"}.get(shown, shown.value)


def label_of(choice: str, swapped: bool) -> Label:
    """The inverse of `choice_of`. Raises KeyError for other words."""
    label = {"left": Label.FIRST, "right": Label.SECOND, "tie": Label.TIE, "skip": Label.SKIP}[choice]
    return label.reversed if swapped else label


def date_of(time: float) -> str:
    """The local date, as ISO 8601 has it."""
    return datetime.fromtimestamp(time).date().isoformat()


def _put(values: list[float], value: float, sign: int) -> None:
    if sign > 0:
        insort(values, value)
    else:
        values.pop(bisect_left(values, value))
