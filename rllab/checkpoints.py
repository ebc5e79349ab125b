"""The checkpoints of a run: complete or absent, verified on load, the old ones pruned.

    checkpoints/
      index.json            which step is the best; rebuilt from the manifests when it is missing
      204800/
        arrays.safetensors  state.json        the state tree (see `rllab.state`)
        manifest.json       size and SHA-256 of each file, the metadata, whether it was the best then

A checkpoint is written into a folder beside its place, synced, and renamed: a process killed at any moment
leaves the earlier ones as they were.
"""

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from envs.errors import RllabError
from rllab.files import explained_write_errors, sha256, synchronise, write_atomically

if TYPE_CHECKING:
    from rllab.state import StateTree

_MANIFEST = "manifest.json"
_INDEX = "index.json"
_TEMPORARY = ".temporary-"
_REPLACED = ".replaced-"


class CheckpointWarning(UserWarning):
    """A checkpoint was damaged and an earlier one was loaded in its place."""


class Checkpoints:
    """The folder `checkpoints/` of a run.

    Args:
        folder: where the checkpoints lie; made when the first one is saved.
        keep: how many of the newest to keep beside the best one; 0 keeps all.

    One process saves (the run's lock sees to it); others may read meanwhile.
    """

    def __init__(self, folder: Path | str, keep: int = 3) -> None:
        if keep < 0:
            raise RllabError(f"Cannot keep {keep} checkpoints; give a positive number, or 0 to keep all.")
        self.folder = Path(folder)
        self.keep = keep

    def save(
        self, step: int, state: "StateTree", *, best: bool = False, metadata: Mapping[str, Any] | None = None
    ) -> Path:
        """Write `state` as the checkpoint of `step`, then prune; returns the checkpoint's folder.

        A checkpoint of the same step is replaced. `best` makes it the best one so far, which is never
        pruned. `metadata` is JSON kept beside the state. Raises RllabError when the disk refuses (full, or
        not writable); every earlier checkpoint is then intact.
        """
        from rllab.state import save_state  # brings torch, which listing checkpoints does not need

        final = self.folder / str(step)
        temporary = self.folder / f"{_TEMPORARY}{step}"
        with explained_write_errors(final):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clear_leftovers()
            temporary.mkdir()
            try:
                save_state(temporary, state)
                files = {
                    path.name: {"size": path.stat().st_size, "sha256": sha256(path)}
                    for path in sorted(temporary.iterdir())
                }
                manifest = {"step": step, "best": best, "metadata": dict(metadata or {}), "files": files}
                write_atomically(temporary / _MANIFEST, json.dumps(manifest, indent=2).encode())
                # Before the rename: an index that names an absent step is rebuilt from the manifests, while
                # one written after it could miss the new best for ever.
                self._write_index(step, best)
                self._move_into_place(temporary, final)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            self._prune(newest=step)
        return final

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in ascending order; damaged ones are not told apart."""
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted({int(name) for name in (name.removeprefix(_REPLACED) for name in names) if name.isdigit()})

    def latest(self) -> int | None:
        """The newest step that has a checkpoint."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """The step saved last as the best one."""
        steps = self.steps()
        try:
            step = json.loads((self.folder / _INDEX).read_bytes())["best"]
        except (OSError, ValueError, KeyError, TypeError):
            return self._best_of_manifests(steps)
        return step if step is None or step in steps else self._best_of_manifests(steps)

    def metadata(self, step: int) -> dict[str, Any]:
        """What `save` was given as metadata. Raises RllabError when there is no readable manifest."""
        metadata: dict[str, Any] = self._manifest(step)["metadata"]
        return metadata

    def load(self, step: int | Literal["latest", "best"] = "latest") -> "tuple[int, StateTree]":
        """Read a checkpoint, verified against its manifest; returns its step and the state.

        "latest" and "best" fall back to the nearest earlier one that is good (else to the newest good one)
        and warn with CheckpointWarning. Raises RllabError when none is good, or when the step asked for
        by number is absent or damaged.
        """
        if isinstance(step, int):
            return step, self._load_verified(step)
        wanted = self.best() if step == "best" else self.latest()
        if wanted is None:
            other = " as the best; load 'latest'" if self.steps() else "; train until the first one is saved"
            raise RllabError(f"No checkpoint has been saved in {self.folder}{other}.")
        damage: list[str] = []
        for candidate in self._candidates(wanted):
            try:
                state = self._load_verified(candidate)
            except RllabError as error:
                damage.append(str(error))
                continue
            if candidate != wanted:
                warnings.warn(
                    f"{damage[0]} Step {candidate} is used in place of step {wanted}.",
                    CheckpointWarning,
                    stacklevel=2,
                )
            return candidate, state
        raise RllabError(f"No checkpoint in {self.folder} can be read, so there is nothing to go on from: {damage[0]}")

    def _candidates(self, wanted: int) -> Iterator[int]:
        """`wanted`, then earlier steps, then later ones, each newest first."""
        newest_first = self.steps()[::-1]
        yield from (step for step in newest_first if step <= wanted)
        yield from (step for step in newest_first if step > wanted)

    def _load_verified(self, step: int) -> "StateTree":
        from rllab.state import load_state

        manifest = self._manifest(step)
        folder = self._folder_of(step)
        for name, expected in manifest["files"].items():
            path = folder / name
            if not path.is_file():
                raise RllabError(f"The checkpoint of step {step} is damaged: {path} is missing.")
            if (size := path.stat().st_size) != expected["size"]:
                raise RllabError(
                    f"The checkpoint of step {step} is damaged: {path} has {size} bytes in place of {expected['size']}."
                )
            if sha256(path) != expected["sha256"]:
                raise RllabError(f"The checkpoint of step {step} is damaged: the content of {path} has changed.")
        return load_state(folder)

    def _manifest(self, step: int) -> dict[str, Any]:
        path = self._folder_of(step) / _MANIFEST
        if not path.parent.is_dir():
            known = ", ".join(map(str, self.steps())) or "none"
            raise RllabError(f"There is no checkpoint of step {step} in {self.folder}; those saved: {known}.")
        try:
            manifest = json.loads(path.read_bytes())
            if isinstance(manifest["files"], dict) and isinstance(manifest["metadata"], dict):
                return dict(manifest)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        raise RllabError(f"The checkpoint of step {step} is damaged: {path} is missing or cannot be read.")

    def _best_of_manifests(self, steps: list[int]) -> int | None:
        for step in reversed(steps):
            try:
                if self._manifest(step).get("best"):
                    return step
            except RllabError:
                continue
        return None

    def _folder_of(self, step: int) -> Path:
        # A process killed between the two renames of a replacement leaves only the old folder, set aside.
        final, replaced = self.folder / str(step), self.folder / f"{_REPLACED}{step}"
        return replaced if replaced.is_dir() and not final.is_dir() else final

    def _write_index(self, step: int, best: bool) -> None:
        if best:
            best_step: int | None = step
        elif (best_step := self.best()) == step:
            # The best one is being replaced by a state that is not.
            best_step = self._best_of_manifests([other for other in self.steps() if other != step])
        write_atomically(self.folder / _INDEX, json.dumps({"best": best_step}).encode())

    def _move_into_place(self, temporary: Path, final: Path) -> None:
        synchronise(temporary)
        replaced = self.folder / f"{_REPLACED}{final.name}"
        if final.is_dir():
            os.rename(final, replaced)
        os.rename(temporary, final)
        synchronise(self.folder)
        shutil.rmtree(replaced, ignore_errors=True)

    def _prune(self, newest: int) -> None:
        """Remove all but the `keep` newest up to the step just saved, and the best.

        Later steps can exist: damaged ones that a resumed run will write again. They do not count.
        """
        if self.keep == 0:
            return
        best = self.best()
        for step in [step for step in self.steps() if step <= newest][: -self.keep]:
            if step != best:
                shutil.rmtree(self.folder / str(step), ignore_errors=True)

    def _clear_leftovers(self) -> None:
        """Tidy up after a process that was killed while saving."""
        for path in self.folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(path)
        for path in self.folder.glob(f"{_REPLACED}*"):
            final = self.folder / path.name.removeprefix(_REPLACED)
            if final.is_dir():
                shutil.rmtree(path)
            else:
                os.rename(path, final)
        for path in self.folder.glob(f".{_INDEX}.*.tmp"):
            path.unlink()
