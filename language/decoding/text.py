"""Text while it is generated: pieces that no later token changes, and strings that end it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from language.tokenizers.tokenizer import Tokenizer

_HALF = "\ufffd"
_LONGEST_HALF = 3
"""A character of UTF-8 has up to 4 bytes, and a tokenizer may show each byte of an incomplete one as U+FFFD."""
_SHORT = 8


class TextStream:
    """The text of tokens that come one by one, as what they add to the prompt's text.

    Only the last tokens are decoded again: as many as give the end of the text when they are decoded alone.
    """

    def __init__(self, tokenizer: "Tokenizer", prompt: Sequence[int] = ()) -> None:
        """`prompt` has the ids that come before; if it ends within a character, the first piece has the whole one."""
        self._tokenizer = tokenizer
        self._window = list(prompt)
        text = tokenizer.decode(self._window)
        self._shown = _settled(text)
        self._limit = 0
        self._shorten(text)

    def push(self, *tokens: int) -> str:
        """The text that is certain now and was not before; empty within a character."""
        self._window += tokens
        text = self._tokenizer.decode(self._window)
        piece = text[self._shown : _settled(text)]
        self._shown += len(piece)
        self._shorten(text)
        return piece

    def finish(self) -> str:
        """What is left at the end: bytes that are no character, as U+FFFD."""
        text = self._tokenizer.decode(self._window)
        piece = text[self._shown :]
        self._shown = len(text)
        return piece

    def _shorten(self, text: str) -> None:
        """Forget tokens that later text does not depend on."""
        if len(self._window) <= self._limit or self._shown < len(text):
            return
        size = _SHORT
        while size < len(self._window):
            end = self._tokenizer.decode(self._window[-size:])
            # What begins within a word or character may be decoded otherwise, and so may what gives no text.
            if end and text.endswith(end):
                self._window, self._shown = self._window[-size:], len(end)
                break
            size *= 2
        self._limit = 2 * max(_SHORT, len(self._window))


def _settled(text: str) -> int:
    """How many characters of a text no further token changes."""
    return max(len(text.rstrip(_HALF)), len(text) - _LONGEST_HALF)


class StopStrings:
    """Cuts a text that comes in pieces at the first stop string, wherever the pieces' borders are."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._held = ""
        self.is_found = False
        """Whether one has come; there is no further text then."""

    def push(self, piece: str) -> str:
        """The text that certainly comes before any stop string; what may begin one is held back."""
        if self.is_found:
            return ""
        self._held += piece
        found = [(place + len(string), place) for string in self._strings if (place := self._held.find(string)) >= 0]
        if found:
            self.is_found = True
            # The first to be complete, so that it does not matter in which pieces the text came.
            _, place = min(found)
            text, self._held = self._held[:place], ""
            return text
        keep = max((_overlap(self._held, string) for string in self._strings), default=0)
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        return text

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, string: str) -> int:
    """How many characters at the end of a text begin a string, without being all of it."""
    return next((size for size in range(min(len(string) - 1, len(text)), 0, -1) if text.endswith(string[:size])), 0)
