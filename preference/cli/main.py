"""Learn what people want from comparisons of short clips: rewards, their measures, and reports."""

import ast
import importlib
import importlib.util
import sys
import textwrap
from collections.abc import Sequence
from difflib import get_close_matches
from shutil import get_terminal_size
from typing import TextIO

from envs.errors import RllabError

SUBCOMMANDS = {
    "learn": "preference.cli.learn",
    "label": "preference.cli.label",
    "fit": "preference.cli.fit",
    "evaluate": "preference.cli.evaluate",
    "report": "preference.cli.report",
    "rate": "preference.cli.rate",
    "export": "preference.cli.export",
    "import": "preference.cli.import_",
}
"""Modules with a function `command(argv) -> int`; imported when they are asked for, in the order of the help."""


def command(argv: Sequence[str]) -> int:
    """`rllab preference SUBCOMMAND …`."""
    name = argv[0] if argv else ""
    if name in ("-h", "--help", "help"):
        _print_help(sys.stdout)
        return 0
    if not name:
        _print_help(sys.stderr)
        return 2
    if name not in SUBCOMMANDS:
        if name.startswith("-"):
            raise RllabError(
                f"there is no option '{name}' here; the subcommand comes first: `rllab preference SUBCOMMAND {name} …`"
            )
        near = get_close_matches(name, SUBCOMMANDS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(SUBCOMMANDS)}"
        raise RllabError(f"there is no subcommand '{name}' of preference; {hint}")
    code: int = importlib.import_module(SUBCOMMANDS[name]).command(argv[1:])
    return code


def summary(module: str) -> str:
    """The first line of the docstring of a module, which is not imported."""
    spec = importlib.util.find_spec(module)
    source = spec.loader.get_source(module) if spec and spec.loader else None  # type: ignore[attr-defined]
    return (ast.get_docstring(ast.parse(source or "")) or "").partition("\n")[0]


def _print_help(stream: TextIO) -> None:
    width = max(map(len, SUBCOMMANDS))
    lines = ["usage: rllab preference SUBCOMMAND [ARGUMENTS]", "", summary(__name__), ""]
    for name, module in SUBCOMMANDS.items():
        lines += textwrap.wrap(
            summary(module), get_terminal_size().columns - 1, initial_indent=f"  {name:<{width}}  ",
            subsequent_indent=" " * (width + 4),
        )  # fmt: skip
    lines += [
        "",
        "rllab preference SUBCOMMAND --help   the arguments of a subcommand",
        "",
        "To begin: rllab preference learn Pendulum-v1 --labels 200",
    ]
    print("\n".join(lines), file=stream)
