"""How fast this machine multiplies matrices at best, and what share of that a training uses."""

import time
from functools import cache

import torch
from torch import nn

from language.models.linear import linear


def training_operations(model: nn.Module, tokens: int, *, layers: int, width: int, length: int) -> float:
    """Multiplications and additions of a forward and a backward pass.

    6 for each weight of a matrix and each token (2 forward, 4 backward; Kaplan et al. 2020, "Scaling laws", section
    2.1), and 12 · layers · length · width a token for attention. Embeddings that are looked up do not count; the
    product with the output's matrix does, which is named `tokens` where it is tied to them.

    Args:
        model: whose weights count.
        tokens: how many it sees.
        layers: with attention; 0 for recurrent models.
        width: of attention.
        length: of a sequence.
    """
    weights = 0
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Embedding) and name.endswith("tokens")):
            weights += module.weight.numel()
        elif isinstance(module, nn.LSTM):
            weights += sum(parameter.numel() for parameter in module.parameters() if parameter.ndim == 2)
    return float(tokens) * (6.0 * weights + 12.0 * layers * length * width)


@cache
def peak_operations_per_second(device: str, dtype: torch.dtype, threads: int) -> float:
    """The rate of the best of a few products of large square matrices, in operations a second.

    Args:
        device: where.
        dtype: of the matrices.
        threads: of torch; part of the key because the rate depends on it.
    """
    size = 1024 if device == "cpu" else 8192
    # Not random: the training's own random numbers must not depend on whether this was measured.
    a = torch.linspace(-1, 1, size * size, device=device).view(size, size).to(dtype)
    b = a.flip(1).contiguous()
    best = float("inf")
    for _ in range(6):
        began = time.perf_counter()
        linear(a, b)
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return float(2 * size**3 / best)
