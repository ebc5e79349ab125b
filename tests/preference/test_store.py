"""What a store promises, in SQLite and in PostgreSQL alike."""

import dataclasses
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import delete, update
from sqlalchemy.exc import DBAPIError
from store_makers import TASK, Server, Unstartable, fill, identifier, make_clip, postgresql_server, say

from envs.errors import RllabError
from preference import schema
from preference.comparisons import Clip, Label, Pair
from preference.store import Changes, Store, Task


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    try:
        with postgresql_server() as started:
            yield started
    except Unstartable as reason:
        pytest.skip(f"no PostgreSQL server can be started: {reason}")


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    return str(request.getfixturevalue("server").new_database())


@pytest.fixture
def store(where: str) -> Iterator[Store]:
    with Store.open(where, TASK, timeout=5, clock=lambda: 100.0) as opened:
        yield opened


def labels(changes: Changes) -> list[tuple[uuid.UUID, Label | None]]:
    return [(comparison.pair.id, comparison.answer.label) for comparison in changes.added]


def test_a_store_is_found_again_with_its_task_and_all_that_was_put_into_it(where: str) -> None:
    clip = make_clip(1)
    with Store.open(where, TASK) as store:
        pair = fill(store, 1, strategy="uniform", priority=0.1, details={"spread": 1 / 3})[0]
        answer = say(pair, Label.TIE, seconds=0.1, swapped=True)
        store.answer(answer)
        url = store.url
    with Store.open(url) as store:
        assert store.task == TASK
        (found,) = store.clips([clip.id])
        assert found.arrays.keys() == clip.arrays.keys()
        for name, array in clip.arrays.items():
            assert found.arrays[name].dtype == array.dtype
            assert np.array_equal(found.arrays[name], array)
        assert dataclasses.replace(found, arrays={}) == dataclasses.replace(clip, arrays={})
        (comparison,) = store.comparisons().added
        assert (comparison.pair, comparison.answer) == (pair, answer)
        assert comparison.preference == 0.5


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (dataclasses.replace(TASK, environment="Acrobot-v1"), "environment 'CartPole-v1', not of 'Acrobot-v1'"),
        (Task("CartPole-v1", "texts"), "it is of clips, not of texts"),
        (dataclasses.replace(TASK, observation={"shape": [6], "dtype": "float32"}), r"shape \[4\], not \[6\]"),
        (dataclasses.replace(TASK, observation={"shape": [4], "dtype": "float64"}), "dtype float32, not float64"),
        (dataclasses.replace(TASK, action={"shape": [], "dtype": "int64", "n": 3}), "actions have n 2, not 3"),
    ],
)
def test_a_store_of_another_task_is_refused(store: Store, other: Task, sentence: str) -> None:
    with pytest.raises(RllabError, match=sentence):
        Store.open(store.url, other)


def test_a_store_of_another_version_is_refused_with_both_versions(store: Store) -> None:
    with store.database.write() as connection:
        connection.execute(update(schema.meta).where(schema.meta.c.name == "version").values(value="99"))
    with pytest.raises(RllabError, match="has version 99, but this rllab reads version 2"):
        Store.open(store.url)


def test_a_store_of_the_first_version_is_brought_up_to_date_with_all_its_answers(store: Store) -> None:
    first, second = fill(store, 2)
    given = say(first)
    store.answer(given)
    with store.database.write() as connection:
        connection.execute(update(schema.meta).where(schema.meta.c.name == "version").values(value="1"))
        schema.statuses.drop(connection)
        connection.exec_driver_sql("ALTER TABLE pairs DROP COLUMN reserved")
        connection.exec_driver_sql("ALTER TABLE answers DROP COLUMN late")
    with Store.open(store.url) as upgraded:
        assert [comparison.answer for comparison in upgraded.comparisons().added] == [given]
        assert upgraded.lease("bob") == second
        upgraded.set_status("run", {"step": 3})
        late = say(second, late=True)
        upgraded.answer(late)
        assert upgraded.comparisons().added[-1].answer == late
    with Store.open(store.url) as again:  # an up-to-date one now
        assert again.statuses()["run"]["step"] == 3


def test_a_reserved_pair_is_asked_of_one_person_and_nobody_waits_for_it(store: Store) -> None:
    (pair,) = fill(store, 1)
    repetition = Pair(identifier(500), pair.first, pair.second, details={"repeats": str(pair.id), "reserved": "ann"})
    store.ask([repetition])
    store.answer(say(pair, annotator="bob"))
    assert store.open_pairs() == []
    assert store.progress().open == 0
    assert store.lease("bob") is None
    assert store.lease("ann") == repetition
    store.answer(say(repetition))
    assert labels(store.comparisons()) == [(pair.id, Label.FIRST), (repetition.id, Label.FIRST)]
    with pytest.raises(RllabError, match="is reserved for 7: give the name"):
        store.ask([Pair(identifier(501), pair.first, pair.second, details={"reserved": 7})])


def test_only_pairs_whose_frames_are_drawn_are_leased_where_that_is_asked_for(store: Store) -> None:
    first, second = fill(store, 2)
    store.set_sheet(first.first, b"1", {})
    for clip in (second.first, second.second):
        store.set_sheet(clip, b"1", {})
    assert store.lease("ann", drawn=True) == second
    assert store.lease("ann", drawn=True) is None
    assert store.lease("ann") == first


def test_a_renewed_lease_holds_longer_and_one_that_has_run_out_is_not_renewed(store: Store) -> None:
    first, second = fill(store, 2)
    store.lease("ann", 10.0, now=0.0)
    store.lease("ann", 100.0, now=0.0)
    assert store.renew("ann", 50.0, now=20.0) == 1
    assert store.leased("ann", now=60.0) == [second]
    assert store.lease("bob", now=60.0) == first


def test_whether_an_answer_came_late_is_kept_and_a_retry_of_it_need_not_agree(store: Store) -> None:
    (pair,) = fill(store, 1)
    answer = say(pair, late=True)
    store.answer(answer)
    assert store.answer(dataclasses.replace(answer, late=False)) == 0
    assert store.comparisons().added[0].answer.late


def test_each_run_has_the_status_that_it_gave_last(where: str) -> None:
    times = iter([10.0, 20.0, 30.0, 40.0])
    with Store.open(where, TASK, clock=lambda: next(times)) as store:
        assert store.statuses() == {}
        store.set_status("one", {"step": 1})
        store.set_status("other", {"step": 5})
        store.set_status("one", {"step": 2})
        assert list(store.statuses().items()) == [
            ("one", {"step": 2, "updated": 30.0}), ("other", {"step": 5, "updated": 20.0}),
        ]  # fmt: skip
        with pytest.raises(RllabError):
            store.set_status("one", {"step": object()})


def test_where_there_is_no_store_and_no_task_nothing_is_made(where: str) -> None:
    for _ in range(2):
        with pytest.raises(RllabError, match="There is no store at"):
            Store.open(where)


def test_a_clip_that_does_not_fit_is_named_and_none_of_its_companions_is_kept(store: Store) -> None:
    good, bad = make_clip(1), make_clip(2)
    for name, array, problem in [
        ("observations", bad.arrays["observations"][:, :3], r"observations have the shape \[3\] a step, not \[4\]"),
        ("observations", bad.arrays["observations"].astype(np.float64), "observations are float64, not float32"),
        ("observations", bad.arrays["observations"][:2], r"observations have the shape \[2, 4\], but it has 5 actions"),
        ("actions", bad.arrays["actions"] + 1, "actions are not all among 0 … 1"),
    ]:
        wrong = dataclasses.replace(bad, arrays={**bad.arrays, name: array})
        with pytest.raises(RllabError, match=f"clip {bad.id} does not fit the task: its {problem}"):
            store.add_clips([good, wrong])
    with pytest.raises(RllabError, match=f"clip {bad.id} .* it has no observations and no actions"):
        store.add_clips([good, dataclasses.replace(bad, arrays={})])
    assert store.progress().clips == 0


def test_adding_a_clip_again_changes_nothing_and_another_under_its_id_is_refused(store: Store) -> None:
    assert store.add_clips([make_clip(1), make_clip(1)]) == 1
    assert store.add_clips([make_clip(1)]) == 0
    with pytest.raises(RllabError, match="another clip with the id"):
        store.add_clips([dataclasses.replace(make_clip(2), id=identifier(1))])


def test_an_array_that_lies_transposed_in_memory_is_kept_as_it_is_seen(store: Store) -> None:
    clip = make_clip(1)
    observations = np.asfortranarray(clip.arrays["observations"])
    store.add_clips([dataclasses.replace(clip, arrays={**clip.arrays, "observations": observations})])
    assert np.array_equal(store.clips([clip.id])[0].arrays["observations"], observations)


def test_clips_come_in_the_order_in_which_they_are_wanted(store: Store) -> None:
    store.add_clips(make_clip(number) for number in range(1, 200))
    wanted = [identifier(number) for number in (150, 3, 3, 77)]
    assert [clip.id for clip in store.clips(wanted)] == wanted
    with pytest.raises(RllabError, match=f"no clip {identifier(999)}"):
        store.clips([identifier(999)])


def test_a_store_of_texts_keeps_prompts_and_responses(where: str) -> None:
    with Store.open(where, Task("", "texts")) as store:
        text = Clip(identifier(1), {}, details={"prompt": "2 + 2 =", "response": "4 \0 \ud800 ½"})
        store.add_clips([text])
        assert store.clips([text.id])[0].details == text.details
        with pytest.raises(RllabError, match="no text response"):
            store.add_clips([dataclasses.replace(text, id=identifier(2), details={"prompt": ""})])


def test_a_pair_of_unknown_or_equal_clips_is_refused(store: Store) -> None:
    fill(store, 1)
    with pytest.raises(RllabError, match="which the store does not have"):
        store.ask([Pair(uuid.uuid4(), identifier(1), identifier(99))])
    with pytest.raises(RllabError, match="with itself"):
        store.ask([Pair(uuid.uuid4(), identifier(1), identifier(1))])


def test_pairs_are_leased_by_priority_then_by_age(store: Store) -> None:
    old, new = fill(store, 2)
    urgent = dataclasses.replace(new, id=identifier(5000), priority=1.0)
    store.ask([urgent])
    assert [pair.id for pair in store.open_pairs()] == [urgent.id, old.id, new.id]
    leased = [store.lease(name, seconds) for name, seconds in (("ann", 1), ("bob", 2), ("ann", 3), ("ann", 4))]
    assert leased == [urgent, old, new, None]
    assert store.leased("ann") == [urgent, new]


def test_a_lease_ends_by_its_time_by_release_and_by_an_answer(store: Store) -> None:
    (pair,) = fill(store, 1)
    assert store.lease("ann", seconds=10, now=0) == pair
    assert store.lease("bob", seconds=10, now=9.9) is None
    assert store.lease("bob", seconds=10, now=10) == pair
    store.release(pair, "bob")
    assert store.lease("cleo", seconds=10, now=11) == pair
    assert store.progress(now=11).leased == 1
    store.answer(say(pair, annotator="cleo"))
    assert store.progress(now=11).leased == 0
    assert store.lease("ann", now=1000) is None


def test_a_pair_that_wants_two_people_goes_to_two_different_ones(store: Store) -> None:
    (pair,) = fill(store, 1, details={"wanted": 2})
    assert store.lease("ann") == pair
    assert store.lease("ann") is None
    assert store.lease("bob") == pair
    assert store.lease("cleo") is None
    store.answer(say(pair, annotator="ann"))
    assert store.lease("ann") is None
    store.release(pair, "bob")
    assert store.lease("cleo") == pair
    store.answer([say(pair, annotator="cleo"), say(pair, annotator="dora")])
    assert store.open_pairs() == []
    assert len(store.comparisons().added) == 3


@pytest.mark.parametrize("wanted", [0, 1.5, "two", True])
def test_a_pair_that_wants_no_number_of_people_is_refused(store: Store, wanted: object) -> None:
    with pytest.raises(RllabError, match="whole number of at least 1"):
        fill(store, 1, details={"wanted": wanted})


def test_no_pair_is_leased_twice_when_many_ask_at_once(store: Store) -> None:
    pairs = fill(store, 40)
    leased: list[uuid.UUID] = []

    def work(name: str) -> None:
        while (pair := store.lease(name)) is not None:
            leased.append(pair.id)

    threads = [threading.Thread(target=work, args=(f"annotator {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(leased) == [pair.id for pair in pairs]


def test_withdrawn_pairs_are_not_asked_but_a_late_answer_counts(store: Store) -> None:
    first, second, third = fill(store, 3)
    store.lease("ann")
    store.answer(say(third))
    assert store.withdraw([first.id, third.id]) == 1
    assert store.ask([first]) == 0
    assert store.open_pairs() == [second]
    assert store.progress().pairs == 2
    store.answer(say(first))
    assert len(store.comparisons().added) == 2
    assert store.open_pairs() == [second]


def test_a_withdrawn_pair_stays_so_when_one_of_two_has_answered(store: Store) -> None:
    (pair,) = fill(store, 1, details={"wanted": 2})
    store.withdraw([pair.id])
    store.answer(say(pair))
    store.undo("ann")
    assert store.lease("bob") is None


def test_a_retry_of_the_same_answer_changes_nothing(store: Store) -> None:
    (pair,) = fill(store, 1)
    answer = say(pair)
    again = dataclasses.replace(answer, created=99.0, seconds=7.0)
    assert [store.answer(answer), store.answer(answer), store.answer([answer, again])] == [1, 0, 0]
    assert store.comparisons().added[0].answer == answer
    with pytest.raises(RllabError, match="on record with other content"):
        store.answer(dataclasses.replace(answer, label=Label.SECOND))
    other = dataclasses.replace(pair, id=identifier(5000))
    store.ask([other])
    with pytest.raises(RllabError, match="on record with other content"):
        store.answer(dataclasses.replace(answer, pair=other.id))


def test_a_second_answer_must_say_that_it_supersedes_the_first(store: Store) -> None:
    (pair,) = fill(store, 1)
    first = say(pair)
    store.answer(first)
    with pytest.raises(RllabError, match="'ann' has answered the pair .* already"):
        store.answer(say(pair, Label.SECOND))
    changed = say(pair, Label.SECOND, supersedes=first.id)
    store.answer(changed)
    assert labels(store.comparisons()) == [(pair.id, Label.SECOND)]
    with pytest.raises(RllabError, match="superseded already"):
        store.answer(say(pair, Label.TIE, supersedes=first.id))
    with pytest.raises(RllabError, match="no answer of 'bob'"):
        store.answer(say(pair, annotator="bob", supersedes=changed.id))
    with pytest.raises(RllabError, match="which answer it takes back"):
        store.answer(say(pair, None, annotator="bob"))


def test_a_label_outside_the_set_and_an_answer_to_nothing_are_refused_and_so_are_their_companions(store: Store) -> None:
    (pair,) = fill(store, 1)
    with pytest.raises(RllabError, match="'better' is not a label: use first, second, tie, skip"):
        store.answer([say(pair), say(pair, "better", annotator="bob")])  # type: ignore[arg-type]
    with pytest.raises(RllabError, match="which the store does not have"):
        store.answer([say(pair), dataclasses.replace(say(pair), pair=identifier(77))])
    with pytest.raises(RllabError, match="name of its annotator"):
        store.answer(say(pair, annotator=" "))
    assert store.comparisons().added == ()


def test_answers_are_only_ever_added(store: Store) -> None:
    (pair,) = fill(store, 1)
    store.answer(say(pair))
    for statement in (update(schema.answers).values(label="tie"), delete(schema.answers)):
        with pytest.raises(DBAPIError, match="only ever added"), store.database.write() as connection:
            connection.execute(statement)


def test_undo_goes_back_answer_by_answer_and_asks_again_in_that_order(store: Store) -> None:
    pairs = fill(store, 25)
    given = []
    for pair in pairs[:22]:
        given.append(say(pair))
        store.answer(given[-1])
    assert [store.undo("ann") for _ in range(22)] == given[::-1]
    assert store.undo("ann") is None
    assert store.comparisons().added == ()
    assert [store.lease("ann") for _ in range(3)] == pairs[:3]
    assert store.lease("bob") == pairs[3]


def test_what_was_taken_back_comes_before_more_urgent_pairs(store: Store) -> None:
    low, _ = fill(store, 2)
    store.answer(say(low))
    store.ask([dataclasses.replace(low, id=identifier(5000), priority=9.0)])
    store.undo("ann")
    assert store.lease("ann") == low
    store.answer(say(low, Label.SECOND))
    assert labels(store.comparisons()) == [(low.id, Label.SECOND)]


def test_a_retried_undo_takes_back_one_answer_only(store: Store) -> None:
    pairs = fill(store, 2)
    for pair in pairs:
        store.answer(say(pair))
    request = uuid.uuid4()
    assert store.undo("ann", request) == store.undo("ann", request)
    assert len(store.comparisons().added) == 1


def test_a_cursor_gives_what_is_new_and_what_counts_no_more(store: Store) -> None:
    first, second, third = fill(store, 3)
    one, two = say(first), say(second, Label.SKIP)
    store.answer([one, two])
    start = store.comparisons()
    assert labels(start) == [(first.id, Label.FIRST), (second.id, Label.SKIP)]
    assert store.comparisons(after=start.cursor) == Changes((), (), start.cursor)

    changed = say(first, Label.SECOND, supersedes=one.id)
    store.answer([say(third), changed])
    store.undo("ann")  # takes back `changed`, which the cursor has not seen
    store.answer(say(second, Label.TIE, supersedes=two.id))
    later = store.comparisons(after=start.cursor)
    assert labels(later) == [(third.id, Label.FIRST), (second.id, Label.TIE)]
    assert later.withdrawn == (one.id, two.id)
    assert store.comparisons(run="another", after=0).added == ()


def test_what_was_taken_back_before_the_cursor_is_not_reported_again(store: Store) -> None:
    (pair,) = fill(store, 1)
    store.answer(say(pair))
    request = uuid.uuid4()
    store.undo("ann", request)
    start = store.comparisons()
    assert start.added == ()
    store.answer(say(pair, Label.TIE, supersedes=request))
    later = store.comparisons(after=start.cursor)
    assert (labels(later), later.withdrawn) == ([(pair.id, Label.TIE)], ())


def test_sheets_are_wanted_for_clips_of_open_pairs_only_the_most_urgent_first(store: Store) -> None:
    _, second = fill(store, 2)
    store.add_clips([make_clip(50)])
    store.ask([Pair(identifier(5000), identifier(4), identifier(1), priority=1.0)])
    assert store.clips_without_sheet(3) == [identifier(4), identifier(1), identifier(2)]
    store.set_sheet(identifier(4), b"\x00image", {"columns": 5})
    store.set_sheet(identifier(4), b"\xffimage", {"columns": 6})
    assert store.sheet(identifier(4)) == (b"\xffimage", {"columns": 6})
    assert store.sheet(identifier(1)) is None
    store.answer(say(second))
    assert store.clips_without_sheet() == [identifier(1), identifier(2)]
    with pytest.raises(RllabError, match="no clip"):
        store.set_sheet(identifier(99), b"", {})


def test_progress_counts_what_there_is(store: Store) -> None:
    pairs = fill(store, 6)
    said = [(Label.FIRST, "ann", 1.0), (Label.TIE, "ann", 2.0), (Label.SKIP, "bob", 9.0), (Label.FIRST, "bob", None)]
    for pair, (label, annotator, seconds) in zip(pairs, said, strict=False):
        store.answer(say(pair, label, annotator, seconds=seconds))
    store.undo("bob")
    store.lease("ann", seconds=10, now=0)
    progress = store.progress(now=5)
    assert (progress.clips, progress.pairs, progress.open, progress.leased) == (12, 6, 3, 1)
    assert (progress.answered, progress.skipped, progress.ties) == (3, 1, 1)
    assert progress.by_annotator == {"ann": 2, "bob": 1}
    assert progress.median_seconds == 2.0
