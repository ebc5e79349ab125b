"""Optimizers of supervised training: AdamW with decay on matrices alone, or plain SGD, by groups of learning rates."""

from collections.abc import Iterable
from typing import Literal, NamedTuple, Protocol

import torch
from torch import nn

Name = Literal["adamw", "sgd"]


class Group(NamedTuple):
    """Parameters that share a learning rate."""

    parameters: list[nn.Parameter]
    """Which."""
    scale: float = 1.0
    """Their learning rate, as a share of the training's."""


class OptimizerConfig(Protocol):
    """What a training's configuration says of its optimizer."""

    @property
    def optimizer(self) -> Name: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def beta_1(self) -> float: ...
    @property
    def beta_2(self) -> float: ...
    @property
    def epsilon(self) -> float: ...


def make_optimizer(groups: Iterable[Group], config: OptimizerConfig) -> torch.optim.Optimizer:
    """One with the key `scale` in each of its parameters' groups. Of frozen parameters it knows nothing."""
    parts = []
    for group in groups:
        for decays in (True, False):
            chosen = [p for p in group.parameters if p.requires_grad and (p.ndim >= 2) == decays]
            if chosen:
                decay = config.weight_decay if decays else 0.0
                parts.append({"params": chosen, "weight_decay": decay, "scale": group.scale})
    if config.optimizer == "sgd":
        return torch.optim.SGD(parts, lr=config.learning_rate, fused=True)
    return torch.optim.AdamW(
        parts, lr=config.learning_rate, betas=(config.beta_1, config.beta_2), eps=config.epsilon, fused=True
    )
