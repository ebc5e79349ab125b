"""Whole episodes of a policy as arrays, with the environment's own rewards: to measure a learned reward, and to cut."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from envs.atari import game_of
from envs.config import EnvConfig
from envs.errors import RllabError
from envs.make import make_vector, reset
from envs.registry import ATARI, family_of, find_spec
from envs.termination import HIDDEN_END
from preference.epic import Transitions
from preference.inputs import Inputs, StepReader
from rllab.masks import action_masks
from rllab.nested import map_nested
from rllab.observations import standard
from rllab.policies.actor_critic import ActorCritic
from rllab.threads import single_threaded

MOST_ENVIRONMENTS = 8
"""Side by side; of images one, since whole episodes of them are large."""

Episode = dict[str, NDArray[Any]]
"""`observations` and `next_observations` `[L, *obs]`, `actions` `[L, *act]` and `rewards` `[L]`, as clips have them."""


@dataclass(frozen=True)
class Player:
    """Plays a policy: whole games where one silently follows the other."""

    policy: ActorCritic
    env: EnvConfig
    """How many environments, and how they are stepped, plays no part."""
    deterministic: bool = True
    """By the mode of the policy's distribution."""

    def episodes(self, count: int, seed: int, *, inputs: Inputs | None = None) -> Iterator[Episode]:
        """Play episodes, each given when it ends; every environment plays its share, lest short ones are favoured.

        Args:
            count: how many.
            seed: of the environments and of sampled actions.
            inputs: what a reward model reads, to make sure that it can read these.

        Raises:
            RllabError: `count` is below 1, the environment cannot be made, or the model reads something else.
        """
        if count < 1:
            raise RllabError(f"--episodes must be at least 1, not {count}")
        rows = 1 if inputs is not None and inputs.image else min(count, MOST_ENVIRONMENTS)
        # Whole games of Atari, though a lost life may end an episode for the agent; the last observation of an episode
        # comes as the next one of its last step, and is followed by a step that only resets.
        config = replace(self.env, num_envs=rows, vectorization="sync", autoreset="next_step")
        vector_env = make_vector(config)
        try:
            spec = find_spec(self.env.id)
            game = game_of(spec) if family_of(spec) is ATARI else None  # whose score clips do not show
            reader = StepReader(vector_env.single_observation_space, vector_env.single_action_space, game=game)
            if inputs is not None:
                check_inputs(inputs, reader.inputs, self.env)
            with single_threaded(self.policy.single_threaded):
                yield from self._play(vector_env, reader, [(count + row) // rows for row in range(rows)], seed)
        finally:
            vector_env.close()

    def _play(
        self, vector_env: VectorEnv[Any, Any, Any], reader: StepReader, shares: Sequence[int], seed: int
    ) -> Iterator[Episode]:
        policy, rows, left = self.policy, len(shares), np.array(shares)
        generator = np.random.default_rng(np.random.SeedSequence([seed, 0xE915]))
        steps: list[list[tuple[Any, ...]]] = [[] for _ in range(rows)]
        observations, infos = reset(vector_env, seed)
        read = _read(reader, observations)
        hidden, resetting = policy.initial_hidden(rows), np.zeros(rows, bool)
        starts = np.ones(rows, bool)
        while left.any():
            if hidden is not None:
                hidden = torch.where(torch.from_numpy(starts).unsqueeze(1), 0.0, hidden)
            noise = None if self.deterministic else policy.family.draw_noise(generator, (rows,))
            mask = action_masks(observations, infos, policy, rows)
            chosen, hidden = policy.act(observations, noise, hidden=hidden, action_mask=mask)
            actions = reader.actions(torch.from_numpy(np.array(chosen)))
            observations, rewards, terminated, truncated, infos = vector_env.step(policy.family.to_environment(chosen))
            following = _read(reader, observations)
            done = (terminated | truncated) & ~resetting
            over = np.asarray(infos.get("episode_over", done)) & done
            if self.env.termination == "restart":
                over = over | infos.get(HIDDEN_END, False)
            for row in np.flatnonzero(~resetting & (left > 0)):
                steps[row].append((read[row], actions[row], following[row], rewards[row].astype(np.float32)))
                if over[row]:
                    yield _episode(steps[row])
                    steps[row], left[row] = [], left[row] - 1
            starts, resetting, read = resetting, done, following


def check_inputs(model: Inputs, environment: Inputs, env: EnvConfig) -> None:
    """Raise RllabError if a model does not read what an environment gives."""
    if model == environment:
        return
    hint = "its episodes may end in another way (--termination)" if len(model.observation_shape) == 1 else (
        "it may be of another Atari protocol")  # fmt: skip
    raise RllabError(
        f"the reward model reads observations of shape {list(model.observation_shape)} and actions of shape "
        f"{list(model.action_shape)}, but {env.id} in this run gives {list(environment.observation_shape)} and "
        f"{list(environment.action_shape)}: it is of another environment, or {hint}"
    )


def transitions_of(episodes: Sequence[Episode]) -> Transitions:
    """Every transition of these episodes, or of clips, whose last step is left out where nothing follows it."""
    parts: list[tuple[NDArray[Any], ...]] = []
    for arrays in episodes:
        observations, actions = arrays["observations"], arrays["actions"]
        if "next_observations" in arrays:
            parts.append((observations, actions, arrays["next_observations"]))
        else:
            parts.append((observations[:-1], actions[:-1], observations[1:]))
    if not any(len(actions) for _, actions, _ in parts):
        raise RllabError("clips of one step have no transitions that rewards could be compared on: give --run")
    return Transitions(*(np.concatenate(side) for side in zip(*parts, strict=True)))


def _read(reader: StepReader, observations: Any) -> NDArray[Any]:
    """Observations `[N, *obs]` as clips keep them, in memory of their own."""
    return reader.observations(map_nested(torch.from_numpy, standard(observations)), 1)


def _episode(steps: Sequence[tuple[Any, ...]]) -> Episode:
    names = ("observations", "actions", "next_observations", "rewards")
    return {name: np.stack(values) for name, values in zip(names, zip(*steps, strict=True), strict=True)}
