"""State trees come back from disk exactly as they went."""

import json
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from envs.errors import RllabError
from rllab.state import load_state, save_state

NUMPY_TYPES = [*"?bhilBHILefd", "complex64"]
TORCH_TYPES = [torch.float64, torch.bfloat16, torch.float16, torch.uint8, torch.int64, torch.bool]

arrays = st.sampled_from(NUMPY_TYPES).flatmap(
    lambda dtype: st_numpy.arrays(dtype, st_numpy.array_shapes(min_dims=0, min_side=0, max_side=3))
)
tensors = st.tuples(st.sampled_from(TORCH_TYPES), st.lists(st.integers(0, 3), max_size=3)).map(
    lambda drawn: torch.arange(int(np.prod(drawn[1]))).reshape(drawn[1]).to(drawn[0])
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(2**64, 2**128), st.floats(), st.text(max_size=5)
)
keys = st.one_of(st.text(max_size=4), st.sampled_from(["", "/", "a/b", "~", "$tensor", "__metadata__"]))
values = st.recursive(
    st.one_of(scalars, arrays, tensors),
    lambda children: st.one_of(
        st.lists(children, max_size=3),
        st.lists(children, max_size=3).map(tuple),
        st.dictionaries(st.one_of(keys, st.integers(0, 3)), children, max_size=3),
    ),
    max_leaves=12,
)


def assert_identical(saved: Any, loaded: Any) -> None:
    """Same types, dtypes, shapes and bits throughout."""
    assert type(saved) is type(loaded)
    if isinstance(saved, dict):
        assert list(saved) == list(loaded)
        for key in saved:
            assert_identical(saved[key], loaded[key])
    elif isinstance(saved, list | tuple):
        assert len(saved) == len(loaded)
        for one, other in zip(saved, loaded, strict=True):
            assert_identical(one, other)
    elif isinstance(saved, torch.Tensor):
        assert (saved.dtype, saved.shape) == (loaded.dtype, loaded.shape)
        saved, loaded = (tensor.flatten().view(torch.uint8) for tensor in (saved, loaded))
        assert torch.equal(saved, loaded)
    elif isinstance(saved, np.ndarray | np.generic):
        assert (saved.dtype, saved.shape, saved.tobytes()) == (loaded.dtype, loaded.shape, loaded.tobytes())
    elif isinstance(saved, float):
        assert struct.pack(">d", saved) == struct.pack(">d", loaded)
    else:
        assert saved == loaded


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(keys, values, max_size=4))
def test_any_tree_round_trips_bit_for_bit(tree: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save_state(Path(folder), tree)
        assert_identical(tree, load_state(Path(folder)))


def test_arrays_lie_under_slash_joined_keys_and_the_rest_is_valid_json(tmp_path: Path) -> None:
    from safetensors import safe_open

    save_state(tmp_path, {"policy": {"weights": torch.ones(2)}, "moments": [np.zeros(1)], "best": float("-inf")})
    with safe_open(tmp_path / "arrays.safetensors", "pt") as file:
        assert set(file.keys()) == {"policy/weights", "moments/0"}
    json.loads((tmp_path / "state.json").read_text(), parse_constant=pytest.fail)


def test_a_restored_generator_continues_the_same_stream(tmp_path: Path) -> None:
    for bit_generator in (np.random.PCG64, np.random.MT19937, np.random.Philox):
        generator = np.random.Generator(bit_generator(3))
        generator.standard_normal(7)
        save_state(tmp_path, {"generator": generator.bit_generator.state})
        expected = generator.standard_normal(5)
        restored = np.random.Generator(bit_generator())
        restored.bit_generator.state = load_state(tmp_path)["generator"]
        assert np.array_equal(restored.standard_normal(5), expected)


def test_views_of_one_buffer_are_saved_by_value(tmp_path: Path) -> None:
    buffer = torch.arange(6.0)
    array = np.arange(4.0)
    tree = {"first": buffer[:3], "turned": buffer.view(2, 3).T, "twice": [array, array[::-1]], "again": buffer}
    save_state(tmp_path, tree)
    assert_identical(tree, load_state(tmp_path))


def test_the_state_of_a_torch_optimiser_round_trips(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimiser = torch.optim.Adam([weight], lr=0.1)
    weight.grad = torch.ones(3)
    optimiser.step()
    save_state(tmp_path, {"optimiser": optimiser.state_dict(), "weight": weight})
    loaded = load_state(tmp_path)
    assert_identical(optimiser.state_dict(), loaded["optimiser"])
    assert not loaded["weight"].requires_grad
    assert torch.equal(loaded["weight"], weight)


def test_changing_a_loaded_array_leaves_the_file_alone(tmp_path: Path) -> None:
    save_state(tmp_path, {"array": np.zeros(3), "tensor": torch.zeros(3)})
    loaded = load_state(tmp_path)
    loaded["array"] += 1
    loaded["tensor"] += 1
    assert_identical({"array": np.zeros(3), "tensor": torch.zeros(3)}, load_state(tmp_path))


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1.5: 0},
        {True: 0},
        np.array(["text"]),
        np.array([None]),
        np.zeros(1, ">f8"),
        torch.eye(2).to_sparse(),
        torch.zeros(1, dtype=torch.complex128),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_cannot_be_saved_is_named_by_its_place(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match="outer/inner"):
        save_state(tmp_path, {"outer": {"inner": value}})


@pytest.mark.parametrize("name", ["arrays.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "garbled"])
def test_damaged_files_are_one_sentence(tmp_path: Path, name: str, damage: str) -> None:
    save_state(tmp_path, {"array": np.arange(100.0), "text": "x" * 100})
    path = tmp_path / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"\xff" * len(content))
    with pytest.raises(RllabError, match="missing or damaged"):
        load_state(tmp_path)


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"format": 99, "tree": {}}')
    with pytest.raises(RllabError, match="format 99"):
        load_state(tmp_path)
