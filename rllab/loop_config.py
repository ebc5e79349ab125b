"""How long a training in the one loop goes on, and what happens beside it."""

from dataclasses import dataclass

from envs.errors import RllabError
from rllab.evaluate import EvaluationOpponent


@dataclass(frozen=True)
class LoopConfig:
    """How long training goes on, and what happens beside it."""

    steps: int = 100_000
    """Environment steps to train for."""
    stop_at: float | None = None
    """End once the mean return of an evaluation reaches this."""
    evaluation_every: int = 50_000
    """Steps between evaluations in separate environments; 0 turns them off."""
    evaluation_episodes: int = 10
    """Episodes of an evaluation."""
    evaluation_deterministic: bool = True
    """Whether evaluations act by the distribution's mode rather than by sampling."""
    evaluation_opponent: EvaluationOpponent = "auto"
    """Who plays the other players of PettingZoo's games in evaluations. random: uniformly among the legal actions, the
    policy a seat after the other; self: the policy; auto: random where players take turns, else as in training."""
    checkpoint_every: int = 50_000
    """Steps between checkpoints; 0 leaves only the best by evaluation and the last."""
    keep_checkpoints: int = 3
    """How many of the newest checkpoints to keep beside the best; 0 keeps all."""
    tensorboard: bool = True
    """Write TensorBoard events beside metrics.jsonl."""
    histograms: bool = False
    """Add histograms of weights and gradients to TensorBoard at each evaluation."""
    video_every: int = 0
    """Steps between videos of the policy in TensorBoard; 0 turns them off."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise RllabError(f"steps must be at least 1, not {self.steps}")
        for name in ("evaluation_every", "checkpoint_every", "keep_checkpoints", "video_every"):
            if getattr(self, name) < 0:
                raise RllabError(f"{name} must be 0 (off) or more, not {getattr(self, name)}")
        if self.evaluation_episodes < 1:
            raise RllabError(f"evaluation_episodes must be at least 1, not {self.evaluation_episodes}")
