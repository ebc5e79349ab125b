"""PPO on CartPole-v1 beside Stable-Baselines3 and, given its file, CleanRL: environment steps a second, end to end.

64-64 tanh networks, rollouts of 128 steps × 8 and × 64 environments, minibatches of 256, 4 epochs; everything else
at Stable-Baselines3's defaults, which are also ours. Each side uses the vector environment it would use by itself.
"""

import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from common import (
    Contender,
    Sample,
    console,
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

ENV = "CartPole-v1"
ROLLOUT_STEPS, MINIBATCH_SIZE, EPOCHS = 128, 256, 4


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    num_envs: tuple[int, ...] = (8, 64)
    """Numbers of environments, one table each."""
    steps: int = 16_384
    """Environment steps in a repetition, rounded up to whole rollouts."""
    repetitions: int = 5
    """How often each contender takes its turn, after one warm-up."""
    peer_threads: tuple[int, ...] = (1, 2)
    """Threads that the peer is tried with; ratios are against its faster choice."""
    cleanrl: Path | None = None
    """CleanRL's ppo.py, to be run as a process of its own; it is left out without it."""


def sb3(num_envs: int, steps: int, threads: int) -> Contender:
    """Stable-Baselines3's PPO."""
    from stable_baselines3 import PPO

    def make() -> PPO:
        return PPO(
            "MlpPolicy", sb3_environments(ENV, num_envs), n_steps=ROLLOUT_STEPS, batch_size=MINIBATCH_SIZE,
            n_epochs=EPOCHS, seed=0, device="cpu",
        )  # fmt: skip

    return sb3_training("Stable-Baselines3", make, steps, threads=threads)


def cleanrl(script: Path, num_envs: int, steps: int) -> Contender:
    """CleanRL's script in a process of its own; the speed is the one it prints, which leaves out its start-up."""
    rollout = num_envs * ROLLOUT_STEPS
    # Every run of the script is a new process, whose first update is slower than the others.
    steps = max(steps, 8 * rollout)
    command = [
        sys.executable, str(script.resolve()), "--env-id", ENV, "--num-envs", str(num_envs), "--num-steps",
        str(ROLLOUT_STEPS), "--num-minibatches", str(rollout // MINIBATCH_SIZE), "--update-epochs", str(EPOCHS),
        "--total-timesteps", str(steps), "--no-cuda",
    ]  # fmt: skip

    def measure() -> Sample:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            process = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, check=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        whole = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        speeds = [int(line.split()[1]) for line in process.stdout.splitlines() if line.startswith("SPS:")]
        seconds = steps / speeds[-1]
        cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        # Start-up is taken to keep the processor as busy as training does.
        return Sample(steps, seconds, cpu_seconds * seconds / whole)

    return Contender("CleanRL", measure, side="CleanRL")


def main(arguments: Arguments) -> None:
    """Measure and print."""
    print_machine("stable-baselines3")
    if arguments.cleanrl is None or not arguments.cleanrl.exists():
        console.print("CleanRL is left out: give its ppo.py by --cleanrl.\n")
    for num_envs in arguments.num_envs:
        rollout = num_envs * ROLLOUT_STEPS
        steps = math.ceil(arguments.steps / rollout) * rollout
        settings = {
            "num_envs": num_envs, "rollout_steps": ROLLOUT_STEPS, "minibatch_size": MINIBATCH_SIZE, "epochs": EPOCHS,
        }  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            contenders = [
                rllab_training("rllab", "ppo", ENV, steps, settings),
                rllab_training("rllab, leaving a run folder", "ppo", ENV, steps, settings, folder=Path(folder) / "run"),
                rllab_training("rllab, fast path off", "ppo", ENV, steps, {**settings, "fast_path": False}),
                rllab_training("rllab, sync environments", "ppo", ENV, steps, {**settings, "vectorization": "sync"}),
                *(sb3(num_envs, steps, threads) for threads in arguments.peer_threads),
            ]
            if arguments.cleanrl is not None and arguments.cleanrl.exists():
                contenders.append(cleanrl(arguments.cleanrl, num_envs, steps))
            columns = max(1024, steps // num_envs)
            contenders += [
                stepping("rllab's environments alone", make_vector(EnvConfig(ENV, num_envs)), columns),
                sb3_stepping("Stable-Baselines3's environments alone", sb3_environments(ENV, num_envs), columns),
            ]
            results = interleave(contenders, arguments.repetitions)
        title = f"PPO {ENV} × {num_envs}: {steps:,} steps a repetition, {arguments.repetitions} repetitions"
        print_rates(title, results, peer="Stable-Baselines3")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
