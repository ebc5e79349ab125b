"""Everything that determines a fine-tuning from rewards."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from envs.errors import RllabError
from language.models.lora import LoRAConfig
from language.preferences.collect import RewardConfig
from language.preferences.policy import TextPolicyConfig
from language.preferences.prompts import PromptsConfig
from language.preferences.responses import ResponsesConfig
from language.preferences.teaching_config import TeachingConfig
from rllab.agents import CONFIGS, AgentConfig, PPOConfig, ReinforceConfig, TRPOConfig
from rllab.documents import rebuilt
from rllab.loop_config import LoopConfig

RUN_KIND = "language-tuning"
"""The `kind` in a run's configuration."""
GROUP = 4
"""Responses to each prompt, where a baseline compares them and nothing else was said."""
DEFAULTS: dict[str, AgentConfig] = {
    "ppo": PPOConfig(
        discount=1.0, gae_lambda=0.95, learning_rate=1e-4, value_coefficient=0.1, value_clip_range=0.2
    ),
    "trpo": TRPOConfig(discount=1.0, gae_lambda=0.95, learning_rate=1e-4, critic_epochs=4),
    "reinforce": ReinforceConfig(discount=1.0, gae_lambda=0.95, learning_rate=1e-4, baseline="mean", critic_epochs=4),
}  # fmt: skip
"""γ, λ and PPO's coefficients are Ziegler et al.'s; their learning rate, 1.41e-5, is for 774 million weights."""


@dataclass(frozen=True)
class BatchConfig:
    """How many responses."""

    responses: int = 64
    """Of a rollout."""
    minibatch_responses: int = 16
    """Of a minibatch."""
    group_size: int = 0
    """How many responses answer the same prompt; 0: 4 where the agent's baseline compares them, else 1."""


@dataclass(frozen=True)
class TuneLoopConfig:
    """How long training goes on, and what happens beside it. A step is a token of a response."""

    steps: int = 150_000
    """Steps to train for."""
    evaluation_every: int = 15_000
    """Steps between evaluations on the held-out prompts; 0 turns them off."""
    stop_at: float | None = None
    """End once the mean score of an evaluation reaches this."""
    checkpoint_every: int = 15_000
    """Steps between checkpoints; 0 leaves only the best by evaluation and the last."""
    keep_checkpoints: int = 3
    """How many of the newest checkpoints to keep beside the best; 0 keeps all."""
    tensorboard: bool = True
    """Write TensorBoard events beside metrics.jsonl."""

    def __post_init__(self) -> None:
        self.loop()

    def loop(self) -> LoopConfig:
        """As `rllab.train` has it."""
        return LoopConfig(**asdict(self))


@dataclass(frozen=True)
class TuneConfig:
    """A model, a reward, prompts, an agent, and how they work together."""

    agent: AgentConfig
    """PPO's, TRPO's or REINFORCE's; `rollout_steps` and `minibatch_size` follow from the responses."""
    model: str
    """The folder of the model that learns; it is also the reference, and is not changed."""
    reward: tuple[str, ...]
    """What it is rewarded for, as `language.preferences.rewards.make_reward` understands it; the sum of these. Empty
    where the reward is learnt from comparisons."""
    gold: tuple[str, ...] = ()
    """By what it is judged in evaluations, if not by the reward."""
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    drawing: ResponsesConfig = field(default_factory=ResponsesConfig)
    rewarding: RewardConfig = field(default_factory=RewardConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    policy: TextPolicyConfig = field(default_factory=TextPolicyConfig)
    loop: TuneLoopConfig = field(default_factory=TuneLoopConfig)
    teaching: TeachingConfig = field(default_factory=TeachingConfig)
    """How a reward is learnt from comparisons, in place of one that is named."""
    seed: int = 0
    """Of prompts, responses and minibatches: the same seed gives the same run."""
    device: str = "cpu"
    """Where: cpu, cuda, cuda:1, …"""
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    """Adapters that learn in place of the weights."""

    def __post_init__(self) -> None:
        if not self.reward and not self.teaching.on:
            raise RllabError(
                "Name what is rewarded, such as --reward keywords:great,wonderful, or who compares, as --teacher human."
            )
        if self.reward and self.teaching.on:
            raise RllabError("A reward is either given or learnt from comparisons: leave out --reward or --teacher.")
        if not self.teaching.on and self.teaching != TeachingConfig():
            raise RllabError("Options about comparisons need somebody who compares: add --teacher human.")
        if self.batch.minibatch_responses < 1 or self.batch.responses % self.batch.minibatch_responses:
            raise RllabError(
                f"{self.batch.responses} responses do not divide into minibatches of {self.batch.minibatch_responses}; "
                "choose a --minibatch-responses that divides them."
            )
        if self._baseline in ("leave_one_out", "group") and self.batch.group_size == 1:
            raise RllabError(
                f"The baseline {self._baseline} compares responses to one prompt; use a --group-size of 2 or more."
            )
        if self.needs_critic and self.policy.value_head == "none":
            raise RllabError(
                f"This {self.method} learns with a critic; use --value-head separate or shared, or a baseline "
                "without one."
            )

    @property
    def method(self) -> str:
        """reinforce, ppo or trpo."""
        return next(name for name, kind in CONFIGS.items() if type(self.agent) is kind)

    @property
    def _baseline(self) -> str:
        if isinstance(self.agent, PPOConfig):
            return self.agent.advantage
        return self.agent.baseline if isinstance(self.agent, ReinforceConfig) else "gae"

    @property
    def needs_critic(self) -> bool:
        """Whether the agent learns a value function."""
        return self._baseline in ("gae", "value")

    @property
    def group_size(self) -> int:
        """How many responses answer the same prompt."""
        return self.batch.group_size or (GROUP if self._baseline in ("leave_one_out", "group") else 1)

    def whole_agent(self) -> AgentConfig:
        """The agent's configuration with what follows from the responses."""
        columns = self.drawing.maximum_new_tokens
        sizes: dict[str, Any] = {"rollout_steps": columns, "minibatch_size": self.batch.minibatch_responses * columns}
        return replace(self.agent, **sizes)

    def whole_policy(self) -> TextPolicyConfig:
        """The policy's configuration; without a critic where the agent has no use for one."""
        return self.policy if self.needs_critic else replace(self.policy, value_head="none")

    @property
    def run_id(self) -> str:
        """A UUID from which the ids of texts and pairs are made: that of all runs which would ask the same.

        Who answers, and how long the run goes on, plays no part.
        """
        who = {"teacher", "store", "question", "page", "flaws", "serving"}
        document = {name: value for name, value in asdict(self).items() if name != "loop"}
        if not self.lora.on:
            del document["lora"]
        document["teaching"] = {name: value for name, value in document["teaching"].items() if name not in who}
        return str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps({"method": self.method, **document}, sort_keys=True)))

    def to_json(self) -> dict[str, Any]:
        """What the run's folder keeps."""
        return {
            "kind": RUN_KIND, "method": self.method, **asdict(self), "goal": "return_mean", "higher_is_better": True,
        }  # fmt: skip

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> "TuneConfig":
        """The reverse. Raises RllabError if it was written by another version."""
        try:
            return rebuilt(TuneConfig, document, {"agent": CONFIGS[document["method"]]})
        except (KeyError, TypeError) as error:
            raise RllabError(f"The run's configuration is of another version ({error}); start a new run.") from error
