"""Frozen dataclasses from JSON documents, which know lists and objects alone."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_type_hints

Configuration = TypeVar("Configuration")


def with_tuples(document: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments from a JSON object, with tuples in place of lists."""
    return {name: _tuples(value) for name, value in document.items()}


def rebuilt(
    kind: type[Configuration], document: Mapping[str, Any], kinds: Mapping[str, type] | None = None
) -> Configuration:  # fmt: skip
    """The dataclass that `dataclasses.asdict` made a document of; its fields may be dataclasses too.

    Args:
        kind: its class.
        document: what a JSON file has of it. Keys that are no fields are not looked at, missing ones have their
            default.
        kinds: the classes of fields whose type does not tell, because it depends on other fields.

    Raises:
        TypeError: a field without a default is missing, or one is unknown in a dataclass within.
    """
    hints = {**get_type_hints(kind), **(kinds or {})}
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: _value(hints[name], document[name]) for name in names if name in document})


def _value(hint: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        for option in (hint, *get_args(hint)):
            if dataclasses.is_dataclass(option):
                hints = get_type_hints(option)
                return option(**{name: _value(hints.get(name), part) for name, part in value.items()})  # type: ignore[operator]
    return _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
