"""The Transformer (Vaswani et al. 2017, "Attention is all you need"): an encoder, and a decoder that looks at it.

Layer normalisation stands after each sum, as in the paper, and then nowhere else: no norm ends the encoder or the
decoder (`torch.nn.Transformer` has both). With normalisation before each part there is one at either end.
"""

import math
from dataclasses import dataclass
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.models.attention import AttentionMask, KeyValueCache
from language.models.blocks import Block, BlockConfig, DecoderBlock, Norm, check_length, positions_of, sinusoids
from language.models.linear import Linear, linear


@dataclass(frozen=True)
class TransformerConfig:
    """The size of a Transformer; the defaults are those of base (table 3)."""

    vocabulary_size: int = 37_000
    """Tokens, which both languages share (section 5.1)."""
    context: int = 512
    """The longest sequence, in tokens; the positions are computed, so no weight depends on it."""
    layers: int = 6
    """Layers of the encoder, and as many of the decoder."""
    heads: int = 8
    """Attention heads of a layer; they divide the width."""
    width: int = 512
    """Numbers a token."""
    feed_forward_width: int | None = None
    """Hidden units of the feed-forward networks; 4 × width where it is not given."""
    norm: Norm = "post"
    """Layer normalisation after each sum, as in the paper, or before each part and at the end."""
    dropout: float = 0.1
    """Of embeddings and of what each part adds (section 5.4)."""
    attention_dropout: float = 0.0
    """Of attention's weights; the paper names none."""
    norm_epsilon: float = 1e-6
    """Added to the variance in layer normalisation, as in the authors' tensor2tensor."""

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "context", "layers", "width"):
            if getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}.")
        self.block()

    def block(self) -> BlockConfig:
        """A layer's configuration. Raises RllabError if the heads do not divide the width."""
        return BlockConfig(
            self.width, self.heads, self.feed_forward_width or 4 * self.width, "relu", self.norm, self.dropout,
            self.attention_dropout, self.norm_epsilon,
        )  # fmt: skip

    @classmethod
    def base(cls, vocabulary_size: int = 37_000) -> Self:
        """63,082,496 parameters, 44,138,496 of them not embeddings."""
        return cls(vocabulary_size)

    @classmethod
    def big(cls, vocabulary_size: int = 37_000) -> Self:
        """214,245,376 parameters; the dropout is English to German's (table 3; 0.1 for French)."""
        return cls(vocabulary_size, heads=16, width=1024, dropout=0.3)


@dataclass
class DecoderState:
    """What a decoder has read, and what it looks at."""

    cache: KeyValueCache
    """Of the target's tokens."""
    sources: Tensor
    """`[M]`, the number of each row's source."""
    memory: list[tuple[Tensor, Tensor]]
    """For each layer, keys and values `[M, heads, S, D]` of the sources."""
    allowed: Tensor | None
    """Bool `[M, 1, 1, S]`, where a source has tokens; None where all are as long."""

    def select(self, rows: Tensor) -> "DecoderState":
        """The state of some rows `[M]`."""
        sources = self.sources[rows]
        if torch.equal(sources, self.sources):  # beams of one sentence changed places: what they look at is the same
            return DecoderState(self.cache.select(rows), sources, self.memory, self.allowed)
        memory = [(keys[rows], values[rows]) for keys, values in self.memory]
        return DecoderState(
            self.cache.select(rows), sources, memory, None if self.allowed is None else self.allowed[rows]
        )


class Transformer(nn.Module):
    """Encoder and decoder; the token embeddings of both and the output's weights are one matrix (section 3.4)."""

    positions: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        block = config.block()
        self.tokens = nn.Embedding(config.vocabulary_size, config.width)
        # Kept with the weights: a model that is loaded is made without memory, and buffers outside of them stay so.
        self.register_buffer("positions", sinusoids(config.context, config.width))
        self.encoder = nn.ModuleList(Block(block) for _ in range(config.layers))
        self.decoder = nn.ModuleList(DecoderBlock(block) for _ in range(config.layers))
        pre = config.norm == "pre"
        self.encoder_norm = nn.LayerNorm(config.width, config.norm_epsilon) if pre else nn.Identity()
        self.decoder_norm = nn.LayerNorm(config.width, config.norm_epsilon) if pre else nn.Identity()
        self._initialise()

    @property
    def vocabulary_size(self) -> int:
        """Tokens that the model knows."""
        return self.config.vocabulary_size

    def forward(
        self, source: Tensor, target: Tensor, source_valid: Tensor | None = None, target_valid: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """Logits of each next token of the target (teacher forcing).

        Args:
            source: int64 `[N, S]`.
            target: int64 `[N, T]`, what the decoder is given: a begin token and the tokens before the last.
            source_valid: bool `[N, S]`, false in padding, which is on the right; None if there is none.
            target_valid: bool `[N, T]`; not needed for padding on the right, which no token before it looks at.

        Returns:
            `[N, T, V]`; what it has at padding means nothing.

        Raises:
            RllabError: a sequence is longer than the context.
        """
        memory = self.memory(self.encode(source, source_valid))
        x = self._embedded(target, target_valid)
        mask, memory_mask = AttentionMask.of(target_valid, causal=True), AttentionMask.of(source_valid)
        for block, looked_at in zip(self.decoder, memory, strict=True):
            x = block(x, mask, looked_at, memory_mask)
        return self.logits(x)

    def encode(self, source: Tensor, valid: Tensor | None = None) -> Tensor:
        """What the encoder makes of a source `[N, S]`: `[N, S, width]`."""
        x, mask = self._embedded(source, valid), AttentionMask.of(valid)
        for block in self.encoder:
            x = block(x, mask)
        out: Tensor = self.encoder_norm(x)
        return out

    def memory(self, encoded: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each layer of the decoder, the keys and values `[N, heads, S, D]` of what the encoder made."""
        return [cast(DecoderBlock, block).cross.memory(encoded) for block in self.decoder]

    def logits(self, x: Tensor) -> Tensor:
        """What the last layer gave, `[..., width]`, to logits `[..., V]`."""
        return linear(self.decoder_norm(x), self.tokens.weight)

    def bound(self, source: Tensor, valid: Tensor | None = None) -> "BoundTransformer":
        """The decoder as a language model of the translations of these sources `[N, S]`, to decode with.

        Raises RllabError if a source is longer than the context.
        """
        return BoundTransformer(self, source, valid)

    def _embedded(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        check_length(tokens.shape[1], self.config.context)
        return self.embedded_at(tokens, positions_of(valid, (tokens.shape[0], tokens.shape[1]), tokens.device))

    def embedded_at(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Tokens `[N, T]` at places `[N or 1, T]` as vectors, of size √width times the matrix's (section 3.4)."""
        x = self.tokens(tokens) * math.sqrt(self.config.width) + self.positions[places]
        return functional.dropout(x, self.config.dropout, self.training)

    def _initialise(self) -> None:
        """Glorot's uniform weights for each map by itself; embeddings so that √width times them have variance 1."""
        nn.init.normal_(self.tokens.weight, std=self.config.width**-0.5)
        for name, module in self.named_modules():
            if not isinstance(module, Linear):
                continue
            # Queries, keys and values are one matrix, but three maps.
            joined = 2 if name.endswith("key_value") else 3 if name.endswith("attention.inward") else 1
            for part in module.weight.data.chunk(joined):
                nn.init.xavier_uniform_(part)
            nn.init.zeros_(module.bias)


class BoundTransformer:
    """A Transformer and the sources that it translates, as `language.decoding.Decodable`.

    Row n of the prompts continues the translation of source n.
    """

    def __init__(self, model: Transformer, source: Tensor, valid: Tensor | None) -> None:
        self.model = model
        self._allowed = AttentionMask.of(valid).allowed
        with torch.no_grad():
            self._memory = model.memory(model.encode(source, valid))

    @property
    def vocabulary_size(self) -> int:
        """Tokens that the model knows."""
        return self.model.vocabulary_size

    @property
    def context(self) -> int:
        """The longest translation, in tokens."""
        return self.model.config.context

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""
        return self.model.training

    def begin(self, tokens: Tensor, valid: Tensor, capacity: int) -> tuple[Tensor, DecoderState]:
        """Read the beginnings `[N, P]` of the translations; see `Decodable`.

        Raises RllabError if there are not as many as sources, or one may become longer than the context.
        """
        sources = len(self._memory[0][0])
        if len(tokens) != sources:
            raise RllabError(f"There are {len(tokens)} prompts for {sources} sources; give one for each.")
        check_length(int(valid.sum(1).max()) + capacity - tokens.shape[1], self.context)
        rows = torch.arange(sources, device=tokens.device)
        state = DecoderState(KeyValueCache.empty(valid, capacity), rows, self._memory, self._allowed)
        places = positions_of(valid, (tokens.shape[0], tokens.shape[1]), tokens.device)
        x = self._read(self.model.embedded_at(tokens, places), AttentionMask.of(valid, causal=True), state)
        state.cache.length, state.cache.positions = tokens.shape[1], valid.sum(1)
        return self.model.logits(x[:, -1]), state

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Append a token to each row: `[M]` to logits `[M, V]` of the next. The state changes in place."""
        cache = state.cache
        seen = cache.valid[:, : cache.length + 1]
        mask = AttentionMask(allowed=None if cache.all_valid else seen[:, None, None, :])
        x = self._read(self.model.embedded_at(tokens[:, None], cache.positions[:, None]), mask, state)
        cache.length += 1
        cache.positions = cache.positions + 1
        return self.model.logits(x[:, 0])

    def select(self, state: DecoderState, rows: Tensor) -> DecoderState:
        """The state of some rows `[M]`, for beams."""
        return state.select(rows)

    def _read(self, x: Tensor, mask: AttentionMask, state: DecoderState) -> Tensor:
        looking = AttentionMask(allowed=state.allowed)
        for layer, (block, memory) in enumerate(zip(self.model.decoder, state.memory, strict=True)):
            x = block(x, mask, memory, looking, state.cache, layer)
        return x
