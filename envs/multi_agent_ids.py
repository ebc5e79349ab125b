"""Which PettingZoo game an id names: `pettingzoo:classic/tictactoe_v3`, or a module or function of one's own."""

import importlib
import pkgutil
import re
from difflib import get_close_matches
from importlib.util import find_spec as find_module
from pathlib import Path

from envs.errors import RllabError

PREFIX = "pettingzoo:"
_FUNCTIONS = ("parallel_env", "env")
"""What a game's module calls the function that makes it: where players act at once, that form needs fewer steps."""
_NEEDED = {
    "atari/": "multi_agent_ale_py", "butterfly/pistonball": "pymunk", "classic/chess": "chess",
    "classic/leduc_holdem": "rlcard", "classic/texas_holdem": "rlcard", "sisl/multiwalker": "Box2D",
}  # fmt: skip
"""What PettingZoo's games import besides, which its own extras install, by the beginnings of their names."""


def find_entry_point(id: str) -> str:
    """The function that makes a game, as `module:function`. PettingZoo is installed.

    Args:
        id: `pettingzoo:FAMILY/NAME` is PettingZoo's own `pettingzoo.FAMILY.NAME`, `pettingzoo:MODULE` any module that
            has a `parallel_env` or `env`, as PettingZoo's have, `pettingzoo:MODULE:FUNCTION` any function.

    Raises:
        RllabError: there is no such game (the nearest names are given), its module cannot be imported, or has no such
            function.
    """
    name = id.removeprefix(PREFIX)
    module_name, _, function = name.partition(":")
    own = "/" in module_name
    if own:
        module_name = "pettingzoo." + module_name.replace("/", ".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # PettingZoo's modules raise more than ImportError where something is missing
        missing = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")
        if own and missing:
            raise RllabError(f"There is no game '{id}'.{_hint(name)}") from error
        family = name.split("/")[0]
        told = own and isinstance(error, ModuleNotFoundError)
        remedy = f" (pip install 'pettingzoo[{family}]' has what PettingZoo's {family} games need)" if told else ""
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise RllabError(f"'{id}' cannot be imported: {reason}{remedy}.") from error
    for candidate in [function] if function else _FUNCTIONS:
        if callable(getattr(module, candidate, None)):
            return f"{module_name}:{candidate}"
    if own and not function:
        raise RllabError(f"There is no game '{id}'.{_hint(name)}")
    wanted = f"'{function}'" if function else "'parallel_env' or 'env'"
    raise RllabError(
        f"The module {module_name} of '{id}' has no function {wanted} that makes a PettingZoo environment."
    )


def list_games() -> list[str]:
    """The ids of PettingZoo's own games, newest versions only; empty where it is not installed. None is imported."""
    specification = find_module("pettingzoo")
    newest: dict[str, tuple[int, str]] = {}
    for root in (specification.submodule_search_locations or ()) if specification else ():
        for folder in sorted(path for path in Path(root).iterdir() if path.is_dir()):
            for module in pkgutil.iter_modules([str(folder)]):
                if match := re.fullmatch(r"(.+)_v(\d+)", module.name):
                    game, version = f"{folder.name}/{match[1]}", int(match[2])
                    newest[game] = max(newest.get(game, (0, "")), (version, f"{PREFIX}{folder.name}/{module.name}"))
    return sorted(id for _, id in newest.values())


def is_installed(id: str) -> bool:
    """Whether what one of PettingZoo's own games imports can be found (it is not imported)."""
    name = id.removeprefix(PREFIX)
    return all(find_module(package) for beginning, package in _NEEDED.items() if name.startswith(beginning))


def _hint(name: str) -> str:
    """The game's newest version, or at most three names like it."""
    games = list_games()
    stem = re.sub(r"_v\d+$", "", name)
    for id in games:
        if re.sub(r"_v\d+$", "", id.removeprefix(PREFIX)) == stem:
            return f" Its newest version is '{id}'."
    near = get_close_matches(PREFIX + name, games, n=3, cutoff=0.6)
    return f" Did you mean {', '.join(near)}?" if near else " `rllab envs pettingzoo` lists what there is."
