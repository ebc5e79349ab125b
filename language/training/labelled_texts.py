"""Texts with labels from files or by name, in the same three parts as the texts that language models are trained on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from envs.errors import RllabError
from language.data.named import MOVIE_REVIEWS, SOURCES, read_movie_reviews
from language.data.order import shuffled, split
from language.data.records import read_records
from language.training.corpus import SHARES

NEGATIVE, POSITIVE = "negative", "positive"
"""The labels of the movie reviews."""


class LabelledTexts(NamedTuple):
    """One input and its class."""

    texts: tuple[str, ...]
    """One text; a pair; or a context and its answers."""
    label: str
    """The name of its class."""


@dataclass(frozen=True)
class LabelledTextsConfig:
    """Which texts, and which of them are learnt from."""

    files: tuple[str, ...] = ()
    """.csv, .tsv, .jsonl or .parquet, also with .gz."""
    data: str | None = None
    """In place of files: movie-reviews/imdb, movie-reviews/rotten_tomatoes, or movie-reviews for both."""
    field: str = "text"
    """The column or key of the text."""
    second: str | None = None
    """Of a second text, where pairs are classified."""
    choices: tuple[str, ...] = ()
    """Of each answer, where the right one is chosen; the label is then its field, its number from 0, or its text."""
    label: str = "label"
    """Of the class."""
    labels: int = 0
    """Learn from so many documents only, as many of each class, which the seed chooses; 0: all."""
    classes: tuple[str, ...] = ()
    """Only documents with these labels; all if none are given."""
    validation: int = 0
    """Judge by so many documents at most while training; 0: all."""
    tokenizer: str | None = None
    """A tokenizer's folder, for a model that is not pre-trained; by default one is trained on the texts."""

    def __post_init__(self) -> None:
        for name in ("labels", "validation"):
            if getattr(self, name) < 0:
                raise RllabError(f"{name} must be 0 or more, not {getattr(self, name)}.")
        if len(self.choices) == 1:
            raise RllabError("A choice needs the fields of two answers at least.")
        if self.choices and self.second is not None:
            raise RllabError("Give the field of a second text, or the fields of answers, not both.")

    def parts(self) -> dict[str, list[LabelledTexts]]:
        """All documents by part of the split, which a hash of the first text decides as in pre-training.

        So a text that a language model has learnt from is never in the part for test.

        Raises:
            RllabError: neither or both of files and data are given, they cannot be read, a record has no text or no
                label, or a part is empty.
        """
        parts = split(self._read(), SHARES, text_of=lambda labelled: labelled.texts[0])
        for wanted in self.classes:
            if not any(each.label == wanted for each in parts["training"]):
                raise RllabError(f"There are no documents with the label '{wanted}' to learn from; name other classes.")
        for name, documents in parts.items():
            parts[name] = [each for each in documents if not self.classes or each.label in self.classes]
            if not parts[name]:
                raise RllabError(f"No document falls into the part for {name}; give more documents.")
        return parts

    def _read(self) -> Iterator[LabelledTexts]:
        if bool(self.files) == (self.data is not None):
            raise RllabError("Give files with labels, or --data movie-reviews/imdb, one of the two.")
        if self.data is None:
            for path in self.files:
                yield from self._records(Path(path))
            return
        name, _, source = self.data.partition("/")
        if name != MOVIE_REVIEWS or (source and source not in SOURCES):
            known = ", ".join([MOVIE_REVIEWS, *(f"{MOVIE_REVIEWS}/{each}" for each in SOURCES)])
            raise RllabError(f"There are no labelled texts '{self.data}'; there are {known}.")
        for review in read_movie_reviews(source or None):
            yield LabelledTexts((review.text,), POSITIVE if review.label else NEGATIVE)

    def _records(self, path: Path) -> Iterator[LabelledTexts]:
        if not path.is_file():
            raise RllabError(f"There is no file {path}; check the path.")
        fields = [self.field, *([self.second] if self.second is not None else []), *self.choices]
        for number, record in enumerate(read_records(path, columns=[*fields, self.label]), 1):
            where = f"Record {number:,} of {path}"
            for field in fields:
                if not isinstance(record.get(field), str) or not record[field].strip():
                    has = f"it has {', '.join(record)}" if field not in record else "leave the record out"
                    raise RllabError(f"{where} has no text under '{field}'; {has}.")
            label = record.get(self.label)
            if label is None or label == "":
                has = f"it has {', '.join(record)}" if self.label not in record else "leave the record out"
                raise RllabError(f"{where} has no label under '{self.label}'; {has}.")
            texts = tuple(record[field] for field in fields)
            yield LabelledTexts(texts, self._chosen(label, texts[1:], where) if self.choices else str(label))

    def _chosen(self, label: Any, answers: Sequence[str], where: str) -> str:
        """The field of the right answer."""
        given = str(label)
        if given in self.choices:
            return given
        if given.isdecimal() and int(given) < len(self.choices):
            return self.choices[int(given)]
        if given in answers:
            return self.choices[answers.index(given)]
        raise RllabError(
            f"{where} has the label '{given}', which is no answer; give its field ({', '.join(self.choices)}), its "
            "number from 0, or its text."
        )


def few_of_each(documents: Sequence[LabelledTexts], count: int, seed: int) -> list[LabelledTexts]:
    """So many documents, as many of each class; with the same seed fewer are always among more.

    Raises:
        RllabError: there are not enough of a class.
    """
    classes = sorted({labelled.label for labelled in documents})
    chosen = []
    for place, name in enumerate(classes):
        wanted = count // len(classes) + (place < count % len(classes))
        own = [labelled for labelled in documents if labelled.label == name]
        if wanted < 1 or wanted > len(own):
            raise RllabError(
                f"{count:,} labels are {wanted:,} of '{name}', and there are {len(own):,} to learn from; give another "
                "number of labels."
            )
        chosen += shuffled(own, seed)[:wanted]
    return chosen
