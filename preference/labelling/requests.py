"""What a page sends, looked at before anything is done with it."""

import uuid
from collections.abc import Mapping
from typing import Any

from preference.labelling.tally import label_of

LONGEST_NAME = 64
MOST_NUMBERS = 100
MOST_SECONDS = 1e6


class Malformed(Exception):
    """A request that the page would not send, in a sentence."""


def name(document: Mapping[str, Any]) -> str:
    """The annotator's. Raises Malformed."""
    text = document.get("annotator")
    if not isinstance(text, str) or not text.strip() or len(text) > LONGEST_NAME or not text.isprintable():
        raise Malformed(f"The annotator needs a name of 1 to {LONGEST_NAME} printable characters.")
    return text.strip()


def number(document: Mapping[str, Any], key: str) -> int:
    """A whole number of at least 0. Raises Malformed."""
    value = document.get(key)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 16:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise Malformed(f"`{key}` must be a whole number, not {str(value)[:40]!r}.")
    return value


def numbers(document: Mapping[str, Any], key: str) -> list[int]:
    """A short list of whole numbers. Raises Malformed."""
    values = document.get(key, [])
    if not isinstance(values, list) or len(values) > MOST_NUMBERS:
        raise Malformed(f"`{key}` must be a list of at most {MOST_NUMBERS} numbers.")
    return [number({key: value}, key) for value in values]


def identifier(document: Mapping[str, Any], key: str) -> uuid.UUID:
    """A UUID. Raises Malformed."""
    try:
        return uuid.UUID(str(document[key]))
    except (KeyError, ValueError) as error:
        raise Malformed(f"`{key}` must be a UUID.") from error


def choice(document: Mapping[str, Any]) -> str:
    """left, right, tie or skip. Raises Malformed."""
    value = document.get("choice")
    try:
        label_of(str(value), False)
    except KeyError as error:
        raise Malformed(f"`choice` must be left, right, tie or skip, not {str(value)[:40]!r}.") from error
    return str(value)


def seconds(document: Mapping[str, Any]) -> float | None:
    """How long an answer took, if it is said. Raises Malformed."""
    value = document.get("seconds")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MOST_SECONDS:
        raise Malformed("`seconds` must be a number from 0 to a million.")
    return float(value)


def objects(document: Mapping[str, Any], key: str, most: int) -> list[dict[str, Any]]:
    """A list of at most so many objects. Raises Malformed."""
    values = document.get(key)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values) or len(values) > most:
        raise Malformed(f"`{key}` must be a list of at most {most} objects.")
    return values
