"""How environments are chosen: the configuration that all of them are made from."""

from dataclasses import dataclass, field
from typing import Any, Literal

from envs.atari import ProtocolName
from envs.errors import RllabError
from envs.termination import TerminationName

OpponentName = Literal["self", "random"]


@dataclass(frozen=True)
class EnvConfig:
    """Which environment, how many of it, and how they are stepped."""

    id: str
    """Gymnasium id, e.g. CartPole-v1, ALE/Pong-v5, or package:MyEnv-v0 to import a package first; or a game of
    PettingZoo, e.g. pettingzoo:classic/tictactoe_v3."""
    num_envs: int = 8
    """Environments stepped side by side; of a game of several players, each player of each copy is a row."""
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
    termination: TerminationName = "episode"
    """What a fall, a crash or a goal does. episode: it ends the episode; ignored: nothing, the environment steps on to
    its time limit; absorbing: it stays as it is, with reward 0, to its time limit; restart: the environment begins anew
    unseen, and the episode goes on to its time limit."""
    protocol: ProtocolName = "auto"
    """Atari's: mnih2015, machado2018, none (raw frames); auto: by the id."""
    clip_rewards: bool | None = None
    """The agent learns from rewards clipped to [−1, 1], and people are shown the environment's own; None: as Atari's
    protocol has it."""
    opponent: OpponentName = "self"
    """Who plays the other players of PettingZoo's games. self: the policy plays all of them; random: it plays one, a
    seat after the other, and the others choose uniformly among their legal actions."""
    check_bounds: bool = True
    """Refuse observations outside the bounds of their space (Box2D's environments leave theirs, and may; so may all
    that step on past their end)."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments for the environment's constructor."""


def check_time_limit(config: EnvConfig) -> None:
    """Refuses time limits that are none.

    Raises:
        RllabError: the limit is below 1.
    """
    if config.max_episode_steps is not None and config.max_episode_steps < 1:
        raise RllabError(f"max_episode_steps must be at least 1, not {config.max_episode_steps}.")
