"""Comparisons as files: JSON lines, Parquet, and for trajectories Minari, which all give back every bit; and of texts
what was chosen and what rejected, for other programs to learn from."""

from itertools import chain
from pathlib import Path
from typing import Literal

from envs.errors import RllabError
from preference.exchange.chosen import write_chosen
from preference.exchange.contents import pairs_with_answers, single_clips
from preference.exchange.files import new_export
from preference.exchange.importing import Archive, Imported, import_archive
from preference.exchange.jsonl import JsonLines, write_jsonl
from preference.exchange.minari import MinariDataset, write_minari
from preference.exchange.parquet import TABLES, ParquetTables, write_parquet
from preference.store import Store

__all__ = ["Format", "Imported", "export_store", "import_into"]

Format = Literal["jsonl", "parquet", "minari", "chosen"]


def export_store(store: Store, path: Path | str, format: Format = "jsonl") -> None:
    """Write all that a store holds (but leases) as it is at one moment; it may be in use.

    Args:
        store: what to write.
        path: a new file for jsonl and for chosen; a new folder for parquet and for minari.
        format: jsonl has one question a line, with its clips and answers; parquet three tables; minari an episode a
            clip, with the comparisons beside it; chosen of texts a line an answer, without ties and skips.

    Raises:
        RllabError: there is something at `path`, it cannot be written, what the format needs is not installed, or the
            store has nothing for it.
    """
    target = Path(path)
    with new_export(target) as temporary, store.database.read() as connection:
        if format == "jsonl":
            pairs = pairs_with_answers(connection, with_clips=True)
            write_jsonl(temporary, store.task, chain(pairs, single_clips(connection, unpaired=True)))
        elif format == "parquet":
            clips, pairs = single_clips(connection, unpaired=False), pairs_with_answers(connection, with_clips=False)
            write_parquet(temporary, store.task, clips, pairs)
        elif format == "minari":
            clips, pairs = single_clips(connection, unpaired=False), pairs_with_answers(connection, with_clips=False)
            write_minari(temporary, target.name, store.task, clips, pairs)
        elif format == "chosen":
            write_chosen(temporary, store.task, pairs_with_answers(connection, with_clips=True))
        else:
            raise RllabError(f"There is no format '{format}': use jsonl, parquet, minari or chosen.")


def import_into(store: Store, path: Path | str) -> Imported:
    """Add the comparisons of an export to a store; doing it again changes nothing.

    Args:
        store: where they go.
        path: what `export_store` wrote, in any format, or a file of lines made in another way.

    Returns:
        How much was new.

    Raises:
        RllabError: it is no export, or of another task; something in it is not what it should be (a line is given by
            its number) or contradicts the store. Nothing is imported then.
    """
    return import_archive(store, open_archive(Path(path)), str(path))


def open_archive(path: Path) -> Archive:
    """An export in any format. Raises RllabError when it is none."""
    if not path.exists():
        raise RllabError(f"There is nothing at {path} to import; check the path.")
    if path.is_file():
        return JsonLines(path)
    if any((path / f"{name}.parquet").exists() for name in TABLES):
        return ParquetTables(path)
    if (path / "data").is_dir():
        return MinariDataset(path)
    raise RllabError(f"{path} is no export: neither tables (parquet) nor a dataset (minari) are in it.")
