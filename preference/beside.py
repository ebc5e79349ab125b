"""What stands beside a learner in a run: who answers its questions, who draws its clips, who fits its reward model."""

import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from gymnasium import spaces
from gymnasium.vector import VectorEnv

from envs.make import EnvConfig
from envs.registry import find_spec
from envs.renderers import prepare_rendering
from preference.asynchronous.fitting import FitElsewhere, start_fitting
from preference.asynchronous.labelling import start_labelling, teacher_of
from preference.asynchronous.supervise import Assistants
from preference.bulletin import Bulletin
from preference.config import PreferenceConfig
from preference.dataset import ComparisonData
from preference.desk import Desk, Patience, StoreDesk, TeacherDesk
from preference.drawing import Drawing
from preference.fitting import Fitting
from preference.inputs import StepReader
from preference.labelling import labelling_server
from preference.learner import Phase, PreferenceLearner
from preference.origin_recorder import OriginRecorder, RecordedCollector
from preference.reward_model import RewardModel
from preference.store import Store
from preference.teachers import Teacher
from rllab.callbacks import Callback
from rllab.loop_config import LoopConfig
from rllab.runs import Run
from rllab.train import Training

LIVE_FOLDER, UNDRAWN_FOLDER = "reward-live", "undrawn"


class Voice(Callback):
    """Tells a person something: by the training's progress line, once that is there."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.training: Training | None = None

    def before_run(self, training: Training) -> None:
        self.training = training

    def __call__(self, sentence: str) -> None:
        if self.training is not None:
            self.training.note(sentence)
        elif not self.quiet:
            print(sentence, file=sys.stderr, flush=True)

    def aloud(self, sentence: str) -> None:
        """Tell it though nothing else is to be said: without the page's address nobody could answer."""
        if self.quiet or self.training is None:
            print(sentence, file=sys.stderr, flush=True)
        else:
            self.training.note(sentence)

    def ending(self) -> bool:
        """Whether somebody asked the training to stop."""
        return self.training is not None and self.training.interrupted


class Configured(Protocol):
    """What a run is made of, as far as is looked at here."""

    @property
    def env(self) -> EnvConfig:
        """The environments."""

    @property
    def loop(self) -> LoopConfig:
        """How long."""

    @property
    def seed(self) -> int:
        """Of everything."""


class Parts(Protocol):
    """The live parts of a run, as far as they are looked at here (`rllab.workshop.Workshop`)."""

    @property
    def config(self) -> Configured:
        """What they were made from."""

    @property
    def vector_env(self) -> VectorEnv[Any, Any, Any]:
        """The environments."""


class Surroundings:
    """The desk, the drawing and the processes that a configuration asks for, ended with `stack`."""

    def __init__(
        self, workshop: Parts, reader: StepReader, run: Run, preference: PreferenceConfig, run_id: str, store: Store,
        voice: Voice, stack: ExitStack, teacher: Teacher | None = None,
    ) -> None:  # fmt: skip
        """Put up the desk; `teacher` answers in place of the configuration's.

        Raises:
            RllabError: clips are to be drawn, and there is nothing to draw by; or a file of answers is none.
        """
        self.preference, self.reader, self.run, self.run_id, self.store = preference, reader, run, run_id, store
        self.config, self.voice, self.stack = workshop.config, voice, stack
        patience = Patience(voice, voice.ending)
        self.recorder: OriginRecorder | None = None
        drawing: Drawing | None = None
        if preference.teacher == "human" or preference.frames:
            prepare_rendering(find_spec(self.config.env.id), "rgb_array")
            self.recorder = OriginRecorder(self.config.env)
            undrawn, checked = run.path / UNDRAWN_FOLDER, _as_observed(workshop, reader)
            drawing = Drawing(store, run_id, self.recorder.origin, undrawn, patience, checked=checked)
            stack.enter_context(drawing)
        self.bulletin = Bulletin(store, run_id) if preference.teacher == "human" else None
        if preference.teacher == "human" and preference.serve:
            stack.enter_context(labelling_server(store.url, preference.page, voice.aloud))
        self.desk: Desk
        if teacher is not None:
            self.desk = TeacherDesk(teacher, store, run_id, type(teacher).__name__, patience, drawing)
        elif preference.teacher == "human" or preference.asynchronous:
            self.desk = StoreDesk(store, run_id, patience, drawing)
        else:
            known = teacher_of(preference, self.config.seed)
            self.desk = TeacherDesk(known, store, run_id, preference.teacher, patience, drawing)

    def fitting(self) -> Callable[[RewardModel, ComparisonData], Fitting] | None:
        """What fits the model elsewhere, its process started with that of the teacher; None: it is fitted here."""
        if not self.preference.asynchronous:
            return None
        folder = self.run.path / LIVE_FOLDER
        human = self.preference.teacher == "human"
        query, image = self.preference.query, self.reader.inputs.image
        first = query.schedule(self.config.loop.steps, query.length(self.store.task.fps), image=image)
        job = {
            "store": self.store.url, "run": self.run_id, "preference": asdict(self.preference),
            "seed": self.config.seed, "inputs": self.reader.inputs.to_json(), "folder": str(folder),
            # People take their time: the agent begins with the first answers. A teacher's come all at once.
            "enough": 1 if human else first.initial,
        }  # fmt: skip
        assistants = [start_fitting(job, folder / "fitting.log", self.voice)]
        if not human:
            assistants.append(start_labelling(self.preference, job, folder / "labelling.log", self.voice))
        together = self.stack.enter_context(Assistants(*assistants))
        return lambda model, data: FitElsewhere(model, data, folder, together.check, self.voice)

    @property
    def callbacks(self) -> list[Callback]:
        """What sees the training, after the learner."""
        return [] if self.bulletin is None else [self.bulletin]

    def tell(self, training: Training, phase: Phase) -> None:
        """Let people who answer know what is being done."""
        if self.bulletin is not None:
            self.bulletin(training, phase)

    def surround(self, training: Training, learner: PreferenceLearner) -> None:
        """Have the training's rollouts recorded, if clips are drawn, and people told of it, if they answer."""
        if self.bulletin is not None:
            self.bulletin.questions = learner.questions
            self.stack.callback(self.bulletin.end, training)
        if self.recorder is None:
            return
        self.recorder.reach = learner.earliest_column
        training.collector = RecordedCollector(training.collector, self.recorder)  # type: ignore[arg-type]


def clear(folder: Path) -> None:
    """Remove what processes beside a run have left in its folder."""
    for name in (LIVE_FOLDER, UNDRAWN_FOLDER):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)


def _as_observed(workshop: Parts, reader: StepReader) -> bool:
    """Whether clips keep observations just as the environment gives them; Atari's are without the score."""
    space = workshop.vector_env.single_observation_space
    inputs = reader.inputs
    return isinstance(space, spaces.Box) and space.shape == inputs.observation_shape and not inputs.image
