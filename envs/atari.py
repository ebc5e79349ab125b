"""Atari's two evaluation protocols, by name, and a single game dressed for either.

`mnih2015` is Mnih et al. 2015 ("Human-level control through deep reinforcement learning", Methods and extended data
table 1); `machado2018` is Machado et al. 2018 ("Revisiting the Arcade Learning Environment", section 5 and table 3).
Scores under one say nothing about scores under the other.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from envs.errors import RllabError
from envs.registry import ATARI, family_of
from envs.termination import TerminationName, with_termination

ProtocolName = Literal["auto", "mnih2015", "machado2018", "none"]

FRAME_SKIP, STACK, SIZE = 4, 4, 84
"""Frames an action is repeated for, of which the last two are joined by their maximum; frames in an observation;
pixels a side of each, grey (both papers)."""
FRAMES_A_SECOND = 60
MAX_FRAMES = 108_000
"""Frames after which a game is cut: half an hour."""


@dataclass(frozen=True)
class AtariProtocol:
    """What the protocols differ in."""

    name: str
    sticky: float
    """Probability that the emulator repeats the last action instead (0.25: Machado et al. 2018, section 5.2)."""
    most_noops: int
    """A game begins with a number of no-ops from 0 to this (Mnih et al. 2015: up to 30)."""
    lives_are_episodes: bool
    """For the agent an episode ends with every lost life; the game goes on where it was."""
    clip_rewards: bool
    """The agent learns from rewards clipped to [−1, 1]; scores are the game's own."""


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        AtariProtocol("mnih2015", sticky=0.0, most_noops=30, lives_are_episodes=True, clip_rewards=True),
        AtariProtocol("machado2018", sticky=0.25, most_noops=0, lives_are_episodes=False, clip_rewards=True),
    )
}

# What a protocol decides, by the names of the emulator's arguments: none of them may be given beside it.
_DECIDED = ("frameskip", "repeat_action_probability", "obs_type", "max_num_frames_per_episode")
NATIVE_ARGUMENTS = frozenset({"full_action_space"})
"""Constructor arguments that ale-py's vector environment takes too; others need the single environment."""


_ENDS_WITH_LIVES = frozenset({"adventure"})
"""Games that can be over with lives left: the others' `lives()` in ALE's source are 0 then. (All that ale-py registers
were played at random, too.)"""


class AtariConfig(Protocol):
    """The fields of `envs.make.EnvConfig` that are read here."""

    @property
    def id(self) -> str: ...
    @property
    def protocol(self) -> ProtocolName: ...
    @property
    def autoreset(self) -> str: ...
    @property
    def max_episode_steps(self) -> int | None: ...
    @property
    def env_kwargs(self) -> dict[str, Any]: ...


def protocol_of(config: AtariConfig, spec: EnvSpec) -> AtariProtocol | None:
    """The protocol that an environment is played by; None for raw frames, and for what is not Atari.

    `auto` is what the id says: `…NoFrameskip-v4` is mnih2015, `ALE/…-v5` machado2018, any other raw.

    Raises:
        RllabError: the protocol contradicts the id, or an argument for the emulator contradicts the protocol.
    """
    atari = family_of(spec) is ATARI
    version_five = atari and spec.version == 5
    no_frameskip = atari and spec.version == 4 and "NoFrameskip" in spec.id
    name = config.protocol
    if name == "auto":
        name = "machado2018" if version_five else "mnih2015" if no_frameskip else "none"
        name = "none" if config.env_kwargs.get("obs_type") == "ram" else name
    if name == "none":
        return None
    if not atari:
        raise RllabError(f"protocol '{name}' is for Atari's games, which '{spec.id}' is not: leave it out.")
    if name == "machado2018" and not version_five:
        raise RllabError(
            f"protocol 'machado2018' contradicts '{spec.id}', whose version has no sticky actions of 0.25: use "
            f"'{_version_five(spec)}', or protocol 'mnih2015'."
        )
    if not version_five and not no_frameskip:
        raise RllabError(
            f"protocol '{name}' contradicts '{spec.id}', which skips frames by a rule of its own: use "
            f"'{_version_five(spec)}' or a NoFrameskip-v4 id."
        )
    for argument in _DECIDED:
        if argument in config.env_kwargs:
            raise RllabError(
                f"protocol '{name}' decides '{argument}' itself: leave it out, or use protocol 'none' for frames as "
                "the emulator gives them."
            )
    return PROTOCOLS[name]


def game_of(spec: EnvSpec) -> str:
    """The ROM's name, such as `ms_pacman`."""
    game: str = spec.kwargs["game"]
    return game


def frame_limit(config: AtariConfig) -> int:
    """Frames after which a game is cut; `max_episode_steps` counts actions."""
    limit = config.max_episode_steps
    return MAX_FRAMES if limit is None else min(MAX_FRAMES, limit * FRAME_SKIP)


def native_obstacle(config: AtariConfig, protocol: AtariProtocol, spec: EnvSpec, render_mode: str | None) -> str | None:
    """Why ale-py's vector environment cannot do what the configuration asks; None if it can."""
    if render_mode is not None:
        return "it draws nothing"
    if others := sorted(set(config.env_kwargs) - NATIVE_ARGUMENTS):
        return f"it takes no argument '{others[0]}'"
    if not all(isinstance(value, bool) for value in config.env_kwargs.values()):
        return "full_action_space is true or false"
    if config.autoreset == "next_step":
        return "it begins the next game in the step that ends one"
    if protocol.lives_are_episodes and game_of(spec) in _ENDS_WITH_LIVES:
        return "it does not tell this game's end from a lost life"
    return None


def _version_five(spec: EnvSpec) -> str:
    camel = "".join(part.capitalize() for part in game_of(spec).split("_"))
    return f"ALE/{camel}-v5"


def emulator_arguments(config: AtariConfig, protocol: AtariProtocol) -> dict[str, Any]:
    """Arguments for the single environment's constructor, under which `dress` makes it follow the protocol."""
    return {
        **config.env_kwargs,
        "frameskip": 1,
        "repeat_action_probability": protocol.sticky,
        "max_num_frames_per_episode": 0,  # it would count the no-ops; `FrameStack` cuts games
    }


def dress(
    env: gymnasium.Env[Any, Any],
    protocol: AtariProtocol,
    max_frames: int = MAX_FRAMES,
    termination: TerminationName = "episode",
) -> gymnasium.Env[Any, Any]:
    """One game in Gymnasium's wrappers, made with `emulator_arguments`: slower than ale-py's vector environment, but it
    can be drawn, takes every argument of the emulator, and its state can be read.

    With termination `restart` neither lives nor games end anything: a new game's first frame is stacked upon the last
    game's, and `max_frames` counts over all of them.
    """
    from gymnasium.wrappers import AtariPreprocessing

    # Its own `terminal_on_life_loss` would begin a new game after every life.
    env = AtariPreprocessing(env, noop_max=protocol.most_noops, frame_skip=FRAME_SKIP, screen_size=SIZE)
    env = FrameStack(with_termination(env, termination), max_frames // FRAME_SKIP)
    env.metadata = {**env.metadata, "render_fps": FRAMES_A_SECOND / FRAME_SKIP}
    return LivesAsEpisodes(env) if protocol.lives_are_episodes and termination == "episode" else env


class FrameStack(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Observations of the last `STACK` frames, the newest last, black before a game's first; games are cut after so
    many steps.

    (Gymnasium's own keeps some frames under two names, which no snapshot can tell apart.)
    """

    def __init__(self, env: gymnasium.Env[Any, Any], max_steps: int) -> None:
        RecordConstructorArgs.__init__(self, max_steps=max_steps)
        gymnasium.Wrapper.__init__(self, env)
        self.max_steps, self.steps = max_steps, 0
        shape = (STACK, *(env.observation_space.shape or ()))
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        self.stack = np.zeros(shape, np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin with the first frame."""
        self.steps = 0
        frame, info = self.env.reset(seed=seed, options=options)
        return self._push(np.zeros_like(self.stack), frame), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Add a frame."""
        frame, reward, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        cut = bool(truncated) or (self.steps >= self.max_steps and not terminated)
        return self._push(self.stack, frame), reward, bool(terminated), cut, info

    def _push(self, stack: NDArray[np.uint8], frame: Any) -> NDArray[np.uint8]:
        self.stack = np.concatenate([stack[1:], frame[None]])
        return self.stack


class LivesAsEpisodes(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Ends the agent's episode when a life is lost; the reset after it begins the next where the game is.

    `infos["episode_over"]` says whether the game itself is over.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)
        self.lives = 0
        self.game_goes_on = False
        """Whether the last episode ended with a life and not with the game."""
        self.latest: NDArray[np.uint8] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Go on after a lost life; else, or with a seed, begin a new game."""
        if self.game_goes_on and seed is None:
            self.game_goes_on = False
            return self.latest, {"lives": self.lives}
        self.latest, info = self.env.reset(seed=seed, options=options)
        self.lives, self.game_goes_on = info["lives"], False
        return self.latest, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and look at the lives."""
        self.latest, reward, terminated, truncated, info = self.env.step(action)
        over = bool(terminated or truncated)
        lost, self.lives = 0 < info["lives"] < self.lives, info["lives"]
        self.game_goes_on = lost and not over
        info["episode_over"] = over
        return self.latest, reward, bool(terminated or self.game_goes_on), bool(truncated), info


__all__ = [
    "FRAME_SKIP", "MAX_FRAMES", "NATIVE_ARGUMENTS", "PROTOCOLS", "SIZE", "STACK", "AtariProtocol", "LivesAsEpisodes",
    "ProtocolName", "dress", "emulator_arguments", "frame_limit", "game_of", "protocol_of",
]  # fmt: skip
