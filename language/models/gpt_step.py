"""One more token through a GPT, for decoding: what `Block.forward` computes, with less around the products.

With few rows a step is short, and calls of modules, views, masks and copies take as long as its products. Here the
weights are collected once, rows are `[N, width]`, and keys and values go straight into the cache. `GPT.forward` is the
definition; a test holds the two equal.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from language.models.attention import KeyValueCache, SelfAttention
from language.models.blocks import Block, FeedForward, activate
from language.models.linear import Linear

if TYPE_CHECKING:
    from language.models.gpt import GPT

_STEPS_OF_A_COPY = 32
"""Laying out a matrix anew takes as long as it saves in 10 to 15 steps (AMD EPYC, one thread)."""
_FEW_ROWS = 16
"""With more, a product takes the same time in both layouts, or nearly so."""


@dataclass(frozen=True, slots=True)
class _Product:
    """xM + b."""

    matrix: Tensor
    """`[in, out]`."""
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return torch.mm(x, self.matrix) if self.bias is None else torch.addmm(self.bias, x, self.matrix)


@dataclass(frozen=True, slots=True)
class _Layer:
    inward: _Product
    outward: _Product
    attention_norm: tuple[Any, ...]
    """What `torch.layer_norm` takes behind its input."""
    feed_forward_norm: tuple[Any, ...]
    feed_forward: tuple[_Product, _Product] | None
    """None where another module than `FeedForward` stands in its place."""
    block: Block


@dataclass(frozen=True, slots=True)
class GPTState:
    """Where a generation is."""

    cache: KeyValueCache
    stepper: "GPTStepper | None"
    """None where the modules themselves must be called."""


class GPTStepper:
    """The weights of a GPT in evaluation mode, laid out for single tokens. It is made anew for each generation."""

    def __init__(self, model: "GPT", rows: int, steps: int) -> None:
        """Collect the weights.

        Args:
            model: a model for which `can_step` holds.
            rows: how many there are at the beginning.
            steps: how many tokens are to come at most; with many, matrices are copied into the quicker layout.
        """
        weight = model.tokens.weight
        self._copied = rows <= _FEW_ROWS and steps >= _STEPS_OF_A_COPY and weight.device.type == "cpu"
        self._heads, self._width = model.config.heads, model.config.width
        self._scale = (self._width // self._heads) ** -0.5
        self._activation, self._post = model.config.activation, model.config.norm == "post"
        self._tokens, self._positions = weight, model.positions.weight
        self._layers = [self._layer(block) for block in model.blocks if isinstance(block, Block)]
        self._final_norm = _norm(model.final_norm) if isinstance(model.final_norm, nn.LayerNorm) else None
        self._output = self._product(weight, None)

    def _layer(self, block: Block) -> _Layer:
        attention, feed, parts = block.attention, block.feed_forward, None
        if isinstance(feed, FeedForward):
            parts = self._product_of(feed.inward), self._product_of(feed.outward)
        return _Layer(
            self._product_of(attention.inward), self._product_of(attention.outward),
            _norm(block.attention_norm), _norm(block.feed_forward_norm), parts, block,
        )  # fmt: skip

    def _product_of(self, module: nn.Linear) -> _Product:
        return self._product(module.weight, module.bias)

    def _product(self, weight: Tensor, bias: Tensor | None) -> _Product:
        # A product of few rows is bound by reading the matrix, which is quickest along its longer side.
        matrix = weight.detach().t()
        return _Product(matrix.contiguous() if self._copied and matrix.shape[1] > matrix.shape[0] else matrix, bias)

    def __call__(self, tokens: Tensor, cache: KeyValueCache) -> Tensor:
        """Append tokens `[N]`, one to each row; logits `[N, V]` of the next."""
        x = self._tokens.index_select(0, tokens)
        if cache.all_valid:
            x += self._positions[cache.length]
        else:
            x += self._positions.index_select(0, cache.positions)
        bias = None if cache.all_valid else self._bias(cache, x.dtype)
        for number, layer in enumerate(self._layers):
            if self._post:
                x = torch.layer_norm(x + self._attention(layer, x, cache, number, bias), *layer.attention_norm)
                x = torch.layer_norm(x + self._feed(layer, x), *layer.feed_forward_norm)
            else:
                x += self._attention(layer, torch.layer_norm(x, *layer.attention_norm), cache, number, bias)
                x += self._feed(layer, torch.layer_norm(x, *layer.feed_forward_norm))
        return self._output(x if self._final_norm is None else torch.layer_norm(x, *self._final_norm))

    def _bias(self, cache: KeyValueCache, dtype: torch.dtype) -> Tensor:
        """`[N heads, 1, length + 1]`, what is added to the scores: -inf at padding."""
        padding = ~cache.valid[:, None, None, : cache.length + 1]
        bias = torch.zeros_like(padding, dtype=dtype).masked_fill_(padding, -torch.inf)
        return bias.expand(-1, self._heads, -1, -1).flatten(0, 1)

    def _attention(
        self, layer: _Layer, x: Tensor, cache: KeyValueCache, number: int, bias: Tensor | None
    ) -> Tensor:  # fmt: skip
        rows, heads = len(x), self._heads
        whole = layer.inward(x).view(rows, 3, heads, -1)
        keys, values = cache.append(number, whole[:, 1:])
        queries = (whole[:, 0] * self._scale).view(rows * heads, 1, -1)
        keys = keys.transpose(1, 2)
        # For one query a head, two products are quicker than the fused kernel.
        scores = torch.bmm(queries, keys) if bias is None else torch.baddbmm(bias, queries, keys)
        return layer.outward(torch.bmm(scores.softmax(-1), values).view(rows, -1))

    def _feed(self, layer: _Layer, x: Tensor) -> Tensor:
        if layer.feed_forward is None:
            return layer.block.feed(x[:, None])[:, 0]
        inward, outward = layer.feed_forward
        return outward(activate(inward(x), self._activation))


def can_step(model: "GPT") -> bool:
    """Whether the model is made of the parts whose computation is repeated here.

    It is not in training mode, where there is dropout, or where somebody changed its parts or hooked onto them.
    """
    if model.training:
        return False
    parts: list[nn.Module] = [model.tokens, model.positions, model.final_norm]
    for block in model.blocks:
        if not isinstance(block, Block):
            return False
        parts += [block, block.attention_norm, block.feed_forward_norm, *block.attention.modules()]
        if isinstance(block.feed_forward, FeedForward):
            parts += block.feed_forward.modules()
    return all(type(part) in _KNOWN and not part._forward_hooks and not part._forward_pre_hooks for part in parts)


_KNOWN = {nn.Embedding, nn.LayerNorm, nn.Identity, Block, SelfAttention, FeedForward, Linear}


def _norm(norm: nn.LayerNorm) -> tuple[Any, ...]:
    return norm.normalized_shape, norm.weight, norm.bias, norm.eps
