"""What the subcommands' arguments name: stores, models and folders to write to."""

import json
from pathlib import Path

from envs.errors import RllabError
from preference.experiment import REWARD_FOLDER, STORE_FILE
from preference.reward_model import RewardModel
from preference.store import Store
from preference.stored import held_out_in_run
from rllab.descriptions import not_of_use
from rllab.runs import Run, is_run


def open_store(where: str) -> Store:
    """The store that a file, a URL or a run's folder names. Raises RllabError if there is none."""
    path = Path(where)
    return Store.open(store_of(path) if "://" not in where and is_run(path) else where)


def store_of(run: Path) -> str | Path:
    """Where a run that asks keeps its comparisons. Raises RllabError for another kind of run."""
    config = Run.open(run).config
    asked = config.get("preference") or config.get("teaching") or {}
    if not asked.get("teacher"):
        raise RllabError(f"{run} is a run on a reward that was given and has no comparisons")
    kept: str | None = asked["store"]
    return kept or run / STORE_FILE


def load_model(path: Path) -> tuple[RewardModel, Path | None]:
    """The reward model of a folder or of a run, and that run if it is of one.

    Raises:
        RllabError: there is none, or it is damaged.
    """
    run = path if is_run(path) else path.parent if path.name == REWARD_FOLDER and is_run(path.parent) else None
    folder = path / REWARD_FOLDER if run == path else path
    config = {} if run is None else Run.open(run).config
    if run is not None and "kind" in config and "preference" not in config:
        raise not_of_use(Run.open(run), "which has no reward model of clips")
    if "preference" in config and not (folder / "model.json").is_file():
        raise RllabError(f"{run} has no reward model yet: let its training come to its end, or stop it by Ctrl-C")
    return RewardModel.load(folder), run


def refuse_occupied(folder: Path) -> None:
    """Raise RllabError unless a new model may be written into a folder: it is new, or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RllabError(f"{folder} exists and is not empty: choose another folder with --out")


def held_out_answers(model: Path, owner: Path | None) -> frozenset[str]:
    """The ids of the answers that a model was not fitted to, as its run or `rllab preference fit` kept them."""
    if owner is not None:
        return held_out_in_run(Run.open(owner))
    return frozenset(json.loads((model / "model.json").read_bytes())["about"].get("held_out", []))
