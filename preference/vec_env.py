"""This project's vector environments, as Stable-Baselines3 steps vector environments."""

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from envs.make import reset
from rllab.episodes import EpisodeEnds
from rllab.nested import Nested, map_nested


class GymnasiumVecEnv(VecEnv):
    """A vector environment of `envs.make.make_vector`, autoreset on the same step, as Stable-Baselines3 steps one."""

    def __init__(self, env: VectorEnv[Any, Any, Any], seed: int) -> None:
        """`seed`: of the environments, at the first reset; each gets one drawn from it."""
        self.env, self.first_seed = env, seed
        self._actions: NDArray[Any] | None = None
        self._started = False
        self._ends, self._columns = EpisodeEnds(), 0
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Nested:
        observations, _ = reset(self.env, None if self._started else self.first_seed)
        self._started = True
        return map_nested(np.copy, observations)

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions = actions

    def step_wait(self) -> Any:
        observations, rewards, terminated, truncated, infos = self.env.step(self._actions)
        told: list[dict[str, Any]] = [{"TimeLimit.truncated": bool(cut)} for cut in truncated & ~terminated]
        done = terminated | truncated
        for row in np.flatnonzero(done).tolist():
            told[row]["terminal_observation"] = infos["final_obs"][row]
        self._ends.note(self._columns, infos)
        self._columns += 1
        return map_nested(np.copy, observations), rewards.astype(np.float32), done, told

    def ends(self) -> EpisodeEnds:
        """What was said of ends in the steps since this was last called."""
        ends, self._ends, self._columns = self._ends, EpisodeEnds(), 0
        return ends

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.env, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise AttributeError(f"these environments are stepped together: set {attr_name} when they are made")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        raise AttributeError(f"these environments are stepped together: {method_name} cannot be called in one of them")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * len(list(self._get_indices(indices)))
