"""Lines that a person types, or that a program pipes in, each answered before the next is read."""

import sys
from collections.abc import Callable
from typing import cast

from torch import nn

from envs.errors import RllabError
from language.decoding import Decodable


def answer_lines(answer: Callable[[str], None], invitation: str, *, empty_ends: bool) -> int:
    """Answer line after line of standard input; the exit code.

    Args:
        answer: called with each line, without its end.
        invitation: what a person is told first; nobody is told anything where the input is no terminal.
        empty_ends: whether an empty line ends it there too; at a terminal it always does.
    """
    interactive = sys.stdin.isatty()
    if interactive:
        print(invitation, file=sys.stderr)
    try:
        while True:
            if interactive:
                print("> ", end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            if not line or ((interactive or empty_ends) and not line.strip()):
                return 0
            answer(line.rstrip("\n"))
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


def checked_writer(model: nn.Module, name: object) -> Decodable:
    """The model, if it writes text. Raises RllabError if it does not."""
    if not isinstance(model, Decodable):
        raise RllabError(
            f"{name} has a model of the class {type(model).__name__}, which writes no text; give a language model."
        )
    return cast(Decodable, model)
