"""Making one environment, and the sentences for what can go wrong in it."""

import copy
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from envs.atari import FRAME_SKIP, MAX_FRAMES, dress, emulator_arguments, frame_limit, protocol_of
from envs.config import EnvConfig, check_time_limit
from envs.episode import Episode
from envs.errors import RllabError
from envs.registry import ATARI, constructor_arguments, family_of, find_spec
from envs.renderers import prepare_rendering
from envs.simulators import quiet_mujoco
from envs.termination import arguments_for, check_termination, with_termination


def make_episode(config: EnvConfig, spec: EnvSpec, render_mode: str | None) -> Episode:
    """One environment of `config`, whose `num_envs`, `vectorization`, `workers` and `autoreset` play no part.

    Raises:
        RllabError: it is not installed, refuses its arguments, cannot be drawn, or cannot have the horizon asked for.
    """
    if family_of(spec) is ATARI:
        find_spec(spec.id)  # In a worker process too, where it has yet to tell the emulator to be quiet.
    check_time_limit(config)
    check_termination(config, spec)
    prepare_rendering(spec, render_mode)
    protocol = protocol_of(config, spec)
    if protocol is not None:
        with one_clear_sentence(config, spec):
            bare = _make_bare(config, spec, None, emulator_arguments(config, protocol), render_mode)
            return Episode(dress(bare, protocol, frame_limit(config), config.termination))
    limit = config.max_episode_steps or spec.max_episode_steps
    if limit is None and config.termination != "episode" and family_of(spec) is ATARI:
        limit = MAX_FRAMES // FRAME_SKIP  # the emulator's own cap is one for each game
    # `Episode` takes the place of Gymnasium's own wrappers, each of which costs a call a step. Only where the
    # registration adds wrappers, which may skip steps, the time limit stays inside of them. (Not where a restart would
    # set it back.)
    own_limit = limit if spec.additional_wrappers and config.termination != "restart" else None
    with one_clear_sentence(config, spec):
        env = _make_bare(config, spec, own_limit, arguments_for(config, spec), render_mode)
    return Episode(with_termination(env, config.termination), None if own_limit else limit)


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
        **with_render_mode(arguments, render_mode),
    )


def with_render_mode(arguments: dict[str, Any], render_mode: str | None) -> dict[str, Any]:
    """A constructor's arguments with the render mode; an environment that cannot be drawn need not know it."""
    return arguments if render_mode is None else {**arguments, "render_mode": render_mode}


@contextmanager
def one_clear_sentence(config: EnvConfig, spec: EnvSpec) -> Iterator[None]:
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
            names = ", ".join(constructor_arguments(spec))
            known = f"; it takes {names}" if names else ""
            raise RllabError(f"'{config.id}' takes no argument '{unknown[1]}'{known}.") from error
        arguments = f" with {config.env_kwargs}" if config.env_kwargs else ""
        raise RllabError(f"'{config.id}' could not be made{arguments}: {reason}.") from error
