"""A vector environment that steps single environments one after another in this process, with little around them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.buffers import StepBuffers, allocate_batch, copy_batch
from envs.errors import RllabError
from envs.rows import Constructor, Extras, Rows, list_seeds, name_row


class SerialVectorEnv(VectorEnv[Any, Any, Any]):
    """N environments, stepped in turn.

    Two sets of arrays are written in turns: what `step` returns stays as it is while one more step is made (so that an
    observation can be stored together with the next), and is overwritten by the second. What `reset` returns is new.

    `infos` have nothing but what this project reads: `final_obs` (SAME_STEP) and `action_mask`, with their masks
    `_final_obs` and `_action_mask`, `episode_over`, and `hidden_end`, each where there is one. Gathering everything
    would cost as much as the stepping.

    Attributes:
        envs: the single environments, in `envs.episode.Episode`.
        seeds: what each was last seeded with.
    """

    def __init__(
        self, constructors: Sequence[Constructor], autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP
    ) -> None:
        """Makes the environments.

        Args:
            constructors: one for each environment.
            autoreset_mode: SAME_STEP: the step that ends an episode returns the next one's first observation, and
                `infos["final_obs"]` has the last; NEXT_STEP: the step after it ignores its action and returns the
                next episode's first observation with reward 0.

        Raises:
            RllabError: the environments' spaces differ, or another mode is asked for.
        """
        if autoreset_mode not in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
            raise RllabError(f"Environments are reset on the same step or the next, not by {autoreset_mode}.")
        self._rows = Rows(constructors, autoreset_mode)
        self.envs = self._rows.envs
        self.num_envs = len(self.envs)
        self.metadata = {**self.envs[0].metadata, "autoreset_mode": autoreset_mode}
        self.render_mode = self.envs[0].render_mode
        self.single_observation_space = self._rows.observation_space
        self.single_action_space = self._rows.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._buffers = [StepBuffers(self.single_observation_space, self.num_envs) for _ in range(2)]
        self._final_observations = allocate_batch(self.single_observation_space, self.num_envs)
        self._actions = allocate_batch(self.single_action_space, self.num_envs, np.empty)
        self._rows.use(self._buffers, self._final_observations)
        self._turn = 0

    @property
    def seeds(self) -> list[int | None]:
        """What each environment was last seeded with; None: it was not."""
        return [env.seed for env in self.envs]

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts every environment; `seed` is one for each, or the first of consecutive ones.

        Returns:
            Observations `[N, *obs]` and infos.

        Raises:
            RllabError: an environment fails or returns what it may not.
        """
        self._turn ^= 1
        extras = self._rows.reset(self._turn, list_seeds(seed, self.num_envs), options)
        observations = self._buffers[self._turn].observations
        return copy_batch(observations, observations), self._infos(extras)

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Steps every environment; `actions` `[N, *act]` are cast to the dtype of their space.

        Returns:
            Observations `[N, *obs]`, rewards, terminated and truncated `[N]`, and infos.

        Raises:
            RllabError: an environment fails or returns what it may not, or the actions have another shape.
        """
        self._turn = turn = self._turn ^ 1
        extras = self._rows.step(turn, copy_batch(actions, self._actions))
        buffers = self._buffers[turn]
        return buffers.observations, buffers.rewards, buffers.terminated, buffers.truncated, self._infos(extras)

    def _infos(self, extras: Extras) -> dict[str, Any]:
        return extras.to_infos(self.num_envs, self._final_observations) if extras else {}

    def capture(self) -> list[dict[str, Any]]:
        """Each environment's snapshot (`envs.snapshot.capture`)."""
        return self._rows.capture()

    def restore(self, snapshots: Sequence[dict[str, Any]]) -> dict[int, Any]:
        """Continues from snapshots (`envs.snapshot.restore`)."""
        return self._rows.restore(snapshots)

    def describe_row(self, row: int) -> str:
        """An environment, for errors: `environment 3 (seed 123456)`."""
        return name_row(row, self.envs[row].seed)

    def render(self) -> tuple[Any, ...]:
        """Each environment's frame."""
        return tuple(self._rows.render())

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the environments."""
        self._rows.close()
