"""From a command line to a typed dataclass, by tyro: the argument types and settings that the subcommands share."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from envs.errors import RllabError

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""A switch that exists in one direction only: `--quiet`, without `--no-quiet`."""


def parse(kind: Any, argv: Sequence[str], command: str, *, description: str | None = None, default: Any = None) -> Any:
    """`argv` as an instance of the dataclass `kind`; its fields are flags without prefixes, its docstrings the help.

    Args:
        kind: a dataclass, or a generic one with its parameters.
        argv: the arguments after the subcommand's name.
        command: the subcommand's name, for the usage line.
        description: stands in the help in place of the dataclass's docstring.
        default: an instance that the help shows the defaults of.

    Raises SystemExit: 0 after `--help`, 2 after a usage error, which has been explained.
    """
    # An instance that stands for no default would make every field required: the argument is left out.
    defaults = {} if default is None else {"default": default}
    return tyro.cli(
        kind,
        args=list(argv),
        prog=f"rllab {command}",
        description=description,
        config=(tyro.conf.OmitArgPrefixes,),
        **defaults,
    )


def _json_object(words: list[str]) -> dict[str, Any]:
    try:
        value = json.loads(words[0])
    except ValueError as error:
        raise ValueError(f"{words[0]!r} is not JSON ({error}); write it like '{{\"gravity\": -12.0}}'") from error
    if not isinstance(value, dict):
        raise ValueError(f"{words[0]!r} is not a JSON object; write it like '{{\"gravity\": -12.0}}'")
    return value


JsonObject = Annotated[
    dict[str, Any],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="JSON",
        instance_from_str=_json_object,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [json.dumps(value)],
    ),
]
"""A dictionary, given as a JSON object."""


def checkpoint_named(text: str) -> int | Literal["best", "latest"]:
    """`best`, `latest`, or a step's number. Raises RllabError for anything else."""
    if text == "best" or text == "latest":
        return text
    if text.isdecimal():
        return int(text)
    raise RllabError(f"there is no checkpoint '{text}'; name best, latest, or a step such as 50000")
