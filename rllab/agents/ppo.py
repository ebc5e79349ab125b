"""PPO: proximal policy optimisation (Schulman et al. 2017, "Proximal Policy Optimization Algorithms").

The clipped surrogate of section 3 and the adaptive KL penalty of section 4, with the details of Huang et al.
2022 ("The 37 implementation details of proximal policy optimization"), each a field of the configuration.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from rllab import distributed
from rllab.agents.agent import (
    Agent,
    AgentConfig,
    Metrics,
    check_division,
    entries,
    explained_variance,
    require,
    standardised,
)
from rllab.agents.optimizer import Optimizer, Schedule, schedule
from rllab.agents.surrogate import clipped_surrogate
from rllab.groups import check_one_episode, row_advantages
from rllab.policies.arrays import ExperienceArrays
from rllab.policies.policy import Evaluation, Policy
from rllab.rollout import Experience, Rollout

Measured = dict[str, Any]
"""Scalars by name, tensors or NumPy's."""


@dataclass(frozen=True)
class PPOConfig(AgentConfig):
    """PPO's hyper-parameters."""

    minibatch_size: int = 256
    """Steps in a minibatch."""
    epochs: int = 4
    """Passes over a rollout (K in the paper)."""
    objective: Literal["clip", "kl_penalty"] = "clip"
    """The clipped surrogate (section 3) or the adaptive KL penalty (section 4)."""
    advantage: Literal["gae", "leave_one_out", "group"] = "gae"
    """Generalised advantage estimates, which need a critic; or, with several responses to each prompt, a response's
    return less the mean of the others' (RLOO) or of the group's (GRPO): then no critic learns."""
    group_deviation: bool = True
    """With advantage group: divide by the deviation of the group's returns (GRPO does)."""
    ratio: Literal["token", "sequence"] = "token"
    """A ratio for each step, or their product over a whole row, which is then one action and clipped once."""
    clip_range: float = 0.2
    """ε of the clipped surrogate (section 6.1: 0.2 was best)."""
    clip_range_schedule: Schedule = "constant"
    """How the clip range falls over training."""
    normalise_advantages: Literal["minibatch", "batch", "none"] = "minibatch"
    """Where advantages are standardised (the 37 details, core detail 7: in each minibatch)."""
    value_coefficient: float = 0.5
    """Weight of the value loss, a mean squared error (c1 of equation 9)."""
    value_clip_range: float | None = None
    """Keep new values within this distance of the old ones in the loss (core detail 9); none by default, since
    Andrychowicz et al. 2021 and Engstrom et al. 2020 found that it does not help."""
    target_kl: float | None = None
    """Stop an update early once the approximate KL divergence of a minibatch exceeds 1.5 times this."""
    kl_penalty_target: float = 0.01
    """d_targ of the adaptive penalty (table 1 lists 0.003, 0.01 and 0.03; 0.01 was best)."""
    kl_penalty_initial: float = 1.0
    """β at the start; it adapts quickly (section 4)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.epochs >= 1, f"epochs must be at least 1, not {self.epochs}")
        require(self.clip_range > 0, f"clip_range must be above 0, not {self.clip_range}")
        require(self.target_kl is None or self.target_kl > 0, f"target_kl must be above 0, not {self.target_kl}")

    def check(self, num_rows: int, rows: bool) -> None:
        require(
            rows or self.ratio == "token",
            "ratio 'sequence' is for policies that learn from whole rows, as language models do; leave it out here",
        )
        check_division(self.minibatch_size, num_rows, self.rollout_steps, rows)


class PPO(Agent):
    """Several epochs of minibatch steps on a surrogate that does not reward leaving the old policy."""

    name = "ppo"
    config: PPOConfig

    def __init__(self, policy: Policy, config: PPOConfig | None = None, seed: int = 0) -> None:
        super().__init__(policy, config or PPOConfig(), seed)
        self.optimizer = Optimizer(
            policy, policy.flat, learning_rate=self.config.learning_rate, epsilon=self.config.adam_epsilon,
            max_grad_norm=self.config.max_grad_norm, epsilon_inside=self.config.adam_epsilon_inside,
        )  # fmt: skip
        self.kl_coefficient = self.config.kl_penalty_initial

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        return {"adam": self.optimizer}

    def update(self, rollout: Rollout, remaining: float = 1.0) -> Metrics:
        config = self.config
        learning_rate = self.optimizer.set_rate(config.learning_rate_schedule, remaining)
        clip_range = config.clip_range * schedule(config.clip_range_schedule, remaining)

        if config.ratio == "sequence":
            check_one_episode(rollout, "ratio 'sequence'")
        if config.advantage == "gae":
            advantages = self.advantages(rollout)
            returns = advantages + rollout.values
        else:
            advantages = returns = row_advantages(
                rollout, config.advantage, discount=config.discount, divide=config.group_deviation
            )
        batch = self.experience(rollout, advantages, returns)
        if config.normalise_advantages == "batch":
            batch = replace(batch, advantages=standardised(batch.advantages, batch))
        if config.objective == "kl_penalty":
            with torch.no_grad():
                batch = replace(batch, parameters=self.policy.evaluate(batch).parameters)

        size = entries(config.minibatch_size, rollout.actions.shape[1], self.policy.rows)
        statistics: list[Measured] = []
        norms: list[float] = []
        for loss, measured in self._gradients(batch, size, clip_range):
            statistics.append(measured)
            if config.target_kl is not None:
                divergence = distributed.mean(float(measured["approximate_kl"]))
                if divergence > 1.5 * config.target_kl:
                    break
            norms.append(self.optimizer.apply(loss))

        metrics = {name: float(sum(m[name] for m in statistics)) / len(statistics) for name in statistics[0]}
        metrics |= {
            "gradient_norm": sum(norms) / max(len(norms), 1),
            "learning_rate": learning_rate,
            "clip_range": clip_range,
            "minibatches": len(norms),
        }
        if config.advantage == "gae":
            metrics["explained_variance"] = explained_variance(rollout, returns)
        if config.objective == "kl_penalty":
            metrics |= self._adapt_penalty(batch)
        return metrics

    def _gradients(self, batch: Experience, size: int, clip_range: float) -> Iterator[tuple[Any, Measured]]:
        """Epochs of minibatches: each time the gradient lies in the buffer; the loss, and what is reported of it."""
        config, fast = self.config, self.policy.fast
        plain = (config.objective, config.advantage, config.ratio) == ("clip", "gae", "token")
        by_hand = plain and config.value_clip_range is None and type(self).loss is PPO.loss
        if fast is not None and by_hand and distributed.processes() == 1:
            arrays = ExperienceArrays.of(batch)
            for _ in range(config.epochs):
                for piece in arrays.minibatches(size, self.generator):
                    yield clipped_surrogate(fast, piece, config, clip_range)
            return
        for _ in range(config.epochs):
            for minibatch in batch.minibatches(size, self.generator):
                evaluation = self.policy.evaluate(minibatch, parameters=config.objective == "kl_penalty")
                loss, measured = self.loss(minibatch, evaluation, clip_range)
                self.policy.gradient(loss, self.policy.flat)
                yield loss.detach(), measured

    def loss(self, batch: Experience, evaluation: Evaluation, clip_range: float) -> tuple[Tensor, Measured]:
        """Equation 9 with its sign turned, to be minimised; and what is reported of it."""
        config = self.config
        advantage = batch.advantages
        if config.normalise_advantages == "minibatch":
            advantage = standardised(advantage, batch)

        # Not even an infinite ratio of a step that does not exist may reach the mean, where 0 · ∞ is NaN.
        log_ratio = torch.where(batch.valid, evaluation.log_prob - batch.log_probs, 0.0)
        mean: Callable[[Tensor], Tensor] = batch.mean
        if config.ratio == "sequence":
            log_ratio, advantage, mean = _by_row(batch, log_ratio, advantage)
        ratio = log_ratio.exp()
        if config.objective == "clip":
            clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
            policy_loss = -mean(torch.min(ratio * advantage, clipped * advantage))
        else:
            divergence = batch.mean(self._divergence(batch, evaluation))
            policy_loss = -mean(ratio * advantage) + self.kl_coefficient * divergence

        entropy = batch.mean(evaluation.entropy)
        measured = {"policy_loss": policy_loss, "entropy": entropy}
        loss = policy_loss
        if config.advantage == "gae":
            measured["value_loss"] = value_loss = batch.mean(self._squared_error(batch, evaluation.value))
            loss = loss + config.value_coefficient * value_loss
        if config.entropy_coefficient:
            loss = loss - config.entropy_coefficient * entropy

        with torch.no_grad():
            measured |= {
                # Schulman's estimator k3: unbiased, never negative (http://joschu.net/blog/kl-approx.html).
                "approximate_kl": mean(ratio - 1 - log_ratio),
                "clip_fraction": mean(((ratio - 1).abs() > clip_range).float()),
            }
        return loss, {name: value.detach() for name, value in measured.items()}

    def _squared_error(self, batch: Experience, value: Tensor) -> Tensor:
        error = (value - batch.returns).square()
        if self.config.value_clip_range is None:
            return error
        limit = self.config.value_clip_range
        clipped = batch.values + (value - batch.values).clamp(-limit, limit)
        return torch.max(error, (clipped - batch.returns).square())

    def _divergence(self, batch: Experience, evaluation: Evaluation) -> Tensor:
        """KL(π_old ‖ π) at each step, exactly."""
        assert batch.parameters is not None
        assert evaluation.parameters is not None
        old = self.policy.distribution(batch.parameters, batch.action_mask)
        return old.kl(self.policy.distribution(evaluation.parameters, batch.action_mask))

    def _adapt_penalty(self, batch: Experience) -> Metrics:
        """β doubles above 1.5 times the target and halves below the target / 1.5 (section 4)."""
        with torch.no_grad():
            divergence = distributed.mean(float(batch.mean(self._divergence(batch, self.policy.evaluate(batch)))))
        target = self.config.kl_penalty_target
        if divergence > 1.5 * target:
            self.kl_coefficient *= 2
        elif divergence < target / 1.5:
            self.kl_coefficient /= 2
        return {"kl": divergence, "kl_coefficient": self.kl_coefficient}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "kl_coefficient": self.kl_coefficient}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.kl_coefficient = state["kl_coefficient"]


def _by_row(
    batch: Experience, log_ratio: Tensor, advantage: Tensor
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """Rows `[B, T]` as single actions `[B]`: their log-ratios, their steps' mean advantages, and the mean over rows."""
    lengths = batch.valid.sum(1)
    exists = (lengths > 0).float()
    weights = exists / exists.sum().clamp_min(1)
    advantages = torch.where(batch.valid, advantage, 0.0).sum(1) / lengths.clamp_min(1)
    return log_ratio.sum(1), advantages, lambda values: torch.dot(values, weights)
