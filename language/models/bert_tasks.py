"""BERT with one more layer for tasks: a tag for each token, or where an answer begins and ends.

Devlin et al. 2018, section 4.2 and 4.3 (questions), 5.3 (tags), figure 4. All weights are learnt together.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.models.bert import BERT, BERTConfig, BERTForPretraining
from language.models.dropout import check_dropout
from language.models.gpt import initialise
from language.models.linear import Linear


@dataclass(frozen=True)
class BERTTaggerConfig:
    """A tagger."""

    bert: BERTConfig
    """Of the encoder."""
    tags: tuple[str, ...]
    """The names of the tags; a tag's number is its place."""
    dropout: float = 0.1
    """Of what the layer for tags sees, as in the released code."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", tuple(self.tags))  # JSON has no tuples.
        if len(self.tags) < 2 or len(set(self.tags)) < len(self.tags):
            raise RllabError(f"A tagger needs at least two different tags, not {', '.join(self.tags) or 'none'}.")
        check_dropout("dropout", self.dropout)

    @property
    def vocabulary_size(self) -> int:
        """Tokens that the encoder knows."""
        return self.bert.vocabulary_size


class BERTTagger(nn.Module):
    """A linear map of each token's last state to tags."""

    def __init__(self, config: BERTTaggerConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BERT(config.bert)
        self.head = Linear(config.bert.width, len(config.tags))
        initialise(self.head, config.bert.initial_std)

    def load_encoder(self, bert: BERT | BERTForPretraining) -> None:
        """Take the weights of a pre-trained encoder. Raises RllabError if it has another size."""
        load_encoder(self.bert, bert)

    def forward(self, tokens: Tensor, valid: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """Logits `[N, T, tags]`; arguments as of `BERT.forward`."""
        features = self.bert(tokens, valid, segments)
        logits: Tensor = self.head(functional.dropout(features, self.config.dropout, self.training))
        return logits


@dataclass(frozen=True)
class BERTSpansConfig:
    """A finder of answers."""

    bert: BERTConfig
    """Of the encoder."""

    @property
    def vocabulary_size(self) -> int:
        """Tokens that the encoder knows."""
        return self.bert.vocabulary_size


class BERTSpans(nn.Module):
    """A vector for beginnings and one for ends, whose products with each token's last state are logits.

    Where questions may have no answer, the place of [CLS] stands for that (section 4.3).
    """

    def __init__(self, config: BERTSpansConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BERT(config.bert)
        self.head = Linear(config.bert.width, 2)
        initialise(self.head, config.bert.initial_std)

    def load_encoder(self, bert: BERT | BERTForPretraining) -> None:
        """Take the weights of a pre-trained encoder. Raises RllabError if it has another size."""
        load_encoder(self.bert, bert)

    def forward(
        self, tokens: Tensor, valid: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Logits `[N, T]` of the answer's first token and `[N, T]` of its last; arguments as of `BERT.forward`."""
        starts, ends = self.head(self.bert(tokens, valid, segments)).unbind(-1)
        return starts, ends


def load_encoder(encoder: BERT, source: BERT | BERTForPretraining) -> None:
    """Give an encoder another's weights. Raises RllabError if the two have different sizes."""
    trained = source.bert if isinstance(source, BERTForPretraining) else source
    for name in ("vocabulary_size", "context", "layers", "heads", "width", "segments", "activation"):
        ours, theirs = getattr(encoder.config, name), getattr(trained.config, name)
        if ours != theirs:
            raise RllabError(f"The encoder's {name} is {ours} and that of the trained one {theirs}; make them equal.")
    if encoder.config.block().feed_forward_width != trained.config.block().feed_forward_width:
        raise RllabError("The encoder and the trained one have different feed_forward_width; make them equal.")
    encoder.load_state_dict(trained.state_dict())
