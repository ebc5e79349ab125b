"""How models are fine-tuned to a task: a few epochs, of which the steps are computed.

The defaults are BERT's (Devlin et al. 2018, appendix A.3): a rate that falls in a line after a short rise. ULMFiT's,
a triangle, slower lower layers, layers that thaw one by one (Howard, Ruder 2018, sections 3.2 and 3.3), are options.
"""

import math
from dataclasses import dataclass
from typing import Literal

from envs.errors import RllabError
from language.training.schedules import Schedule
from language.training.training_config import TrainingConfig


@dataclass(frozen=True)
class FineTuningConfig:
    """A fine-tuning, by epochs."""

    epochs: float = 3
    """How often each document is learnt from (BERT: 2, 3 or 4)."""
    learning_rate: float = 5e-5
    """The highest (BERT: 5e-5, 3e-5 or 2e-5); more for models that are small or not pre-trained."""
    schedule: Schedule = "linear"
    """How it changes over the steps."""
    warmup: float = 0.1
    """The share of the steps in which it rises (0.1 in BERT's program)."""
    floor: float = 0.0
    """The share of the highest that it ends with (schedules linear, cosine, slanted)."""
    layer_factor: float = 1.0
    """How many times slower each layer learns than the one above it (ULMFiT: 2.6); 1: all alike."""
    gradual_unfreezing: bool = False
    """The head alone learns in the first epoch, one more layer in each that follows (ULMFiT)."""
    weight_decay: float = 0.01
    """Of matrices; biases and normalisations have none."""
    beta_1: float = 0.9
    """Adam's, of the mean of gradients."""
    beta_2: float = 0.999
    """Adam's, of the mean of their squares."""
    epsilon: float = 1e-6
    """Adam's."""
    clip_norm: float = 1.0
    """The longest gradient; 0: any."""
    accumulation: int = 1
    """Batches a step."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 computes products in it where torch finds that safe; weights stay float32."""
    patience: int = 0
    """Stop after so many epochs in a row that were not the best; 0: never."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: at the end and after the best epochs only."""
    tensorboard: bool = True
    """Write TensorBoard events beside metrics.jsonl."""
    seed: int = 0
    """Of what is new, of batches and dropout."""

    def __post_init__(self) -> None:
        if not self.epochs > 0:
            raise RllabError(f"epochs must be above 0, not {self.epochs}.")
        if not 0 <= self.warmup < 1:
            raise RllabError(f"warmup must be at least 0 and below 1, a share of the steps, not {self.warmup}.")
        if not self.layer_factor >= 1:
            raise RllabError(f"layer_factor must be at least 1, not {self.layer_factor}.")
        self.training(1)

    def epoch_steps(self, epoch_batches: int) -> int:
        """Steps of an epoch of so many batches."""
        return math.ceil(epoch_batches / max(self.accumulation, 1))

    def training(self, epoch_batches: int) -> TrainingConfig:
        """The training, evaluated after each epoch. Raises RllabError if there is no batch, or a number makes none."""
        if epoch_batches < 1:
            raise RllabError(f"An epoch must have a batch at least, not {epoch_batches}.")
        epoch_steps = self.epoch_steps(epoch_batches)
        steps = max(math.ceil(self.epochs * epoch_steps), 1)
        return TrainingConfig(
            steps, self.learning_rate, self.schedule, warmup=round(self.warmup * steps), floor=self.floor,
            weight_decay=self.weight_decay, beta_1=self.beta_1, beta_2=self.beta_2, epsilon=self.epsilon,
            clip_norm=self.clip_norm, accumulation=self.accumulation, precision=self.precision,
            evaluation_every=epoch_steps, patience=self.patience, checkpoint_every=self.checkpoint_every,
            tensorboard=self.tensorboard, seed=self.seed,
        )  # fmt: skip


def fine_tuning(
    epoch_batches: int, epochs: float = 3, learning_rate: float = 5e-5, warmup: float = 0.1, seed: int = 0
) -> TrainingConfig:  # fmt: skip
    """BERT's training for so many epochs; arguments and errors as of `FineTuningConfig`."""
    return FineTuningConfig(epochs, learning_rate, warmup=warmup, seed=seed).training(epoch_batches)
