"""Rows of different lengths in one tensor: moved to the other end, or read backwards, each by its own length."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from envs.errors import RllabError


def pad_right(rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Rows of ids as one tensor int64 `[N, T]`, padded with 0 on the right, and where tokens are, bool `[N, T]`."""
    lengths = np.array([len(row) for row in rows])
    valid = np.arange(lengths.max())[None] < lengths[:, None]
    tokens = np.zeros(valid.shape, np.int64)
    tokens[valid] = np.concatenate([np.asarray(row, np.int64) for row in rows])
    return torch.from_numpy(tokens).to(device), torch.from_numpy(valid).to(device)


def lengths_of(valid: Tensor) -> Tensor:
    """How many tokens each row has, int64 `[N]`, of a mask bool `[N, T]`."""
    return valid.sum(1)


def check_right_padded(valid: Tensor) -> None:
    """See that rows have their tokens first.

    Raises:
        RllabError: in a row of the mask, bool `[N, T]`, a token comes after padding.
    """
    if bool((valid[:, 1:] & ~valid[:, :-1]).any()):
        raise RllabError("A row has padding before a token; pad batches on the right, and prompts alone on the left.")


def aligned_left(x: Tensor, valid: Tensor) -> Tensor:
    """Rows `[N, T, ...]` padded on the left as rows padded on the right, in the same order."""
    columns = x.shape[1]
    shift = columns - lengths_of(valid)
    return _columns(x, (torch.arange(columns, device=x.device) + shift[:, None]) % columns)


def reversed_rows(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Rows `[N, T, ...]` from their last token to their first.

    Padding on the right stays where it is, so that doing it twice changes nothing.

    Args:
        x: the rows.
        valid: bool `[N, T]`, true where a token is; None if all are.
    """
    if valid is None:
        return x.flip(1)
    places = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
    return _columns(x, torch.where(valid, lengths_of(valid)[:, None] - 1 - places, places))


def _columns(x: Tensor, places: Tensor) -> Tensor:
    """`x[n, places[n, t]]` for each n and t."""
    return x[torch.arange(len(x), device=x.device)[:, None], places]
