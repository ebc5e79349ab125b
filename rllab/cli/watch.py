"""Film a run's policy: a video of episodes that it plays."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from envs.errors import RllabError
from envs.render import frames_per_second, write_video
from rllab.cli.arguments import RunPath, checkpoint_named, parse
from rllab.evaluate import film
from rllab.experiment import load_with_config
from rllab.files import explained_write_errors


@dataclass(frozen=True)
class WatchArguments:
    """Film episodes that a run's policy plays, acting by its most probable actions."""

    run: RunPath
    """The run's folder."""
    output: Path | None = None
    """The video, .mp4 or .gif; by default videos/step-….mp4 in the run's folder."""
    episodes: int = 1
    """Episodes, one after another."""
    checkpoint: str = "best"
    """best (by the evaluations during training; the latest if there were none), latest, or a step."""
    seed: int = 0
    """Of the first episode; the next ones count upwards."""
    max_steps: int | None = None
    """Cut longer episodes here."""


def command(argv: Sequence[str]) -> int:
    """`rllab watch RUN`."""
    arguments: WatchArguments = parse(WatchArguments, argv, "watch")
    if arguments.episodes < 1 or (arguments.max_steps is not None and arguments.max_steps < 1):
        raise RllabError("--episodes and --max-steps must be at least 1")
    policy, config, step = load_with_config(arguments.run, checkpoint_named(arguments.checkpoint))
    output = arguments.output or arguments.run / "videos" / f"step-{step}.mp4"
    _check_suffix(output)
    frames = chain.from_iterable(
        film(
            policy,
            config.env,
            seed=arguments.seed + episode,
            max_steps=arguments.max_steps,
            deterministic=config.loop.evaluation_deterministic,
        )
        for episode in range(arguments.episodes)
    )
    fps = frames_per_second(config.env)
    with explained_write_errors(output):
        count = write_video(output, frames, fps)
    episodes = "1 episode" if arguments.episodes == 1 else f"{arguments.episodes} episodes"
    print(f"{output}: {episodes}, {count:,} frames, {count / fps:.0f} s, policy of step {step:,}")
    return 0


def _check_suffix(path: Path) -> None:
    """Raise RllabError before any frame is drawn if a video cannot be written under this name."""
    if path.suffix.lower() not in (".mp4", ".gif"):
        raise RllabError(f"{path} does not end in .mp4 or .gif; name the video's format so.")
