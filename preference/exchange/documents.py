"""Clips, pairs and answers as JSON objects with plain keys, and back, with every value checked."""

import base64
import binascii
import math
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TypeVar

from numpy.typing import NDArray

from envs.errors import RllabError
from preference.codec import array_from_json, array_to_json
from preference.comparisons import Answer, Clip, Label, Pair
from preference.exchange.contents import Entry
from preference.ledger import check_answer
from preference.records import Sheet
from preference.schema import FORMAT
from preference.task import Task

VERSION = 1
_Value = TypeVar("_Value")
Arrays = Callable[[Mapping[str, Any]], Mapping[str, NDArray[Any]]]
"""Gives the arrays of a clip's document."""


def header(task: Task) -> dict[str, Any]:
    """What a file begins with."""
    return {"format": FORMAT, "version": VERSION, "task": asdict(task)}


def task_of(document: Any) -> Task:
    """The task of a header.

    Raises:
        RllabError: it is no header, or one of another version.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RllabError(f'it does not begin as an export of comparisons does, with {{"format": "{FORMAT}", …}}')
    if document.get("version") != VERSION:
        raise RllabError(f"it has version {document.get('version')!r}, but this rllab reads version {VERSION}")
    return Task.from_document(document.get("task"))


def entry_to_document(entry: Entry, with_arrays: bool = True) -> dict[str, Any]:
    """The JSON object of an entry."""
    documents = [clip_to_document(clip, entry.sheets.get(clip.id), with_arrays) for clip in entry.clips]
    if entry.pair is None:
        return {"clip": documents[0]}
    pair = entry.pair
    document: dict[str, Any] = {
        "pair": {
            "id": str(pair.id), "first": str(pair.first), "second": str(pair.second), "run": pair.run,
            "strategy": pair.strategy, "priority": pair.priority, "details": dict(pair.details),
            "created": pair.created, "withdrawn": entry.withdrawn,
        },
        "answers": [
            {
                "order": order, "id": str(answer.id), "annotator": answer.annotator,
                "label": None if answer.label is None else answer.label.value, "swapped": answer.swapped,
                "seconds": answer.seconds, "supersedes": None if answer.supersedes is None else str(answer.supersedes),
                "created": answer.created, "late": answer.late, "time": _legible(answer.created),
            }
            for order, answer in entry.answers
        ],
    }  # fmt: skip
    return {**document, **dict(zip(("first", "second"), documents, strict=False))}


def entry_of(document: Any, place: str, arrays: Arrays | None = None) -> Entry:
    """The entry of a JSON object, with arrays as they stand in it unless `arrays` gives them.

    Raises:
        RllabError: it is none; the sentence has no place and no end.
    """
    if not isinstance(document, dict) or not {"clip", "pair"} & set(document):
        raise RllabError("it is neither a comparison (`pair`) nor a clip (`clip`)")
    clips, drawn = [], {}
    for key in ("clip", "first", "second"):
        if key in document:
            clip, sheet = clip_of(_object(document, key), arrays or arrays_of)
            clips.append(clip)
            if sheet is not None:
                drawn[clip.id] = sheet
    if "pair" not in document:
        return Entry(place, tuple(clips), drawn)
    content = _object(document, "pair")
    pair = Pair(
        identifier_of(content, "id"), identifier_of(content, "first"), identifier_of(content, "second"),
        _text(content, "run", ""), _text(content, "strategy", ""), _number(content, "priority", 0.0),
        _object(content, "details", {}), _number(content, "created"),
    )  # fmt: skip
    for key, identifier in (("first", pair.first), ("second", pair.second)):
        if key in document and identifier_of(document[key], "id") != identifier:
            raise RllabError(f"its {key} clip has another id than its pair says")
    given = _value(document, "answers", (list,), [])
    answers = tuple(_numbered(answer, pair.id) for answer in given)
    return Entry(place, tuple(clips), drawn, pair, _value(content, "withdrawn", (bool,), False), answers)


def clip_to_document(clip: Clip, sheet: Sheet | None, with_arrays: bool = True) -> dict[str, Any]:
    """The JSON object of a clip and its drawn frames."""
    document: dict[str, Any] = {
        "id": str(clip.id), "run": clip.run, "policy_step": clip.policy_step, "details": dict(clip.details),
        "created": clip.created,
    }  # fmt: skip
    if with_arrays:
        document["arrays"] = {name: array_to_json(array) for name, array in clip.arrays.items()}
    if sheet is not None:
        document["sheet"] = {"metadata": sheet.metadata, "base64": base64.b64encode(sheet.data).decode()}
    return document


def clip_of(document: dict[str, Any], arrays: Arrays) -> tuple[Clip, Sheet | None]:
    """The clip of a JSON object, and its drawn frames where it has them. Raises RllabError when it is none."""
    clip = Clip(
        identifier_of(document, "id"), arrays(document), _text(document, "run", ""),
        _value(document, "policy_step", (int,), 0), _object(document, "details", {}), _number(document, "created"),
    )  # fmt: skip
    if "sheet" not in document:
        return clip, None
    drawn = _object(document, "sheet")
    try:
        return clip, Sheet(base64.b64decode(_text(drawn, "base64"), validate=True), _object(drawn, "metadata", {}))
    except (binascii.Error, ValueError) as error:
        raise RllabError(f"the frames of the clip {clip.id} are damaged ({error})") from error


def arrays_of(document: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The arrays that stand in a clip's document. Raises RllabError when one is damaged."""
    return {name: array_from_json(array) for name, array in _object(document, "arrays").items()}


def answer_of(document: Any, pair: uuid.UUID) -> Answer:
    """The answer of a JSON object. Raises RllabError when it is none."""
    if not isinstance(document, dict):
        raise RllabError("an answer is no JSON object")
    word = _value(document, "label", (str, type(None)))
    if word is not None and word not in list(Label):
        raise RllabError(f"{word!r} is not a label: use {', '.join(label.value for label in Label)}")
    answer = Answer(
        identifier_of(document, "id"), pair, _text(document, "annotator"), None if word is None else Label(word),
        _value(document, "swapped", (bool,), False),
        None if document.get("seconds") is None else _number(document, "seconds"),
        None if document.get("supersedes") is None else identifier_of(document, "supersedes"),
        _number(document, "created"),
        _value(document, "late", (bool,), False),
    )  # fmt: skip
    check_answer(answer)
    return answer


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Says in an error where in which file it was met, and that nothing was imported."""
    try:
        yield
    except RllabError as error:
        raise RllabError(f"{place}: {str(error).rstrip('.')}; nothing was imported.") from error


def _numbered(document: Any, pair: uuid.UUID) -> tuple[int, Answer]:
    answer = answer_of(document, pair)
    return _value(document, "order", (int,), 0), answer


def _legible(created: float) -> str | None:
    """A time for people; `created` is what is read back."""
    try:
        return datetime.fromtimestamp(created, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return None


_REQUIRED: Any = object()


def _value(
    document: Mapping[str, Any], key: str, types: tuple[type[_Value], ...], default: _Value = _REQUIRED
) -> _Value:
    value = document.get(key, default)
    if value is _REQUIRED:
        raise RllabError(f"it has no `{key}`")
    # JSON's true is no number, though Python's is.
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise RllabError(f"its `{key}` cannot be {str(value)[:60]!r}")
    return value


def _text(document: Mapping[str, Any], key: str, default: str = _REQUIRED) -> str:
    value = _value(document, key, (str,), default)
    if "\0" in value:
        raise RllabError(f"its `{key}` has a character that cannot be kept")
    return value


def _object(document: Mapping[str, Any], key: str, default: dict[str, Any] = _REQUIRED) -> dict[str, Any]:
    return _value(document, key, (dict,), default)


def _number(document: Mapping[str, Any], key: str, default: float = _REQUIRED) -> float:
    value = float(_value(document, key, (int, float), default))
    if not math.isfinite(value):
        raise RllabError(f"its `{key}` cannot be {value}")
    return value


def identifier_of(document: Any, key: str) -> uuid.UUID:
    """The UUID under a key. Raises RllabError when there is none."""
    if not isinstance(document, Mapping):
        raise RllabError("a clip is no JSON object")
    value = _text(document, key)
    try:
        return uuid.UUID(value)
    except ValueError as error:
        raise RllabError(f"its `{key}` is not a UUID: {value[:60]!r}") from error
