"""Questions with parts of their contexts, as BERT reads them: [CLS] question [SEP] part of the context [SEP].

Devlin et al. 2018, section 4.2. A context that is longer than there is room is read in several windows that overlap, as
in the authors' program; each token counts in that window where most is seen on both sides of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.errors import RllabError
from language.models.bert_input import Markers, Packed, padded
from language.tasks.squad import Question
from language.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class AnsweringConfig:
    """How questions become batches, and how answers are chosen. The defaults are those of the authors' program."""

    batch_size: int = 32
    """Windows (section 4.2)."""
    length: int = 384
    """Tokens of a window at most, with the question and the markers; no more than the model's context."""
    stride: int = 128
    """Tokens from the beginning of one window's part of the context to that of the next."""
    longest_question: int = 64
    """Of longer questions only so many tokens are read."""
    longest_answer: int = 30
    """Tokens of an answer at most."""
    candidates: int = 20
    """So many of the best answers of a question are compared."""
    may_lack_answer: bool = False
    """Whether "there is none" is a possible answer (SQuAD 2.0)."""
    threshold: float = 0.0
    """By how much the score of no answer must be above that of the best one to be told; `best_threshold` finds it on
    held-out questions (section 4.3)."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "stride", "longest_question", "longest_answer", "candidates"):
            if getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.length < self.longest_question + 4:
            raise RllabError(
                f"length must be at least longest_question + 4 = {self.longest_question + 4}, for the markers and a "
                f"token of the context, not {self.length}."
            )


@dataclass(frozen=True)
class Window:
    """A question with a part of its context."""

    question: int
    """The number of the question."""
    packed: Packed
    """What is read."""
    begin: int
    """Where in it the part of the context begins."""
    offsets: NDArray[np.int64]
    """`[C, 2]`: which characters of the context each token of the part comes from, start and (exclusive) end."""
    best_seen: NDArray[np.bool_]
    """`[C]`: whether no other window shows more on both sides of the token."""
    answer: tuple[int, int]
    """Where in `packed` the first and the last token of the answer are; (0, 0), the place of [CLS], if it has none."""

    def text(self, context: str, first: int, last: int) -> str:
        """What stands in the context from one token of the part to another, counted from the part's first."""
        return context[self.offsets[first, 0] : self.offsets[last, 1]]


class AnsweringBatch(NamedTuple):
    """Windows, padded on the right."""

    tokens: Tensor
    """int64 `[N, T]`."""
    valid: Tensor
    """bool `[N, T]`."""
    segments: Tensor
    """int64 `[N, T]`."""
    allowed: Tensor
    """bool `[N, T]`, true where an answer may begin or end: in the context, and at [CLS] for none."""
    starts: Tensor
    """int64 `[N]`, the answers' first tokens."""
    ends: Tensor
    """int64 `[N]`, their last tokens."""


def windows_of(number: int, question: Question, tokenizer: Tokenizer, config: AnsweringConfig) -> list[Window]:
    """The windows of a question, one at least; the first of its answers is the one to learn.

    Args:
        number: the question's, which is noted in each window.
        question: with its context.
        tokenizer: with [CLS] and [SEP], as the other tokenizers of BERT.
        config: how contexts are cut.

    Raises:
        RllabError: the context has no tokens, or the tokenizer lacks [CLS] or [SEP].
    """
    markers = Markers.of(tokenizer)
    asked = tokenizer.ids(question.question)[: config.longest_question]
    encoding = tokenizer.encode(question.context)
    if not encoding.ids:
        raise RllabError(f"The question {question.name} has an empty context; leave it out.")
    offsets = np.asarray(encoding.offsets, np.int64).reshape(-1, 2)
    room = config.length - len(asked) - 3
    cuts = _cuts(len(encoding.ids), room, config.stride)
    best = _best_windows(len(encoding.ids), cuts)
    answer = _tokens_of(question, offsets)
    begin = len(asked) + 2
    found = []
    for place, (first, last) in enumerate(cuts):
        inside = answer is not None and first <= answer[0] and answer[1] < last
        found.append(Window(
            number, markers.pack(asked, encoding.ids[first:last]), begin, offsets[first:last],
            best[first:last] == place,
            (answer[0] - first + begin, answer[1] - first + begin) if answer is not None and inside else (0, 0),
        ))  # fmt: skip
    return found


def all_windows(questions: Sequence[Question], tokenizer: Tokenizer, config: AnsweringConfig) -> list[Window]:
    """The windows of all questions, in their order. Raises RllabError as `windows_of` does."""
    return [
        window
        for number, question in enumerate(questions)
        for window in windows_of(number, question, tokenizer, config)
    ]


def collated(windows: Sequence[Window], device: torch.device | str = "cpu") -> AnsweringBatch:
    """Windows as one batch."""
    tokens, valid, segments = padded([window.packed for window in windows], device)
    allowed = torch.zeros_like(valid)
    allowed[:, 0] = True
    for row, window in enumerate(windows):
        allowed[row, window.begin : window.begin + len(window.offsets)] = True
    answers = torch.tensor([window.answer for window in windows], device=device)
    return AnsweringBatch(tokens, valid, segments, allowed, answers[:, 0], answers[:, 1])


def _cuts(tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    cuts = [(0, min(room, tokens))]
    while cuts[-1][1] < tokens:
        first = cuts[-1][0] + min(stride, room)
        cuts.append((first, min(first + room, tokens)))
    return cuts


def _best_windows(tokens: int, cuts: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """For each token the window that shows most on its poorer side; of equal ones the longest, then the first."""
    places = np.arange(tokens)
    scores = np.stack([
        np.where(
            (places >= first) & (places < last),
            np.minimum(places - first, last - 1 - places) + 0.01 * (last - first), -1.0,
        )
        for first, last in cuts
    ])  # fmt: skip
    return np.asarray(scores.argmax(0))


def _tokens_of(question: Question, offsets: NDArray[np.int64]) -> tuple[int, int] | None:
    """The first and the last token that have a character of the first answer; None if there is none."""
    if not question.answers:
        return None
    text, start = question.answers[0]
    touching = np.flatnonzero((offsets[:, 1] > start) & (offsets[:, 0] < start + len(text)))
    return (int(touching[0]), int(touching[-1])) if len(touching) else None
