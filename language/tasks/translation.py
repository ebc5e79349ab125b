"""Translating texts with a trained model, and BLEU (Vaswani et al. 2017, section 6.1)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from envs.errors import RllabError
from language.decoding import Decodable, DecodingConfig, generate
from language.models.padding import pad_right
from language.tokenizers.tokenizer import Tokenizer
from language.training.translation import begin_and_end

PAPERS_DECODING = DecodingConfig(beams=4, length_penalty=0.6, length_norm="gnmt")
"""Beam search with 4 hypotheses and Wu et al.'s length penalty, α = 0.6 (section 6.1)."""
MORE_THAN_THE_SOURCE = 50
"""A translation has at most so many tokens more than its source (section 6.1)."""


@runtime_checkable
class TranslationModel(Protocol):
    """A model that translates: the Transformer, or the LSTM with attention."""

    training: bool
    """Whether it is in training mode."""

    def bound(self, source: Tensor, valid: Tensor | None = None) -> Decodable:
        """The decoder for these sources `[N, S]`, padded on the right."""


@dataclass(frozen=True)
class Translator:
    """A model, its tokenizer, and how it decodes."""

    model: TranslationModel
    """In evaluation mode."""
    tokenizer: Tokenizer
    """Of both languages, with a begin and an end token."""
    decoding: DecodingConfig = PAPERS_DECODING
    """Its `maximum_new_tokens` and `stop_tokens` are set for each batch."""
    batch_rows: int = 32
    """Texts at a time."""
    longest: int | None = None
    """Of longer texts only so many tokens are read, with the end token; None refuses what the model cannot read."""
    device: torch.device | str = "cpu"
    """Where the model is."""

    def translate(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> list[str]:
        """The translation of each text; an empty text's is empty.

        Texts of about equal lengths are translated together. The limit of a batch is that of its longest text.

        Args:
            texts: what to translate.
            progress: told how many texts are done, and how many there are.

        Raises:
            RllabError: a text is longer than the model's context, or the tokenizer lacks a begin or end token.
        """
        begin, end = begin_and_end(self.tokenizer)
        kept = None if self.longest is None else self.longest - 1
        sources = [[*ids[:kept], end] for ids in self.tokenizer.encode_batch(list(texts))]
        order = sorted((number for number, text in enumerate(texts) if text.strip()), key=lambda n: len(sources[n]))
        translated = [""] * len(texts)
        for first in range(0, len(order), self.batch_rows):
            chosen = order[first : first + self.batch_rows]
            found = self._batch([sources[number] for number in chosen], begin, end)
            for number, text in zip(chosen, found, strict=True):
                translated[number] = text
            if progress is not None:
                progress(first + len(chosen), len(order))
        return translated

    def _batch(self, sources: list[list[int]], begin: int, end: int) -> list[str]:
        source, valid = pad_right(sources, self.device)
        with torch.inference_mode():
            model = self.model.bound(source, valid)
        limit = source.shape[1] + MORE_THAN_THE_SOURCE
        if model.context is not None:
            limit = min(limit, model.context - 1)
        config = replace(self.decoding, maximum_new_tokens=limit, stop_tokens=(end,))
        prompts = torch.full((len(sources), 1), begin, device=source.device)
        generated = generate(model, prompts, config=config)
        rows = (row[kept].tolist() for row, kept in zip(generated.tokens.cpu(), generated.valid.cpu(), strict=True))
        return [self.tokenizer.decode(row).strip() for row in rows]


@dataclass(frozen=True)
class BLEU:
    """Papineni et al. 2002, as sacreBLEU computes it (Post 2018)."""

    score: float
    """From 0 to 100."""
    brevity_penalty: float
    """1 if translations are at least as long as their references together."""
    signature: str
    """How it was computed; to be published with it."""


def bleu(translations: Sequence[str], references: Sequence[str]) -> BLEU:
    """BLEU of a corpus, with case, by sacreBLEU's own tokenizer (13a).

    Raises:
        RllabError: sacrebleu is not installed, there is nothing to compare, or not as much on both sides.
    """
    if not translations or len(translations) != len(references):
        raise RllabError(
            f"BLEU compares as many translations as references, at least one; there are {len(translations)} and "
            f"{len(references)}."
        )
    try:
        metrics = import_module("sacrebleu.metrics")
    except ImportError as error:
        raise RllabError("BLEU needs the package sacrebleu; `pip install sacrebleu`.") from error
    metric = metrics.BLEU()
    found = metric.corpus_score(list(translations), [list(references)])
    return BLEU(float(found.score), float(found.bp), str(metric.get_signature()))
