"""How BERT is fine-tuned to a task: a few epochs, a rate that falls in a line (Devlin et al. 2018, appendix A.3)."""

import math

from envs.errors import RllabError
from language.training.supervised import TrainingConfig


def fine_tuning(
    epoch_batches: int, epochs: float = 3, learning_rate: float = 5e-5, warmup: float = 0.1, seed: int = 0
) -> TrainingConfig:  # fmt: skip
    """The training for so many epochs, evaluated after each.

    Args:
        epoch_batches: batches an epoch (of 16 or 32, in the paper).
        epochs: 2, 3 or 4 in the paper.
        learning_rate: the highest; 5e-5, 3e-5 or 2e-5 in the paper, more for models that are small or not pre-trained.
        warmup: the share of the steps in which it rises (0.1 in the authors' program).
        seed: of what is new, of batches and dropout.

    Raises:
        RllabError: there would be no step.
    """
    if epochs <= 0 or epoch_batches < 1:
        raise RllabError(f"epochs must be above 0 and an epoch have a batch, not {epochs} and {epoch_batches}.")
    steps = max(math.ceil(epochs * epoch_batches), 1)
    return TrainingConfig(
        steps, learning_rate, schedule="linear", warmup=round(warmup * steps), floor=0.0, weight_decay=0.01,
        beta_1=0.9, beta_2=0.999, epsilon=1e-6, clip_norm=1.0, evaluation_every=epoch_batches, checkpoint_every=0,
        seed=seed,
    )  # fmt: skip
