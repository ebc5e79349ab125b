"""A run: a folder that says everything about one training.

runs/CartPole-v1-ppo-s1-20260101-120000/
  config.json     the complete configuration, and where it comes from (versions, command, commit)
  metrics.jsonl   one row an update (see `rllab.metrics`); TensorBoard's events beside it
  checkpoints/    what a resumed run starts from (see `rllab.checkpoints`)
  videos/
"""

import contextlib
import difflib
import importlib.metadata
import json
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from envs.errors import RllabError
from rllab.checkpoints import Checkpoints
from rllab.files import explained_write_errors, write_atomically
from rllab.launched import TOGETHER
from rllab.metrics import METRICS_FILE, read_metrics

CONFIG_FILE = "config.json"
_LOCK_FILE = ".lock"
_PROVENANCE = "provenance"


class Run:
    """A run's folder, made with `Run.create` or `Run.open`.

    Attributes:
        path: the folder.
        config: the configuration given to `create`.
        provenance: when, with which versions, by which command and from which commit it was created.
        checkpoints: the run's checkpoints.

    A run that may write holds a lock until `close`, or until its process ends in any way.
    """

    def __init__(self, path: Path, config: dict[str, Any], provenance: dict[str, Any], lock: FileLock | None) -> None:
        self.path = path
        self.config = config
        self.provenance = provenance
        self.checkpoints = Checkpoints(path / "checkpoints")
        self._lock = lock

    @classmethod
    def create(cls, folder: Path | str, config: Mapping[str, Any], overwrite: bool = False) -> Self:
        """Make a new run in `folder`, and lock it.

        The folder may exist if it is empty. With `overwrite`, the files of a run that is there are deleted
        first (and nothing else). Raises RllabError when the folder holds a run or anything else, when
        another process uses it, or when it cannot be written.
        """
        _refuse_followers()
        path = Path(folder)
        if _PROVENANCE in config:
            raise ValueError(f"the configuration's key {_PROVENANCE!r} is reserved")
        _refuse_occupied(path, overwrite)
        with explained_write_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            lock = _acquire_lock(path)
            try:
                # Again under the lock: another process may have made its run since.
                _refuse_occupied(path, overwrite)
                if overwrite:
                    _delete_run_files(path)
                provenance = _provenance()
                document = {**config, _PROVENANCE: provenance}
                # First of all, so that a process killed now leaves a run and not an unknown folder.
                write_atomically(path / CONFIG_FILE, json.dumps(document, indent=2).encode() + b"\n")
                for name in ("checkpoints", "videos"):
                    (path / name).mkdir(exist_ok=True)
            except BaseException:
                lock.release()
                raise
        return cls(path, dict(config), provenance, lock)

    @classmethod
    def open(cls, folder: Path | str, lock: bool = False) -> Self:
        """Open a run that exists; `lock` it to write, as resuming does.

        Raises RllabError when the folder is not a run (naming the nearest that are), when its
        configuration is damaged, or when it is to be locked and another process uses it.
        """
        path = Path(folder)
        if not is_run(path):
            raise RllabError(f"{path} is not a run{_hint(path)}.")
        if lock:
            _refuse_followers()
        config = _read_config(path)
        provenance = config.pop(_PROVENANCE)
        with explained_write_errors(path):
            return cls(path, config, provenance, _acquire_lock(path) if lock else None)

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Write a changed configuration, such as a new number of steps, beside the old provenance."""
        document = {**config, _PROVENANCE: self.provenance}
        with explained_write_errors(self.path):
            write_atomically(self.path / CONFIG_FILE, json.dumps(document, indent=2).encode() + b"\n")
        self.config = dict(config)

    def discard(self) -> None:
        """Delete the run's files, and its folder if nothing else is in it; for a run that failed before it began."""
        _delete_run_files(self.path)
        self.close()
        (self.path / _LOCK_FILE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # other files are in it
            self.path.rmdir()

    def stop_reason(self) -> str | None:
        """Why training ended before its configured steps, as the latest checkpoint says; None if it did not."""
        latest = self.checkpoints.latest()
        try:
            reason: str | None = None if latest is None else self.checkpoints.metadata(latest).get("stop_reason")
        except RllabError:  # a damaged checkpoint, which loading tells about
            return None
        return reason

    @property
    def videos(self) -> Path:
        """The folder of the run's videos."""
        return self.path / "videos"

    def read_metrics(self) -> list[dict[str, float]]:
        """The rows written so far; numbers that were not finite are NaN, a line cut short is left out.

        Raises RllabError when the file is missing or damaged elsewhere.
        """
        return read_metrics(self.path / METRICS_FILE)

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_run(path: Path) -> bool:
    """Whether a folder is a run's."""
    return (path / CONFIG_FILE).is_file()


def find_runs(paths: Iterable[Path | str]) -> list[Path]:
    """The runs that `paths` name: a run names itself, a parent of runs (as `--seeds` makes) its children.

    Each run comes once; children come in natural order, seed-2 before seed-10. Raises RllabError for a path
    that is neither.
    """
    runs: dict[Path, None] = {}
    for path in map(Path, paths):
        found = [path] if is_run(path) else _children(path)
        if not found:
            raise RllabError(f"{path} is not a run and holds none{_hint(path)}.")
        runs.update(dict.fromkeys(found))
    return list(runs)


def default_folder(env_id: str, agent: str, seed: int) -> Path:
    """A folder under `runs/` that does not exist yet, such as `runs/CartPole-v1-ppo-s1-20260101-120000`."""
    # Ids such as ALE/Pong-v5 and package.module:Name-v0 must stay one folder's name.
    name = re.sub(r"[^\w.+-]+", "-", env_id)
    path = Path("runs") / f"{name}-{agent}-s{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    candidate, count = path, 1
    while candidate.exists():
        count += 1
        candidate = path.with_name(f"{path.name}-{count}")
    return candidate


def _read_config(path: Path) -> dict[str, Any]:
    """The content of `config.json`, provenance included."""
    try:
        document = json.loads((path / CONFIG_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise RllabError(f"{path / CONFIG_FILE} is damaged ({error}); restore it, or start a new run.") from error
    if not isinstance(document, dict) or not isinstance(document.get(_PROVENANCE), dict):
        raise RllabError(f"{path / CONFIG_FILE} was not written by rllab, or is damaged; choose another folder.")
    return document


def _refuse_followers() -> None:
    """Raise RllabError in a process of several that is not the first: what knows of several never comes here."""
    if TOGETHER.rank > 0:
        raise RllabError("This is done by one process; start it without torchrun.")


def _refuse_occupied(path: Path, overwrite: bool) -> None:
    if path.exists() and not path.is_dir():
        raise RllabError(f"{path} is a file; choose another folder with `--out`.")
    if is_run(path):
        if not overwrite:
            raise RllabError(
                f"{path} already holds a run; go on with it by `rllab resume {path}`, or choose another "
                "folder with `--out`."
            )
        _read_config(path)  # other programs have a config.json too: their files are not ours to delete
    elif path.is_dir() and any(file.name != _LOCK_FILE for file in path.iterdir()):
        raise RllabError(f"{path} already holds files that are not a run; choose another folder with `--out`.")


def _delete_run_files(path: Path) -> None:
    # The configuration goes last: until then the folder is known as a run and can be overwritten again.
    for name in ("checkpoints", "videos"):
        if (path / name).exists():
            shutil.rmtree(path / name)
    for file in (*path.glob("events.out.tfevents.*"), path / METRICS_FILE, path / CONFIG_FILE):
        file.unlink(missing_ok=True)


def _acquire_lock(path: Path) -> FileLock:
    # The operating system holds the lock, not the file's existence: it goes with the process.
    lock = FileLock(path / _LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RllabError(f"{path} is in use by another process; wait until that one ends, or stop it first.") from error
    return lock


def _children(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted((child for child in path.iterdir() if is_run(child)), key=_natural_order)


def _natural_order(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(int(part) if part.isdecimal() else 0, part) for part in parts]


def _hint(path: Path) -> str:
    """What somebody who named `path` as a run may have meant, to end a sentence with."""
    if children := _children(path):
        names = ", ".join(child.name for child in children[:5]) + (", …" if len(children) > 5 else "")
        return f"; it holds {names}: name one of these"
    if inside := next((parent for parent in path.absolute().parents if is_run(parent)), None):
        return f"; it lies inside the run {inside}: name that one"
    if path.exists():
        return f" (it has no {CONFIG_FILE})"
    siblings = {child.name: child for child in _children(path.parent)}
    if close := difflib.get_close_matches(path.name, siblings, n=3):
        return f": there is no such folder; did you mean {' or '.join(str(siblings[name]) for name in close)}?"
    return ": there is no such folder"


def _provenance() -> dict[str, Any]:
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("rllab", "torch", "gymnasium", "numpy")},
        },
        "command": sys.argv,
        "git_commit": _git_commit(),
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the checkout that this code runs from, with "-dirty" when files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None
