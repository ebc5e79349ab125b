"""The loop that generates tokens, greedily or by drawing, for batches of prompts of different lengths."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from envs.errors import RllabError
from language.decoding.config import DecodingConfig
from language.decoding.noise import RowNoise, draw_tokens, row_seeds
from language.decoding.protocol import Decodable, check_prompts
from language.decoding.ranking import largest
from language.decoding.steps import LogitsStep, apply_steps


@dataclass(frozen=True)
class Generated:
    """What was generated for N prompts, L tokens at most."""

    tokens: Tensor
    """int64 `[N, L]`, without the prompts; 0 behind a row's end."""
    valid: Tensor
    """bool `[N, L]`, true where a token was generated; the one that ended the row is the last."""
    finished: Tensor
    """bool `[N]`, true where a stop token or stop string ended the row, and not the limit of tokens."""
    log_probabilities: Tensor | None = None
    """float `[N, L]`, under the distribution that the token was drawn from, which is that after penalties, temperature
    and truncation, and has one token only where decoding is greedy. 0 behind a row's end. None unless asked for."""
    model_log_probabilities: Tensor | None = None
    """float `[N, L]`, under the softmax of the model's logits over the temperature, without penalties and with nothing
    truncated; greedy decoding takes 1 as the temperature. 0 behind a row's end. None unless asked for."""
    scores: Tensor | None = None
    """float `[N]`, of beam search: the log-probability, after penalties, over the divisor of its length."""
    texts: tuple[str, ...] | None = None
    """What continues each prompt's text, without a stop token and what a stop string cuts off. None without tokenizer.
    """


class NewTokens(NamedTuple):
    """What one step of a `Sampler` adds."""

    rows: Tensor
    """int64 `[R]`, which prompts these are."""
    tokens: Tensor
    """int64 `[R]`, a token for each."""
    is_new: Tensor
    """bool `[R]`, true where the row had not ended before; elsewhere the token is none of its text."""


class Sampler:
    """A generation that is going on: each `advance` adds a token to every row that has not ended.

    Rows that have ended leave the batch once they are half of it, so that the model does not go on computing them.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: Decodable,
        tokens: Tensor,
        valid: Tensor | None,
        config: DecodingConfig,
        *,
        seeds: Sequence[int] | None = None,
        further: tuple[LogitsStep, ...] = (),
        log_probabilities: bool = False,
    ) -> None:
        """Read the prompts; arguments and errors as for `generate`."""
        valid = check_prompts(model, tokens, valid, config.maximum_new_tokens)
        count, self._prompt = tokens.shape
        if seeds is None:
            seeds = row_seeds(config.seed, 0 if config.is_greedy else count)
        elif len(seeds) != count:
            raise RllabError(f"There are {len(seeds)} seeds for {count} prompts; give one a row.")
        device = tokens.device
        self._model, self._config = model, config
        self._noise = None if config.is_greedy else RowNoise(seeds, device)
        self._steps = (config.penalties if config.is_greedy else config.steps)(self._prompt, further)
        self._is_plain = len(self._steps) == (config.temperature not in (0, 1))
        self._stop_tokens = torch.tensor(config.stop_tokens, dtype=torch.int64, device=device)
        columns = self._prompt + config.maximum_new_tokens
        self._tokens = torch.zeros(count, columns, dtype=torch.int64, device=device)
        self._valid = torch.zeros(count, columns, dtype=torch.bool, device=device)
        self._tokens[:, : self._prompt], self._valid[:, : self._prompt] = tokens, valid
        self._kept = torch.zeros(count, 2, columns, device=device) if log_probabilities else None
        self._column = self._prompt
        # Which prompts are in the batch still, and which of these have not ended; of all prompts, which are finished.
        self._rows = torch.arange(count, device=device)
        self._running = torch.ones(count, dtype=torch.bool, device=device)
        self._finished = torch.zeros(count, dtype=torch.bool, device=device)
        self._alive = count
        self._left: list[_Part] = []
        self._logits, self._state = model.begin(tokens, valid, columns)
        self._last: Tensor | None = None

    @property
    def is_done(self) -> bool:
        """Whether all rows have ended, or have as many tokens as they may."""
        return self._column == self._tokens.shape[1] or self._alive == 0

    @torch.inference_mode()
    def run(self) -> None:
        """Go on until all is done. Raises RllabError if no token can be drawn."""
        while not self.is_done:
            self._advance()

    @torch.inference_mode()
    def advance(self) -> NewTokens:
        """One more token for each row that has not ended. Raises RllabError if none can be drawn."""
        return self._advance()

    def _advance(self) -> NewTokens:
        if self._last is not None:
            self._shrink()
            self._logits = self._model.step(self._last, self._state)
        column, running = self._column, self._running
        chosen, kept = self._choose(self._logits.float())
        all_run = self._alive == len(self._rows)
        self._tokens[:, column] = chosen if all_run else torch.where(running, chosen, 0)
        self._valid[:, column] = True if all_run else running
        if self._kept is not None and kept is not None:
            self._kept[:, :, column] = kept if all_run else torch.where(running[:, None], kept, 0.0)
        self._column += 1
        self._last = chosen
        if len(self._stop_tokens):
            self.end(torch.isin(chosen, self._stop_tokens))
        return NewTokens(self._rows, chosen, running)

    @torch.inference_mode()
    def end(self, ended: Tensor) -> None:
        """End rows after a step: bool `[R]`, for the rows of that step. Those that have ended already are let be."""
        self._finished[self._rows] |= ended & self._running
        self._running = self._running & ~ended
        self._alive = int(self._running.sum())

    def result(self) -> Generated:
        """What has been generated so far."""
        # Made outside of the inference mode, so that they may take part in what is differentiated.
        count, length = len(self._finished), self._column - self._prompt
        tokens = torch.zeros(count, length, dtype=torch.int64, device=self._tokens.device)
        valid = torch.zeros_like(tokens, dtype=torch.bool)
        kept = None if self._kept is None else torch.zeros(count, 2, length, device=self._tokens.device)
        for part in [*self._left, self._part()]:
            here = part.tokens.shape[1]
            tokens[part.rows, :here], valid[part.rows, :here] = part.tokens, part.valid
            if kept is not None and part.kept is not None:
                kept[part.rows, :, :here] = part.kept
        drawn, own = (None, None) if kept is None else kept.unbind(1)
        return Generated(tokens, valid, self._finished.clone(), drawn, own)

    def _part(self) -> "_Part":
        new = slice(self._prompt, self._column)
        kept = None if self._kept is None else self._kept[:, :, new]
        return _Part(self._rows, self._tokens[:, new], self._valid[:, new], kept)

    def _choose(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens `[R]` and, if they are kept, their log-probabilities `[R, 2]`: as drawn, and the model's."""
        changed = logits
        if self._steps:
            changed = apply_steps(
                self._steps, self._tokens[:, : self._column], self._valid[:, : self._column], logits
            )  # fmt: skip
        if self._noise is None:
            chosen = largest(changed)
            drawn = torch.zeros(len(chosen), device=logits.device)
        else:
            probabilities = changed.softmax(-1)
            chosen = draw_tokens(probabilities, self._noise.draw())
            drawn = _at(probabilities, chosen).log() if self._kept is not None else probabilities
        if self._kept is None:
            return chosen, None
        if self._noise is not None and self._is_plain:
            return chosen, torch.stack([drawn, drawn], 1)
        own = _at((logits / (self._config.temperature or 1)).log_softmax(-1), chosen)
        return chosen, torch.stack([drawn, own], 1)

    def _shrink(self) -> None:
        """Leave rows that have ended out of the batch, once they are half of it."""
        assert self._last is not None
        if 2 * self._alive > len(self._rows):
            return
        self._left.append(self._part())
        places = self._running.nonzero()[:, 0]
        self._state = self._model.select(self._state, places)
        self._rows, self._running, self._last = self._rows[places], self._running[places], self._last[places]
        self._tokens, self._valid = self._tokens[places], self._valid[places]
        self._kept = None if self._kept is None else self._kept[places]
        if self._noise is not None:
            self._noise.select(places)


@dataclass(frozen=True)
class _Part:
    """What was generated for some rows until some of them left the batch."""

    rows: Tensor
    tokens: Tensor
    valid: Tensor
    kept: Tensor | None


def _at(values: Tensor, chosen: Tensor) -> Tensor:
    """The value `[R]` of the chosen token of each row."""
    return values.gather(1, chosen[:, None])[:, 0]
