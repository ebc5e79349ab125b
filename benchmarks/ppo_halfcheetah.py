"""PPO on HalfCheetah-v5 beside Stable-Baselines3: environment steps a second, end to end.

64-64 tanh networks, 2048 steps a rollout in all (2048 × 1 environment, 256 × 8), minibatches of 64, 10 epochs;
everything else at Stable-Baselines3's defaults, which are also ours. Neither side normalises observations.
"""

from dataclasses import dataclass

import tyro
from common import (
    Contender,
    interleave,
    print_machine,
    print_rates,
    rllab_training,
    sb3_environments,
    sb3_stepping,
    sb3_training,
    stepping,
)

from envs.make import EnvConfig, make_vector

ENV = "HalfCheetah-v5"
MINIBATCH_SIZE, EPOCHS = 64, 10


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    num_envs: tuple[int, ...] = (1, 8)
    """Numbers of environments, one table each."""
    rollout: int = 2048
    """Steps of a rollout, all environments together; it is cut into so many rows as there are environments."""
    updates: int = 2
    """Rollouts and updates in a repetition."""
    repetitions: int = 5
    """How often each contender takes its turn, after one warm-up."""
    peer_threads: tuple[int, ...] = (1, 2)
    """Threads that the peer is tried with; ratios are against its faster choice."""


def sb3(num_envs: int, rollout_steps: int, steps: int, threads: int) -> Contender:
    """Stable-Baselines3's PPO."""
    from stable_baselines3 import PPO

    def make() -> PPO:
        return PPO(
            "MlpPolicy", sb3_environments(ENV, num_envs), n_steps=rollout_steps, batch_size=MINIBATCH_SIZE,
            n_epochs=EPOCHS, seed=0, device="cpu",
        )  # fmt: skip

    return sb3_training("Stable-Baselines3", make, steps, threads=threads)


def main(arguments: Arguments) -> None:
    """Measure and print."""
    print_machine("stable-baselines3", "mujoco")
    for num_envs in arguments.num_envs:
        rollout_steps = arguments.rollout // num_envs
        steps = num_envs * rollout_steps * arguments.updates
        settings = {
            "num_envs": num_envs, "rollout_steps": rollout_steps, "minibatch_size": MINIBATCH_SIZE, "epochs": EPOCHS,
        }  # fmt: skip
        columns = steps // num_envs
        contenders = [
            rllab_training("rllab", "ppo", ENV, steps, settings),
            rllab_training("rllab, fast path off", "ppo", ENV, steps, {**settings, "fast_path": False}),
            *(sb3(num_envs, rollout_steps, steps, threads) for threads in arguments.peer_threads),
            stepping("rllab's environments alone", make_vector(EnvConfig(ENV, num_envs)), columns),
            sb3_stepping("Stable-Baselines3's environments alone", sb3_environments(ENV, num_envs), columns),
        ]
        results = interleave(contenders, arguments.repetitions)
        title = (
            f"PPO {ENV} × {num_envs}, {rollout_steps} × {num_envs} steps a rollout: "
            f"{steps:,} steps a repetition, {arguments.repetitions} repetitions"
        )
        print_rates(title, results, peer="Stable-Baselines3")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
