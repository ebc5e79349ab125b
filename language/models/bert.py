"""BERT (Devlin et al. 2018, "BERT: pre-training of deep bidirectional transformers", section 3).

An encoder that sees both sides of each token, pre-trained by filling in masked tokens and by telling whether two
segments follow one another. What turns it to tasks is in `language/tasks/`.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.models.attention import AttentionMask
from language.models.blocks import Activation, Block, BlockConfig, activate, check_length
from language.models.gpt import initialise
from language.models.layer_groups import by_layer
from language.models.linear import Linear, linear


@dataclass(frozen=True)
class BERTConfig:
    """The size of a BERT; the defaults are those of base (section 3)."""

    vocabulary_size: int = 30_522
    """Tokens, of WordPiece (section 3; the released uncased vocabulary)."""
    context: int = 512
    """The longest sequence, in tokens."""
    layers: int = 12
    """Transformer layers."""
    heads: int = 12
    """Attention heads of a layer; they divide the width."""
    width: int = 768
    """Numbers a token."""
    feed_forward_width: int | None = None
    """Hidden units of the feed-forward networks; 4 × width where it is not given."""
    segments: int = 2
    """Kinds of segments: the first sentence, the second."""
    activation: Activation = "gelu"
    """Of the feed-forward networks (appendix A.2)."""
    dropout: float = 0.1
    """Of embeddings, attention and residuals (appendix A.2)."""
    norm_epsilon: float = 1e-12
    """Added to the variance in layer normalisation, as in the released code."""
    initial_std: float = 0.02
    """Of the weights at first, as in the released code (which cuts the normal distribution off; here it is whole)."""

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "context", "layers", "width", "segments"):
            if getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}.")
        self.block()

    def block(self) -> BlockConfig:
        """A layer's configuration. Raises RllabError if the heads do not divide the width."""
        return BlockConfig(
            self.width, self.heads, self.feed_forward_width or 4 * self.width, self.activation, "post",
            self.dropout, self.dropout, self.norm_epsilon,
        )  # fmt: skip

    @classmethod
    def base(cls) -> Self:
        """109,482,240 parameters without the heads of pre-training."""
        return cls()

    @classmethod
    def large(cls) -> Self:
        """335,141,888 parameters without the heads of pre-training."""
        return cls(layers=24, heads=16, width=1024)


class BERT(nn.Module):
    """The encoder."""

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.config = config
        block = config.block()
        self.tokens = nn.Embedding(config.vocabulary_size, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.segments = nn.Embedding(config.segments, config.width)
        self.embedding_norm = nn.LayerNorm(config.width, config.norm_epsilon)
        self.blocks = nn.ModuleList(Block(block) for _ in range(config.layers))
        self.pooler = Linear(config.width, config.width)
        self.apply(lambda module: initialise(module, config.initial_std))

    def forward(self, tokens: Tensor, valid: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """What the last layer gives.

        Args:
            tokens: `[N, T]`, padded on the right.
            valid: bool `[N, T]`, false in padding.
            segments: `[N, T]`, which segment each token is of; all of the first where it is not given.

        Returns:
            `[N, T, width]`; what it has at padding means nothing.

        Raises:
            RllabError: the sequence is longer than the context.
        """
        check_length(tokens.shape[1], self.config.context)
        places = torch.arange(tokens.shape[1], device=tokens.device)
        of_segments = self.segments.weight[0] if segments is None else self.segments(segments)
        x = self.embedding_norm(self.tokens(tokens) + self.positions(places) + of_segments)
        x = functional.dropout(x, self.config.dropout, self.training)
        mask = AttentionMask.of(valid)
        for block in self.blocks:
            x = block(x, mask)
        out: Tensor = x
        return out

    def pooled(self, features: Tensor) -> Tensor:
        """The vector `[N, width]` of whole sequences: that of the first token, [CLS], through a layer with tanh."""
        return torch.tanh(self.pooler(features[:, 0]))


class PretrainingHeads(nn.Module):
    """What fills in masked tokens, and what tells whether the second segment follows the first (section 3.1)."""

    def __init__(self, bert: BERT) -> None:
        super().__init__()
        config = bert.config
        self.transform = Linear(config.width, config.width)
        self.transform_norm = nn.LayerNorm(config.width, config.norm_epsilon)
        self.token_bias = nn.Parameter(torch.zeros(config.vocabulary_size))
        self.next_sentence = Linear(config.width, 2)
        self.activation: Activation = config.activation
        for layer in (self.transform, self.next_sentence):
            initialise(layer, config.initial_std)

    def tokens(self, bert: BERT, features: Tensor) -> Tensor:
        """Logits `[M, V]` of the tokens that stood where the features `[M, width]` are from."""
        x = self.transform_norm(activate(self.transform(features), self.activation))
        return linear(x, bert.tokens.weight, self.token_bias)

    def follows(self, bert: BERT, features: Tensor) -> Tensor:
        """Logits `[N, 2]`: the second segment follows, or is from somewhere else."""
        out: Tensor = self.next_sentence(bert.pooled(features))
        return out


class BERTForPretraining(nn.Module):
    """The encoder with both heads: base has 110,106,428 parameters."""

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BERT(config)
        self.heads = PretrainingHeads(self.bert)

    def forward(
        self, tokens: Tensor, valid: Tensor | None = None, segments: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Logits of tokens, and of following.

        Args:
            tokens: `[N, T]`, some of them masked.
            valid: bool `[N, T]`, false in padding.
            segments: `[N, T]`.
            wanted: bool `[N, T]`, M of them true, where tokens are to be filled in; everywhere if not given.

        Returns:
            `[M, V]` or `[N, T, V]`, and `[N, 2]`.
        """
        features = self.bert(tokens, valid, segments)
        chosen = features if wanted is None else features[wanted]
        return self.heads.tokens(self.bert, chosen), self.heads.follows(self.bert, features)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """What has a learning rate of its own, the lowest layer first; the heads are last, with their embeddings."""
        return by_layer(self, self.bert.blocks, [self.bert.pooler, self.heads, self.bert.tokens])


def sentence_vectors(features: Tensor, valid: Tensor) -> Tensor:
    """The means `[N, width]` of the features `[N, T, width]` over real tokens."""
    weights = valid.to(features.dtype)[:, :, None]
    return (features * weights).sum(1) / weights.sum(1).clamp(min=1)
