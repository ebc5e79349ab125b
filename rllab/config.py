"""One configuration for Python, the command line and `config.json`: environment, policy, agent, loop."""

import contextlib
import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import resources
from typing import Any

import gymnasium

from envs.errors import RllabError
from envs.make import EnvConfig
from envs.registry import family_name, find_spec
from rllab.agents import CONFIGS, AgentConfig
from rllab.documents import with_tuples
from rllab.loop_config import LoopConfig
from rllab.policies import PolicyConfig


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a training run."""

    agent: AgentConfig
    env: EnvConfig
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    seed: int = 0
    """Seeds the weights, the environments, the actions and the minibatches: the same seed gives the same run."""
    device: str = "cpu"
    """Where the policy's weights live and learn: cpu, cuda, cuda:1, mps."""

    def __post_init__(self) -> None:
        if type(self.seed) is not int or not 0 <= self.seed < 2**63:
            raise RllabError(f"seed must be a whole number from 0 to 2^63 − 1, not {self.seed!r}")
        if not isinstance(self.device, str):
            raise RllabError(f"device must be a name such as cpu or cuda:1, not {self.device!r}")
        try:
            json.dumps(self.env.env_kwargs, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RllabError(f"env_kwargs must be what config.json can hold: {error}") from error

    @property
    def agent_name(self) -> str:
        """reinforce, ppo or trpo."""
        return next(name for name, kind in CONFIGS.items() if type(self.agent) is kind)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into an equal configuration."""
        return {"agent_name": self.agent_name, **dataclasses.asdict(self)}

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> "TrainConfig":
        """The configuration that `to_json` wrote.

        Raises RllabError if a field is unknown or missing, as in a file of another version.
        """
        try:
            kind = CONFIGS[document["agent_name"]]
            return TrainConfig(
                agent=kind(**document["agent"]),
                env=EnvConfig(**document["env"]),
                policy=PolicyConfig(**with_tuples(document["policy"])),
                loop=LoopConfig(**document["loop"]),
                seed=document["seed"],
                device=document["device"],
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise RllabError(
                f"the run's config.json does not fit this version of rllab ({error}); "
                "install the version named in it, or start a new run"
            ) from error


def configure(agent: str, env: str, settings: Mapping[str, Any] | None = None, *, preset: bool = True) -> TrainConfig:
    """The configuration for an agent on an environment: defaults, then the tuned preset if any, then `settings`.

    Args:
        agent: reinforce, ppo or trpo.
        env: a Gymnasium id.
        settings: any field of any part by its own name, e.g. `{"steps": 50_000, "learning_rate": 1e-3}`.
        preset: whether to use the preset.

    Raises:
        RllabError: an unknown agent or setting (the nearest names are given), or a value that does not fit.
    """
    if agent not in CONFIGS:
        raise RllabError(f"there is no agent '{agent}'; choose one of {', '.join(CONFIGS)}")
    parts: dict[str, Any] = {"agent": CONFIGS[agent], "env": EnvConfig, "policy": PolicyConfig, "loop": LoopConfig}
    homes = {f.name: part for part, kind in parts.items() for f in dataclasses.fields(kind) if f.name != "id"}
    homes |= {"seed": "", "device": ""}
    chosen: dict[str, dict[str, Any]] = {"agent": {}, "env": {"id": env}, "policy": {}, "loop": {}, "": {}}
    for name, value in {**(preset_for(agent, env) if preset else {}), **(settings or {})}.items():
        if name not in homes:
            near = get_close_matches(name, homes, n=3)
            raise RllabError(
                f"there is no setting '{name}' for {agent}" + (f"; did you mean {' or '.join(near)}?" if near else "")
            )
        kind = parts.get(homes[name])
        chosen[homes[name]][name] = value if kind is None else fitting(kind, name, value)
    built = {part: kind(**chosen[part]) for part, kind in parts.items()}
    return TrainConfig(**built, **chosen[""])


def preset_for(agent: str, env: str) -> dict[str, Any]:
    """The tuned settings of an agent for an environment: its family's, then its own; empty if there are none."""
    known = presets(agent)
    if env not in gymnasium.registry:
        with contextlib.suppress(RllabError):  # unknown, or its package is missing: said when it is made
            env = find_spec(env).id
    return {**known.get(family_name(env), {}), **known.get(env, {})}


def presets(agent: str) -> dict[str, dict[str, Any]]:
    """All presets of an agent, by environment or by family (such as MuJoCo)."""
    text = resources.files("rllab.presets").joinpath(f"{agent}.toml").read_text("utf-8")
    return tomllib.loads(text)


def fitting(kind: type, name: str, value: Any) -> Any:
    """`value`, checked and converted to the field's type as far as JSON and TOML blur it (lists, whole floats)."""
    expected = typing.get_type_hints(kind)[name]
    options = typing.get_args(expected) if isinstance(expected, types.UnionType) else (expected,)
    if isinstance(value, list) and any(typing.get_origin(option) is tuple for option in options):
        value = tuple(value)
    if isinstance(value, int) and not isinstance(value, bool) and float in options and int not in options:
        value = float(value)
    if not any(_is_a(value, option) for option in options):
        wanted = " or ".join(_describe(option) for option in options)
        raise RllabError(f"{name} must be {wanted}, not {value!r}")
    return value


def _is_a(value: Any, expected: Any) -> bool:
    origin = typing.get_origin(expected)
    if origin is typing.Literal:
        return value in typing.get_args(expected)
    if origin is tuple:
        return isinstance(value, tuple) and all(isinstance(item, int) for item in value)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or expected)


def _describe(expected: Any) -> str:
    if typing.get_origin(expected) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(expected)))
    if expected is types.NoneType:
        return "None"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(expected, str(expected))
