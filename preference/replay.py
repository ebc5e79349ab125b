"""Stable-Baselines3's off-policy agents as parts of the one training loop: collector, agent, policy.

The collector has Stable-Baselines3 play for some columns and gives what came into its replay buffer as a rollout; the
agent puts the rollout's rewards, whoever made them, into the buffer, and has Stable-Baselines3 learn from it. The
environment's own rewards are taken out of the buffer at once: nothing can be learnt from them there.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from envs.snapshot import capture, restore
from preference.off_policy_config import OffPolicyConfig
from preference.replay_buffer import ReplayBufferView
from preference.vec_env import GymnasiumVecEnv
from rllab.agents.agent import Metrics
from rllab.checks import RolloutChecks
from rllab.episodes import EpisodeRecorder
from rllab.nested import Nested, leaves_of, map_nested
from rllab.policies.distributions import action_family
from rllab.policies.networks import ObservationLayout
from rllab.rollout import Rollout

METRIC_NAMES = {
    "actor_loss": "policy_loss", "critic_loss": "value_loss", "loss": "value_loss", "ent_coef": "entropy_coefficient",
    "ent_coef_loss": "entropy_coefficient_loss", "learning_rate": "learning_rate", "n_updates": "gradient_steps",
}  # fmt: skip
"""This project's names for what Stable-Baselines3 records."""


class ReplayCollector:
    """Has the agent play, and gives the newest columns of its replay buffer as a rollout.

    Attributes:
        env: this project's vector environment, within Stable-Baselines3's.
        family: of the actions.
        episodes: of the environment's own rewards.
    """

    def __init__(
        self, model: OffPolicyAlgorithm, venv: GymnasiumVecEnv, view: ReplayBufferView, columns: int, steps: int,
        *, check_bounds: bool = True,
    ) -> None:  # fmt: skip
        """Reset the environments.

        Args:
            model: the agent; `venv`, perhaps with Stable-Baselines3's own wrappers around, is its environment.
            venv: what is stepped.
            view: of the agent's replay buffer.
            columns: T, of a rollout.
            steps: of the training, which Stable-Baselines3's schedules are relative to.
            check_bounds: refuse observations outside the bounds of their space.
        """
        self.model, self.venv, self.view, self.columns = model, venv, view, columns
        self.env, self.family, self.num_rows = venv.env, view.family, venv.num_envs
        self.episodes = EpisodeRecorder(self.num_rows)
        image = bool(ObservationLayout(model.observation_space).images)
        self._check = RolloutChecks(model.observation_space, check_bounds) if not image else None
        self._columns_done = 0
        _, self._callback = model._setup_learn(steps)

    def collect(self, policy: Any) -> Rollout:
        """Play for T columns.

        Raises RllabError if an observation or a reward is not finite or out of bounds, naming environment and step.
        """
        model = self.model
        assert model.env is not None
        assert model.replay_buffer is not None
        model.collect_rollouts(
            model.env, self._callback, TrainFreq(self.columns, TrainFrequencyUnit.STEP), model.replay_buffer,
            model.action_noise, model.learning_starts, log_interval=None,
        )  # fmt: skip
        columns = self.view.newest(self.columns)
        rollout = self.view.rollout(columns)
        self.view.write(columns, torch.zeros_like(rollout.rewards))
        self._look_through(rollout)
        ends, done = self.venv.ends(), (rollout.terminated | rollout.truncated).numpy()
        hidden_ends = ends.hidden(done)
        rewards = rollout.environment_rewards.numpy().astype(np.float64)
        returns, lengths = self.episodes.record(rewards, ends.over(done), rollout.valid.numpy(), hidden_ends)
        return rollout.replace(episode_returns=returns, episode_lengths=lengths, hidden_ends=hidden_ends)

    def _look_through(self, rollout: Rollout) -> None:
        if self._check is not None:
            everything = map_nested(
                lambda first, later: np.concatenate([first[:, :1], later], axis=1),
                map_nested(lambda leaf: leaf.numpy(), rollout.observations),
                map_nested(lambda leaf: leaf.numpy(), rollout.next_observations),
            )
            self._check(everything, rollout.rewards.numpy(), [], self._columns_done)
        self._columns_done += self.columns

    def recent(self) -> dict[str, float]:
        """Mean raw return and length of the last 100 episodes."""
        return self.episodes.means()

    def state_dict(self) -> dict[str, Any]:
        """Simulators, the last observations and running totals."""
        return {
            "environments": capture(self.env),
            "observations": {str(i): leaf for i, leaf in enumerate(leaves_of(self.model._last_obs))},
            "columns_done": self._columns_done,
            "episodes": self.episodes.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> list[str]:
        """Take over what `state_dict` gave. Environments that cannot go on exactly begin a new episode."""
        started_anew = restore(self.env, state["environments"])
        self._columns_done = state["columns_done"]
        self.episodes.load_state_dict(state["episodes"])
        if not started_anew:
            for leaf, saved in zip(leaves_of(self.model._last_obs), state["observations"].values(), strict=True):
                leaf[...] = saved
            return []
        assert self.model.env is not None
        observations: Any = self.model.env.reset()
        self.model._last_obs = observations
        for row in range(self.num_rows):
            self.episodes.forget(row)
        return ["the environments could not be restored to the middle of their episodes and began new ones"]

    def close(self) -> None:
        """Close the environments."""
        self.venv.close()


class ReplayPolicy:
    """The agent's actor, as the loop and evaluations take a policy."""

    rows = False
    reward_scaling = None

    def __init__(self, model: OffPolicyAlgorithm) -> None:
        self.model, self.module = model, model.policy
        self.layout = ObservationLayout(model.observation_space)
        self.family = action_family(model.action_space)
        self.device = model.device
        self.single_threaded = not self.layout.images

    def initial_hidden(self, num_rows: int) -> None:
        """It remembers nothing."""

    def act(
        self, observations: Nested, noise: NDArray[np.float32] | None, *, hidden: Any = None, action_mask: Any = None
    ) -> tuple[NDArray[Any], None]:
        """Actions `[N, *act]` for observations `[N, *obs]`; without noise the best, with any a sample."""
        actions, _ = self.model.predict(observations, deterministic=noise is None)
        return actions.reshape(len(actions), *self.family.shape), None

    def adapt(self, rollout: Rollout) -> None:
        """It has no running statistics."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: its weights are in the agent's."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to take over."""


class ReplayAgent:
    """Learns from its replay buffer after each rollout."""

    def __init__(self, model: OffPolicyAlgorithm, config: OffPolicyConfig, view: ReplayBufferView, name: str) -> None:
        """`name`: sac, td3 or dqn."""
        self.model, self.config, self.view, self.name = model, config, view, name

    def update(self, rollout: Rollout, remaining: float = 1.0) -> Metrics:
        """Store the rollout's rewards, and learn, once `learning_starts` steps have been made."""
        self.view.write(self.view.newest(rollout.rewards.shape[1]), rollout.rewards)
        if self.model.num_timesteps <= self.config.learning_starts:
            return {}
        steps = max(1, round(self.config.gradient_steps_of(self.name) * rollout.num_steps))
        self.model.train(gradient_steps=steps, batch_size=self.model.batch_size)
        recorded = self.model.logger.name_to_value
        return {
            name: float(recorded[f"train/{theirs}"])
            for theirs, name in METRIC_NAMES.items() if f"train/{theirs}" in recorded
        }  # fmt: skip

    def forget_values(self) -> None:
        """Begin anew with the critics, whose values were of other rewards."""
        model: Any = self.model
        fresh = model.policy_class(
            model.observation_space, model.action_space, model.lr_schedule, **model.policy_kwargs
        ).to(model.device)
        if self.name == "dqn":
            model.policy.load_state_dict(fresh.state_dict())
            model.policy.optimizer.load_state_dict(fresh.optimizer.state_dict())
            return
        for name in ("critic", "critic_target"):
            getattr(model, name).load_state_dict(getattr(fresh, name).state_dict())
        model.critic.optimizer.load_state_dict(fresh.critic.optimizer.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimisers, counters, random generators, and the replay buffer if it is to be saved."""
        model: Any = self.model
        variables = model._get_torch_save_params()[1]
        return {
            "parameters": model.get_parameters(),
            "variables": {name: getattr(model, name).detach() for name in variables},
            "counters": {name: getattr(model, name) for name in _COUNTERS if hasattr(model, name)},
            "torch": torch.get_rng_state(),
            "numpy": _numpy_state(),
            "actions": model.action_space.np_random.bit_generator.state,
            "buffer": self.view.state_dict() if self.config.save_buffer else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        model: Any = self.model
        model.set_parameters(state["parameters"], exact_match=True, device=model.device)
        for name, value in state["variables"].items():
            getattr(model, name).data.copy_(value)
        for name, value in state["counters"].items():
            setattr(model, name, value)
        torch.set_rng_state(state["torch"])
        _set_numpy_state(state["numpy"])
        model.action_space.np_random.bit_generator.state = state["actions"]
        if state["buffer"] is not None:
            self.view.load_state_dict(state["buffer"])


_COUNTERS = (
    "num_timesteps", "_n_updates", "_n_calls", "_episode_num", "exploration_rate", "_current_progress_remaining",
)  # fmt: skip


def _numpy_state() -> dict[str, Any]:
    """NumPy's global generator, from which Stable-Baselines3 draws minibatches."""
    state: Any = np.random.get_state(legacy=False)
    return {**state, "state": {**state["state"], "key": state["state"]["key"].astype(np.int64)}}


def _set_numpy_state(state: dict[str, Any]) -> None:
    np.random.set_state({**state, "state": {**state["state"], "key": state["state"]["key"].astype(np.uint32)}})
