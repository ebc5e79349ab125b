"""GPT (Radford et al. 2018, "Improving language understanding by generative pre-training", section 3.1 and 4.1).

A Transformer's decoder without an encoder: learned positions, masked attention, GELU, weights of the output tied to the
token embeddings. GPT-2's order of layers (Radford et al. 2019, section 2.3), normalisation before each part and once
more at the end, is an option.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.models.attention import AttentionMask, KeyValueCache
from language.models.blocks import Activation, Block, BlockConfig, Norm, check_length, positions_of
from language.models.gpt_step import GPTState, GPTStepper, can_step
from language.models.layer_groups import by_layer
from language.models.linear import Linear, linear
from language.models.mixture_of_experts import MixtureConfig, MixtureOfExperts


@dataclass(frozen=True)
class GPTConfig:
    """The size of a GPT; the defaults are GPT-1's."""

    vocabulary_size: int = 40_478
    """Tokens; 40,000 merges and the 478 symbols they begin with (section 4.1)."""
    context: int = 512
    """The longest sequence, in tokens."""
    layers: int = 12
    """Transformer layers."""
    heads: int = 12
    """Attention heads of a layer; they divide the width."""
    width: int = 768
    """Numbers a token."""
    feed_forward_width: int | None = None
    """Hidden units of the feed-forward networks; 4 × width where it is not given."""
    activation: Activation = "gelu_tanh"
    """Of the feed-forward networks; the released code has GELU's approximation by tanh."""
    norm: Norm = "post"
    """`post` as GPT-1, `pre` as GPT-2, which has one more normalisation at the end."""
    dropout: float = 0.1
    """Of embeddings, attention and residuals (section 4.1)."""
    norm_epsilon: float = 1e-5
    """Added to the variance in layer normalisation."""
    initial_std: float = 0.02
    """Of the weights at first (section 4.1). With `norm` `pre`, maps into the residual have it over √(2 layers)."""
    experts: int = 0
    """Experts of a mixture (Shazeer et al. 2017) in place of feed-forward networks, as wide as these; 0: none."""
    experts_a_token: int = 2
    """k, how many of them a token is sent to (GShard, Lepikhin et al. 2020, section 2.2: 2)."""
    experts_every: int = 2
    """Every so manieth layer has experts (GShard, section 2.2: every other)."""
    experts_loss: float = 0.1
    """w of the losses that balance them, of importance and of load (Shazeer et al., appendix C.1)."""

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "context", "layers", "width"):
            if getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}.")
        self.block()
        if self.experts:
            self.mixture()
            if not 1 <= self.experts_every <= self.layers:
                raise RllabError(f"experts_every must lie from 1 to {self.layers} layers, not {self.experts_every}.")

    def block(self) -> BlockConfig:
        """A layer's configuration. Raises RllabError if the heads do not divide the width."""
        return BlockConfig(
            self.width, self.heads, self.feed_forward_width or 4 * self.width, self.activation, self.norm,
            self.dropout, self.dropout, self.norm_epsilon,
        )  # fmt: skip

    def mixture(self) -> MixtureConfig:
        """That of the layers with experts. Raises RllabError if no such choice can be made."""
        return MixtureConfig(
            self.width, self.block().feed_forward_width, self.experts, self.experts_a_token,
            importance_weight=self.experts_loss, load_weight=self.experts_loss,
        )  # fmt: skip

    @classmethod
    def gpt_1(cls) -> Self:
        """116,534,784 parameters."""
        return cls()

    @classmethod
    def gpt_2(cls, size: str = "small") -> Self:
        """GPT-2 (Radford et al. 2019, table 2): `small` (124,439,808 parameters), `medium`, `large` or `xl`."""
        layers, heads, width = {
            "small": (12, 12, 768), "medium": (24, 16, 1024), "large": (36, 20, 1280), "xl": (48, 25, 1600),
        }[size]  # fmt: skip
        return cls(50_257, 1024, layers, heads, width, norm="pre")


class GPT(nn.Module):
    """The language model."""

    def __init__(self, config: GPTConfig, feed_forwards: dict[int, nn.Module] | None = None) -> None:
        """Make one with random weights.

        Args:
            config: its size.
            feed_forwards: by layer, modules in place of its feed-forward network, and of the configuration's experts;
                see `Block`.
        """
        super().__init__()
        self.config = config
        block = config.block()
        if feed_forwards is None and config.experts:
            with_experts = range(config.experts_every - 1, config.layers, config.experts_every)
            feed_forwards = {layer: MixtureOfExperts(config.mixture()) for layer in with_experts}
        self.tokens = nn.Embedding(config.vocabulary_size, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(block, (feed_forwards or {}).get(i)) for i in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width, config.norm_epsilon) if config.norm == "pre" else nn.Identity()
        self.apply(lambda module: initialise(module, config.initial_std))
        if config.norm == "pre":
            for name, parameter in self.named_parameters():
                if name.endswith("outward.weight"):
                    nn.init.normal_(parameter, std=config.initial_std / (2 * config.layers) ** 0.5)

    @property
    def vocabulary_size(self) -> int:
        """Tokens that the model knows."""
        return self.config.vocabulary_size

    @property
    def context(self) -> int:
        """The longest sequence, in tokens."""
        return self.config.context

    def features(
        self, tokens: Tensor, valid: Tensor | None = None, reports: list[Any] | None = None
    ) -> Tensor:  # fmt: skip
        """What the last layer gives, `[N, T, width]`, for tokens `[N, T]`; see `forward`."""
        check_length(tokens.shape[1], self.config.context)
        x = self._embedded(tokens, positions_of(valid, (tokens.shape[0], tokens.shape[1]), tokens.device))
        mask = AttentionMask.of(valid, causal=True)
        for block in self.blocks:
            x = block(x, mask, valid=valid, reports=reports)
        out: Tensor = self.final_norm(x)
        return out

    def logits(self, features: Tensor) -> Tensor:
        """`[..., width]` to logits `[..., V]`."""
        return linear(features, self.tokens.weight)

    def forward(self, tokens: Tensor, valid: Tensor | None = None, reports: list[Any] | None = None) -> Tensor:
        """Logits of each next token.

        Args:
            tokens: `[N, T]`.
            valid: bool `[N, T]`, false in padding, which may be on either side: it is not looked at, and positions are
                counted from each row's first real token.
            reports: where reports of the layers' feed-forward parts go; see `Block`.

        Returns:
            `[N, T, V]`; what it has at padding means nothing.

        Raises:
            RllabError: the sequence is longer than the context.
        """
        return self.logits(self.features(tokens, valid, reports))

    def _embedded(self, tokens: Tensor, positions: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(positions)
        return functional.dropout(x, self.config.dropout, self.training)

    def begin(self, tokens: Tensor, valid: Tensor, capacity: int) -> tuple[Tensor, GPTState]:
        """Read prompts, to go on from them by `step`.

        Args:
            tokens: `[N, P]`, padded on the left.
            valid: bool `[N, P]`.
            capacity: how many tokens a row will have at most, the padding included.

        Returns:
            Logits `[N, V]` of the next token, and the state.

        Raises:
            RllabError: a row may become longer than the context.
        """
        check_length(int(valid.sum(1).max()) + capacity - tokens.shape[1], self.config.context)
        cache = KeyValueCache.empty(valid, capacity)
        x = self._embedded(tokens, positions_of(valid, (tokens.shape[0], tokens.shape[1]), tokens.device))
        mask = AttentionMask.of(valid, causal=True)
        for layer, block in enumerate(self.blocks):
            x = block(x, mask, cache, layer, valid=valid)
        cache.length = tokens.shape[1]
        cache.positions = valid.sum(1)
        stepper = GPTStepper(self, len(tokens), capacity - tokens.shape[1]) if can_step(self) else None
        return self.logits(self.final_norm(x[:, -1])), GPTState(cache, stepper)

    @torch.no_grad()
    def step(self, tokens: Tensor, state: GPTState) -> Tensor:
        """Append a token to each row: `[N]` to logits `[N, V]` of the next. The state changes in place.

        What it gives has no derivative: the cache, which is written in place, could not have one.
        """
        cache = state.cache
        logits = self._stepped(tokens, cache) if state.stepper is None else state.stepper(tokens, cache)
        cache.length += 1
        cache.positions = cache.positions + 1
        return logits

    def _stepped(self, tokens: Tensor, cache: KeyValueCache) -> Tensor:
        """The next logits by the modules."""
        x = self._embedded(tokens[:, None], cache.positions[:, None])
        seen = cache.valid[:, : cache.length + 1]
        mask = AttentionMask(allowed=None if cache.all_valid else seen[:, None, None, :])
        for layer, block in enumerate(self.blocks):
            x = block(x, mask, cache, layer)
        return self.logits(self.final_norm(x[:, 0]))

    def select(self, state: GPTState, rows: Tensor) -> GPTState:
        """The state of some rows `[M]`, for beams."""
        return GPTState(state.cache.select(rows), state.stepper)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """What has a learning rate of its own, the lowest layer first; the output is last, with its embeddings."""
        return by_layer(self, self.blocks, [self.final_norm, self.tokens])

    def with_context(self, context: int) -> "GPT":
        """A copy with fewer positions. Raises RllabError for more."""
        if context > self.config.context:
            raise RllabError(f"The model has {self.config.context} positions, and cannot be given {context}.")
        other = GPT(replace(self.config, context=context))
        state = self.state_dict()
        other.load_state_dict(state | {"positions.weight": state["positions.weight"][:context]})
        return other


def initialise(module: nn.Module, std: float) -> None:
    """Normal weights, zero biases."""
    if isinstance(module, Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def next_token_loss(
    model: GPT, tokens: Tensor, valid: Tensor | None = None, reports: list[Any] | None = None
) -> Tensor:  # fmt: skip
    """The mean cross-entropy, in nats, of each token given those before it; tokens `[N, T + 1]`.

    The first token of a row is given. A target counts if it and the token before it are real.
    """
    features = model.features(tokens[:, :-1], None if valid is None else valid[:, :-1], reports)
    targets = tokens[:, 1:]
    if valid is not None:
        wanted = valid[:, 1:] & valid[:, :-1]
        features, targets = features[wanted], targets[wanted]
    return functional.cross_entropy(model.logits(features).flatten(0, -2), targets.flatten())


def token_log_probabilities(
    model: GPT, tokens: Tensor, valid: Tensor | None = None, temperature: float = 1.0, rows_at_once: int = 4096
) -> Tensor:  # fmt: skip
    """The log-probability of each token but the first given those before it: `[N, T]` to `[N, T - 1]`.

    The logits of the whole vocabulary are held for `rows_at_once` tokens at a time only (for the backward pass too, by
    computing them once more then).
    """
    features = model.features(tokens[:, :-1], None if valid is None else valid[:, :-1])
    flat, targets = features.flatten(0, 1), tokens[:, 1:].flatten()

    def chosen(some: Tensor, wanted: Tensor) -> Tensor:
        logits = model.logits(some) / temperature
        return logits.gather(1, wanted[:, None]).squeeze(1) - torch.logsumexp(logits, 1)

    parts = []
    for some, wanted in zip(torch.split(flat, rows_at_once), torch.split(targets, rows_at_once), strict=True):
        if torch.is_grad_enabled() and len(flat) > rows_at_once:
            parts.append(torch.utils.checkpoint.checkpoint(chosen, some, wanted, use_reentrant=False))
        else:
            parts.append(chosen(some, wanted))
    return torch.cat(parts).view(tokens.shape[0], -1)
