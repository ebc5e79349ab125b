"""Parallel text, pairs of a sentence and its translation: from TSV files, and from Debian's word list `trans-de-en`."""

import re
from collections.abc import Iterator
from pathlib import Path

from envs.errors import RllabError
from language.data.records import DecodingErrors, decoded_lines, read_records

DICTIONARY = Path("/usr/share/trans/de-en")
"""Where Debian's package trans-de-en puts Frank Richter's word list (GPL-2+)."""
_NOTES = re.compile(r"\s*(?:\{[^{}]*\}|\[[^\[\]]*\]|\([^()]*\)|/[^/\s]+/)")
_NEXT_ALTERNATIVE = re.compile(r"(?<=[.!?…'\"]); ")
_END_OF_SENTENCE = (".", "!", "?", "…", ".'", '."', '!"', '?"')
_LAST_CHARACTERS = tuple(".!?…'\")]}/")  # a note may stand behind the sentence
_WORDS_OF_A_SENTENCE = 3


def read_parallel(
    path: Path | str, columns: tuple[int, int] = (0, 1), *, errors: DecodingErrors = "strict"
) -> Iterator[tuple[str, str]]:
    """Pairs of a TSV file without a header, such as Tatoeba's: a pair a line, cells set apart by tabulators.

    Args:
        path: the file; `.gz` is unpacked.
        columns: which cells are the source and the target.
        errors: what to do with bytes that are not UTF-8.

    Raises:
        RllabError: the file cannot be read, is not UTF-8, or a line has too few cells.
    """
    for number, line in enumerate(decoded_lines(Path(path), errors), 1):
        if not line.strip():
            continue
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) <= max(columns):
            raise RllabError(
                f"Line {number:,} of {path} has {len(cells)} cells set apart by tabulators; "
                f"{max(columns) + 1} are needed."
            )
        yield cells[columns[0]], cells[columns[1]]


def read_pairs_of_columns(path: Path | str, source: str, target: str) -> Iterator[tuple[str, str]]:
    """Pairs of a JSON-lines, CSV, TSV or Parquet file whose columns have names.

    Raises:
        RllabError: the file cannot be read, or a record lacks one of the columns.
    """
    for number, record in enumerate(read_records(path, columns=[source, target]), 1):
        for name in (source, target):
            if not isinstance(record.get(name), str):
                raise RllabError(f"Record {number:,} of {path} has no text under '{name}'; it has {', '.join(record)}.")
        yield record[source], record[target]


def read_dictionary(
    path: Path | str | None = None, *, sentences: bool = True, first_wording: bool = False
) -> Iterator[tuple[str, str]]:  # fmt: skip
    """German and English pairs of a word list in Ding's format, `Wort {n} | Wörter {pl} :: word | words`.

    Args:
        path: the list; by default that of the Debian package `trans-de-en`, where it is installed.
        sentences: only the examples: pairs of whole sentences, which both begin with a capital, end with a full stop,
            question or exclamation mark, and have three words or more, the first of several wordings. Otherwise all
            entries.
        first_wording: of all entries too only the first of several wordings, which are set apart by semicolons.

    Notes on usage (in brackets) are left out, and pairs without their counterpart too.

    Raises:
        RllabError: the list is not there, or not UTF-8.
    """
    path = DICTIONARY if path is None else Path(path)
    if not path.exists():
        raise RllabError(f"There is no word list {path}; `apt install trans-de-en`, or give a path.")
    for line in decoded_lines(path):
        if line.startswith("#") or "::" not in line:
            continue
        german, _, english = line.rstrip("\r\n").partition("::")
        sides = german.split(" | "), english.split(" | ")
        if len(sides[0]) != len(sides[1]):
            continue
        for source, target in zip(*sides, strict=True):
            # Most parts are words; their notes need not be looked for.
            if sentences and not (_may_be_sentence(source) and _may_be_sentence(target)):
                continue
            pair = _without_notes(source), _without_notes(target)
            if sentences:
                pair = _first_wording(pair[0]), _first_wording(pair[1])
            elif first_wording:
                pair = pair[0].partition(";")[0], pair[1].partition(";")[0]
            if all(pair) and (not sentences or all(map(_is_sentence, pair))):
                yield pair


def _without_notes(text: str) -> str:
    previous = None
    while previous != text:  # notes stand inside notes
        previous, text = text, _NOTES.sub("", text)
    return " ".join(text.split())


def _first_wording(text: str) -> str:
    return _NEXT_ALTERNATIVE.split(text, maxsplit=1)[0]


def _may_be_sentence(text: str) -> bool:
    return text.count(" ") >= _WORDS_OF_A_SENTENCE - 1 and text.rstrip()[-1:] in _LAST_CHARACTERS


def _is_sentence(text: str) -> bool:
    return text[0].isupper() and text.endswith(_END_OF_SENTENCE) and len(text.split()) >= _WORDS_OF_A_SENTENCE
