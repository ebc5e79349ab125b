"""BERT fine-tuned to classes of texts or of pairs of texts: one linear layer on what [CLS], or all tokens, have become.

Devlin et al. 2018, "BERT: pre-training of deep bidirectional transformers", section 4.1 and figure 4 (a, b). All
weights are learnt together.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.models.bert import BERT, BERTConfig, BERTForPretraining
from language.models.bert_tasks import load_encoder
from language.models.documents import WHAT_FITS, Form, ReadingConfig, checked_classes, class_count
from language.models.dropout import check_dropout
from language.models.gpt import initialise
from language.models.layer_groups import by_layer
from language.models.linear import Linear


@dataclass(frozen=True)
class BERTClassifierConfig:
    """A BERT with a linear layer for classes."""

    bert: BERTConfig
    """Of the encoder."""
    classes: tuple[str, ...] = ()
    """Their names, a class's number is its place; by default all labels there are."""
    form: Form = "classification"
    """What an input is: one text (classification) or a pair (entailment)."""
    pooling: Literal["first", "mean"] = "first"
    """What the linear layer sees: [CLS] through the pooler (section 4.1), or the mean of all tokens, which a model that
    has learnt little of which sentences follow one another needs (Reimers, Gurevych 2019, 1908.10084, section 3)."""
    head_dropout: float = 0.1
    """Of what the linear layer sees, as in the released code."""
    reading: ReadingConfig = WHAT_FITS
    """How much of long documents is read."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", checked_classes(self.classes))
        if self.form not in ("classification", "entailment"):
            raise RllabError(f"BERT classifies texts (classification) and pairs (entailment), not '{self.form}'.")
        if self.form == "entailment" and self.bert.segments < 2:
            raise RllabError("A pair needs two segments, and the BERT has one; make it with --segments 2.")
        if self.pooling not in ("first", "mean"):
            raise RllabError(f"pooling must be first or mean, not '{self.pooling}'.")
        check_dropout("head_dropout", self.head_dropout)

    @property
    def vocabulary_size(self) -> int:
        """Tokens that the encoder knows."""
        return self.bert.vocabulary_size


class BERTClassifier(nn.Module):
    """The classifier. Its encoder is to be a trained one: `load_encoder`."""

    def __init__(self, config: BERTClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BERT(config.bert)
        self.head = Linear(config.bert.width, class_count(config.classes))
        initialise(self.head, config.bert.initial_std)

    def load_encoder(self, bert: BERT | BERTForPretraining) -> None:
        """Take the weights of a pre-trained encoder, the pooler's too. Raises RllabError if it has another size."""
        load_encoder(self.bert, bert)

    def forward(self, tokens: Tensor, valid: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """Logits `[N, classes]`; arguments and errors as of `BERT.forward`."""
        features = self.bert(tokens, valid, segments)
        pooled = self.bert.pooled(features) if self.config.pooling == "first" else _mean(features, valid)
        logits: Tensor = self.head(functional.dropout(pooled, self.config.head_dropout, self.training))
        return logits

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """What may learn at its own rate or be unfrozen at once: embeddings, each layer, the pooler with the head."""
        return by_layer(self, self.bert.blocks, (self.bert.pooler, self.head))


def _mean(features: Tensor, valid: Tensor | None) -> Tensor:
    """Of a row's real tokens: `[N, T, width]` to `[N, width]`."""
    if valid is None:
        return features.mean(1)
    weights = valid.to(features.dtype)
    return (features * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
