"""Decoding: text from a language model, by drawing, greedily or by beam search."""

from language.decoding.beam import Hypotheses, beam_search
from language.decoding.config import DecodingConfig
from language.decoding.generate import generate, stream
from language.decoding.protocol import Decodable, pad_left
from language.decoding.sampling import Generated, NewTokens, Sampler
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
    apply_steps,
)
from language.decoding.text import StopStrings, TextStream

__all__ = [
    "BannedTokens",
    "Decodable",
    "DecodingConfig",
    "FrequencyPenalty",
    "Generated",
    "Hypotheses",
    "LogitsStep",
    "MinP",
    "MinimumNewTokens",
    "NewTokens",
    "PowerPenalty",
    "PresencePenalty",
    "RepetitionPenalty",
    "Sampler",
    "StopStrings",
    "Temperature",
    "TextStream",
    "TopK",
    "TopP",
    "apply_steps",
    "beam_search",
    "generate",
    "pad_left",
    "stream",
]
