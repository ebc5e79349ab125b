"""Fitting a reward model to comparisons: minibatches of pairs, all members at once, L2 adapted to the held-out loss."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from envs.errors import RllabError
from preference import bradley_terry
from preference.dataset import ClipBatch, ComparisonData
from preference.prediction import PreparedClips, cross_entropy_and_slope, differences, prepare
from preference.reward_model import RewardModel
from rllab.agents.adam import Adam, NumpyAdam, TorchAdam
from rllab.agents.optimizer import require_finite


@dataclass(frozen=True)
class FitConfig:
    """How the reward model is fitted."""

    fit_epochs: int = 20
    """Passes over the comparisons each time it is fitted; it goes on from where it was."""
    fit_batch_size: int = 32
    """Pairs of a minibatch."""
    fit_learning_rate: float = 1e-3
    """Step size of Adam."""
    answer_noise: float | None = None
    """ε, the share of answers taken to be random (section 2.2.3); None: 0.1 for people, 0 for an exact teacher."""
    held_out: float = 0.2
    """Share of the comparisons, by clip, that the model is only measured on."""
    bootstrap: bool = True
    """Resample the comparisons for each member of an ensemble."""
    l2: float | None = None
    """λ of λ/2·‖w‖², at first; None: 0.01, as a few comparisons of numbers are learnt by heart otherwise before λ has
    adapted, and 1e-4 for images."""
    l2_adapt: bool = True
    """Adapt λ so that the held-out loss stays between 1.1 and 1.5 times the training loss (appendix A)."""

    def __post_init__(self) -> None:
        if self.fit_epochs < 1 or self.fit_batch_size < 1:
            raise RllabError("fit_epochs and fit_batch_size must be at least 1")
        if not 0 < self.fit_learning_rate < math.inf:
            raise RllabError(f"fit_learning_rate must be above 0 and finite, not {self.fit_learning_rate}")
        if self.l2 is not None and not 0 <= self.l2 < math.inf:
            raise RllabError(f"l2 must be 0 (off) or more, not {self.l2}")
        if not 0 <= self.held_out < 1:
            raise RllabError(f"held_out must lie in [0, 1), not {self.held_out}")
        if self.answer_noise is not None:
            bradley_terry.check_noise(self.answer_noise)


LOWEST_RATIO, HIGHEST_RATIO = 1.1, 1.5
"""Of held-out to training loss (Christiano et al. 2017, appendix A)."""
L2_STEP, L2_RANGE = 1.05, (1e-6, 0.1)
"""Factor by which λ changes after an epoch that ended outside these, and where it stops. The weights take tens of
epochs to follow λ: a larger factor overshoots, and above 0.1 nothing is learnt any more."""
FEWEST_HELD_OUT = 10
"""Held-out pairs below which their loss is too uncertain to adapt anything to."""


class Fitter:
    """Fits a reward model, again and again as comparisons come; its state is Adam's moments and λ."""

    def __init__(
        self, model: RewardModel, config: FitConfig, generator: np.random.Generator, *, noise: float = 0.0
    ) -> None:
        """`generator` shuffles the pairs; `noise` is ε where the configuration leaves it open."""
        self.model, self.config, self.generator = model, config, generator
        self.noise = noise if config.answer_noise is None else config.answer_noise
        self.l2 = (1e-4 if model.inputs.image else 0.01) if config.l2 is None else config.l2
        implementation = TorchAdam if model.fast is None else NumpyAdam
        self.adam: Adam = implementation(model.flat, config.fit_learning_rate, 1e-8)

    def fit(self, data: ComparisonData, epochs: int | None = None) -> dict[str, float]:
        """Learn from all comparisons that are not held out.

        Returns losses, their ratio and λ, named as metrics are.

        Raises:
            RllabError: there is nothing to learn from (no comparison, or ties alone), or the loss is not finite.
        """
        preferences = np.array(data.preferences, np.float32)
        check_preferences(preferences)
        held_out, training = data.held_out(), np.flatnonzero(data.training())
        if (preferences[training] == 0.5).all():  # too few to hold any out
            training, held_out = np.arange(len(preferences)), np.zeros(len(preferences), bool)
        pairs, counts = np.array(data.pairs), data.counts()
        batch = prepare(self.model, data.batch)
        losses = [math.nan, math.nan]
        self.model.module.train()
        try:
            for _ in range(self.config.fit_epochs if epochs is None else epochs):
                total = weight = 0.0
                for chosen in self._minibatches(training):
                    loss, share = self._step(batch, pairs[chosen], preferences[chosen], counts[:, chosen])
                    total, weight = total + loss * share, weight + share
                losses = [total / max(weight, 1e-9), self._loss(batch, pairs, preferences, np.flatnonzero(held_out))]
                if self._noisy and held_out.any():
                    # Both without dropout and with the same moments, or they could not be held against each other.
                    some = training[:: -(-len(training) // int(held_out.sum()))]
                    losses[0] = self._loss(batch, pairs, preferences, some, counts)
                self._adapt(losses, int(held_out.sum()))
        finally:
            self.model.module.eval()
        return {
            "reward/training_loss": losses[0],
            "reward/held_out_loss": losses[1],
            "reward/loss_ratio": losses[1] / losses[0] if losses[0] > 0 else math.nan,
            "reward/l2": self.l2,
        }

    def _minibatches(self, training: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        permuted, size = self.generator.permutation(training), self.config.fit_batch_size
        return [permuted[start : start + size] for start in range(0, len(permuted), size)]

    def _step(
        self,
        batch: PreparedClips,
        pairs: NDArray[np.int64],
        preferences: NDArray[np.float32],
        counts: NDArray[np.float32],
    ) -> tuple[float, float]:
        """One step of all members; returns the mean loss of a member's comparison, and their number."""
        share = float(counts.sum())
        # A member's loss is the mean over the comparisons it is given; members do not share weights, so they add up.
        weights = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        if self.model.fast is not None:
            loss = self._fast_gradient(batch, pairs, preferences, weights)
        else:
            loss = self._gradient(batch, pairs, preferences, weights)
        gradient = self.model.flat.grad
        assert gradient is not None
        if self.l2:
            gradient.add_(self.model.flat.detach(), alpha=self.l2)
        require_finite(loss, self.adam.gradient_norm())
        self.adam.step()
        return loss / self.model.members, share

    def _gradient(
        self,
        batch: PreparedClips,
        pairs: NDArray[np.int64],
        preferences: NDArray[np.float32],
        weights: NDArray[np.float32],
    ) -> float:
        """The loss, and its gradient in the buffer: the definition."""
        assert self.model.flat.grad is not None
        self.model.flat.grad.zero_()
        difference = self._differences(batch, pairs)
        losses = bradley_terry.cross_entropy(
            difference, torch.from_numpy(preferences).expand_as(difference), self.noise
        )
        loss = (losses * torch.from_numpy(weights)).sum()
        # By way of the flat buffer's views, into which autograd adds.
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _differences(self, batch: PreparedClips, pairs: NDArray[np.int64]) -> torch.Tensor:
        """Σ r̂(σ¹) − Σ r̂(σ²) `[E, B]` of pairs `[B, 2]`."""
        clips = pairs.T.reshape(-1)
        features, valid = batch.steps(clips)
        # Only steps that exist go through the networks: batch normalisation would count the others.
        steps = np.flatnonzero(valid)
        rewards = torch.zeros(self.model.members, valid.size)
        rewards = rewards.index_copy(1, torch.from_numpy(steps), self.model.raw(features.only(steps)))
        returns = rewards.view(self.model.members, 2, len(pairs), -1).sum(-1)
        return returns[:, 0] - returns[:, 1]

    def _fast_gradient(
        self,
        batch: PreparedClips,
        pairs: NDArray[np.int64],
        preferences: NDArray[np.float32],
        weights: NDArray[np.float32],
    ) -> float:
        """As `_gradient`, by hand."""
        fast = self.model.fast
        assert fast is not None
        features, valid = batch.steps(pairs.T.reshape(-1))
        returns, remembered = fast.returns(features.numbers, valid)
        half = len(pairs)
        difference = returns[:, :half] - returns[:, half:]
        losses, slope = cross_entropy_and_slope(difference, preferences, self.noise)
        gradient = slope * weights
        fast.backward(np.concatenate([gradient, -gradient], axis=1), remembered)
        return float((losses * weights).sum())

    def predictions(self, batch: ClipBatch, pairs: NDArray[np.int64]) -> NDArray[np.float32]:
        """Σ r̂(σ¹) − Σ r̂(σ²) of every member `[E, P]` for pairs `[P, 2]` of indices into the clips."""
        return differences(self.model, prepare(self.model, batch), pairs)

    @property
    def _noisy(self) -> bool:
        """Whether the networks give other rewards in training than otherwise."""
        return self.model.inputs.image or self.model.config.dropout > 0

    def _loss(
        self,
        batch: PreparedClips,
        pairs: NDArray[np.int64],
        preferences: NDArray[np.float32],
        chosen: NDArray[np.int64],
        counts: NDArray[np.float32] | None = None,
    ) -> float:
        """Mean loss of a member's comparison among those chosen, as the model is used; NaN if there is none.

        `counts` `[E, P]` says how often each member is given each, as in training; None: once.
        """
        if not len(chosen):
            return math.nan
        self.model.module.eval()
        difference = differences(self.model, batch, pairs[chosen])
        self.model.module.train()
        losses, _ = cross_entropy_and_slope(difference, preferences[chosen], self.noise)
        if counts is None:
            return float(losses.mean())
        return float((losses * counts[:, chosen]).sum() / max(float(counts[:, chosen].sum()), 1e-9))

    def _adapt(self, losses: list[float], held_out: int) -> None:
        if not self.config.l2_adapt or self.l2 == 0 or held_out < FEWEST_HELD_OUT or losses[0] <= 0:
            return
        ratio = losses[1] / losses[0]
        if ratio > HIGHEST_RATIO:
            self.l2 = min(self.l2 * L2_STEP, L2_RANGE[1])
        elif ratio < LOWEST_RATIO:
            self.l2 = max(self.l2 / L2_STEP, L2_RANGE[0])

    def state_dict(self) -> dict[str, Any]:
        """Adam's moments, λ, and the random generator."""
        return {"adam": self.adam.state_dict(), "l2": self.l2, "generator": self.generator.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.adam.load_state_dict(state["adam"])
        self.l2 = float(state["l2"])
        self.generator.bit_generator.state = state["generator"]


FEWEST_ONE_SIDED = 20
"""Comparisons that all prefer the same side are not chance any more (2⁻¹⁹) from so many on."""


def check_preferences(preferences: NDArray[np.float32]) -> None:
    """Raise RllabError if nothing can be learnt from these μ(1) `[P]`."""
    count = len(preferences)
    if count == 0:
        raise RllabError("there is no comparison to learn a reward from: label some pairs first")
    if (preferences == 0.5).all():
        raise RllabError(f"all {count} comparisons are ties, from which no reward can be learnt: ask about other pairs")
    sided = preferences[preferences != 0.5]
    if len(sided) >= FEWEST_ONE_SIDED and (sided == sided[0]).all():
        side = "first" if sided[0] == 1 else "second"
        raise RllabError(
            f"all {len(sided)} comparisons prefer the {side} clip, so they tell the side that was clicked and not the "
            "clips apart: put the clips in random order and label again"
        )
