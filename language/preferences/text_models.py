"""What a language model must offer to be a policy, and how the models of `language.models` offer it.

Rows are a prompt `[P]`, padded on the left, and a response `[T]`, padded on the right. A causal model reads both as one
sequence; a Transformer with an encoder reads the prompt as its source and writes the response as its target; an LSTM
reads rows from their first token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.decoding import Decodable
from language.models.attention import AttentionMask
from language.models.awd_lstm import AWDLSTM
from language.models.causal_lm import CausalLM
from language.models.gpt import GPT
from language.models.padding import aligned_left, lengths_of
from language.models.transformer import Transformer
from language.tokenizers.pretrained import PretrainedTokenizer
from language.tokenizers.tokenizer import Tokenizer

Continued = TypeVar("Continued", bound=Any)


class TextModel(Protocol):
    """A language model as a policy needs it."""

    @property
    def module(self) -> nn.Module:
        """Its weights."""

    @property
    def width(self) -> int:
        """Numbers of a feature."""

    @property
    def context(self) -> int | None:
        """The longest sequence of prompt and response together; None where there is no limit."""

    @property
    def continues(self) -> bool:
        """Whether a response continues the prompt's text, or is a text of its own."""

    def prompt(self, ids: Sequence[int]) -> list[int]:
        """The ids of a prompt's text with what the model expects around them."""

    def writer(self, tokens: Tensor, valid: Tensor) -> tuple[Decodable, Tensor, Tensor]:
        """What generates responses to prompts `[N, P]`, and the tokens `[N, S]` that it begins with, and their mask."""

    def features(self, tokens: Tensor, valid: Tensor, prompt: int) -> Tensor:
        """What chooses each token of the response: `[N, T, width]`, for `[N, P + T]` with P = `prompt`.

        Column t knows the prompt and the first t tokens of the response. What it has where `valid` `[N, P + T]` is
        False means nothing, and changes nothing elsewhere.
        """

    def output(self) -> tuple[Tensor, Tensor | None]:
        """The matrix `[V, width]` and the bias `[V]` that make logits of features."""

    def lower(self, layers: int) -> list[nn.Parameter]:
        """The parameters of the embeddings and of so many layers from below. Raises RllabError if there are fewer."""


@dataclass(frozen=True)
class _Continuing(Generic[Continued]):
    """A model that reads prompt and response as one sequence."""

    module: Continued
    continues = True

    def prompt(self, ids: Sequence[int]) -> list[int]:
        """As it is."""
        return list(ids)

    def writer(self, tokens: Tensor, valid: Tensor) -> tuple[Decodable, Tensor, Tensor]:
        """The model itself, which begins with the prompts."""
        return self.module, tokens, valid

    def features(self, tokens: Tensor, valid: Tensor, prompt: int) -> Tensor:
        """See `TextModel`."""
        # No token looks at padding behind it, so no mask is needed.
        inputs, places = _from_first_token(tokens, valid, prompt)
        return _at(self._features(inputs), places)

    def _features(self, tokens: Tensor) -> Tensor:
        """`[N, L, width]` of whole rows `[N, L]`."""
        return cast(Tensor, self.module.features(tokens))


@dataclass(frozen=True)
class CausalText(_Continuing[GPT]):
    """A GPT, or another model of `language.models` that has its parts."""

    @property
    def width(self) -> int:
        """See `TextModel`."""
        return self.module.config.width

    @property
    def context(self) -> int | None:
        """See `TextModel`."""
        return self.module.config.context

    def output(self) -> tuple[Tensor, Tensor | None]:
        """The token embeddings."""
        return self.module.tokens.weight, None

    def lower(self, layers: int) -> list[nn.Parameter]:
        """Embeddings (and with them the output, which is tied to them) and blocks."""
        _check_layers(layers, self.module.config.layers)
        blocks = [parameter for block in self.module.blocks[:layers] for parameter in block.parameters()]
        return [*self.module.tokens.parameters(), *self.module.positions.parameters(), *blocks]


@dataclass(frozen=True)
class TransformersText(_Continuing[CausalLM]):
    """A causal model of `transformers`."""

    prefix: tuple[int, ...] = ()
    """What begins every text that it was trained on, such as a begin token."""

    @property
    def width(self) -> int:
        """See `TextModel`."""
        return self.module.width

    @property
    def context(self) -> int | None:
        """See `TextModel`."""
        return self.module.context

    def prompt(self, ids: Sequence[int]) -> list[int]:
        """Behind the prefix."""
        begins = tuple(ids[: len(self.prefix)]) == self.prefix
        return list(ids) if begins else [*self.prefix, *ids]

    def output(self) -> tuple[Tensor, Tensor | None]:
        """The head of the language model."""
        return self.module.output()

    def lower(self, layers: int) -> list[nn.Parameter]:
        """See `CausalLM.lower`."""
        return self.module.lower(layers)


@dataclass(frozen=True)
class RecurrentText(_Continuing[AWDLSTM]):
    """An AWD-LSTM that reads forwards."""

    def __post_init__(self) -> None:
        if self.module.config.backward:
            raise RllabError("A backward AWD-LSTM says what comes before a text and writes none; give a forward one.")

    @property
    def width(self) -> int:
        """See `TextModel`."""
        return self.module.config.widths[-1]

    @property
    def context(self) -> int | None:
        """No sequence is too long."""
        return None

    def _features(self, tokens: Tensor) -> Tensor:
        return cast(Tensor, self.module.encoder(tokens).dropped_outputs[-1])

    def output(self) -> tuple[Tensor, Tensor | None]:
        """The softmax's matrix and bias."""
        return self.module.softmax, self.module.bias

    def lower(self, layers: int) -> list[nn.Parameter]:
        """The embedding (and with it the output where they are tied) and LSTMs."""
        embedding, *lstms = self.module.encoder.layer_groups()
        _check_layers(layers, len(lstms))
        return [*embedding, *(parameter for group in lstms[:layers] for parameter in group)]


@dataclass(frozen=True)
class TranslatingText:
    """A Transformer: the prompt is its source, and the response what it writes of it."""

    module: Transformer
    begin: int
    """The id of the token that begins a target."""
    end: int
    """The id of the token that ends a source."""
    continues = False

    @property
    def width(self) -> int:
        """See `TextModel`."""
        return self.module.config.width

    @property
    def context(self) -> int | None:
        """Source and target have one each, so together they may be as long as either and still fit."""
        return self.module.config.context

    def prompt(self, ids: Sequence[int]) -> list[int]:
        """With the end token, as in training."""
        return [*ids, self.end]

    def writer(self, tokens: Tensor, valid: Tensor) -> tuple[Decodable, Tensor, Tensor]:
        """The decoder for these sources, which begins with the begin token."""
        begin = torch.full((len(tokens), 1), self.begin, device=tokens.device)
        writer = self.module.bound(aligned_left(tokens, valid), aligned_left(valid, valid))
        return writer, begin, torch.ones_like(begin, dtype=torch.bool)

    def features(self, tokens: Tensor, valid: Tensor, prompt: int) -> Tensor:
        """See `TextModel`."""
        model, source_valid = self.module, valid[:, :prompt]
        source, source_valid = aligned_left(tokens[:, :prompt], source_valid), aligned_left(source_valid, source_valid)
        begin = torch.full((len(tokens), 1), self.begin, device=tokens.device)
        target = torch.cat([begin, tokens[:, prompt:-1]], 1)
        memory = model.memory(model.encode(source, source_valid))
        x = model.embedded_at(target, torch.arange(target.shape[1], device=tokens.device)[None])
        looking = AttentionMask.of(source_valid)
        for block, looked_at in zip(model.decoder, memory, strict=True):
            x = block(x, AttentionMask(causal=True), looked_at, looking)
        return cast(Tensor, model.decoder_norm(x))

    def output(self) -> tuple[Tensor, Tensor | None]:
        """The token embeddings."""
        return self.module.tokens.weight, None

    def lower(self, layers: int) -> list[nn.Parameter]:
        """Embeddings, and layers of the encoder and then of the decoder."""
        blocks = [*self.module.encoder, *self.module.decoder]
        _check_layers(layers, len(blocks))
        return [*self.module.tokens.parameters(), *(p for block in blocks[:layers] for p in block.parameters())]


def text_model(module: nn.Module, tokenizer: Tokenizer | None = None) -> TextModel:
    """A model as a policy needs it; the tokenizer tells a Transformer's begin and end tokens.

    Raises:
        RllabError: it writes no text, or lacks such tokens.
    """
    if isinstance(module, GPT):
        return CausalText(module)
    if isinstance(module, AWDLSTM):
        return RecurrentText(module)
    if isinstance(module, CausalLM):
        return TransformersText(module, tuple(tokenizer.prefix) if isinstance(tokenizer, PretrainedTokenizer) else ())
    if isinstance(module, Transformer) and tokenizer is not None:
        special = tokenizer.special
        if special.begin is None or special.end is None:
            raise RllabError("A Transformer needs a tokenizer with a begin and an end token; train it with both.")
        return TranslatingText(module, tokenizer.vocabulary[special.begin], tokenizer.vocabulary[special.end])
    raise RllabError(
        f"A {type(module).__name__} cannot be fine-tuned from rewards; give a GPT, a Transformer language model, an "
        "AWD-LSTM, a Transformer for translation or a causal model of transformers."
    )


def _from_first_token(tokens: Tensor, valid: Tensor, prompt: int) -> tuple[Tensor, Tensor]:
    """Rows `[N, P + T]` without the padding before their prompts, and without their last tokens, which nothing follows.

    Returns:
        The inputs int64 `[N, L]`, padded on the right, and the place in them `[N, T]` at which each token of a response
        is chosen; behind its end, some place that is there.
    """
    lengths = lengths_of(valid[:, :prompt])
    longest = max(1, int(lengths_of(valid).max()) - 1)
    columns = torch.arange(tokens.shape[1], device=tokens.device)
    taken = (columns[:longest] + (prompt - lengths)[:, None]).clamp_max(tokens.shape[1] - 1)
    places = (columns[: tokens.shape[1] - prompt] + (lengths - 1)[:, None]).clamp_max(longest - 1)
    return tokens.gather(1, taken), places


def _at(outputs: Tensor, places: Tensor) -> Tensor:
    """`outputs[n, places[n, t]]`, `[N, L, width]` and `[N, T]` to `[N, T, width]`."""
    rows = torch.arange(len(places), device=places.device)[:, None] * outputs.shape[1]
    # By one index of all rows, whose derivative is a sum and not a general scatter.
    return outputs.flatten(0, 1).index_select(0, (places + rows).flatten()).view(*places.shape, -1)


def _check_layers(layers: int, there_are: int) -> None:
    if not 0 <= layers <= there_are:
        raise RllabError(f"frozen_layers is {layers}, but the model has {there_are} layers; give at most so many.")
