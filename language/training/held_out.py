"""The loss of each held-out token, by how much of the text before it a model is shown.

Over blocks that do not overlap, half of the tokens see less than half a block. A window that slides shows each token at
least `length − stride` of those before it, at the price of computing most tokens more than once. A recurrent model can
be shown everything.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError


def sliding_losses(
    model: nn.Module, ids: NDArray[Any], length: int, stride: int, batch_size: int = 16,
    device: torch.device | str = "cpu",
) -> NDArray[np.float64]:  # fmt: skip
    """The loss, in nats, of each token from the second on.

    Args:
        model: called as `model(tokens)`, for logits of each next token; in evaluation mode.
        ids: `[n]`, a stream.
        length: tokens that the model is shown at once.
        stride: how far the window moves each time; its last `stride` tokens count, of the first one all. With
            `length`, these are the blocks of `language_modelling.perplexity`. The last window ends with the stream.
        batch_size: windows at once.
        device: where the model is.

    Returns:
        `[n − 1]`.

    Raises:
        RllabError: the stride is not between 1 and the length, or the stream is too short for a window.
    """
    if not 1 <= stride <= length:
        raise RllabError(f"The stride of a window must be between 1 and its length of {length}, not {stride}.")
    if len(ids) <= length:
        raise RllabError(f"{len(ids)} tokens are too few for a window of {length} and the next one; give more text.")
    windows = np.lib.stride_tricks.sliding_window_view(ids, length + 1)[::stride]
    parts = []
    for first in range(0, len(windows), batch_size):
        losses = _losses(model, windows[first : first + batch_size], device)
        if first == 0:
            parts.append(losses[0, : length - stride])
        parts.append(losses[:, length - stride :].flatten())
    left = len(ids) - 1 - sum(map(len, parts))
    if left:
        parts.append(_losses(model, ids[None, -length - 1 :], device)[0, -left:])
    return torch.cat(parts).double().numpy()


def carried_losses(
    model: nn.Module, ids: NDArray[Any], length: int, rows: int = 16, device: torch.device | str = "cpu"
) -> NDArray[np.float64]:  # fmt: skip
    """The loss, in nats, of each token from the second on, by a recurrent model that remembers all those before it.

    Args:
        model: one with `forward_from(tokens, state)`, which gives logits first and the state last.
        ids: `[n]`, a stream.
        length: tokens that are computed at once; it changes nothing but the time.
        rows: the stream is cut into so many, which are read side by side and each begin with no memory.
        device: where the model is.

    Returns:
        `[rows · ((n − 1) // rows)]`; the last tokens that fill no row are left out.

    Raises:
        RllabError: the stream is too short, or the model is not recurrent.
    """
    read: Callable[[Tensor, Any], Any] | None = getattr(model, "forward_from", None)
    if read is None:
        raise RllabError(f"A {type(model).__name__} remembers nothing from one batch to the next; let a window slide.")
    columns = (len(ids) - 1) // rows
    if columns < 1:
        raise RllabError(f"{len(ids)} tokens are too few for {rows} rows; give more text.")
    inputs, targets = (
        torch.from_numpy(ids[begin : begin + rows * columns].astype(np.int64)).view(rows, columns).to(device)
        for begin in (0, 1)
    )
    parts, state = [], None
    with torch.no_grad():
        for begin in range(0, columns, length):
            some = slice(begin, begin + length)
            logits, *_, state = read(inputs[:, some], state)
            parts.append(_cross_entropies(logits, targets[:, some]).cpu())
    return torch.cat(parts, 1).flatten().double().numpy()


def _losses(model: nn.Module, rows: NDArray[Any], device: torch.device | str) -> Tensor:
    """Of tokens `[N, T + 1]`, `[N, T]`."""
    tokens = torch.from_numpy(rows.astype(np.int64)).to(device)
    with torch.no_grad():
        return _cross_entropies(model(tokens[:, :-1]), tokens[:, 1:]).cpu()


def _cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")
