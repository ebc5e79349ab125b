"""Constant horizons: episodes that only a time limit ends, whatever happens in them.

Where an episode ends with a fall, its length tells how good it was: a reward model, and a person, would read the reward
off it. Christiano et al. 2017 ("Deep reinforcement learning from human preferences", section 3.1 and appendix A)
therefore removed MuJoCo's early ends, and hid the ends of Atari's games and lives from agent and reward model.

People still count games by their own ends: the step at which one is hidden has `HIDDEN_END` in its info.
"""

import copy
from typing import Any, Literal, Protocol

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils import RecordConstructorArgs

from envs.errors import RllabError
from envs.registry import ATARI, constructor_arguments, family_of
from envs.simulators import renew_box2d_world

TerminationName = Literal["episode", "ignored", "absorbing", "restart"]

HIDDEN_END = "hidden_end"
"""In the info of a step that would have ended the episode for the first time (ignored, absorbing), or at which a new
game took the place of one that is over (restart). What follows in an episode of the former kinds is no game."""

_FURTHEST = 4.0
"""Half-widths of the screen at which CartPole's cart is drawn when it is even further away."""


class TerminationConfig(Protocol):
    """The fields of `envs.config.EnvConfig` that are read here."""

    @property
    def id(self) -> str: ...
    @property
    def termination(self) -> TerminationName: ...
    @property
    def max_episode_steps(self) -> int | None: ...
    @property
    def env_kwargs(self) -> dict[str, Any]: ...


def check_termination(config: TerminationConfig, spec: EnvSpec) -> None:
    """Refuses horizons that the environment cannot have. (Atari's games have their cap of frames.)

    Raises:
        RllabError: it cannot be stepped past its end, or nothing would ever end its episodes.
    """
    if config.termination == "episode":
        return
    family = family_of(spec)
    if config.termination == "ignored" and family.package == "Box2D":
        raise RllabError(f"'{config.id}' cannot go on after the end of an episode: use termination 'absorbing'.")
    if config.termination in ("ignored", "absorbing") and family is ATARI:
        raise RllabError(f"'{config.id}' cannot go on after the end of a game: use termination 'restart'.")
    if config.max_episode_steps is None and spec.max_episode_steps is None and family is not ATARI:
        raise RllabError(
            f"'{config.id}' has no time limit, so with termination '{config.termination}' no episode would end: "
            "set max_episode_steps."
        )


def arguments_for(config: TerminationConfig, spec: EnvSpec) -> dict[str, Any]:
    """The constructor's arguments. MuJoCo's walkers are told that they may fall, lest their rewards say otherwise."""
    own_switch = "terminate_when_unhealthy"
    if config.termination == "ignored" and own_switch in constructor_arguments(spec):
        return {own_switch: False, **config.env_kwargs}
    return config.env_kwargs


def native_obstacle(config: TerminationConfig) -> str | None:
    """Why environments that reset themselves as a batch cannot do what is asked for; None if they can."""
    if config.termination == "episode":
        return None
    return f"it ends episodes by itself, which termination '{config.termination}' rules out"


def with_termination(env: gymnasium.Env[Any, Any], name: TerminationName) -> gymnasium.Env[Any, Any]:
    """The environment in the wrapper that `termination` asks for, if any; the time limit belongs outside of it."""
    if name == "ignored":
        return IgnoredTermination(env)
    if name == "absorbing":
        return AbsorbingEnd(env)
    return SilentRestart(env) if name == "restart" else env


class IgnoredTermination(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Drops `terminated`: the environment steps on, with whatever rewards it gives then."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)
        self.past_the_end = False
        """Whether this episode would be over."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        self.past_the_end = False
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, without an end.

        Raises:
            RllabError: the environment fails after its end.
        """
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            if not self.past_the_end:
                raise
            raise RllabError(
                f"it cannot be stepped past its end ({type(error).__name__}: {error}): use termination 'restart'"
            ) from error
        if terminated:
            if not self.past_the_end:
                info = {**info, HIDDEN_END: True}
            self.past_the_end = True
            bare: Any = self.unwrapped
            if getattr(bare, "steps_beyond_terminated", None) == 0:
                # CartPole's: it warns at the first step past the end, and at 1 as at any later one gives no reward.
                bare.steps_beyond_terminated = 1
        return observation, reward, False, truncated, info

    def render(self) -> Any:
        """Draw; a cart far out of the picture would be at a place that pygame has no numbers for."""
        bare: Any = self.unwrapped
        state, threshold = getattr(bare, "state", None), getattr(bare, "x_threshold", None)
        if threshold is None or state is None or abs(state[0]) <= _FURTHEST * threshold:
            return self.env.render()
        bare.state = state.copy()
        bare.state[0] = _FURTHEST * threshold * (1 if state[0] > 0 else -1)
        try:
            return self.env.render()
        finally:
            bare.state = state


class AbsorbingEnd(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Stays where it ended, with reward 0, whatever is done, until the time is up.

    A vector of numbers gets one more, which is 1 there, while the others are 0: all ends are the same state, as in
    Kostrikov et al. 2019 ("Discriminator-Actor-Critic", section 4.2), so that nothing can be gained by ending in one
    place rather than another. Other observations stay what they were last.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)
        space = env.observation_space
        self.marked = isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1 and space.dtype.kind == "f"
        if isinstance(space, gymnasium.spaces.Box) and self.marked:
            # 0 must be within the bounds, too.
            low, high = np.append(np.minimum(space.low, 0), 0), np.append(np.maximum(space.high, 0), 1)
            self.observation_space = gymnasium.spaces.Box(
                low.astype(space.dtype), high.astype(space.dtype), dtype=space.dtype.type
            )  # fmt: skip
        self.over = False
        self.last: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        self.over, self.last = False, None
        observation, info = self.env.reset(seed=seed, options=options)
        return self._mark(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, without an end."""
        if self.over:
            return copy.copy(self.last), 0.0, False, False, {}
        observation, reward, terminated, truncated, info = self.env.step(action)
        observation = self._mark(observation)
        if terminated:
            info = {**info, HIDDEN_END: True}
            self.over, self.last = True, copy.copy(observation)
            if self.marked:
                self.last[:-1], self.last[-1] = 0, 1
        return observation, reward, False, truncated, info

    def _mark(self, observation: Any) -> Any:
        return np.append(observation, np.zeros(1, observation.dtype)) if self.marked else observation


class SilentRestart(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Begins anew in the step that terminates, without a word: that step's reward, and the new start's observation."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, without an end."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated:
            renew_box2d_world(self.unwrapped)
            observation, info = self.env.reset()
            info = {**info, HIDDEN_END: True}
        return observation, reward, False, truncated, info
