"""Text files, JSON lines, CSV, TSV and Parquet as streams of texts or of records; `.gz` is read as what it holds."""

import csv
import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias, cast

from envs.errors import RllabError

DecodingErrors: TypeAlias = Literal["strict", "replace", "ignore"]
"""What to do with bytes that are not UTF-8: refuse the file, put U+FFFD in their place, or leave them out."""
Unit: TypeAlias = Literal["line", "paragraph", "file"]
"""What one text of a plain file is; paragraphs are set apart by empty lines."""

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class FileTexts:
    """The texts of some files, read anew each time they are iterated over, so never all in memory."""

    paths: tuple[Path, ...]
    """Read in this order; the suffix says the format: .txt and unknown ones are plain text."""
    field: str = "text"
    """The column or key of the text in JSON lines, CSV, TSV and Parquet."""
    unit: Unit = "line"
    """What one text of a plain file is."""
    errors: DecodingErrors = "strict"
    """What to do with bytes that are not UTF-8."""

    def __iter__(self) -> Iterator[str]:
        return read_texts(self.paths, field=self.field, unit=self.unit, errors=self.errors)


def read_texts(
    paths: Sequence[Path | str] | Path | str, *, field: str = "text", unit: Unit = "line",
    errors: DecodingErrors = "strict",
) -> Iterator[str]:  # fmt: skip
    """The texts of files, one after another. Lines come without their ends; empty ones are left out.

    Args:
        paths: one file or several; the suffix says the format.
        field: the column or key of the text where there are several.
        unit: what one text of a plain file is.
        errors: what to do with bytes that are not UTF-8.

    Raises:
        RllabError: a file cannot be read, is not what its suffix says, is not UTF-8 (with the position), or has no such
            field.
    """
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        path = Path(path)
        if _format_of(path) == ".txt":
            yield from _plain_texts(path, unit, errors)
            continue
        for number, record in enumerate(read_records(path, errors=errors, columns=[field]), 1):
            if not isinstance(text := record.get(field), str):
                has = f"it has {', '.join(map(str, record))}" if field not in record else f"it holds {text!r} there"
                raise RllabError(f"Record {number:,} of {path} has no text under '{field}'; {has}.")
            if text:
                yield text


def read_records(
    path: Path | str, *, errors: DecodingErrors = "strict", columns: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The records of a JSON-lines, CSV, TSV or Parquet file. The cells of CSV and TSV are strings.

    Args:
        path: the file; CSV and TSV name their columns in the first line.
        errors: what to do with bytes that are not UTF-8.
        columns: what a Parquet file is read for; the other formats give everything.

    Raises:
        RllabError: the file cannot be read, or is not what its suffix says.
    """
    path = Path(path)
    kind = _format_of(path)
    if kind in _JSON_LINES:
        yield from _json_records(path, errors)
    elif kind in _DELIMITERS:
        yield from _cell_records(path, _DELIMITERS[kind], errors)
    elif kind == ".parquet":
        yield from _parquet_records(path, columns)
    else:
        raise RllabError(f"{path} has no records; give a .jsonl, .csv, .tsv or .parquet file.")


def decoded_lines(path: Path, errors: DecodingErrors = "strict") -> Iterator[str]:
    """The lines of a UTF-8 file with their ends, each decoded by itself so that a mistake has a position."""
    position = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                try:
                    yield line.decode("utf-8", errors)
                except UnicodeDecodeError as error:
                    raise RllabError(
                        f"{path} is not UTF-8: byte 0x{line[error.start]:02x} at position {position + error.start:,} "
                        f"(line {number:,}); convert the file, or choose to replace or ignore such bytes."
                    ) from error
                position += len(line)
    except (OSError, EOFError) as error:  # EOFError is what gzip says of a truncated file.
        reason = getattr(error, "strerror", None) or str(error)
        raise RllabError(f"{path} cannot be read ({reason}); check the path.") from error


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else open(path, "rb")


def _format_of(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    last = suffixes[-1] if suffixes else ""
    return last if last in (*_JSON_LINES, *_DELIMITERS, ".parquet") else ".txt"


def _plain_texts(path: Path, unit: Unit, errors: DecodingErrors) -> Iterator[str]:
    lines = decoded_lines(path, errors)
    if unit == "file":
        if text := "".join(lines):
            yield text
    elif unit == "line":
        for line in lines:
            if text := line.rstrip("\r\n"):
                yield text
    else:
        gathered: list[str] = []
        for line in lines:
            if line.strip():
                gathered.append(line.rstrip("\r\n"))
            elif gathered:
                yield "\n".join(gathered)
                gathered = []
        if gathered:
            yield "\n".join(gathered)


def _json_records(path: Path, errors: DecodingErrors) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(decoded_lines(path, errors), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise RllabError(f"Line {number:,} of {path} is not JSON ({error}); mend or remove it.") from error
        if not isinstance(record, dict):
            raise RllabError(f"Line {number:,} of {path} is not a JSON object; write each record as {{…}}.")
        yield record


def _cell_records(path: Path, delimiter: str, errors: DecodingErrors) -> Iterator[dict[str, Any]]:
    # In TSV files quotation marks are characters like others.
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    yield from _named_cells(path, csv.reader(decoded_lines(path, errors), delimiter=delimiter, quoting=quoting))


def _named_cells(path: Path, rows: Iterator[list[str]]) -> Iterator[dict[str, Any]]:
    try:
        names = next(rows, None)
        if not names:
            raise RllabError(f"{path} is empty; its first line should name the columns.")
        for number, cells in enumerate(rows, 2):
            if not cells:
                continue
            if len(cells) != len(names):
                raise RllabError(f"Row {number:,} of {path} has {len(cells)} cells instead of {len(names)}; mend it.")
            yield dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise RllabError(f"{path} is not CSV ({error}); check the file.") from error


def _parquet_records(path: Path, columns: Iterable[str] | None) -> Iterator[dict[str, Any]]:
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise RllabError("Reading Parquet needs pyarrow; install it with `pip install pyarrow`.") from error
    try:
        with parquet.ParquetFile(path) as file:
            present = file.schema_arrow.names
            wanted = None if columns is None else [name for name in columns if name in present]
            if columns is not None and not wanted:
                wanted = present
            for batch in file.iter_batches(batch_size=4096, columns=wanted):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise RllabError(f"{path} cannot be read as Parquet ({reason}); check the file.") from error
