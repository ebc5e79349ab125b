"""Pairs and clips by the whole numbers that a page knows them by, and what it may see of them."""

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import and_, desc, func, select

from envs.errors import RllabError
from preference.codec import load_json
from preference.comparisons import Answer, Pair
from preference.records import standing
from preference.schema import ANSWER_COLUMNS, PAIR_COLUMNS, answer_of, answers, clips, pair_of, pairs, sheets
from preference.store import Sheet, Store

LONGEST_SHEET = 150
"""Frames from which on a clip is shown as a video: a browser holds a whole sheet in memory, decoded."""


class NotThere(Exception):
    """Somebody asks about what the store does not have."""


class Lookup:
    """Reads a store by numbers. What never changes is remembered."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.texts = store.task.kind == "texts"
        self._numbers: dict[uuid.UUID, int] = {}
        self._pairs: dict[int, Pair] = {}
        self._clips: dict[uuid.UUID, dict[str, Any]] = {}

    def pair(self, number: int) -> Pair:
        """The pair of a number. Raises NotThere."""
        if (known := self._pairs.get(number)) is not None:
            return known
        with self.store.database.read() as connection:
            row = connection.execute(select(*PAIR_COLUMNS).where(pairs.c.number == number)).one_or_none()
        if row is None:
            raise NotThere(f"There is no pair {number}.")
        pair = pair_of(row)
        self._numbers[pair.id], self._pairs[number] = number, pair
        return pair

    def numbers(self, of: Sequence[Pair]) -> list[int]:
        """The numbers of pairs that the store has."""
        unknown = [pair.id for pair in of if pair.id not in self._numbers]
        if unknown:
            with self.store.database.read() as connection:
                rows = connection.execute(select(pairs.c.id, pairs.c.number).where(pairs.c.id.in_(unknown))).all()
            self._numbers.update({row.id: row.number for row in rows})
        return [self._numbers[pair.id] for pair in of]

    def clip_id(self, number: int) -> uuid.UUID:
        """The id of a clip. Raises NotThere."""
        with self.store.database.read() as connection:
            found: uuid.UUID | None = connection.scalar(select(clips.c.id).where(clips.c.number == number))
        if found is None:
            raise NotThere(f"There is no clip {number}.")
        return found

    def sheet(self, number: int) -> Sheet:
        """The drawn frames of a clip. Raises NotThere."""
        statement = select(sheets.c.data, sheets.c.metadata).join(clips, clips.c.id == sheets.c.clip)
        with self.store.database.read() as connection:
            row = connection.execute(statement.where(clips.c.number == number)).one_or_none()
        if row is None:
            raise NotThere(f"The frames of clip {number} are not there.")
        return Sheet(bytes(row.data), load_json(row.metadata))

    def shown(self, of: Pair, *, swapped: bool, expires: float | None = None) -> dict[str, Any]:
        """What the page gets of a pair; `swapped`: the second on the left.

        Raises NotThere if the frames of a clip are not there.
        """
        self._remember((of.first, of.second))
        first, second = (self._clips[clip] for clip in (of.first, of.second))
        left, right = (second, first) if swapped else (first, second)
        (number,) = self.numbers([of])
        self._pairs[number] = of
        document: dict[str, Any] = {"pair": number}
        if expires is not None:
            document["expires"] = expires
        if self.texts:
            document["prompt"] = first["prompt"]
            left, right = ({"clip": side["clip"], "text": side["text"]} for side in (left, right))
        return {**document, "left": left, "right": right}

    def _remember(self, ids: Iterable[uuid.UUID]) -> None:
        unknown = [clip for clip in ids if clip not in self._clips]
        if not unknown:
            return
        columns = (clips.c.id, clips.c.number, clips.c.details if self.texts else sheets.c.metadata)
        statement = select(*columns).where(clips.c.id.in_(unknown))
        if not self.texts:
            statement = statement.join(sheets, sheets.c.clip == clips.c.id)
        with self.store.database.read() as connection:
            rows = connection.execute(statement).all()
        for identifier, number, document in rows:
            known = load_json(document)
            self._clips[identifier] = _text(number, known) if self.texts else _frames(number, known, self.store.id)
        if missing := [clip for clip in unknown if clip not in self._clips]:
            raise NotThere(f"The frames of clip {missing[0]} are not there.")

    def history(self, annotator: str, before: int | None, count: int) -> list[tuple[int, Answer, Pair]]:
        """A person's answers that count, the newest first, each with the place from which older ones go on."""
        condition = and_(answers.c.annotator == annotator, standing())
        if before is not None:
            condition = and_(condition, answers.c.number < before)
        statement = (
            select(answers.c.number, *ANSWER_COLUMNS, *PAIR_COLUMNS)
            .join(pairs, pairs.c.id == answers.c.pair)
            .where(condition)
            .order_by(desc(answers.c.number))
            .limit(count)
        )
        split = 1 + len(ANSWER_COLUMNS)
        with self.store.database.read() as connection:
            rows = [tuple(row) for row in connection.execute(statement)]
        return [(row[0], answer_of(row[1:split]), pair_of(row[split:])) for row in rows]

    def standing_answer(self, annotator: str, pair: uuid.UUID) -> Answer | None:
        """What a person says of a pair; None if they have not answered it, or took that back."""
        condition = and_(answers.c.annotator == annotator, answers.c.pair == pair, standing())
        with self.store.database.read() as connection:
            row = connection.execute(select(*ANSWER_COLUMNS).where(condition)).first()
        return None if row is None else answer_of(row)

    def open_count(self) -> int:
        """How many pairs wait for anybody's answer."""
        condition = and_(pairs.c.open, pairs.c.reserved.is_(None))
        with self.store.database.read() as connection:
            return connection.scalar(select(func.count()).select_from(pairs).where(condition)) or 0


def _text(number: int, details: Any) -> dict[str, Any]:
    return {"clip": number, "prompt": details["prompt"], "text": details["response"]}


def _frames(number: int, metadata: Any, store: str) -> dict[str, Any]:
    """Raises RllabError if the metadata is not that of a sheet.

    A browser keeps what it has loaded; the next store at the same address has other clips of the same numbers.
    """
    try:
        frames, columns = int(metadata["count"]), int(metadata["columns"])
        width, height, fps = int(metadata["width"]), int(metadata["height"]), float(metadata["fps"])
    except (KeyError, TypeError, ValueError) as error:
        raise RllabError(f"The frames of clip {number} are damaged ({error}).") from error
    return {
        "clip": number, "sheet": f"/api/clips/{number}/sheet?of={store}" if frames <= LONGEST_SHEET else None,
        "video": f"/api/clips/{number}/video?of={store}", "frames": frames, "fps": fps, "width": width,
        "height": height, "columns": columns,
    }  # fmt: skip
