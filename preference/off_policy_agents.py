"""Stable-Baselines3's SAC, TD3 and DQN, made from this project's configuration."""

from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from envs.errors import RllabError
from preference.off_policy_config import OffPolicyRunConfig
from preference.vec_env import GymnasiumVecEnv
from rllab.policies.networks import ObservationLayout

ALGORITHMS: dict[str, Any] = {
    "sac": stable_baselines3.SAC, "td3": stable_baselines3.TD3, "dqn": stable_baselines3.DQN,
}  # fmt: skip
"""By the names that they have here."""


def make_agent(config: OffPolicyRunConfig, env: GymnasiumVecEnv) -> OffPolicyAlgorithm:
    """Stable-Baselines3's agent for an environment.

    Raises RllabError if the two do not fit together.
    """
    name, chosen = config.agent_name, config.agent
    space, image = env.action_space, bool(ObservationLayout(env.observation_space).images)
    continuous = isinstance(space, gymnasium.spaces.Box)
    if name == "dqn" and not isinstance(space, gymnasium.spaces.Discrete):
        better = "use sac or td3" if continuous else "use another environment"
        raise RllabError(f"dqn chooses among discrete actions, and {config.env.id} has {space}: {better}")
    if name != "dqn" and not continuous:
        better = "use dqn" if isinstance(space, gymnasium.spaces.Discrete) else "use preference.learn with ppo"
        raise RllabError(f"{name} needs continuous actions (a Box), and {config.env.id} has {space}: {better}")
    if isinstance(space, gymnasium.spaces.Discrete) and space.start != 0:
        raise RllabError(f"Stable-Baselines3 counts actions from 0, and {config.env.id} has {space}: shift them first")
    policy = "MlpPolicy" if not image else "CnnPolicy"
    if isinstance(env.observation_space, gymnasium.spaces.Dict):
        policy = "MultiInputPolicy"
    settings: dict[str, Any] = {name_: chosen.chosen(name, name_) for name_ in ("learning_rate", "batch_size", "tau")}
    if name == "td3":
        none = np.zeros(space.shape or ())
        settings["action_noise"] = NormalActionNoise(none, none + chosen.exploration_noise)
    if name == "dqn":
        settings |= {
            "exploration_fraction": chosen.exploration_fraction, "exploration_final_eps": chosen.exploration_final,
            "target_update_interval": chosen.target_update_interval,
        }  # fmt: skip
    architecture = {} if chosen.hidden_sizes is None else {"net_arch": list(chosen.hidden_sizes)}
    try:
        model: OffPolicyAlgorithm = ALGORITHMS[name](
            policy, env, gamma=chosen.discount, buffer_size=chosen.buffer_size or (50_000 if image else 1_000_000),
            learning_starts=chosen.learning_starts, policy_kwargs=architecture, seed=config.seed, device=config.device,
            **settings,
        )  # fmt: skip
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise RllabError(f"Stable-Baselines3's {name} cannot learn {config.env.id} ({reason})") from error
    return model
