"""Where a reward model is fitted while the agent learns from it: in the same process, or in another."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from preference.dataset import ClipBatch, ComparisonData
from preference.desk import Answered
from preference.fit import Fitter, check_preferences
from preference.measures import PreferenceMeasures, Spread, ensemble_spread
from preference.reward_model import RewardModel

INITIAL_EPOCHS = 4
"""The first fit, from nothing, takes so many times the epochs of the later ones, which go on from it."""


def reference_count(model: RewardModel) -> int:
    """Over how many clips rewards are normalised: half of them the first that were asked about, half the newest."""
    return 32 if model.inputs.image else 256


class Fitting(Protocol):
    """Brings a learner's model up to date with what has been answered."""

    def due(self, changed: bool) -> bool:
        """Whether there is something to gain from `improve` now; `changed`: whether there are new answers."""

    def improve(self, reference: ClipBatch, first: bool) -> Mapping[str, float]:
        """Change the model, its rewards normalised over the reference clips; `first`: it has learnt nothing yet.

        Returns losses and measures, named as metrics are.
        """


class FitHere:
    """The learner waits while its model is fitted: the synchronous mode."""

    def __init__(
        self, model: RewardModel, data: ComparisonData, fitter: Fitter, note: Callable[[str], None]
    ) -> None:  # fmt: skip
        """`note` tells a person why nothing can be learnt yet."""
        self.model, self.data, self.fitter, self.note = model, data, fitter, note

    def due(self, changed: bool) -> bool:
        return changed and learnable(self.data, self.note)

    def improve(self, reference: ClipBatch, first: bool) -> dict[str, float]:
        for batch in (reference, self.data.batch):
            self.model.observe(self.model.numbers(batch.arrays)[batch.valid])
        losses = self.fitter.fit(self.data, self.fitter.config.fit_epochs * (INITIAL_EPOCHS if first else 1))
        self.model.normalise_over(reference.arrays, reference.valid)
        return losses | held_out_measures(self.data, self.fitter) | spread_measures(self.model, self.data.batch)


def take_in(data: ComparisonData, answered: Answered) -> int:
    """Put what has been answered into the data, skips left out; how many of its comparisons came or went."""
    changed = 0
    for answer in answered.withdrawn:
        changed += data.remove(str(answer))
    for comparison, first, second in answered.added:
        if comparison.preference is not None:
            data.add(first, second, comparison.preference, str(comparison.answer.id))
            changed += 1
    return changed


def learnable(data: ComparisonData, note: Callable[[str], None] = lambda sentence: None) -> bool:
    """Whether a reward can be learnt from these comparisons; `note` is told why not."""
    try:
        check_preferences(np.array(data.preferences, np.float32))
    except RllabError as error:
        note(f"the reward is not fitted yet: {error}")
        return False
    return True


def require_learnable(data: ComparisonData, asked: int, remedies: str) -> None:
    """Raise RllabError, with what else can be done, if all questions are answered and nothing can be learnt."""
    try:
        check_preferences(np.array(data.preferences, np.float32))
    except RllabError as error:
        raise RllabError(
            f"All {asked} questions are answered, and no reward can be learnt: {error}; or {remedies}."
        ) from error


def held_out_measures(data: ComparisonData, fitter: Fitter) -> dict[str, float]:
    """How well the fitter's model predicts the answers that it does not learn from."""
    held_out = data.held_out()
    if not held_out.any():
        return {}
    pairs, preferences = np.array(data.pairs), np.array(data.preferences)
    difference = fitter.predictions(data.batch, pairs[held_out])
    probabilities = (0.5 * np.tanh(0.5 * difference.astype(np.float64)) + 0.5).mean(axis=0)
    return PreferenceMeasures.of(probabilities, preferences[held_out]).to_metrics("reward/held_out_")


def spread_measures(model: RewardModel, labelled: ClipBatch) -> dict[str, float]:
    """How far the ensemble's members are apart on steps that were asked about."""
    spread = ensemble_spread(model.member_rewards(labelled.arrays))[labelled.valid]
    return Spread.of(spread).to_metrics("reward/labelled_spread_")


def slope_of(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """By what to multiply a critic so that it survives a refit: the slope of the least-squares line from old to new.

    A value is a discounted sum of rewards, so its slope is theirs. Where new rewards have little to do with the old
    ones it is near 0, and the critic begins anew. (Both have a mean near 0, which leaves no constant to add.)
    """
    variance = float(before.var())
    if variance < 1e-12:
        return 1.0
    return max(float(((before - before.mean()) * (after - after.mean())).mean()) / variance, 0.0)
