"""Collectors: where rollouts come from. `EnvCollector` steps vector environments with a policy."""

from typing import Any, Protocol

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from envs.errors import RllabError
from envs.make import autoreset_mode, reset
from envs.multi_agent import ACTING, as_multi_agent
from envs.rows import describe_row
from envs.snapshot import capture, restore
from rllab.checks import RolloutChecks
from rllab.distributed import require_alone
from rllab.episodes import EpisodeEnds, EpisodeRecorder
from rllab.masks import action_masks
from rllab.nested import Nested, leaves_of, map_nested
from rllab.observations import buffer_for, standard
from rllab.policies.actor_critic import ActorCritic
from rllab.rollout import Batch, Rollout
from rllab.turns import Acted, Final, Turns, advance
from rllab.whole import evaluate_finals, evaluate_rows, following


class Collector(Protocol):
    """A source of rollouts, with its own complete state."""

    num_rows: int
    """N, the rows of each rollout."""

    def collect(self, policy: Any) -> Rollout:
        """The next rollout, acted by `policy`; what it needs of the policy is the collector's own affair."""

    def recent(self) -> dict[str, float]:
        """Means over recent episodes, for people: `return_mean`, `length_mean`."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly as if never stopped."""

    def load_state_dict(self, state: dict[str, Any]) -> list[str]:
        """Take over a state; the result says in sentences what could not be restored exactly."""

    def close(self) -> None:
        """Let environments and the like go."""


class EnvCollector:
    """Steps a vector environment, in either autoreset mode, with or without masks and recurrence; or a game's players.

    While it acts it only writes into buffers. Everything that can be said of a whole rollout at once (episode
    ends, which columns exist, log-probabilities and values over T + 1 observations) is said at its end,
    in vector operations. Of a game whose rows act in turns, the rollout has each row's own steps (`rllab.turns`).
    """

    def __init__(
        self,
        vector_env: VectorEnv[Any, Any, Any],
        policy: ActorCritic,
        rollout_steps: int,
        seed: int = 0,
        *,
        clip_rewards: bool = False,
        check_bounds: bool = True,
        keep_next: bool = False,
    ) -> None:
        """Reset and seed the environments.

        Args:
            vector_env: what is stepped; with `metadata["frame_stack"]` its observations are stored frame by frame.
            policy: whose spaces these are.
            rollout_steps: T, columns of a rollout.
            seed: of the environments and of the actions.
            clip_rewards: the agent learns from rewards clipped to [−1, 1]; people see the environment's own.
            check_bounds: refuse observations outside the bounds of their space.
            keep_next: give rollouts `next_observations`.

        Raises:
            RllabError: a game of several players is reset on the next step.
        """
        self.env, self.family, self.steps = vector_env, policy.family, rollout_steps
        self.num_rows = vector_env.num_envs
        self.same_step = autoreset_mode(vector_env) is AutoresetMode.SAME_STEP
        self.game = as_multi_agent(vector_env)
        if self.game is not None:
            require_alone("A game of several players is trained")
        if self.game is not None and not self.same_step:
            raise RllabError("games of several players are collected with autoreset same_step: leave next_step out")
        self.generator = np.random.default_rng(np.random.SeedSequence([seed, 0xC011EC7]))
        self.episodes = EpisodeRecorder(self.num_rows)
        self.clip_rewards, self.keep_next = clip_rewards, keep_next
        self.stacked = "frame_stack" in vector_env.metadata
        self.check = RolloutChecks(
            vector_env.single_observation_space, check_bounds, lambda row: describe_row(vector_env, row)
        )
        self._columns_done = 0
        """Columns of earlier rollouts, so that an error can say at which step of an environment it arose."""
        observations, infos = reset(vector_env, seed)
        self._observations = standard(observations)
        self._mask, self._mask_key = action_masks(observations, infos, policy, self.num_rows), policy.layout.mask_key
        self._hidden = policy.initial_hidden(self.num_rows)
        self._previous_done = np.zeros(self.num_rows, bool)
        self._previous_start = np.ones(self.num_rows, bool)
        """Whether the current observations begin an episode."""

    def collect(self, policy: ActorCritic) -> Rollout:
        """Act for `rollout_steps` columns (of a game, until one of its players has made so many steps).

        Raises RllabError if an observation or a reward is not finite or out of bounds, naming environment and step.
        """
        rows = self.num_rows
        turns = None if self.game is None else Turns(self.game.acting, self.steps, self.game.players)
        acting = None if self.game is None else self.game.acting
        steps = self.steps if turns is None else turns.most
        buffer = buffer_for(self._observations, steps, self.stacked)
        actions = np.empty((rows, steps, *self.family.shape), torch.empty(0, dtype=self.family.dtype).numpy().dtype)
        rewards = np.empty((rows, steps))
        terminated, truncated = np.empty((rows, steps), bool), np.empty((rows, steps), bool)
        ends = EpisodeEnds()
        masks = None if self._mask is None else np.ones((rows, steps + 1, self._mask.shape[1]), bool)
        hidden = first_hidden = self._hidden
        finals: list[Final] = []
        lasts: list[tuple[int, int, Nested]] = []
        noise = self.family.draw_noise(self.generator, (steps, rows))
        start = self._previous_start

        mask = self._mask
        for t in range(steps):
            if hidden is not None and start.any():
                hidden = torch.where(torch.from_numpy(start).unsqueeze(1), 0.0, hidden)
            if masks is not None:
                masks[:, t] = mask
            chosen, after = policy.act(buffer.latest, noise[t], hidden=hidden, action_mask=mask)
            hidden = advance(hidden, after, acting)
            received, reward, ended, cut, infos = self.env.step(self.family.to_environment(chosen))
            actions[:, t] = chosen
            rewards[:, t] = reward
            terminated[:, t] = ended
            truncated[:, t] = cut
            if self.same_step:
                start = ended | cut
                if cut.any():
                    finals += [(n, t, *self._final(infos, n, hidden)) for n in np.flatnonzero(cut & ~ended).tolist()]
                if self.keep_next and start.any():
                    lasts += [(n, t, self._final(infos, n, None)[0]) for n in np.flatnonzero(start).tolist()]
            elif hidden is not None or self.stacked:
                # A column after an episode's end only resets: the one after it begins the new episode.
                start = self._previous_done if t == 0 else terminated[:, t - 1] | truncated[:, t - 1]
            buffer.write(t + 1, received, start)
            if masks is not None:
                sent = action_masks(received, infos, policy, rows)
                mask = np.ones_like(self._mask) if sent is None else sent  # none sent: all is allowed
            if infos:
                ends.note(t, infos)
            if turns is not None:
                acting = infos[ACTING]
                if turns.note(acting):
                    break

        self._observations = map_nested(np.copy, buffer.latest)
        self._hidden, self._mask = hidden, mask
        if masks is not None:
            masks[:, t + 1] = mask
        acted = Acted(
            buffer.finish(), actions[:, : t + 1], rewards[:, : t + 1], terminated[:, : t + 1], truncated[:, : t + 1],
            masks, finals, lasts,
        )  # fmt: skip
        arrays = buffer.arrays if turns is None else map_nested(lambda leaf: leaf[:, : t + 2], buffer.arrays)
        return self._finish(policy, acted, arrays, turns, ends, first_hidden).to(policy.device)

    def _finish(
        self, policy: ActorCritic, acted: Acted, arrays: Nested, turns: Turns | None, ends: EpisodeEnds,
        hidden: Tensor | None,
    ) -> Rollout:  # fmt: skip
        """Everything about a rollout that is computed once it has been acted; `arrays` are its observations."""
        done, steps = acted.done, self.steps
        with np.errstate(over="ignore"):  # what single precision cannot hold is infinite, and refused below
            single_rewards = acted.rewards.astype(np.float32)
        self.check(arrays, single_rewards, [final[:3] for final in acted.finals], self._columns_done)
        self._columns_done += done.shape[1]
        # Where a lost life ends an episode for the agent, or a game's end none, people still count whole games.
        hidden_ends = ends.hidden(done)
        if turns is None:
            valid, starts = self._columns(done)
            returns, lengths = self.episodes.record(acted.rewards, ends.over(done), valid, hidden_ends)
        else:
            returns, lengths = self.episodes.record(acted.rewards, done, np.ones_like(done), acted=turns.own)
            acted, valid, starts, self._previous_start = turns.own_steps(acted, self._previous_start)
            single_rewards = acted.rewards.astype(np.float32)

        tensor = torch.from_numpy
        observations, masks = acted.observations, acted.masks
        everything = Batch(
            observations=observations,
            actions=tensor(np.concatenate([acted.actions, np.zeros_like(acted.actions[:, :1])], axis=1)),
            valid=torch.ones(starts.shape, dtype=torch.bool),
            action_mask=None if masks is None else tensor(masks),
            starts=tensor(starts) if policy.rows else None,
            hidden=hidden,
        )
        log_probs, values = evaluate_rows(policy, everything)
        next_values = values[:, 1:].clone()
        if acted.finals:
            index, final_values = evaluate_finals(policy, acted.finals)
            next_values[index] = final_values

        own_rewards = tensor(single_rewards)
        return Rollout(
            observations=map_nested(lambda leaf: leaf[:, :steps], observations),
            actions=tensor(acted.actions),
            rewards=own_rewards.clamp(-1, 1) if self.clip_rewards else own_rewards,
            terminated=tensor(acted.terminated),
            truncated=tensor(acted.truncated),
            valid=tensor(valid),
            log_probs=log_probs[:, :steps],
            values=values[:, :steps],
            next_values=next_values,
            environment_rewards=own_rewards,
            action_mask=None if masks is None else tensor(masks[:, :steps]),
            starts=tensor(starts[:, :steps]) if policy.rows else None,
            hidden=hidden,
            next_observations=following(observations, acted.lasts) if self.keep_next else None,
            episode_returns=returns,
            episode_lengths=lengths,
            hidden_ends=hidden_ends,
        )

    def _columns(self, done: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which columns exist `[N, T]`, and which of the T + 1 observations begin an episode."""
        after_done = np.concatenate([self._previous_done[:, None], done], axis=1)  # column t: done at t − 1
        first = self._previous_start[:, None]
        if self.same_step:
            valid = np.ones(done.shape, bool)
            starts = np.concatenate([first, done], axis=1)
        else:
            valid = ~after_done[:, :-1]
            starts = np.concatenate([first, after_done[:, :-1]], axis=1)
        self._previous_done, self._previous_start = done[:, -1].copy(), starts[:, -1].copy()
        return valid, starts

    def _final(self, infos: dict[str, Any], row: int, hidden: Tensor | None) -> tuple[Nested, Tensor | None]:
        """The true last observation of a cut episode, and the recurrent state that led to it."""
        return map_nested(standard, infos["final_obs"][row]), None if hidden is None else hidden[row]

    def recent(self) -> dict[str, float]:
        """Mean raw return and length of the last 100 episodes."""
        return self.episodes.means()

    def state_dict(self) -> dict[str, Any]:
        """Simulator states, the last observations, recurrent state, running totals and the random generator."""
        return {
            "environments": capture(self.env),
            "generator": self.generator.bit_generator.state,
            "observations": _named(self._observations),
            "mask": self._mask,
            "hidden": self._hidden,
            "previous_done": self._previous_done,
            "previous_start": self._previous_start,
            "columns_done": self._columns_done,
            "episodes": self.episodes.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> list[str]:
        """Take over what `state_dict` gave. Environments that cannot go on exactly begin a new episode."""
        started_anew = restore(self.env, state["environments"])
        self.generator.bit_generator.state = state["generator"]
        self._observations = _unnamed(self._observations, state["observations"])
        self._mask, self._hidden = state["mask"], state["hidden"]
        self._previous_done = np.array(state["previous_done"])
        self._previous_start = np.array(state["previous_start"])
        self._columns_done = state["columns_done"]
        self.episodes.load_state_dict(state["episodes"])
        for row, observation in started_anew.items():
            map_nested(lambda leaf, new, n=row: leaf.__setitem__(n, new), self._observations, observation)
            self._previous_done[row], self._previous_start[row] = False, True
            self.episodes.forget(row)
            if self._mask is not None:
                self._mask[row] = True if self._mask_key is None else np.ravel(observation[self._mask_key])
        if not started_anew:
            return []
        return [
            f"{len(started_anew)} of {self.num_rows} environments could not be restored to the middle of their "
            "episodes and began new ones, so this run no longer equals an uninterrupted one exactly"
        ]

    def close(self) -> None:
        """Close the environments."""
        self.env.close()


def _named(observations: Nested) -> dict[str, Any]:
    return {str(index): leaf for index, leaf in enumerate(leaves_of(observations))}


def _unnamed(like: Nested, named: dict[str, Any]) -> Nested:
    leaves = iter(range(len(named)))
    return map_nested(lambda _: np.array(named[str(next(leaves))]), like)
