"""TRPO: trust region policy optimisation (Schulman et al. 2015, "Trust Region Policy Optimization").

Maximise the surrogate E[ratio · A] subject to a mean KL divergence of at most δ (equation 14): the natural gradient
F⁻¹g by conjugate gradients on Fisher-vector products, the step √(2δ / gᵀF⁻¹g) · F⁻¹g (appendix C), and a line
search that accepts it only if the KL constraint holds and the surrogate improves. The critic is fitted apart.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

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
    fit_critic,
    require,
    standardised,
)
from rllab.agents.optimizer import Optimizer, require_finite
from rllab.policies.policy import Policy
from rllab.rollout import Experience, Rollout


@dataclass(frozen=True)
class TRPOConfig(AgentConfig):
    """TRPO's hyper-parameters."""

    rollout_steps: int = 1024
    """Steps (columns) each environment contributes to a rollout; curvature wants large batches."""
    learning_rate: float = 1e-3
    """Adam's step size in the critic's regression."""
    max_grad_norm: float = 0.0
    """Clipping of the critic's gradient; off, as TRPO's own step is bounded by the trust region."""
    max_kl: float = 0.01
    """δ, the largest mean KL divergence of a step (section 8: 0.01)."""
    cg_iterations: int = 10
    """Conjugate gradient iterations (appendix C: 10)."""
    cg_damping: float = 0.1
    """Added to the Fisher matrix's diagonal (the authors' code: 0.1)."""
    line_search: bool = True
    """Backtrack until both conditions hold; off gives the plain natural policy gradient (Kakade 2001)."""
    backtrack_factor: float = 0.8
    """The step shrinks by this at each try."""
    backtrack_steps: int = 10
    """Tries before the step is given up and the old policy restored."""
    normalise_advantages: bool = True
    """Standardise advantages over the batch."""
    fisher_fraction: float = 1.0
    """Share of the batch's entries that the Fisher matrix is measured on (appendix C uses a tenth)."""
    critic_epochs: int = 10
    """Passes of the critic's regression over a rollout."""
    minibatch_size: int = 128
    """Steps in a minibatch of that regression."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_kl > 0, f"max_kl must be above 0, not {self.max_kl}")
        require(self.cg_iterations >= 1, f"cg_iterations must be at least 1, not {self.cg_iterations}")
        require(self.cg_damping >= 0, f"cg_damping must be 0 or more, not {self.cg_damping}")
        require(0 < self.backtrack_factor < 1, f"backtrack_factor must lie in (0, 1), not {self.backtrack_factor}")
        require(0 < self.fisher_fraction <= 1, f"fisher_fraction must lie in (0, 1], not {self.fisher_fraction}")

    def check(self, num_rows: int, rows: bool) -> None:
        check_division(self.minibatch_size, num_rows, self.rollout_steps, rows)


class TRPO(Agent):
    """One step a rollout along the natural gradient, as far as the trust region lets it go."""

    name = "trpo"
    config: TRPOConfig

    def __init__(self, policy: Policy, config: TRPOConfig | None = None, seed: int = 0) -> None:
        super().__init__(policy, config or TRPOConfig(), seed)
        self.actor = policy.actor_parameters()
        self.critic_optimizer = Optimizer(
            policy, policy.critic_parameters(), learning_rate=self.config.learning_rate,
            epsilon=self.config.adam_epsilon, max_grad_norm=self.config.max_grad_norm,
            epsilon_inside=self.config.adam_epsilon_inside,
        )  # fmt: skip

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        return {"critic": self.critic_optimizer}

    def update(self, rollout: Rollout, remaining: float = 1.0) -> Metrics:
        config = self.config
        self.critic_optimizer.set_rate(config.learning_rate_schedule, remaining)
        advantages = self.advantages(rollout)
        returns = advantages + rollout.values
        batch = self.experience(rollout, advantages, returns)
        if config.normalise_advantages:
            batch = replace(batch, advantages=standardised(batch.advantages, batch))

        metrics = self._improve(batch)
        size = entries(config.minibatch_size, rollout.actions.shape[1], self.policy.rows)
        metrics |= fit_critic(self, self.critic_optimizer, batch, config.critic_epochs, size)
        metrics["explained_variance"] = explained_variance(rollout, returns)
        return metrics

    def _improve(self, batch: Experience) -> Metrics:
        """The natural-gradient step on the actor, within the trust region."""
        config = self.config
        evaluation = self.policy.evaluate(batch)
        # From the same pass that the KL divergences come from, so that at the old policy both are exact:
        # ratios of 1, a divergence of 0.
        assert evaluation.parameters is not None
        old_log_prob, old_parameters = evaluation.log_prob.detach(), evaluation.parameters.detach()
        entropy = float(batch.mean(evaluation.entropy.detach()))
        bonus = config.entropy_coefficient

        ratio = (evaluation.log_prob - old_log_prob).exp()
        surrogate = batch.mean(ratio * batch.advantages) + bonus * batch.mean(evaluation.entropy)
        before = distributed.mean(float(surrogate.detach()))
        gradient = distributed.mean_(self.policy.gradient(surrogate, self.actor).clone())
        require_finite(before, float(gradient.norm()))

        fisher = self._damped_fisher(batch)
        direction, iterations = conjugate_gradients(fisher, gradient, config.cg_iterations)
        curvature = float(direction @ fisher(direction))
        metrics = {
            "entropy": entropy,
            "gradient_norm": float(gradient.norm()),
            "cg_iterations": float(iterations),
            "step_size": 0.0,
            "kl": 0.0,
            "surrogate_improvement": 0.0,
            "line_search_failed": 1.0,
            "backtracks": 0.0,
        }
        if not (curvature > 0 and torch.isfinite(direction).all()):
            # No direction to trust (a vanished gradient, or curvature lost in rounding): keep the policy.
            return metrics

        step = (2 * config.max_kl / curvature) ** 0.5
        old = self.actor.detach().clone()
        tries = config.backtrack_steps if config.line_search else 1
        for attempt in range(tries):
            length = step * config.backtrack_factor**attempt
            with torch.no_grad():
                self.actor.copy_(old + length * direction)
            after, divergence = self._measure(batch, old_log_prob, old_parameters)
            accepted = divergence <= config.max_kl and after > before
            if accepted or not config.line_search:
                return metrics | {
                    "step_size": length,
                    "kl": divergence,
                    "surrogate_improvement": after - before,
                    "line_search_failed": 0.0,
                    "backtracks": float(attempt),
                }
        with torch.no_grad():
            self.actor.copy_(old)
        return metrics | {"backtracks": float(tries)}

    def _damped_fisher(self, batch: Experience) -> Callable[[Tensor], Tensor]:
        """v ↦ (F + damping · I)·v, measured on a share of the batch."""
        if self.config.fisher_fraction < 1:
            count = max(1, round(len(batch.valid) * self.config.fisher_fraction))
            chosen = self.generator.permutation(len(batch.valid))[:count]
            batch = batch.select(torch.from_numpy(chosen).to(batch.valid.device))
        product, damping = self.policy.fisher(batch), self.config.cg_damping
        return lambda vector: distributed.mean_(product(vector)) + damping * vector

    @torch.no_grad()
    def _measure(self, batch: Experience, old_log_prob: Tensor, old_parameters: Tensor) -> tuple[float, float]:
        """The surrogate of the policy as it now is, and its mean KL divergence from the old one, over all processes."""
        evaluation = self.policy.evaluate(batch)
        ratio = (evaluation.log_prob - old_log_prob).exp()
        surrogate = batch.mean(ratio * batch.advantages)
        surrogate += self.config.entropy_coefficient * batch.mean(evaluation.entropy)
        assert evaluation.parameters is not None
        old = self.policy.distribution(old_parameters, batch.action_mask)
        new = self.policy.distribution(evaluation.parameters, batch.action_mask)
        return distributed.mean(float(surrogate)), distributed.mean(float(batch.mean(old.kl(new))))


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], target: Tensor, iterations: int, tolerance: float = 1e-10
) -> tuple[Tensor, int]:
    """Solve A·x = target for a symmetric positive definite A given by its products (Hestenes & Stiefel 1952).

    Stops early when the squared residual falls to `tolerance` times the target's square, or when rounding has cost
    a direction its positive curvature. Returns x and the number of products taken.
    """
    solution = torch.zeros_like(target)
    residual, direction = target.clone(), target.clone()
    squared = residual @ residual
    # Relative, so that the natural gradient stays indifferent to the scale of the rewards.
    threshold = tolerance * float(squared)
    for iteration in range(iterations):
        if float(squared) <= threshold:
            return solution, iteration
        curved = product(direction)
        curvature = direction @ curved
        if not float(curvature) > 0:
            return solution, iteration + 1
        length = squared / curvature
        solution += length * direction
        residual -= length * curved
        squared, previous = residual @ residual, squared
        direction = residual + (squared / previous) * direction
    return solution, iterations
