"""Evaluation: separate environments, frozen normalisers, raw rewards, seeded anew each time."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from envs.errors import RllabError
from envs.make import EnvConfig, autoreset_mode, make_vector, reset
from envs.multi_agent import ACTING, as_multi_agent
from envs.registry import PETTINGZOO, family_of, find_spec
from envs.termination import HIDDEN_END
from rllab.masks import action_masks
from rllab.nested import leaves_of
from rllab.policies.actor_critic import ActorCritic
from rllab.statistics import Summary, summarise
from rllab.turns import advance

MOST_ENVIRONMENTS = 8
"""Side by side in an evaluation."""
EvaluationOpponent = Literal["auto", "self", "random"]
"""Who plays the other players in evaluations; auto: at random in games of turns, else as in training."""


def against(env: EnvConfig, opponent: EvaluationOpponent) -> EnvConfig:
    """The environment to evaluate in: against itself a policy returns 0 in a zero-sum game, however well it plays."""
    if opponent != "auto":
        return replace(env, opponent=opponent)
    if family_of(find_spec(env.id)) is not PETTINGZOO:
        return env
    with closing(make_vector(replace(env, num_envs=1))) as vector_env:
        game = as_multi_agent(vector_env)
        return replace(env, opponent="random") if game is not None and game.takes_turns else env


@dataclass(frozen=True)
class EvaluationResult:
    """Raw returns and lengths `[episodes]`."""

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the returns."""
        return float(self.returns.std())

    @property
    def length_mean(self) -> float:
        """Mean length in steps."""
        return float(self.lengths.mean())

    @property
    def won_drawn_lost(self) -> tuple[float, float, float]:
        """The shares of episodes with a return above 0, of 0, and below 0, as games between players are counted."""
        returns = self.returns
        return float((returns > 0).mean()), float((returns == 0).mean()), float((returns < 0).mean())

    def summary(self) -> Summary:
        """Mean, standard deviation, interquartile mean and its 95 % bootstrap interval."""
        return summarise(self.returns)


class Evaluator:
    """Plays episodes with a policy in environments of its own; the same seed gives the same episodes every time."""

    def __init__(self, env: EnvConfig, episodes: int = 10, *, seed: int = 0, deterministic: bool = True) -> None:
        """Make the environments.

        Args:
            env: which environment.
            episodes: how many; each environment plays its share, so that short episodes are not favoured.
            seed: of the episodes, and of the actions if they are sampled.
            deterministic: act by the distribution's mode.
        """
        if episodes < 1:
            raise RllabError(f"an evaluation needs at least 1 episode, not {episodes}")
        self.episodes, self.seed, self.deterministic = episodes, seed, deterministic
        self.env = make_vector(replace(env, num_envs=min(episodes, MOST_ENVIRONMENTS)))
        self.skips_resets = autoreset_mode(self.env) is AutoresetMode.NEXT_STEP

    def __call__(self, policy: ActorCritic) -> EvaluationResult:
        """Play the episodes."""
        count = self.env.num_envs
        share = np.array([(self.episodes + i) // count for i in range(count)])
        played = np.zeros(count, int)
        returns: list[float] = []
        lengths: list[int] = []
        running_return, running_length = np.zeros(count), np.zeros(count, int)
        generator = np.random.default_rng(self.seed)
        observations, infos = reset(self.env, self.seed)
        hidden, starts, resetting = policy.initial_hidden(count), np.ones(count, bool), np.zeros(count, bool)
        none, counted = np.zeros(count, bool), np.zeros(count, bool)  # counted: as in `EpisodeRecorder`
        acting = infos.get(ACTING)
        while (played < share).any():
            if hidden is not None:
                hidden = torch.where(torch.from_numpy(starts).unsqueeze(1), 0.0, hidden)
            noise = None if self.deterministic else policy.family.draw_noise(generator, (count,))
            mask = action_masks(observations, infos, policy, count)
            actions, after = policy.act(observations, noise, hidden=hidden, action_mask=mask)
            hidden = advance(hidden, after, acting)
            observations, rewards, terminated, truncated, infos = self.env.step(policy.family.to_environment(actions))
            running_return += np.where(resetting, 0.0, rewards)
            running_length += ~resetting if acting is None else acting
            acting = infos.get(ACTING)
            done = (terminated | truncated) & ~resetting
            starts = resetting if self.skips_resets else done
            # A lost life may end an episode for the agent, and a game's end none; what is reported is the whole game.
            kept_back = infos.get(HIDDEN_END, none)
            for n in np.flatnonzero(infos.get("episode_over", done) | kept_back):
                if played[n] < share[n] and (kept_back[n] or not counted[n]):
                    returns.append(float(running_return[n]))
                    lengths.append(int(running_length[n]))
                    played[n] += 1
                running_return[n], running_length[n] = 0.0, 0
                counted[n] = (kept_back[n] or counted[n]) and not done[n]
            if self.skips_resets:
                resetting = done
        return EvaluationResult(np.array(returns), np.array(lengths))

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def film(
    policy: ActorCritic, env: EnvConfig, *, seed: int = 0, max_steps: int | None = None, deterministic: bool = True
) -> Iterator[Any]:
    """Frames of one episode, drawn as they are asked for; played by the distribution's mode unless told otherwise."""
    from envs.render import record_episode

    hidden: torch.Tensor | None = None
    generator = np.random.default_rng(seed)

    def play(observations: Any, infos: dict[str, Any]) -> Any:
        nonlocal hidden
        rows = len(leaves_of(observations)[0])  # 1, or a game's players
        hidden = policy.initial_hidden(rows) if hidden is None else hidden
        mask = action_masks(observations, infos, policy, rows)
        noise = None if deterministic else policy.family.draw_noise(generator, (rows,))
        actions, after = policy.act(observations, noise, hidden=hidden, action_mask=mask)
        hidden = advance(hidden, after, infos.get(ACTING))
        return policy.family.to_environment(actions)

    return record_episode(env, play, max_steps=max_steps, seed=seed)
