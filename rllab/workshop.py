"""The live parts of a training: environments, policy, agent, evaluations."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from envs.errors import RllabError
from envs.make import checks_bounds, clips_rewards, make_vector
from envs.render import gif_bytes
from rllab import distributed
from rllab.agents import AGENTS
from rllab.callbacks import Callback
from rllab.collect import EnvCollector
from rllab.config import TrainConfig
from rllab.evaluate import Evaluator, against, film
from rllab.policies import ActorCritic
from rllab.runs import Run
from rllab.train import RewardModel, Training

EVALUATION_SEED = 0x5EED
"""Added to the run's seed, so that evaluation plays other episodes than training does."""
VIDEO_FRAMES = 300
"""Longest video that goes into TensorBoard."""


class Workshop:
    """The live parts that a configuration asks for, and their closing."""

    def __init__(self, config: TrainConfig) -> None:
        """Make environments, policy and agent."""
        self.config = config
        device = _device(config.device)
        own = distributed.share(config.env.num_envs, "num_envs")
        self.vector_env = make_vector(replace(config.env, num_envs=own))
        space, actions = self.vector_env.single_observation_space, self.vector_env.single_action_space
        try:
            self.policy = ActorCritic(space, actions, config.policy, seed=config.seed, device=device)
            self.agent = AGENTS[config.agent_name](self.policy, config.agent, config.seed)
        except BaseException:
            self.vector_env.close()
            raise
        self.evaluator: Evaluator | None = None

    def check(self) -> None:
        """Raise RllabError if the agent cannot cut this many environments' rollouts into its minibatches."""
        self.config.agent.check(self.vector_env.num_envs, self.policy.rows)

    def training(
        self,
        run: Run | None,
        callbacks: Sequence[Callback] = (),
        quiet: bool = False,
        *,
        reward_model: RewardModel | None = None,
        keep_next: bool = False,
    ) -> Training:
        """The training loop over these parts; `keep_next` as in `EnvCollector`."""
        config = self.config
        collector = EnvCollector(
            self.vector_env, self.policy, config.agent.rollout_steps, distributed.own_seed(config.seed),
            clip_rewards=clips_rewards(config.env), check_bounds=checks_bounds(config.env), keep_next=keep_next,
        )  # fmt: skip
        if config.loop.evaluation_every:
            seed = config.seed + EVALUATION_SEED
            self.evaluator = Evaluator(
                against(config.env, config.loop.evaluation_opponent), config.loop.evaluation_episodes, seed=seed,
                deterministic=config.loop.evaluation_deterministic,
            )  # fmt: skip
        return Training(
            collector, self.policy, self.agent, config.loop, run=run, reward_model=reward_model,
            evaluate=self.evaluator, film=self._film, callbacks=callbacks, quiet=quiet,
        )  # fmt: skip

    def _film(self, policy: Any) -> bytes:
        deterministic = self.config.loop.evaluation_deterministic
        frames = film(
            policy, self.config.env, seed=EVALUATION_SEED, max_steps=VIDEO_FRAMES, deterministic=deterministic
        )
        return gif_bytes(frames)

    def __enter__(self) -> "Workshop":
        return self

    def __exit__(self, *error: object) -> None:
        self.vector_env.close()
        if self.evaluator is not None:
            self.evaluator.close()


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise RllabError(f"the device '{name}' cannot be used here ({str(error).splitlines()[0]})") from error
    return device
