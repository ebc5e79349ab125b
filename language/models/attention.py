"""Attention (Vaswani et al. 2017, "Attention is all you need", section 3.2), its masks, the cache of keys and values.

`reference_attention` is the paper's formula; the models use torch's fused kernels, which a test holds equal to it.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.models.linear import Linear


def reference_attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(QKᵀ/√d)V, as the paper's equation 1 has it.

    Args:
        queries: `[..., Q, D]`.
        keys: `[..., K, D]`.
        values: `[..., K, D]`.
        mask: bool `[..., Q, K]`, true where a query may look.

    Returns:
        `[..., Q, D]`.
    """
    return reference_weights(queries, keys, mask) @ values


def reference_weights(queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(QKᵀ/√d), `[..., Q, K]`: how much each query looks at each key; arguments as of `reference_attention`."""
    scores = queries @ keys.transpose(-2, -1) / math.sqrt(queries.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return torch.softmax(scores, -1)


@dataclass(frozen=True)
class AttentionMask:
    """Which keys a query may look at."""

    causal: bool = False
    """Each query looks at keys up to its own place; keys and queries are then the same sequence."""
    allowed: Tensor | None = None
    """Bool `[N, 1, Q or 1, K]`, true where it may look; None where it may look everywhere. It includes `causal`."""

    @classmethod
    def of(cls, valid: Tensor | None, causal: bool = False) -> "AttentionMask":
        """The mask of sequences with padding.

        Args:
            valid: bool `[N, K]`, true where a token is; None if all are.
            causal: no query looks ahead.

        A padded query may look at its own place, so that no row of the softmax is empty (0/0); what it gives is not
        used.
        """
        if valid is None or bool(valid.all()):
            return cls(causal)
        keys = valid[:, None, None, :]
        if not causal:
            return cls(False, keys)
        length = valid.shape[1]
        ones = torch.ones(length, length, dtype=torch.bool, device=valid.device)
        return cls(True, (keys & ones.tril()) | torch.eye(length, dtype=torch.bool, device=valid.device))


_MOST_SCORES = 512 * 512
"""Of one head: beyond it the fused kernel, which keeps no scores, is faster again."""


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: AttentionMask, dropout: float = 0.0) -> Tensor:
    """Attention by torch's fused kernel, or by products where that is slow; shapes as for `reference_attention`."""
    if (
        queries.dtype == torch.bfloat16
        and queries.device.type == "cpu"
        and queries.requires_grad
        and queries.shape[-2] * keys.shape[-2] <= _MOST_SCORES
    ):
        return _attend_by_products(queries, keys, values, mask, dropout)
    causal = mask.causal and mask.allowed is None
    return functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask.allowed, dropout_p=dropout, is_causal=causal
    )


def _attend_by_products(queries: Tensor, keys: Tensor, values: Tensor, mask: AttentionMask, dropout: float) -> Tensor:
    """The formula in batched products, which processors with units for bfloat16 are good at.

    The fused kernel's derivatives are not made for these units: with 256 tokens a row it takes twice as long as this,
    forwards and backwards, with 48 nine times. Scores are rounded to bfloat16 here, which has 8 bits.
    """
    q, k, v = (each.flatten(0, -3) for each in (queries, keys, values))
    scale = 1 / math.sqrt(queries.shape[-1])
    scores_shape = (*queries.shape[:-1], keys.shape[-2])
    forbidden: Tensor | None = None
    if mask.allowed is not None:
        forbidden = ~mask.allowed.expand(scores_shape).flatten(0, -3)
    elif mask.causal:
        forbidden = torch.ones(scores_shape[-2:], dtype=torch.bool).triu(1)
    if forbidden is None:
        scores = torch.bmm(q * scale, k.transpose(1, 2))
    else:
        bias = torch.zeros(forbidden.shape, dtype=q.dtype).masked_fill_(forbidden, -math.inf)
        scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale)
    weights = functional.dropout(torch.softmax(scores, -1), dropout)
    return torch.bmm(weights, v).view(queries.shape)


@dataclass
class KeyValueCache:
    """Keys and values of tokens that were seen, so that the next one needs itself only.

    Memory for `capacity` tokens is taken at once and written in place: a cache that grows by concatenation copies
    itself with every token.
    """

    valid: Tensor
    """Bool `[N, capacity]`, where a token is."""
    positions: Tensor
    """`[N]`, the position of the next token of each row."""
    length: int = 0
    """Columns that are in use, the same for all rows."""
    all_valid: bool = False
    """Whether no row has padding, so that no mask is needed."""
    layers: list[Tensor] = field(default_factory=list)
    """For each layer keys and values, `[2, N, heads, capacity, D]`."""

    @classmethod
    def empty(cls, valid: Tensor, capacity: int) -> "KeyValueCache":
        """For prompts `valid` `[N, P]`, padded on the left. Raises RllabError if they do not fit into the capacity."""
        rows, length = valid.shape
        everything = bool(valid.all())
        if length > capacity:
            raise RllabError(f"A cache of {capacity} tokens cannot hold prompts of {length}; make it larger.")
        whole = torch.ones(rows, capacity, dtype=torch.bool, device=valid.device)
        whole[:, :length] = valid
        return cls(whole, torch.zeros(rows, dtype=torch.int64, device=valid.device), all_valid=everything)

    @property
    def capacity(self) -> int:
        """How many tokens a row may have, padding included."""
        return self.valid.shape[1]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put the keys and values `[N, heads, T, D]` of new tokens behind those of a layer; returns all of them."""
        if layer == len(self.layers):
            rows, heads, _, width = keys.shape
            self.layers.append(keys.new_empty(2, rows, heads, self.capacity, width))
        end = self.length + keys.shape[2]
        self._check_room(end)
        whole = self.layers[layer]
        whole[0, :, :, self.length : end], whole[1, :, :, self.length : end] = keys, values
        return whole[0, :, :, :end], whole[1, :, :, :end]

    def append(self, layer: int, both: Tensor) -> tuple[Tensor, Tensor]:
        """`write` for one token, with little around it: keys and values `[N, 2, heads, D]` in one tensor.

        Returns:
            All keys and all values, `[N heads, length + 1, D]` each.
        """
        self._check_room(self.length + 1)
        whole = self.layers[layer]
        whole.select(3, self.length).copy_(both.transpose(0, 1))
        keys, values = whole.flatten(1, 2).narrow(2, 0, self.length + 1).unbind(0)
        return keys, values

    def _check_room(self, length: int) -> None:
        if length > self.capacity:
            raise RllabError(f"The cache is full: it was made for {self.capacity} tokens a row.")

    def select(self, rows: Tensor) -> "KeyValueCache":
        """The cache of some rows `[M]`, in that order; a row may come more than once."""
        layers = [self._selected(whole, rows) for whole in self.layers]
        return KeyValueCache(self.valid[rows], self.positions[rows], self.length, self.all_valid, layers)

    def _selected(self, whole: Tensor, rows: Tensor) -> Tensor:
        chosen = whole.new_empty(2, len(rows), *whole.shape[2:])
        chosen[:, :, :, : self.length] = whole[:, rows, :, : self.length]  # what is not in use need not be copied
        return chosen


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself (section 3.2.2), queries, keys and values by one product."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads, self.dropout = heads, dropout
        self.inward = Linear(width, 3 * width, bias)
        """Queries, keys and values, in that order."""
        self.outward = Linear(width, width, bias)

    def forward(
        self, x: Tensor, mask: AttentionMask, cache: KeyValueCache | None = None, layer: int = 0
    ) -> Tensor:  # fmt: skip
        """`[N, T, width]` to the same shape. With a cache, earlier tokens are looked at too, and these are added."""
        queries, keys, values = self.queries_keys_values(x)
        if cache is not None:
            keys, values = cache.write(layer, keys, values)
        mixed = attend(queries, keys, values, mask, self.dropout if self.training else 0.0)
        out: Tensor = self.outward(mixed.transpose(1, 2).reshape(x.shape))
        return out

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of `[N, T, width]`, `[N, heads, T, D]` each."""
        rows, length, width = x.shape
        whole = self.inward(x).view(rows, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        queries, keys, values = whole.unbind(0)
        return queries, keys, values


class CrossAttention(nn.Module):
    """Multi-head attention of a sequence to another, the encoder's (section 3.2.3)."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads, self.dropout = heads, dropout
        self.query = Linear(width, width, bias)
        self.key_value = Linear(width, 2 * width, bias)
        self.outward = Linear(width, width, bias)

    def memory(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values `[N, heads, S, D]` of the encoder's output `[N, S, width]`: once for all steps."""
        rows, length, width = encoded.shape
        both = self.key_value(encoded).view(rows, length, 2, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        keys, values = both.unbind(0)
        return keys, values

    def forward(self, x: Tensor, memory: tuple[Tensor, Tensor], mask: AttentionMask) -> Tensor:
        """`[N, T, width]` to the same shape."""
        mixed = attend(self.queries(x), *memory, mask, self.dropout if self.training else 0.0)
        out: Tensor = self.outward(mixed.transpose(1, 2).reshape(x.shape))
        return out

    def queries(self, x: Tensor) -> Tensor:
        """`[N, heads, T, D]` of `[N, T, width]`."""
        rows, length, width = x.shape
        queries: Tensor = self.query(x).view(rows, length, self.heads, width // self.heads).transpose(1, 2)
        return queries


def check_heads(width: int, heads: int) -> None:
    """Raise RllabError unless the heads divide the width."""
    if heads < 1 or width % heads:
        raise RllabError(f"{heads} heads do not divide a width of {width}; choose a number of heads that does.")
