"""What responses are worth: rules, classifiers, reward models, Python functions, and weighted sums of them.

A reward is a function of prompts and responses, both texts, to a number for each.
"""

import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.folder import load_model
from language.models.padding import pad_right
from language.preferences.reward_model import text_rows
from language.tasks.classifying import Classifier
from language.tasks.counted_words import CountedWords
from language.tokenizers.tokenizer import Tokenizer

TextReward: TypeAlias = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""Prompts and responses `[N]` to scores `[N]`."""
FORMS = (
    "keywords:WORD,WORD,… (how many of a response's words are these), length:WORDS (minus the relative distance from "
    "so many), classifier:FOLDER[:CLASS] (log-odds of a class), words:FOLDER[:CLASS] (the same, of a classifier that "
    "counts words), model:FOLDER (a reward model), python:MODULE:FUNCTION"
)
"""What `make_reward` understands."""
_BATCH = 32


@dataclass(frozen=True)
class KeywordReward:
    """How many of a response's words are among some, in any case."""

    words: tuple[str, ...]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(rf"\b(?:{'|'.join(map(re.escape, self.words))})\b", re.IGNORECASE)

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        return [float(len(self._pattern.findall(response))) for response in responses]


@dataclass(frozen=True)
class LengthReward:
    """0 for a response of so many words, −1 for an empty one or one of twice as many, and further down from there."""

    words: int

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        return [-abs(len(response.split()) - self.words) / self.words for response in responses]


@dataclass(frozen=True)
class ClassifierReward:
    """The log-odds, log p − log(1 − p), of a class, given prompt and response as one text."""

    classifier: Classifier | CountedWords
    label: int
    """The number of the class."""
    context: Literal["both", "response"] = "both"
    """Whether the classifier reads prompt and response, or the response alone."""

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        texts = [
            (prompt + response if self.context == "both" else response)
            for prompt, response in _pairs(prompts, responses)
        ]
        there = [number for number, text in enumerate(texts) if text.strip()]
        # An empty text, which no classifier reads, says nothing for either class.
        odds = np.zeros(len(texts))
        if there:
            found = self.classifier.probabilities([(texts[number],) for number in there])[:, self.label].double()
            odds[there] = torch.logit(found, eps=1e-7).numpy()
        return [float(value) for value in odds]


class Scorer(Protocol):
    """A reward model of texts."""

    def score(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """A number for each row: tokens `[N, T]`, padded on the right, and their mask to `[N]`."""


@dataclass(frozen=True)
class ModelReward:
    """The score of a reward model, given prompt and response as one row of tokens."""

    model: Scorer
    tokenizer: Tokenizer
    context: int | None = None
    """Of longer rows the last so many tokens are read."""

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        device = next(cast(nn.Module, self.model).parameters()).device
        rows = text_rows(self.tokenizer, prompts, responses, self.context)
        scores: list[float] = []
        for start in range(0, len(rows), _BATCH):
            scores += self.model.score(*pad_right(rows[start : start + _BATCH], device)).tolist()
        return scores


@dataclass(frozen=True)
class WeightedSum:
    """Several rewards, each times its weight."""

    parts: tuple[tuple[float, TextReward], ...]

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        scores = [weight * score(reward, prompts, responses) for weight, reward in self.parts]
        return [float(value) for value in np.sum(scores, axis=0)]


class RewardFailedError(RllabError):
    """A reward gave no scores, or none that can be learnt from."""


def score(reward: TextReward, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float64]:
    """The scores `[N]`, checked.

    Raises:
        RewardFailedError: the reward failed, or gave another number of scores, or one that is not finite (with the
            text).
    """
    try:
        found = np.asarray(reward(prompts, responses), dtype=np.float64)
    except RllabError:
        raise
    except Exception as error:
        raise RewardFailedError(
            f"The reward failed ({type(error).__name__}: {' '.join(str(error).split())})."
        ) from error
    if found.shape != (len(responses),):
        raise RewardFailedError(
            f"The reward gave scores of the shape {list(found.shape)} for {len(responses)} responses; it must give one "
            "number for each."
        )
    if not np.isfinite(found).all():
        place = int(np.flatnonzero(~np.isfinite(found))[0])
        raise RewardFailedError(
            f"The reward gave {found[place]} for the response {responses[place]!r:.80}; it must give finite numbers."
        )
    return found


def make_reward(texts: Sequence[str], device: str = "cpu") -> TextReward:
    """A reward from what was written on a command line, the sum of all of them.

    Args:
        texts: each `KIND:ARGUMENT`, or `WEIGHT*KIND:ARGUMENT`; see `FORMS`.
        device: where models are to be.

    Raises:
        RllabError: one is not understood, or what it names cannot be loaded.
    """
    if not texts:
        raise RllabError(f"Name a reward: {FORMS}.")
    parts = []
    for text in texts:
        factor, star, rest = text.partition("*")
        weight = _number(factor) if star else None
        parts.append((1.0, _single(text, device)) if weight is None else (weight, _single(rest, device)))
    if len(parts) == 1 and parts[0][0] == 1:
        return parts[0][1]
    return WeightedSum(tuple(parts))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _single(text: str, device: str) -> TextReward:
    kind, _, argument = text.partition(":")
    if not argument:
        raise RllabError(f"'{text}' names no reward; there are {FORMS}.")
    if kind == "keywords":
        keywords = tuple(filter(None, (word.strip() for word in argument.split(","))))
        if not keywords:
            raise RllabError(f"'{text}' names no words; write keywords:great,wonderful.")
        return KeywordReward(keywords)
    if kind == "length":
        words = _number(argument)
        if words is None or words < 1:
            raise RllabError(f"'{text}' is no length; write length:20 for responses of 20 words.")
        return LengthReward(int(words))
    if kind in ("classifier", "words"):
        return _classifier(argument, device, counted=kind == "words")
    if kind == "model":
        model, tokenizer = load_model(argument, device)
        if not hasattr(model, "score"):
            raise RllabError(
                f"{argument} has a {type(model).__name__}, which is no reward model; give a run of "
                "`rllab language reward`."
            )
        return ModelReward(cast(Scorer, model), tokenizer, getattr(model, "context", None))
    if kind == "python":
        return _function(argument)
    raise RllabError(f"There is no reward '{kind}'; there are {FORMS}.")


def _classifier(argument: str, device: str, *, counted: bool) -> ClassifierReward:
    folder, _, label = argument.rpartition(":")
    if not folder or Path(argument).exists():
        folder, label = argument, ""
    classifier = CountedWords.load(folder) if counted else Classifier.load([folder], device=device)
    if classifier.form != "classification":
        raise RllabError(f"{folder} classifies {classifier.form}, not single texts; give a classifier of texts.")
    if not label:
        if len(classifier.classes) > 2:
            raise RllabError(f"{folder} has the classes {', '.join(classifier.classes)}; name one, {folder}:CLASS.")
        label = classifier.classes[-1]
    if label not in classifier.classes:
        raise RllabError(f"{folder} has no class '{label}'; it has {', '.join(classifier.classes)}.")
    return ClassifierReward(classifier, classifier.classes.index(label))


def _function(argument: str) -> TextReward:
    module, _, name = argument.partition(":")
    if os.getcwd() not in sys.path:  # as `python -m` has it: a module beside the user's data
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = getattr(importlib.import_module(module), name or "reward")
    except (ImportError, AttributeError) as error:
        raise RllabError(
            f"The reward {argument} cannot be imported ({error}); write python:MODULE:FUNCTION, a function of prompts "
            "and responses."
        ) from error
    if not callable(found):
        raise RllabError(f"{argument} is no function; name one of prompts and responses.")
    return cast(TextReward, found)


def _pairs(prompts: Sequence[str], responses: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(prompts, responses, strict=True))
