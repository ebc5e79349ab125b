"""Minari (the Farama Foundation's format for offline data): every clip is an episode, the comparisons lie beside them.

The folder can be moved into Minari's own (`MINARI_DATASETS_PATH`) and loaded there by its name. Questions and answers
are in `comparisons.jsonl`; they refer to clips by id, and each episode's metadata says which clip it is.
"""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from preference.comparisons import Clip
from preference.exchange.contents import Entry
from preference.exchange.jsonl import JsonLines, write_jsonl
from preference.records import in_chunks
from preference.task import Task

_CHUNK = 32  # episodes read or written at a time: Minari opens the file anew at every call
_COMPARISONS = "comparisons.jsonl"
_CLIP = "clip"  # the episode's metadata that says which clip it is, and the group of the arrays Minari has no place for


def write_minari(folder: Path, name: str, task: Task, clips: Iterable[Entry], pairs: Iterable[Entry]) -> None:
    """Write a dataset into a new folder that is to be called `name`.

    Raises:
        RllabError: Minari is not installed, or the task is of texts.
        OSError: the disk refuses.
    """
    if task.kind != "clips":
        raise RllabError("Minari keeps trajectories: export texts as jsonl or parquet.")
    storage_module, buffers, version = _minari()
    observation, action = task.spaces()
    folder.mkdir()
    with _quiet():
        storage = storage_module.MinariStorage.new(
            folder / "data", observation, action, _spec(task.environment), **_lossless(storage_module, observation)
        )
    storage.update_metadata(
        {
            "dataset_id": _dataset_id(name),
            "minari_version": version,
            "description": "Clips that were compared; rewards are NaN where they were not known. "
            f"The comparisons are in {_COMPARISONS}.",
        }
    )

    def with_episodes() -> Iterator[Entry]:
        for chunk in in_chunks(enumerate(clips), _CHUNK):
            episodes, metadata = [], []
            for number, entry in chunk:
                episode, said, others = _episode(entry.clips[0])
                infos = {_CLIP: others} if others else None
                episodes.append(buffers.EpisodeBuffer(id=number, **episode, infos=infos))
                metadata.append(said)
            storage.update_episodes(episodes)
            storage.update_episode_metadata(metadata, [number for number, _ in chunk])
            yield from (entry for _, entry in chunk)

    write_jsonl(folder / _COMPARISONS, task, chain(with_episodes(), pairs), with_arrays=False)


class MinariDataset:
    """A dataset with comparisons, to be read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        storage_module, _, _ = _minari()
        with self._explained():
            self._storage = storage_module.MinariStorage.read(folder / "data")
            metadata = self._storage.get_episode_metadata(range(self._storage.total_episodes))
            self._episodes = {str(episode.get(_CLIP)): (number, episode) for number, episode in enumerate(metadata)}
        self._ahead: dict[int, Mapping[str, Any]] = {}
        self._lines = JsonLines(folder / _COMPARISONS, self._arrays)

    @property
    def task(self) -> Task:
        """The task of the comparisons. Raises RllabError when there are none."""
        if not (self._folder / _COMPARISONS).exists():
            raise RllabError(f"{self._folder} has no {_COMPARISONS}: it is a dataset without comparisons.")
        return self._lines.task

    def entries(self) -> Iterator[Entry]:
        """Clips, then pairs with their answers. Raises RllabError for what is none."""
        return self._lines.entries()

    def _arrays(self, document: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        if str(document.get("id")) not in self._episodes:
            raise RllabError(f"no episode is the clip {document.get('id')}")
        number, metadata = self._episodes[str(document["id"])]
        with self._explained():
            if number not in self._ahead:
                following = range(number, min(number + _CHUNK, len(self._episodes)))
                self._ahead = dict(zip(following, self._storage.get_episodes(following), strict=True))
            return _arrays_of(self._ahead[number], metadata)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except RllabError:
            raise
        except Exception as error:  # Minari and h5py raise whatever the file's damage leads them to.
            reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
            raise RllabError(f"{self._folder} is no Minari dataset that can be read ({reason}).") from error


def _episode(clip: Clip) -> tuple[dict[str, Any], dict[str, Any], dict[str, NDArray[Any]]]:
    """A clip as a Minari episode (L steps, L + 1 observations), its metadata, and arrays that are in no episode."""
    others = dict(clip.arrays)
    if strange := [name for name in others if "/" in name or name in ("", ".")]:
        raise RllabError(f"The clip {clip.id} has an array {strange[0]!r}, which Minari cannot name: use parquet.")
    observations, actions = others.pop("observations"), others.pop("actions")
    following = others.get("next_observations", observations)
    all_observations = np.concatenate([observations, following[-1:]])
    chained = "next_observations" in others and _same(all_observations[1:], following)
    if chained:
        del others["next_observations"]
    rewards = others.pop("rewards", None)
    truncations = np.zeros(clip.length, bool)
    truncations[-1] = True  # A clip is cut from a trajectory: this is not where that ended.
    episode = {
        "observations": all_observations,
        "actions": actions,
        "rewards": np.full(clip.length, np.nan) if rewards is None else rewards,
        "terminations": np.zeros(clip.length, bool),
        "truncations": truncations,
    }
    return episode, {_CLIP: str(clip.id), "chained": chained, "rewarded": rewards is not None}, others


def _arrays_of(episode: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The inverse of `_episode`."""
    arrays = {"observations": episode["observations"][:-1], "actions": episode["actions"]}
    if metadata["chained"]:
        arrays["next_observations"] = episode["observations"][1:]
    if metadata["rewarded"]:
        arrays["rewards"] = episode["rewards"]
    return {**arrays, **(episode["infos"] or {}).get(_CLIP, {})}


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two arrays have the same bits."""
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def _lossless(storage_module: Any, observation: gymnasium.Space[Any]) -> dict[str, Any]:
    """Keeps Minari from turning images into JPEG. Raises RllabError where it cannot be kept from it."""
    if "jpeg_encoding" in (storage_module.MinariStorage.new.__kwdefaults__ or {}):
        return {"jpeg_encoding": False}
    if storage_module.is_image_space(observation):
        raise RllabError("This version of Minari would compress the frames with losses; install a newer one.")
    return {}


def _spec(environment: str) -> Any:
    """The environment's specification, so that the dataset can make it again; None if it is not registered here."""
    try:
        return gymnasium.spec(environment)
    except (gymnasium.error.Error, ImportError):
        return None


def _dataset_id(name: str) -> str:
    """The folder's name as Minari wants a name to be: it ends with a version."""
    plain = re.sub(r"[^-\w]", "-", name).strip("-") or "comparisons"
    return plain if re.search(r"-v\d+$", plain) else f"{plain}-v0"


def _minari() -> tuple[Any, Any, str]:
    try:
        with _quiet():
            minari = import_module("minari")
            import_module("h5py")
            storage = import_module("minari.dataset.minari_storage")
            return storage, import_module("minari.data_collector.episode_buffer"), str(minari.__version__)
    except ImportError as error:
        raise RllabError("Minari is not installed: install it with `pip install rllab[exchange]`.") from error


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
