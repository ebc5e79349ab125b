"""The language model of the mixture-of-experts paper: a layer of experts between two LSTMs.

Shazeer et al. 2017, "Outrageously large neural networks", appendices C.1 and C.2: embedding, LSTM, experts, LSTM,
softmax. The output of every layer but the softmax goes through dropout, and what went into the layer is added
afterwards; that of the experts goes through a sigmoid before.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from envs.errors import RllabError
from language.models.linear import linear
from language.models.mixture_of_experts import MixtureConfig, MixtureOfExperts

LSTMState = tuple[Tensor, Tensor]
"""h `[1, N, width]` and c `[1, N, LSTM width]`."""


@dataclass(frozen=True)
class MoELSTMConfig:
    """The sizes. The defaults are the paper's MoE-32 but for the vocabulary, which is the caller's."""

    vocabulary_size: int
    """Tokens."""
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    """The layer of experts; its width is the model's."""
    lstm_width: int | None = None
    """Units of each LSTM, projected to the width where it is another (MoE-143M has 4096); None for the width."""
    dropout: float = 0.1
    """Share of a layer's outputs that is dropped in training (table 7: 0.1 to 0.4, found by trials)."""
    tied: bool = False
    """One matrix for the embedding and the softmax; the paper has two."""

    def __post_init__(self) -> None:
        if self.vocabulary_size < 1:
            raise RllabError(f"vocabulary_size must be at least 1, not {self.vocabulary_size}.")
        if not 0 <= self.dropout < 1:
            raise RllabError(f"dropout must be at least 0 and below 1, not {self.dropout}.")
        if self.lstm_width is not None and self.lstm_width < self.width:
            raise RllabError(f"lstm_width must be at least the width, {self.width}, not {self.lstm_width}.")

    @property
    def width(self) -> int:
        """Numbers of a token's vector."""
        return self.mixture.width

    @classmethod
    def named(cls, name: str, vocabulary_size: int = 793_471) -> "MoELSTMConfig":
        """A model of the paper's table 7, by its name there; the vocabulary is the One Billion Word Benchmark's.

        Raises:
            RllabError: no model has that name.
        """
        if name not in PAPER_MODELS:
            raise RllabError(f"The paper has no model {name}; choose one of {', '.join(PAPER_MODELS)}.")
        mixture, lstm_width, dropout = PAPER_MODELS[name]
        return cls(vocabulary_size, mixture, lstm_width, dropout)


PAPER_MODELS: dict[str, tuple[MixtureConfig, int | None, float]] = {
    "MoE-1-Wide": (MixtureConfig(feed_forward_width=4096, experts=1, k=1), None, 0.1),
    "MoE-4": (MixtureConfig(experts=4), None, 0.1),
    "MoE-32": (MixtureConfig(experts=32), None, 0.1),
    "MoE-256": (MixtureConfig(experts=256), None, 0.1),
    "MoE-256-h": (MixtureConfig(experts=256, k=2, groups=16), None, 0.1),
    "MoE-1024-h": (MixtureConfig(experts=1024, k=2, groups=16), None, 0.2),
    "MoE-4096-h": (MixtureConfig(experts=4096, k=2, groups=16), None, 0.2),
    "MoE-34M": (MixtureConfig(1024, 2048, 1024, k=2, groups=16), None, 0.3),
    "MoE-143M": (MixtureConfig(1024, 8192, 256, k=2, groups=16), 4096, 0.4),
}
"""Experts, LSTM width and dropout of table 7's models. MoE-1-Wide is the dense one of equal computation."""


class MoELSTM(nn.Module):
    """The model. `collected_reports` gives the loss of its experts, which is to be added to the task's."""

    def __init__(self, config: MoELSTMConfig) -> None:
        super().__init__()
        self.config = config
        width, units = config.width, config.lstm_width or config.width
        self.embedding = nn.Embedding(config.vocabulary_size, width)
        # Of size 1/√width: tied, a unit normal one would begin with logits of size √width.
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        projection = width if units != width else 0
        self.first = nn.LSTM(width, units, batch_first=True, proj_size=projection)
        self.mixture = MixtureOfExperts(config.mixture)
        self.second = nn.LSTM(width, units, batch_first=True, proj_size=projection)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary_size))
        self.softmax = self.embedding.weight if config.tied else nn.Parameter(self.embedding.weight.detach().clone())

    @property
    def vocabulary_size(self) -> int:
        """Tokens."""
        return self.config.vocabulary_size

    @property
    def context(self) -> None:
        """No sequence is too long."""
        return None

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits `[N, T, V]` of the token after each of `[N, T]`, from a state of zeros.

        Args:
            tokens: int64 `[N, T]`, padded on the right.
            valid: bool `[N, T]`, true where a token is; None if all are.
        """
        return self.forward_from(tokens, None, valid)[0]

    def forward_from(
        self, tokens: Tensor, state: "MoELSTMState | None", valid: Tensor | None = None
    ) -> tuple[Tensor, "MoELSTMState"]:
        """Logits `[N, T, V]`, and the state after the last column, for a text that goes on in the next batch.

        The state is detached: derivatives end where a batch begins. Rows with padding have no use for theirs.
        """
        x = self._dropped(self.embedding(tokens))
        state = state or MoELSTMState(None, None)
        hidden, first = self.first(x, state.first)
        x = x + self._dropped(hidden)
        x = x + self._dropped(self._experts(x, valid))
        hidden, second = self.second(x, state.second)
        x = x + self._dropped(hidden)
        return linear(x, self.softmax, self.bias), MoELSTMState(first, second).detached()

    def begin(self, tokens: Tensor, valid: Tensor, capacity: int = 0) -> tuple[Tensor, "MoELSTMState"]:
        """Read prompts.

        Args:
            tokens: int64 `[N, P]`, padded on the left.
            valid: bool `[N, P]`.
            capacity: is not needed, as the state does not grow.

        Returns:
            Logits `[N, V]` of the token after each prompt, and the state.

        Raises:
            RllabError: a prompt is empty.
        """
        lengths = valid.sum(1)
        if not bool(lengths.all()):
            raise RllabError("A prompt has no tokens; begin it with one at least, such as the one that begins a text.")
        x = self._dropped(self.embedding(tokens))
        hidden, first = _left_padded(self.first, x, lengths)
        x = x + self._dropped(hidden)
        x = x + self._dropped(self._experts(x, valid))
        hidden, second = _left_padded(self.second, x, lengths)
        x = x[:, -1] + self._dropped(hidden[:, -1])
        return linear(x, self.softmax, self.bias), MoELSTMState(first, second)

    def step(self, tokens: Tensor, state: "MoELSTMState") -> Tensor:
        """Append a token to each row, `[N]`: the logits `[N, V]` of the next one. The state is changed in place."""
        logits, after = self.forward_from(tokens[:, None], state)
        state.first, state.second = after.first, after.second
        return logits[:, 0]

    def select(self, state: "MoELSTMState", rows: Tensor) -> "MoELSTMState":
        """The state of these rows, int64 `[M]`, some of which may come more than once."""
        first, second = (
            None if pair is None else (pair[0].index_select(1, rows), pair[1].index_select(1, rows))
            for pair in (state.first, state.second)
        )
        return MoELSTMState(first, second)

    def _experts(self, x: Tensor, valid: Tensor | None) -> Tensor:
        output, _ = self.mixture(x, valid)
        return torch.sigmoid(output)

    def _dropped(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.config.dropout, self.training)


@dataclass
class MoELSTMState:
    """What both LSTMs remember of N rows; None at the beginning of a text."""

    first: LSTMState | None
    """Of the one before the experts."""
    second: LSTMState | None
    """Of the one after them."""

    def detached(self) -> "MoELSTMState":
        """The same numbers without their history."""
        first, second = (
            None if pair is None else (pair[0].detach(), pair[1].detach()) for pair in (self.first, self.second)
        )
        return MoELSTMState(first, second)


def _left_padded(lstm: nn.LSTM, x: Tensor, lengths: Tensor) -> tuple[Tensor, LSTMState]:
    """The outputs `[N, P, width]` and last states for rows padded on the left, as if the padding were not there."""
    columns = x.shape[1]
    if bool((lengths == columns).all()):
        output, state = lstm(x)
        return output, state
    places = torch.arange(columns, device=x.device)
    rows = torch.arange(len(x), device=x.device)[:, None]
    to_left = (places + columns - lengths[:, None]) % columns
    packed = pack_padded_sequence(x[rows, to_left], lengths.cpu(), batch_first=True, enforce_sorted=False)
    output, state = lstm(packed)
    padded, _ = pad_packed_sequence(output, batch_first=True, total_length=columns)
    return padded[rows, (places - columns + lengths[:, None]) % columns], state
