"""Words with tags: files in CoNLL's format, and spans of BIO tags with their precision, recall and F1.

Tjong Kim Sang, De Meulder 2003, "Introduction to the CoNLL-2003 shared task" (section 2.3 has the measure), whose tags
and file format these are.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from envs.errors import RllabError
from language.data.records import decoded_lines

_DOCUMENT = "-DOCSTART-"


class TaggedSentence(NamedTuple):
    """A sentence."""

    words: tuple[str, ...]
    """One at least."""
    tags: tuple[str, ...]
    """As many."""


class Span(NamedTuple):
    """A part of a sentence."""

    kind: str
    """What it is, such as PER."""
    start: int
    """Its first word."""
    end: int
    """After its last word."""


class SpanScores(NamedTuple):
    """How well spans were found; one counts as right if its kind, start and end are."""

    precision: float
    """Of those that were found, the share that is right."""
    recall: float
    """Of those that are there, the share that was found."""
    f1: float
    """The harmonic mean of both; each is 0 where it is 0/0."""


def read_tagged(path: Path | str) -> list[TaggedSentence]:
    """The sentences of a file in CoNLL's format.

    A line has a word and its tag as its first and its last column, set apart by tabulators, or by spaces in lines that
    have no tabulator. Empty lines set sentences apart; lines that begin with -DOCSTART- do too.

    Raises:
        RllabError: the file cannot be read, has no sentence, or has a line without a tag or with another number of
            columns than the others (with its number).
    """
    path = Path(path)
    sentences: list[TaggedSentence] = []
    words: list[str] = []
    tags: list[str] = []
    columns, first = 0, 0

    def close() -> None:
        if words:
            sentences.append(TaggedSentence(tuple(words), tuple(tags)))
            words.clear()
            tags.clear()

    for number, line in enumerate(decoded_lines(path), 1):
        line = line.rstrip("\r\n")
        cells = line.split("\t") if "\t" in line else line.split()
        if not line.strip() or cells[0].startswith(_DOCUMENT):
            close()
            continue
        if len(cells) < 2 or not cells[0].strip() or not cells[-1].strip():
            raise RllabError(f"Line {number:,} of {path} has no word with a tag, but {line!r}; write WORD TAB TAG.")
        if not columns:
            columns, first = len(cells), number
        if len(cells) != columns:
            raise RllabError(
                f"Line {number:,} of {path} has {len(cells)} columns where line {first:,} has {columns}; correct one."
            )
        words.append(cells[0].strip())
        tags.append(cells[-1].strip())
    close()
    if not sentences:
        raise RllabError(f"{path} has no sentence; write a word and its tag a line, and empty lines between sentences.")
    return sentences


def are_spans(tags: Iterable[str]) -> bool:
    """Whether tags are O, B-… and I-… only, with at least one of the latter."""
    different = set(tags)
    return all(tag == "O" or tag[:2] in ("B-", "I-") for tag in different) and different != {"O"} and bool(different)


def spans_of(tags: Sequence[str]) -> list[Span]:
    """The spans of a sentence's tags.

    As in the shared task's program, I-X after O or after another kind begins a span too.
    """
    spans: list[Span] = []
    kind, start = "", 0
    for place, tag in enumerate([*tags, "O"]):
        inside = "" if tag == "O" else tag[2:]
        if kind and (tag.startswith("B-") or inside != kind):
            spans.append(Span(kind, start, place))
            kind = ""
        if inside and not kind:
            kind, start = inside, place
    return spans


def span_scores(right: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> SpanScores:
    """Precision, recall and F1 over all sentences together.

    Args:
        right: the tags of each sentence.
        found: those that were told of the same sentences.

    Raises:
        RllabError: there are not as many tags on both sides.
    """
    if [len(tags) for tags in right] != [len(tags) for tags in found]:
        raise RllabError("Spans are compared between equally many tags of the same sentences; these are not.")
    both = there = told = 0
    for wanted, given in zip(right, found, strict=True):
        one, other = set(spans_of(wanted)), set(spans_of(given))
        both, there, told = both + len(one & other), there + len(one), told + len(other)
    precision, recall = both / max(told, 1), both / max(there, 1)
    return SpanScores(precision, recall, 2 * both / max(there + told, 1))
