"""What has been answered: the comparisons that count, what has changed since, and how far labelling has come."""

import statistics
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select, true

from preference.comparisons import Comparison, Label
from preference.records import in_chunks, standing
from preference.schema import ANSWER_COLUMNS, PAIR_COLUMNS, answer_of, answers, clips, leases, pair_of, pairs


@dataclass(frozen=True)
class Changes:
    """What has come to count and what has ceased to since a cursor."""

    added: tuple[Comparison, ...]
    """New comparisons that count, skips included, in the order in which they were answered."""
    withdrawn: tuple[uuid.UUID, ...]
    """Ids of answers that counted at the cursor and do not any more; those that stand in their place are in `added`."""
    cursor: int
    """Give this as `after` the next time."""


@dataclass(frozen=True)
class Progress:
    """How far labelling has come."""

    clips: int
    pairs: int
    """All that were ever asked, but not those that were withdrawn without an answer."""
    open: int
    """Pairs that wait for anybody's answer; leased ones are among them."""
    leased: int
    """Pairs that somebody has in hand."""
    answered: int
    """Answers that count, with skips and ties."""
    skipped: int
    ties: int
    by_annotator: Mapping[str, int]
    """Answers that count of each annotator, by name."""
    median_seconds: float | None
    """Between question and answer, over the answers that count and say it."""


def changes_since(connection: Connection, after: int, run: str | None) -> Changes:
    """The comparisons of a run (of all runs: None) that are new after the cursor, and the answers gone since."""
    of_run = pairs.c.run == run if run is not None else true()
    values = {"after": after} | ({} if run is None else {"of": run})
    split = len(PAIR_COLUMNS)
    comparisons = [
        Comparison(pair_of(row[:split]), answer_of(row[split:]))
        for row in map(tuple, connection.execute(_added(run is not None), values))
    ]
    withdrawn = tuple(_gone_since(connection, after, of_run)) if after else ()
    newest = connection.scalar(select(func.max(answers.c.number))) or 0
    return Changes(tuple(comparisons), withdrawn, max(newest, after))


@cache
def _added(of_run: bool) -> Select[Any]:
    """What has come to count after the number `after` (in the run `of`); built once, as it is asked again and again."""
    return (
        select(*PAIR_COLUMNS, *ANSWER_COLUMNS)
        .join(answers, answers.c.pair == pairs.c.id)
        .where(answers.c.number > bindparam("after"), standing(), pairs.c.run == bindparam("of") if of_run else true())
        .order_by(answers.c.number)
    )


def _gone_since(connection: Connection, after: int, of_run: ColumnElement[bool]) -> Iterator[uuid.UUID]:
    """The answers that counted at the cursor and were superseded since, in the order in which they were."""
    # In two steps: in one, SQLite would go through all answers before the cursor.
    newer = select(answers.c.supersedes).where(answers.c.number > after, answers.c.supersedes.is_not(None))
    superseded: list[uuid.UUID] = list(connection.scalars(newer.order_by(answers.c.number)))
    for chunk in in_chunks(superseded, 500):
        counted = select(answers.c.id).join(pairs, pairs.c.id == answers.c.pair)
        before = answers.c.id.in_(chunk), answers.c.number <= after, answers.c.label.is_not(None), of_run
        known = set(connection.scalars(counted.where(*before)))
        yield from (identifier for identifier in chunk if identifier in known)


def progress(connection: Connection, now: float) -> Progress:
    """Count everything."""

    def count(table: object, *conditions: object) -> int:
        statement = select(func.count()).select_from(table).where(*conditions)  # type: ignore[arg-type]
        return connection.scalar(statement) or 0

    counting = connection.execute(select(answers.c.annotator, answers.c.label, answers.c.seconds).where(standing()))
    rows = counting.all()
    seconds = [row.seconds for row in rows if row.seconds is not None]
    in_hand = select(leases.c.pair).where(leases.c.expires > now).distinct().subquery()
    return Progress(
        clips=count(clips),
        pairs=count(pairs) - count(pairs, ~pairs.c.open, pairs.c.answered == 0),
        open=count(pairs, pairs.c.open, pairs.c.reserved.is_(None)),
        leased=count(in_hand),
        answered=len(rows),
        skipped=sum(row.label == Label.SKIP for row in rows),
        ties=sum(row.label == Label.TIE for row in rows),
        by_annotator=dict(sorted(Counter(row.annotator for row in rows).items())),
        median_seconds=statistics.median(seconds) if seconds else None,
    )
