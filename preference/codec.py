"""Arrays and JSON as bytes and text: compressed safetensors for what is stored, base64 for what is read by people.

Never pickle: nothing that is read here can run code.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from envs.errors import RllabError

LARGEST_CLIP = 2**30
"""Bytes that the arrays of one clip may have: a damaged or malicious file must not fill the memory."""
_LEVEL = 1  # of zlib: on frames and on floats the higher levels cost several times as much for a few per cent


def encode_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Named arrays as zlib-compressed safetensors.

    Raises:
        RllabError: an array has a type that safetensors does not know (objects, strings, dates).
    """
    try:
        # safetensors writes the memory as it lies: an array that is a transposed or strided view must be copied.
        content = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    except (safetensors.SafetensorError, TypeError, ValueError) as error:
        raise RllabError(f"Arrays must be of numbers ({str(error).splitlines()[0]}).") from error
    return zlib.compress(content, _LEVEL)


def decode_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """The inverse of `encode_arrays`.

    Raises:
        RllabError: `data` is something else, or damaged.
    """
    try:
        return safetensors.numpy.load(_decompressed(data))
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise RllabError(f"The arrays are damaged ({str(error).splitlines()[0]}).") from error


def array_to_json(array: NDArray[Any]) -> dict[str, Any]:
    """An array as a JSON object: `dtype`, `shape`, and its bytes in C order as `zlib_base64`."""
    content = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), _LEVEL)).decode()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "zlib_base64": content}


def array_from_json(document: Any) -> NDArray[Any]:
    """The inverse of `array_to_json`; nested lists under `values` are taken as well, for files made by hand.

    Raises:
        RllabError: it is not an array of numbers, or its bytes do not fit its shape.
    """
    if not isinstance(document, dict) or "dtype" not in document:
        raise RllabError("an array is an object with `dtype`, `shape` and `zlib_base64`, or with `dtype` and `values`")
    try:
        dtype = np.dtype(document["dtype"])
        if dtype.kind not in "biufc":
            raise RllabError(f"{dtype} is not a type of numbers")
        if "values" in document:
            return np.asarray(document["values"], dtype)
        shape = tuple(int(length) for length in document["shape"])
        content = _decompressed(base64.b64decode(document["zlib_base64"], validate=True))
        return np.frombuffer(content, dtype).reshape(shape).copy()
    except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as error:
        raise RllabError(f"an array is damaged ({str(error) or type(error).__name__})") from error


def dump_json(value: Any) -> str:
    """JSON text in ASCII; NumPy's numbers and arrays become numbers and lists.

    Raises:
        RllabError: something in it has no JSON, such as an infinite number.
    """
    try:
        return json.dumps(value, ensure_ascii=True, allow_nan=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise RllabError(f"It cannot be written as JSON ({error}).") from error


def load_json(text: str | bytes) -> Any:
    """The value of JSON text.

    Raises:
        RllabError: it is not JSON; NaN and infinities are not.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RllabError(f"it is not JSON ({error})") from error


def _decompressed(data: bytes) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, LARGEST_CLIP)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not stream.eof or stream.unused_data:
        raise ValueError("the compressed bytes are cut short or too long")
    return content


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} is not JSON")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
