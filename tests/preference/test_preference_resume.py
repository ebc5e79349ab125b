"""Learning from preferences is reproducible, survives its process's death to the bit, and a store that fails for a while."""

import os
import shutil
import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learning_runs import SETTINGS, configuration, start
from training_processes import differences, rows_of

from preference import desk
from preference.experiment import STORE_FILE, learn, resume
from preference.store import Store
from rllab.callbacks import Callback
from rllab.runs import Run
from rllab.train import Training

ENV = "Pendulum-v1"


def without_times(state: Any) -> Any:
    """A state tree without the times of day at which clips were made."""
    if isinstance(state, dict):
        return {name: without_times(value) for name, value in state.items() if name != "created"}
    return [without_times(item) for item in state] if isinstance(state, list) else state


def require_equal(left: Path, right: Path) -> None:
    """Both ended in the same state, wrote the same rows, and have asked and heard the same."""
    (left_step, left_state), (right_step, right_state) = (Run.open(run).checkpoints.load() for run in (left, right))
    assert left_step == right_step
    assert differences(without_times(left_state), without_times(right_state)) == []
    assert rows_of(left) == rows_of(right)
    records = []
    for run in (left, right):
        with Store.open(run / STORE_FILE) as store:
            records.append([(item.pair.id, item.answer.id, item.answer.label) for item in store.comparisons().added])
    assert records[0] == records[1]


def learn_with_id(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    """A run with an id that others have too, so that clips and pairs get the same ids."""
    monkeypatch.setattr("preference.experiment.uuid.uuid4", lambda: "6f2f4a9e-7d9e-4d8f-9d8b-0f4a5a3c2b1d")
    learn("ppo", ENV, configuration("mistake"), out=folder, **{**SETTINGS, "steps": 1_500, **settings})


def test_the_same_seed_gives_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        learn_with_id(tmp_path / name, monkeypatch)
    require_equal(tmp_path / "first", tmp_path / "second")
    rows = rows_of(tmp_path / "first")
    assert rows[-1]["reward/labels"] == 24
    assert sum("reward/fits" in row for row in rows) > 5
    learn_with_id(tmp_path / "other", monkeypatch, seed=1)
    assert rows_of(tmp_path / "other") != rows


def test_going_on_from_any_checkpoint_ends_in_the_same_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    learn_with_id(run, monkeypatch, steps=700, checkpoint_every=1, keep_checkpoints=0)
    straight = tmp_path / "straight"
    shutil.copytree(run, straight)
    checkpoints = Run.open(run).checkpoints
    moments = checkpoints.steps()
    for step in (moments[0], moments[1], moments[len(moments) // 2]):
        for later in checkpoints.steps():
            if later > step:
                shutil.rmtree(run / "checkpoints" / str(later))
        resume(run, quiet=True)
        require_equal(straight, run)


def test_a_run_killed_again_and_again_equals_one_that_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"steps": 4_000, "checkpoint_every": 400}
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    preference = configuration("mistake", labels=60)
    kills = 0
    for moment in np.random.default_rng(0).uniform(0.1, 0.6, 3):
        process = start(killed, ENV, preference, settings)
        deadline = time.monotonic() + 60
        while not (killed / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.join(moment)
        if process.exitcode is None:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
    process = start(killed, ENV, preference, settings)
    process.join(120)
    assert process.exitcode == 0
    assert kills >= 2
    monkeypatch.setattr("preference.experiment.uuid.uuid4", lambda: Run.open(killed).config["run_id"])
    learn("ppo", ENV, preference, out=straight, **{**SETTINGS, **settings})
    require_equal(straight, killed)


class Trouble(Callback):
    """Makes the store unusable after some updates, for a second, and remembers what was said."""

    def __init__(self, begin: Any, end: Any) -> None:
        self.begin, self.end = begin, end
        self.notes: list[str] = []
        self.rows = 0

    def before_run(self, training: Training) -> None:
        training.note = self.notes.append  # type: ignore[method-assign]

    def after_update(self, training: Training, rollout: Any, metrics: Any) -> None:
        if training.updates == 5:
            self.begin()
            threading.Timer(0.3, self.end).start()


@pytest.mark.parametrize("trouble", ["locked", "gone"])
def test_a_store_that_fails_in_mid_run_makes_training_pause_and_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(desk, "RETRY_SECONDS", 0.05)
    opened = Store.open
    monkeypatch.setattr(Store, "open", lambda *given, **named: opened(*given, **{**named, "timeout": 0.05}))
    run, straight = tmp_path / "run", tmp_path / "straight"
    path, elsewhere = run / STORE_FILE, tmp_path / "elsewhere"
    other: list[sqlite3.Connection] = []

    def begin() -> None:
        if trouble == "gone":
            path.rename(elsewhere)
        else:
            other.append(sqlite3.connect(path, isolation_level=None, check_same_thread=False))
            other[0].execute("BEGIN IMMEDIATE")

    def end() -> None:
        if trouble == "gone":
            elsewhere.rename(path)
        else:
            other[0].execute("ROLLBACK")
            other[0].close()

    callback = Trouble(begin, end)
    monkeypatch.setattr("preference.experiment.uuid.uuid4", lambda: "6f2f4a9e-7d9e-4d8f-9d8b-0f4a5a3c2b1d")
    learn("ppo", ENV, configuration(), out=run, callbacks=[callback], **{**SETTINGS, "steps": 1_500})
    said = [note for note in callback.notes if "store" in note]
    assert len(said) == 2
    assert said[0].startswith("paused: The store")
    assert said[1] == "the store of comparisons is there again; going on"
    learn("ppo", ENV, configuration(), out=straight, callbacks=[Callback()], **{**SETTINGS, "steps": 1_500})
    require_equal(straight, run)
