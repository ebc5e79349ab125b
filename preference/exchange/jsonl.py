"""JSON lines: a header with the task, then one question a line, with both clips and everything that was said of it."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from envs.errors import RllabError
from preference.codec import dump_json, load_json
from preference.exchange.contents import Entry
from preference.exchange.documents import Arrays, entry_of, entry_to_document, header, placed, task_of
from preference.task import Task


def write_jsonl(path: Path, task: Task, entries: Iterable[Entry], with_arrays: bool = True) -> None:
    """Write a file of lines. Raises OSError."""
    with open(path, "w", encoding="ascii") as file:
        file.write(dump_json(header(task)) + "\n")
        for entry in entries:
            file.write(dump_json(entry_to_document(entry, with_arrays)) + "\n")


class JsonLines:
    """A file of lines, to be read."""

    def __init__(self, path: Path, arrays: Arrays | None = None) -> None:
        """`arrays` gives a clip's arrays where they stand elsewhere."""
        self._path = path
        self._arrays = arrays

    @property
    def task(self) -> Task:
        """The header's task. Raises RllabError when there is none."""
        for place, line in self._lines():
            with placed(place):
                return task_of(load_json(line))
        raise RllabError(f"{self._path} is empty; nothing was imported.")

    def entries(self) -> Iterator[Entry]:
        """The lines after the header. Raises RllabError, with the line's number, for one that is no comparison."""
        lines = self._lines()
        next(lines, None)
        for place, line in lines:
            with placed(place):
                entry = entry_of(load_json(line), place, self._arrays)
            yield entry

    def _lines(self) -> Iterator[tuple[str, bytes]]:
        try:
            with open(self._path, "rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield f"{self._path}, line {number}", line
        except OSError as error:
            raise RllabError(f"{self._path} could not be read ({error.strerror}); nothing was imported.") from error
