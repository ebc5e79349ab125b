"""The gradient of PPO's clipped objective written out in NumPy, for policies with a fast path.

`PPO.loss` is the definition. At the sizes of control its dozens of small autograd operations cost more than the
networks do, so this computes the same derivatives by hand; a test holds the two equal.
"""

from typing import Protocol

import numpy as np

from rllab.policies.arrays import Array, ExperienceArrays
from rllab.policies.fast import FastActorCritic


class SurrogateConfig(Protocol):
    """The fields of `PPOConfig` that the objective reads."""

    @property
    def normalise_advantages(self) -> str: ...
    @property
    def value_coefficient(self) -> float: ...
    @property
    def entropy_coefficient(self) -> float: ...


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is refused in a sentence, by `require_finite`
def clipped_surrogate(
    fast: FastActorCritic, batch: ExperienceArrays, config: SurrogateConfig, clip_range: float
) -> tuple[float, dict[str, float]]:
    """Put the loss's gradient into the policy's gradient buffer; the loss and measures are what `PPO.loss` gives."""
    forward = fast.forward(batch.observations, batch.actions, batch.action_mask)
    weights, advantage = batch.weights, batch.advantages
    if config.normalise_advantages == "minibatch":
        centred = advantage - np.dot(weights, advantage)
        advantage = centred / (np.sqrt(np.dot(weights, np.square(centred))) + np.float32(1e-8))

    log_ratio = np.where(batch.valid, forward.log_prob - batch.log_probs, np.float32(0))
    ratio = np.exp(log_ratio)
    clipped = np.minimum(np.maximum(ratio, np.float32(1 - clip_range)), np.float32(1 + clip_range))
    surrogate, bound = ratio * advantage, clipped * advantage
    # d min(r·A, clip(r)·A) / d log π = r·A where the first is the smaller, else 0.
    log_prob_gradient = np.where(surrogate <= bound, surrogate, np.float32(0))
    log_prob_gradient *= -weights
    error = forward.value - batch.returns
    value_gradient = error * weights
    value_loss = np.dot(value_gradient, error)
    value_gradient *= np.float32(2 * config.value_coefficient)
    entropy_gradient = weights * np.float32(-config.entropy_coefficient) if config.entropy_coefficient else None

    fast.backward(forward, log_prob_gradient, entropy_gradient, value_gradient)
    policy_loss = -np.dot(weights, np.minimum(surrogate, bound))
    entropy = np.dot(weights, forward.entropy)
    loss = policy_loss + config.value_coefficient * value_loss - config.entropy_coefficient * entropy
    return loss, {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "approximate_kl": np.dot(weights, ratio - 1 - log_ratio),
        "clip_fraction": np.dot(weights, (ratio != clipped).astype(np.float32)),
    }


def squared_error(fast: FastActorCritic, batch: ExperienceArrays) -> float:
    """Put the gradient of the critic's mean squared error into the policy's gradient buffer; the error."""
    layers = fast.critic.forward(fast.inputs(batch.observations))
    error: Array = layers[-1].reshape(-1) - batch.returns
    weighted = error * batch.weights
    loss = float(np.dot(weighted, error))
    weighted *= 2
    fast.critic.backward(layers, weighted.reshape(-1, 1))
    return loss
