"""Log-probabilities and entropies of chosen tokens, without keeping the logits of the whole vocabulary.

One product and one softmax give both; the gradient is written out, and where there are many tokens it computes their
logits once more, a part at a time.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from language.models.linear import linear

ROWS_AT_ONCE = 4096
"""Tokens whose logits are held at a time."""


def chosen_tokens(
    features: Tensor, weight: Tensor, bias: Tensor | None, chosen: Tensor, temperature: float = 1.0,
    rows_at_once: int = ROWS_AT_ONCE,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What a softmax of (W·features + b) / temperature says of tokens. It can be differentiated once.

    Args:
        features: `[M, width]`.
        weight: `[V, width]`.
        bias: `[V]`, or None.
        chosen: int64 `[M]`, the tokens.
        temperature: what the logits are divided by.
        rows_at_once: how many tokens' logits are held at a time.

    Returns:
        The log-probability of each token and the entropy of its distribution, in nats, `[M]` each.
    """
    log_probs, entropies = _ChosenTokens.apply(features, weight, bias, chosen, temperature, rows_at_once)  # type: ignore[no-untyped-call]
    return log_probs, entropies


def _log_softmax(features: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = linear(features, weight, bias).float()
    return torch.log_softmax(logits if temperature == 1 else logits / temperature, -1)


class _ChosenTokens(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, chosen: Tensor, temperature: float,
        rows_at_once: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        log_probs = torch.empty(len(features), device=features.device)
        entropies, kept = torch.empty_like(log_probs), None
        for start in range(0, len(features), rows_at_once):
            piece = slice(start, start + rows_at_once)
            all_log_probs = _log_softmax(features[piece], weight, bias, temperature)
            log_probs[piece] = all_log_probs.gather(1, chosen[piece, None])[:, 0]
            # 0 · −∞ is 0 here: a token that may not come adds nothing.
            entropies[piece] = -torch.linalg.vecdot(all_log_probs.exp(), all_log_probs.clamp_min(-1e30))
            kept = all_log_probs if len(features) <= rows_at_once else None
        ctx.save_for_backward(features, weight, bias, chosen, entropies, kept)
        ctx.temperature, ctx.rows_at_once = temperature, rows_at_once
        ctx.set_materialize_grads(False)
        return log_probs, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        of_log_prob, of_entropy = gradients
        features, weight, bias, chosen, entropies, kept = ctx.saved_tensors
        of_features = torch.empty_like(features) if ctx.needs_input_grad[0] else None
        of_weight = of_bias = None
        transposed = weight.T.contiguous() if of_features is not None else None
        for start in range(0, len(features), ctx.rows_at_once):
            piece = slice(start, start + ctx.rows_at_once)
            log_probs = kept if kept is not None else _log_softmax(features[piece], weight, bias, ctx.temperature)
            # d log p(a) / d logits = one-hot(a) − p; d H / d logits = −p · (log p + H).
            probabilities = log_probs.exp()
            of_logits = torch.zeros_like(probabilities)
            if of_log_prob is not None:
                torch.mul(probabilities, -of_log_prob[piece, None], out=of_logits)
                of_logits.scatter_add_(1, chosen[piece, None], of_log_prob[piece, None].to(of_logits.dtype))
            if of_entropy is not None:
                surprise = log_probs.clamp_min(-1e30) + entropies[piece, None]
                of_logits.addcmul_(probabilities, surprise * of_entropy[piece, None], value=-1)
            of_logits = (of_logits if ctx.temperature == 1 else of_logits / ctx.temperature).to(features.dtype)
            if of_features is not None and transposed is not None:
                of_features[piece] = linear(of_logits, transposed)
            if ctx.needs_input_grad[1]:
                part = linear(of_logits.T.contiguous(), features[piece].T.contiguous())
                of_weight = part if of_weight is None else of_weight.add_(part)
            if bias is not None and ctx.needs_input_grad[2]:
                part = of_logits.sum(0)
                of_bias = part if of_bias is None else of_bias.add_(part)
        return of_features, of_weight, of_bias, None, None, None
