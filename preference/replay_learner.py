"""A preference learner whose rewards fill a replay buffer, which is relabelled after each fit.

Lee, Smith, Abbeel 2021 (PEBBLE), algorithms 1 and 2.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from preference.entropy import StateEntropy
from preference.learner import PreferenceLearner
from preference.replay import ReplayAgent
from rllab.agents.agent import Metrics
from rllab.callbacks import Callback
from rllab.rollout import Rollout
from rllab.train import Training

REFRESH_FACTOR = 1.5
"""While the agent explores, all stored states are compared anew each time their number has grown by so much."""


class ReplayLearner(Callback):
    """Stands between the training loop and a `PreferenceLearner`, as callback and as reward model.

    For `pretraining_steps` it rewards the agent for new states, while clips are gathered; then the learner asks its
    first questions. From then on it passes everything on to the learner, and relabels the replay buffer when that has
    fitted its model.
    """

    def __init__(self, learner: PreferenceLearner, agent: ReplayAgent, entropy: StateEntropy) -> None:
        self.learner, self.agent, self.entropy = learner, agent, entropy
        self.relabelled_fits = 0
        """After how many fits the buffer was relabelled last."""
        self.compared = 0
        """How many columns the buffer had when all its states were last compared."""
        self._exploring = False
        self._novelty = 0.0

    def _explores(self, training: Training) -> bool:
        return training.steps < self.agent.config.pretraining_steps

    def before_run(self, training: Training) -> None:
        """Ask the first questions, unless the agent explores first."""
        if not self._explores(training):
            self.learner.before_run(training)

    def after_collect(self, training: Training, rollout: Rollout) -> None:
        """Gather clips; ask and fit, once the agent has explored."""
        self._exploring = self._explores(training)
        if self._exploring:
            self.learner.questions.pool.add(self.learner.cutter.cut(rollout, training.steps))
        else:
            self.learner.after_collect(training, rollout)

    def relabel(self, rollout: Rollout) -> Rollout:
        """The rollout with learned rewards, or with those of its states' novelty; the buffer's follow."""
        if self._exploring:
            return self._novel(rollout)
        relabelled = self.learner.relabel(rollout)
        if self.learner.fits != self.relabelled_fits:
            # Whatever lies there from before the first fit has no learned reward at all.
            if self.agent.config.relabel or self.relabelled_fits == 0:
                self.agent.view.relabel(lambda stored: self.learner.model.relabel(stored).rewards)
            self.relabelled_fits = self.learner.fits
        return relabelled

    def after_update(self, training: Training, rollout: Rollout, metrics: Metrics) -> None:
        """Report; at the end of exploration, forget its values and ask the first questions."""
        if not self._exploring:
            self.learner.after_update(training, rollout, metrics)
            return
        metrics["reward/labels"], metrics["reward/asked"] = 0, 0
        metrics["reward/state_entropy"] = self._novelty
        if not self._explores(training):
            self._exploring = False
            self.agent.forget_values()
            self.learner.initial_steps = training.steps  # clips to choose from have been gathered on the way
            self.learner.before_run(training)

    def _novel(self, rollout: Rollout) -> Rollout:
        view = self.agent.view
        visited = np.concatenate([self._states(view.rollout(columns)) for columns in view.pieces()], axis=1)
        every = visited.reshape(-1, visited.shape[-1])
        states = self._states(rollout)
        rewards = self.entropy.rewards(states.reshape(-1, states.shape[-1]), every).reshape(states.shape[:2])
        self._novelty = float(rewards.mean())
        if view.filled >= REFRESH_FACTOR * self.compared:
            self.compared = view.filled

            def compare(stored: Rollout) -> torch.Tensor:
                known = self._states(stored)
                again = self.entropy.rewards(known.reshape(-1, known.shape[-1]), every, observe=False)
                return torch.from_numpy(again.reshape(known.shape[:2]))

            view.relabel(compare)
        return rollout.replace(rewards=torch.from_numpy(rewards))

    def _states(self, rollout: Rollout) -> NDArray[Any]:
        """States `[N, T, D]`."""
        return self.learner.reader.observations(rollout.observations, 2)

    def state_dict(self) -> dict[str, Any]:
        """The learner's, and how far the buffer has followed."""
        return {
            "learner": self.learner.state_dict(), "entropy": self.entropy.state_dict(),
            "relabelled_fits": self.relabelled_fits, "compared": self.compared,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.learner.load_state_dict(state["learner"])
        self.entropy.load_state_dict(state["entropy"])
        self.relabelled_fits, self.compared = state["relabelled_fits"], state["compared"]
