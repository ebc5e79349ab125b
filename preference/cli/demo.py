"""The second act of `rllab demo`: the task of the first, learnt from comparisons alone."""

from dataclasses import replace
from pathlib import Path

from envs.render import write_video
from preference.experiment import learn
from preference.frames import frames_per_second
from preference.presets import preset_for
from rllab.cli.console import number, quoted
from rllab.cli.demo import CONTROL_RUN, Act, Result
from rllab.evaluate import film
from rllab.experiment import evaluate
from rllab.plots import plot_comparison
from rllab.progress import format_duration
from rllab.runs import Run

THRESHOLD = 400.0
"""Of 500, over 100 episodes."""
FILMED_STEPS = 500


def _from_comparisons(folder: Path) -> Result:
    """PPO learns to balance from 200 comparisons of clips; it never sees the reward.

    The comparisons are an oracle's. Every episode has 500 steps, so that their length tells nothing.
    """
    config, preference = preset_for("ppo", "CartPole-v1")
    config = replace(config, loop=replace(config.loop, evaluation_every=0))
    run = learn(config, preference=preference, out=folder / "cartpole-preference")
    metrics = Run.open(run.path).read_metrics()
    seconds = metrics[-1]["seconds"]
    labels = metrics[-1]["reward/labels"]

    mean = evaluate(run, episodes=100).mean
    curves = {"true reward (act 1)": [Run.open(folder / CONTROL_RUN).read_metrics()]} if _is_there(folder) else {}
    curves[f"{preference.query.labels} comparisons (act 2)"] = [metrics]
    plot = plot_comparison(curves, folder / "reward-and-comparisons.png", "CartPole-v1: true return while learning")
    video = folder / "cartpole-preference.mp4"
    write_video(video, film(run.policy, config.env, max_steps=FILMED_STEPS), frames_per_second(config.env))

    # Where every reward of a rollout is the same, at the end, there is no correlation.
    agreement = [row["reward/step_pearson"] for row in metrics if "reward/step_pearson" in row]
    rows = [
        ("Trained", f"{run.steps:,} steps in {format_duration(seconds)}"),
        ("Comparisons", f"{labels:.0f} by an oracle; the agent never saw the true reward"),
        ("Learned reward", f"correlation with the true one: {agreement[-1]:.2f} a step" if agreement else "–"),
        ("Evaluated", f"mean true return {number(mean)} of 500 over 100 episodes (asked: {THRESHOLD:g})"),
        ("Run", str(run.path)),
        ("Beside act 1", str(plot)),
        ("Video", str(video)),
    ]  # fmt: skip
    path = quoted(run.path)
    next_commands = [
        ("how the reward was learnt", f"rllab preference report {path}"),
        ("another task", "rllab preference learn Pendulum-v1 --labels 200"),
    ]
    failure = None
    if mean < THRESHOLD:
        failure = f"CartPole-v1 was not learnt from comparisons: the mean true return is {number(mean)}"
    return Result(rows, next_commands, failure)


def _is_there(folder: Path) -> bool:
    return (folder / CONTROL_RUN / "metrics.jsonl").is_file()


PREFERENCE = Act("Preferences", _from_comparisons)
