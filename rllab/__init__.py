"""Learning from rewards: rollouts, policies, agents, the loop, and runs on disk.

    import rllab
    run = rllab.train("ppo", "CartPole-v1", steps=50_000)
    print(rllab.evaluate(run, episodes=20).mean)
    policy = rllab.load(run.path)

Names are imported when they are first used, so `import rllab` itself costs next to nothing.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from envs.errors import RllabError

__version__ = "0.1.0"

if TYPE_CHECKING:
    from envs.make import EnvConfig
    from rllab.agents import PPO, TRPO, PPOConfig, Reinforce, ReinforceConfig, TRPOConfig
    from rllab.callbacks import Callback, StopAtReturn
    from rllab.config import TrainConfig, configure
    from rllab.experiment import TrainedRun, evaluate, load, resume, train
    from rllab.interrupt import Interrupted
    from rllab.loop_config import LoopConfig
    from rllab.policies import ActorCritic, Policy, PolicyConfig
    from rllab.rollout import Batch, Rollout
    from rllab.train import Training

_HOMES = {
    "EnvConfig": "envs.make",
    **dict.fromkeys(("PPO", "TRPO", "PPOConfig", "Reinforce", "ReinforceConfig", "TRPOConfig"), "rllab.agents"),
    **dict.fromkeys(("Callback", "StopAtReturn"), "rllab.callbacks"),
    **dict.fromkeys(("TrainConfig", "configure"), "rllab.config"),
    **dict.fromkeys(("TrainedRun", "evaluate", "load", "resume", "train"), "rllab.experiment"),
    **dict.fromkeys(("ActorCritic", "Policy", "PolicyConfig"), "rllab.policies"),
    **dict.fromkeys(("Batch", "Rollout"), "rllab.rollout"),
    "Interrupted": "rllab.interrupt",
    "LoopConfig": "rllab.loop_config",
    "Training": "rllab.train",
}


class _Package(ModuleType):
    """Keeps `rllab.train` and `rllab.evaluate` the functions when the modules of the same names are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rllab' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "PPO", "TRPO", "ActorCritic", "Batch", "Callback", "EnvConfig", "Interrupted", "LoopConfig", "PPOConfig",
    "Policy", "PolicyConfig", "Reinforce", "ReinforceConfig", "RllabError", "Rollout", "StopAtReturn", "TRPOConfig",
    "TrainConfig", "TrainedRun", "Training", "__version__", "configure", "evaluate", "load", "resume", "train",
]  # fmt: skip
