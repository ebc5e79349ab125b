"""What pre-training differs in from model to model: sizes that two cores train, the tokenizer, the problem."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from language.models.awd_lstm import AWDLSTMConfig
from language.models.bert import BERTConfig
from language.models.elmo import ELMoConfig
from language.models.gpt import GPTConfig
from language.models.moe_lstm import MoELSTMConfig
from language.models.transformer_lm import TransformerLMConfig
from language.tokenizers.byte_bpe import ByteLevelBPE, ByteLevelBPEConfig
from language.tokenizers.tokenizer import Progress, Tokenizer
from language.training.bptt import BPTTConfig, BPTTModelling
from language.training.corpus import PartOfTexts, write_parts
from language.training.document_corpus import train_wordpiece, write_document_parts
from language.training.language_modelling import LanguageModelling, LanguageModellingConfig
from language.training.masked_modelling import PAPERS_TRAINING, MaskedModelling, MaskedModellingConfig
from language.training.problem import Problem
from language.training.training_config import TrainingConfig
from language.training.word_modelling import WordModelling, train_words, write_words


@dataclass(frozen=True)
class Place:
    """What a problem is made of."""

    texts: Iterable[str]
    """All of them; which part one belongs to is decided by a hash of it."""
    tokenizer: Tokenizer
    """The run's."""
    folder: Path
    """Where tokens are kept."""
    held_out: str
    """The part that it evaluates, `validation`, or all of `test`."""
    seed: int
    """Of its batches."""
    device: str
    """Where the model is."""


@dataclass(frozen=True)
class PretrainingKind:
    """One kind of model and how it is pre-trained; the configurations are the command's defaults."""

    model: Any
    """A size that two cores train in minutes; the papers' sizes are a few flags away."""
    modelling: Any
    """How texts become batches."""
    training: TrainingConfig
    """How it learns."""
    tokenizer: Callable[[Iterable[str], int, Progress | None], Tokenizer]
    """Trained on the training part's texts, of so many tokens."""
    problem: Callable[[Any, Any, Place], Problem[Any]]
    """Of the model's configuration, the modelling's, and the rest."""
    goal: str = "perplexity"
    """By which the best evaluation is told; the lower the better."""


def _bytes(texts: Iterable[str], vocabulary_size: int, progress: Progress | None) -> Tokenizer:
    return ByteLevelBPE.train(PartOfTexts(texts, "training"), ByteLevelBPEConfig(vocabulary_size), progress)


def _running_text(model: Any, modelling: LanguageModellingConfig, place: Place) -> Problem[Any]:
    files = write_parts(place.texts, place.tokenizer, place.folder)
    if place.held_out == "test":
        modelling = replace(modelling, evaluation_tokens=0)
    return LanguageModelling(
        files["training"], files[place.held_out], modelling, place.seed, place.device,
        reports=isinstance(model, MoELSTMConfig) or bool(getattr(model, "experts", 0)),
    )  # fmt: skip


def _read_on(model: AWDLSTMConfig, modelling: BPTTConfig, place: Place) -> Problem[Any]:
    files = write_parts(place.texts, place.tokenizer, place.folder)
    return BPTTModelling(
        files["training"], files[place.held_out], modelling, place.seed, place.device, model.backward
    )  # fmt: skip


def _words(model: ELMoConfig, modelling: LanguageModellingConfig, place: Place) -> Problem[Any]:
    words = write_words(place.texts, place.tokenizer, place.folder, model.characters_a_word)
    if place.held_out == "test":
        modelling = replace(modelling, evaluation_tokens=0)
    return WordModelling(words, place.held_out, modelling, place.seed, place.device)


def _documents(model: BERTConfig, modelling: MaskedModellingConfig, place: Place) -> Problem[Any]:
    files = write_document_parts(place.texts, place.tokenizer, place.folder)
    return MaskedModelling(
        files["training"], files[place.held_out], place.tokenizer, modelling, place.seed, place.device
    )  # fmt: skip


_TRAINING = TrainingConfig(steps=2_000, learning_rate=1e-3, warmup=200, weight_decay=0.1)

KINDS: dict[str, PretrainingKind] = {
    "gpt": PretrainingKind(
        GPTConfig(4_096, 256, layers=4, heads=4, width=256, norm="pre"), LanguageModellingConfig(), _TRAINING,
        _bytes, _running_text,
    ),
    "bert": PretrainingKind(
        BERTConfig(4_096, 128, layers=4, heads=4, width=256), MaskedModellingConfig(),
        replace(PAPERS_TRAINING, steps=2_000, learning_rate=1e-3, warmup=200), train_wordpiece, _documents,
        goal="masked_perplexity",
    ),
    "transformer-lm": PretrainingKind(
        TransformerLMConfig(4_096, 256, layers=4, heads=4, width=256), LanguageModellingConfig(),
        replace(_TRAINING, schedule="noam", warmup=400, weight_decay=0.0, epsilon=1e-9), _bytes, _running_text,
    ),
    "moe-lm": PretrainingKind(
        MoELSTMConfig(
            width=128, feed_forward_width=256, experts=16, k=2, vocabulary_size=4_096, tied=True
        ),
        LanguageModellingConfig(batch_size=32, length=64), replace(_TRAINING, weight_decay=0.0), _bytes, _running_text,
    ),
    "awd-lstm": PretrainingKind(
        AWDLSTMConfig(4_096, width=192, layers=3, hidden_width=384, dropout=0.25), BPTTConfig(batch_size=32),
        replace(_TRAINING, learning_rate=3e-3, weight_decay=1e-6, beta_1=0.7, beta_2=0.99, clip_norm=0.25),
        _bytes, _read_on,
    ),
    "elmo": PretrainingKind(
        ELMoConfig(
            8_000, characters_a_word=20, filters=((1, 16), (2, 16), (3, 32), (4, 64), (5, 64)), highways=1, width=96,
            lstm_width=384,
        ),
        LanguageModellingConfig(batch_size=32, length=20, evaluation_tokens=50_000),
        replace(_TRAINING, weight_decay=0.0, clip_norm=10.0), train_words, _words,
    ),
}  # fmt: skip
"""By the name that `rllab language pretrain` has for it. AWD-LSTM's learning is ULMFiT's (Howard, Ruder 2018, section
4.1: Adam with β1 0.7 and β2 0.99); with the dropouts of small data sets a small model learns hardly anything from
millions of tokens, so that they are a quarter."""
