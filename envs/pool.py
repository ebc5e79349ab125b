"""EnvPool's vector environments (Weng et al., 2022), C++ with threads of its own, where the package is installed.

EnvPool implements some environments anew. What it does, by experiment with version 1.2.5: the step after an episode's
end ignores its action and returns the next episode's first observation with reward 0 (NEXT_STEP); an episode that ends
just at its time limit is told as truncated only; an environment's first episode depends on its seed alone; and fewer
actions than environments end the process, so they are counted here.
"""

import importlib
import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.buffers import allocate_batch, copy_batch
from envs.errors import RllabError
from envs.rows import list_seeds, name_row

_LARGEST_SEED = 2**31 - 1


class PoolVectorEnv(VectorEnv[Any, Any, Any]):
    """N environments of EnvPool, NEXT_STEP, without infos, frames and snapshots.

    EnvPool seeds its environments when it makes them: they are made anew at each reset that has a seed.

    Attributes:
        seeds: what each environment was last seeded with; None: EnvPool's own choice, which is always the same.
    """

    def __init__(
        self,
        id: str,
        num_envs: int,
        *,
        max_episode_steps: int | None = None,
        threads: int = 0,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Looks the environment up; it is made at the first reset.

        Args:
            id: EnvPool's name of it, which is Gymnasium's where both have it.
            num_envs: N.
            max_episode_steps: episodes are truncated after so many; None keeps EnvPool's limit.
            threads: that step; 0: one for each core, at most N.
            arguments: for the environment.

        Raises:
            RllabError: EnvPool is not installed, has no such environment, or refuses the arguments.
        """
        if importlib.util.find_spec("envpool") is None:
            raise RllabError(f"'{id}' cannot be stepped by EnvPool, which is not installed: pip install envpool.")
        self._library: Any = importlib.import_module("envpool")
        if id not in self._library.list_all_envs():
            raise RllabError(f"EnvPool has no '{id}' (a newer one may: pip install -U envpool): use sync or workers.")
        self._id, self.num_envs = id, num_envs
        self.seeds: list[int | None] = [None] * num_envs
        self._arguments = {"num_envs": num_envs, "num_threads": threads, **(arguments or {})}
        if max_episode_steps is not None:
            self._arguments["max_episode_steps"] = max_episode_steps
        spec = self._ask(self._library.make_spec, {})
        self.single_observation_space, self.single_action_space = spec.observation_space, spec.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}
        self._like = allocate_batch(self.single_action_space, num_envs, np.empty)
        self._pool: Any = None

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts every environment; `seed` is one for each, or the first of consecutive ones. There are no options.

        Returns:
            Observations `[N, *obs]`, and no infos.
        """
        seeds = [None if one is None else one & _LARGEST_SEED for one in list_seeds(seed, self.num_envs)]
        if self._pool is None or seeds != [None] * self.num_envs:
            self.close_extras()
            self.seeds = seeds
            chosen = {} if None in seeds else {"env_seed": seeds}
            self._pool = self._ask(self._library.make_gymnasium, chosen)
        return self._pool.reset()[0], {}

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Steps every environment; `actions` `[N, *act]` are cast to the dtype of their space.

        Returns:
            Observations `[N, *obs]`, rewards, terminated and truncated `[N]`, new each time, and no infos.

        Raises:
            RllabError: the actions have another shape, or nothing has been reset yet.
        """
        if self._pool is None:
            raise RllabError("EnvPool's environments must be reset before they are stepped.")
        observations, rewards, terminated, truncated, _ = self._pool.step(copy_batch(actions, self._like))
        return observations, rewards.astype(np.float64), terminated, truncated, {}

    def describe_row(self, row: int) -> str:
        """An environment, for errors: `environment 3 (seed 123456)`."""
        return name_row(row, self.seeds[row])

    def close_extras(self, **kwargs: Any) -> None:
        """Ends EnvPool's threads."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _ask(self, make: Any, more: dict[str, Any]) -> Any:
        """Calls one of EnvPool's functions that make things: its advice kept quiet, its refusal in a sentence."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return make(self._id, **self._arguments, **more)
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            raise RllabError(f"EnvPool could not make '{self._id}': {reason}.") from error
