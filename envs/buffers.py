"""Batched arrays of nested spaces: where the rows of a vector environment are written, each checked on the way in."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from numpy.typing import NDArray

from envs.errors import RllabError

Nested: TypeAlias = Any
"""An array, or (nested) dicts and tuples of arrays, as Gymnasium's Dict and Tuple spaces have them."""

Allocate: TypeAlias = Callable[[tuple[int, ...], np.dtype[Any]], NDArray[Any]]
"""Makes an array of a shape and a dtype, e.g. `np.zeros`."""

Write: TypeAlias = Callable[[int, Any], None]
"""Puts one environment's observation into a row of batched arrays; raises `WrongReturnError` if it does not fit."""

# Python's numbers have no width of their own: what kinds of them an array of some kind takes.
_TAKES = {"f": "biuf", "i": "biu", "u": "biu", "b": "b", "O": "biufO"}


class WrongReturnError(Exception):
    """An environment returned something that it may not; the text says what was expected and what came."""


class StepBuffers:
    """What one step of N environments returns.

    Attributes:
        observations: arrays `[N, *obs]`, nested as the space is.
        rewards: float64 `[N]`.
        terminated: bool `[N]`.
        truncated: bool `[N]`.
    """

    def __init__(self, space: Space[Any], num_envs: int, allocate: Allocate = np.zeros) -> None:
        self.observations = allocate_batch(space, num_envs, allocate)
        self.rewards = allocate((num_envs,), np.dtype(np.float64))
        self.terminated = allocate((num_envs,), np.dtype(np.bool_))
        self.truncated = allocate((num_envs,), np.dtype(np.bool_))

    def rows(self, begin: int, end: int) -> "StepBuffers":
        """Some of the environments: views of the same memory."""
        part = object.__new__(StepBuffers)
        part.observations = rows_of(self.observations, begin, end)
        part.rewards = self.rewards[begin:end]
        part.terminated, part.truncated = self.terminated[begin:end], self.truncated[begin:end]
        return part


def allocate_batch(space: Space[Any], num_envs: int, allocate: Allocate = np.zeros) -> Nested:
    """Arrays `[N, *shape]` for N values of `space`; of spaces that no array holds (Text, Graph, …), objects `[N]`."""
    if isinstance(space, Dict):
        return {key: allocate_batch(part, num_envs, allocate) for key, part in space.spaces.items()}
    if isinstance(space, Tuple):
        return tuple(allocate_batch(part, num_envs, allocate) for part in space.spaces)
    if isinstance(space, Box | Discrete | MultiDiscrete | MultiBinary):
        return allocate((num_envs, *space.shape), np.dtype(space.dtype))  # type: ignore[misc]
    return np.full(num_envs, None, dtype=object)


def require_arrays(space: Space[Any], what: str) -> None:
    """Refuses spaces whose values cannot lie in memory that processes share.

    Raises:
        RllabError: a part of the space is not a Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple.
    """
    if isinstance(space, Dict | Tuple):
        parts = space.spaces.values() if isinstance(space, Dict) else space.spaces
        for part in parts:
            require_arrays(part, what)
    elif not isinstance(space, Box | Discrete | MultiDiscrete | MultiBinary):
        raise RllabError(f"Worker processes cannot share {what} of {space}, which no array holds: use sync.")


def rows_of(batch: Nested, begin: int, end: int) -> Nested:
    """Rows `begin` to `end` (exclusive) of batched arrays, as views."""
    if isinstance(batch, dict):
        return {key: rows_of(part, begin, end) for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(rows_of(part, begin, end) for part in batch)
    return batch[begin:end]


def copy_row(batch: Nested, row: int) -> Nested:
    """One row of batched arrays, copied."""
    if isinstance(batch, dict):
        return {key: copy_row(part, row) for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(copy_row(part, row) for part in batch)
    value = batch[row]
    return value.copy() if isinstance(value, np.ndarray) else value


def copy_batch(source: Nested, like: Nested, into: bool = False) -> Nested:
    """`source` with the dtypes of the batched arrays `like`: new arrays, or written into these.

    Raises:
        RllabError: it is not nested as these are, or its arrays have other shapes.
    """
    if isinstance(like, dict):
        return {key: copy_batch(source[key], part, into) for key, part in like.items()}
    if isinstance(like, tuple):
        return tuple(copy_batch(one, part, into) for one, part in zip(source, like, strict=True))
    array = np.asarray(source)
    if array.shape != like.shape:
        raise RllabError(f"The environments take actions of shape {list(like.shape)}, not {list(array.shape)}.")
    if into:
        like[...] = array
        return like
    return array.astype(like.dtype)


def iterate_rows(batch: Nested) -> Iterator[Any]:
    """The rows of batched arrays one after another, nested as these are; scalars as NumPy scalars."""
    if isinstance(batch, dict):
        parts = [iterate_rows(part) for part in batch.values()]
        return (dict(zip(batch, row, strict=True)) for row in zip(*parts, strict=True))
    if isinstance(batch, tuple):
        return zip(*(iterate_rows(part) for part in batch), strict=True)
    return iter(batch)


def row_writer(batch: Nested, name: str = "an observation") -> Write:
    """A function that checks a value by Gymnasium's own rule and writes it into a row of batched arrays.

    The rule: exactly the shape of the space, and a dtype that `numpy.can_cast` casts to it without loss. Plain Python
    numbers and lists are converted first.
    """
    if isinstance(batch, dict):
        return _dict_writer({key: row_writer(part, f"{name}['{key}']") for key, part in batch.items()}, name)
    if isinstance(batch, tuple):
        return _tuple_writer([row_writer(part, f"{name}[{index}]") for index, part in enumerate(batch)], name)
    if batch.dtype == object:
        return lambda row, value: batch.__setitem__(row, value)
    return _array_writer(batch, name)


def _array_writer(batch: NDArray[Any], name: str) -> Write:
    dtype, shape, scalar = batch.dtype, batch.shape[1:], batch.dtype.type
    # What nearly every value is; anything else takes the longer way round.
    usual: Any = np.ndarray if shape else scalar

    def write(row: int, value: Any) -> None:
        if type(value) is not usual or value.dtype is not dtype or value.shape != shape:
            value = _checked(value, dtype, shape, name)
        batch[row] = value

    return write


def _dict_writer(parts: dict[str, Write], name: str) -> Write:
    def write(row: int, value: Any) -> None:
        if not isinstance(value, Mapping) or value.keys() != parts.keys():
            came = f"keys {sorted(map(str, value))}" if isinstance(value, Mapping) else describe_value(value)
            raise WrongReturnError(f"returned {name} with {came} where keys {sorted(parts)} are expected")
        for key, part in parts.items():
            part(row, value[key])

    return write


def _tuple_writer(parts: list[Write], name: str) -> Write:
    def write(row: int, value: Any) -> None:
        if not isinstance(value, tuple | list) or len(value) != len(parts):
            came = f"{len(value)} parts" if isinstance(value, tuple | list) else describe_value(value)
            raise WrongReturnError(f"returned {name} with {came} where {len(parts)} parts are expected")
        for part, item in zip(parts, value, strict=True):
            part(row, item)

    return write


def _checked(value: Any, dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> Any:
    """The value as an array that may be written, or the sentence."""
    try:
        array = np.asarray(value)
        if isinstance(value, np.ndarray | np.generic):
            fits = np.can_cast(array.dtype, dtype)
        else:
            fits = array.dtype.kind in _TAKES[dtype.kind]
            array = np.asarray(value, dtype) if fits else array
    except (ValueError, TypeError, OverflowError):  # ragged lists, numbers that the dtype cannot hold
        raise WrongReturnError(f"returned {name} that is no array of {dtype}: {describe_value(value)}") from None
    if not fits or array.shape != shape:
        raise WrongReturnError(
            f"returned {name} of shape {list(array.shape)} and dtype {array.dtype} where shape {list(shape)} and dtype "
            f"{dtype} are expected"
        )
    return array


def describe_value(value: Any) -> str:
    """A value's type and the beginning of its text, for errors."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
