"""Logits steps: each takes the logits of the next token and gives others, so that they can be put one after another.

Temperature; top-k (Fan et al. 2018, "Hierarchical neural story generation", section 5.4); top-p (Holtzman et al. 2019,
"The curious case of neural text degeneration", section 3.1); min-p (Nguyen et al. 2024); the repetition penalty of CTRL
(Keskar et al. 2019, section 4.1); OpenAI's frequency and presence penalties. A token that a step rules out gets -inf.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from envs.errors import RllabError
from language.decoding.ranking import ascending, at_least, kth_largest


class LogitsStep(Protocol):
    """Logits of the next token to other ones, which may be the same tensor."""

    def __call__(self, tokens: Tensor, valid: Tensor, logits: Tensor) -> Tensor:
        """Change logits.

        Args:
            tokens: int64 `[N, T]`, the prompts and what was generated so far.
            valid: bool `[N, T]`, true where a token is.
            logits: float `[N, V]`, not to be changed in place.

        Returns:
            `[N, V]`.
        """


def apply_steps(steps: Sequence[LogitsStep], tokens: Tensor, valid: Tensor, logits: Tensor) -> Tensor:
    """The logits after all steps, in their order; shapes as for a step."""
    for step in steps:
        logits = step(tokens, valid, logits)
    return logits


def count_tokens(tokens: Tensor, valid: Tensor, logits: Tensor, since: int = 0) -> Tensor:
    """How often each token occurs in each row from column `since` on: `[N, V]`, of the logits' type."""
    counts = torch.zeros_like(logits)
    return counts.scatter_add_(1, tokens[:, since:], valid[:, since:].to(logits.dtype))


@dataclass(frozen=True)
class RepetitionPenalty:
    """CTRL's penalty in its sign-aware form: once for each token that has occurred, however often.

    CTRL divides the logit by the penalty, which makes a token with a negative logit likelier. As in Hugging Face's
    `RepetitionPenaltyLogitsProcessor`, a negative one is multiplied instead.
    """

    penalty: float
    """Above 1 against repetition; CTRL's is about 1.2."""
    since: int = 0
    """The column from which tokens count; 0 counts the prompt too."""

    def __post_init__(self) -> None:
        _require(self.penalty > 0, f"A repetition penalty must be above 0, not {self.penalty}.")

    def __call__(self, tokens: Tensor, valid: Tensor, logits: Tensor) -> Tensor:
        tokens, valid = tokens[:, self.since :], valid[:, self.since :]
        if tokens.shape[1] == 0 or not bool(valid.any()):
            return logits
        # Padding counts as the row's first token, so that only few places of the vocabulary need be looked at.
        some = valid.any(-1, keepdim=True)
        seen = torch.where(valid, tokens, tokens.gather(1, valid.int().argmax(-1, keepdim=True)))
        found = logits.gather(1, seen)
        changed = torch.where(found < 0, found * self.penalty, found / self.penalty)
        return logits.scatter(1, seen, torch.where(some, changed, found))


@dataclass(frozen=True)
class PowerPenalty:
    """The logit divided by penaltyⁿ for a token that has occurred n times.

    Not sign-aware: a penalty above 1 brings a negative logit nearer to 0 and makes its token likelier. A constant added
    to all logits, which changes no probability, changes what it does. `FrequencyPenalty` has neither flaw.
    """

    penalty: float
    """Above 1 against the repetition of tokens with positive logits."""
    since: int = 0
    """The column from which tokens count; 0 counts the prompt too."""

    def __post_init__(self) -> None:
        _require(self.penalty > 0, f"A power penalty must be above 0, not {self.penalty}.")

    def __call__(self, tokens: Tensor, valid: Tensor, logits: Tensor) -> Tensor:
        return logits / self.penalty ** count_tokens(tokens, valid, logits, self.since)


@dataclass(frozen=True)
class FrequencyPenalty:
    """The logit less the penalty times the count of its token (OpenAI's frequency penalty)."""

    penalty: float
    """OpenAI allows -2 to 2; below 0 rewards repetition."""
    since: int = 0
    """The column from which tokens count; OpenAI counts generated ones only."""

    def __call__(self, tokens: Tensor, valid: Tensor, logits: Tensor) -> Tensor:
        return torch.sub(logits, count_tokens(tokens, valid, logits, self.since), alpha=self.penalty)


@dataclass(frozen=True)
class PresencePenalty:
    """The logit less the penalty where its token has occurred (OpenAI's presence penalty)."""

    penalty: float
    """OpenAI allows -2 to 2; below 0 rewards repetition."""
    since: int = 0
    """The column from which tokens count; OpenAI counts generated ones only."""

    def __call__(self, tokens: Tensor, valid: Tensor, logits: Tensor) -> Tensor:
        seen = count_tokens(tokens, valid, logits, self.since).clamp_max_(1)
        return torch.sub(logits, seen, alpha=self.penalty)


@dataclass(frozen=True)
class BannedTokens:
    """Tokens that never come."""

    banned: tuple[int, ...]
    """Their ids."""

    def __call__(self, tokens: Tensor, valid: Tensor, logits: Tensor) -> Tensor:
        return logits.index_fill(1, torch.tensor(self.banned, dtype=torch.int64, device=logits.device), -math.inf)


@dataclass(frozen=True)
class MinimumNewTokens:
    """No token that ends the text before so many new ones are there."""

    stop_tokens: tuple[int, ...]
    """The ids of those that end it."""
    columns: int
    """How many columns there must be before one may come: the prompt's and the new ones."""

    def __call__(self, tokens: Tensor, valid: Tensor, logits: Tensor) -> Tensor:
        if tokens.shape[1] >= self.columns:
            return logits
        return BannedTokens(self.stop_tokens)(tokens, valid, logits)


@dataclass(frozen=True)
class Temperature:
    """Logits divided by the temperature: below 1 sharper, above 1 flatter."""

    temperature: float
    """Above 0. (Its limit 0 is the likeliest token: greedy decoding, which needs no step.)"""

    def __post_init__(self) -> None:
        _require(
            self.temperature > 0, f"A temperature step must be above 0, not {self.temperature}; 0 is greedy decoding."
        )

    def __call__(self, tokens: Tensor, valid: Tensor, logits: Tensor) -> Tensor:
        return logits / self.temperature


@dataclass(frozen=True)
class TopK:
    """The k likeliest tokens, and those as likely as the last of them."""

    count: int
    """k; more than the vocabulary has keeps all."""

    def __post_init__(self) -> None:
        _require(self.count > 0, f"Top-k must keep at least one token, not {self.count}.")

    def __call__(self, tokens: Tensor, valid: Tensor, logits: Tensor) -> Tensor:
        if self.count >= logits.shape[-1]:
            return logits
        return at_least(logits, kth_largest(logits, self.count))


@dataclass(frozen=True)
class TopP:
    """The nucleus: the fewest tokens, likeliest first, whose probabilities add up to p or more.

    Of equally likely tokens that are not all needed, those with the lower ids stay. (Which ones stay in Hugging Face's
    `TopPLogitsWarper` is left to a sort that is not stable.)
    """

    mass: float
    """p, above 0 and at most 1."""

    def __post_init__(self) -> None:
        _require(0 < self.mass <= 1, f"Top-p needs a probability above 0 and at most 1, not {self.mass}.")

    def __call__(self, tokens: Tensor, valid: Tensor, logits: Tensor) -> Tensor:
        if self.mass == 1:
            return logits
        values = ascending(logits)
        below = values.softmax(-1).cumsum(-1)  # the probability of a token and of all less likely ones
        limit = below.new_full((len(logits), 1), 1 - self.mass)
        first = torch.searchsorted(below, limit, right=True).clamp_max_(logits.shape[-1] - 1)
        lowest = values.gather(1, first)
        before = values.gather(1, (first - 1).clamp_min_(0))
        if bool(((before == lowest) & (first > 0)).any()):
            equal, above = logits == lowest, logits > lowest
            needed = logits.shape[-1] - first - above.sum(-1, keepdim=True)
            return torch.where(above | (equal & (equal.cumsum(-1) <= needed)), logits, -math.inf)
        return at_least(logits, lowest)


@dataclass(frozen=True)
class MinP:
    """Tokens whose probability is at least a share of the likeliest one's."""

    share: float
    """From 0, which keeps all, to 1."""

    def __post_init__(self) -> None:
        _require(0 <= self.share <= 1, f"Min-p needs a share from 0 to 1, not {self.share}.")

    def __call__(self, tokens: Tensor, valid: Tensor, logits: Tensor) -> Tensor:
        if self.share == 0:
            return logits
        return at_least(logits, logits.amax(-1, keepdim=True) + math.log(self.share))


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise RllabError(sentence)
