"""Special tokens: strings that stand for something other than text, and are matched before anything else."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from envs.errors import RllabError


@dataclass(frozen=True)
class SpecialTokens:
    """Which special tokens there are. They get the first ids, in the order of these fields."""

    padding: str | None = None
    """Fills short sequences of a batch."""
    unknown: str | None = None
    """Stands for what the vocabulary cannot express."""
    begin: str | None = None
    """Begins a text."""
    end: str | None = None
    """Ends a text."""
    classifier: str | None = None
    """Begins an input of BERT; what it becomes is classified."""
    separator: str | None = None
    """Parts the sentences of an input of BERT."""
    mask: str | None = None
    """Stands where a word is to be guessed."""
    additional: tuple[str, ...] = ()
    """Any others."""

    def __post_init__(self) -> None:
        tokens = self.tokens()
        if "" in tokens:
            raise RllabError("A special token must not be empty; leave it out instead.")
        if len(set(tokens)) < len(tokens):
            twice = next(token for token in tokens if tokens.count(token) > 1)
            raise RllabError(f"'{twice}' is given as a special token twice; give each its own string.")

    def tokens(self) -> tuple[str, ...]:
        """Those that exist, in the order of their ids."""
        named = (getattr(self, field.name) for field in fields(self) if field.name != "additional")
        return (*(token for token in named if token is not None), *self.additional)

    def names(self) -> dict[str, str]:
        """The string of each that has a name and exists."""
        given = asdict(self)
        del given["additional"]
        return {name: token for name, token in given.items() if token is not None}

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold; `from_json` reads it."""
        return self.names() | ({"additional": list(self.additional)} if self.additional else {})

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """What `to_json` gave. Raises TypeError if it is something else."""
        return cls(**{**document, "additional": tuple(document.get("additional", ()))})


NO_SPECIAL = SpecialTokens()
"""None at all."""
UNKNOWN_ONLY = SpecialTokens(unknown="<unk>")
"""One, for what is unknown."""


class SpecialTokenMatcher:
    """Finds special tokens in texts: the leftmost first, the longest of those that begin there."""

    def __init__(self, ids: dict[str, int]) -> None:
        """`ids` gives the id of each special token."""
        self.ids = ids
        longest_first = sorted(ids, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def occurs_in(self, text: str) -> bool:
        """Whether there is any in `text`."""
        # Several searches for a substring are much faster than one for a pattern of alternatives.
        return any(token in text for token in self.ids)

    def split(self, text: str) -> Iterator[tuple[int, int, int | None]]:
        """The parts of `text`: start, end, and the id where the part is a special token."""
        position = 0
        if self.ids:
            for match in self._pattern.finditer(text):
                if match.start() > position:
                    yield position, match.start(), None
                yield match.start(), match.end(), self.ids[match[0]]
                position = match.end()
        if position < len(text):
            yield position, len(text), None
