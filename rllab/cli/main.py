"""The trunk of the command `rllab`: finds the subcommand, runs it, and turns what goes wrong into an exit code.

Subcommands are entry points of the group `rllab.commands`, so any distribution can add one:

    [project.entry-points."rllab.commands"]
    dream = "my_package.dream:command"

where `command(argv: Sequence[str]) -> int` takes the arguments after the subcommand's name and returns the exit
code. The first line of its module's docstring is its help, read without importing the module.
"""

import contextlib
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import TextIO

from envs.errors import RllabError
from rllab import __version__
from rllab.cli.subcommands import described
from rllab.launched import TOGETHER, launched_processes

_GRACE = 3.0
"""Seconds in which torchrun ends this process if another one fails too."""
_GROUP = "rllab.commands"
_OWN_PACKAGES = ("envs", "rllab", "preference", "language")
# Only the order of the help: first what a new user needs first. Others follow, in alphabetical order.
_FIRST = ("demo", "train", "resume", "evaluate", "watch", "compare", "envs")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (by default the process's); returns the exit code.

    0: done; 1: done, with a bad outcome, or an unexpected exception (with its traceback); 2: bad input or a
    failed run, told in one sentence; 128 + n: ended by signal n (130 is Ctrl-C, 143 SIGTERM).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    rank = 0
    try:
        with _plain_warnings(), _together():
            rank = TOGETHER.rank
            code = _dispatch(arguments)
            sys.stdout.flush()
    except RllabError as error:
        _let_others_speak(error, rank)
        return _fail(str(error))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader (`head`, say) has what it wanted. What Python flushes at exit must not complain again.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except SystemExit as error:  # --help and usage errors inside a subcommand
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        return _fail(str(error.code))
    except Exception as error:
        # Training that ended by a signal after saving its state, in a command that has nothing to add.
        exit_code = getattr(error, "exit_code", None)
        if exit_code is None:
            raise
        return _fail(str(error), int(exit_code))
    return code


def commands() -> dict[str, EntryPoint]:
    """The subcommands by name, in the order of the help."""
    found = {entry.name: entry for entry in entry_points(group=_GROUP)}
    names = [name for name in _FIRST if name in found] + sorted(found.keys() - set(_FIRST))
    return {name: found[name] for name in names}


def _dispatch(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help", "help"):
        _print_help(sys.stdout)
        return 0
    if name in ("-V", "--version"):
        print(f"rllab {__version__}")
        return 0
    if not name:
        _print_help(sys.stderr)
        return 2
    known = commands()
    if name not in known:
        if name.startswith("-"):
            raise RllabError(f"there is no option '{name}' here; the command comes first: `rllab COMMAND {name} …`")
        near = get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
        raise RllabError(f"there is no command '{name}'; {hint}")
    code: int = known[name].load()(arguments[1:])
    return code


def _print_help(stream: TextIO) -> None:
    lines = ["usage: rllab COMMAND [ARGUMENTS]", "", "Train, evaluate and compare reinforcement-learning agents.", ""]
    lines += described({name: entry.module for name, entry in commands().items()})
    lines += [
        "",
        "rllab COMMAND --help   the arguments of a command",
        "rllab --version        the version",
        "",
        "To begin: rllab demo, or rllab train ppo CartPole-v1",
    ]
    print("\n".join(lines), file=stream)


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Meet the other processes, if torchrun started several; all but the first then print nothing."""
    if launched_processes() == 1:
        yield
        return
    from rllab.distributed import is_first, joined  # brings torch, which most commands do without at first

    with joined(), contextlib.ExitStack() as stack:
        if not is_first():
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        yield


def _let_others_speak(error: RllabError, rank: int) -> None:
    """Of several processes, wait for the one that knows more to say what is wrong: torchrun then ends this one.

    What is wrong in all of them the first one says; what is wrong in one alone, that one, to the others it is gone.
    """
    is_loss = type(error).__name__ == "LostError"
    time.sleep(2 * _GRACE if is_loss else _GRACE if rank > 0 else 0)


def _fail(sentence: str, code: int = 2) -> int:
    print(f"rllab: error: {sentence}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Tell this project's own warnings as one sentence each; others' stay as Python shows them."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_plainly(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if category.__module__.partition(".")[0] in _OWN_PACKAGES:
                print(f"rllab: warning: {message}", file=file or sys.stderr)
            else:
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = show_plainly
        yield
