"""Small environments whose state is kept in ways that the ones from Gymnasium do not show."""

import itertools
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class RandomWalk(gymnasium.Env[Any, Any]):
    """A noisy walk on the line; all its state is plain data. Ends beyond ±3."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, noise: float = 1.0) -> None:
        self.observation_space = Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = Discrete(2)
        self.noise = noise
        self.position = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.position = self.np_random.normal() + (options or {}).get("offset", 0.0)
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.position += float(action) - 0.5 + self.noise * self.np_random.normal()
        return self._observe(), self.position, abs(self.position) > 3, False, {}

    def _observe(self) -> Any:
        return np.array([self.position], np.float32)


class ObjectWalk(RandomWalk):
    """Keeps its position in an object, as simulators keep theirs in a library: it can only be replayed."""

    class Body:
        def __init__(self) -> None:
            self.moved = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.body = self.Body()
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self.body.moved += 0.1
        self.position += self.body.moved
        return super().step(action)


class UnrepeatableWalk(ObjectWalk):
    """Depends on how many episodes the whole process has played: no replay can be exact."""

    episodes = itertools.count()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed, options=options)
        self.position += next(self.episodes) / 1000
        return self._observe(), {}


class SelfKeepingWalk(ObjectWalk):
    """Offers its state by itself."""

    def get_snapshot(self) -> dict[str, Any]:
        return {"position": self.position, "moved": self.body.moved}

    def set_snapshot(self, state: dict[str, Any]) -> None:
        self.position = state["position"]
        self.body = self.Body()
        self.body.moved = state["moved"]


for environment in (RandomWalk, ObjectWalk, UnrepeatableWalk, SelfKeepingWalk):
    gymnasium.register(f"{environment.__name__}-v0", entry_point=environment, max_episode_steps=40)
gymnasium.register("RandomWalk-v1", entry_point=RandomWalk, max_episode_steps=40)
