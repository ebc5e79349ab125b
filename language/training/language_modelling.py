"""Learning to predict the next token of running text, and perplexity."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.data.blocks import TokenFile
from language.training.peak import training_operations
from language.training.problem import Loss


@dataclass(frozen=True)
class LanguageModellingConfig:
    """How running text becomes batches."""

    batch_size: int = 16
    """Rows."""
    length: int = 128
    """Tokens a row."""
    evaluation_tokens: int = 200_000
    """So many of the held-out tokens are evaluated, the first ones; 0: all."""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.length < 1:
            raise RllabError(f"batch_size and length must be at least 1, not {self.batch_size} and {self.length}.")


class LanguageModelling:
    """Windows at random places of a token file; cross-entropy of each next token.

    The model is one whose `forward(tokens)` gives logits; reports of mixtures of experts are asked for where it takes
    `reports`, and their auxiliary losses added.
    """

    goal, higher_is_better = "perplexity", False

    def __init__(
        self, training: TokenFile, held_out: TokenFile, config: LanguageModellingConfig, seed: int = 0,
        device: torch.device | str = "cpu", reports: bool = False,
    ) -> None:  # fmt: skip
        """Raises RllabError if a file is too short for one row."""
        for file in (training, held_out):
            if len(file) <= config.length:
                raise RllabError(
                    f"{file.path} has {len(file):,} tokens, too few for rows of {config.length} and the next token; "
                    "give more text, or a shorter length."
                )
        self.training, self.held_out, self.config, self.device = training, held_out, config, device
        self.reports = reports
        self.generator = np.random.default_rng(seed)

    def batch(self) -> Tensor:
        """Tokens `[batch_size, length + 1]`."""
        rows = self.training.random_windows(self.config.batch_size, self.config.length + 1, self.generator)
        return torch.from_numpy(rows).to(self.device)

    def loss(self, model: nn.Module, batch: Tensor) -> Loss:
        """The sum of cross-entropies, in nats."""
        count = batch[:, 1:].numel()
        if not self.reports:
            return Loss(next_token_cross_entropy(model(batch[:, :-1]), batch), count, count)
        reports: list[Any] = []
        total = next_token_cross_entropy(model(batch[:, :-1], reports=reports), batch)
        auxiliary = torch.stack([report.auxiliary_loss for report in reports]).sum()
        return Loss(total + count * auxiliary, count, count, {"auxiliary_loss": auxiliary.item()})

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Loss a token, in nats, and perplexity, over blocks that do not overlap."""
        return perplexity(model, self.held_out, self.config.length, self.config.batch_size,
                          self.config.evaluation_tokens, self.device)  # fmt: skip

    def operations(self, model: nn.Module, tokens: int) -> float:
        """Of a model with `layers` and `width` in its configuration."""
        config = getattr(model, "config", None)
        heads = getattr(config, "heads", 0)
        layers = getattr(config, "layers", 0) if heads else 0
        return training_operations(
            model, tokens, layers=layers, width=getattr(config, "width", 0), length=self.config.length
        )

    def state_dict(self) -> dict[str, Any]:
        """The random generator's state."""
        return {"generator": random_state(self.generator)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with it."""
        self.generator.bit_generator.state = state["generator"]


def random_state(generator: np.random.Generator) -> dict[str, Any]:
    """The state of a generator as a tree that can be saved."""
    return dict(generator.bit_generator.state)


def next_token_cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    """The sum over all places of the cross-entropy of logits `[N, T, V]` and what follows in tokens `[N, T + 1]`."""
    return functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")


def perplexity(
    model: nn.Module, file: TokenFile, length: int, batch_size: int, limit: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, float]:  # fmt: skip
    """Loss a token, in nats, and its exponential, over blocks of a token file that do not overlap.

    A token is predicted from those before it in its block alone, the first of a block from none but the one before.
    """
    inputs, targets = file.next_token_blocks(length)
    rows = len(inputs) if not limit else max(1, min(len(inputs), limit // length))
    total = 0.0
    for first in range(0, rows, batch_size):
        some = slice(first, min(first + batch_size, rows))
        logits = model(_tensor(inputs[some], device))
        wanted = _tensor(targets[some], device).flatten()
        total += float(functional.cross_entropy(logits.float().flatten(0, 1), wanted, reduction="sum"))
    loss = total / (rows * length)
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}


def _tensor(rows: NDArray[Any], device: torch.device | str) -> Tensor:
    return torch.from_numpy(rows.astype(np.int64)).to(device)
