"""Co-occurrences of a corpus that need not fit into memory: counted in pieces, spilled to disk sorted, merged.

Pennington, Socher, Manning, "GloVe: Global Vectors for Word Representation", 2014, section 4.2: pairs up to a window
apart count 1/distance, in both directions.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from language.embeddings.vocabulary import Corpus
from rllab.files import explained_write_errors

Keys = NDArray[np.int64]
Values = NDArray[np.float64]

_CHUNK_WORDS = 200_000
_MERGE_ENTRIES = 1 << 20


@dataclass(frozen=True)
class PairCounts:
    """Weighted counts of unordered pairs of words on disk, in parts of random content that fit into memory each."""

    folder: Path
    parts: int
    vocabulary_size: int
    entries: int
    """Unordered pairs that occur."""

    def part(self, number: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
        """The pairs of one part: words `[n]`, words `[n]`, counts `[n]`; the first is never above the second."""
        keys = np.fromfile(self.folder / f"part-{number}.keys", np.int64)
        first, second = np.divmod(keys, self.vocabulary_size)
        values = np.fromfile(self.folder / f"part-{number}.values", np.float32)
        return first.astype(np.int32), second.astype(np.int32), values

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def count_pairs(
    corpus: Corpus, window: int, *, by_distance: bool = True, entries_in_memory: int = 20_000_000,
    folder: Path | None = None, seed: int = 0,
) -> PairCounts:  # fmt: skip
    """Count the pairs of words that stand at most `window` apart in a text.

    Args:
        corpus: the words.
        window: the farthest distance.
        by_distance: count a pair 1/distance instead of 1.
        entries_in_memory: occurrences and counts that are held at once, 16 bytes each; sorting takes as much again.
        folder: where the temporary files go; by default the system's.
        seed: decides which part a pair is in.

    Raises:
        RllabError: the disk is full.
    """
    size = len(corpus.vocabulary)
    place = Path(tempfile.gettempdir()) if folder is None else folder
    with explained_write_errors(place):
        home = Path(tempfile.mkdtemp(prefix="pairs-", dir=place))
        try:
            runs = _spill(corpus, window, by_distance, entries_in_memory, home)
            total = sum(len(np.load(run / "keys.npy", mmap_mode="r")) for run in runs)
            parts = max(1, -(-total // max(entries_in_memory // 4, 1)))
            generator = np.random.default_rng(seed)
            entries = 0
            with ExitStack() as files:
                outputs = [
                    [files.enter_context(open(home / f"part-{part}.{kind}", "wb")) for kind in ("keys", "values")]
                    for part in range(parts)
                ]
                for keys, values in _merged(runs):
                    entries += len(keys)
                    target = generator.integers(parts, size=len(keys))
                    for part, (key_file, value_file) in enumerate(outputs):
                        chosen = target == part
                        keys[chosen].tofile(key_file)
                        values[chosen].astype(np.float32).tofile(value_file)
            for run in runs:
                shutil.rmtree(run)
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise
    return PairCounts(home, parts, size, entries)


def pair_occurrences(
    ids: NDArray[np.int32], texts: NDArray[np.int64], size: int, window: int, by_distance: bool
) -> Iterator[tuple[Keys, float]]:
    """The pairs of a piece of a corpus by distance: keys smaller·V + larger `[n]`, and what each of them counts."""
    for distance in range(1, min(window, len(ids) - 1) + 1):
        near = texts[distance:] == texts[:-distance]
        first, second = ids[:-distance][near].astype(np.int64), ids[distance:][near].astype(np.int64)
        yield np.minimum(first, second) * size + np.maximum(first, second), 1 / distance if by_distance else 1.0


def summed(keys: Keys, values: Values) -> tuple[Keys, Values]:
    """Different keys in rising order, and the sum of the values of each."""
    if not len(keys):
        return keys, values
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.add.reduceat(values[order], starts)


def _spill(corpus: Corpus, window: int, by_distance: bool, limit: int, home: Path) -> list[Path]:
    """Sorted runs on disk, of which each holds every key at most once."""
    runs: list[Path] = []
    keys: list[Keys] = []
    values: list[Values] = []
    held = 0

    def condense(write: bool) -> int:
        together = summed(np.concatenate(keys), np.concatenate(values))
        keys[:], values[:] = ([], []) if write else ([together[0]], [together[1]])
        if write:
            run = home / f"run-{len(runs)}"
            run.mkdir()
            np.save(run / "keys.npy", together[0])
            np.save(run / "values.npy", together[1])
            runs.append(run)
        return 0 if write else len(together[0])

    for ids, texts in corpus.chunks(max(min(_CHUNK_WORDS, limit // (2 * window)), 2)):
        for found, weight in pair_occurrences(ids, texts, len(corpus.vocabulary), window, by_distance):
            keys.append(found)
            values.append(np.full(len(found), weight))
            held += len(found)
        if held > limit:
            held = condense(write=False)
            if held > limit // 2:
                held = condense(write=True)
    if keys or not runs:
        keys.append(np.empty(0, np.int64))
        values.append(np.empty(0))
        condense(write=True)
    return runs


def _merged(runs: list[Path]) -> Iterator[tuple[Keys, Values]]:
    """The sums over runs, in rising order of their keys, piece by piece."""
    keys = [np.load(run / "keys.npy", mmap_mode="r") for run in runs]
    values = [np.load(run / "values.npy", mmap_mode="r") for run in runs]
    reached = [0] * len(runs)
    step = max(_MERGE_ENTRIES // len(runs), 1)
    while any(start < len(run) for start, run in zip(reached, keys, strict=True)):
        # Up to the smallest of the last keys that are looked at, nothing can come any more from any run.
        bound = min(
            int(run[min(start + step, len(run)) - 1])
            for start, run in zip(reached, keys, strict=True) if start < len(run)
        )  # fmt: skip
        taken_keys, taken_values = [], []
        for number, run in enumerate(keys):
            start = reached[number]
            end = start + int(np.searchsorted(run[start : start + step], bound, side="right"))
            taken_keys.append(np.asarray(run[start:end]))
            taken_values.append(np.asarray(values[number][start:end]))
            reached[number] = end
        yield summed(np.concatenate(taken_keys), np.concatenate(taken_values))
