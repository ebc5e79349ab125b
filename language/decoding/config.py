"""How text is generated: one configuration for sampling, greedy decoding and beam search."""

from dataclasses import dataclass
from typing import Literal

from envs.errors import RllabError
from language.decoding.steps import (
    BannedTokens,
    FrequencyPenalty,
    LogitsStep,
    MinimumNewTokens,
    MinP,
    PowerPenalty,
    PresencePenalty,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
)


@dataclass(frozen=True)
class DecodingConfig:
    """How text is generated; by default tokens are drawn from the model's own distribution."""

    maximum_new_tokens: int = 100
    """How many tokens to generate at most."""
    minimum_new_tokens: int = 0
    """How many to generate before a stop token may come."""
    temperature: float = 1.0
    """Logits are divided by it; 0 takes the likeliest token each time (greedy decoding)."""
    top_k: int | None = None
    """Draw from so many of the likeliest tokens."""
    top_p: float | None = None
    """Draw from the fewest tokens whose probabilities add up to this."""
    min_p: float | None = None
    """Draw from tokens at least this share as likely as the likeliest one."""
    repetition_penalty: float = 1.0
    """Logits of tokens that occurred, in the prompt too, are divided by it, negative ones multiplied. (CTRL: 1.2.)"""
    power_penalty: float = 1.0
    """Logits of generated tokens are divided by its n-th power after n occurrences, whatever their sign."""
    frequency_penalty: float = 0.0
    """Taken off a token's logit for each time it was generated. (OpenAI: -2 to 2.)"""
    presence_penalty: float = 0.0
    """Taken off a token's logit once it was generated. (OpenAI: -2 to 2.)"""
    banned_tokens: tuple[int, ...] = ()
    """Ids of tokens that never come."""
    stop_tokens: tuple[int, ...] = ()
    """Ids of tokens that end a text."""
    stop_strings: tuple[str, ...] = ()
    """What ends a text and is cut off with all behind it."""
    beams: int = 1
    """Above 1: beam search with so many hypotheses, by log-probability. (The Transformer's paper: 4.)"""
    length_penalty: float = 1.0
    """α: how much beam search's scores are divided for length. (Hugging Face: 1; the Transformer's paper: 0.6.)"""
    length_norm: Literal["power", "gnmt"] = "power"
    """The divisor for n new tokens: n^α as in Hugging Face, or ((5 + n)/6)^α as in Wu et al. 2016."""
    beam_stop: Literal["heuristic", "full", "exact"] = "heuristic"
    """End when no hypothesis would win if it ended now, when there are enough finished, or when none can win at all."""
    seed: int = 0
    """Of the random numbers, from which each row gets its own."""

    def __post_init__(self) -> None:
        for name, lowest in (("maximum_new_tokens", 1), ("minimum_new_tokens", 0), ("beams", 1), ("seed", 0)):
            if getattr(self, name) < lowest:
                raise RllabError(f"{name} must be at least {lowest}, not {getattr(self, name)}.")
        if self.minimum_new_tokens > self.maximum_new_tokens:
            raise RllabError(
                f"minimum_new_tokens is {self.minimum_new_tokens}, more than maximum_new_tokens, "
                f"{self.maximum_new_tokens}; lower the one or raise the other."
            )
        if self.temperature < 0:
            raise RllabError(f"The temperature must be 0 (greedy) or above, not {self.temperature}.")
        if "" in self.stop_strings:
            raise RllabError("A stop string must not be empty, since that would end every text at once; leave it out.")
        if self.beams > 1 and self.stop_strings:
            raise RllabError("Beam search ends at stop tokens only; leave the stop strings out, or use one beam.")
        drawing = self.temperature not in (0, 1) or (self.top_k, self.top_p, self.min_p) != (None, None, None)
        if self.beams > 1 and drawing:
            raise RllabError("Beam search draws nothing; leave out temperature, top_k, top_p and min_p.")
        self.steps()  # they refuse what makes no sense

    def steps(self, prompt: int = 0, further: tuple[LogitsStep, ...] = ()) -> list[LogitsStep]:
        """What is done to logits before a token is drawn, in the order of Hugging Face's `generate`.

        The penalties, then temperature, top-k, top-p and min-p. What would change nothing is left out, and so is the
        temperature where decoding is greedy.

        Args:
            prompt: how many columns the prompts have.
            further: other steps, which come between.
        """
        steps = self.penalties(prompt, further)
        if self.temperature not in (0, 1):
            steps.append(Temperature(self.temperature))
        if self.top_k is not None:
            steps.append(TopK(self.top_k))
        if self.top_p is not None:
            steps.append(TopP(self.top_p))
        if self.min_p is not None:
            steps.append(MinP(self.min_p))
        return steps

    def penalties(self, prompt: int = 0, further: tuple[LogitsStep, ...] = ()) -> list[LogitsStep]:
        """What is done to logits even where nothing is drawn.

        Repetition, power, frequency and presence penalty, banned tokens, the minimum of new tokens, further steps.
        Arguments as for `steps`.
        """
        steps: list[LogitsStep] = []
        if self.repetition_penalty != 1:
            steps.append(RepetitionPenalty(self.repetition_penalty))
        if self.power_penalty != 1:
            steps.append(PowerPenalty(self.power_penalty, prompt))
        if self.frequency_penalty != 0:
            steps.append(FrequencyPenalty(self.frequency_penalty, prompt))
        if self.presence_penalty != 0:
            steps.append(PresencePenalty(self.presence_penalty, prompt))
        if self.banned_tokens:
            steps.append(BannedTokens(self.banned_tokens))
        if self.minimum_new_tokens and self.stop_tokens:
            steps.append(MinimumNewTokens(self.stop_tokens, prompt + self.minimum_new_tokens))
        return [*steps, *further]

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken each time."""
        return self.temperature == 0

    def divisor(self, length: int) -> float:
        """What the log-probability of so many new tokens is divided by for beam search's score."""
        base = float(length) if self.length_norm == "power" else (5 + length) / 6
        return float(base**self.length_penalty)
