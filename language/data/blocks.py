"""Token ids on disk, one after another, read through a memory map and cut into blocks of fixed length.

The file is NumPy's `.npy` of one dimension, uint16 for vocabularies of up to 65,536 tokens and else uint32, so that
other programs read it too. Documents follow each other without padding, with a separator where one is given.
"""

import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.lib import format as npy
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from envs.errors import RllabError
from rllab.files import explained_write_errors, synchronise

_SEQUENCES_A_WRITE = 1024


@dataclass(frozen=True)
class TokenFile:
    """A token file that is open for reading; nothing is in memory before it is used."""

    path: Path
    ids: NDArray[Any]
    """`[n]`, uint16 or uint32, mapped from the disk."""

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Map a file. Raises RllabError if it is not there, truncated or something else."""
        path = Path(path)
        try:
            ids = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise RllabError(f"{path} cannot be read as a token file ({reason}); write it anew.") from error
        if ids.ndim != 1 or ids.dtype not in (np.uint16, np.uint32):
            raise RllabError(f"{path} holds {ids.dtype} of shape {list(ids.shape)}, not token ids; give another file.")
        return cls(path, ids)

    def __len__(self) -> int:
        return len(self.ids)

    def blocks(self, length: int) -> NDArray[Any]:
        """The ids as rows `[n // length, length]` that do not overlap, without a copy; a last, shorter one is left out.

        Raises:
            RllabError: not one block fits.
        """
        count = len(self) // length if length > 0 else 0
        if not count:
            raise RllabError(f"{self.path} has {len(self):,} tokens, too few for a block of {length}.")
        return self.ids[: count * length].reshape(count, length)

    def next_token_blocks(self, length: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Blocks `[(n − 1) // length, length]` and, of the same shape, the token that follows each of theirs.

        Raises:
            RllabError: not one block fits.
        """
        count = (len(self) - 1) // length if length > 0 else 0
        if count < 1:
            raise RllabError(f"{self.path} has {len(self):,} tokens, too few for a block of {length} and the next one.")
        inputs, targets = self.ids[: count * length], self.ids[1 : count * length + 1]
        return inputs.reshape(count, length), targets.reshape(count, length)

    def random_windows(self, count: int, length: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Windows `[count, length]` that begin at random places, each place equally probable.

        Raises:
            RllabError: not one window fits.
        """
        if not 0 < length <= len(self):
            raise RllabError(f"{self.path} has {len(self):,} tokens, too few for a window of {length}.")
        starts = generator.integers(len(self) - length + 1, size=count)
        return sliding_window_view(self.ids, length)[starts].astype(np.int64)


def write_token_file(
    path: Path | str, sequences: Iterable[Sequence[int]], vocabulary_size: int, separator: int | None = None
) -> TokenFile:
    """Write sequences of ids, which are read once and need not fit into memory, and open the file.

    The file appears when it is complete; a process killed before leaves what was there.

    Args:
        path: where to.
        sequences: documents as ids, such as a tokenizer's `encode_batch` gives.
        vocabulary_size: ids are below this; it decides the type.
        separator: an id to write after each document.

    Raises:
        RllabError: an id is outside the vocabulary, there are none, or the disk refuses.
    """
    path = Path(path)
    dtype = np.dtype(np.uint16 if vocabulary_size <= 2**16 else np.uint32)
    tail = () if separator is None else (separator,)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    total = 0
    with explained_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                _write_header(file, total, dtype)
                remaining = iter(sequences)
                while batch := list(itertools.islice(remaining, _SEQUENCES_A_WRITE)):
                    joined = itertools.chain.from_iterable(itertools.chain(ids, tail) for ids in batch)
                    ids = np.fromiter(joined, np.int64)
                    if len(ids) and not (ids.min() >= 0 and ids.max() < vocabulary_size):
                        wrong = ids[(ids < 0) | (ids >= vocabulary_size)][0]
                        raise RllabError(f"The id {wrong} is outside the vocabulary of {vocabulary_size:,} tokens.")
                    ids.astype(dtype).tofile(file)
                    total += len(ids)
                if not total:
                    raise RllabError(f"There is nothing to write to {path}: the texts gave no tokens.")
                # NumPy pads the header for a number of any length, so the ids stay where they are.
                file.seek(0)
                _write_header(file, total, dtype)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        synchronise(path.parent)
    return TokenFile.open(path)


def _write_header(file: Any, count: int, dtype: np.dtype[Any]) -> None:
    header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    npy.write_array_header_1_0(file, header)
