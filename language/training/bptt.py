"""Training of language models with a state: one long text in parallel rows, read on from batch to batch.

Merity, Keskar, Socher 2017, "Regularizing and optimizing LSTM language models" (1708.02182), section 4.1: lengths vary,
so that derivatives do not always end at the same places. Section 4.6: activations are kept small and slow.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.data.blocks import TokenFile
from language.models.awd_lstm import AWDLSTM, AWDLSTMState, activation_penalties
from language.training.language_modelling import random_state
from language.training.peak import training_operations
from language.training.problem import Loss
from rllab.distributed import require_alone

_SHORTEST = 5


@dataclass(frozen=True)
class BPTTConfig:
    """How a text is cut, and what is added to the loss. The defaults are those of Merity et al. and their program."""

    batch_size: int = 64
    """Rows: parts of the text that are read side by side (ULMFiT, section 4.1: 64)."""
    length: int = 70
    """Columns of a batch, on average nearly."""
    deviation: float = 5.0
    """Standard deviation of the length."""
    half_share: float = 0.05
    """How often the length is drawn around half of it. With 0, and a deviation of 0, all lengths are equal."""
    activation: float = 2.0
    """α, the weight of the squares of the last LSTM's outputs."""
    slowness: float = 1.0
    """β, the weight of the squares of their changes."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "length"):
            if getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("deviation", "half_share", "activation", "slowness"):
            if getattr(self, name) < 0:
                raise RllabError(f"{name} must be at least 0, not {getattr(self, name)}.")
        if self.half_share > 1:
            raise RllabError(f"half_share must be at most 1, not {self.half_share}.")


class BPTTBatch(NamedTuple):
    """A piece of every row."""

    tokens: Tensor
    """int64 `[N, T]`, in the direction in which the model reads."""
    targets: Tensor
    """int64 `[N, T]`, the token after each."""
    begins: bool
    """Whether nothing was read before."""


def draw_length(config: BPTTConfig, generator: np.random.Generator) -> int:
    """How many columns a batch has."""
    usual = config.length / 2 if generator.random() < config.half_share else config.length
    return max(min(_SHORTEST, config.length), int(generator.normal(usual, config.deviation)))


class BPTTModelling:
    """A token file again and again from its beginning, or for a backward model from its end; a `Problem`.

    Attributes:
        table: the text's rows, `[N, columns]`; fewer tokens than rows are left out.
        place: the column that the next batch begins with.
    """

    goal, higher_is_better = "perplexity", False

    def __init__(
        self, training: TokenFile, held_out: TokenFile, config: BPTTConfig, seed: int = 0,
        device: torch.device | str = "cpu", backward: bool = False,
    ) -> None:  # fmt: skip
        """Raises RllabError if a file is too short for two columns, or there are several processes."""
        require_alone("A model that reads on from batch to batch, as the AWD-LSTM does, is trained")
        self.config, self.device, self.backward = config, device, backward
        self.table = text_rows(training, config.batch_size, backward)
        self.held_out = text_rows(held_out, min(config.batch_size, max(len(held_out) // 2, 1)), backward)
        self.generator = np.random.default_rng(seed)
        self.place = 0
        self._state: AWDLSTMState | None = None

    def batch(self) -> BPTTBatch:
        """The next piece of all rows."""
        left = self.table.shape[1] - 1 - self.place
        if left == 0:
            self.place, left = 0, self.table.shape[1] - 1
        begin = self.place
        self.place += min(draw_length(self.config, self.generator), left)
        return self._piece(self.table, begin, self.place)

    def loss(self, model: nn.Module, batch: BPTTBatch) -> Loss:
        """The sum of cross-entropies in nats, and the two penalties."""
        output = self._checked(model).forward_from(batch.tokens, None if batch.begins else self._state)
        self._state = output.state.detached()
        total, count = _cross_entropy(output.logits, batch.targets), batch.targets.numel()
        penalty = activation_penalties(output, self.config.activation, self.config.slowness)
        return Loss(total + count * penalty, count, count, {"penalty": penalty.item()})

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Loss a token, in nats, and perplexity, of the held-out text read as a whole in parallel rows."""
        checked = self._checked(model)
        state, total = None, 0.0
        columns = self.held_out.shape[1] - 1
        for begin in range(0, columns, self.config.length):
            batch = self._piece(self.held_out, begin, min(begin + self.config.length, columns))
            output = checked.forward_from(batch.tokens, state)
            state = output.state
            total += _cross_entropy(output.logits, batch.targets).item()
        loss = total / (columns * len(self.held_out))
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}

    def operations(self, model: nn.Module, tokens: int) -> float:
        """Of the LSTMs and the softmax."""
        return training_operations(model, tokens, layers=0, width=0, length=0)

    def state_dict(self) -> dict[str, Any]:
        """Where it is in the text, and what the model remembers of it."""
        layers = [] if self._state is None else [list(layer) for layer in self._state.layers]
        return {"generator": random_state(self.generator), "place": self.place, "layers": layers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.generator.bit_generator.state = state["generator"]
        self.place = state["place"]
        layers = [(h.to(self.device), c.to(self.device)) for h, c in state["layers"]]
        self._state = AWDLSTMState(layers) if layers else None

    def _checked(self, model: nn.Module) -> AWDLSTM:
        assert isinstance(model, AWDLSTM)
        if model.config.backward != self.backward:
            reads, text = ("backwards", "forwards") if model.config.backward else ("forwards", "backwards")
            raise RllabError(f"The model reads {reads} and the text is read {text}; give both the same direction.")
        return model

    def _piece(self, table: NDArray[Any], begin: int, end: int) -> BPTTBatch:
        ids = torch.from_numpy(table[:, begin : end + 1].astype(np.int64)).to(self.device)
        return BPTTBatch(ids[:, :-1], ids[:, 1:], begin == 0)


def text_rows(file: TokenFile, rows: int, backward: bool = False) -> NDArray[Any]:
    """A text as `[rows, columns]`, each row going on where the one before it ends; from its end if backward.

    Raises RllabError if there are not two columns.
    """
    columns = len(file) // rows
    if columns < 2:
        raise RllabError(
            f"{file.path} has {len(file):,} tokens, too few for {rows} rows of at least two; give more text, or a "
            "smaller batch."
        )
    ids = file.ids[::-1] if backward else file.ids
    return ids[: columns * rows].reshape(rows, columns)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum")
