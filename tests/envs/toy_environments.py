"""Small environments whose state is kept in ways that the ones from Gymnasium do not show."""

import copy
import itertools
import os
import sys
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.utils import RecordConstructorArgs


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


class Faulty(gymnasium.Env[Any, Any]):
    """Works until its step `at`, where it does `what`; reset counts as step 0."""

    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = Discrete(2)
    returns: ClassVar[dict[str, Any]] = {
        "shape": (np.zeros(3, np.float32), 1.0, False, False),
        "dtype": (np.zeros(2), 1.0, False, False),
        "list": ([0.0, "one"], 1.0, False, False),
        "reward": (np.zeros(2, np.float32), None, False, False),
        "rewards": (np.zeros(2, np.float32), np.ones(1), False, False),
        "terminated": (np.zeros(2, np.float32), 1.0, 1, False),
        "truncated": (np.zeros(2, np.float32), 1.0, False, None),
    }

    def __init__(self, what: str = "nothing", at: int = 3, only_seed: int | None = None) -> None:
        self.what, self.at, self.only_seed = what, at, only_seed

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.bad = self.only_seed in (None, seed)
        self.count = 0
        return self._do()[0], {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return *self._do(), {}

    def _do(self) -> Any:
        if self.bad and self.count == self.at:
            if self.what == "raise":
                raise ValueError("a hinge broke\nand more")
            if self.what == "leave":
                os._exit(3)
            if self.what in self.returns:
                return self.returns[self.what]
        return np.zeros(2, np.float32), 1.0, False, False


class Spaces(gymnasium.Env[Any, Any]):
    """Random observations of any space; episodes of 5 steps."""

    def __init__(self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]) -> None:
        self.observation_space, self.action_space = copy.deepcopy(observation_space), action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.count = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.count += 1
        return self.observation_space.sample(), np.float32(self.count), self.count == 5, np.bool_(False), {}


class Frugal(gymnasium.Env[Any, Any]):
    """Counts in one and the same array, and keeps the action that it was given."""

    observation_space = Box(0, 99, (1,), np.float64)
    action_space = Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = np.zeros(1)
        self.previous = np.zeros(1, np.float32)
        return self.count, {}

    def step(self, action: Any) -> Any:
        self.count += 1
        reward = float(action[0] - self.previous[0])
        self.previous = action
        return self.count, reward, False, self.count[0] == 3, {}


class Imports(gymnasium.Env[Any, Any]):
    """Shows whether this process has imported torch."""

    observation_space = Discrete(2)
    action_space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return int("torch" in sys.modules), {}

    def step(self, action: Any) -> Any:
        return int("torch" in sys.modules), 0, False, False, {}


class Skip(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Repeats each action once."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)

    def step(self, action: Any) -> Any:
        self.env.step(action)
        return self.env.step(action)


for environment in (RandomWalk, ObjectWalk, UnrepeatableWalk, SelfKeepingWalk, Faulty, Spaces, Frugal, Imports):
    gymnasium.register(f"{environment.__name__}-v0", entry_point=environment, max_episode_steps=40)
gymnasium.register("Skipping-v0", RandomWalk, max_episode_steps=4, additional_wrappers=(Skip.wrapper_spec(),))
gymnasium.register("RandomWalk-v1", entry_point=RandomWalk, max_episode_steps=40)
