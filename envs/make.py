"""Making environments: any Gymnasium id, one or many, native, in this process or in worker processes."""

from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from envs.atari import STACK, protocol_of
from envs.config import EnvConfig
from envs.episode import Episode
from envs.errors import RllabError
from envs.multi_agent import make_multi_agent
from envs.native import make_native, make_pool
from envs.pool import PoolVectorEnv
from envs.registry import PETTINGZOO, EnvironmentInfo, family_of, find_spec, list_environments
from envs.serial import SerialVectorEnv
from envs.single import make_episode
from envs.termination import check_termination
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
    if family_of(spec) is PETTINGZOO:
        return make_multi_agent(config, spec, render_mode)
    if config.opponent != "self":
        raise RllabError(
            f"'{config.id}' is for one player: an opponent ('{config.opponent}') is for PettingZoo's games."
        )
    check_termination(config, spec)
    if config.vectorization == "native":
        return make_native(config, spec, render_mode)
    if config.vectorization == "envpool":
        return make_pool(config, spec, render_mode)
    if config.vectorization == "auto" and (spec.vector_entry_point is not None or protocol is not None):
        try:
            return make_native(config, spec, render_mode)
        except RllabError:
            pass  # Its package is missing, or it cannot do what the configuration asks: one by one it is.

    autoreset = AutoresetMode.NEXT_STEP if config.autoreset == "next_step" else AutoresetMode.SAME_STEP
    # With the specification itself, since worker processes know nothing of what was registered here.
    constructors = [partial(make_episode, config, spec, render_mode) for _ in range(config.num_envs)]
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
    spec = find_spec(config.id)
    if family_of(spec) is PETTINGZOO:
        raise RllabError(f"'{config.id}' is a game of several players, which cannot be made as one environment here.")
    return make_episode(config, spec, render_mode)


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
    may_leave = config.termination == "ignored" or family_of(find_spec(config.id)).package == "Box2D"
    return config.check_bounds and not may_leave
