"""The agents: REINFORCE, TRPO and PPO, one file each."""

from rllab.agents.agent import Agent, AgentConfig, Metrics
from rllab.agents.ppo import PPO, PPOConfig
from rllab.agents.reinforce import Reinforce, ReinforceConfig
from rllab.agents.trpo import TRPO, TRPOConfig

AGENTS: dict[str, type[Agent]] = {agent.name: agent for agent in (Reinforce, PPO, TRPO)}
CONFIGS: dict[str, type[AgentConfig]] = {"reinforce": ReinforceConfig, "ppo": PPOConfig, "trpo": TRPOConfig}

__all__ = [
    "AGENTS", "CONFIGS", "PPO", "TRPO", "Agent", "AgentConfig", "Metrics", "PPOConfig", "Reinforce",
    "ReinforceConfig", "TRPOConfig",
]  # fmt: skip
