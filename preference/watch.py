"""What is measured while a reward is learnt: predictions against answers, and learned returns against true ones."""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preference.alarms import HackingAlarms
from preference.correlation import pearson, spearman
from preference.measures import PreferenceMeasures
from rllab.episodes import EpisodeRecorder
from rllab.rollout import Rollout

WINDOW = 100
"""How many of the last answers, and of the last episodes, are measured on."""


class Watch:
    """Remembers predictions and answers on pairs of the newest policies' clips, and both returns of the last episodes.

    The pairs are predicted before the model learns from their answers.
    """

    def __init__(self, rows: int, *, games: bool = False) -> None:
        """`rows`: N, of the rollouts; `games`: an episode is a sequence of games, each of which has returns."""
        self._rows, self._games = rows, games
        self.alarms = HackingAlarms()
        self._newest: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._episodes: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._predicted = EpisodeRecorder(rows, WINDOW)
        self._true = EpisodeRecorder(rows, WINDOW)
        self._steps: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def compare(self, probability: float, preference: float) -> None:
        """A pair's P(1), predicted before its answer was learnt from, and the answer's μ(1)."""
        self._newest.append((probability, preference))

    def see(self, rollout: Rollout, relabelled: Rollout) -> None:
        """A rollout with the environment's rewards, and with the learned ones."""
        valid = rollout.valid.cpu().numpy()
        done = (rollout.terminated | rollout.truncated).cpu().numpy() & valid
        learned, true = relabelled.rewards.cpu().numpy(), rollout.environment_rewards.cpu().numpy()
        hidden = rollout.hidden_ends if self._games else None
        predicted, _ = self._predicted.record(learned.astype(np.float64), done, valid, hidden)
        actual, _ = self._true.record(true.astype(np.float64), done, valid, hidden)
        self._episodes.extend(zip(predicted.tolist(), actual.tolist(), strict=True))
        self._steps = learned[valid], true[valid]

    def forget(self) -> None:
        """Drop the running episodes, whose rest will not come."""
        for recorder in (self._predicted, self._true):
            for row in range(self._rows):
                recorder.forget(row)

    def measures(self, *, true_reward: bool) -> dict[str, float]:
        """By name; `true_reward`: whether the environment's reward is what was to be learnt."""
        result: dict[str, float] = {}
        if self._newest:
            probabilities, preferences = np.array(self._newest).T
            result |= PreferenceMeasures.of(probabilities, preferences).to_metrics("reward/newest_")
        predicted = self._predicted.means()["return_mean"]
        if math.isfinite(predicted):
            result["reward/predicted_return"] = predicted
        if not true_reward:
            return result
        if len(self._episodes) >= 3:
            result |= _correlations("episode", *np.array(self._episodes).T)
        if self._steps is not None:
            result |= _correlations("step", *self._steps)
        return result

    def alarm(self, measures: Mapping[str, float], spread: float | None, labelled: float | None) -> list[str]:
        """Sentences of reward-hacking alarms that begin with these measures.

        `spread` is the mean spread of the ensemble on the newest rollout, `labelled` the 95th percentile of that on
        labelled clips.
        """
        predicted = measures.get("reward/predicted_return")
        if predicted is None:
            return []
        true = self._true.means()["return_mean"] if "reward/episode_pearson" in measures else None
        return self.alarms.observe(
            predicted, true, measures.get("reward/newest_accuracy"), rollout_spread=spread, labelled_spread_95=labelled
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything remembered."""
        return {
            "newest": np.array(self._newest).reshape(-1, 2),
            "episodes": np.array(self._episodes).reshape(-1, 2),
            "predicted": self._predicted.state_dict(),
            "true": self._true.state_dict(),
            "alarms": self.alarms.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._newest.extend((float(p), float(mu)) for p, mu in state["newest"])
        self._episodes.extend((float(p), float(t)) for p, t in state["episodes"])
        self._predicted.load_state_dict(state["predicted"])
        self._true.load_state_dict(state["true"])
        self.alarms.load_state_dict(state["alarms"])


def _correlations(name: str, predicted: NDArray[Any], true: NDArray[Any]) -> dict[str, float]:
    values = {"pearson": pearson(predicted, true), "spearman": spearman(predicted, true)}
    return {f"reward/{name}_{kind}": value for kind, value in values.items() if math.isfinite(value)}
