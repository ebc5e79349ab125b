"""FrameStacks: observations that are stacks of frames, with every frame stored once.

An Atari observation is the last four frames, three of which were in the observation before it: a rollout that kept
whole stacks would keep each frame four times, and a shuffled copy as often again. Here a stack is four numbers of
frames; its pixels are put together for one minibatch at a time.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class FrameStacks:
    """A leaf of (nested) observations in place of a tensor `[..., K, H, W]`, indexed, flattened and moved like one."""

    frames: Tensor
    """uint8 `[M, H, W]`, shared by all stacks."""
    index: Tensor
    """int64 `[..., K]`: the frames of each stack, the newest last."""

    @property
    def shape(self) -> torch.Size:
        """Of the tensor that this stands for, `[..., K, H, W]`."""
        return torch.Size([*self.index.shape, *self.frames.shape[1:]])

    @property
    def dtype(self) -> torch.dtype:
        """Of the frames."""
        return self.frames.dtype

    @property
    def device(self) -> torch.device:
        """Where the frames are."""
        return self.frames.device

    @property
    def nbytes(self) -> int:
        """Bytes of frames and numbers."""
        return self.frames.nbytes + self.index.nbytes

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: Any) -> "FrameStacks":
        """Some of the stacks, by any index into the leading dimensions; the frames stay where they are."""
        return FrameStacks(self.frames, self.index[key])

    def flatten(self, start: int, end: int) -> "FrameStacks":
        """The leading dimensions `start` to `end` made one."""
        return FrameStacks(self.frames, self.index.flatten(start, end))

    def to(self, device: torch.device | str) -> "FrameStacks":
        """The same stacks on another device."""
        return FrameStacks(self.frames.to(device), self.index.to(device))

    def pixels(self) -> Tensor:
        """The tensor that this stands for, uint8 `[..., K, H, W]`."""
        return self.frames.index_select(0, self.index.flatten()).view(self.shape)
