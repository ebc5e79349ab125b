"""From a command line to a typed dataclass, by tyro: the argument types and settings that the subcommands share."""

import ast
import dataclasses
import inspect
import json
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from envs.errors import RllabError

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""A switch that exists in one direction only: `--quiet`, without `--no-quiet`."""
RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
"""A run's folder."""
RunPaths = Annotated[
    tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)")
]
"""Folders of runs, to be passed through `at_least_one`."""

_registry = ConstructorRegistry()


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
        registry=_registry,
        **defaults,
    )


@_registry.struct_rule
def _part_of_a_configuration(info: StructTypeInfo) -> StructConstructorSpec | None:
    """How tyro sees a dataclass that has a default: as always, but each field's help is one paragraph.

    Tyro itself would break the help where the docstring's lines end in the source.
    """
    kind = info.type
    is_generic = bool(getattr(kind, "__parameters__", ()))
    if not dataclasses.is_dataclass(kind) or is_generic or not isinstance(info.default, kind):
        return None
    types, texts = get_type_hints(kind, include_extras=True), _field_docstrings(kind)
    fields = [
        StructFieldSpec(
            field.name, types[field.name], default=getattr(info.default, field.name), helptext=texts.get(field.name)
        )
        for field in dataclasses.fields(kind)
    ]
    return StructConstructorSpec(instantiate=kind, fields=tuple(fields))


def _field_docstrings(kind: type) -> dict[str, str]:
    """The strings below a dataclass's fields, inherited ones included, each on one line."""
    texts = {}
    for base in filter(dataclasses.is_dataclass, reversed(kind.__mro__)):
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for field, following in pairwise(definition.body):
            match field, following:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    texts[name] = " ".join(text.split())
    return texts


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


def at_least_one(paths: tuple[Path, ...], command: str) -> tuple[Path, ...]:
    """`paths`; raises RllabError if there is none."""
    if not paths:
        raise RllabError(f"name at least one run: `rllab {command} RUN`")
    return paths


def checkpoint_named(text: str) -> int | Literal["best", "latest"]:
    """`best`, `latest`, or a step's number. Raises RllabError for anything else."""
    if text == "best":
        return "best"
    if text == "latest":
        return "latest"
    if text.isdecimal():
        return int(text)
    raise RllabError(f"there is no checkpoint '{text}'; name best, latest, or a step such as 50000")
