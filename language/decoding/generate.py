"""Generate: tokens or texts for a batch of prompts, or one text piece by piece."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from envs.errors import RllabError
from language.decoding.beam import beam_search
from language.decoding.config import DecodingConfig
from language.decoding.protocol import Decodable, pad_left
from language.decoding.sampling import Generated, Sampler
from language.decoding.steps import LogitsStep
from language.decoding.text import StopStrings, TextStream

if TYPE_CHECKING:
    from language.tokenizers.tokenizer import Tokenizer


def generate(
    model: Decodable,
    tokens: Tensor,
    valid: Tensor | None = None,
    config: DecodingConfig | None = None,
    *,
    tokenizer: "Tokenizer | None" = None,
    seeds: Sequence[int] | None = None,
    further: tuple[LogitsStep, ...] = (),
    log_probabilities: bool = False,
) -> Generated:
    """Continue a batch of prompts.

    Args:
        model: what to generate with, in evaluation mode. It is called in torch's inference mode.
        tokens: int64 `[N, P]`, the prompts, padded on the left (`pad_left` does it).
        valid: bool `[N, P]`, true where a token is; None if there is no padding.
        config: how; by default tokens are drawn from the model's own distribution, 100 of them.
        tokenizer: for texts, and for stop strings, which need it.
        seeds: of each row's random numbers, so that a row is the same in every batch; by default they are made from the
            configuration's seed and the row's number.
        further: logits steps of your own, between the penalties and the temperature.
        log_probabilities: whether to keep those of the tokens; beam search has scores instead.

    Returns:
        What was generated; of beam search, the best hypothesis.

    Raises:
        RllabError: prompts that are empty, not padded on the left, or too long with the new tokens; ids that the model
            does not have, or more ids than the tokenizer has; another number of seeds than of rows; stop strings
            without a tokenizer; a model in training mode; no token that can be drawn.
    """
    config = config or DecodingConfig()
    _check_ids(model, config, tokenizer)
    if config.beams > 1:
        found = beam_search(model, tokens, valid, config, further=further)
        generated = Generated(
            found.tokens[:, 0], found.valid[:, 0], found.finished[:, 0], scores=found.scores[:, 0]
        )  # fmt: skip
        return generated if tokenizer is None else _with_texts(generated, tokens, valid, config, tokenizer)
    sampler = Sampler(
        model, tokens, valid, config, seeds=seeds, further=further, log_probabilities=log_probabilities
    )  # fmt: skip
    if tokenizer is None or not config.stop_strings:
        sampler.run()
        generated = sampler.result()
        return generated if tokenizer is None else _with_texts(generated, tokens, valid, config, tokenizer)
    writers = [_Writer(tokenizer, prompt, config) for prompt in _rows(tokens, valid)]
    texts = [""] * len(writers)
    while not sampler.is_done:
        step = sampler.advance()
        for row, token, is_new in zip(*(part.tolist() for part in step), strict=True):
            if is_new:
                texts[row] += writers[row].push(token)
        sampler.end(torch.tensor([writers[row].is_ended for row in step.rows.tolist()], device=tokens.device))
    texts = [text + writer.finish() for text, writer in zip(texts, writers, strict=True)]
    return replace(sampler.result(), texts=tuple(texts))


def stream(
    model: Decodable,
    tokenizer: "Tokenizer",
    prompt: Sequence[int],
    config: DecodingConfig | None = None,
    *,
    further: tuple[LogitsStep, ...] = (),
) -> Iterator[str]:
    """The text that continues a prompt, piece by piece as soon as it is certain.

    A piece never ends within a character, is not changed by what follows, and has nothing of a stop string. All pieces
    together are the text that `generate` gives for the prompt alone.

    Args:
        model: what to generate with.
        tokenizer: what makes text of tokens.
        prompt: ids, at least one.
        config: how; no beam search, whose text is known at its end only.
        further: logits steps of your own, between the penalties and the temperature.

    Raises:
        RllabError: see `generate`; or beam search was asked for.
    """
    config = config or DecodingConfig()
    _check_ids(model, config, tokenizer)
    if config.beams > 1:
        raise RllabError("The text of beam search is known at its end only and cannot be streamed; use one beam.")
    tokens, valid = pad_left([prompt])
    device = next(iter(_parameters(model)), tokens).device
    sampler = Sampler(model, tokens.to(device), valid.to(device), config, further=further)
    return _pieces(sampler, _Writer(tokenizer, prompt, config))


def _pieces(sampler: Sampler, writer: "_Writer") -> Iterator[str]:
    while not sampler.is_done:
        piece = writer.push(int(sampler.advance().tokens))
        if piece:
            yield piece
        if writer.is_ended:
            break
    if rest := writer.finish():
        yield rest


class _Writer:
    """The text of one row: what its tokens add to the prompt's, until a stop token or a stop string."""

    def __init__(self, tokenizer: "Tokenizer", prompt: Sequence[int], config: DecodingConfig) -> None:
        self._text, self._stop = TextStream(tokenizer, prompt), StopStrings(config.stop_strings)
        self._stop_tokens = frozenset(config.stop_tokens)
        self.is_ended = False

    def push(self, token: int) -> str:
        if token in self._stop_tokens:
            self.is_ended = True
            return ""
        text = self._stop.push(self._text.push(token))
        self.is_ended = self._stop.is_found
        return text

    def finish(self) -> str:
        text = self._stop.push(self._text.finish())
        return text + self._stop.finish()


def _with_texts(
    generated: Generated, tokens: Tensor, valid: Tensor | None, config: DecodingConfig, tokenizer: "Tokenizer"
) -> Generated:  # fmt: skip
    """With the texts, each decoded at once."""
    texts = []
    for prompt, new in zip(_rows(tokens, valid), _rows(generated.tokens, generated.valid), strict=True):
        text = TextStream(tokenizer, prompt)
        if new and new[-1] in config.stop_tokens:
            new = new[:-1]
        texts.append(text.push(*new) + text.finish())
    return replace(generated, texts=tuple(texts))


def _rows(tokens: Tensor, valid: Tensor | None) -> list[list[int]]:
    if valid is None:
        return [list(row) for row in tokens.tolist()]
    return [row[kept].tolist() for row, kept in zip(tokens.cpu(), valid.cpu(), strict=True)]


def _check_ids(model: Decodable, config: DecodingConfig, tokenizer: "Tokenizer | None") -> None:
    for name in ("stop_tokens", "banned_tokens"):
        for token in getattr(config, name):
            if not 0 <= token < model.vocabulary_size:
                raise RllabError(
                    f"{name} has {token}, but the model's tokens go from 0 to {model.vocabulary_size - 1}; correct it."
                )
    if config.stop_strings and tokenizer is None:
        raise RllabError("Stop strings are looked for in text; give the tokenizer, or use stop tokens.")
    if tokenizer is not None and len(tokenizer) < model.vocabulary_size:
        raise RllabError(
            f"The tokenizer has {len(tokenizer)} tokens and the model {model.vocabulary_size}; use the tokenizer that "
            "the model was trained with."
        )


def _parameters(model: Decodable) -> Iterator[Tensor]:
    parameters = getattr(model, "parameters", None)
    return iter(()) if parameters is None else parameters()
