"""Opening a store of comparisons: making its tables, bringing older ones up to date, refusing what is no store."""

import uuid
from pathlib import Path

from sqlalchemy import Connection, inspect

from envs.errors import RllabError
from preference import schema
from preference.database import Database, StoreUnavailable
from preference.task import Task


def open_database(where: str | Path, task: Task | None, timeout: float) -> tuple[Database, Task, str]:
    """The database of a store, which is made where there is none and a task is given.

    Args:
        where: as `preference.store.Store.open` takes it.
        task: what is to be compared in it; None: whatever is.
        timeout: seconds to wait for other processes' transactions.

    Returns:
        The database, which from now on makes sure that it still is the same store; the store's own task; and its id.

    Raises:
        RllabError: there is no store and no task; it is something else, of another version, or of another task.
        StoreUnavailable: the server cannot be reached.
    """
    database = Database(where, timeout)
    if database.path is not None and not database.path.exists():
        if task is None:
            raise RllabError(f"There is no store at {database.path}; check the path.")
        database.create_file()
    try:
        with database.read() as connection:
            meta = _read_meta(connection, database)
        if meta is not None and meta["version"] != str(schema.SCHEMA_VERSION):
            with database.write() as connection:
                meta = _upgraded(connection, database)
        if meta is None:
            if task is None:
                raise RllabError(f"There is no store at {database.name} yet; check the path.")
            with database.write() as connection:
                meta = _upgraded(connection, database)  # Another process may have been first.
                if meta is None:
                    schema.create_tables(connection, task.to_json(), str(uuid.uuid4()))
                    meta = schema.read_meta(connection)
        found = Task.from_json(meta["task"])
        if task is not None and (difference := found.difference(task)) is not None:
            raise RllabError(f"The store {database.name} is of another task: {difference}; use another store.")
    except BaseException:
        database.close()
        raise
    expected = meta["id"]

    def verify(connection: Connection) -> None:
        if (_read_meta(connection, database) or {}).get("id") != expected:
            # Nothing is lost, and the call can be made again when the right one is back.
            raise StoreUnavailable(f"{database.name} is not the store any more that was opened; put that one back.")

    database.verify = verify
    return database, found, expected


def _read_meta(connection: Connection, database: Database) -> dict[str, str] | None:
    """The rows of `meta`; None where there is no table of ours yet. Raises RllabError for anything else."""
    tables = set(inspect(connection).get_table_names())
    ours = tables & set(schema.metadata.tables)
    # A file is a store or nothing else; in a server's database other tables may stand beside ours.
    if not (tables if database.path is not None else ours):
        return None
    columns = {column["name"] for column in inspect(connection).get_columns("meta")} if "meta" in tables else set()
    meta = schema.read_meta(connection) if {"name", "value"} <= columns else {}
    if meta.get("format") != schema.FORMAT:
        raise RllabError(f"{database.name} is a database, but not a store of comparisons; give another path.")
    return meta


def _upgraded(connection: Connection, database: Database) -> dict[str, str] | None:
    """As `_read_meta`, with the tables brought to this version. Raises RllabError if they are of a newer one."""
    meta = _read_meta(connection, database)
    if meta is None or meta.get("version") == str(schema.SCHEMA_VERSION):
        return meta
    if not schema.upgrade(connection, meta.get("version")):
        raise RllabError(
            f"The store {database.name} has version {meta.get('version')}, but this rllab reads version "
            f"{schema.SCHEMA_VERSION}; use the version of rllab that made it, and its export."
        )
    return schema.read_meta(connection)
