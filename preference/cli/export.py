"""Write a store of comparisons to a file that other programs read: JSON lines, Parquet, Minari, or what was chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from preference.cli.fit import StoreName
from rllab.cli.arguments import parse
from rllab.cli.console import print_facts, print_next, quoted


@dataclass(frozen=True)
class ExportArguments:
    """Write all that a store holds, as it is at one moment; it may be in use meanwhile."""

    store: StoreName
    """A store of comparisons: its file, its database's URL, or a run of `rllab preference learn`."""
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """A new file for jsonl and chosen; a new folder for parquet and minari."""
    format: Literal["jsonl", "parquet", "minari", "chosen"] | None = None
    """jsonl: a question a line, with its clips and answers; parquet: three tables; minari: an episode a clip;
    chosen, of texts: prompt, chosen and rejected of each answer that says which is better, a line each. By default what
    the suffix says: .parquet or .minari, else jsonl."""


def command(argv: Sequence[str]) -> int:
    """`rllab preference export STORE FILE`."""
    arguments: ExportArguments = parse(ExportArguments, argv, "preference export")
    from preference.cli.places import open_store
    from preference.exchange import Format, export_store

    suffixes: dict[str, Format] = {".parquet": "parquet", ".minari": "minari"}
    format = arguments.format or suffixes.get(arguments.file.suffix, "jsonl")
    with open_store(arguments.store) as store:
        export_store(store, arguments.file, format)
        progress = store.progress()
        source = store.database.name
    print_facts([
        ("Exported", f"{progress.clips:,} clips, {progress.pairs:,} pairs and {progress.answered:,} answers that count "
                     f"({progress.ties:,} ties, {progress.skipped:,} skips), with those taken back"),
        ("From", source),
        ("To", f"{arguments.file} ({format})"),
    ])  # fmt: skip
    if format == "chosen":
        print_next([("learn a reward from it", f"rllab language reward MODEL {quoted(arguments.file)}")])
        return 0
    print_next([("read it into another store", f"rllab preference import {quoted(arguments.file)} NEW_STORE.sqlite")])
    return 0
