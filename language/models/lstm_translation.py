"""Translation by LSTMs with attention, which the Transformer is compared with.

Luong, Pham, Manning 2015, "Effective approaches to attention-based neural machine translation": global attention with
the bilinear score (section 3.1), here without input feeding (section 3.3), so that teacher forcing reads a whole
target in one call. The encoder reads in both directions, as in Bahdanau et al. 2014 (section 3.2).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from envs.errors import RllabError
from language.models.blocks import check_length
from language.models.linear import Linear, linear
from language.models.lstm import LSTM
from language.models.padding import aligned_left, check_right_padded, lengths_of

States = tuple[Tensor, Tensor]
"""h and c of an LSTM, each `[layers, N, width]`."""


@dataclass(frozen=True)
class LSTMTranslationConfig:
    """The size of the model; the defaults are near Luong's (4 layers of 1,000)."""

    vocabulary_size: int = 37_000
    """Tokens, which both languages share."""
    context: int = 512
    """The longest sequence, in tokens; nothing in the model depends on it."""
    layers: int = 4
    """Layers of the encoder, and as many of the decoder (section 4.1: 4)."""
    width: int = 1_000
    """Numbers a token, and of a state; even, since each direction of the encoder has half (section 4.1: 1,000)."""
    dropout: float = 0.2
    """Between layers and of embeddings (section 4.1: 0.2)."""

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "context", "layers", "width"):
            if getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.width % 2:
            raise RllabError(f"The width must be even, half for each direction of the encoder, not {self.width}.")
        if not 0 <= self.dropout < 1:
            raise RllabError(f"dropout must be at least 0 and below 1, not {self.dropout}.")

    def parameters(self) -> int:
        """How many numbers the model has."""
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in LSTMTranslation(self).parameters())

    def sized(self, parameters: int) -> "LSTMTranslationConfig":
        """With the width at which the model has as nearly so many parameters as it can."""
        low, high = 1, 2  # halves of widths
        while replace(self, width=2 * high).parameters() < parameters:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if replace(self, width=2 * middle).parameters() >= parameters else (middle, high)
        both = [replace(self, width=2 * half) for half in (low, high)]
        return min(both, key=lambda config: abs(config.parameters() - parameters))


@dataclass
class LSTMState:
    """What a decoder has read, and what it looks at."""

    states: States
    """Of the decoder."""
    keys: Tensor
    """`[M, S, width]`, what the encoder made, as the score needs it."""
    encoded: Tensor
    """`[M, S, width]`."""
    valid: Tensor
    """Bool `[M, S]`."""


class LSTMTranslation(nn.Module):
    """Encoder, decoder, attention; token embeddings and the output's weights are one matrix, as in the Transformer."""

    def __init__(self, config: LSTMTranslationConfig) -> None:
        super().__init__()
        self.config = config
        width, dropout = config.width, config.dropout if config.layers > 1 else 0.0
        self.tokens = nn.Embedding(config.vocabulary_size, width)
        self.encoder = LSTM(width, width // 2, config.layers, batch_first=True, dropout=dropout, bidirectional=True)
        self.decoder = LSTM(width, width, config.layers, batch_first=True, dropout=dropout)
        self.score = Linear(width, width, bias=False)
        self.combined = Linear(2 * width, width, bias=False)
        # Of size 1/√width: tied, a unit normal one would begin with logits of size √width.
        nn.init.normal_(self.tokens.weight, std=width**-0.5)

    @property
    def vocabulary_size(self) -> int:
        """Tokens that the model knows."""
        return self.config.vocabulary_size

    def forward(
        self, source: Tensor, target: Tensor, source_valid: Tensor | None = None, target_valid: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """Logits `[N, T, V]` of each next token of the target; see `Transformer.forward`.

        Padding is on the right; in the target it changes nothing before it, so `target_valid` is not looked at.

        Raises:
            RllabError: a sequence is longer than the context, or padded on the left.
        """
        check_length(target.shape[1], self.config.context)
        state = self.encode(source, source_valid)
        hidden, _ = self.decoder(self._embedded(target), state.states)
        return self._logits(hidden, state)

    def encode(self, source: Tensor, valid: Tensor | None = None) -> LSTMState:
        """What the encoder makes of a source `[N, S]`, and what the decoder begins with: the encoder's last states."""
        check_length(source.shape[1], self.config.context)
        valid = torch.ones_like(source, dtype=torch.bool) if valid is None else valid
        check_right_padded(valid)
        packed = pack_padded_sequence(
            self._embedded(source), lengths_of(valid).cpu(), batch_first=True, enforce_sorted=False
        )
        hidden, last = self.encoder(packed)
        encoded, _ = pad_packed_sequence(hidden, batch_first=True, total_length=source.shape[1])
        # [layers · 2, N, width / 2]: the directions of a layer stand one after the other.
        h, c = (torch.cat([part[0::2], part[1::2]], -1) for part in last)
        return LSTMState((h, c), self.score(encoded), encoded, valid)

    def bound(self, source: Tensor, valid: Tensor | None = None) -> "BoundLSTM":
        """The decoder as a language model of the translations of these sources `[N, S]`, to decode with.

        Raises RllabError if a source is longer than the context, or padded on the left.
        """
        return BoundLSTM(self, source, valid)

    def _embedded(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) * self.config.width**0.5
        return functional.dropout(x, self.config.dropout, self.training)

    def _logits(self, hidden: Tensor, state: LSTMState) -> Tensor:
        """States of the decoder `[N, T, width]` to `[N, T, V]`: tanh(W[context; state]), and the tied matrix."""
        scores = hidden @ state.keys.transpose(1, 2)
        weights = scores.masked_fill(~state.valid[:, None], -torch.inf).softmax(-1)
        attentional = torch.tanh(self.combined(torch.cat([weights @ state.encoded, hidden], -1)))
        return linear(functional.dropout(attentional, self.config.dropout, self.training), self.tokens.weight)


class BoundLSTM:
    """The model and the sources that it translates, as `language.decoding.Decodable`."""

    def __init__(self, model: LSTMTranslation, source: Tensor, valid: Tensor | None) -> None:
        self.model = model
        with torch.no_grad():
            self._state = model.encode(source, valid)

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

    def begin(self, tokens: Tensor, valid: Tensor, capacity: int) -> tuple[Tensor, LSTMState]:
        """Read the beginnings `[N, P]` of the translations, padded on the left; see `Decodable`.

        Raises RllabError if there are not as many as sources.
        """
        state = self._state
        if len(tokens) != len(state.encoded):
            raise RllabError(f"There are {len(tokens)} prompts for {len(state.encoded)} sources; give one for each.")
        check_length(int(valid.sum(1).max()) + capacity - tokens.shape[1], self.context)
        lengths = lengths_of(valid)
        packed = pack_padded_sequence(
            self.model._embedded(aligned_left(tokens, valid)), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, states = self.model.decoder(packed, state.states)
        state = LSTMState(states, state.keys, state.encoded, state.valid)
        return self.model._logits(states[0][-1][:, None], state)[:, 0], state

    def step(self, tokens: Tensor, state: LSTMState) -> Tensor:
        """Append a token to each row: `[M]` to logits `[M, V]` of the next. The state changes in place."""
        hidden, state.states = self.model.decoder(self.model._embedded(tokens[:, None]), state.states)
        return self.model._logits(hidden, state)[:, 0]

    def select(self, state: LSTMState, rows: Tensor) -> LSTMState:
        """The state of some rows `[M]`, for beams."""
        h, c = (part[:, rows].contiguous() for part in state.states)
        return LSTMState((h, c), state.keys[rows], state.encoded[rows], state.valid[rows])
