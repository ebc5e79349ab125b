"""Parquet: a folder of three tables, `clips`, `pairs` and `answers`, for data frames and for SQL (pandas, DuckDB)."""

from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from envs.errors import RllabError
from preference.codec import decode_arrays, dump_json, encode_arrays, load_json
from preference.exchange.contents import Entry
from preference.exchange.documents import answer_of, clip_of, entry_of, header, identifier_of, placed, task_of
from preference.records import Sheet
from preference.task import Task

TABLES = ("clips", "pairs", "answers")
_HEADER = b"rllab"  # the key of the header in the tables' own metadata
_CHUNK = 64
_COLUMNS = {
    "clips": {
        "id": "string", "run": "string", "policy_step": "int64", "length": "int64", "details": "string",
        "created": "float64", "arrays": "binary", "sheet": "binary", "sheet_metadata": "string",
    },
    "pairs": {
        "id": "string", "first": "string", "second": "string", "run": "string", "strategy": "string",
        "priority": "float64", "details": "string", "created": "float64", "withdrawn": "bool_",
    },
    "answers": {
        "order": "int64", "id": "string", "pair": "string", "annotator": "string", "label": "string",
        "swapped": "bool_", "seconds": "float64", "supersedes": "string", "created": "float64",
        "late": "bool_",
    },
}  # fmt: skip


_LATER_COLUMNS = {"late"}
"""Which exports of earlier versions do not have."""


def write_parquet(folder: Path, task: Task, clips: Iterable[Entry], pairs: Iterable[Entry]) -> None:
    """Write the tables into a new folder. Raises OSError, and RllabError when pyarrow is not installed."""
    arrow, parquet = _arrow()
    folder.mkdir()

    def open_table(name: str) -> Any:
        fields = [(column, getattr(arrow, kind)()) for column, kind in _COLUMNS[name].items()]
        schema = arrow.schema(fields, metadata={_HEADER: dump_json(header(task)).encode()})
        return parquet.ParquetWriter(folder / f"{name}.parquet", schema, compression="zstd")

    def write(table: Any, rows: list[dict[str, Any]]) -> None:
        table.write_table(arrow.Table.from_pylist(rows, schema=table.schema))
        rows.clear()

    with open_table("clips") as table:
        rows: list[dict[str, Any]] = []
        for entry in clips:
            rows.append(_clip_row(entry))
            if len(rows) == _CHUNK:
                write(table, rows)
        write(table, rows)
    with open_table("pairs") as asked, open_table("answers") as said:
        questions, replies = [], []
        for entry in pairs:
            questions.append(_pair_row(entry))
            replies += _answer_rows(entry)
        write(asked, questions)
        write(said, sorted(replies, key=lambda row: row["order"]))


class ParquetTables:
    """A folder of the three tables, to be read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._arrow, self._parquet = _arrow()

    @property
    def task(self) -> Task:
        """The task of the tables. Raises RllabError when they are no export, or of different ones."""
        headers = set()
        for name in TABLES:
            with self._open(name) as table:
                headers.add((table.schema_arrow.metadata or {}).get(_HEADER, b"null"))
        with placed(str(self._folder)):
            if len(headers) != 1:
                raise RllabError("its tables come from different exports")
            return task_of(load_json(headers.pop()))

    def entries(self) -> Iterator[Entry]:
        """Clips, then pairs, then answers. Raises RllabError, with the table and row, for what is none."""
        makers = {"clips": _clip_entry, "pairs": _pair_entry, "answers": _answer_entry}
        for name, maker in makers.items():
            number = 0
            with self._open(name) as table:
                if missing := set(_COLUMNS[name]) - set(table.schema_arrow.names) - _LATER_COLUMNS:
                    raise RllabError(
                        f"{self._folder / name}.parquet has no column `{sorted(missing)[0]}`; nothing was imported."
                    )
                for row in self._rows(table, name):
                    number += 1
                    place = f"{self._folder / name}.parquet, row {number}"
                    with placed(place):
                        entry = maker(row, place)
                    yield entry

    def _rows(self, table: Any, name: str) -> Iterator[dict[str, Any]]:
        try:
            known = [column for column in _COLUMNS[name] if column in table.schema_arrow.names]
            for batch in table.iter_batches(_CHUNK, columns=known):
                yield from batch.to_pylist()
        except (self._arrow.ArrowException, OSError) as error:
            raise self._damaged(name, error) from error

    def _open(self, name: str) -> Any:
        try:
            return self._parquet.ParquetFile(self._folder / f"{name}.parquet")
        except (self._arrow.ArrowException, OSError) as error:
            raise self._damaged(name, error) from error

    def _damaged(self, name: str, error: Exception) -> RllabError:
        reason = str(error).splitlines()[0].rstrip(".")
        return RllabError(f"{self._folder / name}.parquet could not be read ({reason}); nothing was imported.")


def _arrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise RllabError("Parquet needs pyarrow: install it with `pip install rllab[exchange]`.") from error


def _clip_row(entry: Entry) -> dict[str, Any]:
    clip = entry.clips[0]
    sheet = entry.sheets.get(clip.id)
    return {
        "id": str(clip.id), "run": clip.run, "policy_step": clip.policy_step, "length": clip.length,
        "details": dump_json(clip.details), "created": clip.created, "arrays": encode_arrays(clip.arrays),
        "sheet": None if sheet is None else sheet.data,
        "sheet_metadata": None if sheet is None else dump_json(sheet.metadata),
    }  # fmt: skip


def _clip_entry(row: dict[str, Any], place: str) -> Entry:
    if not isinstance(row["arrays"], bytes):
        raise RllabError("it has no arrays")
    document = {**_stated(row), "details": load_json(row["details"] or "null")}
    document.pop("sheet", None)
    clip, _ = clip_of(document, lambda content: decode_arrays(content["arrays"]))
    if row["sheet"] is None:
        return Entry(place, (clip,))
    return Entry(place, (clip,), {clip.id: Sheet(row["sheet"], load_json(row["sheet_metadata"] or "{}"))})


def _pair_row(entry: Entry) -> dict[str, Any]:
    pair = entry.pair
    assert pair is not None
    return {
        "id": str(pair.id), "first": str(pair.first), "second": str(pair.second), "run": pair.run,
        "strategy": pair.strategy, "priority": pair.priority, "details": dump_json(pair.details),
        "created": pair.created, "withdrawn": entry.withdrawn,
    }  # fmt: skip


def _pair_entry(row: dict[str, Any], place: str) -> Entry:
    return entry_of({"pair": {**_stated(row), "details": load_json(row["details"] or "null")}}, place)


def _answer_rows(entry: Entry) -> list[dict[str, Any]]:
    return [
        {
            "order": order, "id": str(answer.id), "pair": str(answer.pair), "annotator": answer.annotator,
            "label": None if answer.label is None else answer.label.value, "swapped": answer.swapped,
            "seconds": answer.seconds, "supersedes": None if answer.supersedes is None else str(answer.supersedes),
            "created": answer.created, "late": answer.late,
        }
        for order, answer in entry.answers
    ]  # fmt: skip


def _answer_entry(row: dict[str, Any], place: str) -> Entry:
    document = {**_stated(row), "label": row["label"]}
    if not isinstance(row["order"], int):
        raise RllabError("it has no `order`")
    return Entry(place, answers=((row["order"], answer_of(document, identifier_of(document, "pair"))),))


def _stated(row: dict[str, Any]) -> dict[str, Any]:
    """A row without its empty cells."""
    return {column: value for column, value in row.items() if value is not None}
