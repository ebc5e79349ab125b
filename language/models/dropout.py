"""Dropout of recurrent language models: of weights, of whole words, and with one mask for all time steps.

Merity, Keskar, Socher 2017, "Regularizing and optimizing LSTM language models", sections 2 (DropConnect), 4.2
(variational dropout, from Gal and Ghahramani 2016) and 4.3 (embedding dropout). What is kept is divided by its share,
so that expectations stay and nothing is to be done outside of training.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.models.lstm import LSTM, autocast_to_bfloat16, bfloat16_lstm_works


def check_dropout(name: str, share: float) -> None:
    """See that a share can be dropped.

    Raises:
        RllabError: it is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise RllabError(f"{name} must be at least 0 and below 1, not {share}.")


class VariationalDropout(nn.Module):
    """Zeroes numbers of each row's vectors, the same ones at every time step."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """`[N, T, width]` to the same."""
        if not self.training or self.share == 0:
            return x
        return x * functional.dropout(x.new_ones(len(x), 1, x.shape[2]), self.share)


class EmbeddingDropout(nn.Module):
    """Zeroes words of the vocabulary: wherever one of them occurs in a batch, its vector is zero."""

    def __init__(self, vocabulary_size: int, share: float) -> None:
        super().__init__()
        self.vocabulary_size, self.share = vocabulary_size, share

    def forward(self, vectors: Tensor, tokens: Tensor) -> Tensor:
        """`[N, T, width]` of int64 `[N, T]` to the same."""
        if not self.training or self.share == 0:
            return vectors
        return vectors * functional.dropout(vectors.new_ones(self.vocabulary_size, 1), self.share)[tokens]


class WeightDroppedLSTM(LSTM):
    """One layer of `torch.nn.LSTM` whose recurrent weights are dropped in training, by one mask a call (DropConnect).

    The parameters are those of `torch.nn.LSTM` and learn through the mask. torch's kernel runs on the dropped weights:
    a loop over time in Python takes up to three times as long.
    """

    def __init__(self, inputs: int, width: int, share: float) -> None:
        super().__init__(inputs, width, batch_first=True)
        self.share = share

    def forward(self, x, state=None):  # type: ignore[no-untyped-def]
        """As `torch.nn.LSTM`: `[N, T, inputs]`, packed only outside of training, and h and c `[1, N, width]`.

        Under autocast to bfloat16 the products are in it where oneDNN has such an LSTM; what comes out is float32.
        """
        low = isinstance(x, Tensor) and autocast_to_bfloat16(x) and bfloat16_lstm_works()
        with torch.autocast("cpu", enabled=False):
            if low or (self.training and self.share > 0):
                return self._on_changed_weights(x, state, torch.bfloat16 if low else x.dtype)
            return super().forward(x, state)  # type: ignore[no-untyped-call]

    def _on_changed_weights(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None, dtype: torch.dtype
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if state is None:
            zeros = x.new_zeros(1, len(x), self.hidden_size)
            state = (zeros, zeros)
        inward, recurrent, *biases = self.parameters()
        weights = [inward, functional.dropout(recurrent, self.share, self.training), *biases]
        h, c = state
        outputs, h, c = torch.lstm(
            x.to(dtype), (h.to(dtype), c.to(dtype)), [each.to(dtype) for each in weights],
            True, 1, 0.0, self.training, False, True,
        )  # fmt: skip
        return outputs.to(x.dtype), (h.to(x.dtype), c.to(x.dtype))
