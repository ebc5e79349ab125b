"""The queue of open pairs: who is asked which one next, in the caller's transaction."""

import uuid
from collections.abc import Iterable
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    desc,
    exists,
    func,
    insert,
    or_,
    select,
    true,
    update,
)

from envs.errors import RllabError
from preference.comparisons import Answer, Pair
from preference.records import add_answers, in_chunks, not_superseded, read_answers, standing
from preference.schema import ANSWER_COLUMNS, PAIR_COLUMNS, answer_of, answers, clips, leases, pair_of, pairs, sheets

_ORDER = (desc(pairs.c.priority), pairs.c.created, pairs.c.number)


def take(
    connection: Connection, annotator: str, until: float, now: float, run: str | None, drawn: bool = False
) -> Pair | None:
    """Lease the next pair (of clips whose frames are `drawn`) to an annotator until a time; None if there is none."""
    connection.execute(leases.delete().where(leases.c.expires <= now))
    values = {"by": annotator} | ({} if run is None else {"of": run})
    for statement in _next_pair(run is not None, drawn):
        row = connection.execute(statement, values).one_or_none()
        if row is not None:
            pair = pair_of(row)
            connection.execute(insert(leases), {"pair": pair.id, "annotator": annotator, "expires": until})
            return pair
    return None


@cache
def _next_pair(of_run: bool, drawn: bool) -> tuple[Select[Any], ...]:
    """Where to look for the next pair of the annotator `by` (of the run `of`); to build them takes longer."""
    said = answers.alias()
    annotator: BindParameter[str] = bindparam("by")
    others = select(func.count()).where(leases.c.pair == pairs.c.id).correlate(pairs).scalar_subquery()
    eligible = and_(
        pairs.c.open,
        pairs.c.run == bindparam("of") if of_run else true(),
        or_(pairs.c.reserved.is_(None), pairs.c.reserved == annotator),
        ~exists().where(said.c.pair == pairs.c.id, said.c.annotator == annotator, standing(said)),
        ~exists().where(leases.c.pair == pairs.c.id, leases.c.annotator == annotator),
        pairs.c.answered + others < pairs.c.wanted,
        *(exists().where(sheets.c.clip == side) for side in (pairs.c.first, pairs.c.second) if drawn),
    )
    # What the annotator took back comes first, the last of it foremost: they wanted to answer it differently.
    taken_back = (
        select(*PAIR_COLUMNS)
        .join(answers, answers.c.pair == pairs.c.id)
        .where(answers.c.annotator == annotator, answers.c.label.is_(None), not_superseded(), eligible)
        .order_by(desc(answers.c.number))
    )
    return taken_back.limit(1), select(*PAIR_COLUMNS).where(eligible).order_by(*_ORDER).limit(1)


def take_this(connection: Connection, pair: uuid.UUID, annotator: str, until: float, now: float) -> None:
    """Lease one pair to an annotator, unless it is not asked about any more or others have all of it in hand."""
    connection.execute(leases.delete().where(leases.c.expires <= now))
    connection.execute(leases.delete().where(leases.c.pair == pair, leases.c.annotator == annotator))
    others = select(func.count()).where(leases.c.pair == pair).scalar_subquery()
    free = select(pairs.c.id).where(pairs.c.id == pair, pairs.c.open, pairs.c.answered + others < pairs.c.wanted)
    if connection.execute(free).one_or_none() is not None:
        connection.execute(insert(leases), {"pair": pair, "annotator": annotator, "expires": until})


def renew(connection: Connection, annotator: str, until: float, now: float) -> int:
    """Keep what an annotator has in hand for them until a later time; how many pairs that is."""
    held = and_(leases.c.annotator == annotator, leases.c.expires > now)
    return connection.execute(update(leases).where(held).values(expires=until)).rowcount


def leased_to(connection: Connection, annotator: str, now: float) -> list[Pair]:
    """The pairs that an annotator has in hand, the soonest to expire first."""
    return [pair_of(row) for row in connection.execute(_IN_HAND, {"by": annotator, "now": now})]


_IN_HAND = (
    select(*PAIR_COLUMNS)
    .join(leases, leases.c.pair == pairs.c.id)
    .where(leases.c.annotator == bindparam("by"), leases.c.expires > bindparam("now"))
    .order_by(leases.c.expires, pairs.c.number)
)


def open_pairs(connection: Connection, run: str | None) -> list[Pair]:
    """All pairs that wait for anybody's answer, leased ones too, in the order in which they are asked."""
    statement = select(*PAIR_COLUMNS).where(pairs.c.open, pairs.c.reserved.is_(None), _of_run(run)).order_by(*_ORDER)
    return [pair_of(row) for row in connection.execute(statement)]


def clips_without_sheet(connection: Connection, limit: int) -> list[uuid.UUID]:
    """The clips of open pairs whose frames are not drawn, those that are asked about soonest first."""
    undrawn = ~exists().where(sheets.c.clip == clips.c.id)
    statement = (
        select(clips.c.id)
        .join(pairs, or_(clips.c.id == pairs.c.first, clips.c.id == pairs.c.second))
        .where(pairs.c.open, undrawn)
        .order_by(*_ORDER, clips.c.id == pairs.c.second)
    )
    found: dict[uuid.UUID, None] = {}
    for clip in connection.scalars(statement):
        if len(found) == limit:
            break
        found[clip] = None
    return list(found)


def withdraw(connection: Connection, ids: Iterable[uuid.UUID]) -> int:
    """Close those of the pairs that are open, and return how many; answers that they have go on to count."""
    closed = 0
    for chunk in in_chunks(ids, 500):
        closed += connection.execute(
            update(pairs).where(pairs.c.id.in_(chunk), pairs.c.open).values(open=False)
        ).rowcount
        connection.execute(leases.delete().where(leases.c.pair.in_(chunk)))
    return closed


def newest_standing(connection: Connection, annotator: str) -> Answer | None:
    """The annotator's last answer that counts."""
    statement = (
        select(*ANSWER_COLUMNS).where(answers.c.annotator == annotator, standing()).order_by(desc(answers.c.number))
    )
    row = connection.execute(statement.limit(1)).one_or_none()
    return None if row is None else answer_of(row)


def take_back(connection: Connection, annotator: str, answer_id: uuid.UUID | None, now: float) -> Answer | None:
    """Supersede an annotator's last answer that counts by one without a label; that last one, or None without any.

    Args:
        annotator: who.
        answer_id: the id of the new answer; if it is there already, nothing is done again.
        now: when.

    Raises:
        RllabError: `answer_id` is that of another answer.
    """
    if answer_id is not None:
        for done in read_answers(connection, answers.c.id == answer_id):
            if done.label is not None or done.annotator != annotator or done.supersedes is None:
                raise RllabError(f"The id {answer_id} is that of another answer; make a new one.")
            return next(read_answers(connection, answers.c.id == done.supersedes))
    last = newest_standing(connection, annotator)
    if last is None:
        return None
    new = Answer(answer_id or uuid.uuid4(), last.pair, annotator, None, supersedes=last.id, created=now)
    add_answers(connection, [new])
    return last


def _of_run(run: str | None) -> ColumnElement[bool]:
    return pairs.c.run == run if run is not None else true()
