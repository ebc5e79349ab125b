"""What a store holds, entry by entry, as the formats write it and as imports read it."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import Connection, and_, or_, select

from preference import records
from preference.comparisons import Answer, Clip, Pair
from preference.records import Sheet, in_chunks
from preference.schema import ANSWER_COLUMNS, PAIR_COLUMNS, answer_of, answers, clips, pair_of, pairs, sheets

_CHUNK = 32  # pairs whose clips are in memory at a time


@dataclass(frozen=True)
class Entry:
    """Something to be written or that was read: a clip, a question with its answers, or both together."""

    place: str = ""
    """Where in a file it stands, for messages."""
    clips: tuple[Clip, ...] = ()
    sheets: dict[uuid.UUID, Sheet] = field(default_factory=dict)
    """The drawn frames of those clips that have any."""
    pair: Pair | None = None
    withdrawn: bool = False
    """The pair is no longer asked, though not everybody has answered whom it wants."""
    answers: tuple[tuple[int, Answer], ...] = ()
    """All answers ever given, also those taken back, each with its place in the order of all answers."""


def pairs_with_answers(connection: Connection, with_clips: bool) -> Iterator[Entry]:
    """An entry for every pair, the oldest first, with its clips if so wished."""
    withdrawn = and_(~pairs.c.open, pairs.c.answered < pairs.c.wanted)
    split = len(PAIR_COLUMNS)
    rows = connection.execute(select(*PAIR_COLUMNS, withdrawn).order_by(pairs.c.number)).all()
    for chunk in in_chunks(rows, _CHUNK):
        asked = [(pair_of(tuple(row)[:split]), bool(row[split])) for row in chunk]
        said: dict[uuid.UUID, list[tuple[int, Answer]]] = {pair.id: [] for pair, _ in asked}
        statement = select(answers.c.number, *ANSWER_COLUMNS).where(answers.c.pair.in_(said))
        for number, *values in connection.execute(statement.order_by(answers.c.number)):
            answer = answer_of(values)
            said[answer.pair].append((number, answer))
        needed = {identifier for pair, _ in asked for identifier in (pair.first, pair.second)} if with_clips else set()
        found = {clip.id: clip for clip in records.read_clips(connection, clips.c.id, needed)}
        drawn = _sheets(connection, needed)
        for pair, is_withdrawn in asked:
            own = (pair.first, pair.second) if with_clips else ()
            yield Entry(
                "", tuple(found[clip] for clip in own), {clip: drawn[clip] for clip in own if clip in drawn}, pair,
                is_withdrawn, tuple(said[pair.id]),
            )  # fmt: skip


def single_clips(connection: Connection, unpaired: bool) -> Iterator[Entry]:
    """An entry for every clip, the oldest first; with `unpaired`, only for those that no pair compares."""
    statement = select(clips.c.id).order_by(clips.c.number)
    if unpaired:
        statement = statement.where(
            ~select(pairs.c.number).where(or_(pairs.c.first == clips.c.id, pairs.c.second == clips.c.id)).exists()
        )
    for chunk in in_chunks(connection.scalars(statement).all(), _CHUNK):
        found = {clip.id: clip for clip in records.read_clips(connection, clips.c.id, chunk)}
        drawn = _sheets(connection, set(chunk))
        for identifier in chunk:
            own = {identifier: drawn[identifier]} if identifier in drawn else {}
            yield Entry(clips=(found[identifier],), sheets=own)


def _sheets(connection: Connection, ids: set[uuid.UUID]) -> dict[uuid.UUID, Sheet]:
    drawn = records.known_ids(connection, sheets.c.clip, ids)
    found = ((identifier, records.read_sheet(connection, identifier)) for identifier in drawn)
    return {identifier: sheet for identifier, sheet in found if sheet is not None}
