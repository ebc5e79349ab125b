"""TRPO beside sb3-contrib at its own defaults: HalfCheetah-v5 × 1 and CartPole-v1 × 8, environment steps a second.

sb3-contrib's defaults, each mapped to our field of the same meaning: n_steps 2048 (per environment), batch_size 128,
n_critic_updates 10, learning_rate 1e-3, gamma 0.99, gae_lambda 0.95, target_kl 0.01, cg_max_steps 15, cg_damping 0.1,
line_search_shrinking_factor 0.8, line_search_max_iter 10, normalize_advantage, 64-64 tanh networks.
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
    sb3_environments,
    sb3_stepping,
    sb3_training,
    stepping,
)

from envs.make import EnvConfig, make_vector

CASES = (("HalfCheetah-v5", 1), ("CartPole-v1", 8))
SETTINGS: dict[str, Any] = {
    "rollout_steps": 2048, "minibatch_size": 128, "critic_epochs": 10, "learning_rate": 1e-3, "discount": 0.99,
    "gae_lambda": 0.95, "max_kl": 0.01, "cg_iterations": 15, "cg_damping": 0.1, "backtrack_factor": 0.8,
    "backtrack_steps": 10, "normalise_advantages": True, "max_grad_norm": 0.0,
}  # fmt: skip
"""sb3-contrib's defaults in our names."""


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    updates: int = 2
    """Rollouts and updates in a repetition."""
    repetitions: int = 5
    """How often each contender takes its turn, after one warm-up."""
    peer_threads: tuple[int, ...] = (1, 2)
    """Threads that the peer is tried with; ratios are against its faster choice."""


def sb3(env: str, num_envs: int, steps: int, threads: int) -> Contender:
    """sb3-contrib's TRPO, nothing but its defaults."""
    from sb3_contrib import TRPO

    def make() -> TRPO:
        return TRPO("MlpPolicy", sb3_environments(env, num_envs), seed=0, device="cpu")

    return sb3_training("sb3-contrib", make, steps, threads=threads)


def main(arguments: Arguments) -> None:
    """Measure and print."""
    print_machine("stable-baselines3", "sb3-contrib", "mujoco")
    for env, num_envs in CASES:
        steps = num_envs * SETTINGS["rollout_steps"] * arguments.updates
        columns = steps // num_envs
        settings = {**SETTINGS, "num_envs": num_envs}
        contenders = [
            rllab_training("rllab", "trpo", env, steps, settings),
            rllab_training("rllab, fast path off", "trpo", env, steps, {**settings, "fast_path": False}),
            *(sb3(env, num_envs, steps, threads) for threads in arguments.peer_threads),
            stepping("rllab's environments alone", make_vector(EnvConfig(env, num_envs)), columns),
            sb3_stepping("Stable-Baselines3's environments alone", sb3_environments(env, num_envs), columns),
        ]
        results = interleave(contenders, arguments.repetitions)
        title = f"TRPO {env} × {num_envs}: {steps:,} steps a repetition, {arguments.repetitions} repetitions"
        print_rates(title, results, peer="Stable-Baselines3")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
