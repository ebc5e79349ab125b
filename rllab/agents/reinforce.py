"""REINFORCE (Williams 1992, "Simple statistical gradient-following algorithms"), the vanilla policy gradient.

One gradient step a rollout on log π(a|s) · (reward-to-go − baseline). The baseline changes the estimate's
variance, not its mean (but for a factor 1 − 1/n where the batch's own mean is taken off); a learned one, the value
function, is fitted after the advantages were computed.
"""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from envs.errors import RllabError
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
from rllab.agents.optimizer import Optimizer
from rllab.groups import row_advantages
from rllab.policies.policy import Policy
from rllab.returns import rewards_to_go
from rllab.rollout import Rollout


@dataclass(frozen=True)
class ReinforceConfig(AgentConfig):
    """REINFORCE's hyper-parameters."""

    gae_lambda: float = 1.0
    """With baseline value: λ of generalised advantage estimation; 1 is the reward-to-go itself."""
    baseline: Literal["none", "mean", "value", "leave_one_out", "group"] = "value"
    """What is taken off the reward-to-go: nothing, its mean over the batch, or a learned value. Only the last
    can bootstrap where a time limit or the rollout's end cuts an episode; the others learn from episodes that
    ended, and take a time limit for an end. With several responses to each prompt also, off a whole response's
    return: the mean of the others' (RLOO), or of the group's (GRPO)."""
    group_deviation: bool = True
    """With baseline group: divide by the deviation of the group's returns (GRPO does)."""
    normalise_advantages: bool = True
    """Standardise advantages over the whole batch."""
    critic_epochs: int = 10
    """With baseline value: passes of the critic's regression over a rollout."""
    minibatch_size: int = 256
    """With baseline value: steps in a minibatch of that regression."""
    critic_learning_rate: float = 1e-3
    """With baseline value: Adam's step size in that regression."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.critic_epochs >= 1, f"critic_epochs must be at least 1, not {self.critic_epochs}")

    def check(self, num_rows: int, rows: bool) -> None:
        if self.baseline == "value":
            check_division(self.minibatch_size, num_rows, self.rollout_steps, rows)


class Reinforce(Agent):
    """The policy gradient of the seed: sample, weigh log-probabilities by what came after, step."""

    name = "reinforce"
    config: ReinforceConfig

    def __init__(self, policy: Policy, config: ReinforceConfig | None = None, seed: int = 0) -> None:
        super().__init__(policy, config or ReinforceConfig(), seed)
        self.episodes_end = False
        """Whether an episode has ever ended within a rollout, which the baselines none and mean depend on."""
        epsilon, max_grad_norm = self.config.adam_epsilon, self.config.max_grad_norm
        inside = self.config.adam_epsilon_inside
        self.optimizer = Optimizer(
            policy, policy.actor_parameters(), learning_rate=self.config.learning_rate, epsilon=epsilon,
            max_grad_norm=max_grad_norm, epsilon_inside=inside,
        )  # fmt: skip
        self.critic_optimizer = Optimizer(
            policy, policy.critic_parameters(), learning_rate=self.config.critic_learning_rate, epsilon=epsilon,
            max_grad_norm=max_grad_norm, epsilon_inside=inside,
        )  # fmt: skip

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        return {"actor": self.optimizer, "critic": self.critic_optimizer}

    def update(self, rollout: Rollout, remaining: float = 1.0) -> Metrics:
        config = self.config
        learning_rate = self.optimizer.set_rate(config.learning_rate_schedule, remaining)
        advantages, returns, counted = self._credit(rollout)
        if not distributed.any_of(bool(counted.any())):
            # Every episode is longer than the rollout: nothing to learn from it, but earlier ones ended.
            return {"learning_rate": learning_rate, "skipped_updates": 1.0}
        batch = self.experience(rollout.replace(valid=counted), advantages, returns)
        advantage = batch.advantages
        if config.baseline == "mean":
            advantage = advantage - distributed.mean_(batch.mean(advantage))
        if config.normalise_advantages:
            advantage = standardised(advantage, batch)

        evaluation = self.policy.evaluate(batch, parameters=False)
        policy_loss = -batch.mean(evaluation.log_prob * advantage)
        entropy = batch.mean(evaluation.entropy)
        loss = policy_loss - config.entropy_coefficient * entropy if config.entropy_coefficient else policy_loss
        gradient_norm = self.optimizer.step(loss)

        metrics = {
            "policy_loss": float(policy_loss.detach()),
            "entropy": float(entropy.detach()),
            "gradient_norm": gradient_norm,
            "learning_rate": learning_rate,
        }
        if config.baseline == "value":
            size = entries(config.minibatch_size, rollout.actions.shape[1], self.policy.rows)
            metrics |= fit_critic(self, self.critic_optimizer, batch, config.critic_epochs, size)
            metrics["explained_variance"] = explained_variance(rollout, returns)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "episodes_end": self.episodes_end}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.episodes_end = state["episodes_end"]

    def _credit(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """Advantages before any mean is taken off, returns, and which steps count, each `[N, T]`."""
        if self.config.baseline == "value":
            advantages = self.advantages(rollout)
            return advantages, advantages + rollout.values, rollout.valid
        if self.config.baseline in ("leave_one_out", "group"):
            advantages = row_advantages(
                rollout, self.config.baseline, discount=self.config.discount, divide=self.config.group_deviation
            )
            return advantages, advantages, rollout.valid
        returns, complete = rewards_to_go(
            rollout.rewards, rollout.terminated, rollout.truncated, rollout.valid, discount=self.config.discount
        )
        self.episodes_end = self.episodes_end or distributed.any_of(bool(complete.any()))
        if not self.episodes_end:
            raise RllabError(
                f"no episode ended within rollout_steps = {self.config.rollout_steps}, and with baseline "
                f"'{self.config.baseline}' REINFORCE learns from ended episodes only: raise rollout_steps, or "
                "use baseline 'value'"
            )
        return returns, returns, complete
