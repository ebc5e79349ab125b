"""Vector environments that step a whole batch by one call: Gymnasium's native ones, ale-py's, and EnvPool's."""

from typing import Any

from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AutoresetMode, VectorEnv

from envs.atari import frame_limit, game_of, protocol_of
from envs.atari import native_obstacle as atari_obstacle
from envs.atari_vector import AtariVector
from envs.config import EnvConfig, check_time_limit
from envs.errors import RllabError
from envs.pool import PoolVectorEnv
from envs.registry import ATARI, family_of, find_spec
from envs.renderers import prepare_rendering
from envs.single import one_clear_sentence, with_render_mode
from envs.termination import native_obstacle


def make_native(config: EnvConfig, spec: EnvSpec, render_mode: str | None) -> VectorEnv[Any, Any, Any]:
    """The vector environment that comes with the environment.

    Raises:
        RllabError: there is none, or it cannot do what `config` asks for.
    """
    if (obstacle := native_obstacle(config)) is not None:
        raise RllabError(f"The native vector environment of '{config.id}' cannot be used ({obstacle}): use sync.")
    if family_of(spec) is ATARI:
        return _make_atari_vector(config, spec, render_mode)
    # Wrappers that the registration asks for can only go around single environments.
    if spec.vector_entry_point is None or spec.additional_wrappers:
        raise RllabError(f"'{config.id}' has no native vector environment: use sync or workers vectorization.")
    if config.autoreset == "same_step":
        raise RllabError("Native vector environments reset on the next step: use next_step, or sync vectorization.")
    check_time_limit(config)
    arguments = {"num_envs": config.num_envs, **spec.kwargs, **with_render_mode(config.env_kwargs, render_mode)}
    max_episode_steps = config.max_episode_steps or spec.max_episode_steps
    if max_episode_steps is not None:
        arguments["max_episode_steps"] = max_episode_steps
    prepare_rendering(spec, render_mode)
    with one_clear_sentence(config, spec):
        entry_point = spec.vector_entry_point
        creator: Any = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
        vector_env: VectorEnv[Any, Any, Any] = creator(**arguments)
    vector_env.spec = spec
    if vector_env.metadata.get("autoreset_mode") is not AutoresetMode.NEXT_STEP:
        vector_env.close()
        raise RllabError(f"The native vector environment of '{config.id}' does not reset on the next step: use sync.")
    return vector_env


def _make_atari_vector(config: EnvConfig, spec: EnvSpec, render_mode: str | None) -> VectorEnv[Any, Any, Any]:
    protocol = protocol_of(config, spec)
    obstacle = "it needs a protocol" if protocol is None else atari_obstacle(config, protocol, spec, render_mode)
    if protocol is None or obstacle is not None:
        raise RllabError(f"ale-py's vector environment cannot play '{config.id}' so ({obstacle}): use sync.")
    check_time_limit(config)
    with one_clear_sentence(config, spec):
        vector_env = AtariVector(
            game_of(spec), config.num_envs, protocol, max_frames=frame_limit(config), threads=config.workers,
            **config.env_kwargs,
        )  # fmt: skip
    vector_env.spec = spec
    return vector_env


def make_atari_pictures(config: EnvConfig) -> AtariVector:
    """What people see of the games that the native vector environment of `config` plays, into which its snapshots fit.

    Raises:
        RllabError: as `make_native`.
    """
    spec = find_spec(config.id)
    protocol = protocol_of(config, spec)
    assert protocol is not None
    with one_clear_sentence(config, spec):
        return AtariVector(
            game_of(spec), config.num_envs, protocol, max_frames=frame_limit(config), threads=config.workers,
            pictures=True, **config.env_kwargs,
        )  # fmt: skip


def make_pool(config: EnvConfig, spec: EnvSpec, render_mode: str | None) -> VectorEnv[Any, Any, Any]:
    """EnvPool's vector environment.

    Raises:
        RllabError: there is none, or it cannot do what `config` asks for.
    """
    if (obstacle := native_obstacle(config)) is not None:
        raise RllabError(f"EnvPool's '{config.id}' cannot be used ({obstacle}): use sync.")
    if family_of(spec) is ATARI:
        raise RllabError(f"'{config.id}' is stepped by ale-py's own vector environment, not by EnvPool: use native.")
    if render_mode is not None:
        raise RllabError("EnvPool's environments cannot be drawn here: use sync vectorization.")
    if config.autoreset == "same_step":
        raise RllabError("EnvPool's environments reset on the next step: use next_step, or sync vectorization.")
    check_time_limit(config)
    limit = config.max_episode_steps or spec.max_episode_steps
    vector_env = PoolVectorEnv(
        spec.id, config.num_envs, max_episode_steps=limit, threads=config.workers, arguments=config.env_kwargs
    )
    vector_env.spec = spec
    return vector_env
