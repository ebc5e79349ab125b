"""One environment as this project steps it: it counts the steps of an episode, cuts it, and takes exact snapshots.

Pickling or deep-copying a simulator loses part of its state without a word (MuJoCo and Atari do), so a snapshot
takes the first of these that fits:

1. the environment's own `get_snapshot()` and `set_snapshot(state)`, if its author wrote them;
2. its attributes, if every one of them is plain data (classic control and most environments in pure NumPy),
   with MuJoCo's integration state read and written through MuJoCo;
3. replay: the random generator as it was before the episode's reset, and the episode's actions. Restoring
   resets, repeats the actions, and checks that observation and generator arrive at the same bits. (What an
   environment carries from episode to episode in a place that none of these reach cannot be noticed.)

A snapshot is a nested dict of JSON values and NumPy arrays. What is fixed by the configuration (spaces, the
physical model, constructor arguments) is not part of it: it is restored into an environment made alike.
"""

import copy
import sys
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from envs.attributes import get_attributes, set_attributes
from envs.buffers import WrongReturnError, describe_value
from envs.errors import RllabError
from envs.plain_data import NotPlainError, decode, encode, identical, make_generator
from envs.simulators import (
    get_emulator_state,
    get_mujoco_state,
    mujoco_simulation,
    renew_box2d_world,
    set_emulator_state,
    set_mujoco_state,
)

# An episode longer than this is not recorded for replay: repeating it could take longer than it is worth.
_LONGEST_REPLAY = 200_000

_MUJOCO_HANDLES = {"model", "data", "mujoco_renderer"}


class Episode(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """The outermost wrapper of a single environment, and in most cases the only one.

    It stands for Gymnasium's TimeLimit and OrderEnforcing too: each wrapper costs a call a step.

    Attributes:
        elapsed_steps: of the current episode.
        over: whether the last step ended the episode.
        last_observation: what the last reset or step returned.
        seed: what the environment was last seeded with, so that errors can say it; None if it never was.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], max_episode_steps: int | None = None) -> None:
        """Wraps an environment.

        Args:
            env: the environment, with wrappers of its own or without.
            max_episode_steps: episodes are truncated after so many; None: never.
        """
        RecordConstructorArgs.__init__(self, max_episode_steps=max_episode_steps)
        gymnasium.Wrapper.__init__(self, env)
        self.elapsed_steps = 0
        self.over = False
        self.last_observation: Any = None
        self.seed: int | None = None
        self._limit = sys.maxsize if max_episode_steps is None else max_episode_steps
        self._must_replay: bool | None = None  # Known after the first reset.
        self._start: dict[str, Any] | None = None
        self._actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode."""
        if seed is not None:
            self.seed = seed
        renew_box2d_world(self.unwrapped)
        start = self._start_of_episode(seed, options) if self._must_replay is not False else None
        observation, info = self.env.reset(seed=seed, options=options)
        if self._must_replay is None:
            self._must_replay = self._state() is None
        self._start = start if self._must_replay else None
        self._actions = []
        self.last_observation = observation
        self.elapsed_steps, self.over = 0, False
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps, and truncates the episode when its time is up.

        Raises:
            WrongReturnError: the environment's `terminated` or `truncated` is not a boolean.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.elapsed_steps = elapsed = self.elapsed_steps + 1
        if self._start is not None:
            self._record(action)
        if terminated is not False or truncated is not False or elapsed >= self._limit:
            terminated, truncated = _flag("terminated", terminated), _flag("truncated", truncated)
            truncated = truncated or elapsed >= self._limit
            self.over = terminated or truncated
        self.last_observation = observation
        return observation, reward, terminated, truncated, info

    def snapshot(self) -> dict[str, Any]:
        """All that decides what happens next, given the actions: a nested dict of JSON values and arrays."""
        state = self._state()
        replay = None
        if state is None and self._start is not None:
            replay = {"start": self._start, "actions": _encode_actions(self._actions)}
        return {
            "environment": str(self.env),
            "seed": self.seed,
            "elapsed_steps": self.elapsed_steps,
            "over": bool(self.over),
            "observation": _encode_or_none(self.last_observation),
            "generator": _generator_state(self.unwrapped),
            "state": state,
            "replay": replay,
        }

    def restore(self, snapshot: dict[str, Any]) -> bool:
        """Continues from a snapshot taken of an environment made alike.

        Returns:
            Whether the environment is exactly where it was. If not, it has been reset: a new episode has
            begun, and `last_observation` is its first.

        Raises:
            RllabError: the snapshot is of another environment.
        """
        if snapshot["environment"] != str(self.env):
            raise RllabError(
                f"A snapshot of {snapshot['environment']} cannot be restored into {self.env}: "
                "make the environment with the configuration that the snapshot was taken under."
            )
        if snapshot["state"] is not None:
            _set_generator_state(self.unwrapped, snapshot["generator"])
            self._set_state(snapshot["state"])
            self._start, self._actions = None, []
            self.last_observation = decode(snapshot["observation"])
            exact = True
        else:
            exact = self._replay(snapshot)
        self.seed = snapshot["seed"]
        if not exact:
            # The generator is put back even so, for the resumed run to be repeatable.
            _set_generator_state(self.unwrapped, snapshot["generator"])
            self.reset()
            return False
        self.elapsed_steps, self.over = snapshot["elapsed_steps"], snapshot["over"]
        return True

    def _wrappers(self) -> list[gymnasium.Wrapper[Any, Any, Any, Any]]:
        """The wrappers below this one, outermost first."""
        wrappers = []
        env = self.env
        while isinstance(env, gymnasium.Wrapper):
            wrappers.append(env)
            env = env.env
        return wrappers

    def _wrapper_states(self) -> dict[str, Any]:
        return {str(index): get_attributes(wrapper) for index, wrapper in enumerate(self._wrappers())}

    def _state(self) -> dict[str, Any] | None:
        """The state of environment and wrappers, or None if some of it cannot be written as plain data."""
        env: Any = self.unwrapped
        simulation = mujoco_simulation(env)
        try:
            state: dict[str, Any] = {"wrappers": self._wrapper_states()}
            if hasattr(env, "get_snapshot"):
                state["own"] = env.get_snapshot()
                return state
            state["attributes"] = get_attributes(env, ignoring=_MUJOCO_HANDLES if simulation else set())
        except NotPlainError:
            return None
        if simulation is not None:
            state["mujoco"] = get_mujoco_state(*simulation)
        return state

    def _set_state(self, state: dict[str, Any]) -> None:
        env: Any = self.unwrapped
        for index, wrapper in enumerate(self._wrappers()):
            set_attributes(wrapper, state["wrappers"][str(index)])
        if "own" in state:
            env.set_snapshot(state["own"])
            return
        set_attributes(env, state["attributes"])
        simulation = mujoco_simulation(env)
        if simulation is not None:
            set_mujoco_state(*simulation, state["mujoco"])

    def _start_of_episode(self, seed: int | None, options: dict[str, Any] | None) -> dict[str, Any] | None:
        """What a reset depends on, or None if it cannot be written as plain data."""
        try:
            return {
                "emulator": get_emulator_state(self.unwrapped),
                "seed": seed,
                "options": encode(options),
                "generator": None if seed is not None else _generator_state(self.unwrapped),
                "wrappers": self._wrapper_states(),
            }
        except NotPlainError:
            return None

    def _record(self, action: Any) -> None:
        if len(self._actions) >= _LONGEST_REPLAY:
            self._start, self._actions = None, []
        else:
            self._actions.append(copy.copy(action) if isinstance(action, np.ndarray) else copy.deepcopy(action))

    def _replay(self, snapshot: dict[str, Any]) -> bool:
        """Repeats the snapshot's episode; whether it arrived where it had been."""
        if snapshot["replay"] is None or snapshot["observation"] is None:
            return False
        start = snapshot["replay"]["start"]
        for index, wrapper in enumerate(self._wrappers()):
            set_attributes(wrapper, start["wrappers"][str(index)])
        _set_generator_state(self.unwrapped, start["generator"])
        if start["emulator"] is not None:
            set_emulator_state(self.unwrapped, start["emulator"])
        self._must_replay = True
        self.reset(seed=start["seed"], options=decode(start["options"]))
        for action in _decode_actions(snapshot["replay"]["actions"]):
            self.step(action)
        # The very same start keeps later snapshots the same, whether or not the run was interrupted.
        self._start = start
        return identical(_encode_or_none(self.last_observation), snapshot["observation"]) and identical(
            _generator_state(self.unwrapped), snapshot["generator"]
        )


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise WrongReturnError(f"returned {name} = {describe_value(value)} where a boolean is expected")
    return bool(value)


def _encode_or_none(value: Any) -> Any:
    try:
        return encode(value)
    except NotPlainError:
        return None


def _encode_actions(actions: list[Any]) -> Any:
    """Actions `[T, ...]` as one array where they are all of one kind."""
    if all(isinstance(action, np.ndarray | np.generic | int) for action in actions):
        return np.array(actions)
    return _encode_or_none(actions)


def _decode_actions(encoded: Any) -> Any:
    return encoded if isinstance(encoded, np.ndarray) else decode(encoded)


def _generator_state(env: gymnasium.Env[Any, Any]) -> Any:
    """The state of the environment's generator, or None if it is not one of NumPy's."""
    generator: Any = env.np_random
    return generator.bit_generator.state if isinstance(generator, np.random.Generator) else None


def _set_generator_state(env: gymnasium.Env[Any, Any], state: Any) -> None:
    if state is not None:
        env.np_random = make_generator(state)
