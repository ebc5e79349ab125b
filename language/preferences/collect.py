"""TextCollector: rollouts of responses, rewarded at their end and held near to the reference at every token.

Ziegler et al. 2019, "Fine-tuning language models from human preferences" (section 2.2), with the details of Huang et
al. 2023, "The N implementation details of RLHF with PPO".
"""

import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from envs.errors import RllabError
from language.preferences.policy import TextPolicy
from language.preferences.prompts import PromptOrder
from language.preferences.responses import Responses, ResponsesConfig, respond
from language.preferences.rewards import RewardFailedError, TextReward, score
from language.tokenizers.tokenizer import Tokenizer
from rllab import distributed
from rllab.rollout import Rollout

KLEstimator: TypeAlias = Literal["k1", "k2", "k3"]
"""Of KL(π ‖ ρ) from a sample of π (Schulman 2020, http://joschu.net/blog/kl-approx.html)."""


@dataclass(frozen=True)
class RewardConfig:
    """What the agent is given for responses."""

    beta: float = 0.05
    """β, what a nat of divergence from the reference costs (Stiennon et al.: 0.05; Ziegler et al. begin at 0.15)."""
    kl_estimator: KLEstimator = "k1"
    """Of each token's divergence: log π − log ρ, half its square, or ρ/π − 1 + log π − log ρ."""
    kl_target: float | None = None
    """Adapt β so that the divergence of a whole response comes to so many nats (Ziegler et al.: 6)."""
    kl_horizon: int = 10_000
    """Responses in which β adapts (Ziegler et al.: 10,000)."""
    kl_limit: float | None = None
    """Stop if the mean divergence of a response rises above so many nats."""
    no_stop_score: float | None = None
    """In place of the score of a response that no stop token ended (the N details: −1); by default its own score."""
    normalise_rewards: int = 0
    """Shift and scale scores to mean 0, deviation 1 on so many responses of the model as it begins; 0: as they are."""
    whiten_rewards: Literal["none", "scale", "shift"] = "none"
    """Divide a rollout's rewards, divergence included, by their deviation; or take off their mean too."""

    def __post_init__(self) -> None:
        if self.normalise_rewards < 0 or self.normalise_rewards == 1:
            raise RllabError(f"normalise_rewards must be 0 (off) or 2 or more, not {self.normalise_rewards}.")
        for name in ("kl_target", "kl_horizon", "kl_limit"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise RllabError(f"{name} must be above 0, not {value}.")
        if not self.beta >= 0:
            raise RllabError(f"beta must be 0 or more, not {self.beta}.")
        if self.kl_target is not None and self.beta == 0:
            raise RllabError("A beta of 0 cannot adapt to kl_target, as it is multiplied; begin with 0.15.")


class ConstantRewardWarning(UserWarning):
    """The reward does not tell the responses of a rollout apart."""


class KLRunawayError(RllabError):
    """The policy left the reference further than was allowed."""


class TextCollector:
    """Draws prompts, lets the policy respond, and scores what it wrote. Rows are responses, columns their tokens."""

    alike = True
    """Its state is the same in each of several processes."""

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        reward: TextReward,
        tokenizer: Tokenizer,
        *,
        responses: int = 64,
        group_size: int = 1,
        drawing: ResponsesConfig | None = None,
        rewarding: RewardConfig | None = None,
        seed: int = 0,
    ) -> None:
        """Put it together.

        Args:
            prompts: ids of each.
            reward: scores texts.
            tokenizer: of the policy's model.
            responses: N, of a rollout.
            group_size: how many of them answer the same prompt.
            drawing: how they are drawn.
            rewarding: what the agent is given for them.
            seed: of the order of prompts, and of the responses.

        Raises:
            RllabError: groups do not fit into a rollout, or into a process's share of it.
        """
        if responses < 1 or group_size < 1 or responses % group_size:
            raise RllabError(
                f"{responses} responses do not divide into groups of {group_size}; choose a multiple of the group size."
            )
        distributed.share(responses // group_size, "The number of prompts of a rollout,")
        self.num_rows, self.group_size = responses // distributed.processes(), group_size
        self.reward, self.tokenizer = reward, tokenizer
        self.drawing, self.rewarding = drawing or ResponsesConfig(), rewarding or RewardConfig()
        self.beta = self.rewarding.beta
        self.order = PromptOrder(prompts, seed)
        self.generator = np.random.default_rng(np.random.SeedSequence([seed, 0x7E27]))
        self.scale: tuple[float, float] | None = None
        """Mean and deviation of the scores of the model as it began, once they are measured."""
        self.seconds: Counter[str] = Counter()
        """Of the process so far, spent on generating, scoring and evaluating."""
        self._said_constant = False
        self._recent: dict[str, float] = {}

    def collect(self, policy: TextPolicy) -> Rollout:
        """Responses to the next prompts.

        Raises:
            RewardFailedError: the reward failed, or is not finite. The collector is as it was: it would make the same
                responses again.
            RllabError: the reward is the same for everything.
            KLRunawayError: the policy is further from the reference than `kl_limit`.
        """
        config = self.rewarding
        before = self.state_dict()
        try:
            if config.normalise_rewards and self.scale is None:
                self.scale = self._measured(policy, config.normalise_rewards)
            responses = self._respond(policy, self.num_rows * distributed.processes())
            scores = self._score(responses)
        except RewardFailedError:
            self.load_state_dict(before)
            raise
        everyone = np.concatenate(distributed.gathered(scores))
        self._say_if_constant(everyone)

        with self._timed("evaluating"):
            values = policy.values(responses.batch)
            reference = policy.reference.log_probs(responses.batch)
        valid = responses.batch.valid
        difference = (responses.log_probs - reference) * valid
        last = _last(valid)
        worth = torch.from_numpy(self._worth(scores, responses.finished.cpu().numpy())).float().to(valid.device)
        rewards = last * worth[:, None] - self.beta * kl_estimate(difference, config.kl_estimator)
        if config.whiten_rewards != "none":
            rewards = whitened(rewards, valid, shift=config.whiten_rewards == "shift")
        divergence = distributed.mean(float(difference.sum(1).mean()))
        self._recent = self._measures(responses, everyone, worth, divergence)
        if config.kl_limit is not None and not divergence <= config.kl_limit:
            raise KLRunawayError(
                f"The responses' mean divergence from the reference rose to {divergence:.1f} nats, above kl_limit "
                f"{config.kl_limit:g}, so training stopped; raise beta or lower the learning rate."
            )
        if config.kl_target is not None:
            self.beta = adapted_beta(self.beta, divergence, config.kl_target, len(everyone), config.kl_horizon)
        group = torch.arange(self.num_rows, device=valid.device) // self.group_size
        return Rollout(
            observations=responses.batch.observations, actions=responses.batch.actions, rewards=rewards,
            terminated=last, truncated=torch.zeros_like(last), valid=valid, log_probs=responses.log_probs,
            values=values, next_values=torch.nn.functional.pad(values[:, 1:], (0, 1)),
            environment_rewards=last * torch.from_numpy(scores).float().to(valid.device)[:, None],
            group=group if self.group_size > 1 else None, episode_returns=scores,
            episode_lengths=responses.lengths.cpu().numpy(),
        )  # fmt: skip

    def _respond(self, policy: TextPolicy, count: int) -> Responses:
        """This process's share of so many responses."""
        prompts = [row for row in self.order.take(-(-count // self.group_size)) for _ in range(self.group_size)]
        seeds = self.generator.integers(2**63 - 1, size=count).tolist()
        # All processes draw the same prompts and seeds, so that what is sampled does not depend on their number.
        places = (distributed.rank(), distributed.rank() + 1)
        own = slice(*(count * place // distributed.processes() for place in places))
        with self._timed("generating"):
            return respond(policy, self.tokenizer, prompts[:count][own], seeds[own], self.drawing)

    def _score(self, responses: Responses) -> np.ndarray:
        with self._timed("scoring"):
            return score(self.reward, responses.prompts, responses.texts)

    def _measured(self, policy: TextPolicy, count: int) -> tuple[float, float]:
        """Mean and deviation of the scores of so many responses."""
        count = max(count, distributed.processes())
        scores = np.concatenate(distributed.gathered(self._score(self._respond(policy, count))))
        if not scores.std() > 0:
            raise RllabError(
                f"The reward is {scores[0]:g} for all of {count} responses of the model, so there is nothing to learn; "
                "give another reward or other prompts."
            )
        return float(scores.mean()), float(scores.std())

    def _worth(self, scores: np.ndarray, finished: np.ndarray) -> np.ndarray:
        """What each response is worth to the agent."""
        mean, deviation = self.scale or (0.0, 1.0)
        worth = (scores - mean) / deviation
        if self.rewarding.no_stop_score is None:
            return worth
        return np.where(finished, worth, self.rewarding.no_stop_score)

    def _say_if_constant(self, scores: np.ndarray) -> None:
        constant = len(scores) > 1 and bool((scores == scores[0]).all())
        if constant and not self._said_constant and distributed.is_first():
            warnings.warn(
                f"the reward is {scores[0]:g} for all {len(scores)} responses of a rollout: nothing is learnt from it",
                ConstantRewardWarning,
                stacklevel=3,
            )
        self._said_constant = constant

    def _measures(self, responses: Responses, scores: np.ndarray, worth: Tensor, divergence: float) -> dict[str, float]:
        reward = float(worth.mean())
        return {
            "return_mean": float(scores.mean()),
            "score_std": float(scores.std()),
            "length_mean": float(responses.lengths.float().mean()),
            "kl_response": divergence,
            "beta": self.beta,
            "reward": reward,
            "reward_minus_kl": reward - self.beta * divergence,
            "share_without_stop": 1 - float(responses.finished.float().mean()),
            "distinct_2": distinct_pairs(responses),
        }

    def recent(self) -> dict[str, float]:
        """Of the last rollout.

        `return_mean` and `score_std` are of the reward's own scores; `reward` of what the agent was given for them;
        `kl_response` is the mean of log π − log ρ summed over a response.
        """
        return dict(self._recent)

    def _timed(self, what: str) -> "_Timer":
        return _Timer(self.seconds, what)

    def state_dict(self) -> dict[str, Any]:
        """The order of prompts, the generator, β, and the scores' scale."""
        return {
            "order": self.order.state_dict(),
            "generator": self.generator.bit_generator.state,
            "beta": self.beta,
            "scale": self.scale,
            "said_constant": self._said_constant,
            "recent": self._recent,
        }

    def load_state_dict(self, state: dict[str, Any]) -> list[str]:
        """Take over a state; it is always exact."""
        self.order.load_state_dict(state["order"])
        self.generator.bit_generator.state = state["generator"]
        self.beta, self._said_constant, self._recent = state["beta"], state["said_constant"], dict(state["recent"])
        self.scale = None if state["scale"] is None else tuple(state["scale"])
        return []

    def close(self) -> None:
        """There is nothing to let go."""


class _Timer:
    def __init__(self, seconds: Counter[str], what: str) -> None:
        self._seconds, self._what = seconds, what

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._seconds[self._what] += time.perf_counter() - self._began  # type: ignore[assignment]


def kl_estimate(difference: Tensor, estimator: KLEstimator) -> Tensor:
    """Estimates of KL(π ‖ ρ) from log π − log ρ of tokens drawn from π.

    k1 and k3 are unbiased; k2 and k3 are never below 0.
    """
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return 0.5 * difference.square()
    return torch.expm1(-difference) + difference


def adapted_beta(beta: float, divergence: float, target: float, responses: int, horizon: int) -> float:
    """Ziegler et al. 2019, section 2.2: a proportional controller, whose error is clipped to ±0.2."""
    error = min(max(divergence / target - 1, -0.2), 0.2)
    return beta * (1 + error * responses / horizon)


def whitened(rewards: Tensor, valid: Tensor, *, shift: bool) -> Tensor:
    """Rewards `[N, T]` over their deviation (the population's, of valid steps), with their mean taken off or kept."""
    count = distributed.sum_(valid.sum()).clamp_min(1)
    mean = distributed.sum_((rewards * valid).sum()) / count
    centred = (rewards - mean) * valid
    scaled = centred * (distributed.sum_(centred.square().sum()) / count + 1e-8).rsqrt()
    return scaled if shift else (scaled + mean) * valid


def distinct_pairs(responses: Responses) -> float:
    """The share of different pairs of neighbouring tokens in all responses (distinct-2, Li et al. 2016); 1 if none."""
    tokens, valid = responses.batch.actions, responses.batch.valid
    pairs = torch.stack([tokens[:, :-1], tokens[:, 1:]], -1)[valid[:, 1:]]
    return len(torch.unique(pairs, dim=0)) / len(pairs) if len(pairs) else 1.0


def _last(valid: Tensor) -> Tensor:
    """Which columns hold the last token of a row."""
    return valid & ~torch.nn.functional.pad(valid[:, 1:], (0, 1))
