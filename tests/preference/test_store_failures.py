"""What becomes of a store when files, disks, servers and processes fail."""

import os
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update
from store_makers import TASK, Server, Unstartable, fill, identifier, make_clip, postgresql_server, say

from envs.errors import RllabError
from preference import schema
from preference.comparisons import Label
from preference.store import Store, StoreUnavailable

ANSWER_ALL = """
import sys, uuid
from preference.comparisons import Answer, Label
from preference.store import Store
store, annotator = Store.open(sys.argv[1]), sys.argv[2]
for pair in store.open_pairs():
    answer = Answer(uuid.uuid4(), pair.id, annotator, Label.FIRST)
    store.answer(answer)
    print(answer.id, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.open(path, TASK, timeout=0.05) as opened:
        yield opened


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    try:
        with postgresql_server() as started:
            yield started
    except Unstartable as reason:
        pytest.skip(f"no PostgreSQL server can be started: {reason}")


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, path: Path) -> str:
    return str(path) if request.param == "sqlite" else str(request.getfixturevalue("server").new_database())


def answering(where: str, annotator: str) -> "subprocess.Popen[str]":
    """A process that answers every open pair and prints the id of each answer when the store has taken it."""
    command = [sys.executable, "-c", ANSWER_ALL, where, annotator]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_whatever_was_acknowledged_is_there_after_the_writer_was_killed(where: str) -> None:
    with Store.open(where, TASK) as store:
        fill(store, 200)
    writer = answering(where, "ann")
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().strip() for _ in range(20)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += [line.strip() for line in writer.stdout if line.endswith("\n")]
    writer.wait()
    writer.stdout.close()
    with Store.open(where) as store:
        kept = [str(comparison.answer.id) for comparison in store.comparisons().added]
        # At most the one in hand was kept without having been acknowledged.
        assert kept[: len(acknowledged)] == acknowledged
        assert len(acknowledged) <= len(kept) <= len(acknowledged) + 1 < 200
        assert store.progress().open == 200 - len(kept)


def test_two_processes_answer_at_once_and_both_are_heard(where: str) -> None:
    with Store.open(where, TASK) as store:
        fill(store, 15, details={"wanted": 2})
        writers = [answering(where, name) for name in ("ann", "bob")]
        said = {line for writer in writers for line in writer.communicate()[0].split()}
        changes = store.comparisons()
        assert {str(comparison.answer.id) for comparison in changes.added} == said
        assert store.progress().by_annotator == {"ann": 15, "bob": 15}
        assert store.open_pairs() == []


def test_a_server_that_crashed_is_used_again_when_it_is_back(server: Server) -> None:
    with Store.open(server.new_database(), TASK, timeout=1) as store:
        first, second = fill(store, 2)
        store.answer(say(first))
        server.crash()
        late = say(second)
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            store.answer(late)
        server.start()
        assert store.answer(late) == 1
        assert len(store.comparisons().added) == 2


def test_a_server_that_is_not_there_is_told_of_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
        Store.open(f"postgresql://ann:secret@/labels?host={tmp_path}", TASK, timeout=1)
    assert "secret" not in str(caught.value)


def test_a_locked_store_is_unavailable_to_writers_and_open_to_readers(store: Store, path: Path) -> None:
    (pair,) = fill(store, 1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match=r"locked by another process for 0\.05 s"):
        store.answer(say(pair))
    assert store.open_pairs() == [pair]
    other.execute("ROLLBACK")
    other.close()
    assert store.answer(say(pair)) == 1


def test_a_store_that_is_gone_is_unavailable_until_it_is_back(store: Store, path: Path) -> None:
    (pair,) = fill(store, 1)
    store.close()
    path.rename(path.with_name("elsewhere"))
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"store\.db is gone"):
            store.answer(say(pair))
    assert not path.exists()
    path.with_name("elsewhere").rename(path)
    assert store.answer(say(pair)) == 1


def test_a_deleted_store_takes_no_more_answers(store: Store, path: Path) -> None:
    (pair,) = fill(store, 1)
    path.unlink()
    with pytest.raises(StoreUnavailable, match="is gone"):
        store.answer(say(pair))


def test_another_store_in_its_place_is_refused(store: Store, path: Path) -> None:
    store.close()
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        name.unlink(missing_ok=True)
    placeholder = path.with_name("placeholder")
    placeholder.touch()  # Keeps the file's number on the disk from being given again.
    with Store.open(path.with_name("other"), TASK) as other:
        other.close()
        path.with_name("other").rename(path)
    with pytest.raises(RllabError, match="is not the store any more"):
        store.progress()


def test_a_full_disk_is_told_of_and_loses_nothing(store: Store) -> None:
    (pair,) = fill(store, 1)
    store.answer(say(pair))
    with store.database.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="disk of the store .* is full: free some space"):
        store.add_clips(make_clip(number, length=2000) for number in range(100, 110))
    assert store.progress().clips == 2
    assert len(store.comparisons().added) == 1
    with store.database.write() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert store.add_clips([make_clip(100, length=2000)]) == 1


def test_a_commit_reaches_the_disk_before_it_returns(store: Store) -> None:
    with store.database.read() as connection:
        settings = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in
                    ("journal_mode", "synchronous", "foreign_keys")}  # fmt: skip
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    text, database = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("not a database, " * 100)
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE meta (title TEXT)")
    connection.close()
    for path, before in ((text, text.read_bytes()), (database, None)):
        for task in (None, TASK):
            with pytest.raises(RllabError, match=r"not a store of comparisons"):
                Store.open(path, task)
        assert before is None or path.read_bytes() == before


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("mysql://localhost/labels", "cannot be kept in mysql"),
        ("sqlite://", "kept in a file, not in memory"),
        ("postgresql://ann@host:port/x", "cannot be understood"),
    ],
)
def test_a_url_of_another_kind_is_refused(where: str, sentence: str) -> None:
    with pytest.raises(RllabError, match=sentence):
        Store.open(where, TASK)


def test_a_store_that_was_killed_while_it_was_made_can_be_made(path: Path) -> None:
    path.touch()
    with pytest.raises(RllabError, match="There is no store at"):
        Store.open(path)
    with Store.open(path, TASK) as store:
        assert store.progress().clips == 0


def test_damaged_arrays_are_told_of_with_their_clip(store: Store) -> None:
    fill(store, 1)
    with store.database.write() as connection:
        connection.execute(update(schema.clips).where(schema.clips.c.id == identifier(2)).values(arrays=b"rubbish"))
    with pytest.raises(RllabError, match=f"clip {identifier(2)} cannot be read: The arrays are damaged"):
        store.clips([identifier(1), identifier(2)])
    assert len(store.clips([identifier(1)])) == 1


def test_a_process_that_was_forked_uses_connections_of_its_own(store: Store) -> None:
    first, second = fill(store, 2)
    child = os.fork()
    if child == 0:
        try:
            store.answer(say(first, Label.TIE))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    store.answer(say(second))
    assert [comparison.answer.label for comparison in store.comparisons().added] == [Label.TIE, Label.FIRST]


def test_a_store_is_made_in_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    with Store.open(tmp_path / "new" / "fol der%20?" / "store.db", TASK) as store:
        url = store.url
    with Store.open(url) as store:
        assert store.answer([]) == 0
        assert store.undo(str(uuid.uuid4())) is None
