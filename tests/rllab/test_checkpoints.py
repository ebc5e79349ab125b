"""Checkpoints survive kills, full disks and damage, and old ones make room."""

import errno
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.errors import RllabError
from rllab.checkpoints import Checkpoints, CheckpointWarning


def state(step: int) -> dict[str, Any]:
    return {"step": step, "weights": np.full(1000, float(step))}


def saved(folder: Path, *steps: int, keep: int = 0) -> Checkpoints:
    checkpoints = Checkpoints(folder / "checkpoints", keep=keep)
    for step in steps:
        checkpoints.save(step, state(step))
    return checkpoints


def assert_loads(checkpoints: Checkpoints, wanted: Any, expected: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step, tree = checkpoints.load(wanted)
    assert step == tree["step"] == expected
    assert np.array_equal(tree["weights"], state(expected)["weights"])


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "arrays truncated": lambda folder: truncate(folder / "arrays.safetensors"),
    "arrays changed": lambda folder: flip_a_bit(folder / "arrays.safetensors"),
    "arrays missing": lambda folder: (folder / "arrays.safetensors").unlink(),
    "state truncated": lambda folder: truncate(folder / "state.json"),
    "manifest truncated": lambda folder: truncate(folder / "manifest.json"),
    "manifest missing": lambda folder: (folder / "manifest.json").unlink(),
    "manifest of another shape": lambda folder: (folder / "manifest.json").write_text("[]"),
}


def test_a_saved_state_is_loaded_by_step_latest_and_best(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 100)
    assert checkpoints.save(200, state(200), best=True) == tmp_path / "checkpoints" / "200"
    checkpoints.save(1000, state(1000))
    assert checkpoints.steps() == [100, 200, 1000]
    assert (checkpoints.latest(), checkpoints.best()) == (1000, 200)
    assert_loads(checkpoints, 100, 100)
    assert_loads(checkpoints, "latest", 1000)
    assert_loads(checkpoints, "best", 200)


def test_metadata_lies_beside_the_state(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, state(5), metadata={"return_mean": 475.0})
    assert checkpoints.metadata(5) == {"return_mean": 475.0}


def test_only_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(1, 7):
        checkpoints.save(step, state(step), best=step in (1, 2))
    assert checkpoints.steps() == [2, 5, 6]


def test_keeping_none_back_keeps_all(tmp_path: Path) -> None:
    assert saved(tmp_path, *range(1, 7), keep=0).steps() == list(range(1, 7))


def test_a_negative_number_to_keep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RllabError, match="-1"):
        Checkpoints(tmp_path, keep=-1)


def test_the_checkpoint_just_saved_is_never_pruned(tmp_path: Path) -> None:
    # A run that fell back to 200 because 300 is damaged reaches 250 first.
    checkpoints = saved(tmp_path, 200, 300, keep=1)
    checkpoints.save(250, state(250))
    assert_loads(checkpoints, 250, 250)


@pytest.mark.parametrize("index", [None, "{", "[]", '{"best": 77}'])
def test_the_best_is_found_again_without_a_good_index(tmp_path: Path, index: str | None) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(step, state(step), best=step == 2)
    (tmp_path / "index.json").unlink()
    if index is not None:
        (tmp_path / "index.json").write_text(index)
    assert checkpoints.best() == 2


def test_a_best_checkpoint_replaced_by_a_worse_state_is_no_longer_the_best(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(1), best=True)
    checkpoints.save(2, state(2), best=True)
    checkpoints.save(2, state(2), best=False)
    assert checkpoints.best() == 1


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    checkpoints.save(2, {"other": True})
    assert checkpoints.load(2) == (2, {"other": True})
    assert checkpoints.steps() == [1, 2]


def test_an_empty_folder_has_nothing_to_load(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert (checkpoints.steps(), checkpoints.latest(), checkpoints.best()) == ([], None, None)
    for wanted in ("latest", "best"):
        with pytest.raises(RllabError, match="No checkpoint"):
            checkpoints.load(wanted)


def test_without_a_best_one_the_latest_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(RllabError, match="'latest'"):
        saved(tmp_path, 1).load("best")


def test_an_absent_step_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(RllabError, match=r"step 3 .*: 1, 2"):
        saved(tmp_path, 1, 2).load(3)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_previous_one(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    checkpoints = saved(tmp_path, 1, 2, 3)
    damage(checkpoints.folder / "3")
    with pytest.warns(CheckpointWarning, match=r"step 3 is damaged.*Step 2 is used"):
        step, tree = checkpoints.load("latest")
    assert step == tree["step"] == 2
    with pytest.raises(RllabError, match="step 3 is damaged"):
        checkpoints.load(3)


def test_the_best_falls_back_to_an_earlier_one_before_a_later_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=0)
    for step in (1, 2, 3, 4):
        checkpoints.save(step, state(step), best=step == 2)
    flip_a_bit(tmp_path / "2" / "state.json")
    with pytest.warns(CheckpointWarning):
        assert checkpoints.load("best")[0] == 1
    shutil.rmtree(tmp_path / "1")
    with pytest.warns(CheckpointWarning):
        assert checkpoints.load("best")[0] == 4


def test_no_good_checkpoint_is_an_error(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    for step in ("1", "2"):
        truncate(checkpoints.folder / step / "arrays.safetensors")
    with pytest.raises(RllabError, match="nothing to go on from"):
        checkpoints.load("latest")


@pytest.mark.parametrize("failing_call", range(8))
def test_a_full_disk_leaves_the_earlier_checkpoints_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_call: int
) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    calls, synchronise = [], os.fsync

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > failing_call:
            raise OSError(errno.ENOSPC, "No space left on device")
        synchronise(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RllabError, match="disk is full"):
        checkpoints.save(3, state(3), best=True)
    monkeypatch.undo()
    assert {path.name for path in checkpoints.folder.iterdir()} <= {"1", "2", "index.json"}
    assert_loads(checkpoints, "latest", 2)
    assert checkpoints.best() is None
    checkpoints.save(3, state(3), best=True)
    assert_loads(checkpoints, "best", 3)


def test_a_write_refused_inside_safetensors_is_explained(tmp_path: Path) -> None:
    # A limit on file sizes stands in for a full disk: the refusal comes from the system, out of native code.
    script = f"""
import resource, numpy
from rllab.checkpoints import Checkpoints
checkpoints = Checkpoints({str(tmp_path)!r})
checkpoints.save(1, {{"weights": numpy.zeros(10)}})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoints.save(2, {{"weights": numpy.zeros(1_000_000)}})
except Exception as error:
    print(type(error).__name__, error)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("RllabError")
    assert "could not be written" in result.stdout
    assert Checkpoints(tmp_path).load("latest")[0] == 1


@pytest.mark.parametrize("replacing", [False, True], ids=["a new step", "a step saved before"])
def test_a_process_killed_anywhere_while_saving_loses_nothing(tmp_path: Path, replacing: bool) -> None:
    step = 2 if replacing else 3
    survived = False
    for deadly_call in range(100):
        folder = tmp_path / str(deadly_call)
        checkpoints = saved(folder, 1, 2)
        if survived := _save_in_a_child_that_dies(checkpoints, step, deadly_call):
            break
        assert_loads(checkpoints, 1, 1)
        assert_loads(checkpoints, "latest", checkpoints.steps()[-1])
        assert 2 in checkpoints.steps()
        # The next save tidies up.
        checkpoints.save(4, state(4))
        assert not list(checkpoints.folder.rglob(".*"))
        assert_loads(checkpoints, 2, 2)
        assert_loads(checkpoints, "latest", 4)
    assert survived
    assert deadly_call >= 10


def _save_in_a_child_that_dies(checkpoints: Checkpoints, step: int, deadly_call: int) -> bool:
    """Save in a forked process that ends without warning at its n-th change on disk; whether it got through."""
    child = os.fork()
    if child == 0:
        calls = []

        def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*arguments: Any, **named: Any) -> Any:
                calls.append(function)
                if len(calls) > deadly_call:
                    os._exit(9)
                return function(*arguments, **named)

            return wrapper

        for name in ("fsync", "rename", "replace", "mkdir", "rmdir", "unlink"):
            setattr(os, name, deadly(getattr(os, name)))
        try:
            checkpoints.save(step, state(step))
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 0


def test_listing_checkpoints_does_not_import_torch() -> None:
    script = "import sys, rllab.runs, rllab.checkpoints; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
