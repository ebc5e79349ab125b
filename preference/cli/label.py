"""Serve the page on which people compare clips, or texts, of a store."""

import dataclasses
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from preference.labelling import labelling_server
from preference.labelling.settings import PageConfig
from preference.store import Store
from rllab.cli.arguments import Flag, parse


@dataclass(frozen=True)
class LabelArguments:
    """Serve the labelling page of a store until Ctrl-C."""

    store: str
    """The store: a file, a database's URL, or a run's folder."""
    question: str | None = None
    """What people are asked, in Markdown, from now on; by default what the store says."""
    open: Flag = False
    """Open the page in this machine's browser."""
    page: PageConfig = dataclasses.field(default_factory=PageConfig)


def command(argv: Sequence[str]) -> int:
    """`rllab preference label --store STORE`."""
    arguments: LabelArguments = parse(LabelArguments, argv, "preference label")
    with _open(arguments.store) as store:
        where = store.url
        if arguments.question is not None:
            store.set_question(arguments.question)
    with labelling_server(where, arguments.page) as server:
        print("Ctrl-C ends it; nothing that was answered is lost.", flush=True)
        if arguments.open:
            webbrowser.open(server.address)
        try:
            server.wait()
        except KeyboardInterrupt:
            print()
            progress = server.store.progress()
            print(f"{progress.answered:,} answers are in {server.store.database.name}; {progress.open:,} pairs wait.")
    return 0


def _open(where: str) -> Store:
    if "://" not in where and Path(where).is_dir():
        from preference.cli.places import open_store  # which knows runs, and imports what they need

        return open_store(where)
    return Store.open(where)
