"""Where clips, questions and answers are kept: one SQLite file, or a PostgreSQL database by its URL.

Several processes and machines may use one store at once: trainers ask, people answer, reward models learn. Every call
is one transaction, which is on the disk when the call returns; ids are made by the callers, so a call that may or may
not have come through can be made again.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from envs.errors import RllabError
from preference import queue, records, schema
from preference.comparisons import Answer, Clip, Pair
from preference.database import Database, StoreUnavailable
from preference.ledger import check_answer
from preference.opening import open_database
from preference.progress import Changes, Progress, changes_since, progress
from preference.records import Sheet
from preference.task import Task

__all__ = ["Changes", "Progress", "Sheet", "Store", "StoreUnavailable", "Task"]


class Store:
    """A store of comparisons, made with `Store.open`.

    Every method raises `StoreUnavailable` when the database is locked, gone, out of reach or out of space: nothing is
    lost then, and a caller may wait and try again.

    Attributes:
        task: what is compared.
        id: of the store itself, whatever its path.
        url: where it is, for another process to open.
        database: its connections, for what needs several steps in one transaction.
    """

    def __init__(self, database: Database, task: Task, clock: Callable[[], float], identity: str) -> None:
        self.database, self.id = database, identity
        self.task = task
        self._clock = clock

    @classmethod
    def open(
        cls, where: str | Path, task: Task | None = None, *, timeout: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> Self:  # fmt: skip
        """Open a store, or make one where there is none and a task is given.

        Args:
            where: a path for SQLite, `sqlite:///PATH`, or `postgresql://USER:PASSWORD@HOST/DATABASE`.
            task: what is to be compared in it. The question and the fps of a store that exists are its own.
            timeout: seconds to wait for other processes' transactions.
            clock: gives the time, in seconds since 1970, by which leases expire.

        Raises:
            RllabError: there is no store and no task; it is something else, of another version, or of another
                environment, kind or shapes.
            StoreUnavailable: the server cannot be reached.
        """
        database, found, identity = open_database(where, task, timeout)
        return cls(database, found, clock, identity)

    @property
    def url(self) -> str:
        """Where it is, for another process to open."""
        return self.database.url

    def close(self) -> None:
        """Close its connections."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def add_clips(self, clips: Iterable[Clip]) -> int:
        """Keep clips; those that are there already, by id, stay as they are.

        Returns:
            How many are new.

        Raises:
            RllabError: a clip does not fit the task, or its id stands for another; none is kept then.
        """
        with self.database.write() as connection:
            return records.add_clips(connection, self.task, clips)

    def clips(self, ids: Iterable[uuid.UUID]) -> list[Clip]:
        """The clips of these ids, in their order.

        Raises:
            RllabError: one is not there.
        """
        wanted = list(ids)
        with self.database.read() as connection:
            found = {clip.id: clip for clip in records.read_clips(connection, schema.clips.c.id, dict.fromkeys(wanted))}
        if missing := [identifier for identifier in wanted if identifier not in found]:
            raise RllabError(f"The store has no clip {missing[0]}.")
        return [found[identifier] for identifier in wanted]

    def set_sheet(self, clip_id: uuid.UUID, data: bytes, metadata: Mapping[str, Any]) -> None:
        """Keep the drawn frames of a clip: the bytes of an image, and JSON about them.

        Raises:
            RllabError: the clip is not there, or `metadata` is not JSON.
        """
        with self.database.write() as connection:
            if not records.known_ids(connection, schema.clips.c.id, [clip_id]):
                raise RllabError(f"The store has no clip {clip_id}.")
            records.set_sheet(connection, clip_id, Sheet(data, metadata))

    def sheet(self, clip_id: uuid.UUID) -> Sheet | None:
        """The drawn frames of a clip, (bytes, metadata); None while they are not drawn."""
        with self.database.read() as connection:
            return records.read_sheet(connection, clip_id)

    def clips_without_sheet(self, limit: int = 100) -> list[uuid.UUID]:
        """The clips of open pairs whose frames are yet to be drawn, at most `limit`, the most urgent first."""
        with self.database.read() as connection:
            return queue.clips_without_sheet(connection, limit)

    def ask(self, pairs: Iterable[Pair]) -> int:
        """Put pairs in the queue; those that are there already, by id, stay as they are, withdrawn ones too.

        A pair is asked of one person, or of as many different ones as its `details["wanted"]` says; with
        `details["reserved"]` of nobody but the one who is named there.

        Returns:
            How many are new.

        Raises:
            RllabError: a clip is not there, both are the same, or an id stands for another pair; none is asked then.
        """
        with self.database.write() as connection:
            return records.add_pairs(connection, pairs)

    def withdraw(self, ids: Iterable[uuid.UUID]) -> int:
        """Ask these pairs no more. Answers that they have, or that are on their way, count all the same.

        Returns:
            How many were open.
        """
        with self.database.write() as connection:
            return queue.withdraw(connection, ids)

    def open_pairs(self, run: str | None = None) -> list[Pair]:
        """The pairs (of one run) that wait for an answer, leased ones too, in the order in which they are asked.

        Those that are reserved for somebody are not among them: nobody waits for a repetition.
        """
        with self.database.read() as connection:
            return queue.open_pairs(connection, run)

    def pairs(self, ids: Iterable[uuid.UUID]) -> list[Pair]:
        """The pairs of these ids, in their order.

        Raises:
            RllabError: one is not there.
        """
        wanted = list(ids)
        with self.database.read() as connection:
            found = {pair.id: pair for pair in records.read_pairs(connection, dict.fromkeys(wanted))}
        if missing := [identifier for identifier in wanted if identifier not in found]:
            raise RllabError(f"The store has no pair {missing[0]}.")
        return [found[identifier] for identifier in wanted]

    def lease(
        self, annotator: str, seconds: float = 300.0, now: float | None = None, run: str | None = None, *,
        drawn: bool = False,
    ) -> Pair | None:  # fmt: skip
        """The next pair (of one run) for an annotator, kept for them for some seconds; None if there is none.

        With `drawn` only pairs of clips whose frames are there.

        First what they took back, then by priority, then the oldest. Nobody gets a pair that they have answered or have
        in hand, nor one that as many people as it wants have answered or have in hand. A lease that expires unanswered
        puts the pair back; an answer that comes later counts nevertheless.
        """
        now = self._clock() if now is None else now
        with self.database.write() as connection:
            return queue.take(connection, annotator, now + seconds, now, run, drawn)

    def lease_several(
        self, annotator: str, count: int, seconds: float = 300.0, now: float | None = None, *, drawn: bool = False
    ) -> list[Pair]:
        """Up to `count` next pairs at once, each as `lease` gives it."""
        now = self._clock() if now is None else now
        with self.database.write() as connection:
            taken = (queue.take(connection, annotator, now + seconds, now, None, drawn) for _ in range(count))
            return list(takewhile(lambda pair: pair is not None, taken))  # type: ignore[arg-type]

    def renew(self, annotator: str, seconds: float = 300.0, now: float | None = None) -> int:
        """Keep what an annotator has in hand for them for so many seconds more; how many pairs that is."""
        now = self._clock() if now is None else now
        with self.database.write() as connection:
            return queue.renew(connection, annotator, now + seconds, now)

    def leased(self, annotator: str, now: float | None = None) -> list[Pair]:
        """The pairs that an annotator has in hand, the soonest to expire first."""
        with self.database.read() as connection:
            return queue.leased_to(connection, annotator, self._clock() if now is None else now)

    def release(self, pair: Pair | uuid.UUID, annotator: str) -> None:
        """Put a leased pair back into the queue; nothing happens if it is not leased."""
        identifier = pair.id if isinstance(pair, Pair) else pair
        leases = schema.leases
        with self.database.write() as connection:
            connection.execute(leases.delete().where(leases.c.pair == identifier, leases.c.annotator == annotator))

    def answer(self, answers: Answer | Sequence[Answer]) -> int:
        """Add answers, all or none; those that are there already are left out, so that sending twice is harmless.

        The same answer is one with the same id that says the same, whatever its times; the first one's are kept.

        Returns:
            How many are new.

        Raises:
            RllabError: a pair is not there; a label is outside the set; the annotator has answered the pair and the
                answer does not supersede that; the id stands for another answer; or it supersedes what it cannot.
        """
        given = [answers] if isinstance(answers, Answer) else list(answers)
        for answer in given:
            check_answer(answer)
        with self.database.write() as connection:
            return records.add_answers(connection, given)

    def undo(
        self, annotator: str, answer_id: uuid.UUID | None = None, *, lease_seconds: float | None = None,
        now: float | None = None,
    ) -> Answer | None:  # fmt: skip
        """Take back an annotator's last answer that counts, and so on back to the first; the pair is theirs next.

        Args:
            annotator: who.
            lease_seconds: lease the pair to them at once for so long, if it is still asked about; None: it is only the
                first that they get.
            now: when the lease begins.
            answer_id: the id of the answer without a label that takes it back; with the same id twice, the second call
                only returns what the first did.

        Returns:
            The answer that was taken back; None if there is none.

        Raises:
            RllabError: `answer_id` is that of another answer.
        """
        now = self._clock() if now is None else now
        with self.database.write() as connection:
            undone = queue.take_back(connection, annotator, answer_id, self._clock())
            if undone is not None and lease_seconds is not None:
                # In the same transaction: nobody else can be given the pair in between.
                queue.take_this(connection, undone.pair, annotator, now + lease_seconds, now)
            return undone

    def comparisons(self, run: str | None = None, after: int = 0) -> Changes:
        """The comparisons (of one run's pairs) that count; with a cursor, what has changed since.

        Args:
            run: only pairs that this run asked.
            after: the `cursor` of an earlier call, or 0 for everything.
        """
        with self.database.read() as connection:
            return changes_since(connection, after, run)

    def set_question(self, question: str) -> None:
        """Ask people something else from now on, in Markdown."""
        task = replace(self.task, question=question)
        with self.database.write() as connection:
            connection.execute(schema.meta.update().where(schema.meta.c.name == "task").values(value=task.to_json()))
        self.task = task

    def set_status(self, run: str, status: Mapping[str, Any]) -> None:
        """Say how it stands with a run that asks, for the people who answer: JSON, in place of what was said before.

        Raises:
            RllabError: `status` is not JSON.
        """
        with self.database.write() as connection:
            records.set_status(connection, run, status, self._clock())

    def statuses(self) -> dict[str, dict[str, Any]]:
        """By run what it said last, and `updated`, when, in seconds since 1970; the newest first."""
        with self.database.read() as connection:
            return records.read_statuses(connection)

    def progress(self, now: float | None = None) -> Progress:
        """How far labelling has come."""
        with self.database.read() as connection:
            return progress(connection, self._clock() if now is None else now)
