"""Who is asked what on the labelling page, what becomes of answers, and the figures about them."""

import dataclasses
import itertools
import math
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from page_makers import add_drawn, drawn_store, text_store
from store_makers import fill, identifier, say

from preference.comparisons import Answer, Label, Pair
from preference.labelling.agreement import Agreement
from preference.labelling.lookup import NotThere
from preference.labelling.office import REPEAT_AFTER, Given, Office, swapped
from preference.labelling.settings import PageConfig
from preference.labelling.tally import Tally, choice_of, label_of
from preference.measures import wilson_interval
from preference.store import Store

NOW = 1_795_000_000.0
PLAIN = PageConfig(second_opinions=0, repeats=0)


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with drawn_store(tmp_path / "store.db", 6, frames=2, size=8) as opened:
        yield opened


def office_of(store: Store, clock: Clock, config: PageConfig = PLAIN) -> Office:
    store._clock = clock
    return Office(store, config, clock)


def numbers(answer: dict) -> list[int]:
    return [pair["pair"] for pair in answer["pairs"]]


def given(number: int, choice: str = "left", **fields: object) -> Given:
    return dataclasses.replace(Given(uuid.uuid4(), number, choice, 2.0, None), **fields)  # type: ignore[arg-type]


def answer_all(office: Office, who: str, choice: str = "left", most: int = 10_000) -> list[dict]:
    """Answer one pair after the other; what was shown."""
    shown = []
    while len(shown) < most and (pairs := office.next(who, 1, [])["pairs"]):
        shown.append(pairs[0])
        assert office.answer(who, given(pairs[0]["pair"], choice))[0] == "kept"
        office.clock.now += 2.0  # type: ignore[attr-defined]
    return shown


def test_people_get_different_pairs_and_a_reloaded_page_gets_its_own_again(store: Store, clock: Clock) -> None:
    office = office_of(store, clock)
    anns, bobs = numbers(office.next("ann", 3, [])), numbers(office.next("bob", 3, []))
    assert sorted(anns + bobs) == [1, 2, 3, 4, 5, 6]
    assert numbers(office.next("ann", 3, anns)) == []
    assert numbers(office.next("ann", 3, [])) == anns


def test_what_was_clicked_is_kept_by_its_side(store: Store, clock: Clock) -> None:
    office = office_of(store, clock)
    for choice in ("left", "right", "tie", "skip"):
        (shown,) = office.next("ann", 1, [])["pairs"]
        office.answer("ann", given(shown["pair"], choice, seconds=1.25))
        kept = store.comparisons().added[-1]
        ids = {office.lookup.clip_id(shown[side]["clip"]): side for side in ("left", "right")}
        assert (ids[kept.pair.first] == "right") is kept.answer.swapped
        expected = {"tie": Label.TIE, "skip": Label.SKIP}.get(choice)
        if expected is None:
            expected = Label.FIRST if ids[kept.pair.first] == choice else Label.SECOND
        assert kept.answer.label == expected
        assert kept.answer.seconds == 1.25


def test_sides_are_balanced_over_pairs_and_stay_for_a_person() -> None:
    pairs = fill_pairs(2000)
    sides = [swapped(pair, "ann") for pair in pairs]
    assert abs(sum(sides) - 1000) < 4 * math.sqrt(500)
    assert sides == [swapped(pair, "ann") for pair in pairs]
    agreeing = sum(a == swapped(pair, "bob") for a, pair in zip(sides, pairs, strict=True))
    assert abs(agreeing - 1000) < 4 * math.sqrt(500)


def fill_pairs(count: int) -> list[Pair]:
    return [Pair(uuid.UUID(int=n), identifier(1), identifier(2)) for n in range(count)]


def test_a_twentieth_comes_again_the_other_way_round_and_a_tenth_goes_to_a_second_person(
    tmp_path: Path, clock: Clock
) -> None:
    with drawn_store(tmp_path / "many.db", 400, frames=1, size=8) as store:
        office = office_of(store, clock, PageConfig(second_opinions=0.1, repeats=0.05))
        anns = answer_all(office, "ann", most=200)
        bobs = answer_all(office, "bob", most=200)
        found = [item.pair for item in store.comparisons().added]
    own = [pair for pair in found if pair.details.get("own")]
    second = [pair for pair in found if pair.details.get("own") is False]
    # 0.05 and 0.1 of 400, of which ann had no one's pairs to second for her 200; four deviations of a binomial count.
    assert abs(len(own) - 20) < 4 * math.sqrt(400 * 0.05 * 0.95)
    assert abs(len(second) - 20) < 4 * math.sqrt(200 * 0.1 * 0.9)
    assert {pair.details["reserved"] for pair in second} == {"bob"}
    ann_seen = {frozenset((pair["left"]["clip"], pair["right"]["clip"])) for pair in anns}
    assert any(frozenset((pair["left"]["clip"], pair["right"]["clip"])) in ann_seen for pair in bobs)
    for shown in (anns, bobs):
        before: dict[frozenset[int], tuple[int, int]] = {}
        for place, pair in enumerate(shown):
            clips = frozenset((pair["left"]["clip"], pair["right"]["clip"]))
            if clips in before:
                earlier, left = before[clips]
                assert place - earlier >= REPEAT_AFTER
                assert pair["left"]["clip"] != left
            before[clips] = (place, pair["left"]["clip"])


def test_repeated_questions_are_beside_the_queue_and_keep_nobody_waiting(tmp_path: Path, clock: Clock) -> None:
    with drawn_store(tmp_path / "few.db", 60, frames=1, size=8) as store:
        office = office_of(store, clock, PageConfig(second_opinions=0, repeats=0.5))
        answer_all(office, "ann", most=25)
        while not any(pair.details.get("own") for pair in store.leased("ann")):
            office.next("ann", 1, [])
            (pair,) = store.leased("ann")
            if not pair.details.get("own"):
                office.answer("ann", given(office.lookup.numbers([pair])[0]))
        waiting = len(store.open_pairs())
        assert all(pair.id not in {each.id for each in store.open_pairs()} for pair in store.leased("ann"))
        assert office.shared()["queue"] == waiting == store.progress().open


def test_an_answer_to_a_lease_that_ran_out_is_kept_and_marked(store: Store, clock: Clock) -> None:
    office = office_of(store, clock)
    (number,) = numbers(office.next("ann", 1, []))
    clock.now += PLAIN.lease_seconds + 1
    assert number in numbers(office.next("bob", 1, []))
    assert office.answer("ann", given(number)) == ("late", None)
    assert office.answer("bob", given(number, "tie"))[0] == "kept"
    late = {item.answer.annotator: item.answer.late for item in store.comparisons().added}
    assert late == {"ann": True, "bob": False}


def test_the_same_answer_twice_counts_once_and_a_second_one_is_refused(store: Store, clock: Clock) -> None:
    office = office_of(store, clock)
    (number,) = numbers(office.next("ann", 1, []))
    answer = given(number)
    assert [office.answer("ann", answer)[0] for _ in range(2)] == ["kept", "known"]
    status, reason = office.answer("ann", given(number, "right"))
    assert status == "refused"
    assert reason is not None
    assert "has answered the pair" in reason
    assert office.answer("ann", given(9999)) == ("refused", "There is no pair 9999.")
    assert office.tally.refresh()
    assert office.tally.total == 1


def test_undo_goes_back_over_twenty_answers_and_each_pair_is_the_persons_again(tmp_path: Path, clock: Clock) -> None:
    with drawn_store(tmp_path / "many.db", 30, frames=1, size=8) as store:
        office = office_of(store, clock)
        shown = answer_all(office, "ann", most=25)
        for pair in reversed(shown):
            result = office.undo("ann", uuid.uuid4())
            assert result["undone"]["pair"] == pair["pair"] == result["pair"]["pair"]
            assert result["pair"]["left"] == pair["left"]
            office.release("ann", [pair["pair"]])
        assert office.undo("ann", uuid.uuid4()) == {"undone": None, "pair": None}
        assert store.progress().answered == 0


def test_nobody_else_can_be_given_what_is_being_taken_back(store: Store, clock: Clock) -> None:
    office = office_of(store, clock)
    (number,) = numbers(office.next("ann", 1, []))
    office.answer("ann", given(number))
    undone = office.undo("ann", uuid.uuid4())
    assert undone["pair"]["pair"] == number
    assert number not in [pair for who in ("bob", "cleo") for pair in numbers(office.next(who, 5, []))]
    other = [pair.id for pair in store.leased("ann")]
    assert office.lookup.numbers(store.pairs(other)) == [number]


def test_an_answer_is_revised_as_it_was_shown_then(store: Store, clock: Clock) -> None:
    office = office_of(store, clock)
    for pair in store.open_pairs()[:4]:  # as an import has them: shown by somebody else's draw
        store.answer(say(pair, Label.FIRST, swapped=not swapped(pair, "ann")))
    for entry in office.history("ann", None, 10)["answers"]:
        again = given(entry["pair"]["pair"], entry["choice"], supersedes=uuid.UUID(entry["id"]))
        assert office.answer("ann", again)[0] == "kept"
        assert office.pair(entry["pair"]["pair"], "ann")["left"] == entry["pair"]["left"]
    assert [item.answer.label for item in store.comparisons().added] == [Label.FIRST] * 4


def test_others_get_a_pair_when_its_holder_was_told_so(store: Store, clock: Clock) -> None:
    office = office_of(store, clock)
    told = office.next("ann", 1, [])["pairs"][0]
    clock.now += PLAIN.lease_seconds / 5
    told = office.next("ann", 1, [])["pairs"][0]  # reloaded
    clock.now = told["expires"] - 1
    assert told["pair"] not in numbers(office.next("bob", 6, []))
    assert office.answer("ann", given(told["pair"]))[0] == "kept"


def test_a_clip_that_is_gone_is_asked_about_no_more_and_reported(store: Store, clock: Clock) -> None:
    from sqlalchemy import delete

    from preference import schema

    office = office_of(store, clock)
    shown = office.next("ann", 2, [])["pairs"]
    clip = shown[0]["left"]["clip"]
    office.missing("ann", shown[0]["pair"], clip)  # it is there: the page was wrong
    assert office.problems == []
    with store.database.write() as connection:
        connection.execute(delete(schema.sheets).where(schema.sheets.c.clip == office.lookup.clip_id(clip)))
    office.missing("ann", shown[0]["pair"], clip)
    assert office.problems == [f"The frames of clip {clip} are not there. A question about it was left out."]
    assert shown[0]["pair"] not in numbers(office.next("ann", 3, []))
    with pytest.raises(NotThere, match="is not in pair"):
        office.missing("ann", shown[1]["pair"], clip)


def test_nothing_that_would_sway_an_answer_is_shown(store: Store, clock: Clock) -> None:
    office = office_of(store, clock)
    (pair,) = office.next("ann", 1, [])["pairs"]
    assert pair.keys() == {"pair", "left", "right", "expires"}
    frames = {"clip", "sheet", "video", "frames", "fps", "width", "height", "columns"}
    assert pair["left"].keys() == pair["right"].keys() == frames


def test_texts_come_with_their_prompt_and_without_anything_else(tmp_path: Path, clock: Clock) -> None:
    with text_store(tmp_path / "texts.db", [("Why?", "Because.", "<b>So</b>")]) as store:
        (pair,) = office_of(store, clock).next("ann", 1, [])["pairs"]
    assert pair["prompt"] == "Why?"
    assert {pair["left"]["text"], pair["right"]["text"]} == {"Because.", "<b>So</b>"}
    assert pair["left"].keys() == {"clip", "text"}


def test_an_empty_queue_says_why_and_when_it_goes_on(store: Store, clock: Clock) -> None:
    office = office_of(store, clock)
    answer_all(office, "ann")
    assert office.next("ann", 3, [])["empty"]["reason"] == "Everything that was asked is answered."
    status = {"phase": "training", "sentence": "The agent trains.", "next_questions": NOW + 90, "labels": 50}
    store.set_status("run", status)
    empty = office.next("ann", 3, [])["empty"]
    assert (empty["reason"], empty["expected"]) == ("The agent trains.", NOW + 90)
    shared = office.shared()
    assert (shared["target"], shared["done"]) == (50, 6)
    clock.now += 1
    store.set_status("another", {**status, "sentence": None})
    assert office.shared()["done"] == 0  # of this run's
    assert office.next("ann", 3, [])["empty"]["reason"] == "There is a training."
    clock.now += 1
    store.set_status("run", status)
    clock.now += 31
    trainer = office.trainer()
    assert trainer is not None
    assert trainer["stale"]
    assert trainer["next_questions"] is None
    store.set_status("run", {**status, "phase": "finished"})
    clock.now += 31
    trainer = office.trainer()
    assert trainer is not None
    assert not trainer["stale"]


def test_pairs_whose_frames_are_not_drawn_yet_wait(store: Store, clock: Clock, tmp_path: Path) -> None:
    with Store.open(tmp_path / "undrawn.db", store.task) as undrawn:
        fill(undrawn, 1)
        undrawn.set_status("run", {"phase": "training", "sentence": "…", "labels": 1})
        empty = office_of(undrawn, clock).next("ann", 1, [])["empty"]
        office = office_of(undrawn, clock)
        undrawn.set_status("run", {"phase": "finished", "sentence": "…", "labels": 1})
        assert "is not running" in office.next("ann", 1, [])["empty"]["reason"]
    assert empty["reason"] == "The next clips are being drawn."


def test_who_finds_the_last_pairs_in_others_hands_is_told_so(store: Store, clock: Clock) -> None:
    office = office_of(store, clock)
    office.next("ann", 6, [])
    assert office.next("bob", 1, [])["empty"]["reason"] == "Others have the last pairs in hand."


def test_history_is_newest_first_in_pages_and_can_be_revised(store: Store, clock: Clock) -> None:
    office = office_of(store, clock)
    shown = answer_all(office, "ann")
    first = office.history("ann", None, 4)
    rest = office.history("ann", first["before"], 4)
    listed = [entry["pair"]["pair"] for entry in first["answers"] + rest["answers"]]
    assert listed == [pair["pair"] for pair in reversed(shown)]
    assert rest["before"] is None
    entry = first["answers"][0]
    assert entry["pair"]["left"] == shown[-1]["left"]
    revised = given(entry["pair"]["pair"], "right", supersedes=uuid.UUID(entry["id"]))
    assert office.answer("ann", revised) == ("kept", None)
    assert office.history("ann", None, 1)["answers"][0]["choice"] == "right"
    with pytest.raises(NotThere):
        office.pair(shown[0]["pair"], "bob")


def random_history(store: Store, look: Callable[[], object]) -> None:
    """Three people answer, change their minds and take answers back, at random; now and then somebody looks."""
    generator = np.random.default_rng(0)
    pairs = add_drawn(store, range(6, 26), frames=1, size=8)
    standing: dict[tuple[uuid.UUID, str], Answer] = {}
    for step in range(150):
        pair, who = pairs[generator.integers(len(pairs))], str(generator.choice(["ann", "bob", "cleo"]))
        label = list(Label)[generator.integers(4)]
        old = standing.get((pair.id, who))
        seconds = float(generator.integers(1, 50))
        answer = Answer(
            uuid.uuid4(), pair.id, who, label, bool(generator.integers(2)), seconds, None if old is None else old.id,
            NOW + step,
        )  # fmt: skip
        store.answer(answer)
        standing[pair.id, who] = answer
        if generator.random() < 0.2 and (undone := store.undo(who)) is not None:
            standing.pop((undone.pair, who), None)
        if step % 7 == 0:
            look()


def test_counting_as_answers_come_gives_what_counting_them_all_gives(store: Store, clock: Clock) -> None:
    followed = Tally(store)
    random_history(store, followed.refresh)
    followed.refresh()
    whole = Tally(store)
    whole.refresh()
    found = store.comparisons().added
    assert whole.total == followed.total == len(found)
    for tally in (followed, whole):
        for who in ("ann", "bob", "cleo"):
            own = [item.answer for item in found if item.answer.annotator == who]
            person = tally.people[who]
            assert person.answers == len(own)
            assert +person.choices == Counter(choice_of(a.label, a.swapped) for a in own)
            assert person.seconds == sorted(a.seconds for a in own)
        by_pair: dict[uuid.UUID, dict[str, Label]] = {}
        for item in found:
            by_pair.setdefault(item.pair.id, {})[item.answer.annotator] = item.answer.label
        for a, b in itertools.combinations(("ann", "bob", "cleo"), 2):
            table = Counter((said[a], said[b]) for said in by_pair.values() if a in said and b in said)
            assert +tally.between[a, b] == table
        assert set(tally.alone) == {pair for pair, said in by_pair.items() if len(said) == 1}


def test_cohens_kappa_is_that_of_a_worked_table() -> None:
    # 50 pairs: 20 + 15 + 0 agree, 35 / 50 = 0.7; chance (25·30 + 25·20)/2500 = 0.5; kappa 0.4.
    first, second = Label.FIRST, Label.SECOND
    table = {(first, first): 20, (first, second): 5, (second, first): 10, (second, second): 15, (first, Label.SKIP): 9}
    agreement = Agreement.of(table)
    assert (agreement.pairs, agreement.share) == (50, 0.7)
    assert agreement.kappa == pytest.approx(0.4)
    # Wilson's interval of 35 of 50 is 0.5625 to 0.8090: (0.5625 − 0.5)/0.5 and (0.8090 − 0.5)/0.5.
    assert agreement.interval == pytest.approx((0.125, 0.618), abs=1e-3)
    few = Agreement.of({(first, first): 1, (second, second): 1})
    assert few.kappa == 1
    assert few.interval[0] < 0  # two pairs that agree say little
    assert math.isnan(Agreement.of({(first, first): 5}).kappa)
    assert Agreement.of({}).pairs == 0


def test_kappa_agrees_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 3, (2, 200))
    labels = (Label.FIRST, Label.SECOND, Label.TIE)
    table = Counter((labels[i], labels[j]) for i, j in zip(a, b, strict=True))
    assert Agreement.of(table).kappa == pytest.approx(metrics.cohen_kappa_score(a, b))


def test_figures_tell_a_habit_of_clicking_left_and_agreement_with_oneself(store: Store, clock: Clock) -> None:
    office = office_of(store, clock)
    shown = answer_all(office, "ann", "left")
    original = store.comparisons().added[0].pair
    details = {"repeats": str(original.id), "reserved": "ann", "own": True}
    store.ask([Pair(identifier(77), original.first, original.second, details=details)])
    answer_all(office, "ann", "left")  # the other way round now: she contradicts herself
    figures = office.statistics()
    (person,) = figures["people"]
    assert person["answers"] == len(shown) + 1 == 7
    assert person["left_share"] == 1.0
    assert tuple(person["left_interval"]) == wilson_interval(7, 7)
    assert (person["self_pairs"], person["self_agreement"]) == (1, 0.0)
    assert figures["by_choice"] == {"left": 7, "right": 0, "tie": 0, "skip": 0}
    assert sum(figures["seconds_histogram"]["counts"]) == 7
    assert figures["by_day"] == [[time.strftime("%Y-%m-%d", time.localtime(NOW)), 7]]


def test_a_rate_counts_working_time_and_no_pauses(store: Store, clock: Clock) -> None:
    pairs = store.open_pairs()
    for place, moment in enumerate((0, 10, 20, 500, 510)):
        store.answer(dataclasses.replace(say(pairs[place]), created=NOW + moment))
    office = office_of(store, clock)
    # Three gaps of ten seconds; the fourth is a pause.
    assert office.personal("ann")["rate_today"] == pytest.approx(3 / 30 * 3600)
    clock.now += 48 * 3600
    assert office.personal("ann")["today"] == 0
    assert office.personal("nobody")["rate_today"] is None


def test_labels_and_choices_are_inverse() -> None:
    for label, side in itertools.product(Label, (False, True)):
        assert label_of(choice_of(label, side), side) == label
