"""Learned rewards for Stable-Baselines3: a wrapper that puts them in place of any vector environment's own.

    venv = RewardVecEnv(make_vec_env("Pendulum-v1", n_envs=4), "runs/pendulum")
    stable_baselines3.PPO("MlpPolicy", venv).learn(50_000)

The reward model is frozen; `preference.off_policy` is where one is learnt while the agent learns.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from envs.errors import RllabError
from preference.experiment import load_reward_model
from preference.inputs import Inputs, StepReader
from preference.reward_model import RewardModel
from rllab.nested import Nested, map_nested
from rllab.observations import standard

ENVIRONMENT_REWARD = "environment_reward"
"""Where an info has the reward that the environment gave."""


class RewardVecEnv(VecEnvWrapper):
    """Rewards r̂ of a reward model for (o, a) or (o, a, o'), o' being an episode's true last observation at its end.

    The environment's own rewards are in `infos[i]["environment_reward"]`. A `Monitor` inside goes on to count those,
    so that Stable-Baselines3's `ep_rew_mean` tells the true return.

    Attributes:
        model: the reward model.
    """

    def __init__(self, venv: VecEnv, model: RewardModel | Path | str, *, game: str | None = None) -> None:
        """Wrap a vector environment.

        Args:
            venv: what is stepped.
            model: a reward model; or the folder of a run from preferences, or one that `RewardModel.save` wrote.
            game: the ROM's name of an Atari game, whose score the model was never shown.

        Raises:
            RllabError: there is no reward model in that folder, or it reads other observations or actions than these.
        """
        super().__init__(venv)
        self.model = model if isinstance(model, RewardModel) else load_reward_model(model)
        self._reader = StepReader(venv.observation_space, venv.action_space, game=game)
        self._axes = _image_axes(self._reader.inputs, self.model.inputs)
        self._offset, self._flat_shape = _offset_of(venv.action_space), self.model.inputs.action_shape
        self._observations: NDArray[Any] | None = None
        self._actions: NDArray[Any] | None = None

    def reset(self) -> Nested:
        """Start all environments; the first observations `[N, *obs]`."""
        observations = self.venv.reset()
        self._observations = self._read(observations)
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Hand the environments their actions `[N, *act]`."""
        self._actions = np.array(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        """What the environments answer, with learned rewards `[N]` and their own in the infos."""
        observations, rewards, dones, infos = self.venv.step_wait()
        assert self._observations is not None, "the environments must be reset before they are stepped"
        assert self._actions is not None
        read = self._read(observations)
        following = read
        if np.any(dones):
            following = read.copy()
            for row in np.flatnonzero(dones):
                last = map_nested(lambda leaf: np.asarray(leaf)[None], infos[row]["terminal_observation"])
                following[row] = self._read(last)[0]
        learned = self.model.reward(self._observations, self._clip_actions(self._actions), following)
        for info, reward in zip(infos, rewards, strict=True):
            info[ENVIRONMENT_REWARD] = float(reward)
        self._observations = read
        return observations, learned, dones, infos

    def _read(self, observations: Nested) -> NDArray[Any]:
        """Observations `[N, *obs]` as the model reads them; a copy, since environments may use their arrays again."""
        read = self._reader.observations(map_nested(torch.from_numpy, standard(observations)), 1)
        return read if self._axes is None else np.transpose(read, self._axes)

    def _clip_actions(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Actions as clips keep them: choices counted from 0, numbers flat and within their bounds."""
        flat = actions.reshape(len(actions), *self._flat_shape) - self._offset
        return self._reader.actions(torch.from_numpy(np.ascontiguousarray(flat)))


def _offset_of(space: spaces.Space[Any]) -> NDArray[Any]:
    """What an environment's own choices begin with."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return np.asarray(space.start).reshape(-1) if isinstance(space, spaces.MultiDiscrete) else np.array(space.start)
    return np.array(0)


def _image_axes(given: Inputs, read: Inputs) -> tuple[int, int, int, int] | None:
    """How images `[N, …]` of the environment are transposed for the model; None if they fit as they are.

    Stable-Baselines3 turns `[H, W, C]` into `[C, H, W]`, and this wrapper may stand on either side of that.

    Raises RllabError if the model reads something else.
    """
    if given == read:
        return None
    if given.image and read.image and (given.action_shape, given.choices) == (read.action_shape, read.choices):
        axes = (0, 3, 1, 2) if given.channels_last else (0, 2, 3, 1)
        shape = tuple(given.observation_shape[axis - 1] for axis in axes[1:])
        if given.channels_last != read.channels_last and shape == read.observation_shape:
            return axes
    raise RllabError(
        f"this reward model was made for {_described(read)}, and the environment has {_described(given)}: use the "
        "environment, and the wrappers of observations, that it was trained with"
    )


def _described(inputs: Inputs) -> str:
    kind = "images" if inputs.image else "numbers"
    actions = f"choices {inputs.choices}" if inputs.choices else f"{inputs.action_size} numbers"
    return f"{kind} of shape {inputs.observation_shape} with actions of {actions}"
