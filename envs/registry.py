"""Finding environments by their ids: families, missing packages, nearest names, the list of what there is."""

import difflib
import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator

from envs.errors import RllabError
from envs.multi_agent_ids import PREFIX, find_entry_point, is_installed, list_games


@dataclass(frozen=True)
class Family:
    """Environments that come from one package."""

    name: str
    package: str | None = None
    """The module that must be importable before these environments can be made; None needs nothing more."""
    extra: str | None = None
    """The extra of this distribution that installs the package: `pip install 'rllab[extra]'`."""

    @property
    def installed(self) -> bool:
        """Whether the package can be found (it is not imported)."""
        return self.package is None or importlib.util.find_spec(self.package) is not None

    @property
    def remedy(self) -> str:
        """The command that installs what is missing."""
        return f"pip install 'rllab[{self.extra}]'" if self.extra else f"pip install {self.package}"


ATARI = Family("Atari", "ale_py", "atari")
PETTINGZOO = Family("PettingZoo", "pettingzoo", "multi-agent")
_FAMILY_OF_MODULE = {
    "gymnasium.envs.classic_control": Family("classic control"),
    "gymnasium.envs.toy_text": Family("toy text"),
    "gymnasium.envs.box2d": Family("Box2D", "Box2D", "box2d"),
    "gymnasium.envs.mujoco": Family("MuJoCo", "mujoco", "mujoco"),
    "gymnasium.envs.phys2d": Family("JAX", "jax"),
    "gymnasium.envs.tabular": Family("JAX", "jax"),
    "ale_py": ATARI,
}

# The 57 games of the Arcade Learning Environment's usual benchmark (Wang et al., 2016), so that their names
# can be suggested before ale-py, which registers them, is installed.
_ATARI_GAMES = """
Alien Amidar Assault Asterix Asteroids Atlantis BankHeist BattleZone BeamRider Berzerk Bowling Boxing
Breakout Centipede ChopperCommand CrazyClimber Defender DemonAttack DoubleDunk Enduro FishingDerby Freeway
Frostbite Gopher Gravitar Hero IceHockey Jamesbond Kangaroo Krull KungFuMaster MontezumaRevenge MsPacman
NameThisGame Phoenix Pitfall Pong PrivateEye Qbert Riverraid RoadRunner Robotank Seaquest Skiing Solaris
SpaceInvaders StarGunner Surround Tennis TimePilot Tutankham UpNDown Venture VideoPinball WizardOfWor
YarsRevenge Zaxxon
""".split()  # noqa: SIM905
_ATARI_IDS = [f"ALE/{game}-v5" for game in _ATARI_GAMES] + [f"{game}NoFrameskip-v4" for game in _ATARI_GAMES]


@dataclass(frozen=True)
class EnvironmentInfo:
    """One line of `rllab envs`."""

    id: str
    family: str
    installed: bool
    extra: str | None
    """The extra that installs the environment's package, where there is one."""
    has_native_vector: bool
    """Whether a whole batch is stepped by one call (Gymnasium's vector entry point)."""


def family_of(spec: EnvSpec) -> Family:
    """The family of a registered environment; one of unknown origin is named after its package."""
    if spec.id.startswith(PREFIX):
        return PETTINGZOO  # a game of one's own too
    entry_point = spec.entry_point or spec.vector_entry_point
    module = entry_point.split(":")[0] if isinstance(entry_point, str) else getattr(entry_point, "__module__", "")
    for prefix, family in _FAMILY_OF_MODULE.items():
        if module == prefix or module.startswith(prefix + "."):
            return family
    return Family(spec.namespace or module.split(".")[0] or "other")


def family_name(id: str) -> str:
    """The name of an id's family; empty if the id is not registered (Atari's are known before they are)."""
    spec = gymnasium.registry.get(id)
    if spec is not None:
        return family_of(spec).name
    return PETTINGZOO.name if id.startswith(PREFIX) else ATARI.name if _is_atari(id) else ""


def find_spec(id: str) -> EnvSpec:
    """The registered specification of an id such as `CartPole-v1`, `ALE/Pong-v5` or `my_package:MyEnv-v0`.

    An id without a version means the newest one. Atari's ids are registered on demand. PettingZoo's games, such as
    `pettingzoo:classic/tictactoe_v3`, are in no registry: their specification has id and entry point alone.

    Raises:
        RllabError: the id is unknown (nearest names are suggested), its version does not exist or has been
            retired (the newest is named), or the package that provides it is missing (with what installs it).
    """
    if id.startswith(PREFIX):
        if not PETTINGZOO.installed:
            raise RllabError(f"'{id}' needs PettingZoo, which is not installed: {PETTINGZOO.remedy}.")
        return EnvSpec(id, entry_point=find_entry_point(id))
    module, _, name = id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise RllabError(f"Cannot import '{module}' to find the environment '{id}': {error}.") from error
    if name not in gymnasium.registry and (_is_atari(name) or ATARI.installed):
        _register_atari(name)  # Pong-v4 has no form by which it could be told beforehand

    spec = gymnasium.registry.get(name)
    base_name, version = _split_version(name)
    newest = newest_versions(gymnasium.registry.values()).get(base_name)
    if spec is None and version is None:
        spec = newest
    if spec is not None and not _is_retired(spec):
        return spec
    elsewhere = [id for id in gymnasium.registry if id.endswith(f"/{name}")]
    if newest is not None and not elsewhere:
        raise RllabError(f"There is no environment '{id}' to run; the newest version is '{newest.id}'.")
    nearest = elsewhere or _nearest_ids(name)
    hint = f" Did you mean {', '.join(nearest)}?" if nearest else " `rllab envs` lists what there is."
    raise RllabError(f"There is no environment '{id}'.{hint}")


def constructor_arguments(spec: EnvSpec) -> list[str]:
    """Names of what an environment's constructor takes, but for the render mode.

    Raises:
        ImportError: the package that provides it is missing.
    """
    entry_point: Any = spec.entry_point
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    return [
        parameter.name
        for parameter in inspect.signature(creator).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.name != "render_mode"
    ]


def list_environments() -> list[EnvironmentInfo]:
    """Every environment known here, newest versions only, installed or not, by family and then by id."""
    if ATARI.installed:
        importlib.import_module("ale_py")
    environments = {
        spec.id: EnvironmentInfo(
            id=spec.id,
            family=family_of(spec).name,
            installed=family_of(spec).installed,
            extra=family_of(spec).extra,
            has_native_vector=spec.vector_entry_point is not None,
        )
        for spec in newest_versions(gymnasium.registry.values()).values()
        # ale-py registers each game in a dozen historical variants: only the two that are in use are shown.
        if family_of(spec) is not ATARI or spec.namespace == "ALE" or "NoFrameskip" in spec.id
        if not spec.id.endswith("-ramNoFrameskip-v4")
    }
    for id in () if ATARI.installed else _ATARI_IDS:
        environments.setdefault(id, EnvironmentInfo(id, ATARI.name, False, ATARI.extra, has_native_vector=False))
    for id in list_games():
        environments[id] = EnvironmentInfo(id, PETTINGZOO.name, is_installed(id), None, has_native_vector=False)
    return sorted(environments.values(), key=lambda environment: (environment.family, environment.id))


def newest_versions(specs: Iterable[EnvSpec]) -> dict[str, EnvSpec]:
    """The newest usable version of each name (an id less its `-v…`)."""
    newest: dict[str, EnvSpec] = {}
    for spec in specs:
        name, version = _split_version(spec.id)
        if not _is_retired(spec) and (name not in newest or (version or 0) > (newest[name].version or 0)):
            newest[name] = spec
    return newest


def _split_version(name: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(.+)-v(\d+)", name)
    return (match[1], int(match[2])) if match else (name, None)


def _is_retired(spec: EnvSpec) -> bool:
    """Gymnasium keeps ids of what it no longer ships: their entry points are functions that only raise."""
    return getattr(spec.entry_point, "__module__", None) == "gymnasium.envs"


def _is_atari(name: str) -> bool:
    base_name = _split_version(name)[0]
    return name.startswith("ALE/") or base_name.endswith(("NoFrameskip", "Deterministic")) or name in _ATARI_IDS


def _register_atari(name: str) -> None:
    try:
        ale_py = importlib.import_module("ale_py")
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # No banner for every game that is made.
        gymnasium.register_envs(ale_py)
    except ImportError as error:
        raise RllabError(f"'{name}' needs the Atari package, which is not installed: {ATARI.remedy}.") from error


def _nearest_ids(name: str) -> list[str]:
    """At most three ids that read like `name`, whatever its case, namespace or version."""
    ids = [spec.id for spec in newest_versions(gymnasium.registry.values()).values()]
    by_key: dict[str, str] = {}
    for id in [*ids, *_ATARI_IDS]:
        by_key.setdefault(_split_version(id)[0].lower(), id)
        by_key.setdefault(_split_version(id)[0].lower().rpartition("/")[2], id)
    keys = difflib.get_close_matches(_split_version(name)[0].lower(), by_key, n=4, cutoff=0.6)
    return list(dict.fromkeys(by_key[key] for key in keys))[:3]
