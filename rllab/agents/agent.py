"""What REINFORCE, TRPO and PPO share: their contract, advantages, minibatches and the critic's regression."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from envs.errors import RllabError
from rllab import distributed, statistics
from rllab.agents.optimizer import Optimizer, Schedule
from rllab.agents.surrogate import squared_error
from rllab.policies.arrays import ExperienceArrays
from rllab.policies.policy import Policy
from rllab.returns import generalised_advantages
from rllab.rollout import Batch, Experience, Rollout

Metrics = dict[str, float]


@dataclass(frozen=True)
class AgentConfig:
    """What every agent has."""

    rollout_steps: int = 128
    """Steps (columns) each environment contributes to a rollout."""
    discount: float = 0.99
    """γ, how much a reward one step later is worth."""
    gae_lambda: float = 0.95
    """λ of generalised advantage estimation (Schulman et al. 2016); 1 is Monte Carlo, 0 one-step."""
    learning_rate: float = 3e-4
    """Step size of Adam."""
    learning_rate_schedule: Schedule = "constant"
    """How the learning rate falls over training; linear and cosine end near 0, never at it."""
    adam_epsilon: float = 1e-5
    """ε of Adam (the 37 details, core detail 3: 1e-5, not the library's 1e-8)."""
    adam_epsilon_inside: bool = False
    """Add ε before the second moment's bias is corrected, as TensorFlow does, not after it: early steps are smaller."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this global norm (the 37 details, core detail 11); 0 turns it off."""
    entropy_coefficient: float = 0.0
    """Weight of the entropy bonus."""
    scale_rewards: bool = False
    """Divide rewards by the running standard deviation of the discounted return (the 37 details)."""

    def __post_init__(self) -> None:
        require(self.rollout_steps >= 1, f"rollout_steps must be at least 1, not {self.rollout_steps}")
        require(0 <= self.discount <= 1, f"discount must lie in [0, 1], not {self.discount}")
        require(0 <= self.gae_lambda <= 1, f"gae_lambda must lie in [0, 1], not {self.gae_lambda}")
        require(
            0 < self.learning_rate < math.inf, f"learning_rate must be above 0 and finite, not {self.learning_rate}"
        )
        require(self.adam_epsilon > 0, f"adam_epsilon must be above 0, not {self.adam_epsilon}")
        require(
            math.isfinite(self.entropy_coefficient),
            f"entropy_coefficient must be finite, not {self.entropy_coefficient}",
        )
        require(self.max_grad_norm >= 0, f"max_grad_norm must be 0 (off) or more, not {self.max_grad_norm}")

    def check(self, num_rows: int, rows: bool) -> None:
        """Whether a rollout of `num_rows` rows can be cut as configured; `rows`: the policy takes whole rows.

        Raises RllabError if it cannot.
        """


def require(condition: bool, otherwise: str) -> None:
    """Raise RllabError with the sentence `otherwise` unless `condition` holds."""
    if not condition:
        raise RllabError(otherwise)


class Agent(ABC):
    """Learns from rollouts: `update(rollout, remaining) -> Metrics`, and complete, explicit state."""

    name: ClassVar[str]

    def __init__(self, policy: Policy, config: AgentConfig, seed: int = 0) -> None:
        self.policy, self.config = policy, config
        self.generator = np.random.default_rng(np.random.SeedSequence([seed, 0xA6E27]))
        """Shuffles minibatches."""

    @abstractmethod
    def update(self, rollout: Rollout, remaining: float = 1.0) -> Metrics:
        """Learn from one rollout; `remaining` is the share of training left when it began, from 1 towards 0."""

    def advantages(self, rollout: Rollout) -> Tensor:
        """Generalised advantages `[N, T]`."""
        return generalised_advantages(
            rollout.rewards, rollout.values, rollout.next_values, rollout.terminated, rollout.truncated,
            rollout.valid, discount=self.config.discount, gae_lambda=self.config.gae_lambda,
        )  # fmt: skip

    def experience(self, rollout: Rollout, advantages: Tensor, returns: Tensor) -> Experience:
        """The rollout as the policy takes it: whole rows, or steps."""
        rows = rollout.experience(advantages, returns)
        return rows if self.policy.rows else rows.flatten()

    @property
    @abstractmethod
    def optimizers(self) -> dict[str, Optimizer]:
        """The optimisers by name, for checkpoints."""

    def state_dict(self) -> dict[str, Any]:
        """The optimisers' moments and the random generator."""
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        return {"optimizers": optimizers, "generator": self.generator.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.generator.bit_generator.state = state["generator"]


def standardised(values: Tensor, batch: Batch) -> Tensor:
    """`values` at mean 0 and standard deviation 1 over the batch's steps (the 37 details, core detail 7)."""
    centred = values - distributed.mean_(batch.mean(values))
    return centred / (distributed.mean_(batch.mean(centred.square())).sqrt() + 1e-8)


def fit_critic(agent: Agent, optimizer: Optimizer, batch: Experience, epochs: int, size: int) -> Metrics:
    """Regress the critic on `batch.returns` by itself, in minibatches of `size` entries; the actor stays."""
    losses, norms = [], []
    fast = agent.policy.fast if distributed.processes() == 1 else None
    arrays = None if fast is None else ExperienceArrays.of(batch)
    for _ in range(epochs):
        if fast is not None and arrays is not None:
            for piece in arrays.minibatches(size, agent.generator):
                losses.append(squared_error(fast, piece))
                norms.append(optimizer.apply(losses[-1]))
            continue
        for minibatch in batch.minibatches(size, agent.generator):
            loss = minibatch.mean((agent.policy.value(minibatch) - minibatch.returns).square())
            norms.append(optimizer.step(loss))
            losses.append(float(loss.detach()))
    return {"value_loss": float(np.mean(losses)), "critic_gradient_norm": float(np.mean(norms))}


def entries(minibatch_size: int, columns: int, rows: bool) -> int:
    """How many entries of a batch's first dimension make a minibatch: steps, or whole rows of `columns` steps.

    A minibatch is shared by the processes that train together.
    """
    minibatch_size = distributed.share(minibatch_size, "A minibatch_size of")
    return max(1, minibatch_size // columns) if rows else minibatch_size


def check_division(minibatch_size: int, num_rows: int, columns: int, rows: bool) -> None:
    """Raise RllabError unless a rollout of `num_rows` × `columns` steps divides into minibatches of that size."""
    require(minibatch_size >= 1, f"minibatch_size must be at least 1, not {minibatch_size}")
    own, total = distributed.share(minibatch_size, "A minibatch_size of"), num_rows * columns
    if own > total or total % own:
        fitting = max(size for size in range(1, min(own, total) + 1) if total % size == 0)
        num_rows, total, fitting = (number * distributed.processes() for number in (num_rows, total, fitting))
        raise RllabError(
            f"a rollout of {num_rows} × {columns} = {total} steps does not divide into minibatches of "
            f"{minibatch_size}: use a minibatch_size that divides it, such as {fitting}"
        )
    if rows and own % columns:
        raise RllabError(
            f"this policy learns from whole rows of {columns} steps, so minibatch_size must be a multiple of "
            f"{columns * distributed.processes()}, not {minibatch_size}"
        )


def explained_variance(rollout: Rollout, returns: Tensor) -> float:
    """How much of the returns' variance the critic's values predicted, over the steps that exist."""
    arrays = (tensor.cpu().numpy() for tensor in (rollout.values, returns, rollout.valid))
    return statistics.explained_variance(*arrays)
