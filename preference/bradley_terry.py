"""Bradley–Terry (Bradley & Terry 1952) for sums of rewards: the probability of a preference, and its cross-entropy.

Christiano et al. 2017 ("Deep reinforcement learning from human preferences"), section 2.2.3:

    P(1 ≻ 2) = exp Σ r̂(σ¹) / (exp Σ r̂(σ¹) + exp Σ r̂(σ²)) = σ(Σ r̂(σ¹) − Σ r̂(σ²))
    loss = −Σ μ(1) log P(1 ≻ 2) + μ(2) log P(2 ≻ 1)

A person may answer at random with a probability ε ("we assume there is a 10% chance that the human responds uniformly
at random"): P becomes (1 − ε)·P + ε/2. Everything is computed from the difference in logits, so that no difference is
too large: without the noise the loss grows linearly with it, with the noise it stays below −log(ε/2).
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from envs.errors import RllabError

HUMAN_NOISE = 0.1
"""ε for people (Christiano et al. 2017, section 2.2.3); an exact oracle has 0."""


def check_noise(noise: float) -> None:
    """Raise RllabError unless `noise` is a share that leaves something to learn."""
    if not 0 <= noise < 1:
        raise RllabError(f"the share of random answers must lie in [0, 1), not {noise}")


def log_probability(difference: Tensor, noise: float = 0.0) -> Tensor:
    """log P(1 ≻ 2), of the shape of `difference` = Σ r̂(σ¹) − Σ r̂(σ²); log P(2 ≻ 1) is that of `-difference`."""
    log_p = logsigmoid(difference)
    if noise == 0:
        return log_p
    return torch.logaddexp(log_p + math.log1p(-noise), torch.full_like(log_p, math.log(noise / 2)))


def probability(difference: Tensor, noise: float = 0.0) -> Tensor:
    """P(1 ≻ 2), of the shape of `difference`."""
    return torch.sigmoid(difference) * (1 - noise) + noise / 2


def cross_entropy(difference: Tensor, preference: Tensor, noise: float = 0.0) -> Tensor:
    """The loss of each comparison, of the shape of `difference`.

    Args:
        difference: Σ r̂(σ¹) − Σ r̂(σ²).
        preference: μ(1): 1 where the first is preferred, 0 where the second is, ½ for a tie.
        noise: ε, the share of answers that are random.
    """
    first, second = log_probability(difference, noise), log_probability(-difference, noise)
    return -(preference * first + (1 - preference) * second)
