"""What the subcommands print: tables, facts about a run, and commands to go on with."""

import math
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console() -> "Console":
    """The standard output; without a terminal nothing is wrapped or cut."""
    from rich.console import Console

    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=1000)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table with a line below its header; the columns named in `right` hold numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(
            name, justify="right" if name in right else "left", min_width=8, no_wrap=name in right, overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # as Text, brackets are not taken for markup
    console().print(table)


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print names and what they are, aligned. Long ones are not wrapped, so that paths can be copied."""
    pairs = list(facts)
    width = max(len(name) for name, _ in pairs)
    out = console()
    for name, value in pairs:
        out.print(f"[bold]{name:<{width}}[/bold]  ", end="")
        out.print(value, markup=False, soft_wrap=True)


def print_next(commands: Iterable[tuple[str, str]]) -> None:
    """Print commands to try, each with what it does."""
    out = console()
    out.print("\n[bold]Next[/bold]")
    pairs = list(commands)
    width = max(len(purpose) for purpose, _ in pairs)
    for purpose, command in pairs:
        out.print(f"  {purpose:<{width}}  {command}", markup=False, soft_wrap=True)


def quoted(path: Path | str) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))


def number(value: float) -> str:
    """A return, as it reads best: 1,234.5, 499.2, 9.53, 0.0713."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"


def interval(low: float, high: float) -> str:
    """The two ends of an interval."""
    return f"[{number(low)}, {number(high)}]"
