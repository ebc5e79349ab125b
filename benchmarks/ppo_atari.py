"""PPO on Atari beside Stable-Baselines3 with its wrappers: environment steps a second, end to end.

8 environments, 128 steps a rollout, 4 epochs of 4 minibatches, NatureCNN, learning rate 2.5e-4, clip range 0.1, entropy
bonus 0.01, on both sides; the peer's environments are `make_atari_env` and `VecFrameStack`. Both play NoFrameskip-v4
(protocol mnih2015). A step is four frames.
"""

from dataclasses import dataclass
from typing import Any

import tyro
from common import (
    Contender,
    interleave,
    print_machine,
    print_rates,
    rllab_training,
    sb3_stepping,
    sb3_training,
    stepping,
)

from envs.make import EnvConfig, make_vector

NUM_ENVS, ROLLOUT_STEPS, MINIBATCH_SIZE, EPOCHS = 8, 128, 256, 4
LEARNING_RATE, CLIP_RANGE, ENTROPY_COEFFICIENT = 2.5e-4, 0.1, 0.01


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    games: tuple[str, ...] = ("Pong", "Breakout")
    """Games, one table each."""
    updates: int = 2
    """Rollouts and updates in a repetition."""
    repetitions: int = 5
    """How often each contender takes its turn, after one warm-up."""
    threads: tuple[int, ...] = (2,)
    """Threads of torch, on both sides; the peer is compared by its fastest choice."""
    impala: bool = False
    """Measure our IMPALA network too."""


def sb3_atari(game: str, seed: int = 0) -> Any:
    """The peer's environments as its documentation makes them."""
    import ale_py
    import gymnasium
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    gymnasium.register_envs(ale_py)
    return VecFrameStack(make_atari_env(f"{game}NoFrameskip-v4", NUM_ENVS, seed=seed), 4)


def sb3(game: str, steps: int, threads: int) -> Contender:
    """Stable-Baselines3's PPO."""
    from stable_baselines3 import PPO

    def make() -> PPO:
        return PPO(
            "CnnPolicy", sb3_atari(game), n_steps=ROLLOUT_STEPS, batch_size=MINIBATCH_SIZE, n_epochs=EPOCHS,
            learning_rate=LEARNING_RATE, clip_range=CLIP_RANGE, ent_coef=ENTROPY_COEFFICIENT, seed=0, device="cpu",
        )  # fmt: skip

    return sb3_training("Stable-Baselines3", make, steps, threads=threads)


def main(arguments: Arguments) -> None:
    """Measure and print."""
    print_machine("stable-baselines3", "ale-py")
    steps = NUM_ENVS * ROLLOUT_STEPS * arguments.updates
    settings = {
        "num_envs": NUM_ENVS, "rollout_steps": ROLLOUT_STEPS, "minibatch_size": MINIBATCH_SIZE, "epochs": EPOCHS,
        "learning_rate": LEARNING_RATE, "clip_range": CLIP_RANGE, "entropy_coefficient": ENTROPY_COEFFICIENT,
    }  # fmt: skip
    variants: dict[str, dict[str, str]] = {"rllab": {}, "rllab, bfloat16": {"precision": "bfloat16"}}
    if arguments.impala:
        variants["rllab, IMPALA network"] = {"image_network": "impala"}
    for game in arguments.games:
        env = f"{game}NoFrameskip-v4"
        columns = steps // NUM_ENVS
        contenders = [
            *(
                rllab_training(name, "ppo", env, steps, {**settings, **variant}, threads=threads)
                for threads in arguments.threads
                for name, variant in variants.items()
            ),
            *(sb3(game, steps, threads) for threads in arguments.threads),
            stepping("rllab's environments alone", make_vector(EnvConfig(env, NUM_ENVS)), columns),
            sb3_stepping("Stable-Baselines3's environments alone", sb3_atari(game), columns),
        ]
        results = interleave(contenders, arguments.repetitions)
        title = f"PPO {env} × {NUM_ENVS}: {steps:,} steps a repetition, {arguments.repetitions} repetitions"
        print_rates(title, results, peer="Stable-Baselines3")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
