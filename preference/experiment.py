"""From a configuration to a training from preferences, its run on disk, and back: learn, resume, load."""

import json
import shutil
import uuid
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from envs.atari import game_of
from envs.errors import RllabError
from envs.make import EnvConfig
from envs.registry import ATARI, PETTINGZOO, family_of, find_spec
from preference.beside import Surroundings, Voice, clear
from preference.config import PreferenceConfig
from preference.frames import frames_per_second
from preference.inputs import Inputs, StepReader
from preference.labelling import check_page
from preference.learner import PreferenceLearner
from preference.reward_model import RewardModel
from preference.store import Store, Task
from preference.teachers import SYNTHETIC, FileTeacher, Teacher
from rllab.callbacks import Callback
from rllab.config import TrainConfig
from rllab.distributed import require_alone
from rllab.experiment import TrainedRun, finish, go_on, reopened
from rllab.runs import Run, default_folder
from rllab.train import Training
from rllab.workshop import Workshop

STORE_FILE, REWARD_FOLDER = "comparisons.sqlite", "reward"


@dataclass(frozen=True)
class LearnedRun(TrainedRun):
    """What `learn` gives back."""

    reward_model: RewardModel
    """As it was when training ended; saved in the run's folder too."""


def learn(
    agent: str | TrainConfig,
    env: str | None = None,
    preference: PreferenceConfig | None = None,
    *,
    teacher: Teacher | None = None,
    out: Path | str | None = None,
    callbacks: Sequence[Callback] = (),
    overwrite: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> LearnedRun:
    """Train an agent on a reward that is learnt from comparisons, leaving a run folder.

    Args:
        agent: reinforce, ppo or trpo; or a complete configuration (then without `env` and settings).
        env: a Gymnasium id. Where nothing else is said its episodes have a constant horizon, since their ends would
            tell what is good (Christiano et al. 2017, appendix A).
        preference: who answers, what is asked, what the reward model is.
        teacher: answers in place of the one that `preference` names; `resume` must be given it, too.
        out, callbacks, overwrite, quiet, settings: as in `rllab.train`.

    Raises:
        RllabError: bad input, in one sentence.
        Interrupted: by Ctrl-C or SIGTERM, after a checkpoint; `resume` goes on from it.
    """
    require_alone("A reward that is learnt from comparisons meanwhile is trained")
    if isinstance(agent, TrainConfig):
        config = agent
    elif env is None:
        raise RllabError("learn needs an environment's id, such as learn('ppo', 'Pendulum-v1')")
    else:
        from preference.presets import preset_for

        config, tuned = preset_for(agent, env, settings)
        preference = preference or tuned
    preference = preference or PreferenceConfig()
    run_id = run_name(config, preference)
    document = {**config.to_json(), "kind": "preference", "run_id": run_id, "preference": asdict(preference)}
    folder = default_folder(config.env.id, f"{config.agent_name}-preference", config.seed) if out is None else Path(out)
    with Workshop(config) as workshop:
        workshop.check()
        task = task_of(config.env, _reader(workshop).inputs)
        check_budget(config.loop.steps, preference, task.fps)
        if preference.store is not None:
            Store.open(preference.store, task).close()
        if preference.answers is not None:
            FileTeacher(preference.answers)
        if preference.teacher == "human" and preference.serve:
            check_page(preference.page)
        if overwrite:
            clear_store(folder)
        with Run.create(folder, document, overwrite) as run, ExitStack() as stack:
            training, learner = _training(workshop, run, preference, run_id, callbacks, quiet, stack, teacher)
            training.save()
            return _finish(training, learner, config, workshop)


def resume(
    path: Path | str,
    *,
    steps: int | None = None,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
    teacher: Teacher | None = None,
) -> LearnedRun:
    """Go on with an interrupted run of `learn`, as `rllab.resume` does with others."""
    require_alone("A reward that is learnt from comparisons meanwhile is trained")
    with Run.open(path, lock=True) as run, ExitStack() as stack:
        config = reopened(run, steps)
        preference = PreferenceConfig.from_json(run.config["preference"])
        with Workshop(config) as workshop:
            training, learner = _training(
                workshop, run, preference, run.config["run_id"], callbacks, quiet, stack, teacher
            )  # fmt: skip
            go_on(training, run)
            return _finish(training, learner, config, workshop)


def load_reward_model(path: Path | str) -> RewardModel:
    """The reward model of a run of `learn`, or of a folder that `RewardModel.save` wrote."""
    folder = Path(path)
    return RewardModel.load(folder / REWARD_FOLDER if (folder / REWARD_FOLDER).is_dir() else folder)


def check_budget(steps: int, preference: PreferenceConfig, fps: float) -> None:
    """Raise RllabError if a training is too short for what is to be asked about it."""
    query = preference.query
    length = query.length(fps)
    if query.labels * length > steps or 4 * length > steps:
        raise RllabError(
            f"{query.labels:,} questions are to be asked about clips of {length} steps, of which the {steps:,} steps "
            f"are only {steps // length:,}: use more --steps, fewer --labels, or shorter clips (--clip-steps)"
        )


def run_name(config: TrainConfig, preference: PreferenceConfig) -> str:
    """A UUID from which the ids of clips and pairs are made: that of all runs which would do the same.

    So answers that were given to one of them, or exported, are known again by the next (teacher `file`).
    """
    who = {"teacher", "judgement", "answers", "store", "frames", "asynchronous", "question", "serve", "page"}
    asked = {name: value for name, value in asdict(preference).items() if name not in who}
    document = {**config.to_json(), "preference": asked}
    return str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(document, sort_keys=True, default=str)))


def task_of(env: EnvConfig, inputs: Inputs, question: str = "Which clip is better?") -> Task:
    """What a store of comparisons of this environment's clips is about.

    Raises RllabError if it is a game of several players, of whose moves no clip is made.
    """
    if family_of(find_spec(env.id)) is PETTINGZOO:
        raise RllabError(f"'{env.id}' is a game of several players, and clips are of one: train it by `rllab train`.")
    action: dict[str, Any] = {"shape": list(inputs.action_shape), "dtype": "int64" if inputs.choices else "float32"}
    if len(inputs.choices) == 1 and not inputs.action_shape:
        action["n"] = inputs.choices[0]
    observation = {"shape": list(inputs.observation_shape), "dtype": "uint8" if inputs.image else "float32"}
    return Task(env.id, "clips", observation, action, question, frames_per_second(env))


def clear_store(folder: Path) -> None:
    """Remove the store of a run that is to be replaced; raises RllabError if it has answers that people gave."""
    path = folder / STORE_FILE
    if not path.exists():
        return
    with Store.open(path) as store:
        people = sorted(set(store.progress().by_annotator) - SYNTHETIC)
    if people:
        raise RllabError(
            f"{path} has answers of {', '.join(people)}, which --overwrite would delete: choose another folder with "
            "--out, or move that file away first"
        )
    for name in (path, *path.parent.glob(f"{STORE_FILE}-*")):
        name.unlink(missing_ok=True)
    shutil.rmtree(folder / REWARD_FOLDER, ignore_errors=True)
    clear(folder)


def _reader(workshop: Workshop) -> StepReader:
    env, spec = workshop.vector_env, find_spec(workshop.config.env.id)
    game = game_of(spec) if family_of(spec) is ATARI else None
    return StepReader(env.single_observation_space, env.single_action_space, game=game)


def _training(
    workshop: Workshop, run: Run, preference: PreferenceConfig, run_id: str, callbacks: Sequence[Callback], quiet: bool,
    stack: ExitStack, teacher: Teacher | None,
) -> tuple[Training, PreferenceLearner]:  # fmt: skip
    """The loop with the learner in it; what `stack` holds is closed at the end."""
    config, reader = workshop.config, _reader(workshop)
    task = task_of(config.env, reader.inputs, preference.question)
    store = stack.enter_context(Store.open(preference.store or run.path / STORE_FILE, task))
    voice = Voice(quiet)
    beside = Surroundings(workshop, reader, run, preference, run_id, store, voice, stack, teacher)
    clip_steps = preference.query.length(task.fps)
    learner = PreferenceLearner(
        preference, reader, beside.desk, rows=config.env.num_envs, steps=config.loop.steps, clip_steps=clip_steps,
        seed=config.seed, run=run_id, games=config.env.termination == "restart", note=voice,
        fitting=beside.fitting(), tell=beside.tell,
    )  # fmt: skip
    keep_next = preference.reward.reads == "observation_action_next"
    training = workshop.training(
        run, [voice, learner, *beside.callbacks, *callbacks], quiet, reward_model=learner, keep_next=keep_next
    )
    beside.surround(training, learner)
    return training, learner


def save_reward(training: Training, learner: PreferenceLearner, environment: str) -> None:
    """Write the reward model as it is now into the run's folder."""
    assert training.run_folder is not None
    about = {"environment": environment, "comparisons": len(learner.data), "steps": training.steps}
    learner.model.save(training.run_folder.path / REWARD_FOLDER, about)


def _finish(training: Training, learner: PreferenceLearner, config: TrainConfig, workshop: Workshop) -> LearnedRun:
    assert training.run_folder is not None
    try:
        trained = finish(training, config, workshop, training.run_folder)
    except BaseException:
        with suppress(RllabError):  # what ended the training is what is told
            save_reward(training, learner, config.env.id)
        raise
    save_reward(training, learner, config.env.id)
    return LearnedRun(**vars(trained), reward_model=learner.model)
