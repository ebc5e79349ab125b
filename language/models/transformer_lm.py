"""The decoder of Vaswani et al. 2017 ("Attention is all you need") alone, as a language model.

GPT with the first Transformer's choices: sines and cosines for positions, embeddings times √width, ReLU, normalisation
after each sum. Liu et al. 2018, "Generating Wikipedia by summarizing long sequences" (1801.10198), section 4.2.3, made
it a language model; GPT-1 took it from there.
"""

from dataclasses import dataclass, replace
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from language.models.blocks import Activation, Norm, sinusoids
from language.models.gpt import GPT, GPTConfig


@dataclass(frozen=True)
class TransformerLMConfig(GPTConfig):
    """The size of the model; the defaults are those of the Transformer's base (table 3)."""

    vocabulary_size: int = 37_000
    """Tokens (section 5.1)."""
    context: int = 512
    """The longest sequence, in tokens; the positions are computed, so no weight depends on it."""
    layers: int = 6
    """Transformer layers."""
    heads: int = 8
    """Attention heads of a layer; they divide the width."""
    width: int = 512
    """Numbers a token."""
    activation: Activation = "relu"
    """Of the feed-forward networks (section 3.3)."""
    norm: Norm = "post"
    """After each sum, as in the paper; `pre` before each part, and once more at the end."""


class TransformerLM(GPT):
    """The language model; see `GPT` for what it can do."""

    def __init__(self, config: TransformerLMConfig) -> None:
        super().__init__(config)
        nn.init.normal_(self.tokens.weight, std=config.width**-0.5)
        del self.positions
        self.register_buffer("positions", sinusoids(config.context, config.width))

    def _embedded(self, tokens: Tensor, positions: Tensor) -> Tensor:
        table = cast(Tensor, self.positions)
        x = self.tokens(tokens) * self.config.width**0.5 + table[positions]
        return functional.dropout(x, self.config.dropout, self.training)

    def with_context(self, context: int) -> "TransformerLM":
        """A copy with another number of positions, which may be larger."""
        config = cast(TransformerLMConfig, replace(self.config, context=context))
        other = TransformerLM(config)
        positions = {"positions": sinusoids(context, config.width)}
        other.load_state_dict(self.state_dict() | positions)
        return other
