"""Plain data: what environments remember, as nested dicts of JSON values and NumPy arrays, and back.

Exact to the bit and to the type (a float32 scalar must not come back as a float64 one, nor a tuple as a
list), because the arithmetic that follows depends on both. Nothing is pickled.
"""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, cast

import numpy as np


class NotPlainError(Exception):
    """The value holds something that is not plain data: an object, a function, a handle into a library."""


def encode(value: Any) -> Any:
    """`value` as None, bool, int, float, str, a NumPy array, or a dict tagged with its `kind`.

    Takes numbers, strings, numeric arrays, NumPy scalars and generators, and lists, tuples, deques and
    string-keyed dicts of these.

    Raises:
        NotPlainError: it holds anything else, or the same array or container twice: restored, the two would
            be copies where they had been one.
    """
    return _encode(value, seen=[])


def decode(encoded: Any) -> Any:
    """The value that `encode` was given; arrays and containers are new."""
    if isinstance(encoded, np.ndarray):
        return encoded.copy()
    if not isinstance(encoded, dict):
        return encoded
    kind = encoded["kind"]
    if kind == "scalar":
        return encoded["value"][()]
    if kind == "text":
        return np.str_(encoded["value"])
    if kind == "float":
        return float(encoded["value"])
    if kind == "generator":
        return make_generator(encoded["state"])
    if kind == "dict":
        return {name: decode(item) for name, item in encoded["items"].items()}
    items = [decode(encoded["items"][str(index)]) for index in range(len(encoded["items"]))]
    if kind == "tuple":
        return tuple(items)
    return deque(items, encoded["maxlen"]) if kind == "deque" else items


def make_generator(state: Mapping[str, Any]) -> np.random.Generator:
    """The NumPy generator whose `bit_generator.state` is `state`."""
    bit_generator: np.random.BitGenerator = getattr(np.random, state["bit_generator"])()
    bit_generator.state = cast(Any, state)
    return np.random.Generator(bit_generator)


def identical(left: Any, right: Any) -> bool:
    """Whether two encoded values are equal to the bit (so NaN equals NaN, and 0.0 differs from −0.0)."""
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return (
            isinstance(left, np.ndarray)
            and isinstance(right, np.ndarray)
            and left.dtype == right.dtype
            and left.shape == right.shape
            and left.tobytes() == right.tobytes()
        )
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(identical(left[name], right[name]) for name in left)
    return type(left) is type(right) and bool(left == right)


def _encode(value: Any, seen: list[Any]) -> Any:
    if value is None or type(value) in (bool, str, int):
        return value
    if type(value) is np.str_:  # a kind of str, but no JSON value; Blackjack keeps one
        return {"kind": "text", "value": str(value)}
    if type(value) is float:
        # JSON has no word for infinities and NaN.
        return value if math.isfinite(value) else {"kind": "float", "value": np.array(value)}
    if isinstance(value, np.generic) and _is_numeric(value.dtype):
        return {"kind": "scalar", "value": np.array(value)}
    if type(value) is np.ndarray and _is_numeric(value.dtype):
        if any(isinstance(other, np.ndarray) and np.may_share_memory(value, other) for other in seen):
            raise NotPlainError("two names for one array")
        seen.append(value)
        return value.copy()
    if not isinstance(value, np.random.Generator) and type(value) not in (list, tuple, deque, dict):
        raise NotPlainError(f"a {type(value).__name__}")
    if not isinstance(value, tuple):
        if any(other is value for other in seen):
            raise NotPlainError("two names for one container")
        seen.append(value)
    if isinstance(value, np.random.Generator):
        return {"kind": "generator", "state": value.bit_generator.state}
    if isinstance(value, dict):
        if not all(isinstance(name, str) for name in value):
            raise NotPlainError("a dict whose keys are not strings")
        return {"kind": "dict", "items": {name: _encode(item, seen) for name, item in value.items()}}
    encoded: dict[str, Any] = {
        "kind": type(value).__name__,
        "items": {str(index): _encode(item, seen) for index, item in enumerate(value)},
    }
    if isinstance(value, deque):
        encoded["maxlen"] = value.maxlen
    return encoded


def _is_numeric(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biuf" and dtype.itemsize <= 8
