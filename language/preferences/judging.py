"""What models write to prompts, judged side by side: rewards, divergence from a reference, lengths, variety, wins."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from envs.errors import RllabError
from language.preferences.best_of import prompt_ids, responses_in_parts, writer
from language.preferences.responses import ResponsesConfig
from language.preferences.rewards import TextReward, score
from language.tokenizers.tokenizer import Tokenizer
from preference.measures import wilson_interval


@dataclass(frozen=True)
class Judged:
    """N responses of a model, one to each prompt."""

    prompts: list[str]
    responses: list[str]
    scores: NDArray[np.float64] | None
    """The judge's, `[N]`; None without a judge."""
    divergences: NDArray[np.float64] | None
    """log π − log ρ of each response, `[N]`, whose mean is an unbiased estimate of KL(π ‖ ρ); None without a
    reference."""
    lengths: NDArray[np.int64]
    """Tokens, `[N]`, the stop token included."""
    ended: NDArray[np.bool_]
    """Whether a stop token ended it, `[N]`."""
    ids: list[list[int]]
    """The tokens of each response."""

    @property
    def kl(self) -> tuple[float, float]:
        """Nats a response, and the standard error of that."""
        assert self.divergences is not None
        error = self.divergences.std(ddof=1) / len(self.divergences) ** 0.5 if len(self.divergences) > 1 else np.nan
        return float(self.divergences.mean()), float(error)

    def distinct(self, n: int) -> float:
        """The share of different ones among all runs of n tokens in all responses (Li et al. 2016); 1 if none is."""
        found = [tuple(row[place : place + n]) for row in self.ids for place in range(len(row) - n + 1)]
        return len(set(found)) / len(found) if found else 1.0


@dataclass(frozen=True)
class Wins:
    """How often one model's response has the higher score."""

    rate: float
    """Ties count a half."""
    low: float
    high: float
    """Wilson's 95 % interval."""


def judge(
    model: nn.Module, tokenizer: Tokenizer, prompts: Sequence[str], drawing: ResponsesConfig, *,
    reward: TextReward | None = None, reference: nn.Module | None = None, seed: int = 0,
) -> Judged:  # fmt: skip
    """Let a model respond to each prompt, with the same random numbers for every model.

    Args:
        model: writes.
        tokenizer: the model's.
        prompts: texts.
        drawing: how.
        reward: the judge.
        reference: what the model's divergence is measured from, with the same tokenizer.
        seed: of the responses.

    Raises:
        RllabError: there are no prompts, the model writes no text, or the judge failed.
    """
    rows = prompt_ids(writer(model, tokenizer, drawing), tokenizer, prompts, drawing.maximum_new_tokens)
    return judge_rows(model, tokenizer, rows, drawing, reward=reward, reference=reference, seed=seed)


def judge_rows(
    model: nn.Module, tokenizer: Tokenizer, rows: Sequence[Sequence[int]], drawing: ResponsesConfig, *,
    reward: TextReward | None = None, reference: nn.Module | None = None, seed: int = 0,
) -> Judged:  # fmt: skip
    """`judge`, with prompts that are tokens already."""
    if not rows:
        raise RllabError("There are no prompts to respond to; give some.")
    policy = writer(model, tokenizer, drawing)
    parts = responses_in_parts(policy, tokenizer, rows, drawing, seed)
    given, texts = ([text for part in parts for text in getattr(part, name)] for name in ("prompts", "texts"))
    divergences = None
    if reference is not None:
        other = writer(reference, tokenizer, drawing).reference
        divergences = np.concatenate([
            ((part.log_probs - other.log_probs(part.batch)) * part.batch.valid).sum(1).double().cpu().numpy()
            for part in parts
        ])  # fmt: skip
    ids = [
        row[there].tolist() for part in parts for row, there in zip(part.batch.actions, part.batch.valid, strict=True)
    ]
    return Judged(
        given, texts, None if reward is None else score(reward, given, texts), divergences,
        np.array([len(row) for row in ids]), torch.cat([part.finished for part in parts]).cpu().numpy(), ids,
    )  # fmt: skip


def wins(one: Judged, other: Judged) -> Wins:
    """Of `one` over `other`, on the same prompts. Raises RllabError if one was not scored, or prompts differ."""
    if one.scores is None or other.scores is None:
        raise RllabError("Wins need a judge; name one.")
    if len(one.prompts) != len(other.prompts):
        raise RllabError("Wins are counted on the same prompts; these differ.")
    won = float((one.scores > other.scores).sum() + 0.5 * (one.scores == other.scores).sum())
    return Wins(won / len(one.scores), *wilson_interval(won, len(one.scores)))
