"""State trees on disk: safetensors for arrays, JSON for everything else, never pickle.

All state of a run (parameters, optimiser, normalisers, random generators, simulators) is one explicit
value, a tree; saving that value and loading it again gives it back bit for bit.
"""

import json
import math
import re
import struct
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import safetensors
import safetensors.torch
import torch

from envs.errors import RllabError
from rllab.files import synchronise, write_atomically

StateTree: TypeAlias = dict[str, Any]
"""A nested dict. Leaves are torch tensors, NumPy arrays and scalars, None, bool, int, float and str; lists
and tuples of leaves or of further dicts may stand anywhere. Keys are str (or int, as in the `state_dict`
of torch's optimisers)."""

ARRAYS_FILE = "arrays.safetensors"
STATE_FILE = "state.json"
_FORMAT = 1

# In the JSON, an object with exactly one key of these stands for a value that JSON has no word for.
_TENSOR, _ARRAY, _SCALAR, _FLOAT, _TUPLE, _DICT = "$tensor", "$array", "$scalar", "$float", "$tuple", "$dict"


def save_state(folder: Path, tree: StateTree) -> None:
    """Write `tree` into the existing `folder` as `arrays.safetensors` and `state.json`, both synced.

    Tensors are stored by value: devices, gradients and shared memory are not remembered, so that views
    into one buffer come back as separate tensors on the CPU. Raises OSError when the disk refuses and
    TypeError, naming the place in the tree, for a value of any other type.
    """
    arrays: dict[str, torch.Tensor] = {}
    document = {"format": _FORMAT, "tree": _encode(tree, (), arrays)}
    try:
        safetensors.torch.save_file(_separated(arrays), folder / ARRAYS_FILE)
    except safetensors.SafetensorError as error:
        # The library reports a full disk as text; give it back its type.
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(found[1]), str(error)) from error
        raise
    synchronise(folder / ARRAYS_FILE)
    write_atomically(folder / STATE_FILE, json.dumps(document, allow_nan=False).encode())


def load_state(folder: Path) -> StateTree:
    """Read back the tree that `save_state` wrote, tensors on the CPU.

    Raises RllabError when a file is missing, damaged, or of a later format.
    """
    try:
        document = json.loads((folder / STATE_FILE).read_bytes())
        if document["format"] != _FORMAT:
            raise RllabError(
                f"{folder / STATE_FILE} has format {document['format']}, but this rllab reads format "
                f"{_FORMAT}; load it with the version of rllab that wrote it."
            )
        arrays = safetensors.torch.load_file(folder / ARRAYS_FILE)
        tree: StateTree = _decode(document["tree"], arrays)
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise RllabError(f"The saved state in {folder} is missing or damaged ({error}).") from error
    return tree


def _encode(value: Any, path: tuple[str, ...], arrays: dict[str, torch.Tensor]) -> Any:
    """The JSON for `value`; its arrays go into `arrays` under names made of `path`."""
    # NumPy's float64 is also a float and bool an int: the order of these cases matters.
    if isinstance(value, torch.Tensor):
        return {_TENSOR: _store(value.detach(), path, arrays)}
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value, order="C")
        try:
            tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
        except (TypeError, ValueError) as error:
            raise TypeError(f"cannot save NumPy's {array.dtype} at {_place(path)}: {error}") from error
        return {_ARRAY if isinstance(value, np.ndarray) else _SCALAR: _store(tensor, path, arrays)}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        # Hexadecimal bits of what JSON cannot write, so that even the sign of a NaN survives.
        return value if math.isfinite(value) else {_FLOAT: struct.pack(">d", value).hex()}
    if isinstance(value, list):
        return [_encode(item, (*path, str(index)), arrays) for index, item in enumerate(value)]
    if isinstance(value, tuple):
        return {_TUPLE: [_encode(item, (*path, str(index)), arrays) for index, item in enumerate(value)]}
    if isinstance(value, dict):
        items = {key: _encode(item, (*path, _segment(key, path)), arrays) for key, item in value.items()}
        if all(isinstance(key, str) and not key.startswith("$") for key in items):
            return items
        return {_DICT: [[key, item] for key, item in items.items()]}
    raise TypeError(f"cannot save a {type(value).__name__} at {_place(path)}")


def _decode(value: Any, arrays: dict[str, torch.Tensor]) -> Any:
    """The inverse of `_encode`."""
    if isinstance(value, list):
        return [_decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1 or not (kind := next(iter(value))).startswith("$"):
        return {key: _decode(item, arrays) for key, item in value.items()}
    content = value[kind]
    if kind == _TENSOR:
        return arrays[content]
    if kind == _ARRAY:
        return arrays[content].numpy()
    if kind == _SCALAR:
        return arrays[content].numpy()[()]
    if kind == _FLOAT:
        return struct.unpack(">d", bytes.fromhex(content))[0]
    if kind == _TUPLE:
        return tuple(_decode(item, arrays) for item in content)
    if kind == _DICT:
        return {key: _decode(item, arrays) for key, item in content}
    raise ValueError(f"unknown kind of value {kind}")


def _store(tensor: torch.Tensor, path: tuple[str, ...], arrays: dict[str, torch.Tensor]) -> str:
    """Put a tensor among the arrays and return its name there."""
    if tensor.layout != torch.strided:
        raise TypeError(f"cannot save a tensor of layout {tensor.layout} at {_place(path)}")
    if tensor.dtype == torch.complex128:
        raise TypeError(f"cannot save complex128 at {_place(path)}: safetensors has no such type")
    name = "/".join(path)
    # The empty name and safetensors' own key need another; no path begins with "~" and ends like this.
    name = f"~{name}" if name in ("", "__metadata__") else name
    arrays[name] = tensor.resolve_conj().resolve_neg().cpu().contiguous()
    return name


def _separated(arrays: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, copied where they share memory, as weights in a flat buffer do: safetensors refuses those."""
    separated, seen = {}, set()
    for name, tensor in arrays.items():
        storage = tensor.untyped_storage()
        if storage.nbytes() != tensor.nbytes or storage.data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(storage.data_ptr())
        separated[name] = tensor
    return separated


def _segment(key: object, path: tuple[str, ...]) -> str:
    """One key as a part of a slash-joined name, escaped as in JSON Pointer (RFC 6901)."""
    if isinstance(key, str):
        return key.replace("~", "~0").replace("/", "~1")
    if isinstance(key, int) and not isinstance(key, bool):
        return f"~i{key}"
    raise TypeError(f"cannot save the key {key!r} at {_place(path)}: keys are strings or integers")


def _place(path: tuple[str, ...]) -> str:
    return "/".join(path) or "the root of the state"
