"""Normalisers: what is done to a text before it is split, with the way back to the characters it was made of."""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeAlias

NormaliserName: TypeAlias = Literal["none", "nfc", "nfd", "nfkc", "nfkd", "lowercase", "bert", "bert-cased"]
"""`nfc` … `nfkd` are Unicode's normal forms; `bert` cleans white space, sets Chinese characters apart, strips accents
and lowers case; `bert-cased` leaves accents and case as they are."""

WHITE_SPACE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's property White_Space, as the inside of a class of a regular expression; `str.isspace` has four more."""
_OTHER_SPACES = "\x1c\x1d\x1e\x1f"
_FORM = Literal["NFC", "NFD", "NFKC", "NFKD"]


class Aligned(NamedTuple):
    """A normalised text, and where each of its characters comes from."""

    text: str
    starts: Sequence[int]
    """For each character, where what it was made of begins in the text as given."""
    ends: Sequence[int]
    """For each character, where what it was made of ends (exclusive)."""


class _CharacterMap(dict[int, str]):
    """What becomes of each character, kept once it was asked for; `str.translate` takes it as its table."""

    def __init__(self, function: Callable[[str], str]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, code_point: int) -> str:
        replaced = self[code_point] = self._function(chr(code_point))
        return replaced


_Step: TypeAlias = "_FORM | _CharacterMap"


def is_white_space(character: str) -> bool:
    """Whether a character has Unicode's property White_Space."""
    return character.isspace() and character not in _OTHER_SPACES


def _cleaned(character: str) -> str:
    if character in "\t\n\r":
        return " "
    if character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs"):
        return ""
    return " " if is_white_space(character) else character


_CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


def _set_apart(character: str) -> str:
    # The ranges are those of Hugging Face's implementation, whose sixth begins at 2B920 where BERT's has 2B820.
    chinese = any(first <= ord(character) <= last for first, last in _CHINESE)
    return f" {character} " if chinese else character


def _without_accents(character: str) -> str:
    return "" if unicodedata.category(character) == "Mn" else character


# A character at a time, because `str.lower` looks at the neighbours of a capital sigma.
_LOWER = _CharacterMap(str.lower)
_CLEAN, _APART, _STRIP = _CharacterMap(_cleaned), _CharacterMap(_set_apart), _CharacterMap(_without_accents)

_STEPS: dict[str, tuple[_Step, ...]] = {
    "none": (),
    "nfc": ("NFC",),
    "nfd": ("NFD",),
    "nfkc": ("NFKC",),
    "nfkd": ("NFKD",),
    "lowercase": (_LOWER,),
    "bert": (_CLEAN, _APART, "NFD", _STRIP, _LOWER),
    "bert-cased": (_CLEAN, _APART),
}


@dataclass(frozen=True)
class Normaliser:
    """A normaliser of a name."""

    name: NormaliserName = "none"
    """Which."""

    def __call__(self, text: str) -> str:
        """The normalised text."""
        for step in _STEPS[self.name]:
            text = text.translate(step) if isinstance(step, _CharacterMap) else unicodedata.normalize(step, text)
        return text

    def aligned(self, text: str) -> Aligned:
        """The normalised text with the place of each character in the text as given."""
        result = Aligned(text, range(len(text)), range(1, len(text) + 1))
        for step in _STEPS[self.name]:
            result = _mapped(result, step) if isinstance(step, _CharacterMap) else _in_form(result, step)
        return result

    def to_huggingface(self) -> dict[str, Any] | None:
        """The same as the `normalizer` of a `tokenizer.json`."""
        if self.name == "none":
            return None
        if self.name.startswith("bert"):
            return {
                "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                "lowercase": self.name == "bert",
            }  # fmt: skip
        return {"type": "Lowercase" if self.name == "lowercase" else self.name.upper()}


def _mapped(given: Aligned, table: _CharacterMap) -> Aligned:
    characters, starts, ends = [], [], []
    for character, start, end in zip(*given, strict=True):
        for replaced in table[ord(character)]:
            characters.append(replaced)
            starts.append(start)
            ends.append(end)
    return Aligned("".join(characters), starts, ends)


def _in_form(given: Aligned, form: _FORM) -> Aligned:
    """A normal form, which puts together characters that belong together and looks no farther."""
    text = given.text
    whole = unicodedata.normalize(form, text)
    if whole == text:
        return given
    cuts = [0, *(index for index in range(1, len(text)) if _begins_anew(text[index])), len(text)]
    parts = [(unicodedata.normalize(form, text[a:b]), a, b) for a, b in pairwise(cuts)]
    if "".join(part for part, _, _ in parts) != whole:  # something composes across a cut: align it as one
        parts = [(whole, 0, len(text))]
    starts: list[int] = []
    ends: list[int] = []
    for part, first, last in parts:
        if part == text[first:last]:
            starts += given.starts[first:last]
            ends += given.ends[first:last]
        else:
            starts += [given.starts[first]] * len(part)
            ends += [given.ends[last - 1]] * len(part)
    return Aligned(whole, starts, ends)


def _begins_anew(character: str) -> bool:
    """Whether nothing of this character can go into the one before it: it is no mark and no vowel of Hangul."""
    marks = unicodedata.category(character).startswith("M") or unicodedata.combining(character)
    return not (marks or "\u1160" <= character <= "\u11ff" or "\uff9e" <= character <= "\uffdc")
