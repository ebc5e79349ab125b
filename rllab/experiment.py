"""From a configuration to a training, a run on disk, and back: train, resume, load, evaluate."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from envs.errors import RllabError
from envs.make import make_vector
from rllab import distributed
from rllab.agents import AGENTS
from rllab.callbacks import Callback
from rllab.checkpoints import CheckpointWarning
from rllab.config import TrainConfig, configure
from rllab.descriptions import not_of_use
from rllab.evaluate import EvaluationOpponent, EvaluationResult, Evaluator, against
from rllab.interrupt import Interrupted
from rllab.policies import ActorCritic
from rllab.runs import Run, default_folder
from rllab.threads import single_threaded
from rllab.train import Training
from rllab.workshop import Workshop

RUN_KINDS = "rllab.run_kinds"
"""Entry points: by the `kind` in a run's configuration, a function like `resume` that goes on with it."""
POLICY_KINDS = "rllab.policy_kinds"
"""Entry points: by the `kind` in a run's configuration, a function like `load_with_config` for its policies."""


@dataclass(frozen=True)
class TrainedRun:
    """What `train` and `resume` give back."""

    path: Path
    """The run's folder."""
    config: TrainConfig
    policy: ActorCritic
    """As it was when training ended."""
    steps: int
    stop_reason: str | None
    """Why training ended before its configured steps, if it did."""
    evaluation: EvaluationResult | None
    """The last one during training."""


def train(
    agent: str | TrainConfig,
    env: str | None = None,
    *,
    out: Path | str | None = None,
    callbacks: Sequence[Callback] = (),
    overwrite: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> TrainedRun:
    """Train an agent on a Gymnasium environment, leaving a run folder.

    Args:
        agent: reinforce, ppo or trpo; or a complete configuration (then without `env` and settings).
        env: a Gymnasium id.
        out: the run's folder; by default a new one under `runs/`.
        callbacks: see `rllab.callbacks`.
        overwrite: replace a run that lies in `out`.
        quiet: no progress line.
        settings: any field of the configuration by its own name, e.g. `steps=50_000`, `learning_rate=1e-3`.

    Raises:
        RllabError: bad input, in one sentence.
        Interrupted: by Ctrl-C or SIGTERM, after a checkpoint; `resume` goes on from it.
    """
    if isinstance(agent, TrainConfig):
        if env is not None or settings:
            raise RllabError("a complete configuration says everything: give no environment and no settings beside it")
        config = agent
    elif env is None:
        raise RllabError("train needs an environment's id, such as train('ppo', 'CartPole-v1')")
    else:
        config = configure(agent, env, settings)
    folder = default_folder(config.env.id, config.agent_name, config.seed) if out is None else Path(out)
    with Workshop(config) as workshop:
        # The folder is made last: input that cannot work leaves nothing behind.
        training = workshop.training(None, callbacks, quiet)
        with new_run(folder, config.to_json(), overwrite) as run:
            training.write_to(run)
            training.save()
            return finish(training, config, workshop, run)


def resume(
    path: Path | str, *, steps: int | None = None, callbacks: Sequence[Callback] = (), quiet: bool = False
) -> TrainedRun:
    """Go on with an interrupted run from its latest good checkpoint.

    On the CPU the run then continues bit for bit as if it had never stopped, where the environment allows it
    (what it does not allow is said in a warning).

    Args:
        path: the run's folder.
        steps: a new number of steps to train for in all; schedules are then relative to it.
        callbacks: those that the run was started with, in the same order.
        quiet: no progress line.

    Raises:
        RllabError: no run, no good checkpoint, or the run is in use.
    """
    kind = Run.open(path).config.get("kind")
    if kind is not None:
        kinds = {entry.name: entry for entry in entry_points(group=RUN_KINDS)}
        if kind not in kinds:
            raise RllabError(f"{path} is a run of the kind '{kind}', which nothing installed here can go on with")
        trained: TrainedRun = kinds[kind].load()(path, steps=steps, callbacks=callbacks, quiet=quiet)
        return trained
    with run_to_go_on(path) as run:
        config = reopened(run, steps)
        with Workshop(config) as workshop:
            training = workshop.training(run, callbacks, quiet)
            go_on(training, run)
            return finish(training, config, workshop, run)


@contextmanager
def new_run(folder: Path | str, config: Mapping[str, Any], overwrite: bool = False) -> Iterator[Run]:
    """A new run, as `Run.create` makes it: the first process does, then the others have it too."""
    with ExitStack() as stack:
        if distributed.is_first():
            with distributed.announced(str(folder)):
                run = stack.enter_context(Run.create(folder, config, overwrite))
        else:
            run = Run.open(distributed.await_first())
        yield run


@contextmanager
def run_to_go_on(path: Path | str) -> Iterator[Run]:
    """A run that exists, locked by the first process."""
    with ExitStack() as stack:
        if distributed.is_first():
            with distributed.announced(str(path)):
                run = stack.enter_context(Run.open(path, lock=True))
        else:
            run = Run.open(distributed.await_first())
        yield run


def reopened(run: Run, steps: int | None) -> TrainConfig:
    """The configuration of a run that is to go on; with `steps`, up to so many, which is noted in its folder."""
    config = TrainConfig.from_json(run.config)
    if steps is not None:
        config = replace(config, loop=replace(config.loop, steps=steps))
        if distributed.is_first():
            run.update_config({**run.config, **config.to_json()})
    return config


def go_on(training: Training, run: Run) -> None:
    """Bring a training to the run's latest good checkpoint, and warn of what could not be restored exactly."""
    if run.checkpoints.latest() is None:  # killed before its first checkpoint
        training.save()
        return
    _, state = run.checkpoints.load("latest")
    inexact = training.load_state_dict(state)
    for sentence in inexact if distributed.is_first() else []:
        warnings.warn(sentence, ResumeWarning, stacklevel=3)


Checkpoint = int | Literal["best", "latest"]
"""A checkpoint's step, or which one: best by evaluation (the latest if none took place), or the latest."""


def load(path: Path | str, checkpoint: Checkpoint = "best") -> ActorCritic:
    """The policy of a run, ready to act, frozen as it was saved.

    Args:
        path: the run's folder.
        checkpoint: `best`, `latest`, or a step.

    Raises:
        RllabError: no run, or no good checkpoint.
    """
    return load_with_config(path, checkpoint)[0]


def load_with_config(path: Path | str, checkpoint: Checkpoint = "best") -> tuple[ActorCritic, TrainConfig, int]:
    """As `load`, with the run's configuration and the checkpoint's step.

    A run whose agent is not one of rllab's own is loaded by its kind's entry point: its policy acts likewise, and its
    configuration has `env` and `loop` too.
    """
    run = Run.open(path)
    if run.config.get("agent_name") not in AGENTS:
        kind = run.config.get("kind")
        for entry in entry_points(group=POLICY_KINDS, name=str(kind)):
            loaded: tuple[ActorCritic, TrainConfig, int] = entry.load()(path, checkpoint)
            return loaded
        raise not_of_use(run)
    config = TrainConfig.from_json(run.config)
    if checkpoint == "best" and run.checkpoints.best() is None:
        checkpoint = "latest"
    step, state = run.checkpoints.load(checkpoint)
    vector_env = make_vector(replace(config.env, num_envs=1, vectorization="sync"))
    policy = ActorCritic(
        vector_env.single_observation_space, vector_env.single_action_space, config.policy, seed=config.seed
    )
    vector_env.close()
    policy.load_state_dict(state["policy"])
    return policy, config, step


def evaluate(
    run: TrainedRun | Path | str, *, episodes: int = 10, seed: int = 0, deterministic: bool | None = None,
    checkpoint: Checkpoint = "best", opponent: EvaluationOpponent | None = None,
) -> EvaluationResult:  # fmt: skip
    """Play a run's policy in fresh environments; returns and lengths are the environment's own.

    Args:
        run: what `train` gave, or a run's folder.
        episodes: how many.
        seed: of the episodes.
        deterministic: act by the mode rather than by sampling; None: as the run's own evaluations did.
        checkpoint: as in `load`.
        opponent: who plays the other players of a game (`LoopConfig`); None: as in the run's own evaluations.
    """
    path = run.path if isinstance(run, TrainedRun) else run
    policy, config, _ = load_with_config(path, checkpoint)
    deterministic = config.loop.evaluation_deterministic if deterministic is None else deterministic
    with (
        Evaluator(
            against(config.env, opponent or config.loop.evaluation_opponent),
            episodes,
            seed=seed,
            deterministic=deterministic,
        ) as evaluator,
        single_threaded(policy.single_threaded),
    ):
        return evaluator(policy)


class ResumeWarning(UserWarning):
    """A resumed run cannot equal the uninterrupted one exactly."""


def finish(training: Training, config: TrainConfig, workshop: Workshop, run: Run) -> TrainedRun:
    """Run the loop to its end."""
    training.run()
    return TrainedRun(run.path, config, workshop.policy, training.steps, training.stop_reason, training.evaluation)


__all__ = [
    "CheckpointWarning", "Interrupted", "ResumeWarning", "TrainedRun", "evaluate", "load",
    "load_with_config", "resume", "train",
]  # fmt: skip
