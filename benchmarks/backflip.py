"""The Hopper's backflip (Christiano et al. 2017, section 3.2): a behaviour that no reward was written for.

The paper's person answered 900 questions in less than an hour. Here a script stands in for the person: of two clips it
prefers the one in which the body turns further backwards. Nothing else is said, neither to the agent nor to the reward
model. At the end the last policy plays an episode of 1000 steps, which is filmed, and its turns are counted.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from common import console, print_machine

from envs.make import make_single
from envs.render import frames_of, write_video
from preference.comparisons import Clip, Label
from preference.config import PreferenceConfig, QueryConfig
from preference.experiment import learn
from rllab.experiment import load_with_config
from rllab.runs import Run

ANGLE = 1
"""Where Hopper-v5's observation has the angle of its torso, in radians; it grows as the body turns forwards."""


@dataclass(frozen=True)
class Arguments:
    """What to train."""

    labels: int = 900
    """Questions."""
    steps: int = 1_000_000
    """Environment steps."""
    episode: int = 200
    """Steps of an episode in training: whoever has fallen on their back learns no more until the next one begins."""
    seed: int = 0
    """The seed of the run."""
    out: Path = Path("runs/backflip")
    """The run's folder."""


class RotationCounter:
    """Prefers the clip that turns further backwards; turns that differ by less than a twentieth are equal."""

    smallest = 2 * math.pi / 20

    def label(self, pairs: Sequence[tuple[Clip, Clip]]) -> list[Label]:
        """One label a pair."""
        labels = []
        for first, second in pairs:
            difference = backward_turn(first) - backward_turn(second)
            if abs(difference) < self.smallest:
                labels.append(Label.TIE)
            else:
                labels.append(Label.FIRST if difference > 0 else Label.SECOND)
        return labels

    def state_dict(self) -> dict[str, Any]:
        """It remembers nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """It remembers nothing."""


def backward_turn(clip: Clip) -> float:
    """Radians by which the torso has turned backwards from a clip's first step to its last."""
    angles = clip.arrays["observations"][:, ANGLE]
    return float(angles[0] - angles[-1])


def main(arguments: Arguments) -> None:
    """Learn, play, film, count."""
    print_machine("mujoco")
    torch.set_num_threads(1)
    preference = PreferenceConfig(query=QueryConfig(labels=arguments.labels, clip_steps=100))
    if not (arguments.out / "config.json").exists():
        learn(
            "ppo", "Hopper-v5", preference, teacher=RotationCounter(), out=arguments.out, seed=arguments.seed,
            steps=arguments.steps, evaluation_every=0, max_episode_steps=arguments.episode,
        )  # fmt: skip
    policy, config, step = load_with_config(arguments.out, "latest")
    env = make_single(replace(config.env, max_episode_steps=1000), render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    angles, frames, truncated = [float(observation[ANGLE])], [], False
    while not truncated:
        frames += frames_of(env)
        action, _ = policy.predict(observation, deterministic=True)
        observation, _, _, truncated, _ = env.step(action)
        angles.append(float(observation[ANGLE]))
    env.close()
    video = arguments.out / "videos" / "backflip.mp4"
    write_video(video, iter(frames), 50.0)
    turns = (angles[0] - np.array(angles)) / (2 * math.pi)
    rows = Run.open(arguments.out).read_metrics()
    accuracy = [row["reward/held_out_accuracy"] for row in rows if "reward/held_out_accuracy" in row]
    console.print(
        f"Step {step:,}: {turns[-1]:.1f} turns backwards in {len(frames)} steps (most at once {turns.max():.1f})"
    )
    console.print(f"Held-out accuracy of the reward model: {accuracy[-1]:.2f}. Video at half speed: {video}")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
