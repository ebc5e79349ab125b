"""Importing: everything is checked before anything is written, and what is written comes in one transaction."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from envs.errors import RllabError
from preference import records, schema
from preference.comparisons import Answer, Clip, Pair
from preference.exchange.contents import Entry
from preference.exchange.documents import placed
from preference.store import Store
from preference.task import Task


class Archive(Protocol):
    """A file or folder of exported comparisons."""

    @property
    def task(self) -> Task:
        """What was compared. Raises RllabError when the file is something else."""

    def entries(self) -> Iterator[Entry]:
        """What is in it, from the beginning at every call. Raises RllabError, with the place, for what is no entry."""


@dataclass(frozen=True)
class Imported:
    """How much was new to the store."""

    clips: int
    pairs: int
    answers: int


@dataclass(frozen=True)
class _Plan:
    """What an archive has besides its clips, checked."""

    pairs: list[Pair]
    withdrawn: set[uuid.UUID]
    answers: list[Answer]


def import_archive(store: Store, archive: Archive, name: str) -> Imported:
    """Add what an archive has and the store has not; a second time changes nothing.

    Raises:
        RllabError: something in it is wrong or contradicts the store; nothing is imported then.
    """
    if (difference := store.task.difference(archive.task)) is not None:
        raise RllabError(f"{name} is of another task than the store: the store says that {difference}.")
    plan = _checked(store, archive, name)
    with store.database.write() as connection:
        clips = 0
        for entry in archive.entries():
            clips += records.add_clips(connection, store.task, entry.clips)
            drawn = records.known_ids(connection, schema.sheets.c.clip, entry.sheets)
            for clip, sheet in entry.sheets.items():
                if clip not in drawn:
                    records.set_sheet(connection, clip, sheet)
        pairs = records.add_pairs(connection, plan.pairs, plan.withdrawn)
        answers = records.add_answers(connection, plan.answers)
    return Imported(clips, pairs, answers)


def _checked(store: Store, archive: Archive, name: str) -> _Plan:
    """Read the whole archive once, holding no lock, and make sure that all of it can be added."""
    contents: dict[uuid.UUID, uuid.UUID] = {}
    pairs: dict[uuid.UUID, tuple[str, Entry, Pair]] = {}
    answers: list[tuple[int, str, Answer]] = []
    for entry in archive.entries():
        with placed(entry.place):
            for clip in entry.clips:
                _check_clip(store.task, clip, contents)
            if entry.pair is not None:
                known = pairs.setdefault(entry.pair.id, (entry.place, entry, entry.pair))[2]
                records.check_pair(entry.pair, {entry.pair.first, entry.pair.second}, known)
                schema.pair_row(entry.pair)
        answers += [(order, entry.place, answer) for order, answer in entry.answers]
    answers.sort(key=lambda numbered: numbered[0])  # Stable: without numbers, as they stand in the file.
    in_order = [answer for _, _, answer in answers]

    with store.database.read() as connection:
        with placed(name):
            records.check_clips(connection, contents)
        mentioned = {clip for _, _, pair in pairs.values() for clip in (pair.first, pair.second)}
        clips = set(contents) | records.known_ids(connection, schema.clips.c.id, mentioned)
        stored = {pair.id: pair for pair in records.read_pairs(connection, pairs)}
        for place, _, pair in pairs.values():
            with placed(place):
                records.check_pair(pair, clips, stored.get(pair.id, pair))
        asked = set(pairs) | records.known_ids(connection, schema.pairs.c.id, {answer.pair for answer in in_order})
        ledger = records.open_ledger(connection, in_order)
        for _, place, answer in answers:
            with placed(place):
                if answer.pair not in asked:
                    raise RllabError(f"the answer {answer.id} is to the pair {answer.pair}, which is nowhere")
                ledger.add(answer)
    withdrawn = {identifier for identifier, (_, entry, _) in pairs.items() if entry.withdrawn}
    return _Plan([pair for _, _, pair in pairs.values()], withdrawn, in_order)


def _check_clip(task: Task, clip: Clip, contents: dict[uuid.UUID, uuid.UUID]) -> None:
    task.check(clip)
    content = records.clip_content(clip)
    if contents.setdefault(clip.id, content) != content:
        raise RllabError(f"the id {clip.id} stood for another clip before")
