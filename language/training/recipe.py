"""A supervised training as a run: a folder that says everything, can be gone on with, and ends as a model.

runs/NAME/
  config.json  metrics.jsonl  checkpoints/     as the agents' runs
  tokenizer/  tokens/                          what the texts became
  model/                                       the best weights and their tokenizer, for commands that use them
"""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

import torch
from torch import nn

from envs.errors import RllabError
from language.models.folder import MODEL_FOLDER, configuration_class, load_initial, make_model, save_model
from language.tokenizers.files import load_tokenizer
from language.tokenizers.tokenizer import Progress, Tokenizer
from language.training.supervised import DivergedError, SupervisedTraining
from language.training.training_config import TrainingConfig
from rllab import distributed
from rllab.documents import rebuilt
from rllab.runs import Run

Result = TypeVar("Result")
TOKENIZER_FOLDER, TOKENS_FOLDER = "tokenizer", "tokens"
_PREPARED = "prepared"


@dataclass(frozen=True, kw_only=True)
class Recipe(Generic[Result]):
    """One training, whole; a subclass says what is learnt.

    A recipe is first prepared (texts become tokens, sizes become known), then assembled, trained, and finished.
    """

    run_kind: ClassVar[str]
    """The `kind` in a run's configuration, by which the entry points `rllab.run_kinds` find how to go on with it."""

    model_kind: str
    """See `language.models.folder.KINDS`."""
    model: Any
    """Its configuration."""
    training: TrainingConfig
    """How it learns."""
    device: str = "cpu"
    """Where: cpu, cuda, cuda:1, …"""

    @property
    def goal(self) -> str:
        """The number of an evaluation by which the best is told."""
        raise NotImplementedError

    @property
    def higher_is_better(self) -> bool:
        """Of the goal."""
        return False

    def prepare(self, folder: Path, progress: Progress | None) -> Self:
        """Write what the training needs into the run's folder; the recipe with what became known meanwhile."""
        raise NotImplementedError

    def assemble(self, run: Run, quiet: bool) -> SupervisedTraining[Any]:
        """Model, problem and loop. Called after `torch.manual_seed`, for a new run and one that goes on alike."""
        raise NotImplementedError

    def finish(self, training: SupervisedTraining[Any], run: Run) -> Result:
        """What is said of a training that is over; the model has its best weights, and no gradients are kept."""
        raise NotImplementedError

    @classmethod
    def field_kinds(cls, document: Mapping[str, Any]) -> dict[str, type]:
        """The classes of fields that are typed `Any` because they depend on the kind of model."""
        return {"model": configuration_class(document["model_kind"])}

    def to_json(self) -> dict[str, Any]:
        """What the run's folder keeps."""
        return {
            **asdict(self), "kind": self.run_kind, "loop": {"steps": self.training.steps}, "goal": self.goal,
            "higher_is_better": self.higher_is_better,
        }  # fmt: skip

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The reverse. Raises RllabError if it was written by another version."""
        try:
            return rebuilt(cls, document, cls.field_kinds(document))
        except (KeyError, TypeError) as error:
            raise RllabError(f"The run's configuration is of another version ({error}); start a new run.") from error

    def run(
        self, out: Path | str, *, overwrite: bool = False, quiet: bool = False, progress: Progress | None = None
    ) -> Result:  # fmt: skip
        """Train from the beginning, leaving a run folder.

        Raises:
            RllabError: bad input, in one sentence; if training had not begun, no run is left.
            Interrupted: by Ctrl-C or SIGTERM, after a checkpoint; `resume` goes on from it.
        """
        if not distributed.is_first():
            return self._follow()
        with ExitStack() as stack:
            with distributed.announced(str(out)):
                run = stack.enter_context(Run.create(out, self.to_json(), overwrite))
                _clear(run.path)  # of a run that is overwritten
                try:
                    recipe = self._prepared(run, progress)
                    training = recipe._assembled(run, quiet)
                except RllabError:
                    _clear(run.path)
                    run.discard()
                    raise
            return recipe._carry_on(training, run)

    @classmethod
    def resume(
        cls, path: Path | str, *, steps: int | None = None, callbacks: Sequence[Any] = (), quiet: bool = False
    ) -> Result:  # fmt: skip
        """Go on with an interrupted run, as `rllab.resume` does with others; there are no callbacks here."""
        if not distributed.is_first():
            return cls._follow()
        with ExitStack() as stack:
            with distributed.announced(str(path)):
                run = stack.enter_context(Run.open(path, lock=True))
                recipe = cls.from_json(run.config)
                if steps is not None:
                    recipe = replace(recipe, training=replace(recipe.training, steps=steps))
                    run.update_config({**run.config, **recipe.to_json()})
                if not run.config.get(_PREPARED):
                    recipe = recipe._prepared(run, None)
                training = recipe._assembled(run, quiet)
            return recipe._carry_on(training, run)

    @classmethod
    def _follow(cls) -> Result:
        """One of several processes that is not the first: take part in what that one has made ready."""
        run = Run.open(distributed.await_first())
        recipe = cls.from_json(run.config)
        return recipe._carry_on(recipe._assembled(run, quiet=True), run)

    def _prepared(self, run: Run, progress: Progress | None) -> Self:
        recipe = self.prepare(run.path, progress)
        run.update_config({**recipe.to_json(), _PREPARED: True})
        return recipe

    def _assembled(self, run: Run, quiet: bool) -> SupervisedTraining[Any]:
        torch.manual_seed(self.training.seed)
        return self.assemble(run, quiet)

    def _carry_on(self, training: SupervisedTraining[Any], run: Run) -> Result:
        if run.checkpoints.latest() is not None:
            training.load_state_dict(run.checkpoints.load()[1])
        try:
            training.run()
        except DivergedError as error:
            raise DivergedError(f"{error}{_kept_best(training, run)}") from error
        training.model.eval()
        result = None
        if distributed.is_first():
            with torch.no_grad():
                result = self.finish(training, run)
            save_model(run.path / MODEL_FOLDER, training.model, tokenizer_of(run.path))
        return cast(Result, distributed.from_first(result))


def _kept_best(training: SupervisedTraining[Any], run: Run) -> str:
    """Write the weights of the best evaluation of a training that diverged; a sentence that says so."""
    if training.best_weights is None:
        return ""
    if not distributed.is_first():
        distributed.from_first(None)  # the first one saves, and must not be ended meanwhile
        return ""
    with distributed.awaited():
        training.model.load_state_dict(training.best_weights)
        save_model(run.path / MODEL_FOLDER, training.model, tokenizer_of(run.path))
    return f" {run.path} keeps the model of the best evaluation, from which another training can begin."


def begun_model(kind: str, config: Any, initial: str | None, run: Run, device: str) -> nn.Module:
    """The model of `initial`; of a new training without one, or one whose checkpoint is read next, random weights."""
    if initial is None or run.checkpoints.latest() is not None:
        return make_model(kind, config).to(device)
    return load_initial(initial, kind, device)[0]


def _clear(folder: Path) -> None:
    for name in (TOKENIZER_FOLDER, TOKENS_FOLDER, MODEL_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)


def tokenizer_of(folder: Path) -> Tokenizer:
    """The tokenizer in a run's folder."""
    return load_tokenizer(folder / TOKENIZER_FOLDER)
