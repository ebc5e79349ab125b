"""Which parts of a text answer a question best, by the logits of beginnings and ends, and whether none does.

Devlin et al. 2018, sections 4.2 and 4.3.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.tasks.answer_windows import AnsweringBatch, AnsweringConfig, Window, collated
from language.tasks.squad import Question, f1


class FoundAnswer(NamedTuple):
    """An answer."""

    text: str
    """A part of the context; empty for "there is none"."""
    start: int
    """Its first character in the context; 0 if there is none."""
    end: int
    """After its last character."""
    score: float
    """The sum of its beginning's and its end's logits."""
    probability: float
    """Of the answers that were compared."""


def masked_logits(model: nn.Module, batch: AnsweringBatch) -> tuple[Tensor, Tensor]:
    """Logits `[N, T]` of beginnings and of ends, −∞ where no answer may begin or end."""
    starts, ends = model(batch.tokens, batch.valid, batch.segments)
    forbidden = ~batch.allowed
    return starts.float().masked_fill(forbidden, -torch.inf), ends.float().masked_fill(forbidden, -torch.inf)


def ranked_answers(
    model: nn.Module, questions: Sequence[Question], windows: Sequence[Window], config: AnsweringConfig,
    device: torch.device | str = "cpu",
) -> list[list[FoundAnswer]]:  # fmt: skip
    """The best answers of each question, the best first; the model is to be in evaluation mode."""
    order = sorted(range(len(windows)), key=lambda number: len(windows[number].packed.tokens))
    spans: list[list[tuple[float, str, int, int]]] = [[] for _ in questions]
    none = [float("inf")] * len(questions)
    with torch.no_grad():
        for first in range(0, len(order), config.batch_size):
            chosen = [windows[number] for number in order[first : first + config.batch_size]]
            starts, ends = (logits.cpu() for logits in masked_logits(model, collated(chosen, device)))
            for window, start, end in zip(chosen, starts, ends, strict=True):
                number = window.question
                # That there is no answer must be likely in all windows.
                none[number] = min(none[number], float(start[0] + end[0]))
                part = slice(window.begin, window.begin + len(window.offsets))
                for score, a, b in best_spans(start[part], end[part], config, torch.from_numpy(window.best_seen)):
                    text = window.text(questions[number].context, a, b)
                    spans[number].append((score, text, int(window.offsets[a, 0]), int(window.offsets[b, 1])))
    return [_ranked(found, empty, config) for found, empty in zip(spans, none, strict=True)]


def best_spans(
    starts: Tensor, ends: Tensor, config: AnsweringConfig, may_start: Tensor | None = None
) -> list[tuple[float, int, int]]:  # fmt: skip
    """The best spans of one window: score, first and last token, the best first.

    All spans of at most `longest_answer` tokens are compared.

    Args:
        starts: `[C]`, logits of a beginning.
        ends: `[C]`, logits of an end.
        config: how long and how many.
        may_start: bool `[C]`, where answers may begin; everywhere if it is not given.
    """
    length, longest = len(starts), min(config.longest_answer, len(starts))
    padding = ends.new_full((longest - 1,), -torch.inf)
    scores = starts[:, None] + torch.cat([ends, padding]).unfold(0, longest, 1)  # [C, longest], by start and length
    if may_start is not None:
        scores = scores.masked_fill(~may_start[:, None], -torch.inf)
    best = scores.flatten().topk(min(config.candidates, length * longest))
    return [
        (score, place // longest, place // longest + place % longest)
        for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        if score > float("-inf")
    ]


def _ranked(spans: list[tuple[float, str, int, int]], none: float, config: AnsweringConfig) -> list[FoundAnswer]:
    """The best of several windows' spans, each text once, and no answer in its place by the threshold."""
    kept: dict[str, tuple[float, str, int, int]] = {}
    for span in sorted(spans, key=lambda span: -span[0]):
        if len(kept) < config.candidates:
            kept.setdefault(span[1], span)
    ranked = list(kept.values())
    if config.may_lack_answer:
        above = none - config.threshold
        place = sum(span[0] >= above for span in ranked)
        ranked.insert(place, (none, "", 0, 0))
    probabilities = torch.tensor([span[0] for span in ranked]).softmax(0).tolist()
    return [
        FoundAnswer(text, start, end, score, probability)
        for (score, text, start, end), probability in zip(ranked, probabilities, strict=True)
    ]


def best_threshold(ranked: Sequence[Sequence[FoundAnswer]], questions: Sequence[Question]) -> tuple[float, float]:
    """The threshold with which the mean F1 is highest, and that F1.

    Args:
        ranked: answers to each question, with "there is none" among them.
        questions: with people's answers.

    Raises:
        RllabError: there is no question, or one was answered without the possibility that there is none.
    """
    judged = []
    for answers, question in zip(ranked, questions, strict=True):
        none = [answer.score for answer in answers if not answer.text]
        told = [answer for answer in answers if answer.text]
        if not none:
            raise RllabError("A threshold needs answers that were found with may_lack_answer.")
        right = [answer.text for answer in question.answers]
        margin = none[0] - told[0].score if told else float("inf")
        judged.append((margin, f1(told[0].text, right) if told else 0.0, f1("", right)))
    if not judged:
        raise RllabError("There is no question to choose a threshold by; give one at least.")
    judged.sort()
    # With the threshold below all margins, none is told of each question; then one more question is answered at a time.
    total = sum(empty for _, _, empty in judged)
    best, threshold = total, judged[0][0] - 1.0
    for place, (margin, answered, empty) in enumerate(judged):
        total += answered - empty
        following = judged[place + 1][0] if place + 1 < len(judged) else margin + 1.0
        if total > best and following > margin:
            best, threshold = total, margin
    return threshold, best / len(judged)
