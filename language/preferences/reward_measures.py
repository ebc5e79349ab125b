"""How good a reward model of texts is on comparisons, beside a baseline that knows their lengths alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from language.preferences.reward_model import TextRewardModel
from preference import bradley_terry
from preference.correlation import spearman
from preference.measures import PreferenceMeasures

_RIDGE = 1e-3
"""Of the baseline's weight, so that comparisons that length decides without exception have one too."""


class EncodedComparison(NamedTuple):
    """A comparison as a reward model reads it."""

    first: list[int]
    second: list[int]
    """Prompt, response and end token."""
    mu: float
    lengths: tuple[int, int]
    """Tokens of the two responses alone."""


@dataclass(frozen=True)
class LengthBaseline:
    """P(first) = σ(w · log(length of the first / length of the second)), w fitted to comparisons."""

    weight: float

    @classmethod
    def fit(cls, comparisons: Sequence[EncodedComparison]) -> "LengthBaseline":
        """By Newton's method on the cross-entropy with μ, which is convex."""
        x, mu, weight = log_length_ratios(comparisons), preferences(comparisons), 0.0
        for _ in range(50):
            p = 1 / (1 + np.exp(-weight * x))
            slope = float(((p - mu) * x).sum()) + _RIDGE * weight
            curvature = float((p * (1 - p) * x * x).sum()) + _RIDGE
            weight -= float(np.clip(slope / curvature, -1, 1))
        return cls(weight)

    def probabilities(self, comparisons: Sequence[EncodedComparison]) -> NDArray[np.float64]:
        """P(first is better), `[comparisons]`."""
        found: NDArray[np.float64] = 1 / (1 + np.exp(-self.weight * log_length_ratios(comparisons)))
        return found


def log_length_ratios(comparisons: Sequence[EncodedComparison]) -> NDArray[np.float64]:
    """log(tokens of the first response / of the second), `[comparisons]`."""
    lengths = np.array([comparison.lengths for comparison in comparisons], np.float64).reshape(-1, 2)
    ratios: NDArray[np.float64] = np.log(lengths[:, 0] / lengths[:, 1])
    return ratios


def preferences(comparisons: Sequence[EncodedComparison]) -> NDArray[np.float64]:
    """μ of each, `[comparisons]`."""
    return np.array([comparison.mu for comparison in comparisons], np.float64)


@dataclass(frozen=True)
class Predictions:
    """What a model and the baseline say of comparisons that neither learnt from."""

    probabilities: NDArray[np.float64]
    """P(first is better), `[comparisons]`; of an ensemble the members' mean."""
    baseline: NDArray[np.float64]
    """The same by length alone."""
    mu: NDArray[np.float64]
    """The preferences, means of votes where there are several."""
    scores: NDArray[np.float64]
    """Logits of all first and then all second responses, means over members, `[2 · comparisons]`."""
    lengths: NDArray[np.float64]
    """Their lengths in tokens."""

    @classmethod
    def of(
        cls, model: TextRewardModel, comparisons: Sequence[EncodedComparison], baseline: LengthBaseline
    ) -> "Predictions":  # fmt: skip
        """The model is in evaluation mode."""
        count = len(comparisons)
        logits = model.all_logits([*(c.first for c in comparisons), *(c.second for c in comparisons)])
        chosen = bradley_terry.probability(logits[:, :count] - logits[:, count:]).double().mean(0)
        lengths = np.array([comparison.lengths for comparison in comparisons], np.float64).T.reshape(-1)
        return cls(
            chosen.numpy(), baseline.probabilities(comparisons), preferences(comparisons),
            logits.double().mean(0).numpy(), lengths,
        )  # fmt: skip

    @classmethod
    def together(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """Those of several parts, such as the folds of a cross-validation."""
        columns = ("probabilities", "baseline", "mu", "scores", "lengths")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))

    @property
    def measures(self) -> PreferenceMeasures:
        """The model's, against the majority of votes."""
        return measured(self.probabilities, self.mu)

    @property
    def baseline_measures(self) -> PreferenceMeasures:
        """The baseline's."""
        return measured(self.baseline, self.mu)

    @property
    def loss(self) -> float:
        """Mean cross-entropy with μ, in nats; unlike the measures it sees how votes are divided."""
        difference = torch.logit(torch.from_numpy(self.probabilities), eps=1e-12)
        return float(bradley_terry.cross_entropy(difference, torch.from_numpy(self.mu)).mean())

    @property
    def length_correlation(self) -> float:
        """Spearman's, of a text's score and its length; near 0 if the model does not go by length."""
        return spearman(self.scores, self.lengths)


def measured(probabilities: NDArray[np.float64], mu: NDArray[np.float64]) -> PreferenceMeasures:
    """Predictions P(first is better) against the majority of votes, `[comparisons]` both.

    Every other comparison is turned round: where the chosen response always comes first, as in many files, the share of
    first ones that won is 1 whatever was predicted, and says nothing of calibration.
    """
    turned = np.arange(len(mu)) % 2 == 1
    return PreferenceMeasures.of(
        np.where(turned, 1 - probabilities, probabilities), np.where(turned, 1 - majority(mu), majority(mu))
    )


def majority(mu: NDArray[np.float64]) -> NDArray[np.float64]:
    """1, 0 or ½: what most votes were for."""
    found: NDArray[np.float64] = np.where(np.isclose(mu, 0.5), 0.5, mu > 0.5)
    return found
