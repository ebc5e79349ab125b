"""Configurations of tokenizers as JSON, and back."""

from dataclasses import asdict, fields
from typing import Any, TypeVar

from language.tokenizers.special import SpecialTokens

Configuration = TypeVar("Configuration")


def to_settings(config: Any) -> dict[str, Any]:
    """The fields of a configuration (a dataclass with a field `special`), as JSON can hold them."""
    return asdict(config) | {"special": config.special.to_json()}


def from_settings(kind: type[Configuration], settings: dict[str, Any]) -> Configuration:
    """The configuration of which `to_settings` gave the fields.

    Raises KeyError, TypeError or ValueError if they are something else.
    """
    expected = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if settings.keys() != expected:
        raise ValueError(f"the settings differ in {', '.join(sorted(settings.keys() ^ expected))}")
    return kind(**{**settings, "special": SpecialTokens.from_json(settings["special"])})
