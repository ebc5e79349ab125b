"""Reading and adding rows, each function in its caller's transaction: what `Store` and imports have in common."""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, bindparam, exists, insert, or_, select, update

from envs.errors import RllabError
from preference import schema
from preference.codec import dump_json, load_json
from preference.comparisons import Answer, Clip, Pair, content_id
from preference.ledger import Ledger
from preference.task import Task

_CHUNK = 500  # rows or ids in one statement
_CLIP_CHUNK = 64  # clips held in memory at a time: those of frames have megabytes
_CONTENT = uuid.UUID("6d0a1f0e-3c53-4c3c-9a3b-0f9f7d6b6a55")


class Sheet(NamedTuple):
    """The drawn frames of a clip."""

    data: bytes
    """An image file."""
    metadata: Mapping[str, Any]
    """JSON, such as how many frames of which size it holds."""


def clip_content(clip: Clip) -> uuid.UUID:
    """Equal for clips of equal arrays (for texts, of equal details)."""
    return content_id(_CONTENT, clip.arrays, "" if clip.arrays else dump_json(clip.details))


def add_clips(connection: Connection, task: Task, clips: Iterable[Clip]) -> int:
    """Add the clips that are not there yet and return how many.

    Raises:
        RllabError: one does not fit the task, cannot be kept, or its id stands for another clip.
    """
    added = 0
    for chunk in in_chunks(clips, _CLIP_CHUNK):
        unique = {clip.id: clip for clip in reversed(chunk)}
        contents = {identifier: clip_content(clip) for identifier, clip in unique.items()}
        for clip in chunk:
            task.check(clip)
            if clip is not unique[clip.id] and clip_content(clip) != contents[clip.id]:
                raise RllabError(f"Two different clips have the id {clip.id}.")
        known = check_clips(connection, contents)
        rows = []
        for clip in reversed(unique.values()):
            if clip.id not in known:
                try:
                    rows.append(schema.clip_row(clip))
                except RllabError as error:
                    raise RllabError(f"The clip {clip.id} cannot be stored: {error}") from error
        if rows:
            connection.execute(insert(schema.clips), rows)
        added += len(rows)
    return added


def check_clips(connection: Connection, contents: Mapping[uuid.UUID, uuid.UUID]) -> set[uuid.UUID]:
    """Which of the clips are there already, by id, given each one's `clip_content`.

    Raises:
        RllabError: an id stands for another clip.
    """
    known = set()
    for clip in read_clips(connection, schema.clips.c.id, contents):
        if clip_content(clip) != contents[clip.id]:
            raise RllabError(f"The store has another clip with the id {clip.id}.")
        known.add(clip.id)
    return known


def read_clips(connection: Connection, column: ColumnElement[Any], values: Iterable[Any]) -> Iterator[Clip]:
    """The clips whose `column` is among `values`, in any order."""
    for chunk in in_chunks(values, _CLIP_CHUNK):
        for row in connection.execute(select(schema.clips).where(column.in_(chunk))):
            yield schema.clip_of(row)


def known_ids(connection: Connection, column: ColumnElement[uuid.UUID], ids: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    """Which of `ids` stand in `column`."""
    found: set[uuid.UUID] = set()
    for chunk in in_chunks(ids, _CHUNK):
        found.update(connection.scalars(select(column).where(column.in_(chunk))))
    return found


def add_pairs(connection: Connection, pairs: Iterable[Pair], withdrawn: Iterable[uuid.UUID] = ()) -> int:
    """Add the pairs that are not there yet, those of the ids `withdrawn` not open, and return how many.

    Raises:
        RllabError: a clip is not there, or the id stands for another pair.
    """
    closed, added = set(withdrawn), 0
    for chunk in in_chunks(pairs, _CHUNK):
        unique = {pair.id: pair for pair in chunk}
        known = {pair.id: pair for pair in read_pairs(connection, unique)}
        wanted = {clip for pair in chunk for clip in (pair.first, pair.second)}
        clips = known_ids(connection, schema.clips.c.id, wanted)
        rows = []
        for pair in chunk:
            check_pair(pair, clips, known.get(pair.id, unique[pair.id]))
        for pair in unique.values():
            if pair.id not in known:
                try:
                    rows.append(schema.pair_row(pair, pair.id not in closed))
                except RllabError as error:
                    raise RllabError(f"The pair {pair.id} cannot be stored: {error}") from error
        if rows:
            connection.execute(insert(schema.pairs), rows)
        added += len(rows)
    return added


def check_pair(pair: Pair, clips: set[uuid.UUID], same_id: Pair) -> None:
    """Make sure that a pair is one of two known clips, and the same as the one that has its id already.

    Raises:
        RllabError: it is not.
    """
    if pair.first == pair.second:
        raise RllabError(f"The pair {pair.id} compares the clip {pair.first} with itself.")
    if (missing := {pair.first, pair.second} - clips) != set():
        raise RllabError(f"The pair {pair.id} compares the clip {missing.pop()}, which the store does not have.")
    if (same_id.first, same_id.second) != (pair.first, pair.second):
        raise RllabError(f"The id {pair.id} stands for a pair of other clips.")
    if not abs(pair.priority) < float("inf"):
        raise RllabError(f"The pair {pair.id} has the priority {pair.priority}: give a finite number.")


def read_pairs(connection: Connection, ids: Iterable[uuid.UUID]) -> Iterator[Pair]:
    """The pairs of `ids` that there are, in any order."""
    for chunk in in_chunks(ids, _CHUNK):
        for row in connection.execute(select(*schema.PAIR_COLUMNS).where(schema.pairs.c.id.in_(chunk))):
            yield schema.pair_of(row)


def read_answers(connection: Connection, condition: ColumnElement[bool]) -> Iterator[Answer]:
    """The answers that meet a condition, in the order in which they were added."""
    statement = select(*schema.ANSWER_COLUMNS).where(condition).order_by(schema.answers.c.number)
    for row in connection.execute(statement):
        yield schema.answer_of(row)


def open_ledger(connection: Connection, answers: Sequence[Answer]) -> Ledger:
    """All answers to the pairs of `answers`, and those on record under the same ids."""
    table, recorded = schema.answers, {}
    for chunk in in_chunks(answers, _CHUNK):
        pairs, ids = {answer.pair for answer in chunk}, {answer.id for answer in chunk}
        for answer in read_answers(connection, or_(table.c.pair.in_(pairs), table.c.id.in_(ids))):
            recorded[answer.id] = answer
    return Ledger(recorded.values())


def add_answers(connection: Connection, answers: Sequence[Answer]) -> int:
    """Add the answers that are not there yet, in this order, and return how many; leases on them end.

    Raises:
        RllabError: a pair is not there, or an answer contradicts one on record, see `Ledger.add`.
    """
    pairs = known_ids(connection, schema.pairs.c.id, {answer.pair for answer in answers})
    ledger, new = open_ledger(connection, answers), []
    for answer in answers:
        if answer.pair not in pairs:
            raise RllabError(f"The answer {answer.id} is to the pair {answer.pair}, which the store does not have.")
        if ledger.add(answer):
            new.append(answer)
    if new:
        connection.execute(insert(schema.answers), [schema.answer_row(answer) for answer in new])
        _note_answered(connection, {answer.pair: ledger.answered(answer.pair) for answer in new})
        leases = schema.leases
        connection.execute(
            leases.delete().where(leases.c.pair == bindparam("of"), leases.c.annotator == bindparam("by")),
            [{"of": answer.pair, "by": answer.annotator} for answer in new],
        )
    return len(new)


def _note_answered(connection: Connection, counts: Mapping[uuid.UUID, int]) -> None:
    """Write down how many answers count for each pair, and whether it still waits for one."""
    table = schema.pairs
    # One that was open, or was closed by its answers, is open while some are lacking; a withdrawn one stays so.
    connection.execute(
        update(table)
        .where(table.c.id == bindparam("of"))
        .values(
            answered=bindparam("count"),
            open=and_(bindparam("count") < table.c.wanted, or_(table.c.open, table.c.answered >= table.c.wanted)),
        ),
        [{"of": pair, "count": count} for pair, count in counts.items()],
    )


def standing(answer: Any = schema.answers) -> ColumnElement[bool]:
    """Whether an answer counts: it has a label and nothing supersedes it."""
    return and_(answer.c.label.is_not(None), not_superseded(answer))


def not_superseded(answer: Any = schema.answers) -> ColumnElement[bool]:
    """Whether nothing stands in place of an answer."""
    later = schema.answers.alias()
    return ~exists().where(later.c.supersedes == answer.c.id)


def set_sheet(connection: Connection, clip: uuid.UUID, sheet: Sheet) -> None:
    """Keep the drawn frames of a clip, in place of earlier ones."""
    table = schema.sheets
    connection.execute(table.delete().where(table.c.clip == clip))
    connection.execute(insert(table), {"clip": clip, "data": sheet.data, "metadata": dump_json(sheet.metadata)})


def read_sheet(connection: Connection, clip: uuid.UUID) -> Sheet | None:
    """The drawn frames of a clip; None if there are none."""
    table = schema.sheets
    row = connection.execute(select(table.c.data, table.c.metadata).where(table.c.clip == clip)).one_or_none()
    return None if row is None else Sheet(bytes(row.data), load_json(row.metadata))


def set_status(connection: Connection, run: str, status: Mapping[str, Any], now: float) -> None:
    """Keep what a run says of itself, in place of what it said before."""
    table = schema.statuses
    connection.execute(table.delete().where(table.c.run == run))
    connection.execute(insert(table), {"run": run, "document": dump_json(status), "updated": now})


def read_statuses(connection: Connection) -> dict[str, dict[str, Any]]:
    """What each run said of itself last, the newest first."""
    rows = connection.execute(select(schema.statuses).order_by(schema.statuses.c.updated.desc()))
    return {row.run: {**load_json(row.document), "updated": row.updated} for row in rows}


def in_chunks(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """The items, `size` at a time: a database takes only so many in one statement."""
    iterator = iter(items)
    while chunk := tuple(islice(iterator, size)):
        yield chunk
