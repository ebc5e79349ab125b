"""What an environment sent, held against what it promised: once a rollout, in vector operations."""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from rllab.nested import Nested, Path, leaf_at

Bounds = tuple[NDArray[Any], NDArray[Any]]


class RolloutChecks:
    """Refuses rewards and observations that are not finite, and observations outside their space's bounds."""

    def __init__(
        self, space: gymnasium.Space[Any], check_bounds: bool, describe: Callable[[int], str] = "environment {}".format
    ) -> None:
        """Read the bounds.

        Args:
            space: of a single environment's observations.
            check_bounds: whether they bind.
            describe: names an environment by its row, for the sentence.
        """
        self.bounds = {path: _binding_bounds(leaf) if check_bounds else None for path, leaf in _leaves(space)}
        self.describe = describe

    def __call__(
        self, observations: Nested, rewards: NDArray[np.float32], finals: list[tuple[int, int, Nested]], before: int
    ) -> None:
        """Look through a rollout.

        Args:
            observations: nested arrays `[N, T + 1, *obs]`; the last T were sent by the rollout's steps. None: bytes
                that cannot be wrong.
            rewards: `[N, T]`.
            finals: (row, column, final observation) of the episodes that were cut.
            before: steps that each environment had made before this rollout.

        Raises:
            RllabError: the first thing amiss, naming environment and step.
        """
        if not np.isfinite(rewards).all():
            row, column = np.argwhere(~np.isfinite(rewards))[0].tolist()
            raise self._refusal(row, before + column + 1, "gave a reward that is not finite (NaN or infinite)")
        for path, bounds in self.bounds.items() if observations is not None else ():
            amiss = _amiss(leaf_at(observations, path), bounds)
            if amiss is not None:
                bad, what = amiss
                row, column = np.argwhere(bad)[0].tolist()
                raise self._refusal(row, before + column, f"gave an observation {what}")
        for row, column, final in finals:
            for path, bounds in self.bounds.items():
                amiss = _amiss(np.asarray(leaf_at(final, path))[None, None], bounds)
                if amiss is not None:
                    raise self._refusal(row, before + column + 1, f"gave a final observation {amiss[1]}")

    def _refusal(self, row: int, step: int, what: str) -> RllabError:
        return RllabError(
            f"{self.describe(row)} {what} at step {step:,}, so training stopped before learning from it; the last "
            "checkpoint is intact"
        )


def _amiss(leaf: NDArray[Any], bounds: Bounds | None) -> tuple[NDArray[np.bool_], str] | None:
    """Which entries `[N, T]` of an array `[N, T, …]` are not as they should be, and how; None if all are."""

    def entries(good: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(~good.reshape(*good.shape[:2], -1).all(-1))

    if np.issubdtype(leaf.dtype, np.floating) and not (finite := np.isfinite(leaf)).all():
        return entries(finite), "that is not finite (NaN or infinite)"
    if bounds is not None and not (inside := (leaf >= bounds[0]) & (leaf <= bounds[1])).all():
        where = np.argwhere(~inside)[0]
        value = leaf[tuple(where)]
        low, high = (np.broadcast_to(bound, leaf.shape)[tuple(where)] for bound in bounds)
        what = f"of {value:g} outside its space's bounds [{low:g}, {high:g}] (--no-check-bounds lets such pass)"
        return entries(inside), what
    return None


def _leaves(space: gymnasium.Space[Any], path: Path = ()) -> Iterator[tuple[Path, gymnasium.Space[Any]]]:
    """The spaces of an observation's leaves, and where they are."""
    if isinstance(space, gymnasium.spaces.Dict):
        for key, child in space.spaces.items():
            yield from _leaves(child, (*path, key))
    elif isinstance(space, gymnasium.spaces.Tuple):
        for index, child in enumerate(space.spaces):
            yield from _leaves(child, (*path, index))
    else:
        yield path, space


def _binding_bounds(space: gymnasium.Space[Any]) -> Bounds | None:
    """Lowest and highest values of a leaf; None if its type cannot hold others anyway."""
    spaces = gymnasium.spaces
    if isinstance(space, spaces.Discrete):
        return np.array(space.start), np.array(space.start + space.n - 1)
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary):
        return np.array(0), np.array(1)
    if not isinstance(space, spaces.Box):
        return None
    if np.issubdtype(space.dtype, np.floating):
        if np.isinf(space.low).all() and np.isinf(space.high).all():
            return None
        # Rollouts hold single precision: a bound is rounded as its observations are.
        return space.low.astype(np.float32), space.high.astype(np.float32)
    if space.dtype == np.bool_:
        return None
    limits = np.iinfo(space.dtype)
    if (space.low == limits.min).all() and (space.high == limits.max).all():
        return None
    return space.low, space.high
