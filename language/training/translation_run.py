"""Training a translation model on pairs of sentences: which pairs, and what is said of it at the end."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from envs.errors import RllabError
from language.data import read_dictionary, read_parallel, split
from language.models.folder import check_vocabulary, load_initial
from language.tasks.translation import BLEU, TranslationModel, Translator, bleu
from language.tokenizers.byte_bpe import ByteLevelBPE, ByteLevelBPEConfig
from language.tokenizers.files import load_tokenizer
from language.tokenizers.special import SpecialTokens
from language.tokenizers.tokenizer import Progress
from language.training.averaging import average_checkpoints
from language.training.corpus import SHARES
from language.training.recipe import TOKENIZER_FOLDER, Recipe, begun_model, tokenizer_of
from language.training.supervised import SupervisedTraining
from language.training.translation import Translation, TranslationConfig, id_pairs
from rllab.runs import Run

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
    entries: bool = False
    """Learn from the words and phrases of the word list too, which are never in validation or test."""
    reverse: bool = False
    """Translate the other way round."""
    tokenizer: str | None = None
    """A tokenizer's folder; by default byte-level byte-pair encoding is trained on both languages together."""

    @cached_property
    def parts(self) -> dict[str, Pairs]:
        """The pairs by part of the split, which a hash of the source decides.

        Raises RllabError if neither or both of files and data are given, they cannot be read, or a part is empty.
        """
        if bool(self.files) == (self.data is not None):
            raise RllabError("Give files of pairs, or --data trans-de-en, one of the two.")
        if self.entries and self.data is None:
            raise RllabError("Entries are those of a word list; leave them out, or give --data trans-de-en.")
        parts = split(dict.fromkeys(self._turned(self._pairs())), SHARES, text_of=lambda pair: pair[0])
        if self.entries:
            held_out = {source for part in ("validation", "test") for source, _ in parts[part]}
            further = self._turned(read_dictionary(self._word_list, sentences=False, first_wording=True))
            known = dict.fromkeys(parts["training"])
            parts["training"] = list(known | dict.fromkeys(pair for pair in further if pair[0] not in held_out))
        for name, part in parts.items():
            if not part:
                raise RllabError(f"No pair falls into the part for {name}; give more pairs.")
        return parts

    @property
    def _word_list(self) -> str | None:
        return None if self.data == TRANS_DE_EN else self.data

    def _turned(self, pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        return ((target, source) if self.reverse else (source, target) for source, target in pairs)

    def _pairs(self) -> Iterator[tuple[str, str]]:
        if self.data is not None:
            yield from read_dictionary(self._word_list)
        for path in self.files:
            for source, target in read_parallel(path, self.columns):
                if source.strip() and target.strip():
                    yield source, target


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

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What a command says of it: names and values."""
        weights = f"the average of {self.averaged} checkpoints" if self.averaged > 1 else "the best checkpoint's"
        perplexity, accuracy = self.validation["perplexity"], self.validation["accuracy"]
        return [
            ("Weights", weights),
            ("Validation", f"perplexity {perplexity:.2f}, accuracy {accuracy:.1%}"),
            ("Test BLEU", f"{self.test.score:.2f} ({self.test.signature})"),
        ]


@dataclass(frozen=True, kw_only=True)
class TranslationTraining(Recipe[TranslationRun]):
    """A model of the kind `transformer` or `lstm-translation` learns from pairs of sentences."""

    run_kind: ClassVar[str] = "language-translation"

    pairs: PairsConfig
    """What is translated."""
    translation: TranslationConfig
    """How pairs become batches."""
    average: int = 5
    """How many of the last checkpoints are averaged at the end (Vaswani et al. 2017, section 6.1); 1: none."""
    initial: str | None = None
    """A run or a model's folder whose weights, sizes and tokenizer it goes on from, on other pairs."""

    def __post_init__(self) -> None:
        if self.average < 1:
            raise RllabError(f"average must be at least 1, not {self.average}.")
        if self.translation.longest > self.model.context:
            raise RllabError(
                f"Pairs of up to {self.translation.longest} tokens are longer than the model's context of "
                f"{self.model.context}; lower --longest, or raise --context."
            )

    @property
    def goal(self) -> str:
        """See `Recipe`."""
        return Translation.goal

    def prepare(self, folder: Path, progress: Progress | None) -> Self:
        """Train a tokenizer of both languages together, or take that of `pairs.tokenizer` or of `initial`."""
        model = self.model
        if self.initial is not None:
            loaded, tokenizer = load_initial(self.initial, self.model_kind)
            model = loaded.config
        elif self.pairs.tokenizer is None:
            texts = (text for pair in self.pairs.parts["training"] for text in pair)
            size = model.vocabulary_size
            tokenizer = ByteLevelBPE.train(texts, ByteLevelBPEConfig(size, special=SPECIAL), progress)
        else:
            tokenizer = load_tokenizer(self.pairs.tokenizer)
        tokenizer.save(folder / TOKENIZER_FOLDER)
        return replace(self, model=replace(model, vocabulary_size=len(tokenizer)))

    def assemble(self, run: Run, quiet: bool) -> SupervisedTraining[Any]:
        """See `Recipe`."""
        tokenizer = tokenizer_of(run.path)
        check_vocabulary(tokenizer, self.model.vocabulary_size)
        model = begun_model(self.model_kind, self.model, self.initial, run, self.device)
        training, validation = (id_pairs(self.pairs.parts[part], tokenizer) for part in ("training", "validation"))
        problem = Translation(training, validation, self.translation, self.training.seed, self.device)
        kept = replace(self.training, keep_checkpoints=max(self.training.keep_checkpoints, self.average))
        return SupervisedTraining(model, problem, kept, run=run, quiet=quiet)

    def finish(self, training: SupervisedTraining[Any], run: Run) -> TranslationRun:
        """Average checkpoints where that helps, and translate the test part."""
        averaged, validation = _average_if_better(training, run, self.average)
        translator = Translator(
            cast(TranslationModel, training.model), tokenizer_of(run.path), longest=self.model.context,
            device=self.device,
        )  # fmt: skip
        training.model.eval()
        sources, references = ([pair[side] for pair in self.pairs.parts["test"]] for side in (0, 1))
        test = bleu(translator.translate(sources), references)
        return TranslationRun(run.path, run.stop_reason(), averaged, validation, test)


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
