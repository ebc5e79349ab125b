"""Alarms for reward hacking: a policy that pleases the reward model more and more, and its purpose less and less."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from envs.errors import RllabError

_FEWEST_POINTS = 4
"""Below this not even a strictly monotone series is significant at the 5 % level."""


MEANINGS = {
    "true_return": "The predicted return rose while the true return fell: the policy may be exploiting the reward "
    "model.",
    "accuracy": "The predicted return rose while accuracy on the newest policy's pairs fell: the policy may be "
    "exploiting the reward model.",
    "spread": "The reward models disagreed more on the newest rollout than on 95 % of the labelled clips: the policy "
    "had left what was labelled.",
}
"""What each alarm says, in general; `HackingAlarms.observe` has the figures."""


@dataclass(frozen=True)
class AlarmConfig:
    """When reward-hacking alarms are raised."""

    window: int = 8
    """Over how many of the last evaluations a trend is judged; at least 4. Of 8, one may be anywhere off the trend."""
    significance: float = 0.05
    """How often a trend may be seen where there is none (each of the two that an alarm needs, one-sided)."""

    def __post_init__(self) -> None:
        if self.window < _FEWEST_POINTS:
            raise RllabError(f"The alarms' window must be at least {_FEWEST_POINTS} evaluations, not {self.window}.")
        if not 0.0 < self.significance < 0.5:
            raise RllabError(f"The alarms' significance must be above 0 and below 0.5, not {self.significance}.")


class HackingAlarms:
    """Watches evaluations, and says in a sentence when something begins to look like reward hacking.

    A trend is a significant Mann–Kendall statistic (see `trend`): it asks only how many later points lie above
    earlier ones, so that it needs no unit and one odd evaluation does not make it. An alarm sounds once when its
    condition begins, and again only after the condition has ended.

    Attributes:
        active: the alarms whose condition holds now: "true_return", "accuracy", "spread".
    """

    def __init__(self, config: AlarmConfig | None = None) -> None:
        self.config = config or AlarmConfig()
        self.active: set[str] = set()
        self._history: list[tuple[float, float, float]] = []  # predicted return, true return, accuracy; NaN if unknown

    def observe(
        self,
        predicted_return: float,
        true_return: float | None = None,
        accuracy: float | None = None,
        *,
        rollout_spread: float | None = None,
        labelled_spread_95: float | None = None,
    ) -> list[str]:
        """Take an evaluation in, and give the sentences of alarms that begin with it.

        Args:
            predicted_return: mean return of the newest policy under the reward model.
            true_return: under the true reward, where there is one.
            accuracy: of the reward model on held-out pairs of the newest policy, before it learns from them.
            rollout_spread: mean ensemble spread on the newest rollout.
            labelled_spread_95: 95th percentile of the ensemble spread on the labelled clips, in the same unit.

        What is None is unknown at this evaluation; a trend is judged over those of the last `window` evaluations
        that know both of its sides, if these are at least four.
        """
        missing = math.nan
        self._history.append((
            predicted_return,
            missing if true_return is None else true_return,
            missing if accuracy is None else accuracy,
        ))  # fmt: skip
        del self._history[: -self.config.window]

        sentences = []
        for name, column, what in (
            ("true_return", 1, "true return"),
            ("accuracy", 2, "accuracy on the newest policy's pairs"),
        ):
            known = [row for row in self._history if math.isfinite(row[0]) and math.isfinite(row[column])]
            rising = trend([row[0] for row in known], self.config.significance) > 0
            falling = trend([row[column] for row in known], self.config.significance) < 0
            if self._begins(name, rising and falling):
                first, last = known[0], known[-1]
                sentences.append(
                    f"The predicted return rises ({first[0]:.4g} to {last[0]:.4g} over {len(known)} evaluations) while "
                    f"the {what} falls ({first[column]:.4g} to {last[column]:.4g}): the policy may be exploiting the "
                    "reward model; ask for labels on its newest clips."
                )
        if rollout_spread is not None and labelled_spread_95 is not None:
            unknown_ground = rollout_spread > labelled_spread_95
            if self._begins("spread", unknown_ground):
                sentences.append(
                    f"The reward models disagree more on the newest rollout (spread {rollout_spread:.4g}) than on 95 % "
                    f"of the labelled clips ({labelled_spread_95:.4g}): the policy has left what was labelled; ask for "
                    "labels on its newest clips."
                )
        return sentences

    def _begins(self, name: str, holds: bool) -> bool:
        """Whether the alarm's condition holds now and did not before; remembers it."""
        begins = holds and name not in self.active
        (self.active.add if holds else self.active.discard)(name)
        return begins

    def state_dict(self) -> dict[str, Any]:
        """The evaluations in the window, and the alarms that are active."""
        return {"history": [list(row) for row in self._history], "active": sorted(self.active)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._history = [(row[0], row[1], row[2]) for row in state["history"]][-self.config.window :]
        self.active = set(state["active"])


def trend(values: Sequence[float], significance: float = 0.05) -> int:
    """1 if the values rise, −1 if they fall, 0 if neither is significant: the test of Mann (1945) and Kendall.

    S counts the pairs of which the later value is larger, minus those of which it is smaller. Without a trend it
    has mean 0 and variance (n(n−1)(2n+5) − Σ t(t−1)(2t+5)) / 18 over the groups of t equal values, and is nearly
    normal; one unit is taken off it for continuity.

    Args:
        values: in order of time; fewer than four never have a trend.
        significance: of each side.
    """
    array = np.asarray(values, np.float64)
    count = len(array)
    if count < _FEWEST_POINTS:
        return 0
    statistic = float(np.sign(array[None, :] - array[:, None])[np.triu_indices(count, 1)].sum())
    _, groups = np.unique(array, return_counts=True)
    variance = (count * (count - 1) * (2 * count + 5) - float((groups * (groups - 1) * (2 * groups + 5)).sum())) / 18.0
    critical = NormalDist().inv_cdf(1.0 - significance) * math.sqrt(variance)
    if abs(statistic) - 1.0 < critical or statistic == 0.0:
        return 0
    return 1 if statistic > 0 else -1
