"""Which pairs to ask about, and when.

Christiano et al. 2017, section 2.2.4: candidates are drawn, and those that the ensemble's members disagree on most are
asked about. Beside that: entropy (Lewis & Gale 1994), coverage (k-centre greedy, Sener & Savarese 2018, algorithm 1)
and drawing at random, alone or mixed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Candidates:
    """M pairs to choose from."""

    differences: Array
    """Σ r̂(σ¹) − Σ r̂(σ²) by every member, `[E, M]`."""
    embeddings: Array
    """A point for each pair, `[M, D]`: the mean steps of both clips; D is 0 where coverage is not asked for."""
    known: Array
    """Points of pairs that were asked about already, `[K, D]`."""

    def only(self, index: NDArray[Any]) -> "Candidates":
        """Some of the pairs."""
        return Candidates(self.differences[:, index], self.embeddings[index], self.known)


def disagreement(candidates: Candidates) -> Array:
    """Variance over the members of the preference they predict `[M]` (Christiano et al. 2017, section 2.2.4)."""
    scores: Array = _sigmoid(candidates.differences).var(axis=0)
    return scores


def entropy(candidates: Candidates) -> Array:
    """Entropy of the ensemble's mean prediction `[M]`, in nats."""
    p = np.clip(_sigmoid(candidates.differences).mean(axis=0), 1e-7, 1 - 1e-7)
    scores: Array = -(p * np.log(p) + (1 - p) * np.log1p(-p))
    return scores


def coverage(candidates: Candidates, count: int) -> NDArray[np.int64]:
    """`count` pairs by k-centre greedy: each the farthest from those that are known or chosen."""
    points = candidates.embeddings
    nearest = np.full(len(points), np.inf)
    for start in range(0, len(candidates.known), 256):
        known = candidates.known[start : start + 256]
        nearest = np.minimum(nearest, _distances(points, known).min(axis=1))
    if not len(candidates.known):  # the first is the one nearest to the middle
        middle = int(_distances(points, points.mean(axis=0, keepdims=True))[:, 0].argmin())
        chosen = [middle]
        nearest = _distances(points, points[[middle]])[:, 0]
    else:
        chosen = []
    while len(chosen) < count:
        nearest[chosen] = -1
        farthest = int(nearest.argmax())
        chosen.append(farthest)
        nearest = np.minimum(nearest, _distances(points, points[[farthest]])[:, 0])
    return np.array(chosen[:count], np.int64)


SCORES: dict[str, Callable[[Candidates], Array]] = {"disagreement": disagreement, "entropy": entropy}
STRATEGIES = ("uniform", *SCORES, "coverage")


def parse_mix(text: str) -> dict[str, float]:
    """Strategies with their shares from `disagreement`, or `disagreement:0.7,uniform:0.3`.

    Raises RllabError for strategies that do not exist and shares that are none.
    """
    mix: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.strip().partition(":")
        if name not in STRATEGIES:
            raise RllabError(f"there is no query strategy '{name}': choose among {', '.join(STRATEGIES)}")
        try:
            mix[name] = float(share) if share else 1.0
        except ValueError as error:
            raise RllabError(f"the share of {name} must be a number, as in {name}:0.5, not '{share}'") from error
        if not 0 < mix[name] < math.inf:
            raise RllabError(f"the share of {name} must be above 0, not {share}")
    total = sum(mix.values())
    return {name: share / total for name, share in mix.items()}


def select(
    candidates: Candidates, count: int, mix: dict[str, float], generator: np.random.Generator
) -> list[tuple[int, str]]:
    """`count` different candidates, each with the strategy that chose it; the strategies take turns by their shares."""
    total = candidates.differences.shape[1]
    count = min(count, total)
    left = np.ones(total, bool)
    chosen: list[tuple[int, str]] = []
    shares = _apportion(count, mix)
    for name, share in shares.items():
        available = np.flatnonzero(left)
        if name == "uniform":
            picked = generator.choice(available, share, replace=False)
        elif name == "coverage":
            picked = available[coverage(candidates.only(available), share)] if share else available[:0]
        else:
            scores = SCORES[name](candidates)[available]
            # Stable, so that equal scores are taken in the order they were drawn.
            picked = available[np.argsort(-scores, kind="stable")[:share]]
        left[picked] = False
        chosen += [(int(index), name) for index in picked]
    return chosen


def _apportion(count: int, mix: dict[str, float]) -> dict[str, int]:
    """Whole numbers that add up to `count`, by largest remainder."""
    exact = {name: share * count for name, share in mix.items()}
    whole = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(mix, key=lambda name: whole[name] - exact[name])
    for name in by_remainder[: count - sum(whole.values())]:
        whole[name] += 1
    return whole


MOST_BEFORE_LEARNING = 0.1
"""Share of the training's steps that the first questions may take."""


@dataclass(frozen=True)
class LabelSchedule:
    """When labels are asked for (appendix A.1): a share before learning, then at a rate ∝ c/(T + c).

    The rate integrates to c·log(1 + T/c), which is scaled so that the last label is asked for at the end. The paper
    trains for millions of steps, of which the first questions take few. Where they would take many, there are fewer of
    them, and more later: as many as clips in `MOST_BEFORE_LEARNING` of the steps, each of which is then in two pairs.
    """

    labels: int
    """The budget."""
    steps: int
    """Environment steps of the training."""
    initial_share: float = 0.25
    """Of the budget, asked for before the agent learns anything (appendix A.1)."""
    decay: float = 2e6
    """c in environment steps (appendix A: 2e6 for robots, 5e6 for Atari)."""
    clip_steps: int = 1
    """Steps of a clip."""

    def __post_init__(self) -> None:
        if self.labels < 1:
            raise RllabError(f"labels must be at least 1, not {self.labels}")
        if not 0 < self.initial_share <= 1:
            raise RllabError(f"initial_share must lie in (0, 1], not {self.initial_share}")
        if not self.decay > 0:
            raise RllabError(f"rate_decay must be above 0 steps, not {self.decay}")

    @property
    def initial(self) -> int:
        """Labels before learning."""
        affordable = int(self.steps * MOST_BEFORE_LEARNING / self.clip_steps)
        return max(1, min(round(self.labels * self.initial_share), affordable))

    @property
    def steps_before_learning(self) -> int:
        """Steps that may be played to have clips for the first questions."""
        apart = 2 * self.initial * self.clip_steps  # each clip in one pair
        # A wider choice than what is asked about, for at most a twentieth of the training.
        return max(min(apart, int(self.steps * MOST_BEFORE_LEARNING)), self.steps // 20)

    def due(self, steps: int) -> int:
        """How many labels should have been asked for after so many steps."""
        progress = math.log1p(min(steps, self.steps) / self.decay) / math.log1p(self.steps / self.decay)
        return min(self.labels, self.initial + math.floor((self.labels - self.initial) * progress + 1e-9))


def embed(means: Array, pairs: Sequence[tuple[int, int]] | NDArray[np.int64]) -> Array:
    """Points of pairs `[M, 2F]` from the mean step of each clip `[C, F]`."""
    index = np.asarray(pairs, np.int64).reshape(-1, 2)
    return np.concatenate([means[index[:, 0]], means[index[:, 1]]], axis=1)


def _distances(points: Array, others: Array) -> Array:
    """Squared distances `[M, K]`."""
    squared: Array = (
        np.square(points).sum(axis=1)[:, None] - 2 * points @ others.T + np.square(others).sum(axis=1)[None]
    )
    return np.maximum(squared, 0)


def _sigmoid(x: Array) -> Array:
    half: Array = 0.5 * np.tanh(0.5 * x) + 0.5
    return half
