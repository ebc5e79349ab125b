"""Where a model looks in a text: attention's weights with the tokens that they are between."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.attention_maps import recorded_attention
from language.models.bert import BERTForPretraining
from language.models.bert_input import Markers
from language.models.gpt import GPT
from language.models.transformer import Transformer
from language.tokenizers.tokenizer import Tokenizer
from language.training.translation import begin_and_end


@dataclass(frozen=True)
class AttentionMap:
    """One kind of attention of a model, in one text."""

    kind: str
    """`self-attention`, or of a Transformer `encoder`, `decoder` or `decoder to encoder`."""
    queries: list[str]
    """The Q tokens that look, as they are to be read."""
    keys: list[str]
    """The K tokens that are looked at."""
    weights: Tensor
    """`[layers, heads, Q, K]`; each row of K sums to 1."""


def attention_of_text(
    model: nn.Module, tokenizer: Tokenizer, text: str, target: str | None = None
) -> list[AttentionMap]:  # fmt: skip
    """Run a model on a text, and tell where it looks.

    Args:
        model: a GPT (also with experts), a `BERTForPretraining` or a `Transformer`, in evaluation mode.
        tokenizer: its own.
        text: GPT reads it as it is, BERT between its marks, a Transformer translates it.
        target: of a Transformer, its translation, for the decoder's attention too; of BERT, the second segment.

    Returns:
        One map; with a target of a Transformer three.

    Raises:
        RllabError: the model has no attention, the tokenizer lacks a mark, there are no tokens or too many.
    """
    device = next(model.parameters()).device
    with torch.no_grad(), recorded_attention(model) as weights:
        if isinstance(model, Transformer):
            return _of_transformer(model, tokenizer, text, target, device, weights)
        if isinstance(model, GPT):
            if target is not None:
                raise RllabError("A GPT reads one text; leave the target out.")
            ids = _ids(tokenizer, text)
            model(torch.tensor([ids], device=device))
        elif isinstance(model, BERTForPretraining):
            second = None if target is None else _ids(tokenizer, target)
            packed = Markers.of(tokenizer).pack(_ids(tokenizer, text), second)
            ids = packed.tokens
            model(torch.tensor([ids], device=device), None, torch.tensor([packed.segments], device=device))
        else:
            raise RllabError(f"A {type(model).__name__} has no attention to show; give a GPT, BERT or Transformer.")
    readable = _readable(tokenizer, ids)
    return [AttentionMap("self-attention", readable, readable, _stacked(weights, ""))]


def _of_transformer(
    model: Transformer, tokenizer: Tokenizer, text: str, target: str | None, device: torch.device,
    weights: dict[str, Tensor],
) -> list[AttentionMap]:  # fmt: skip
    begin, end = begin_and_end(tokenizer)
    ids = [*_ids(tokenizer, text), end]
    source, sources = torch.tensor([ids], device=device), _readable(tokenizer, ids)
    if target is None:
        model.encode(source)
        return [AttentionMap("encoder", sources, sources, _stacked(weights, "encoder."))]
    ids = [begin, *_ids(tokenizer, target)]
    model(source, torch.tensor([ids], device=device))
    targets = _readable(tokenizer, ids)
    return [
        AttentionMap("encoder", sources, sources, _stacked(weights, "encoder.")),
        AttentionMap("decoder", targets, targets, _stacked(weights, "decoder.", "attention")),
        AttentionMap("decoder to encoder", targets, sources, _stacked(weights, "decoder.", "cross")),
    ]


def _stacked(weights: dict[str, Tensor], start: str, end: str = "attention") -> Tensor:
    """The weights of a run on one row, from the modules so named."""
    return torch.cat([
        found.float().cpu() for name, found in weights.items() if name.startswith(start) and name.endswith(end)
    ])  # fmt: skip


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids = tokenizer.ids(text)
    if not ids:
        raise RllabError("The text has no tokens; give some words.")
    return ids


def _readable(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    """Each token as text, with spaces that can be seen; as the vocabulary writes it where it is no whole character."""
    shown = []
    for token_id in ids:
        text = tokenizer.decode([token_id], keep_special=True)
        whole = text.replace(" ", "␣").replace("\n", "⏎")
        shown.append(whole if text and "�" not in text else tokenizer.tokens[token_id])
    return shown
