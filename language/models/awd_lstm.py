"""AWD-LSTM: a language model of three LSTMs with every kind of dropout, ULMFiT's encoder.

Merity, Keskar, Socher 2017, "Regularizing and optimizing LSTM language models" (1708.02182), and Howard, Ruder 2018,
"Universal language model fine-tuning for text classification" (1801.06146), section 4.1.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from envs.errors import RllabError
from language.models.dropout import EmbeddingDropout, VariationalDropout, WeightDroppedLSTM, check_dropout
from language.models.layer_groups import by_layer
from language.models.linear import linear
from language.models.padding import aligned_left, lengths_of, reversed_rows


@dataclass(frozen=True)
class AWDLSTMConfig:
    """The sizes. The defaults are ULMFiT's (Howard and Ruder 2018, section 4.1)."""

    vocabulary_size: int
    """Tokens."""
    width: int = 400
    """Numbers of a token's vector, and of the last LSTM's output, which is compared with them."""
    layers: int = 3
    """LSTMs on top of each other."""
    hidden_width: int = 1150
    """Units of every LSTM but the last."""
    tied: bool = True
    """One matrix for the embedding and the softmax."""
    backward: bool = False
    """Read texts from their end, and predict the token before each; ULMFiT's ensemble has one model of either kind."""
    input_dropout: float = 0.4
    """Of the embedded tokens' numbers, the same ones throughout a sequence."""
    hidden_dropout: float = 0.3
    """Of what is between two LSTMs, likewise."""
    output_dropout: float = 0.4
    """Of the last LSTM's output, likewise."""
    embedding_dropout: float = 0.05
    """Of words: they are zero wherever they occur in a batch."""
    weight_dropout: float = 0.5
    """Of the weights between an LSTM's units."""
    dropout: float = 1.0
    """What these five are multiplied by: less for small models and large corpora."""

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "width", "layers", "hidden_width"):
            if getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.dropout < 0:
            raise RllabError(f"dropout must be at least 0, not {self.dropout}.")
        for name in ("input_dropout", "hidden_dropout", "output_dropout", "embedding_dropout", "weight_dropout"):
            check_dropout(f"{name} times dropout", getattr(self, name) * self.dropout)

    @classmethod
    def penn_treebank(cls) -> "AWDLSTMConfig":
        """The model of Merity et al. for 10,000 words of the Penn Treebank, with their program's dropouts."""
        return cls(10_000, input_dropout=0.4, hidden_dropout=0.25, output_dropout=0.4, embedding_dropout=0.1)

    @classmethod
    def wikitext_2(cls) -> "AWDLSTMConfig":
        """The model of Merity et al. for the 33,278 words of WikiText-2, with their program's dropouts."""
        return cls(
            33_278, input_dropout=0.65, hidden_dropout=0.2, output_dropout=0.4, embedding_dropout=0.1
        )  # fmt: skip

    @property
    def widths(self) -> tuple[int, ...]:
        """What goes into the first LSTM, and what each gives."""
        return (self.width, *(self.hidden_width,) * (self.layers - 1), self.width)


@dataclass
class AWDLSTMState:
    """What the LSTMs remember of N rows."""

    layers: list[tuple[Tensor, Tensor]]
    """Of each, h and c `[1, N, width]`."""

    def detached(self) -> "AWDLSTMState":
        """The same numbers without their history, so that derivatives end here."""
        return AWDLSTMState([(h.detach(), c.detach()) for h, c in self.layers])

    def first(self, count: int) -> "AWDLSTMState":
        """The state of the first rows."""
        return AWDLSTMState([(h[:, :count].contiguous(), c[:, :count].contiguous()) for h, c in self.layers])

    def rows(self, rows: Tensor) -> "AWDLSTMState":
        """The state of these rows, int64 `[M]`, some of which may come more than once."""
        return AWDLSTMState([(h.index_select(1, rows), c.index_select(1, rows)) for h, c in self.layers])


class Encoded(NamedTuple):
    """What the LSTMs make of tokens `[N, T]`."""

    raw_outputs: list[Tensor]
    """Of each LSTM, `[N, T, its width]`."""
    dropped_outputs: list[Tensor]
    """The same after dropout; where there is none, the same tensors."""
    state: AWDLSTMState
    """After the last column."""


class AWDLSTMOutput(NamedTuple):
    """What the language model makes of tokens `[N, T]`."""

    logits: Tensor
    """Of the token after each, `[N, T, V]`."""
    raw_outputs: list[Tensor]
    """Of each LSTM, `[N, T, its width]`."""
    dropped_outputs: list[Tensor]
    """The same after dropout."""
    state: AWDLSTMState
    """After the last column, with its history."""


class AWDLSTMEncoder(nn.Module):
    """Embedding and LSTMs, without the softmax: what ULMFiT's classifier keeps of a language model."""

    def __init__(self, config: AWDLSTMConfig) -> None:
        super().__init__()
        self.config = config
        scale, widths = config.dropout, config.widths
        self.tokens = nn.Embedding(config.vocabulary_size, config.width)
        limit = 2 / config.width**0.5  # 0.1, as in the authors' program, at its width of 400
        nn.init.uniform_(self.tokens.weight, -limit, limit)
        self.lstms = nn.ModuleList(
            WeightDroppedLSTM(inputs, outputs, config.weight_dropout * scale) for inputs, outputs in pairwise(widths)
        )
        self.embedding_dropout = EmbeddingDropout(config.vocabulary_size, config.embedding_dropout * scale)
        self.input_dropout = VariationalDropout(config.input_dropout * scale)
        self.hidden_dropout = VariationalDropout(config.hidden_dropout * scale)
        self.output_dropout = VariationalDropout(config.output_dropout * scale)

    def forward(self, tokens: Tensor, state: AWDLSTMState | None = None) -> Encoded:
        """Read tokens int64 `[N, T]`, on from a state; from zeros if there is none."""
        x = self.input_dropout(self.embedding_dropout(self.tokens(tokens), tokens))
        raw_outputs, dropped_outputs, after = [], [], []
        for number, lstm in enumerate(self.lstms):
            raw, memory = lstm(x, state.layers[number] if state is not None else None)
            x = (self.output_dropout if number == len(self.lstms) - 1 else self.hidden_dropout)(raw)
            raw_outputs.append(raw)
            dropped_outputs.append(x)
            after.append(memory)
        return Encoded(raw_outputs, dropped_outputs, AWDLSTMState(after))

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """The parameters of the embedding and of each LSTM, the lowest first."""
        return [list(self.tokens.parameters()), *(list(lstm.parameters()) for lstm in self.lstms)]


class AWDLSTM(nn.Module):
    """The language model.

    A backward one is given texts in reading order too, and says of each token which comes before it.
    """

    def __init__(self, config: AWDLSTMConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = AWDLSTMEncoder(config)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary_size))
        # Not registered twice where it is tied, so that it stays one matrix when weights are loaded.
        own = None if config.tied else nn.Parameter(self.encoder.tokens.weight.detach().clone())
        self.register_parameter("own_softmax", own)

    @property
    def vocabulary_size(self) -> int:
        """Tokens."""
        return self.config.vocabulary_size

    @property
    def softmax(self) -> nn.Parameter:
        """The output's matrix, `[V, width]`; the embedding where it is tied."""
        own = self.own_softmax
        return own if isinstance(own, nn.Parameter) else self.encoder.tokens.get_parameter("weight")

    @property
    def context(self) -> None:
        """No sequence is too long."""
        return None

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits `[N, T, V]` of the token after each of `[N, T]`, or before each if the model is a backward one.

        Args:
            tokens: int64 `[N, T]`, padded on the right.
            valid: bool `[N, T]`, true where a token is; None if all are. What is said of padding has no meaning.
        """
        if self.config.backward:
            return reversed_rows(self.forward_from(reversed_rows(tokens, valid), None).logits, valid)
        return self.forward_from(tokens, None).logits

    def forward_from(self, tokens: Tensor, state: AWDLSTMState | None) -> AWDLSTMOutput:
        """Read on from a state, for a text that is cut into batches.

        Args:
            tokens: int64 `[N, T]` in the direction in which the model reads.
            state: the one after the batch before, detached if derivatives are to end there; None for zeros.
        """
        encoded = self.encoder(tokens, state)
        logits = linear(encoded.dropped_outputs[-1], self.softmax, self.bias)
        return AWDLSTMOutput(logits, *encoded)

    def begin(self, tokens: Tensor, valid: Tensor, capacity: int = 0) -> tuple[Tensor, AWDLSTMState]:
        """Read prompts.

        Args:
            tokens: int64 `[N, P]`, padded on the left, in the direction in which the model reads.
            valid: bool `[N, P]`.
            capacity: is not needed, as the state does not grow.

        Returns:
            Logits `[N, V]` of the token after each prompt, and the state.

        Raises:
            RllabError: a prompt is empty.
        """
        lengths = lengths_of(valid)
        if not bool(lengths.all()):
            raise RllabError("A prompt has no tokens; begin it with one at least, such as the one that begins a text.")
        if bool(valid.all()):
            output = self.forward_from(tokens, None)
            return output.logits[:, -1], output.state
        x = self.encoder.tokens(aligned_left(tokens, valid))
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        layers = []
        for lstm in self.encoder.lstms:
            packed, memory = lstm(packed)
            layers.append(memory)
        return linear(layers[-1][0][0], self.softmax, self.bias), AWDLSTMState(layers)

    def step(self, tokens: Tensor, state: AWDLSTMState) -> Tensor:
        """Append a token to each row, `[N]`: the logits `[N, V]` of the next one. The state is changed in place."""
        output = self.forward_from(tokens[:, None], state)
        state.layers = output.state.layers
        return output.logits[:, 0]

    def select(self, state: AWDLSTMState, rows: Tensor) -> AWDLSTMState:
        """The state of these rows, int64 `[M]`, some of which may come more than once."""
        return state.rows(rows)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """What has a learning rate of its own, the lowest layer first; the softmax is last, with its embedding."""
        return by_layer(self, self.encoder.lstms, (self.softmax, self.bias))


def activation_penalties(
    output: AWDLSTMOutput | Encoded, alpha: float = 2.0, beta: float = 1.0
) -> Tensor:  # fmt: skip
    """What is added to the loss so that activations stay small (AR) and change slowly (TAR).

    α·mean(h²) of the last output after dropout, and β·mean((h_t − h_{t−1})²) of it before (Merity et al. 2017, section
    4.6). α, β and the means, where the paper has norms, are the authors' program's.
    """
    dropped, raw = output.dropped_outputs[-1], output.raw_outputs[-1]
    penalty = alpha * dropped.square().mean()
    if raw.shape[1] > 1:
        penalty = penalty + beta * raw.diff(dim=1).square().mean()
    return penalty
