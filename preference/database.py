"""The database under a store: connections, transactions, and its failures as sentences.

One process writes at a time, in SQLite by its lock and in PostgreSQL by an advisory one. So rows are numbered in the
order in which they are committed, and what a reader has seen up to a number never changes behind it.
"""

import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from envs.errors import RllabError

_ADVISORY_LOCK = 0x726C6C6162  # "rllab": any number will do that no other program in the same database locks
_DISK_FULL = "53100"
_LOCK_TIMED_OUT = "55P03"


class StoreUnavailable(RllabError):
    """The database cannot be used just now: it is locked, gone, out of reach or out of space. Waiting may help.

    Nothing of the transaction was written, unless the connection broke while it was being committed: do it again with
    the same ids, which is harmless if it was.
    """


_UNVERIFIED = (-1, -1)
"""In place of a file's device and number: that of no file."""


class Database:
    """Connections to one SQLite file or one PostgreSQL database.

    Attributes:
        url: what it was opened with, as a URL that another process can open.
        name: the same for messages, without a password.
        path: the file, where it is SQLite.
    """

    def __init__(self, where: str | Path, timeout: float) -> None:
        """Prepare connections; none is made yet.

        Args:
            where: a path, `sqlite:///PATH`, or `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`.
            timeout: seconds to wait for another process's transaction, and for a server to answer.

        Raises:
            RllabError: the URL cannot be used, or PostgreSQL's driver is not installed.
        """
        parsed = _parse(where)
        self.path = Path(parsed.database or "").absolute() if parsed.drivername == "sqlite" else None
        self.url = f"sqlite:///{self.path}" if self.path else parsed.render_as_string(hide_password=False)
        self.name = str(self.path) if self.path else parsed.render_as_string(hide_password=True)
        self._timeout = timeout
        self._engine = self._sqlite(self.path) if self.path else self._postgresql(parsed)
        event.listen(self._engine, "begin", self._begin)
        self._process = os.getpid()
        self._file: tuple[int, int] | None = None
        self.verify: Callable[[Connection], None] = lambda connection: None
        """Called when another file has come to stand at the path, to see whether it is the same store."""

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one moment of the database throughout.

        Raises:
            StoreUnavailable: it is locked, gone or out of reach.
            RllabError: it is damaged or no store.
        """
        with self._transaction(write=False) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is alone in writing; on disk when the block is left, undone when it raises.

        Raises:
            StoreUnavailable: it is locked, gone, out of reach or out of space.
            RllabError: it is damaged or no store.
        """
        with self._transaction(write=True) as connection:
            yield connection

    def create_file(self) -> None:
        """Make an empty SQLite file where there is none; its folder too. Nothing for PostgreSQL."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        except OSError as error:
            raise RllabError(f"The store {self.path} could not be made ({error.strerror}); check the path.") from error

    def close(self) -> None:
        """Close all connections; they are made anew when they are needed."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, write: bool) -> Iterator[Connection]:
        self._leave_parents_connections()
        replaced = self._file_was_replaced()
        try:
            with self._engine.connect() as plain:
                connection = plain.execution_options(write=write)
                with connection.begin():
                    if replaced:
                        self._verify(connection)
                    yield connection
        except PoolTimeoutError as error:
            raise StoreUnavailable(f"Too many threads use {self.name} at once; try again.") from error
        except DBAPIError as error:
            raise self._explained(error) from error

    def _verify(self, connection: Connection) -> None:
        try:
            self.verify(connection)
        except BaseException:
            self._file = _UNVERIFIED  # whatever is there the next time is looked at anew
            raise

    def _leave_parents_connections(self) -> None:
        if self._process != os.getpid():  # A child of a fork: its parent still uses the connections.
            self._engine.dispose(close=False)
            self._process = os.getpid()

    def _file_was_replaced(self) -> bool:
        """Whether another file is there than at the last time: SQLite itself would go on with the deleted one."""
        if self.path is None:
            return False
        try:
            found = os.stat(self.path)
        except OSError as error:
            self._engine.dispose()
            raise StoreUnavailable(f"The store {self.path} is gone ({error.strerror}); put it back.") from error
        before, self._file = self._file, (found.st_dev, found.st_ino)
        if before in (None, self._file):
            return False
        self._engine.dispose()
        return True

    def _sqlite(self, path: Path) -> Engine:
        def connect() -> sqlite3.Connection:
            # Never with the right to create: a store that is gone must not come back empty.
            connection = sqlite3.connect(
                f"file:{quote(str(path))}?mode=rw", uri=True, timeout=self._timeout, isolation_level=None,
                check_same_thread=False,
            )  # fmt: skip
            try:
                self._use_write_ahead_log(connection)
                # FULL: a commit has reached the disk when it returns, whatever happens to the machine.
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
            except BaseException:
                connection.close()
                raise
            return connection

        return create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_timeout=self._timeout)

    def _use_write_ahead_log(self, connection: sqlite3.Connection) -> None:
        """Readers then never wait. The change, once in a file's life, fails at a lock instead of waiting: try again."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _postgresql(self, url: URL) -> Engine:
        if find_spec("psycopg") is None:
            raise RllabError("PostgreSQL needs the driver psycopg: install it with `pip install rllab[postgres]`.")
        wait = {"connect_timeout": max(2, round(self._timeout))}
        return create_engine(url, pool_pre_ping=True, pool_timeout=self._timeout, connect_args=wait)

    def _begin(self, connection: Connection) -> None:
        write = connection.get_execution_options().get("write", False)
        if self.path is not None:
            # IMMEDIATE takes the write lock at once: taking it later fails when somebody wrote in between.
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
        elif write:
            connection.exec_driver_sql(
                f"SET LOCAL lock_timeout = {round(self._timeout * 1000)}; SET LOCAL synchronous_commit = on; "
                f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"
            )
        else:
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    def _explained(self, error: DBAPIError) -> Exception:
        """What went wrong in the database as a sentence; programming errors as they are."""
        reason = str(error.orig).strip().splitlines()[0].rstrip(".") if str(error.orig).strip() else "no reason given"
        state = getattr(error.orig, "sqlstate", None)
        if state == _DISK_FULL or "disk is full" in reason:
            return StoreUnavailable(f"The disk of the store {self.name} is full: free some space, then try again.")
        if state == _LOCK_TIMED_OUT or "is locked" in reason:
            return StoreUnavailable(
                f"The store {self.name} has been locked by another process for {self._timeout:g} s; try again."
            )
        if "readonly" in reason:
            return StoreUnavailable(f"The store {self.name} cannot be written; check its permissions.")
        if re.search(r"not a database|malformed|no such (table|column)|unsupported file format", reason):
            return RllabError(f"{self.name} is not a store of comparisons, or it is damaged ({reason}).")
        unreachable = (
            type(error.orig).__name__ in ("OperationalError", "InterfaceError") or error.connection_invalidated
        )
        if unreachable or (state or "").startswith(("08", "57P", "53")):
            return StoreUnavailable(f"The store {self.name} cannot be reached ({reason}).")
        if type(error.orig).__name__ == "DataError":
            return RllabError(f"The store {self.name} cannot keep this ({reason}).")
        return error


def _parse(where: str | Path) -> URL:
    """The URL of a path or URL."""
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(where))
    if where.startswith("sqlite:///") and len(where) > len("sqlite:///"):
        # Taken as it stands: a path may have a question mark or a per cent sign.
        return URL.create("sqlite", database=where.removeprefix("sqlite:///"))
    hint = "give a path, sqlite:///PATH or postgresql://USER@HOST/DATABASE"
    try:
        url = make_url(where)
    except (ArgumentError, ValueError) as error:
        raise RllabError(f"The URL of the store cannot be understood; {hint}.") from error
    kind = url.drivername.partition("+")[0]
    if kind in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if kind != "sqlite":
        raise RllabError(f"A store cannot be kept in {kind}; {hint}.")
    raise RllabError(f"A store is kept in a file, not in memory; {hint}.")
