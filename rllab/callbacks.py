"""Callbacks: small hooks on the training loop, for early stopping, schedules, and whatever sits beside learning."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rllab.agents.agent import Metrics
    from rllab.evaluate import EvaluationResult
    from rllab.rollout import Rollout
    from rllab.train import Training


class Callback:
    """Does nothing at every hook; override those you need.

    State that must survive a resume goes through `state_dict` and `load_state_dict`.
    """

    def before_run(self, training: "Training") -> None:
        """`Training.run` begins, or goes on after a resume."""

    def after_collect(self, training: "Training", rollout: "Rollout") -> None:
        """A rollout has been made, with the environment's own rewards; the agent has not seen it."""

    def after_update(self, training: "Training", rollout: "Rollout", metrics: "Metrics") -> None:
        """The agent has learned from `rollout` (rewards as it saw them); entries added to `metrics` are logged."""

    def after_evaluation(self, training: "Training", result: "EvaluationResult") -> None:
        """Evaluation episodes have been played."""

    def after_checkpoint(self, training: "Training") -> None:
        """A checkpoint has been written."""

    def state_dict(self) -> dict[str, Any]:
        """JSON and tensors that `load_state_dict` takes back."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""


class StopAtReturn(Callback):
    """Stops training once the mean return reaches a threshold.

    `source` says which: of an evaluation, or of the last 100 training episodes.
    """

    def __init__(self, threshold: float, source: str = "evaluation") -> None:
        """`source` is "evaluation" or "training"."""
        if source not in ("evaluation", "training"):
            raise ValueError(f"source must be 'evaluation' or 'training', not {source!r}")
        self.threshold, self.source = threshold, source

    def after_evaluation(self, training: "Training", result: "EvaluationResult") -> None:
        if self.source == "evaluation" and result.mean >= self.threshold:
            training.stop(f"evaluation reached {result.mean:.1f}, the threshold is {self.threshold:g}")

    def after_update(self, training: "Training", rollout: "Rollout", metrics: "Metrics") -> None:
        if self.source == "training" and metrics.get("return_mean", float("-inf")) >= self.threshold:
            training.stop(
                f"training episodes reached {metrics['return_mean']:.1f}, the threshold is {self.threshold:g}"
            )
