"""What an ensemble predicts of pairs of clips, where nothing needs gradients; and the loss of a prediction."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from preference import bradley_terry
from preference.dataset import ClipBatch
from preference.reward_model import Features, RewardModel


def prepare(model: RewardModel, batch: ClipBatch) -> "PreparedClips":
    """What the model's networks take of clips, computed once for all that is done with them."""
    steps = {name: array.reshape(-1, *array.shape[2:]) for name, array in batch.arrays.items()}
    features = model.features(steps)
    clips, length = batch.valid.shape
    images = None if features.images is None else features.images.reshape(clips, length, *features.images.shape[1:])
    numbers = features.numbers.reshape(clips, length, features.numbers.shape[-1])
    return PreparedClips(numbers, images, batch.valid)


@dataclass(frozen=True)
class PreparedClips:
    """Features of C clips of L columns."""

    numbers: NDArray[np.float32]
    """`[C, L, F]`"""
    images: NDArray[np.uint8] | None
    """`[C, L, *image]`"""
    valid: NDArray[np.bool_]
    """`[C, L]`"""

    def means(self) -> NDArray[np.float32]:
        """The mean step of each clip `[C, D]`; of images, the brightness of 4 × 4 tiles."""
        counts = np.maximum(self.valid.sum(axis=1, keepdims=True), 1).astype(np.float32)
        means: NDArray[np.float32] = (self.numbers * self.valid[:, :, None]).sum(axis=1) / counts
        if self.images is None:
            return means
        newest = self.images[:, :, -1]  # the newest frame of each stack
        height, width = newest.shape[2] // 4, newest.shape[3] // 4
        tiles = (
            newest[:, :, : 4 * height, : 4 * width].reshape(*newest.shape[:2], 4, height, 4, width).mean(axis=(3, 5))
        )
        tiles = tiles.reshape(*newest.shape[:2], 16) / np.float32(255)
        return np.concatenate([means, (tiles * self.valid[:, :, None]).sum(axis=1) / counts], axis=1, dtype=np.float32)

    def steps(self, clips: NDArray[np.int64]) -> tuple[Features, NDArray[np.bool_]]:
        """The steps of some clips, `[B·L, …]`, and which exist, `[B, L]`."""
        numbers = self.numbers[clips].reshape(len(clips) * self.valid.shape[1], self.numbers.shape[-1])
        images = None if self.images is None else self.images[clips].reshape(-1, *self.images.shape[2:])
        return Features(numbers, images), self.valid[clips]


_CHUNK = 128
"""Clips at a time where nothing needs gradients."""


def differences(model: RewardModel, batch: PreparedClips, pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    """Σ r̂(σ¹) − Σ r̂(σ²) of every member `[E, P]`, each clip passed through the networks once."""
    used, inverse = np.unique(pairs, return_inverse=True)
    returns = clip_returns(model, batch, used)[:, inverse.reshape(pairs.shape)]
    result: NDArray[np.float32] = returns[..., 0] - returns[..., 1]
    return result


def clip_returns(model: RewardModel, batch: PreparedClips, clips: NDArray[np.int64]) -> NDArray[np.float32]:
    """Σ r̂(σ) of every member `[E, C]`."""
    if model.fast is not None:
        features, valid = batch.steps(clips)
        return model.fast.sums(features.numbers, valid)
    returns = np.empty((model.members, len(clips)), np.float32)
    chunk = _CHUNK if batch.images is None else _CHUNK // 16
    with torch.no_grad():
        for start in range(0, len(clips), chunk):
            piece = slice(start, start + chunk)
            features, valid = batch.steps(clips[piece])
            rewards = model.raw(features).numpy().reshape(model.members, *valid.shape)
            returns[:, piece] = (rewards * valid).sum(axis=-1)
    return returns


def cross_entropy_and_slope(
    difference: NDArray[np.float32], preferences: NDArray[np.float32], noise: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The loss of every comparison `[E, B]` as `bradley_terry.cross_entropy` has it, and its slope in `difference`."""
    if noise == 0:
        # softplus(−d)·μ + softplus(d)·(1 − μ), whose slope is σ(d) − μ
        magnitude = np.log1p(np.exp(-np.abs(difference)))
        losses = magnitude + np.maximum(difference, 0) - difference * preferences
        return losses, _sigmoid(difference) - preferences
    d = torch.from_numpy(difference).requires_grad_()
    losses_ = bradley_terry.cross_entropy(d, torch.from_numpy(preferences).expand_as(d), noise)
    losses_.sum().backward()  # type: ignore[no-untyped-call]
    assert d.grad is not None
    return losses_.detach().numpy(), d.grad.numpy()


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    half: NDArray[np.float32] = 0.5 * np.tanh(0.5 * x) + 0.5
    return half
