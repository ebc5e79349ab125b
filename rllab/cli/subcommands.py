"""Subcommands of a command, as `rllab preference learn`: found by name, imported when they are asked for."""

import ast
import importlib
import importlib.util
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from shutil import get_terminal_size
from typing import TextIO

from envs.errors import RllabError


@dataclass(frozen=True)
class Subcommand:
    """One that is here already, beside others of the same module."""

    summary: str
    """What it is for, in a line."""
    run: Callable[[Sequence[str]], int | None]
    """Does it, given the arguments after its name; the exit code, or None for 0."""


@dataclass(frozen=True)
class Subcommands:
    """The subcommands of `rllab NAME`."""

    name: str
    modules: Mapping[str, str | Subcommand]
    """By subcommand, in the order of the help: itself, or the name of a module with a function `command(argv) -> int`,
    whose docstring's first line says what it is for."""
    summary: str
    """What the command is for."""
    example: str
    """A call to begin with."""

    def __call__(self, argv: Sequence[str]) -> int:
        """Run the subcommand that `argv` begins with; the exit code. Raises RllabError if there is none so named."""
        name = argv[0] if argv else ""
        if name in ("-h", "--help", "help"):
            self._print_help(sys.stdout)
            return 0
        if not name:
            self._print_help(sys.stderr)
            return 2
        if name not in self.modules:
            if name.startswith("-"):
                raise RllabError(
                    f"there is no option '{name}' here; the subcommand comes first: "
                    f"`rllab {self.name} SUBCOMMAND {name} …`"
                )
            near = get_close_matches(name, self.modules, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(self.modules)}"
            raise RllabError(f"there is no subcommand '{name}' of {self.name}; {hint}")
        found = self.modules[name]
        if isinstance(found, Subcommand):
            return found.run(argv[1:]) or 0
        code: int = importlib.import_module(found).command(argv[1:])
        return code

    def _print_help(self, stream: TextIO) -> None:
        lines = [f"usage: rllab {self.name} SUBCOMMAND [ARGUMENTS]", "", self.summary, "", *described(self.modules)]
        further = f"rllab {self.name} SUBCOMMAND --help   the arguments of a subcommand"
        print("\n".join([*lines, "", further, "", f"To begin: {self.example}"]), file=stream)


def described(modules: Mapping[str, str | Subcommand]) -> list[str]:
    """Lines of help: each name with its summary, or the first line of its module's docstring."""
    width = max((len(name) for name in modules), default=0)
    lines: list[str] = []
    for name, module in modules.items():
        line = module.summary if isinstance(module, Subcommand) else summary(module)
        lines += textwrap.wrap(
            line, get_terminal_size().columns - 1, initial_indent=f"  {name:<{width}}  ",
            subsequent_indent=" " * (width + 4),
        ) or [f"  {name}"]  # fmt: skip
    return lines


def summary(module: str) -> str:
    """The first line of the docstring of a module, which is not imported; empty if there is none."""
    try:
        spec = importlib.util.find_spec(module)
        source = spec.loader.get_source(module) if spec and spec.loader else None  # type: ignore[attr-defined]
        docstring = ast.get_docstring(ast.parse(source or ""))
    except (ImportError, AttributeError, SyntaxError):  # a broken plugin must not cost the others their help
        return ""
    return (docstring or "").partition("\n")[0]
