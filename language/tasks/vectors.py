"""Vectors of texts from a trained model: the mean of its last layer over the tokens, or the state of one of them.

BERT's first token, [CLS], stands for a whole input (Devlin et al. 2018, section 3); GPT's last one has seen all others.
Without fine-tuning to it the mean is the better one of the two for comparing texts (Reimers, Gurevych 2019, 1908.10084,
table 1).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.awd_lstm import AWDLSTM
from language.models.bert import BERT, sentence_vectors
from language.models.bert_input import Markers
from language.models.gpt import GPT
from language.models.padding import lengths_of, pad_right, reversed_rows
from language.tokenizers.tokenizer import Tokenizer

Pooling: TypeAlias = Literal["mean", "first", "last"]
"""The mean over all tokens, the markers of BERT included; or the state of the first token, BERT's [CLS]; or of the
last, of models that read from left to right."""
_UNLIMITED = 2**31
"""Tokens, of a model without positions."""


class TextEncoder(NamedTuple):
    """What a kind of model has to say of itself to give vectors."""

    features: Callable[[Tensor, Tensor], Tensor]
    """Tokens `[N, T]`, padded on the right, and bool `[N, T]` where they are, to the last layer's `[N, T, width]`."""
    context: int
    """The longest sequence, in tokens."""
    around: tuple[tuple[int, ...], tuple[int, ...]]
    """Ids before and after each text."""
    one_token: Pooling
    """Which single token has seen the others."""


def vectors(
    model: nn.Module, tokenizer: Tokenizer, texts: Sequence[str], pooling: Pooling = "mean", *, batch_size: int = 32,
    longest: int | None = None, device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:  # fmt: skip
    """A vector of each text, float32 `[n, width]`.

    Texts of about equal lengths are read together; with whom a text is read makes no difference to its vector. Of texts
    that are longer than the model can read, the beginning is read.

    Args:
        model: a BERT, with or without something on top, a GPT, or an AWD-LSTM.
        tokenizer: the one that it was trained with.
        texts: any.
        pooling: how tokens become one vector.
        batch_size: texts at a time.
        longest: tokens of a text at most, the markers included; the model's context if it is not given.
        device: where the model is.
        progress: told how many texts are done, and how many there are.

    Raises:
        RllabError: the model or the pooling does not fit, the tokenizer lacks [CLS] or [SEP], or a text has no tokens.
    """
    encoder = encoder_of(model, tokenizer)
    if pooling not in ("mean", encoder.one_token):
        name = type(model).__name__
        known = " and ".join(option for option in get_args(Pooling) if option in ("mean", encoder.one_token))
        raise RllabError(f"The pooling '{pooling}' makes no sense for a {name}; there are {known}.")
    before, after = encoder.around
    room = min(longest or encoder.context, encoder.context) - len(before) - len(after)
    if room < 1:
        raise RllabError(f"longest must leave room for a token, and {longest} does not.")
    rows = [[*before, *ids[:room], *after] for ids in tokenizer.encode_batch(list(texts))]
    for number, row in enumerate(rows, 1):
        if not row:
            raise RllabError(f"Text {number:,} has no tokens, so that it has no vector; leave it out.")
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    found: list[Tensor] = []
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for first in range(0, len(order), batch_size):
                tokens, valid = pad_right([rows[number] for number in order[first : first + batch_size]], device)
                found.append(_pooled(encoder.features(tokens, valid).float(), valid, pooling).cpu())
                if progress is not None:
                    progress(first + len(tokens), len(rows))
    finally:
        model.train(training)
    together = np.empty((len(rows), found[0].shape[1] if found else 0), np.float32)
    together[order] = torch.cat(found).numpy() if found else together
    return together


def _pooled(features: Tensor, valid: Tensor, pooling: Pooling) -> Tensor:
    if pooling == "mean":
        return sentence_vectors(features, valid)
    if pooling == "first":
        return features[:, 0]
    return features[torch.arange(len(features), device=features.device), lengths_of(valid) - 1]


def encoder_of(model: nn.Module, tokenizer: Tokenizer) -> TextEncoder:
    """How a model reads texts. Raises RllabError if it gives no vectors, or the tokenizer lacks [CLS] or [SEP]."""
    bert = model if isinstance(model, BERT) else getattr(model, "bert", None)
    if isinstance(bert, BERT):
        markers = Markers.of(tokenizer)
        around = ((markers.classifier,), (markers.separator,))
        return TextEncoder(bert, bert.config.context, around, "first")
    if isinstance(model, GPT):
        return TextEncoder(model.features, model.context, ((), ()), "last")
    if isinstance(model, AWDLSTM):
        backward = model.config.backward
        return TextEncoder(partial(_lstm_outputs, model), _UNLIMITED, ((), ()), "first" if backward else "last")
    raise RllabError(f"A {type(model).__name__} gives no vectors of texts; give a BERT, a GPT or an AWD-LSTM.")


def _lstm_outputs(model: AWDLSTM, tokens: Tensor, valid: Tensor) -> Tensor:
    """Of the last LSTM, in reading order, whichever way the model reads."""
    backward = model.config.backward
    outputs: Tensor = model.encoder(reversed_rows(tokens, valid) if backward else tokens).raw_outputs[-1]
    return reversed_rows(outputs, valid) if backward else outputs
