"""Training a translation model on pairs of sentences, as a run: a folder that says everything and can be gone on with.

runs/NAME/
  config.json  metrics.jsonl  checkpoints/     as the agents' runs
  tokenizer/                                   of both languages
  model/                                       the weights, for `rllab language translate run`
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, cast

import torch

from envs.errors import RllabError
from language.data import read_dictionary, read_parallel, split
from language.models.folder import MODEL_FOLDER, check_vocabulary, configuration_class, make_model, save_model
from language.tasks.translation import BLEU, TranslationModel, Translator, bleu
from language.tokenizers.byte_bpe import ByteLevelBPE, ByteLevelBPEConfig
from language.tokenizers.files import load_tokenizer
from language.tokenizers.special import SpecialTokens
from language.tokenizers.tokenizer import Progress, Tokenizer
from language.training.averaging import average_checkpoints
from language.training.corpus import SHARES
from language.training.supervised import SupervisedTraining, TrainingConfig
from language.training.translation import Translation, TranslationConfig, id_pairs
from rllab.runs import Run

RUN_KIND = "language-translation"
TRANS_DE_EN = "trans-de-en"
"""German and English example sentences of the Debian package of that name."""
SPECIAL = SpecialTokens(begin="<s>", end="</s>")

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class PairsConfig:
    """Which pairs, and how they become tokens."""

    files: tuple[str, ...] = ()
    """Pairs a line, set apart by a tabulator, also with .gz."""
    data: str | None = None
    """In place of files: trans-de-en, or the path of a word list in its format."""
    columns: tuple[int, int] = (0, 1)
    """Which cells of a line are the source and the target, counted from 0."""
    reverse: bool = False
    """Translate the other way round."""
    tokenizer: str | None = None
    """A tokenizer's folder; by default byte-level byte-pair encoding is trained on both languages together."""

    def read(self) -> dict[str, Pairs]:
        """The pairs by part of the split, which a hash of the source decides.

        Raises RllabError if neither or both of files and data are given, they cannot be read, or a part is empty.
        """
        if bool(self.files) == (self.data is not None):
            raise RllabError("Give files of pairs, or --data trans-de-en, one of the two.")
        pairs = ((target, source) if self.reverse else (source, target) for source, target in self._pairs())
        parts = split(dict.fromkeys(pairs), SHARES, text_of=lambda pair: pair[0])
        for name, part in parts.items():
            if not part:
                raise RllabError(f"No pair falls into the part for {name}; give more pairs.")
        return parts

    def _pairs(self) -> Iterator[tuple[str, str]]:
        if self.data is not None:
            yield from read_dictionary(None if self.data == TRANS_DE_EN else self.data)
        for path in self.files:
            for source, target in read_parallel(path, self.columns):
                if source.strip() and target.strip():
                    yield source, target


@dataclass(frozen=True)
class TranslationRunConfig:
    """A training, whole."""

    kind: str
    """Of model: `transformer` or `lstm-translation`; see `language.models.folder.KINDS`."""
    model: Any
    """Its configuration; with a given tokenizer its `vocabulary_size` is that one's."""
    pairs: PairsConfig
    """What is translated."""
    translation: TranslationConfig
    """How pairs become batches."""
    training: TrainingConfig
    """How it learns."""
    average: int = 5
    """How many of the last checkpoints are averaged at the end (Vaswani et al. 2017, section 6.1); 1: none."""
    device: str = "cpu"
    """Where: cpu, cuda, cuda:1, …"""

    def __post_init__(self) -> None:
        if self.average < 1:
            raise RllabError(f"average must be at least 1, not {self.average}.")
        if self.translation.longest > self.model.context:
            raise RllabError(
                f"Pairs of up to {self.translation.longest} tokens are longer than the model's context of "
                f"{self.model.context}; lower --longest, or raise --context."
            )

    def to_json(self) -> dict[str, Any]:
        """What the run's folder keeps."""
        return {
            **asdict(self), "model_kind": self.kind, "kind": RUN_KIND, "loop": {"steps": self.training.steps},
            "goal": Translation.goal, "higher_is_better": Translation.higher_is_better,
        }  # fmt: skip

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """The reverse. Raises RllabError if it was written by another version."""
        try:
            pairs = document["pairs"]
            pairs = PairsConfig(**{**pairs, "files": tuple(pairs["files"]), "columns": tuple(pairs["columns"])})
            return cls(
                document["model_kind"], configuration_class(document["model_kind"])(**document["model"]), pairs,
                TranslationConfig(**document["translation"]), TrainingConfig(**document["training"]),
                document["average"], document["device"],
            )  # fmt: skip
        except (KeyError, TypeError) as error:
            raise RllabError(f"The run's configuration is of another version ({error}); start a new run.") from error


@dataclass(frozen=True)
class TranslationRun:
    """What came of it."""

    path: Path
    """The run's folder."""
    stop_reason: str | None
    """Why training ended before its configured steps."""
    averaged: int
    """Checkpoints of which the weights are the average; 1 where a single one was better in validation."""
    validation: dict[str, float]
    """Loss, perplexity and accuracy of the held-out pairs."""
    test: BLEU
    """On the part that was looked at by nobody before."""


def train_translation(
    config: TranslationRunConfig, out: Path, *, overwrite: bool = False, quiet: bool = False,
    progress: Progress | None = None,
) -> TranslationRun:  # fmt: skip
    """Train a model from random weights, leaving a run folder.

    Raises:
        RllabError: bad input, in one sentence.
        Interrupted: by Ctrl-C or SIGTERM, after a checkpoint; `resume` goes on from it.
    """
    parts = config.pairs.read()
    with Run.create(out, config.to_json(), overwrite) as run:
        if config.pairs.tokenizer is None:
            texts = (text for pair in parts["training"] for text in pair)
            size = config.model.vocabulary_size
            tokenizer: Tokenizer = ByteLevelBPE.train(texts, ByteLevelBPEConfig(size, special=SPECIAL), progress)
        else:
            tokenizer = load_tokenizer(config.pairs.tokenizer)
        tokenizer.save(out / "tokenizer")
        config = replace(config, model=replace(config.model, vocabulary_size=len(tokenizer)))
        run.update_config(config.to_json())
        return _finish(config, run, tokenizer, parts, quiet, resumes=False)


def resume(
    path: Path | str, *, steps: int | None = None, callbacks: Sequence[Any] = (), quiet: bool = False
) -> TranslationRun:  # fmt: skip
    """Go on with an interrupted training, as `rllab.resume` does with others; there are no callbacks here."""
    with Run.open(path, lock=True) as run:
        config = TranslationRunConfig.from_json(run.config)
        if steps is not None:
            config = replace(config, training=replace(config.training, steps=steps))
            run.update_config(config.to_json())
        if not (run.path / "tokenizer").is_dir():
            raise RllabError(f"{path} was stopped before it had a tokenizer; start it again with --overwrite.")
        tokenizer = load_tokenizer(run.path / "tokenizer")
        return _finish(config, run, tokenizer, config.pairs.read(), quiet, resumes=True)


def _finish(
    config: TranslationRunConfig, run: Run, tokenizer: Tokenizer, parts: dict[str, Pairs], quiet: bool, resumes: bool
) -> TranslationRun:  # fmt: skip
    check_vocabulary(tokenizer, config.model.vocabulary_size)
    torch.manual_seed(config.training.seed)
    model = make_model(config.kind, config.model).to(config.device)
    problem = Translation(
        id_pairs(parts["training"], tokenizer), id_pairs(parts["validation"], tokenizer), config.translation,
        config.training.seed, config.device,
    )  # fmt: skip
    kept = replace(config.training, keep_checkpoints=max(config.training.keep_checkpoints, config.average))
    training = SupervisedTraining(model, problem, kept, run=run, quiet=quiet)
    if resumes and run.checkpoints.latest() is not None:
        training.load_state_dict(run.checkpoints.load()[1])
    training.run()
    averaged, validation = _average_if_better(training, run, config.average)
    save_model(run.path / MODEL_FOLDER, model, tokenizer)
    model.eval()
    translator = Translator(
        cast(TranslationModel, model), tokenizer, longest=config.model.context, device=config.device
    )  # fmt: skip
    sources, references = ([pair[side] for pair in parts["test"]] for side in (0, 1))
    return TranslationRun(run.path, run.stop_reason(), averaged, validation, bleu(
        translator.translate(sources), references
    ))  # fmt: skip


def _average_if_better(
    training: "SupervisedTraining[Any]", run: Run, last: int
) -> tuple[int, dict[str, float]]:  # fmt: skip
    """Give the model the average of its last checkpoints, unless the best evaluation's do better in validation."""
    single = training.judged()
    count = min(last, len(run.checkpoints.steps()))
    if count < 2:
        return 1, single
    weights = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    training.model.load_state_dict(average_checkpoints(run.checkpoints, count))
    several = training.judged()
    goal = training.problem.goal
    if several[goal] <= single[goal]:
        return count, several
    training.model.load_state_dict(weights)
    return 1, single
