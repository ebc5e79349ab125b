"""The tables of a store, and what their rows mean. The same for SQLite and for PostgreSQL."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    desc,
    false,
    insert,
    select,
    update,
)

from envs.errors import RllabError
from preference.codec import decode_arrays, dump_json, encode_arrays, load_json
from preference.comparisons import Answer, Clip, Label, Pair

SCHEMA_VERSION = 2
FORMAT = "rllab comparisons"
metadata = MetaData()


def _number() -> Column[int]:
    """Counts rows in the order in which they were committed: there is one writer at a time, see `Database.write`."""
    # SQLite counts only columns of the plain type INTEGER by itself.
    return Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


meta = Table("meta", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

clips = Table(
    "clips",
    metadata,
    _number(),
    Column("id", Uuid, nullable=False, unique=True),
    Column("run", Text, nullable=False),
    Column("policy_step", BigInteger, nullable=False),
    Column("length", Integer, nullable=False),
    Column("arrays", LargeBinary, nullable=False),
    Column("details", Text, nullable=False),
    Column("created", Double, nullable=False),
    sqlite_autoincrement=True,
)

# Apart from the clips, whose rows need not be written anew when their frames have been drawn.
sheets = Table(
    "sheets",
    metadata,
    Column("clip", Uuid, ForeignKey("clips.id"), primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("metadata", Text, nullable=False),
)

pairs = Table(
    "pairs",
    metadata,
    _number(),
    Column("id", Uuid, nullable=False, unique=True),
    Column("first", Uuid, ForeignKey("clips.id"), nullable=False),
    Column("second", Uuid, ForeignKey("clips.id"), nullable=False),
    Column("run", Text, nullable=False),
    Column("strategy", Text, nullable=False),
    Column("priority", Double, nullable=False),
    Column("details", Text, nullable=False),
    Column("created", Double, nullable=False),
    # The four below follow from details, answers and withdrawals; they stand here so that taking the next pair from
    # the queue costs the same after a hundred thousand answers.
    Column("wanted", Integer, nullable=False),
    Column("answered", Integer, nullable=False),
    Column("open", Boolean, nullable=False),
    Column("reserved", Text, nullable=True),
    sqlite_autoincrement=True,
)
Index("pairs_queue", pairs.c.open, desc(pairs.c.priority), pairs.c.created, pairs.c.number)

leases = Table(
    "leases",
    metadata,
    Column("pair", Uuid, ForeignKey("pairs.id"), primary_key=True),
    Column("annotator", Text, primary_key=True),
    Column("expires", Double, nullable=False),
)

answers = Table(
    "answers",
    metadata,
    _number(),
    Column("id", Uuid, nullable=False, unique=True),
    Column("pair", Uuid, ForeignKey("pairs.id"), nullable=False),
    Column("annotator", Text, nullable=False),
    Column("label", Text, nullable=True),
    Column("swapped", Boolean, nullable=False),
    Column("seconds", Double, nullable=True),
    Column("supersedes", Uuid, ForeignKey("answers.id"), nullable=True),
    Column("created", Double, nullable=False),
    Column("late", Boolean, nullable=False, server_default=false()),
    CheckConstraint("label IN ('first', 'second', 'tie', 'skip')", name="answers_label"),
    CheckConstraint("label IS NOT NULL OR supersedes IS NOT NULL", name="answers_take_back_something"),
    UniqueConstraint("supersedes", name="answers_supersede_once"),
    sqlite_autoincrement=True,
)
Index("answers_of_pair", answers.c.pair, answers.c.annotator)
Index("answers_of_annotator", answers.c.annotator, answers.c.number)

# What each run that asks says of itself, for the people who answer.
statuses = Table(
    "statuses",
    metadata,
    Column("run", Text, primary_key=True),
    Column("document", Text, nullable=False),
    Column("updated", Double, nullable=False),
)

# Answers are only ever added: the database itself refuses everything else.
_ONLY_ADDED = {
    "sqlite": [
        f"CREATE TRIGGER answers_no_{act.lower()} BEFORE {act} ON answers "
        "BEGIN SELECT RAISE(ABORT, 'answers are only ever added'); END"
        for act in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE OR REPLACE FUNCTION answers_are_only_added() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN RAISE EXCEPTION 'answers are only ever added'; END$$",
        "CREATE TRIGGER answers_no_change BEFORE UPDATE OR DELETE ON answers "
        "FOR EACH ROW EXECUTE FUNCTION answers_are_only_added()",
    ],
}


def create_tables(connection: Connection, task: str, store_id: str) -> None:
    """Make the tables of an empty store, in the caller's transaction."""
    metadata.create_all(connection)
    for statement in _ONLY_ADDED[connection.dialect.name]:
        connection.exec_driver_sql(statement)
    values = {"format": FORMAT, "version": str(SCHEMA_VERSION), "task": task, "id": store_id}
    connection.execute(insert(meta), [{"name": name, "value": value} for name, value in values.items()])


def upgrade(connection: Connection, version: str | None) -> bool:
    """Bring the tables of an earlier version up to date, in the caller's transaction; False if it is not known.

    Version 1 had no statuses, no reserved pairs, and did not know which answers came late.
    """
    if version != "1":
        return False
    statuses.create(connection)
    connection.exec_driver_sql("ALTER TABLE pairs ADD COLUMN reserved TEXT")
    connection.exec_driver_sql("ALTER TABLE answers ADD COLUMN late BOOLEAN NOT NULL DEFAULT false")
    connection.execute(update(meta).where(meta.c.name == "version").values(value=str(SCHEMA_VERSION)))
    return True


def read_meta(connection: Connection) -> dict[str, str]:
    """The rows of the table `meta`: format, version, task and the store's own id."""
    return {row.name: row.value for row in connection.execute(select(meta.c.name, meta.c.value))}


def wanted(pair: Pair) -> int:
    """How many people are to answer a pair: its details' `wanted`, else one.

    Raises:
        RllabError: it is not a whole number of at least 1.
    """
    number = pair.details.get("wanted", 1)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise RllabError(f"The pair {pair.id} wants {number!r} annotators: give a whole number of at least 1.")
    return number


def reserved(pair: Pair) -> str | None:
    """The only annotator who is asked about a pair: its details' `reserved`; None: anybody.

    Raises:
        RllabError: it is no name.
    """
    name = pair.details.get("reserved")
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise RllabError(f"The pair {pair.id} is reserved for {name!r}: give the name of an annotator.")
    return name


def clip_row(clip: Clip) -> dict[str, Any]:
    """The row of a clip. Raises RllabError when its details are not JSON or its arrays not numbers."""
    return {
        "id": clip.id, "run": clip.run, "policy_step": clip.policy_step, "length": clip.length,
        "arrays": encode_arrays(clip.arrays), "details": dump_json(clip.details), "created": float(clip.created),
    }  # fmt: skip


def pair_row(pair: Pair, is_open: bool = True) -> dict[str, Any]:
    """The row of a pair that nobody has answered. Raises RllabError when its details are not JSON."""
    return {
        "id": pair.id, "first": pair.first, "second": pair.second, "run": pair.run, "strategy": pair.strategy,
        "priority": float(pair.priority), "details": dump_json(pair.details), "created": float(pair.created),
        "wanted": wanted(pair), "answered": 0, "open": is_open, "reserved": reserved(pair),
    }  # fmt: skip


def answer_row(answer: Answer) -> dict[str, Any]:
    """The row of an answer."""
    return {
        "id": answer.id, "pair": answer.pair, "annotator": answer.annotator,
        "label": None if answer.label is None else answer.label.value, "swapped": answer.swapped,
        "seconds": answer.seconds, "supersedes": answer.supersedes, "created": float(answer.created),
        "late": answer.late,
    }  # fmt: skip


def clip_of(row: Row[Any]) -> Clip:
    """The clip of a row with the columns of `clips`. Raises RllabError when its arrays are damaged."""
    try:
        arrays = decode_arrays(row.arrays)
    except RllabError as error:
        raise RllabError(f"The clip {row.id} cannot be read: {error}") from error
    return Clip(row.id, arrays, row.run, row.policy_step, load_json(row.details), row.created)


PAIR_COLUMNS = (
    pairs.c.id, pairs.c.first, pairs.c.second, pairs.c.run, pairs.c.strategy, pairs.c.priority, pairs.c.details,
    pairs.c.created,
)  # fmt: skip
"""The columns of a `Pair`, in the order of its fields."""
ANSWER_COLUMNS = (
    answers.c.id, answers.c.pair, answers.c.annotator, answers.c.label, answers.c.swapped, answers.c.seconds,
    answers.c.supersedes, answers.c.created, answers.c.late,
)  # fmt: skip
"""The columns of an `Answer`, in the order of its fields."""


def pair_of(values: Any) -> Pair:
    """The pair of values in the order of `PAIR_COLUMNS`."""
    identifier, first, second, run, strategy, priority, details, created = values
    return Pair(identifier, first, second, run, strategy, priority, load_json(details), created)


def answer_of(values: Any) -> Answer:
    """The answer of values in the order of `ANSWER_COLUMNS`."""
    identifier, pair, annotator, label, swapped, seconds, supersedes, created, late = values
    label = None if label is None else Label(label)
    return Answer(identifier, pair, annotator, label, swapped, seconds, supersedes, created, bool(late))
