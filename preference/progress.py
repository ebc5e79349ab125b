"""What has been answered: the comparisons that count, what has changed since, and how far labelling has come."""

import statistics
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, true

from preference.comparisons import Comparison, Label
from preference.records import standing
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
    added = (
        select(*PAIR_COLUMNS, *ANSWER_COLUMNS)
        .join(answers, answers.c.pair == pairs.c.id)
        .where(answers.c.number > after, standing(), of_run)
        .order_by(answers.c.number)
    )
    later = answers.alias()
    gone = (
        select(answers.c.id)
        .join(later, later.c.supersedes == answers.c.id)
        .join(pairs, pairs.c.id == answers.c.pair)
        .where(answers.c.number <= after, answers.c.label.is_not(None), later.c.number > after, of_run)
        .order_by(later.c.number)
    )
    split = len(PAIR_COLUMNS)
    comparisons = [
        Comparison(pair_of(row[:split]), answer_of(row[split:])) for row in map(tuple, connection.execute(added))
    ]
    withdrawn = tuple(connection.scalars(gone)) if after else ()
    newest = connection.scalar(select(func.max(answers.c.number))) or 0
    return Changes(tuple(comparisons), withdrawn, max(newest, after))


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
