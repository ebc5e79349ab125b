"""Teachers who answer at once: synthetic ones that see the true rewards, and one that reads its answers from a file.

The synthetic teacher's flaws are those of Lee, Smith, Dragan, Abbeel, "B-Pref: Benchmarking Preference-Based
Reinforcement Learning" (2021), section 4 and algorithm 1, in any combination.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from envs.errors import RllabError
from preference.bradley_terry import probability
from preference.comparisons import Clip, Label

Floats: TypeAlias = NDArray[np.float64]

_ROUNDING = 1e-12
"""Two sums of the same rewards in another order differ by less than this share of the magnitudes added up."""
_SECOND_FIRST = np.array([Label.SECOND, Label.FIRST], dtype=object)


class Teacher(Protocol):
    """Says which of two clips is better."""

    def label(self, pairs: Sequence[tuple[Clip, Clip]]) -> list[Label]:
        """One label a pair, in order, each of the pair as it is given."""

    def state_dict(self) -> dict[str, Any]:
        """What its next answers depend on."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""


@dataclass(frozen=True)
class TeacherConfig:
    """How a synthetic teacher judges, and how it errs. With the defaults it is an exact oracle."""

    rationality: float | None = None
    """β: the first is preferred with probability σ(β·(R₁ − R₂)); None is β → ∞, an exact oracle."""
    discount: float = 1.0
    """γ of a myopic teacher: a step t of a clip of L steps weighs γ^(L−1−t), so that later ones count more."""
    mistake_rate: float = 0.0
    """ε: with this probability the answer is the wrong way round; a tie or a skip stays what it is."""
    skip_below: float | None = None
    """Skip a pair if both returns are below this, in `threshold_unit`; None never does."""
    equal_within: float | None = None
    """Call a pair a tie if its returns differ by less than this, in `threshold_unit`; None only if they are equal."""
    threshold_unit: Literal["mean_return", "reward"] = "mean_return"
    """The thresholds are shares of the mean return of the clips asked about of late, as in the paper (its ε_adapt),
    or in the environment's own units of reward."""
    recent_clips: int = 200
    """How many of the last clips that mean is over; B-Pref's ten episodes of 1000 steps are 200 clips of 50 steps."""

    def __post_init__(self) -> None:
        if self.rationality is not None and not 0.0 <= self.rationality < np.inf:
            raise RllabError(
                f"A teacher's rationality must be 0 or more, or None for an exact oracle, not {self.rationality}."
            )
        if not 0.0 < self.discount <= 1.0:
            raise RllabError(f"A teacher's discount must be above 0 and at most 1, not {self.discount}.")
        if not 0.0 <= self.mistake_rate <= 1.0:
            raise RllabError(f"A teacher's mistake_rate must be from 0 to 1, not {self.mistake_rate}.")
        if self.skip_below is not None and not np.isfinite(self.skip_below):
            raise RllabError(f"A teacher's skip_below must be a finite number or None, not {self.skip_below}.")
        if self.equal_within is not None and not 0.0 <= self.equal_within < np.inf:
            raise RllabError(f"A teacher's equal_within must be 0 or more, or None, not {self.equal_within}.")
        if self.threshold_unit not in ("mean_return", "reward"):
            raise RllabError(
                f"A teacher's threshold_unit must be 'mean_return' or 'reward', not {self.threshold_unit!r}."
            )
        if self.recent_clips < 1:
            raise RllabError(f"A teacher's recent_clips must be at least 1, not {self.recent_clips}.")


TEACHERS: Mapping[str, TeacherConfig] = {
    "oracle": TeacherConfig(),
    "boltzmann": TeacherConfig(rationality=1.0),
    "myopic": TeacherConfig(discount=0.9),
    "mistake": TeacherConfig(mistake_rate=0.1),
    "skip": TeacherConfig(skip_below=0.1),
    "equal": TeacherConfig(equal_within=0.1),
}
"""B-Pref's oracle and its five others ("boltzmann" is the paper's Stoc) with the values of its experiments."""
SCORING = "scores"
"""The name on record of a teacher of texts that answers from their scores."""
SYNTHETIC = frozenset({*TEACHERS, "file", SCORING})
"""Annotators that are no people."""


class SyntheticTeacher:
    """Answers from the clips' true rewards, by B-Pref's algorithm 1: skip, else tie, else prefer, else err.

    A clip's return is the sum over the steps it has. Of two clips of different lengths the longer thus has more
    steps to earn in: better where rewards are positive, worse where they are negative.

    However the questions are divided into calls, the answers are the same.
    """

    def __init__(self, config: TeacherConfig, generator: np.random.Generator) -> None:
        """Make a teacher.

        Args:
            config: how it judges; `TEACHERS` has well-known ones.
            generator: of its chance answers and mistakes. Two numbers are drawn a pair, whatever the configuration.
        """
        self.config, self.generator = config, generator
        self._recent: Floats = np.empty(0)  # returns of the last clips asked about

    def label(self, pairs: Sequence[tuple[Clip, Clip]]) -> list[Label]:
        """One label a pair, in order.

        Raises:
            RllabError: a clip has no rewards, or one that is not finite.
        """
        if not pairs:
            return []
        config = self.config
        returns, weighted, magnitudes = (
            values.reshape(-1, 2).T for values in _returns([clip for pair in pairs for clip in pair], config.discount)
        )
        chance, slip = self.generator.random((len(pairs), 2)).T

        difference = weighted[0] - weighted[1]
        if config.rationality is None:
            first = difference > 0.0
        else:
            first = chance < probability(torch.from_numpy(config.rationality * difference), 0.0).numpy()
        first = first ^ (slip < config.mistake_rate)
        labels = _SECOND_FIRST[first.astype(int)]

        # Where a chance answer would be a fair coin, the tie itself says the same without the noise.
        tie = np.abs(difference) <= _ROUNDING * magnitudes.sum(axis=0)
        skip = np.zeros(len(pairs), bool)
        unit = self._threshold_units(returns)
        if config.equal_within is not None:
            tie |= np.abs(returns[0] - returns[1]) < config.equal_within * np.abs(unit)
        if config.skip_below is not None:
            # A share of a mean that is not positive does not say "too bad to tell"; B-Pref's code does not skip then.
            skip = (unit > 0.0) & (returns.max(axis=0) < config.skip_below * unit)
        labels[tie] = Label.TIE
        labels[skip] = Label.SKIP
        answers: list[Label] = labels.tolist()
        return answers

    def _threshold_units(self, returns: Floats) -> Floats:
        """What the thresholds are multiples of, `[pairs]`; remembers `returns` `[2, pairs]`."""
        if self.config.threshold_unit == "reward":
            return np.ones(returns.shape[1])
        known = len(self._recent)
        history = np.concatenate([self._recent, returns.T.reshape(-1)])
        totals = np.concatenate([[0.0], np.cumsum(history)])
        ends = known + 2 * np.arange(1, returns.shape[1] + 1)  # a pair's own clips count
        starts = np.maximum(ends - self.config.recent_clips, 0)
        self._recent = history[-self.config.recent_clips :]
        means: Floats = (totals[ends] - totals[starts]) / (ends - starts)
        return means

    def state_dict(self) -> dict[str, Any]:
        """The generator's state and the returns that relative thresholds stand on."""
        return {"generator": self.generator.bit_generator.state, "recent_returns": self._recent.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.generator.bit_generator.state = state["generator"]
        self._recent = np.array(state["recent_returns"], np.float64)


class FileTeacher:
    """Answers from a file of JSON lines: `{"first": ID, "second": ID, "label": "first"|"second"|"tie"|"skip"}`.

    IDs are those of the clips. A pair is known in both orders; one that is not in the file is skipped. Further keys
    of a line are ignored, as are empty lines; a line that repeats an earlier one changes nothing.

    Attributes:
        unknown: how many pairs it was asked about that the file does not have.
    """

    def __init__(self, path: Path | str) -> None:
        """Read the whole file.

        Raises:
            RllabError: the file cannot be read, or a line is no such answer or contradicts an earlier one; the
                sentence has the line's number.
        """
        self.path = Path(path)
        self.unknown = 0
        self._labels: dict[tuple[uuid.UUID, uuid.UUID], Label] = {}
        line_of: dict[tuple[uuid.UUID, uuid.UUID], int] = {}
        try:
            lines = self.path.read_text("utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise RllabError(f"The answers in {self.path} cannot be read ({error}); check the path.") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            first, second, label = _parse_answer(line, f"{self.path}, line {number}")
            if self._labels.setdefault((first, second), label) is not label:
                raise RllabError(
                    f"{self.path}, line {number} says '{label}' of a pair of which line {line_of[first, second]} says "
                    "otherwise; remove one of the two."
                )
            line_of.setdefault((first, second), number)
            self._labels[second, first] = label.reversed
            line_of.setdefault((second, first), number)

    def __len__(self) -> int:
        """How many pairs it knows."""
        return len(self._labels) // 2

    def label(self, pairs: Sequence[tuple[Clip, Clip]]) -> list[Label]:
        """One label a pair, in order; SKIP for those that are not in the file."""
        labels = [self._labels.get((first.id, second.id)) for first, second in pairs]
        self.unknown += labels.count(None)
        return [Label.SKIP if label is None else label for label in labels]

    def state_dict(self) -> dict[str, Any]:
        """The count of unknown pairs; the answers stay in the file."""
        return {"unknown": self.unknown}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.unknown = int(state["unknown"])


def _returns(clips: Sequence[Clip], discount: float) -> tuple[Floats, Floats, Floats]:
    """Of each clip the sum of its rewards, the sum weighted by γ^(L−1−t), and the sum of their magnitudes."""
    rewards = [_rewards(clip) for clip in clips]
    lengths = np.array([len(each) for each in rewards])
    starts = np.cumsum(lengths) - lengths
    steps = np.concatenate(rewards, dtype=np.float64)
    if not np.isfinite(steps).all():
        index = int(np.searchsorted(starts, np.flatnonzero(~np.isfinite(steps))[0], side="right")) - 1
        raise RllabError(f"Clip {clips[index].id} has a reward that is not finite; leave it out of the pairs.")
    returns = np.add.reduceat(steps, starts)
    weighted = returns
    if discount < 1.0:
        to_end = np.repeat(starts + lengths - 1, lengths) - np.arange(len(steps))
        weighted = np.add.reduceat(steps * discount**to_end, starts)
    return returns, weighted, np.add.reduceat(np.abs(steps), starts)


def _rewards(clip: Clip) -> NDArray[Any]:
    rewards = clip.arrays.get("rewards")
    if rewards is None or np.ndim(rewards) != 1 or not len(rewards):
        raise RllabError(
            f"A synthetic teacher needs the true reward of every step, but clip {clip.id} has none; cut clips with "
            "the environment's own rewards, or take another teacher."
        )
    return rewards


def _parse_answer(line: str, place: str) -> tuple[uuid.UUID, uuid.UUID, Label]:
    """The answer on one line; `place` says where it stands."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise RllabError(f"{place} is not JSON ({error.msg}).") from error
    if not isinstance(entry, dict) or not {"first", "second", "label"} <= entry.keys():
        raise RllabError(f'{place} must be an object with "first", "second" and "label".')
    try:
        first, second = (uuid.UUID(entry[name]) for name in ("first", "second"))
    except (ValueError, AttributeError, TypeError) as error:
        raise RllabError(f'{place}: "first" and "second" must be the ids of clips (UUIDs).') from error
    if first == second:
        raise RllabError(f"{place} compares a clip with itself.")
    try:
        return first, second, Label(entry["label"])
    except ValueError as error:
        known = ", ".join(f'"{label}"' for label in Label)
        raise RllabError(f'{place}: "label" must be one of {known}, not {entry["label"]!r}.') from error
