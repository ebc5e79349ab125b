"""Beam search: the hypotheses of the highest log-probability, divided for their length.

The divisor is n^α as in Hugging Face's `generate`, or ((5 + n)/6)^α (Wu et al. 2016, "Google's neural machine
translation system", equation 14; Vaswani et al. 2017, section 6.1), where n counts the new tokens with the stop token.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from language.decoding.config import DecodingConfig
from language.decoding.protocol import Decodable, check_prompts
from language.decoding.steps import LogitsStep, apply_steps


@dataclass(frozen=True)
class Hypotheses:
    """The best B hypotheses of N prompts, the best first; L tokens at most."""

    tokens: Tensor
    """int64 `[N, B, L]`, without the prompts; 0 behind a hypothesis's end."""
    valid: Tensor
    """bool `[N, B, L]`, true where a token is, the stop token included; nowhere where fewer than B were found."""
    scores: Tensor
    """float `[N, B]`, log-probability over divisor; -inf where there is no hypothesis."""
    finished: Tensor
    """bool `[N, B]`, true where a stop token ended it, and not the limit of tokens."""


def beam_search(
    model: Decodable,
    tokens: Tensor,
    valid: Tensor | None,
    config: DecodingConfig,
    *,
    further: tuple[LogitsStep, ...] = (),
) -> Hypotheses:
    """The most probable continuations of prompts that a beam of hypotheses finds.

    In each step every hypothesis is continued by every token. Of the best `beams` continuations those that end are
    kept, if they are among the best that have ended; the best `beams` of those that do not end go on. As in Hugging
    Face's `generate`, logits steps are applied to log-probabilities, and the scores are sums of what they give.

    Args:
        model: what gives the probabilities, in evaluation mode. It is called in torch's inference mode.
        tokens: int64 `[N, P]`, the prompts, padded on the left.
        valid: bool `[N, P]`, true where a token is; None if there is no padding.
        config: how; `beams` may be 1.
        further: logits steps of your own.

    Raises:
        RllabError: prompts that are empty, not padded on the left, or too long with the new tokens; a model in training
            mode.
    """
    valid = check_prompts(model, tokens, valid, config.maximum_new_tokens)
    return _search(model, tokens, valid, config, config.penalties(tokens.shape[1], further))


@dataclass
class _Pool:
    """For each prompt the best hypotheses that have ended, the best first."""

    tokens: Tensor
    """int64 `[N, B, M]`."""
    scores: Tensor
    """`[N, B]`, -inf where there is none yet."""
    lengths: Tensor
    """int64 `[N, B]`."""
    finished: Tensor
    """bool `[N, B]`."""

    @classmethod
    def empty(cls, prompts: int, beams: int, longest: int, device: torch.device) -> "_Pool":
        shape = (prompts, beams)
        return cls(
            torch.zeros(*shape, longest, dtype=torch.int64, device=device),
            torch.full(shape, -torch.inf, device=device),
            torch.zeros(shape, dtype=torch.int64, device=device),
            torch.zeros(shape, dtype=torch.bool, device=device),
        )

    def add(self, rows: Tensor, tokens: Tensor, scores: Tensor, stopped: Tensor, length: int) -> None:
        """Offer hypotheses `[R, B, M]` of some prompts `[R]`; those of score -inf have not ended."""
        beams = scores.shape[1]
        merged, order = torch.cat([self.scores[rows], scores], 1).topk(beams, -1)
        lengths = torch.full_like(order, length)
        self.scores[rows] = merged
        for kept, new in ((self.lengths, lengths), (self.finished, stopped)):
            kept[rows] = torch.cat([kept[rows], new], 1).gather(1, order)
        places = order[:, :, None].expand(-1, -1, tokens.shape[2])
        self.tokens[rows] = torch.cat([self.tokens[rows], tokens], 1).gather(1, places)

    def hypotheses(self) -> Hypotheses:
        lengths = torch.where(self.scores.isfinite(), self.lengths, 0)
        longest = int(lengths.max())
        valid = torch.arange(longest, device=lengths.device) < lengths[:, :, None]
        tokens = torch.where(valid, self.tokens[:, :, :longest], 0)
        return Hypotheses(tokens, valid, self.scores.clone(), self.finished & (lengths > 0))


def _can_win(pool: _Pool, rows: Tensor, running: Tensor, length: int, config: DecodingConfig) -> Tensor:
    """Which prompts, bool `[R]`, may get a better hypothesis from those that run, whose totals are `[R, B]`."""
    worst = pool.scores[rows].amin(-1)  # -inf while there are fewer than wanted
    if config.beam_stop == "full":
        return worst.isneginf() & ~running[:, 0].isneginf()
    # A total only falls, and with α above 0 a longer hypothesis is divided by more.
    longest = config.maximum_new_tokens if config.beam_stop == "exact" and config.length_penalty > 0 else length
    return running[:, 0] / config.divisor(longest) > worst


@torch.inference_mode()
def _search(
    model: Decodable, tokens: Tensor, valid: Tensor, config: DecodingConfig, steps: list[LogitsStep]
) -> Hypotheses:
    count, prompt = tokens.shape
    beams, limit = config.beams, config.maximum_new_tokens
    device = tokens.device
    stops = torch.tensor(config.stop_tokens, dtype=torch.int64, device=device)
    logits, state = model.begin(tokens, valid, prompt + limit)
    first = torch.arange(count, device=device).repeat_interleave(beams)
    logits, state = logits[first], model.select(state, first)
    pool = _Pool.empty(count, beams, limit, device)
    rows = torch.arange(count, device=device)  # of the prompts that are searched for still
    written = torch.zeros(count, beams, prompt + limit, dtype=torch.int64, device=device)
    written[:, :, :prompt] = tokens[:, None]
    read = torch.ones(count, beams, prompt + limit, dtype=torch.bool, device=device)
    read[:, :, :prompt] = valid[:, None]
    # All beams are alike in the beginning: only the first may be continued.
    running = torch.full((count, beams), -torch.inf, device=device)
    running[:, 0] = 0
    for length in range(1, limit + 1):
        column = prompt + length - 1
        flat = written[:, :, :column].flatten(0, 1), read[:, :, :column].flatten(0, 1)
        log_probabilities = apply_steps(steps, *flat, logits.float().log_softmax(-1))
        vocabulary = log_probabilities.shape[-1]
        total = (log_probabilities.view(len(rows), beams, -1) + running[:, :, None]).flatten(1)
        # So many that enough are left to go on with if all others end.
        considered = min(max(2, 1 + len(stops)) * beams, total.shape[1])
        best, places = total.topk(considered, -1)
        beam, token = places // vocabulary, places % vocabulary
        candidates = written.gather(1, beam[:, :, None].expand(-1, -1, written.shape[2]))
        candidates[:, :, column] = token
        stopped = torch.isin(token, stops)
        ends = stopped | (length == limit)
        # An end that is not among the best candidates must not count: it would not be a hypothesis of this beam.
        ended = torch.where(ends, best, -torch.inf)[:, :beams] / config.divisor(length)
        pool.add(rows, candidates[:, :beams, prompt:], ended, stopped[:, :beams], length)
        best, order = torch.where(ends, -torch.inf, best).topk(beams, -1)
        running, token, beam = best, token.gather(1, order), beam.gather(1, order)
        written = candidates.gather(1, order[:, :, None].expand(-1, -1, written.shape[2]))
        going_on = _can_win(pool, rows, running, length, config)
        if length == limit or not bool(going_on.any()):
            break
        chosen = (torch.arange(len(rows), device=device)[:, None] * beams + beam)[going_on].flatten()
        if not bool(going_on.all()):
            rows, running, written, read, token = (
                part[going_on] for part in (rows, running, written, read, token)
            )  # fmt: skip
        if not torch.equal(chosen, torch.arange(len(logits), device=device)):
            state = model.select(state, chosen)
        logits = model.step(token.flatten(), state)
    return pool.hypotheses()
