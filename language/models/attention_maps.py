"""Attention's weights while a model runs: where each head of each layer looks.

The fused kernels that the models use do not give them. They are computed once more, by the readable formula, from what
goes into each attention; a model that is not being recorded does nothing for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from language.models.attention import AttentionMask, CrossAttention, SelfAttention, reference_weights


@contextmanager
def recorded_attention(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """While the context lasts, the weights of the model's latest whole run.

    Yields:
        By the name of the module, such as `blocks.0.attention`, in the order in which they ran, `[N, heads, Q, K]`;
        each row of K sums to 1. They have no derivatives, and no dropout.

    A run with a cache of earlier tokens is not recorded.
    """
    weights: dict[str, Tensor] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, SelfAttention | CrossAttention):
            hooks.append(module.register_forward_pre_hook(_recorder(name, weights), with_kwargs=True))
    try:
        yield weights
    finally:
        for hook in hooks:
            hook.remove()


def _recorder(name: str, weights: dict[str, Tensor]) -> Any:
    def record(module: SelfAttention | CrossAttention, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        with torch.no_grad():
            if isinstance(module, SelfAttention):
                found = _of_itself(module, *given, **named)
            else:
                found = _of_another(module, *given, **named)
        if found is not None:
            weights[name] = found

    return record


def _of_itself(
    module: SelfAttention, x: Tensor, mask: AttentionMask, cache: object = None, layer: int = 0
) -> Tensor | None:  # fmt: skip
    if cache is not None:
        return None
    queries, keys, _ = module.queries_keys_values(x)
    allowed = mask.allowed
    if allowed is None and mask.causal:
        allowed = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
    return reference_weights(queries, keys, allowed)


def _of_another(module: CrossAttention, x: Tensor, memory: tuple[Tensor, Tensor], mask: AttentionMask) -> Tensor:
    return reference_weights(module.queries(x), memory[0], mask.allowed)
