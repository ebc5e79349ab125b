"""The EPIC distance between two reward functions, without training any policy on either.

Gleave, Dennis, Legg, Russell, Leike, "Quantifying Differences in Reward Functions" (2021), section 4. Two rewards
that differ by potential shaping, a positive factor and a constant have the same optimal policies and distance 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.errors import RllabError
from preference.correlation import pearson

RewardFunction: TypeAlias = Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], ArrayLike]
"""`(observations [B, *obs], actions [B, *act], next_observations [B, *obs])` to rewards `[B]`."""

_LARGEST_BATCH = 16_384  # rows of one call: enough to be quick, few enough for images' memory
_ROUNDING = 1e-6  # of a network in single precision: a shaped reward that varies less than this is constant


@dataclass(frozen=True)
class Transitions:
    """Transitions that say where rewards are to be compared: D of the paper; B of them, in no order."""

    observations: NDArray[Any]
    """`[B, *obs]`."""
    actions: NDArray[Any]
    """`[B, *act]`."""
    next_observations: NDArray[Any]
    """`[B, *obs]`."""

    def __post_init__(self) -> None:
        if not len(self.observations) == len(self.actions) == len(self.next_observations) > 0:
            raise RllabError(
                f"Coverage needs as many observations, actions and next observations, at least one; there are "
                f"{len(self.observations)}, {len(self.actions)} and {len(self.next_observations)}."
            )

    def __len__(self) -> int:
        return len(self.actions)

    def draw(self, count: int, generator: np.random.Generator) -> "Transitions":
        """So many of them in random order, each at most once; all of them if there are fewer."""
        chosen = generator.permutation(len(self))[:count]
        return Transitions(self.observations[chosen], self.actions[chosen], self.next_observations[chosen])


def canonically_shaped(
    reward: RewardFunction,
    transitions: Transitions,
    discount: float,
    states: NDArray[Any],
    actions: NDArray[Any],
    next_states: NDArray[Any],
) -> NDArray[np.float64]:
    """The canonically shaped reward of each transition `[B]` (definition 4.1).

        C(R)(s, a, s') = R(s, a, s') + E[γ·R(s', A, S') − R(s, A, S') − γ·R(S, A, S')]

    Args:
        reward: R.
        transitions: where to evaluate it.
        discount: γ.
        states, actions, next_states: M draws of S ~ D_S, A ~ D_A and S' ~ D_S, over which the expectations are
            taken. The same draws serve all three terms, so that shaping by a potential cancels exactly.
    """
    count, draws = len(transitions), len(actions)

    def means(sources: NDArray[Any]) -> NDArray[np.float64]:
        """E[R(s, A, S')] of each source s."""
        sums = np.empty(len(sources))
        chunk = max(1, _LARGEST_BATCH // draws)
        for start in range(0, len(sources), chunk):
            part = sources[start : start + chunk]
            rows = len(part)
            rewards = _rewards(
                reward, np.repeat(part, draws, axis=0), _tile(actions, rows), _tile(next_states, rows)
            )  # fmt: skip
            sums[start : start + rows] = rewards.reshape(rows, draws).mean(axis=1)
        return sums

    own = np.concatenate([
        _rewards(reward, transitions.observations[part], transitions.actions[part], transitions.next_observations[part])
        for part in (slice(start, start + _LARGEST_BATCH) for start in range(0, count, _LARGEST_BATCH))
    ])  # fmt: skip
    overall = _rewards(reward, states, actions, next_states).mean()
    shaped: NDArray[np.float64] = (
        own + discount * means(transitions.next_observations) - means(transitions.observations) - discount * overall
    )
    return shaped


def pearson_distance(first: ArrayLike, second: ArrayLike) -> float:
    """√((1 − ρ) / 2) of two rows of numbers: 0 if ρ = 1, 1 if ρ = −1, NaN if one side does not vary."""
    correlation = pearson(first, second)
    return math.sqrt(max(0.0, 1.0 - correlation) / 2.0) if math.isfinite(correlation) else math.nan


def epic_distance(
    first: RewardFunction,
    second: RewardFunction,
    coverage: Transitions,
    *,
    discount: float,
    generator: np.random.Generator,
    samples: int = 2_048,
    canonical_samples: int = 256,
) -> float:
    """The EPIC distance of two rewards, in [0, 1]: Pearson's distance of their canonical shapes (section 4).

    D_S and D_A are the coverage's observations and actions, drawn independently of each other. The cost is about
    2 · samples · canonical_samples evaluations of each reward. What an episode's end does to shaping is not
    considered: the paper's γ·Φ(s') holds at terminal states too.

    Args:
        first, second: the rewards.
        coverage: where they are compared; the distance depends on it, so report which it was.
        discount: γ, the agent's.
        generator: of the draws; the same draws serve both rewards.
        samples: on how many transitions to compare, a speed of this project's choice.
        canonical_samples: over how many draws of (S, A, S') expectations are taken, likewise.

    Returns the distance; NaN if a canonically shaped reward is constant, as that of every mere potential is: it has
    no direction to compare. Raises RllabError when a reward has another shape or is not finite.
    """
    transitions = coverage.draw(samples, generator)
    indices = generator.integers(len(coverage), size=(3, canonical_samples))
    states, actions, next_states = (
        coverage.observations[indices[0]], coverage.actions[indices[1]], coverage.observations[indices[2]],
    )  # fmt: skip
    shaped = []
    for reward in (first, second):
        canonical = canonically_shaped(reward, transitions, discount, states, actions, next_states)
        scale = np.abs(_rewards(reward, states, actions, next_states)).max()
        if canonical.std() <= _ROUNDING * scale:
            return math.nan
        shaped.append(canonical)
    return pearson_distance(*shaped)


def _tile(array: NDArray[Any], times: int) -> NDArray[Any]:
    return np.tile(array, (times, *(1,) * (array.ndim - 1)))


def _rewards(
    reward: RewardFunction, observations: NDArray[Any], actions: NDArray[Any], next_observations: NDArray[Any]
) -> NDArray[np.float64]:
    rewards = np.asarray(reward(observations, actions, next_observations), np.float64)
    if rewards.shape != (len(actions),):
        raise RllabError(f"A reward function gave shape {rewards.shape} for {len(actions)} transitions; return [B].")
    if not np.isfinite(rewards).all():
        raise RllabError("A reward function gave a reward that is not finite; EPIC cannot compare it.")
    return rewards
