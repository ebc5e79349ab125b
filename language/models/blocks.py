"""A Transformer's layer (Vaswani et al. 2017, section 3.1): attention and a feed-forward network, each with a residual.

Layer normalisation stands after each sum, as in the paper, GPT-1 and BERT, or before each part, as in GPT-2.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.models.attention import AttentionMask, CrossAttention, KeyValueCache, SelfAttention, check_heads
from language.models.linear import Linear

Activation: TypeAlias = Literal["relu", "gelu", "gelu_tanh"]
"""ReLU (Transformer), GELU (BERT), or its approximation by tanh (GPT)."""
Norm: TypeAlias = Literal["post", "pre"]
"""Layer normalisation after each sum, or before each part."""


@dataclass(frozen=True)
class BlockConfig:
    """The size and the order of a layer."""

    width: int
    """Numbers a token."""
    heads: int
    """Attention heads; they divide the width."""
    feed_forward_width: int
    """Hidden units of the feed-forward network."""
    activation: Activation
    """Of the feed-forward network."""
    norm: Norm
    """Where layer normalisation stands."""
    dropout: float
    """Of the result of each part, before it is added."""
    attention_dropout: float
    """Of attention's weights."""
    norm_epsilon: float = 1e-5
    """Added to the variance."""
    bias: bool = True
    """Whether linear maps have one."""

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)
        if self.feed_forward_width < 1:
            raise RllabError(f"feed_forward_width must be at least 1, not {self.feed_forward_width}.")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}.")


class FeedForward(nn.Module):
    """Two linear maps with an activation between, token by token (section 3.3)."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.inward = Linear(config.width, config.feed_forward_width, config.bias)
        self.outward = Linear(config.feed_forward_width, config.width, config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` to the same shape."""
        out: Tensor = self.outward(activate(self.inward(x), self.activation))
        return out


def activate(x: Tensor, activation: Activation) -> Tensor:
    """An activation by its name."""
    if activation == "relu":
        return functional.relu(x)
    return functional.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


class Block(nn.Module):
    """A layer of an encoder, or of a decoder without an encoder.

    `feed_forward` may be another module from `[N, T, width]` to the same: one that gives a pair, such as a mixture of
    experts, has the second part put on the list `reports`.
    """

    def __init__(self, config: BlockConfig, feed_forward: nn.Module | None = None) -> None:
        super().__init__()
        self.post = config.norm == "post"
        self.dropout = config.dropout
        self.attention = SelfAttention(config.width, config.heads, config.attention_dropout, config.bias)
        self.attention_norm = nn.LayerNorm(config.width, config.norm_epsilon)
        self.feed_forward = FeedForward(config) if feed_forward is None else feed_forward
        self.feed_forward_norm = nn.LayerNorm(config.width, config.norm_epsilon)

    def forward(
        self, x: Tensor, mask: AttentionMask, cache: KeyValueCache | None = None, layer: int = 0,
        valid: Tensor | None = None, reports: list[Any] | None = None,
    ) -> Tensor:  # fmt: skip
        """`[N, T, width]` to the same shape.

        Args:
            x: what comes in.
            mask: where each query may look.
            cache: earlier tokens' keys and values, to which these are added.
            layer: this layer's number in the cache.
            valid: bool `[N, T]`, for a feed-forward part that gives reports: only these tokens count there.
            reports: where its reports go.
        """
        if self.post:
            x = self.attention_norm(x + self._dropped(self.attention(x, mask, cache, layer)))
            return cast(Tensor, self.feed_forward_norm(x + self._dropped(self.feed(x, valid, reports))))
        x = x + self._dropped(self.attention(self.attention_norm(x), mask, cache, layer))
        return x + self._dropped(self.feed(self.feed_forward_norm(x), valid, reports))

    def feed(self, x: Tensor, valid: Tensor | None = None, reports: list[Any] | None = None) -> Tensor:
        """The feed-forward part alone, without its residual; arguments as of `forward`."""
        if isinstance(self.feed_forward, FeedForward):
            return cast(Tensor, self.feed_forward(x))
        out, report = self.feed_forward(x, valid)
        if reports is not None:
            reports.append(report)
        return cast(Tensor, out)

    def _dropped(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training) if self.dropout else x


class DecoderBlock(nn.Module):
    """A layer of a decoder that also looks at an encoder's output."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.post = config.norm == "post"
        self.dropout = config.dropout
        self.attention = SelfAttention(config.width, config.heads, config.attention_dropout, config.bias)
        self.attention_norm = nn.LayerNorm(config.width, config.norm_epsilon)
        self.cross = CrossAttention(config.width, config.heads, config.attention_dropout, config.bias)
        self.cross_norm = nn.LayerNorm(config.width, config.norm_epsilon)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.width, config.norm_epsilon)

    def forward(
        self, x: Tensor, mask: AttentionMask, memory: tuple[Tensor, Tensor], memory_mask: AttentionMask,
        cache: KeyValueCache | None = None, layer: int = 0,
    ) -> Tensor:  # fmt: skip
        """`[N, T, width]` to the same shape; `memory` is `self.cross.memory` of the encoder's output."""
        if self.post:
            x = self.attention_norm(x + self._dropped(self.attention(x, mask, cache, layer)))
            x = self.cross_norm(x + self._dropped(self.cross(x, memory, memory_mask)))
            return cast(Tensor, self.feed_forward_norm(x + self._dropped(self.feed_forward(x))))
        x = x + self._dropped(self.attention(self.attention_norm(x), mask, cache, layer))
        x = x + self._dropped(self.cross(self.cross_norm(x), memory, memory_mask))
        return x + self._dropped(self.feed_forward(self.feed_forward_norm(x)))

    def _dropped(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training) if self.dropout else x


def positions_of(valid: Tensor | None, shape: tuple[int, int], device: torch.device) -> Tensor:
    """The positions `[N or 1, T]` of tokens, counted from each row's first real one; 0 in padding before it."""
    if valid is None:
        return torch.arange(shape[1], device=device)[None]
    return (valid.cumsum(1) - 1).clamp_(min=0)


def sinusoids(length: int, width: int) -> Tensor:
    """The paper's positions (section 3.5): sin in even places and cos in odd ones of `[length, width]`."""
    place = torch.arange(length, dtype=torch.float64)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-torch.log(torch.tensor(10_000.0)) / width))
    table = torch.empty(length, width, dtype=torch.float64)
    table[:, 0::2] = torch.sin(place * rate)
    table[:, 1::2] = torch.cos(place * rate[: width // 2])
    return table.float()


def check_length(length: int, context: int) -> None:
    """Raise RllabError if a sequence has more tokens than a model has positions."""
    if length > context:
        raise RllabError(
            f"A sequence of {length:,} tokens is longer than the model's {context:,} positions; cut it, or make the "
            "model with a larger context."
        )
