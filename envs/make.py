"""Making environments: any Gymnasium id, one or many, native, in this process or in worker processes."""

import copy
import inspect
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AutoresetMode, VectorEnv

from envs.atari import (
    STACK,
    ProtocolName,
    dress,
    emulator_arguments,
    frame_limit,
    game_of,
    native_obstacle,
    protocol_of,
)
from envs.atari_vector import AtariVector
from envs.episode import Episode
from envs.errors import RllabError
from envs.pool import PoolVectorEnv
from envs.registry import ATARI, EnvironmentInfo, family_of, find_spec, list_environments
from envs.renderers import prepare_rendering
from envs.serial import SerialVectorEnv
from envs.simulators import quiet_mujoco
from envs.workers import WorkerVectorEnv

__all__ = [
    "EnvConfig",
    "EnvironmentInfo",
    "autoreset_mode",
    "checks_bounds",
    "clips_rewards",
    "list_environments",
    "make_single",
    "make_vector",
    "reset",
]


@dataclass(frozen=True)
class EnvConfig:
    """Which environment, how many of it, and how they are stepped."""

    id: str
    """Gymnasium id, e.g. CartPole-v1, ALE/Pong-v5, or package:MyEnv-v0 to import a package first."""
    num_envs: int = 8
    """Environments stepped side by side."""
    vectorization: Literal["auto", "native", "sync", "workers", "envpool"] = "auto"
    """native: one call steps the whole batch; sync: one after another in this process; workers: in several processes;
    envpool: by EnvPool, where it is installed; auto: native where the environment offers it, else sync."""
    autoreset: Literal["auto", "next_step", "same_step"] = "auto"
    """When an ended episode starts anew: same_step at once, next_step with a step that ignores its action;
    auto: same_step, or next_step where the environment is native (but Atari's) or EnvPool's."""
    workers: int = 0
    """Processes of workers vectorization, or threads of EnvPool's and of Atari's native one; 0: one for each core, at
    most num_envs."""
    max_episode_steps: int | None = None
    """Episodes are truncated after so many steps; None keeps the environment's own limit."""
    protocol: ProtocolName = "auto"
    """Atari's: mnih2015, machado2018, none (raw frames); auto: by the id."""
    clip_rewards: bool | None = None
    """The agent learns from rewards clipped to [−1, 1], and people are shown the environment's own; None: as Atari's
    protocol has it."""
    check_bounds: bool = True
    """Refuse observations outside the bounds of their space (Box2D's environments leave theirs, and may)."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments for the environment's constructor."""


def make_vector(config: EnvConfig, render_mode: str | None = None) -> VectorEnv[Any, Any, Any]:
    """The vector environment of `config`, whose state `envs.snapshot.capture` and `restore` reach as far as they can.

    What its `step` returns may be overwritten by the second step after it; copy what is to be kept longer.

    Args:
        config: what to make.
        render_mode: Gymnasium's render mode, e.g. `rgb_array`.

    Raises:
        RllabError: the environment does not exist, is not installed, refuses its arguments, or cannot be
            vectorised in the way asked for.
    """
    if config.num_envs < 1:
        raise RllabError(f"num_envs must be at least 1, not {config.num_envs}.")
    if config.workers < 0:
        raise RllabError(f"workers must be at least 1, or 0 for one on each core, not {config.workers}.")
    spec = find_spec(config.id)
    protocol = protocol_of(config, spec)
    if config.vectorization == "native":
        return _make_native(config, spec, render_mode)
    if config.vectorization == "envpool":
        return _make_pool(config, spec, render_mode)
    if config.vectorization == "auto" and (spec.vector_entry_point is not None or protocol is not None):
        try:
            return _make_native(config, spec, render_mode)
        except RllabError:
            pass  # Its package is missing, or it cannot do what the configuration asks: one by one it is.

    autoreset = AutoresetMode.NEXT_STEP if config.autoreset == "next_step" else AutoresetMode.SAME_STEP
    # With the specification itself, since worker processes know nothing of what was registered here.
    constructors = [partial(_make_episode, config, spec, render_mode) for _ in range(config.num_envs)]
    vector_env: VectorEnv[Any, Any, Any]
    if config.vectorization == "workers":
        vector_env = WorkerVectorEnv(constructors, autoreset, config.workers)
    else:
        vector_env = SerialVectorEnv(constructors, autoreset)
    vector_env.spec = spec
    if protocol is not None:
        vector_env.metadata["frame_stack"] = STACK
    return vector_env


def make_single(config: EnvConfig, render_mode: str | None = None) -> Episode:
    """One environment of `config` (whose `num_envs`, `vectorization`, `workers` and `autoreset` play no part).

    Raises:
        RllabError: as `make_vector`.
    """
    return _make_episode(config, find_spec(config.id), render_mode)


def reset(vector_env: VectorEnv[Any, Any, Any], seed: int | None) -> tuple[Any, dict[str, Any]]:
    """Starts every environment and seeds all that is random: environments, action and observation spaces.

    The environments' seeds are drawn from `seed`, since Gymnasium's own `seed + i` would make run 1's second
    environment a copy of run 2's first.

    Returns:
        Observations `[N, *obs]` and Gymnasium's infos.
    """
    if seed is None:
        return vector_env.reset()
    streams = np.random.SeedSequence(seed).generate_state(vector_env.num_envs + 1)
    environment_seeds, space_seed = [int(stream) for stream in streams[:-1]], int(streams[-1])
    for space in (
        vector_env.action_space,
        vector_env.single_action_space,
        vector_env.observation_space,
        vector_env.single_observation_space,
    ):
        space.seed(space_seed)
    if isinstance(vector_env.unwrapped, SerialVectorEnv | WorkerVectorEnv | PoolVectorEnv):
        return vector_env.reset(seed=environment_seeds)  # type: ignore[arg-type]
    return vector_env.reset(seed=environment_seeds[0])


def autoreset_mode(vector_env: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """How `vector_env` starts ended episodes anew.

    Raises:
        RllabError: it does not say.
    """
    mode = vector_env.metadata.get("autoreset_mode")
    if not isinstance(mode, AutoresetMode):
        raise RllabError(
            f"{type(vector_env.unwrapped).__name__} does not say how it resets ended episodes; "
            "its metadata needs an `autoreset_mode`."
        )
    return mode


def clips_rewards(config: EnvConfig) -> bool:
    """Whether the agent learns from clipped rewards."""
    protocol = protocol_of(config, find_spec(config.id))
    chosen = config.clip_rewards
    return chosen if chosen is not None else protocol is not None and protocol.clip_rewards


def checks_bounds(config: EnvConfig) -> bool:
    """Whether observations must lie within their space's bounds."""
    return config.check_bounds and family_of(find_spec(config.id)).package != "Box2D"


def _make_episode(config: EnvConfig, spec: EnvSpec, render_mode: str | None) -> Episode:
    if family_of(spec) is ATARI:
        find_spec(spec.id)  # In a worker process too, where it has yet to tell the emulator to be quiet.
    _check_time_limit(config)
    prepare_rendering(spec, render_mode)
    protocol = protocol_of(config, spec)
    if protocol is not None:
        with _one_clear_sentence(config, spec):
            arguments = emulator_arguments(config, protocol)
            return Episode(dress(_make_bare(config, spec, None, arguments, render_mode), protocol, frame_limit(config)))
    limit = config.max_episode_steps or spec.max_episode_steps
    # `Episode` takes the place of Gymnasium's own wrappers, each of which costs a call a step. Only where the
    # registration adds wrappers, which may skip steps, the time limit stays inside of them.
    own_limit = limit if spec.additional_wrappers else None
    with _one_clear_sentence(config, spec):
        env = _make_bare(config, spec, own_limit, config.env_kwargs, render_mode)
    return Episode(env, None if own_limit else limit)


def _make_bare(
    config: EnvConfig, spec: EnvSpec, limit: int | None, arguments: dict[str, Any], render_mode: str | None
) -> gymnasium.Env[Any, Any]:
    """An environment without Gymnasium's own wrappers, but for a time limit where one is given."""
    bare = copy.copy(spec)
    bare.order_enforce = False
    return gymnasium.make(
        bare,
        max_episode_steps=limit or -1,
        # The checker's advice is for people who write environments, and it slows every first step.
        disable_env_checker=True,
        **_constructor_arguments(arguments, render_mode),
    )


def _constructor_arguments(arguments: dict[str, Any], render_mode: str | None) -> dict[str, Any]:
    # An environment that cannot be drawn need not know the argument.
    return arguments if render_mode is None else {**arguments, "render_mode": render_mode}


def _make_native(config: EnvConfig, spec: EnvSpec, render_mode: str | None) -> VectorEnv[Any, Any, Any]:
    if family_of(spec) is ATARI:
        return _make_atari_vector(config, spec, render_mode)
    # Wrappers that the registration asks for can only go around single environments.
    if spec.vector_entry_point is None or spec.additional_wrappers:
        raise RllabError(f"'{config.id}' has no native vector environment: use sync or workers vectorization.")
    if config.autoreset == "same_step":
        raise RllabError("Native vector environments reset on the next step: use next_step, or sync vectorization.")
    _check_time_limit(config)
    arguments = {"num_envs": config.num_envs, **spec.kwargs, **_constructor_arguments(config.env_kwargs, render_mode)}
    max_episode_steps = config.max_episode_steps or spec.max_episode_steps
    if max_episode_steps is not None:
        arguments["max_episode_steps"] = max_episode_steps
    prepare_rendering(spec, render_mode)
    with _one_clear_sentence(config, spec):
        entry_point = spec.vector_entry_point
        creator: Any = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
        vector_env: VectorEnv[Any, Any, Any] = creator(**arguments)
    vector_env.spec = spec
    if autoreset_mode(vector_env) is not AutoresetMode.NEXT_STEP:
        vector_env.close()
        raise RllabError(f"The native vector environment of '{config.id}' does not reset on the next step: use sync.")
    return vector_env


def _make_atari_vector(config: EnvConfig, spec: EnvSpec, render_mode: str | None) -> VectorEnv[Any, Any, Any]:
    protocol = protocol_of(config, spec)
    obstacle = "it needs a protocol" if protocol is None else native_obstacle(config, protocol, spec, render_mode)
    if protocol is None or obstacle is not None:
        raise RllabError(f"ale-py's vector environment cannot play '{config.id}' so ({obstacle}): use sync.")
    _check_time_limit(config)
    with _one_clear_sentence(config, spec):
        vector_env = AtariVector(
            game_of(spec), config.num_envs, protocol, max_frames=frame_limit(config), threads=config.workers,
            **config.env_kwargs,
        )  # fmt: skip
    vector_env.spec = spec
    return vector_env


def _make_pool(config: EnvConfig, spec: EnvSpec, render_mode: str | None) -> VectorEnv[Any, Any, Any]:
    if family_of(spec) is ATARI:
        raise RllabError(f"'{config.id}' is stepped by ale-py's own vector environment, not by EnvPool: use native.")
    if render_mode is not None:
        raise RllabError("EnvPool's environments cannot be drawn here: use sync vectorization.")
    if config.autoreset == "same_step":
        raise RllabError("EnvPool's environments reset on the next step: use next_step, or sync vectorization.")
    _check_time_limit(config)
    limit = config.max_episode_steps or spec.max_episode_steps
    vector_env = PoolVectorEnv(
        spec.id, config.num_envs, max_episode_steps=limit, threads=config.workers, arguments=config.env_kwargs
    )
    vector_env.spec = spec
    return vector_env


def _check_time_limit(config: EnvConfig) -> None:
    if config.max_episode_steps is not None and config.max_episode_steps < 1:
        raise RllabError(f"max_episode_steps must be at least 1, not {config.max_episode_steps}.")


@contextmanager
def _one_clear_sentence(config: EnvConfig, spec: EnvSpec) -> Iterator[None]:
    """Turns what goes wrong while an environment is made into an `RllabError`, and keeps advice quiet."""
    try:
        with warnings.catch_warnings(), quiet_mujoco(needed=family_of(spec).package == "mujoco"):
            warnings.filterwarnings("ignore", module="gymnasium")
            yield
    except RllabError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        family = family_of(spec)
        if isinstance(error, ImportError | gymnasium.error.DependencyNotInstalled) and not family.installed:
            raise RllabError(f"'{config.id}' needs {family.name}, which is not installed: {family.remedy}.") from error
        unknown = re.search(r"unexpected keyword argument '(\w+)'", reason)
        if isinstance(error, TypeError) and unknown and unknown[1] == "render_mode":
            raise RllabError(f"'{config.id}' cannot be drawn: it takes no 'render_mode'.") from error
        if isinstance(error, TypeError) and unknown:
            raise RllabError(f"'{config.id}' takes no argument '{unknown[1]}'{_known_arguments(spec)}.") from error
        arguments = f" with {config.env_kwargs}" if config.env_kwargs else ""
        raise RllabError(f"'{config.id}' could not be made{arguments}: {reason}.") from error


def _known_arguments(spec: EnvSpec) -> str:
    entry_point: Any = spec.entry_point
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    names = [
        parameter.name
        for parameter in inspect.signature(creator).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.name != "render_mode"
    ]
    return f"; it takes {', '.join(names)}" if names else ""
