"""A run's folder says everything, belongs to one process, and is hard to lose."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from envs.errors import RllabError
from rllab.runs import Run, default_folder, find_runs

CONFIG = {"env": "CartPole-v1", "agent": {"name": "ppo", "learning_rate": 3e-4, "target_kl": None}}


def make_run(folder: Path) -> Path:
    Run.create(folder, CONFIG).close()
    return folder


def test_a_created_run_opens_with_the_same_configuration(tmp_path: Path) -> None:
    with Run.create(tmp_path / "deep" / "run", CONFIG) as created:
        assert created.config == CONFIG
    opened = Run.open(tmp_path / "deep" / "run")
    assert opened.config == CONFIG
    assert opened.provenance == created.provenance
    assert opened.path == tmp_path / "deep" / "run"
    assert opened.videos.is_dir()


def test_the_configuration_says_where_the_run_comes_from(tmp_path: Path) -> None:
    make_run(tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    assert document["env"] == "CartPole-v1"
    assert document["provenance"]["command"] == sys.argv
    assert document["provenance"]["versions"]["numpy"] == np.__version__
    assert document["provenance"].keys() == {"created", "versions", "command", "git_commit"}


def test_a_reserved_key_in_the_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="provenance"):
        Run.create(tmp_path, {"provenance": 1})


def test_a_run_is_not_made_over_another(tmp_path: Path) -> None:
    make_run(tmp_path)
    with pytest.raises(RllabError, match=r"already holds a run.*rllab resume .*--out"):
        Run.create(tmp_path, {})
    assert Run.open(tmp_path).config == CONFIG


def test_a_run_is_not_made_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(RllabError, match=r"not a run.*--out"):
            Run.create(tmp_path, CONFIG, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_files_of_another_program_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(RllabError, match="not written by rllab"):
        Run.create(tmp_path, CONFIG, overwrite=True)
    assert (tmp_path / "checkpoints").is_dir()


def test_a_run_is_not_made_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RllabError, match="is a file"):
        Run.create(tmp_path / "run", CONFIG)


def test_overwriting_deletes_what_the_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    with Run.create(tmp_path, CONFIG) as run:
        run.checkpoints.save(1, {"step": 1})
        (run.videos / "policy.mp4").write_bytes(b"")
        for name in ("metrics.jsonl", "events.out.tfevents.1.host", "notes.txt"):
            (tmp_path / name).write_text("")
    with Run.create(tmp_path, {"new": True}, overwrite=True) as run:
        assert run.checkpoints.steps() == []
        assert list(run.videos.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == {
        "config.json",
        "checkpoints",
        "videos",
        "notes.txt",
    }
    assert Run.open(tmp_path).config == {"new": True}


def test_a_folder_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RllabError, match="could not be written"):
        Run.create(tmp_path / "file" / "run", CONFIG)


def test_a_locked_run_is_refused_until_it_is_closed(tmp_path: Path) -> None:
    with Run.create(tmp_path, CONFIG):
        with pytest.raises(RllabError, match="in use by another process"):
            Run.open(tmp_path, lock=True)
        with pytest.raises(RllabError, match="in use by another process"):
            Run.create(tmp_path, CONFIG, overwrite=True)
        Run.open(tmp_path)
    with Run.open(tmp_path, lock=True):
        pass


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of the run in `tmp_path`."""
    script = (
        "import sys; from rllab.runs import Run; run = Run.open(sys.argv[1], lock=True); print(flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    make_run(tmp_path)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path, other_process: subprocess.Popen[str]) -> None:
    with pytest.raises(RllabError, match="in use by another process"):
        Run.open(tmp_path, lock=True)
    other_process.kill()
    other_process.wait()
    Run.open(tmp_path, lock=True).close()


def test_a_folder_that_is_no_run_says_what_may_have_been_meant(tmp_path: Path) -> None:
    run = make_run(tmp_path / "CartPole-v1-ppo")
    with pytest.raises(RllabError, match="holds CartPole-v1-ppo: name one of these"):
        Run.open(tmp_path)
    with pytest.raises(RllabError, match=f"inside the run {run}"):
        Run.open(run / "checkpoints")
    with pytest.raises(RllabError, match=f"did you mean {run}"):
        Run.open(tmp_path / "CartPole-v1-pp0")
    with pytest.raises(RllabError, match="no such folder"):
        Run.open(tmp_path / "nothing" / "alike")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RllabError, match=r"no config\.json"):
        Run.open(tmp_path / "empty")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"env": 1}'])
def test_a_damaged_configuration_is_explained(tmp_path: Path, content: str) -> None:
    make_run(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RllabError, match="is damaged"):
        Run.open(tmp_path)


def test_the_parent_of_seeds_stands_for_its_runs_in_natural_order(tmp_path: Path) -> None:
    seeds = [make_run(tmp_path / "ppo" / f"seed-{seed}") for seed in (0, 1, 2, 10)]
    (tmp_path / "ppo" / "plots").mkdir()
    single = make_run(tmp_path / "trpo")
    assert find_runs([tmp_path / "ppo", single, seeds[2]]) == [*seeds, single]


def test_a_path_without_runs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RllabError, match="holds none"):
        find_runs([tmp_path / "empty"])


@pytest.mark.parametrize(
    ("env_id", "name"),
    [
        ("CartPole-v1", "CartPole-v1-ppo-s1-"),
        ("ALE/Pong-v5", "ALE-Pong-v5-ppo-s1-"),
        ("package.module:Name-v0", "package.module-Name-v0-ppo-s1-"),
    ],
)
def test_default_folders_are_named_after_the_run_and_never_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env_id: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda _: "20260101-120000")
    folders = []
    for _ in range(3):
        folders.append(default_folder(env_id, "ppo", 1))
        folders[-1].mkdir(parents=True)
    assert [str(folder) for folder in folders] == [
        os.path.join("runs", f"{name}20260101-120000{suffix}") for suffix in ("", "-2", "-3")
    ]
