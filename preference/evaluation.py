"""A learned reward against the true one on played episodes, and the EPIC distance from another reward."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.errors import RllabError
from preference.correlation import RewardCorrelation
from preference.epic import Transitions, epic_distance
from preference.experiment import load_reward_model
from preference.inputs import Inputs
from preference.measures import Spread, ensemble_spread
from preference.playing import Player, transitions_of
from preference.reward_model import RewardModel
from preference.teachers import TEACHERS
from rllab.experiment import Checkpoint, load_with_config
from rllab.runs import Run

_MOST_TRANSITIONS = 20_000
"""Kept for EPIC, which draws its samples among them; of images fewer."""
_MOST_IMAGES = 1_000


@dataclass(frozen=True)
class PlayedMeasures:
    """A learned reward on episodes that a policy played."""

    correlation: RewardCorrelation
    """With the environment's own reward."""
    true_returns: NDArray[np.float64]
    """`[episodes]`"""
    learned_returns: NDArray[np.float64]
    """`[episodes]`"""
    spread: Spread
    """Of the ensemble's members, over steps."""
    members: int
    steps: int
    """Played in all."""
    policy_steps: int
    """How long the policy had been trained for."""
    transitions: Transitions
    """A sample of them."""
    notes: tuple[str, ...]
    """Sentences about what the numbers mean."""

    def to_metrics(self) -> dict[str, Any]:
        """The numbers by name."""
        return {
            "episodes": len(self.true_returns),
            "steps": self.steps,
            "policy_steps": self.policy_steps,
            **self.correlation.to_metrics(),
            **self.spread.to_metrics("spread_"),
            "true_returns": self.true_returns.tolist(),
            "learned_returns": self.learned_returns.tolist(),
        }


def play_and_compare(
    model: RewardModel,
    run: Path | str,
    episodes: int,
    checkpoint: Checkpoint = "best",
    actions: Literal["run", "sampled", "most_probable"] = "run",
    seed: int = 0,
) -> PlayedMeasures:
    """Play a run's policy in its environment, and hold the learned rewards against the environment's own.

    Raises:
        RllabError: no such run, or the model reads another environment's steps.
    """
    policy, config, policy_steps = load_with_config(run, checkpoint)
    deterministic = {"run": config.loop.evaluation_deterministic, "sampled": False, "most_probable": True}[actions]
    generator = np.random.default_rng(np.random.SeedSequence([seed, 0xC0E]))
    learned, true, spreads, sample = [], [], [], []
    share = max(1, (_MOST_IMAGES if model.inputs.image else _MOST_TRANSITIONS) // max(1, episodes))
    player = Player(policy, config.env, deterministic)
    for episode in player.episodes(episodes, seed, inputs=model.inputs):
        members = model.member_rewards(episode)
        learned.append(members.mean(axis=0).astype(np.float64))
        true.append(episode["rewards"].astype(np.float64))
        spreads.append(ensemble_spread(members))
        drawn = generator.permutation(len(episode["actions"]))[:share]
        sample.append({name: array[drawn] for name, array in episode.items()})
    document = Run.open(run).config.get("preference")
    notes = []
    if document is not None and document["teacher"] not in TEACHERS:
        notes.append("People answered in this run: the environment's own reward need not be what they wanted.")
    return PlayedMeasures(
        RewardCorrelation.of(learned, true), np.array([x.sum() for x in true]), np.array([x.sum() for x in learned]),
        Spread.of(np.concatenate(spreads)), model.members, sum(map(len, true)), policy_steps, transitions_of(sample),
        tuple(notes),
    )  # fmt: skip


@dataclass(frozen=True)
class Reward:
    """A reward function that can be compared with others."""

    function: Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], ArrayLike]

    def distance(self, other: "Reward", coverage: Transitions, discount: float, seed: int) -> float:
        """The EPIC distance over a coverage; NaN if one of the two is constant there."""
        generator = np.random.default_rng(np.random.SeedSequence([seed, 0xE91C]))
        return epic_distance(self.function, other.function, coverage, discount=discount, generator=generator)


def model_as_reward(model: RewardModel) -> Reward:
    """A reward model's mean reward."""
    return Reward(lambda observations, actions, following: model.reward(observations, actions, following))


def reward_named(name: str, inputs: Inputs) -> Reward:
    """A reward model in a folder, or `MODULE:FUNCTION`.

    EPIC compares rewards on transitions that nobody played too (any s, a and s'), which an environment cannot be asked
    for: a true reward must therefore come as a function.

    Raises:
        RllabError: there is no such model or function, or the model reads other inputs.
    """
    if Path(name).exists() or ":" not in name:
        model = load_reward_model(name)
        if model.inputs != inputs:
            raise RllabError(f"the two reward models read different inputs, so that nothing compares them: {name} has "
                             f"{model.inputs}, the first {inputs}")  # fmt: skip
        return model_as_reward(model)
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise RllabError(f"there is no reward function {name} ({error}); write it as MODULE:FUNCTION") from error
    if not callable(function):
        raise RllabError(f"{name} is no function: it must take observations, actions and next observations")

    def guarded(observations: NDArray[Any], actions: NDArray[Any], following: NDArray[Any]) -> ArrayLike:
        try:
            rewards: ArrayLike = function(observations, actions, following)
        except Exception as error:
            raise RllabError(
                f"the reward function {name} failed ({type(error).__name__}: {error}); it must take observations "
                f"{list(observations.shape)}, actions {list(actions.shape)} and next observations, and give "
                f"{len(actions)} rewards"
            ) from error
        return rewards

    return Reward(guarded)
