"""The language model of the mixture-of-experts paper: a layer of experts between two LSTMs.

Shazeer et al. 2017, "Outrageously large neural networks", appendices C.1 and C.2: embedding, LSTM, experts, LSTM,
softmax. The output of every layer but the softmax goes through dropout, and what went into the layer is added
afterwards; that of the experts goes through a sigmoid before.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from envs.errors import RllabError
from language.models.layer_groups import by_layer
from language.models.linear import linear
from language.models.lstm import LSTM
from language.models.mixture_of_experts import MixtureConfig, MixtureOfExperts
from language.models.padding import aligned_left, check_right_padded, lengths_of

LSTMState = tuple[Tensor, Tensor]
"""h `[1, N, width]` and c `[1, N, LSTM width]`."""


@dataclass(frozen=True, kw_only=True)
class MoELSTMConfig(MixtureConfig):
    """The sizes: those of the layer of experts, whose width is the model's, and what is around it.

    The defaults are the paper's MoE-32.
    """

    vocabulary_size: int = 793_471
    """Tokens; the default is the One Billion Word Benchmark's."""
    lstm_width: int | None = None
    """Units of each LSTM, projected to the width where it is another (MoE-143M has 4096); None for the width."""
    dropout: float = 0.1
    """Share of a layer's outputs that is dropped in training (table 7: 0.1 to 0.4, found by trials)."""
    tied: bool = False
    """One matrix for the embedding and the softmax; the paper has two."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocabulary_size < 1:
            raise RllabError(f"vocabulary_size must be at least 1, not {self.vocabulary_size}.")
        if not 0 <= self.dropout < 1:
            raise RllabError(f"dropout must be at least 0 and below 1, not {self.dropout}.")
        if self.lstm_width is not None and self.lstm_width < self.width:
            raise RllabError(f"lstm_width must be at least the width, {self.width}, not {self.lstm_width}.")

    @classmethod
    def paper(cls, name: str) -> "MoELSTMConfig":
        """A model of the paper's table 7, by its name there.

        Raises:
            RllabError: no model has that name.
        """
        if name not in PAPER_MODELS:
            raise RllabError(f"The paper has no model {name}; choose one of {', '.join(PAPER_MODELS)}.")
        return PAPER_MODELS[name]


PAPER_MODELS = {
    "MoE-1-Wide": MoELSTMConfig(experts=1, k=1, feed_forward_width=4096),
    "MoE-4": MoELSTMConfig(experts=4),
    "MoE-32": MoELSTMConfig(experts=32),
    "MoE-256": MoELSTMConfig(experts=256),
    "MoE-256-h": MoELSTMConfig(experts=256, k=2, groups=16),
    "MoE-1024-h": MoELSTMConfig(experts=1024, k=2, groups=16, dropout=0.2),
    "MoE-4096-h": MoELSTMConfig(experts=4096, k=2, groups=16, dropout=0.2),
    "MoE-34M": MoELSTMConfig(width=1024, feed_forward_width=2048, experts=1024, k=2, groups=16, dropout=0.3),
    "MoE-143M": MoELSTMConfig(
        width=1024, feed_forward_width=8192, experts=256, k=2, groups=16, lstm_width=4096, dropout=0.4
    ),
}
"""Table 7. MoE-1-Wide is the dense model of as many operations a token as the next six have."""


class MoELSTM(nn.Module):
    """The model. What its experts report has a loss, which is to be added to the task's."""

    def __init__(self, config: MoELSTMConfig) -> None:
        super().__init__()
        self.config = config
        width, units = config.width, config.lstm_width or config.width
        self.embedding = nn.Embedding(config.vocabulary_size, width)
        # Of size 1/√width: tied, a unit normal one would begin with logits of size √width.
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        projection = width if units != width else 0
        self.first = LSTM(width, units, batch_first=True, proj_size=projection)
        self.mixture = MixtureOfExperts(config)
        self.second = LSTM(width, units, batch_first=True, proj_size=projection)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary_size))
        self.softmax = None if config.tied else nn.Parameter(self.embedding.weight.detach().clone())

    @property
    def vocabulary_size(self) -> int:
        """Tokens."""
        return self.config.vocabulary_size

    @property
    def context(self) -> None:
        """No sequence is too long."""
        return None

    def forward(self, tokens: Tensor, valid: Tensor | None = None, reports: list[Any] | None = None) -> Tensor:
        """Logits `[N, T, V]` of the token after each, from a state of zeros.

        Args:
            tokens: int64 `[N, T]`, padded on the right.
            valid: bool `[N, T]`, true where a token is; None if all are.
            reports: where the `MixtureReport` goes, whose `auxiliary_loss` is to be added to the task's.

        Raises:
            RllabError: padding comes before a token.
        """
        return self.forward_from(tokens, None, valid, reports)[0]

    def forward_from(
        self, tokens: Tensor, state: "MoELSTMState | None", valid: Tensor | None = None,
        reports: list[Any] | None = None,
    ) -> tuple[Tensor, "MoELSTMState"]:  # fmt: skip
        """Logits `[N, T, V]` and the state after the last column, for a text that goes on in the next batch.

        The state keeps its history; `detached` ends derivatives there. Rows with padding have no use for theirs.
        """
        if valid is not None:
            check_right_padded(valid)
        x = self._dropped(self.embedding(tokens))
        hidden, first = self.first(x, None if state is None else state.first)
        x = self._experts(x + self._dropped(hidden), valid, reports)
        hidden, second = self.second(x, None if state is None else state.second)
        return self._logits(x + self._dropped(hidden)), MoELSTMState(first, second)

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
        lengths = lengths_of(valid)
        if not bool(lengths.all()):
            raise RllabError("A prompt has no tokens; begin it with one at least, such as the one that begins a text.")
        tokens, valid = aligned_left(tokens, valid), aligned_left(valid, valid)
        x = self._dropped(self.embedding(tokens))
        hidden, first = _by_length(self.first, x, lengths)
        x = self._experts(x + self._dropped(hidden), valid)
        _, second = _by_length(self.second, x, lengths)
        last = x[torch.arange(len(x), device=x.device), lengths - 1]
        return self._logits(last + self._dropped(second[0][0])), MoELSTMState(first, second)

    def step(self, tokens: Tensor, state: "MoELSTMState") -> Tensor:
        """Append a token to each row, `[N]`: the logits `[N, V]` of the next one. The state is changed in place."""
        logits, after = self.forward_from(tokens[:, None], state)
        state.first, state.second = after.first, after.second
        return logits[:, 0]

    def select(self, state: "MoELSTMState", rows: Tensor) -> "MoELSTMState":
        """The state of these rows, int64 `[M]`, some of which may come more than once."""
        return state.rows(rows)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """What has a learning rate of its own, the lowest layer first; the softmax is last, with its embedding."""
        output = (self.embedding if self.softmax is None else self.softmax, self.bias)
        return by_layer(self, (self.first, self.mixture, self.second), output)

    def _experts(self, x: Tensor, valid: Tensor | None, reports: list[Any] | None = None) -> Tensor:
        output, report = self.mixture(x, valid)
        if reports is not None:
            reports.append(report)
        return x + self._dropped(torch.sigmoid(output))

    def _logits(self, x: Tensor) -> Tensor:
        return linear(x, self.embedding.weight if self.softmax is None else self.softmax, self.bias)

    def _dropped(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.config.dropout, self.training)


@dataclass
class MoELSTMState:
    """What both LSTMs remember of N rows."""

    first: LSTMState
    """Of the one before the experts."""
    second: LSTMState
    """Of the one after them."""

    def detached(self) -> "MoELSTMState":
        """The same numbers without their history, so that derivatives end here."""
        (h, c), (other_h, other_c) = self.first, self.second
        return MoELSTMState((h.detach(), c.detach()), (other_h.detach(), other_c.detach()))

    def rows(self, rows: Tensor) -> "MoELSTMState":
        """The state of these rows, int64 `[M]`, some of which may come more than once."""
        first, second = (tuple(part.index_select(1, rows) for part in pair) for pair in (self.first, self.second))
        return MoELSTMState((first[0], first[1]), (second[0], second[1]))


def _by_length(lstm: nn.LSTM, x: Tensor, lengths: Tensor) -> tuple[Tensor, LSTMState]:
    """The outputs of rows padded on the right, and the state after the last token of each."""
    columns = x.shape[1]
    if bool((lengths == columns).all()):
        output, state = lstm(x)
        return output, state
    packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    packed, state = lstm(packed)
    return pad_packed_sequence(packed, batch_first=True, total_length=columns)[0], state
