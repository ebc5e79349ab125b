"""Runs of a few steps, for tests of what is done with runs."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from preference.config import PreferenceConfig, QueryConfig
from preference.experiment import learn
from preference.fit import FitConfig
from preference.reward_model import RewardConfig
from rllab.experiment import train

STEPS: dict[str, Any] = {
    "steps": 1200, "num_envs": 4, "rollout_steps": 100, "minibatch_size": 100, "epochs": 1, "tensorboard": False,
}  # fmt: skip


@cache
def learned_run() -> Path:
    """A run of `learn` on Pendulum, with 30 answers by the oracle; tests leave it as it is."""
    preference = PreferenceConfig(
        query=QueryConfig(labels=30, clip_steps=20),
        reward=RewardConfig(members=2, reward_hidden_sizes=(16,)),
        fit=FitConfig(fit_epochs=5),
    )
    out = Path(mkdtemp(prefix="rllab-learned-")) / "learned"
    settings = {**STEPS, "evaluation_every": 600, "evaluation_episodes": 2, "termination": "absorbing"}
    learn("ppo", "Pendulum-v1", preference, out=out, quiet=True, **settings)
    return out


@cache
def trained_run() -> Path:
    """A run on Pendulum's own reward, whose observations have no mark of an absorbing end."""
    out = Path(mkdtemp(prefix="rllab-trained-")) / "trained"
    train("ppo", "Pendulum-v1", out=out, quiet=True, evaluation_every=0, **STEPS)
    return out
