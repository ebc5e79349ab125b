"""An environment that no snapshot and no replay can bring back."""

import itertools
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

ID = "toy/Unrepeatable-v0"


class Unrepeatable(gymnasium.Env[Any, Any]):
    """Depends on how many episodes the whole process has begun, and keeps its state in an object."""

    begun = itertools.count()

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.handle, self.count, self.offset = object(), 0, float(next(self.begun))
        return np.array([self.offset], np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return np.array([self.offset + self.count], np.float32), 1.0, False, self.count == 30, {}


gymnasium.register(ID, entry_point=Unrepeatable)
