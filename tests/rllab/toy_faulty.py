"""An environment that goes wrong in a way of one's choice at a step of one's choice."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

ID = "toy_faulty:FaultyInTraining-v0"


class Faulty(gymnasium.Env[Any, Any]):
    """Pays 1 a step for 10 steps; from step `at` on (over all episodes) its observations have the fault."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, fault: str = "none", at: int = 1_000_000) -> None:
        self.fault, self.at = fault, at
        self.count = self.episode_steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.episode_steps = 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        self.episode_steps += 1
        return self.observe(), 1.0, self.episode_steps == 10, False, {}

    def observe(self) -> Any:
        observation = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        if self.count < self.at:
            return observation
        if self.fault == "raises":
            raise ValueError("a hinge broke")
        faulty = {"dtype": observation.astype(np.float64), "shape": observation[:1], "bounds": observation + 3}
        return faulty.get(self.fault, observation)


gymnasium.register("FaultyInTraining-v0", Faulty)
