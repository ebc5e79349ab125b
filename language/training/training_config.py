"""How a supervised training goes: steps, the optimiser, evaluations, checkpoints."""

import math
from dataclasses import dataclass
from typing import Literal

from envs.errors import RllabError
from language.training.optimizers import Name
from language.training.schedules import Schedule, check_schedule


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained."""

    steps: int = 1_000
    """Steps of the optimiser."""
    learning_rate: float = 3e-4
    """The highest."""
    schedule: Schedule = "cosine"
    """How it changes over the steps."""
    warmup: int = 100
    """Steps in which it rises from nearly 0."""
    floor: float = 0.1
    """The share of the highest that it ends with (schedules linear, cosine, slanted)."""
    optimizer: Name = "adamw"
    """AdamW (Loshchilov, Hutter 2019), or stochastic gradient descent without momentum."""
    weight_decay: float = 0.01
    """Of matrices; biases and normalisations have none."""
    beta_1: float = 0.9
    """Adam's, of the mean of gradients."""
    beta_2: float = 0.98
    """Adam's, of the mean of their squares (Vaswani et al. 2017, section 5.3)."""
    epsilon: float = 1e-8
    """Adam's."""
    clip_norm: float = 1.0
    """The longest gradient; 0: any."""
    accumulation: int = 1
    """Batches a step; several processes share them."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 computes products in it where torch finds that safe; weights stay float32."""
    compile: bool = False
    """Whether torch.compile is used: minutes of preparation, for long trainings on a GPU."""
    evaluation_every: int = 200
    """Steps between evaluations; 0: at the end only."""
    averaging_patience: int = 0
    """Average the weights from when an evaluation is worse than the best but for the last so many (NT-ASGD, Merity et
    al. 2017, section 3: 5, with sgd at a constant rate); 0: never."""
    patience: int = 0
    """Stop after so many evaluations in a row that were not the best; 0: never."""
    checkpoint_every: int = 200
    """Steps between checkpoints; 0: at the end and after the best evaluations only."""
    keep_checkpoints: int = 2
    """How many of the newest are kept beside the best."""
    tensorboard: bool = True
    """Write TensorBoard events beside metrics.jsonl."""
    seed: int = 0
    """Of weights, batches and dropout."""

    def __post_init__(self) -> None:
        check_schedule(self.schedule, self.warmup, self.floor)
        for name in ("steps", "accumulation"):
            if getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in (
            "evaluation_every",
            "averaging_patience",
            "patience",
            "checkpoint_every",
            "clip_norm",
            "weight_decay",
            "seed",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise RllabError(f"{name} must be 0 or more, not {getattr(self, name)}.")
        for name in ("learning_rate", "epsilon"):
            if not 0 < getattr(self, name) < math.inf:
                raise RllabError(f"{name} must be above 0, not {getattr(self, name)}.")
        for name in ("beta_1", "beta_2"):
            if not 0 <= getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}.")
