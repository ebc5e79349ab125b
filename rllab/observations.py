"""Where a collector writes observations while it acts: whole, or as stacks of frames of which each is stored once."""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rllab.frames import FrameStacks
from rllab.nested import Nested, map_nested


class ObservationBuffer(Protocol):
    """T + 1 observations of N rows."""

    latest: Nested
    """What was written last, arrays `[N, *obs]`: what the policy acts on."""

    def write(self, column: int, observations: Nested, ended: NDArray[np.bool_] | None) -> None:
        """The observations `[N, *obs]` of a column; `ended`, bool `[N]`: rows whose episode ended on the way to it."""

    def finish(self) -> Nested:
        """All of them, tensors `[N, T + 1, *obs]`."""

    @property
    def arrays(self) -> Nested:
        """All of them as arrays `[N, T + 1, *obs]`; None where no value can be wrong."""


class WholeObservations:
    """Observations as they come."""

    def __init__(self, first: Nested, steps: int) -> None:
        """`first`: the observations of column 0."""
        self.arrays = map_nested(lambda leaf: np.empty((len(leaf), steps + 1, *leaf.shape[1:]), leaf.dtype), first)
        self._columns = [map_nested(lambda leaf, t=t: leaf[:, t], self.arrays) for t in range(steps + 1)]
        self.write(0, first, None)

    def write(self, column: int, observations: Nested, ended: NDArray[np.bool_] | None) -> None:
        self.latest = self._columns[column]
        _assign(self.latest, observations)

    def finish(self) -> Nested:
        return map_nested(torch.from_numpy, self.arrays)


class StackedObservations:
    """Stacks of frames `[N, K, H, W]`, the newest frame last, that move on by one frame a step within an episode."""

    arrays: Nested = None
    """Any byte is a pixel: there is nothing to check."""

    def __init__(self, first: NDArray[np.uint8], steps: int) -> None:
        """`first`: the observations of column 0."""
        rows, depth, height, width = first.shape
        # One frame a step, whole stacks at the start, and some room for the episodes that begin on the way.
        self._frames = np.empty((rows * (steps + 2 * depth), height, width), np.uint8)
        self._index = np.empty((rows, steps + 1, depth), np.int64)
        self._used = 0
        self._write_whole(0, np.arange(rows), first)
        self.latest = first

    def write(self, column: int, observations: NDArray[np.uint8], ended: NDArray[np.bool_] | None) -> None:
        self._index[:, column, :-1] = self._index[:, column - 1, 1:]
        self._index[:, column, -1] = self._append(observations[:, -1])
        if ended is not None and ended.any():
            # Whatever an environment shows after an episode's end, cleared stacks or not, is stored as it is.
            begun = np.flatnonzero(ended)
            self._write_whole(column, begun, observations[begun])
        self.latest = observations

    def _write_whole(self, column: int, rows: NDArray[np.intp], stacks: NDArray[np.uint8]) -> None:
        depth = stacks.shape[1]
        self._index[rows, column] = self._append(stacks.reshape(-1, *stacks.shape[2:])).reshape(-1, depth)

    def _append(self, frames: NDArray[np.uint8]) -> NDArray[np.int64]:
        begin, end = self._used, self._used + len(frames)
        if end > len(self._frames):
            self._frames = np.concatenate([self._frames, np.empty_like(self._frames[: max(len(frames), end // 4)])])
        self._frames[begin:end] = frames
        self._used = end
        return np.arange(begin, end)

    def finish(self) -> FrameStacks:
        return FrameStacks(torch.from_numpy(self._frames[: self._used]), torch.from_numpy(self._index))


def buffer_for(first: Nested, steps: int, stacked: bool) -> ObservationBuffer:
    """A buffer for `steps` + 1 observations like `first`, which is written to column 0."""
    return StackedObservations(first, steps) if stacked else WholeObservations(first, steps)


def standard(observations: Nested) -> Nested:
    """A copy of observations as rollouts store them: floats in single precision, everything else as it comes."""

    def convert(leaf: Any) -> NDArray[Any]:
        array = np.asarray(leaf)
        return array.astype(np.float32) if array.dtype == np.float64 else array.copy()

    return map_nested(convert, observations)


def _assign(destination: Nested, source: Nested) -> None:
    if isinstance(destination, np.ndarray):
        destination[...] = source
    elif isinstance(destination, dict):
        for key, leaf in destination.items():
            _assign(leaf, source[key])
    else:
        for leaf, other in zip(destination, source, strict=True):
            _assign(leaf, other)
