"""Pre-tokenisers: how a text is split into words, across whose borders no token reaches.

Each is a regular expression whose matches are the words. Texts of ASCII characters alone take one of the standard
library; it is quicker, and gives the same words. For others the package `regex` knows Unicode's properties.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias

from envs.errors import RllabError
from language.tokenizers.normalisation import WHITE_SPACE

PreTokeniserName: TypeAlias = Literal["whitespace", "bert", "gpt2", "gpt4", "characters", "none"]
"""`whitespace`: runs of letters, digits and underscores, and runs of other signs; `bert`: punctuation marks stand
alone; `gpt2`: words with the space before them, by the pattern of GPT-2; `gpt4`: the newer pattern, which also keeps
numbers to three digits; `characters`: each by itself; `none`: the text as it is."""

_PATTERNS = {
    "whitespace": "[<word>]+|[^<word><space>]+",
    "bert": "[^<space><punctuation>]+|[<punctuation>]",
    "gpt2": "'s|'t|'re|'ve|'m|'ll|'d| ?[<letter>]+| ?[<number>]+| ?[^<space><letter><number>]+"
    "|[<space>]+(?![^<space>])|[<space>]+",
    "gpt4": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n<letter><number>]?[<letter>]+|[<number>]{1,3}"
    "| ?[^<space><letter><number>]+[\r\n]*|[<space>]*[\r\n]+|[<space>]+(?![^<space>])|[<space>]+",
    "characters": "(?s:.)",
    "none": "(?s:.)+",
}
"""The names in angle brackets are replaced by what is inside of classes of characters."""
_ASCII = {
    "letter": "A-Za-z",
    "number": "0-9",
    "word": "A-Za-z0-9_",
    "space": r"\t\n\x0b\x0c\r ",
    "punctuation": r"!-/:-@\[-`{-~",
}
_UNICODE = {
    "letter": r"\p{L}",
    "number": r"\p{N}",
    "word": r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}",
    "space": WHITE_SPACE,
    "punctuation": r"!-/:-@\[-`{-~\p{P}",
}
_HUGGING_FACE = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
    "characters": r"[\s\S]",
}
"""The same patterns in the dialect that `tokenizer.json` has."""


@dataclass(frozen=True)
class PreTokeniser:
    """A pre-tokeniser of a name."""

    name: PreTokeniserName
    """Which."""

    def words(self, text: str) -> list[str]:
        """The words of a (normalised) text."""
        return self._pattern(text).findall(text)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where the words begin and end."""
        return [match.span() for match in self._pattern(text).finditer(text)]

    def _pattern(self, text: str) -> re.Pattern[str]:
        return ascii_pattern(self.name) if text.isascii() else unicode_pattern(self.name)

    def to_huggingface(self) -> dict[str, Any] | None:
        """The same as the `pre_tokenizer` of a `tokenizer.json`; without the mapping of bytes to characters."""
        match self.name:
            case "whitespace":
                return {"type": "Whitespace"}
            case "bert":
                return {"type": "BertPreTokenizer"}
            case "none":
                return None
        pattern = {"Regex": _HUGGING_FACE[self.name]}
        return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


@cache
def ascii_pattern(name: str) -> re.Pattern[str]:
    """What matches the words of texts of ASCII characters alone."""
    return re.compile(_filled_in(name, _ASCII))


@cache
def unicode_pattern(name: str) -> re.Pattern[str]:
    """What matches the words of any text. Raises RllabError if the package `regex` is missing."""
    try:
        import regex  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise RllabError(
            "Texts with other than ASCII characters need the package regex; `pip install regex`."
        ) from error
    compiled: re.Pattern[str] = regex.compile(_filled_in(name, _UNICODE))
    return compiled


def _filled_in(name: str, classes: dict[str, str]) -> str:
    return re.sub("<([a-z]+)>", lambda match: classes[match[1]], _PATTERNS[name])
