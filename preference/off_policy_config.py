"""The configuration of Stable-Baselines3's off-policy agents: what can be chosen, and what each takes by default."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from envs.errors import RllabError
from envs.make import EnvConfig
from preference.entropy import NEIGHBOURS
from rllab.agents.agent import require
from rllab.documents import with_tuples
from rllab.loop_config import LoopConfig

AGENT_DEFAULTS: dict[str, dict[str, Any]] = {
    "sac": {"learning_rate": 3e-4, "batch_size": 256, "tau": 0.005, "gradient_steps": 1.0},
    "td3": {"learning_rate": 1e-3, "batch_size": 256, "tau": 0.005, "gradient_steps": 1.0},
    "dqn": {"learning_rate": 1e-4, "batch_size": 32, "tau": 1.0, "gradient_steps": 0.25},
}
"""Stable-Baselines3's own."""


@dataclass(frozen=True)
class OffPolicyConfig:
    """How SAC, TD3 or DQN learns; None: as Stable-Baselines3 has it for that agent."""

    rollout_steps: int = 64
    """Steps each environment makes between updates, which then take as many gradient steps as are due."""
    learning_starts: int = 1000
    """Steps with random actions, before the first gradient step (1000 in PEBBLE's published configuration)."""
    buffer_size: int | None = None
    """Steps that the replay buffer holds; None: 1,000,000, for images 50,000."""
    batch_size: int | None = None
    """Steps of a minibatch; None: 256, for DQN 32."""
    learning_rate: float | None = None
    """Step size of Adam; None: 3e-4 for SAC, 1e-3 for TD3, 1e-4 for DQN."""
    discount: float = 0.99
    """γ, how much a reward one step later is worth."""
    tau: float | None = None
    """How far target networks follow at each of their updates; None: 0.005, for DQN 1."""
    gradient_steps: float | None = None
    """Gradient steps for each step of an environment; None: 1, for DQN 0.25."""
    hidden_sizes: tuple[int, ...] | None = None
    """Hidden layers of actor and critics over numbers; None: 256-256, TD3 400-300, DQN 64-64."""
    exploration_noise: float = 0.1
    """TD3: standard deviation of the noise on its actions, in half-widths of their range (Fujimoto et al. 2018)."""
    exploration_fraction: float = 0.1
    """DQN: share of training over which random actions become fewer."""
    exploration_final: float = 0.05
    """DQN: share of random actions from then on."""
    target_update_interval: int = 10_000
    """DQN: steps between updates of the target network."""
    relabel: bool = True
    """After each fit of the reward model, give every stored step its new reward (PEBBLE, section 4.3); without, rewards
    stay what they were when the step was made."""
    pretraining_steps: int = 0
    """Steps before the first questions in which the agent learns to visit new states (PEBBLE, section 4.1); 0: none."""
    entropy_neighbours: int = NEIGHBOURS
    """k: how new a state is, is its distance to its k-th nearest neighbour."""
    save_buffer: bool = True
    """Keep the replay buffer in checkpoints; without, a resumed run begins with an empty one."""

    scale_rewards: ClassVar[bool] = False
    """The reward model's rewards have a scale already."""

    def __post_init__(self) -> None:
        for name in ("rollout_steps", "buffer_size", "batch_size", "target_update_interval", "entropy_neighbours"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be at least 1, not {value}")
        for name in ("learning_starts", "pretraining_steps"):
            require(getattr(self, name) >= 0, f"{name} must be 0 or more, not {getattr(self, name)}")
        for name in ("learning_rate", "gradient_steps"):
            value = getattr(self, name)
            require(value is None or 0 < value < math.inf, f"{name} must be above 0 and finite, not {value}")
        require(self.tau is None or 0 < self.tau <= 1, f"tau must lie in (0, 1], not {self.tau}")
        for name in ("discount", "exploration_fraction", "exploration_final"):
            require(0 <= getattr(self, name) <= 1, f"{name} must lie in [0, 1], not {getattr(self, name)}")
        require(self.exploration_noise >= 0, f"exploration_noise must be 0 or more, not {self.exploration_noise}")
        sizes = self.hidden_sizes or ()
        require(all(size >= 1 for size in sizes), f"hidden_sizes must be at least 1 each, not {sizes}")

    def check(self, num_rows: int, rows: bool) -> None:
        """Raises RllabError if the replay buffer cannot hold a rollout of `num_rows` rows."""
        if self.buffer_size is not None and self.buffer_size < num_rows * self.rollout_steps:
            raise RllabError(
                f"a replay buffer of {self.buffer_size} steps cannot hold a rollout of {num_rows} × "
                f"{self.rollout_steps}: give a larger buffer_size or fewer rollout_steps"
            )

    def gradient_steps_of(self, agent: str) -> float:
        """Gradient steps for each step of an environment."""
        chosen: float = AGENT_DEFAULTS[agent]["gradient_steps"] if self.gradient_steps is None else self.gradient_steps
        return chosen

    def chosen(self, agent: str, name: str) -> Any:
        """The value of a field, or the agent's default where it is None."""
        value = getattr(self, name)
        return AGENT_DEFAULTS[agent][name] if value is None else value


@dataclass(frozen=True)
class OffPolicyRunConfig:
    """Everything that determines a run but its reward."""

    agent_name: str
    """sac, td3 or dqn."""
    env: EnvConfig
    agent: OffPolicyConfig = field(default_factory=OffPolicyConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    seed: int = 0
    """Seeds weights, environments, actions and minibatches."""
    device: str = "cpu"
    """Where the networks live and learn."""

    def __post_init__(self) -> None:
        if self.agent_name not in AGENT_DEFAULTS:
            raise RllabError(
                f"'{self.agent_name}' does not learn from a replay buffer: choose one of {', '.join(AGENT_DEFAULTS)} "
                "here, and preference.learn for reinforce, ppo and trpo"
            )
        if type(self.seed) is not int or not 0 <= self.seed < 2**32:
            raise RllabError(f"seed must be a whole number from 0 to 2^32 − 1, not {self.seed!r}")

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into an equal configuration."""
        return asdict(self)

    @staticmethod
    def from_json(document: dict[str, Any]) -> "OffPolicyRunConfig":
        """The configuration that `to_json` wrote.

        Raises RllabError if a field is unknown or missing, as in a file of another version.
        """
        try:
            return OffPolicyRunConfig(
                document["agent_name"], EnvConfig(**document["env"]), OffPolicyConfig(**with_tuples(document["agent"])),
                LoopConfig(**document["loop"]), document["seed"], document["device"],
            )  # fmt: skip
        except (AttributeError, KeyError, TypeError) as error:
            raise RllabError(
                f"the run's config.json does not fit this version of rllab ({error}); install the version named in it, "
                "or start a new run"
            ) from error
