"""Comparisons as arrays to learn from: clips stacked and padded, who learns from which, and what is held out."""

import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from preference.comparisons import Clip

STEP_ARRAYS = ("observations", "actions", "next_observations")
"""The arrays of a clip that a reward model may read."""


@dataclass(frozen=True)
class ClipBatch:
    """C clips as arrays of L columns; shorter ones end in columns that do not exist."""

    arrays: Mapping[str, NDArray[Any]]
    """Each `[C, L, *shape]`."""
    valid: NDArray[np.bool_]
    """`[C, L]`"""

    @staticmethod
    def of(clips: Sequence[Clip], names: Sequence[str] = STEP_ARRAYS) -> "ClipBatch":
        """Stack clips, padding with zeros.

        Raises RllabError if they do not fit together.
        """
        lengths = np.array([clip.length for clip in clips])
        valid = np.arange(lengths.max(initial=0)) < lengths[:, None]
        present = [name for name in names if all(name in clip.arrays for clip in clips)]
        return ClipBatch({name: _stacked(clips, name, valid) for name in present}, valid)


def _stacked(clips: Sequence[Clip], name: str, valid: NDArray[np.bool_]) -> NDArray[Any]:
    arrays = [clip.arrays[name] for clip in clips]
    shape, dtype = arrays[0].shape[1:], arrays[0].dtype
    for clip, array in zip(clips, arrays, strict=True):
        if array.shape[1:] != shape:
            raise RllabError(
                f"clips of one environment are needed: the {name} of clip {clip.id} have the shape {array.shape[1:]}, "
                f"and those of clip {clips[0].id} {shape}"
            )
    joined = np.concatenate(arrays, dtype=dtype, casting="unsafe")
    if valid.all():
        return joined.reshape(*valid.shape, *shape)
    stacked = np.zeros((*valid.shape, *shape), dtype)
    stacked[valid] = joined
    return stacked


def _fraction(clip: Clip) -> float:
    """An even number from 0 to 1 for each clip: a checksum of how it begins and what is done in it."""
    if "actions" not in clip.arrays:
        return zlib.crc32(clip.id.bytes) / 2**32
    observations, actions = clip.arrays["observations"], clip.arrays["actions"]
    return zlib.crc32(observations[:1].tobytes(), zlib.crc32(actions.tobytes())) / 2**32


class ComparisonData:
    """Comparisons that a reward model learns from, in the order they came.

    Each member of an ensemble is given a comparison as often as a Poisson variable of mean 1 says, drawn once when it
    comes. As the set grows this becomes the paper's sampling with replacement (Oza & Russell 2001, "Online Bagging and
    Boosting"), and an answer weighs the same in every fit.

    A share of the clips is held out. Whether a clip is one of them follows from what it shows, so that questions can be
    about two of the same side, and runs of one seed hold out the same, whatever ids they give. Of a pair that was
    chosen without regard to that, both clips are on the side of the one that came first. A pair of a clip of either
    side is neither learnt from nor measured on.
    """

    def __init__(
        self, members: int, generator: np.random.Generator, *, held_out: float = 0.2, bootstrap: bool = True
    ) -> None:
        """`held_out`: share of the comparisons; `bootstrap`: resample for each of several members."""
        if not 0 <= held_out < 1:
            raise RllabError(f"held_out must lie in [0, 1), not {held_out}")
        self.members, self.generator, self.share = members, generator, held_out
        self.bootstrap = bootstrap and members > 1
        self._clips: dict[uuid.UUID, int] = {}
        self.clips: list[Clip] = []
        self.pairs: list[tuple[int, int]] = []
        """Indices into `clips`."""
        self.preferences: list[float] = []
        """μ(1)"""
        self.keys: list[str] = []
        self._counts: list[NDArray[np.float32]] = []
        self._sides: list[bool] = []
        """Of each clip: whether it is held out."""
        self._batch: ClipBatch | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def add(self, first: Clip, second: Clip, preference: float, key: str = "") -> None:
        """Take a comparison in; μ = ½ is a tie; `key` is what `remove` knows it by."""
        decided = [known for known in map(self.side, (first, second)) if known is not None]
        side = decided[0] if decided else self.intended_side(first)
        self.keys.append(key)
        self.pairs.append((self._index(first, side), self._index(second, side)))
        self.preferences.append(preference)
        counts = self.generator.poisson(1.0, self.members) if self.bootstrap else np.ones(self.members)
        self._counts.append(counts.astype(np.float32))

    def side(self, clip: Clip) -> bool | None:
        """Whether a clip is held out; None while it is in no comparison."""
        index = self._clips.get(clip.id)
        return None if index is None else self._sides[index]

    def intended_side(self, clip: Clip) -> bool:
        """Whether a clip is held out, or will be once it is in a comparison with another such."""
        known = self.side(clip)
        return _fraction(clip) < self.share if known is None else known

    def remove(self, key: str) -> bool:
        """Forget a comparison, as when somebody changed their mind; whether it was there. Its clips stay."""
        if key not in self.keys:
            return False
        index = self.keys.index(key)
        for items in (self.keys, self.pairs, self.preferences, self._counts):
            del items[index]
        return True

    def _index(self, clip: Clip, side: bool) -> int:
        if clip.id not in self._clips:
            self._clips[clip.id] = len(self.clips)
            self.clips.append(clip)
            self._sides.append(side)
            self._batch = None
        return self._clips[clip.id]

    @property
    def batch(self) -> ClipBatch:
        """The clips as arrays."""
        if self._batch is None:
            self._batch = ClipBatch.of(self.clips)
        return self._batch

    def held_out(self) -> NDArray[np.bool_]:
        """Bool `[P]`: the comparisons that are measured on."""
        both: NDArray[np.bool_] = np.asarray(self._both_sides().all(axis=1))
        return both

    def training(self) -> NDArray[np.bool_]:
        """Bool `[P]`: the comparisons that are learnt from."""
        neither: NDArray[np.bool_] = ~np.asarray(self._both_sides().any(axis=1))
        return neither

    def _both_sides(self) -> NDArray[np.bool_]:
        pairs = np.array(self.pairs, np.int64).reshape(-1, 2)
        sides: NDArray[np.bool_] = np.array(self._sides, bool)[pairs]
        return sides

    def counts(self) -> NDArray[np.float32]:
        """`[E, P]`: how often each member is given each comparison."""
        return np.stack(self._counts, axis=1) if self._counts else np.empty((self.members, 0), np.float32)

    def state_dict(self) -> dict[str, Any]:
        """What was drawn and decided; the clips by their ids alone, since they lie in the store."""
        return {
            "clips": [str(clip.id) for clip in self.clips],
            "keys": list(self.keys),
            "pairs": np.array(self.pairs, np.int64).reshape(-1, 2),
            "preferences": np.array(self.preferences),
            "counts": self.counts(),
            "sides": np.array(self._sides, bool),
            "generator": self.generator.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any], clips: Sequence[Clip]) -> None:
        """Take over what `state_dict` gave; `clips` are those that it names, in order."""
        self.clips = list(clips)
        self._clips = {clip.id: i for i, clip in enumerate(self.clips)}
        self._batch = None
        self.keys = list(state["keys"])
        self.pairs = [(int(a), int(b)) for a, b in state["pairs"]]
        self.preferences = [float(value) for value in state["preferences"]]
        self._counts = list(np.array(state["counts"]).T.copy())
        self._sides = [bool(value) for value in state["sides"]]
        self.generator.bit_generator.state = state["generator"]
