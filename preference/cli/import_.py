"""Read exported comparisons into a store, which is made if it is not there; twice changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rllab.cli.arguments import parse
from rllab.cli.console import print_facts, print_next, quoted


@dataclass(frozen=True)
class ImportArguments:
    """Read exported comparisons into a store: all of them, or, if one of them is wrong, none."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """What `rllab preference export` wrote, in any format, or a file of such lines made in another way."""
    store: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
    """A store of comparisons: its file, its database's URL, or a run of `rllab preference learn`; a new one is made for
    the task that the file is of."""


def command(argv: Sequence[str]) -> int:
    """`rllab preference import FILE STORE`."""
    arguments: ImportArguments = parse(ImportArguments, argv, "preference import")
    from preference.cli.places import store_of
    from preference.exchange import import_into, open_archive
    from preference.store import Store
    from rllab.runs import is_run

    place = arguments.store if "://" in arguments.store else Path(arguments.store)
    if isinstance(place, Path) and is_run(place):
        place = store_of(place)
    archive = open_archive(arguments.file)
    new = isinstance(place, Path) and not place.exists()
    try:
        with Store.open(place, archive.task) as store:
            imported = import_into(store, arguments.file)
            progress = store.progress()
    except BaseException:
        if new and isinstance(place, Path):  # nothing was imported: leave nothing behind
            for path in (place, *place.parent.glob(f"{place.name}-*")):
                path.unlink(missing_ok=True)
        raise
    print_facts([
        ("New", f"{imported.clips:,} clips, {imported.pairs:,} pairs and {imported.answers:,} answers"),
        ("Now", f"{progress.clips:,} clips, {progress.pairs:,} pairs and {progress.answered:,} answers that count"),
        ("In", f"{arguments.store}{' (a new store)' if new else ''}, of {archive.task.environment or 'texts'}"),
    ])  # fmt: skip
    if archive.task.kind == "texts":
        export = f"rllab preference export {quoted(arguments.store)} FILE --format chosen"
        further = ("for a reward model of texts", export)
    else:
        further = ("learn a reward from it", f"rllab preference fit {quoted(arguments.store)}")
    print_next([further])
    return 0
