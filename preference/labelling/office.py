"""Who is asked what, and what they say: everything behind the page but its network.

About a tenth of the questions go to a second person, and a twentieth to the same person once more with the sides
exchanged. Sides are drawn from the ids of pair and person, so that they are the same whenever the pair is shown again,
and balanced over pairs.
"""

import hashlib
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from envs.errors import RllabError
from preference.comparisons import Answer, Pair
from preference.labelling.lookup import Lookup, NotThere
from preference.labelling.settings import PageConfig
from preference.labelling.statistics import statistics_of
from preference.labelling.tally import Tally, choice_of, date_of, label_of, original_of
from preference.sheets import decode_sheet
from preference.store import Store, StoreUnavailable

REPEAT_AFTER = 20
"""Answers of the same person before a pair may come once more: by then nobody remembers."""
MOST_IN_HAND = 8
ACTIVE_SECONDS = 300.0
"""After which a person who has not been heard of is not counted as labelling."""
ENDED = ("finished", "stopped")
"""Phases of a training that will not say more."""
STALE_SECONDS = 30.0
"""After which a training that has said nothing may have died."""
_FIRST_ON_THE_QUEUE = 1e6
"""Priority of a repetition, which is made for whoever is asking now."""

Status = Literal["kept", "known", "late", "refused"]


@dataclass(frozen=True)
class Given:
    """An answer as the page sends it."""

    id: uuid.UUID
    pair: int
    choice: str
    seconds: float | None
    supersedes: uuid.UUID | None


class Office:
    """Hands out questions and takes answers. Its methods may be called from several threads."""

    def __init__(self, store: Store, config: PageConfig, clock: Callable[[], float] = time.time) -> None:
        self.store, self.config, self.clock = store, config, clock
        self.lookup = Lookup(store)
        self.tally = Tally(store)
        self.tally.refresh()
        self.problems: list[str] = []
        """What people should know of, such as clips that are gone."""
        self._seen: dict[str, float] = {}
        self._draws: dict[str, int] = {}
        """How many pairs each person has been given, those before this process among them."""
        self._renewed: dict[str, float] = {}
        """When each person's leases were last made longer."""
        self._leases: dict[tuple[str, int], float] = {}
        """Until when a person has a pair, as far as this process has leased it."""
        self._run = ""
        """The training that was heard of last."""
        self._personal: dict[str, tuple[tuple[int, str], dict[str, Any]]] = {}
        self._figures: tuple[int, str, dict[str, Any]] | None = None

    # Questions.

    def next(self, annotator: str, want: int, have: Sequence[int]) -> dict[str, Any]:
        """Pairs for a person, up to `want` with those of the numbers `have`; and why there are none, if so."""
        self._see(annotator)
        now = self.clock()
        until = now + self.config.lease_seconds
        held = self.store.leased(annotator, now)
        numbers = self.lookup.numbers(held)
        due = now - self._renewed.get(annotator, 0.0) > self.config.lease_seconds / 4
        if held and (due or not set(numbers) <= set(have)):
            self.store.renew(annotator, self.config.lease_seconds, now)
            self._renewed[annotator] = now
            self._leases.update({(annotator, number): until for number in numbers})
        shown: list[dict[str, Any]] = []
        for pair, number in zip(held, numbers, strict=True):
            if number not in have:
                self._show(pair, annotator, until, shown)
        there = len(held)
        while (lacking := min(want, MOST_IN_HAND) - there) > 0:
            drawn = self._draw(annotator, lacking, now)
            there += sum(self._show(pair, annotator, until, shown) for pair in drawn)
            if len(drawn) < lacking:
                break
        return {"pairs": shown, "empty": None if there else self._empty()}

    def _show(self, pair: Pair, annotator: str, until: float, shown: list[dict[str, Any]]) -> bool:
        try:
            document = self.lookup.shown(pair, swapped=swapped(pair, annotator), expires=until)
            shown.append(document)
            self._leases[annotator, document["pair"]] = until
            return True
        except StoreUnavailable:
            raise
        except (NotThere, RllabError) as error:
            self._drop(pair, str(error))
            return False

    def _draw(self, annotator: str, count: int, now: float) -> list[Pair]:
        """Lease the next pairs to a person, at most `count`."""
        for _ in range(count):
            number = self._draws.get(annotator, self.tally.answers_of(annotator))
            self._draws[annotator] = number + 1
            draw = _uniform(f"{annotator} {number}")
            if draw < self.config.repeats + self.config.second_opinions:
                self.tally.refresh()
                own = draw < self.config.repeats
                earlier = self.tally.own_earlier(annotator, REPEAT_AFTER) if own else self.tally.others_alone(annotator)
                if known := list(earlier):
                    chosen = known[int(_uniform(f"{annotator} {number} which") * len(known))]
                    self._ask_again(chosen, annotator, own)
        drawn = not self.lookup.texts
        return self.store.lease_several(annotator, count, self.config.lease_seconds, now, drawn=drawn)

    def _ask_again(self, original: uuid.UUID, annotator: str, own: bool) -> None:
        (pair,) = self.store.pairs([original])
        details = {"repeats": str(pair.id), "reserved": annotator, "own": own}
        strategy = "repetition" if own else "second opinion"
        identifier = uuid.uuid5(pair.id, f"again {annotator}")
        again = Pair(identifier, pair.first, pair.second, pair.run, strategy, _FIRST_ON_THE_QUEUE, details)
        self.store.ask([again])

    def _empty(self) -> dict[str, Any]:
        """Why there is nothing to answer, and when there may be."""
        self.tally.refresh()
        trainer = self.trainer()
        running = trainer is not None and not trainer["stale"] and trainer["phase"] not in ENDED
        reason, expected, retry = "Nothing has been asked yet.", None, 2.0
        if self.lookup.open_count():
            undrawn = not self.lookup.texts and bool(self.store.clips_without_sheet(1))
            if undrawn and running:
                reason, retry = "The next clips are being drawn.", 0.5
            elif undrawn:
                reason, retry = (
                    "The next clips are not drawn yet, and the training that draws them is not running.",
                    5.0,
                )
            else:
                reason = "Others have the last pairs in hand."
        elif trainer is not None:
            reason, expected, retry = trainer["sentence"], trainer["next_questions"], 1.0
        elif self.tally.total:
            reason = "Everything that was asked is answered."
        return {"reason": reason, "expected": expected, "retry": retry}

    def pair(self, number: int, annotator: str) -> dict[str, Any]:
        """A pair that a person has in hand or has answered. Raises NotThere."""
        pair = self.lookup.pair(number)
        if (said := self.lookup.standing_answer(annotator, pair.id)) is not None:
            return self.lookup.shown(pair, swapped=said.swapped)
        if pair.id not in {each.id for each in self.store.leased(annotator, self.clock())}:
            raise NotThere(f"Pair {number} is not yours to look at.")
        return self.lookup.shown(pair, swapped=swapped(pair, annotator))

    def release(self, annotator: str, numbers: Sequence[int]) -> int:
        """Put pairs back; how many."""
        held = self.store.leased(annotator, self.clock())
        back = [pair for pair, number in zip(held, self.lookup.numbers(held), strict=True) if number in numbers]
        for pair in back:
            self.store.release(pair, annotator)
            self._leases.pop((annotator, self.lookup.numbers([pair])[0]), None)
        return len(back)

    def missing(self, annotator: str, number: int, clip: int) -> None:
        """A page could not load a clip: if it is really gone, nobody is asked about it any more. Raises NotThere."""
        pair = self.lookup.pair(number)
        identifier = self.lookup.clip_id(clip)
        if identifier not in (pair.first, pair.second):
            raise NotThere(f"Clip {clip} is not in pair {number}.")
        try:
            decode_sheet(*self.lookup.sheet(clip))
        except StoreUnavailable:
            raise
        except (NotThere, RllabError) as error:
            self._drop(pair, str(error))

    def _drop(self, pair: Pair, problem: str) -> None:
        self.store.withdraw([pair.id])
        sentence = f"{problem} A question about it was left out."
        if sentence not in self.problems:
            self.problems.append(sentence)

    # Answers.

    def answer(self, annotator: str, given: Given) -> tuple[Status, str | None]:
        """Keep an answer; what became of it, and why it was refused."""
        self._see(annotator)
        try:
            pair = self.lookup.pair(given.pair)
        except NotThere as error:
            return "refused", str(error)
        side, late = swapped(pair, annotator), False
        if given.supersedes is not None:
            # It was looked at as it was shown then, which an import or another program may have done otherwise.
            old = self.lookup.standing_answer(annotator, pair.id)
            side = side if old is None else old.swapped
        elif self._leases.pop((annotator, given.pair), 0.0) < self.clock():
            # A lease of before this process began is known to the store alone.
            late = pair.id not in {each.id for each in self.store.leased(annotator, self.clock())}
        answer = Answer(
            given.id, pair.id, annotator, label_of(given.choice, side), side, given.seconds, given.supersedes,
            self.clock(), late,
        )  # fmt: skip
        try:
            if not self.store.answer(answer):
                return "known", None
        except StoreUnavailable:
            raise
        except RllabError as error:
            return "refused", str(error)
        return "late" if late else "kept", None

    def undo(self, annotator: str, identifier: uuid.UUID) -> dict[str, Any]:
        """Take back a person's last answer; the pair is theirs again."""
        self._see(annotator)
        now = self.clock()
        undone = self.store.undo(annotator, identifier, lease_seconds=self.config.lease_seconds, now=now)
        if undone is None:
            return {"undone": None, "pair": None}
        (pair,) = self.store.pairs([undone.pair])
        assert undone.label is not None
        held = pair.id in {each.id for each in self.store.leased(annotator, now)}
        shown: list[dict[str, Any]] = []
        if held:
            self._show(pair, annotator, now + self.config.lease_seconds, shown)
        (number,) = self.lookup.numbers([pair])
        choice = choice_of(undone.label, undone.swapped)
        return {
            "undone": {"id": str(undone.id), "pair": number, "choice": choice}, "pair": shown[0] if shown else None,
        }  # fmt: skip

    def history(self, annotator: str, before: int | None, count: int) -> dict[str, Any]:
        """A person's answers that count, the newest first; `before` goes on from an earlier call."""
        found = self.lookup.history(annotator, before, count)
        documents = []
        for _, answer, pair in found:
            assert answer.label is not None
            try:
                shown = self.lookup.shown(pair, swapped=answer.swapped)
            except StoreUnavailable:
                raise
            except (NotThere, RllabError):
                continue
            documents.append({
                "id": str(answer.id), "choice": choice_of(answer.label, answer.swapped), "seconds": answer.seconds,
                "created": answer.created, "late": answer.late, "pair": shown,
            })  # fmt: skip
        return {"answers": documents, "before": found[-1][0] if len(found) == count else None}

    # Figures.

    def statistics(self) -> dict[str, Any]:
        """The figures of all answers."""
        self.tally.refresh()
        day = time.strftime("%Y-%m-%d", time.localtime(self.clock()))
        if self._figures is None or self._figures[:2] != (self.tally.version, day):
            self._figures = (self.tally.version, day, statistics_of(self.tally, self.clock()))
        return self._figures[2]

    def trainer(self) -> dict[str, Any] | None:
        """What the training that was heard of last says of itself; None if there was none."""
        run, status = next(iter(self.store.statuses().items()), ("", None))
        if status is None:
            return None
        self._run = run
        known = ("phase", "sentence", "step", "steps", "asked", "labels", "next_questions", "accuracy", "progress")
        stale = status.get("phase") not in ENDED and self.clock() - status["updated"] > STALE_SECONDS
        shown = {name: status.get(name) for name in known} | {"stale": stale}
        shown["sentence"] = shown["sentence"] or "There is a training."
        if stale:
            shown["sentence"], shown["next_questions"] = "Nothing has been heard of the training for a while.", None
        return shown

    def shared(self) -> dict[str, Any]:
        """The part of the status that is the same for everybody."""
        self.tally.refresh()
        now, trainer = self.clock(), self.trainer()
        target = self.config.target if self.config.target is not None or trainer is None else trainer["labels"]
        done = self.tally.asked_first(self._run if trainer is not None else None)
        active = sum(now - seen < ACTIVE_SECONDS for seen in self._seen.values())
        return {
            "done": done, "target": target, "goal": self.config.goal, "queue": self.lookup.open_count(),
            "people": active, "trainer": trainer, "problems": self.problems[-5:],
        }  # fmt: skip

    def personal(self, annotator: str) -> dict[str, Any]:
        """The part that is a person's own."""
        now = self.clock()
        state = self.tally.version, date_of(now)
        known = self._personal.get(annotator)
        if known is None or known[0] != state:  # ten times a second for everybody who listens
            with self.tally.lock:
                figures = {
                    "today": len(self.tally.today(annotator, now)), "rate_today": self.tally.rate_today(annotator, now),
                    "median_seconds": self.tally.median_seconds(annotator),
                }  # fmt: skip
            known = self._personal[annotator] = (state, figures)
        return known[1]

    def _see(self, annotator: str) -> None:
        self._seen[annotator] = self.clock()


def swapped(pair: Pair, annotator: str) -> bool:
    """Whether a person is shown the second clip on the left; of a repetition, the other way round than before."""
    original = original_of(pair)
    side = _uniform(f"{original} {annotator}") < 0.5
    return side != bool(pair.details.get("own", False))


def _uniform(text: str) -> float:
    """A number in [0, 1) that looks random, and is the same for the same text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
