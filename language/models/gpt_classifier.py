"""GPT fine-tuned to a task: one linear layer on the state of the last token, and the language model's loss beside it.

Radford et al. 2018, "Improving language understanding by generative pre-training", sections 3.2 and 3.3. The inputs are
those of `language.tasks.transformations`.
"""

from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.models.documents import WHAT_FITS, Form, ReadingConfig, checked_classes, class_count
from language.models.dropout import check_dropout
from language.models.gpt import GPT, GPTConfig, initialise
from language.models.layer_groups import by_layer
from language.models.linear import Linear
from language.models.padding import check_right_padded, lengths_of

NEW_TOKENS = 3
"""Start, delimiter and extract: the only embeddings that are not pre-trained (section 3.3)."""


@dataclass(frozen=True)
class GPTClassifierConfig:
    """A GPT with a linear layer for classes."""

    gpt: GPTConfig
    """Of the language model, without the new tokens."""
    classes: tuple[str, ...] = ()
    """Their names, a class's number is its place; by default all labels there are."""
    form: Form = "classification"
    """What an input is: one text; a pair (entailment); a pair whose order means nothing (similarity); or a context and
    answers of which one is right (choice)."""
    head_dropout: float = 0.1
    """Of what the linear layer sees (section 4.1)."""
    auxiliary: float = 0.5
    """λ, the weight of the language model's loss on the inputs (section 4.1); 0: none."""
    reading: ReadingConfig = WHAT_FITS
    """How much of long documents is read."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", checked_classes(self.classes))
        if self.form not in get_args(Form):
            raise RllabError(f"form must be {', '.join(get_args(Form))}, not '{self.form}'.")
        check_dropout("head_dropout", self.head_dropout)
        if self.auxiliary < 0:
            raise RllabError(f"auxiliary must be at least 0, not {self.auxiliary}.")

    @property
    def vocabulary_size(self) -> int:
        """Tokens of the tokenizer; start, delimiter and extract have the ids after them."""
        return self.gpt.vocabulary_size


class GPTClassifier(nn.Module):
    """The classifier. Its language model is to be a trained one: `load_encoder`."""

    def __init__(self, config: GPTClassifierConfig) -> None:
        super().__init__()
        self.config = config
        outputs = class_count(config.classes)
        self.gpt = GPT(replace(config.gpt, vocabulary_size=config.gpt.vocabulary_size + NEW_TOKENS))
        self.head = Linear(config.gpt.width, 1 if config.form == "choice" else outputs)
        initialise(self.head, config.gpt.initial_std)

    def load_encoder(self, model: GPT) -> None:
        """Take the weights of a trained language model; the new tokens keep their random embeddings.

        Raises:
            RllabError: it has another size.
        """
        for name in ("vocabulary_size", "context", "layers", "heads", "width", "activation", "norm"):
            ours, theirs = getattr(self.config.gpt, name), getattr(model.config, name)
            if ours != theirs:
                raise RllabError(
                    f"The classifier's {name} is {ours} and its language model's {theirs}; they must be equal."
                )
        state = dict(model.state_dict())
        state["tokens.weight"] = torch.cat(
            [state["tokens.weight"], self.gpt.tokens.weight.detach()[-NEW_TOKENS:].to(state["tokens.weight"])]
        )
        self.gpt.load_state_dict(state)

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits `[N, classes]`.

        Args:
            tokens: int64 `[N, T]`, padded on the right; of similarity `[N, 2, T]`, both orders; of choice
                `[N, classes, T]`, a sequence for each answer.
            valid: bool, of the same shape, true where a token is; None if all are.

        Raises:
            RllabError: a sequence is longer than the context, empty, or padded elsewhere than on the right.
        """
        flat_tokens, flat_valid = _flat(tokens, valid)
        return self._class_logits(self.gpt.features(flat_tokens, flat_valid), flat_valid, tokens.shape)

    def with_auxiliary_loss(self, tokens: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same logits, and λ·L1 of each input, `[N]`: L3 = L2 + λ·L1 (equation 5).

        As in the released program L1 is the mean cross-entropy, in nats, of a sequence's tokens given those before
        them, the new ones among them, and where an input has several sequences the mean of theirs.
        """
        flat_tokens, flat_valid = _flat(tokens, valid)
        features = self.gpt.features(flat_tokens, flat_valid)
        logits = self._class_logits(features, flat_valid, tokens.shape)
        if not self.config.auxiliary:
            return logits, logits.new_zeros(len(tokens))
        wanted = flat_valid[:, 1:]
        losses = functional.cross_entropy(
            self.gpt.logits(features[:, :-1][wanted]).float(), flat_tokens[:, 1:][wanted], reduction="none"
        )
        rows = torch.arange(len(wanted), device=wanted.device)[:, None].expand_as(wanted)[wanted]
        sums = losses.new_zeros(len(wanted)).index_add(0, rows, losses)
        means = sums / wanted.sum(1).clamp(min=1)
        return logits, self.config.auxiliary * means.view(len(tokens), -1).mean(1)

    def _class_logits(self, features: Tensor, valid: Tensor, shape: torch.Size) -> Tensor:
        """Of all sequences' features `[M, T, width]`; `shape` is that of the tokens as they were given."""
        last = features[torch.arange(len(features), device=features.device), lengths_of(valid) - 1]
        if self.config.form == "similarity":
            last = last.view(*shape[:2], -1).sum(1)
        logits: Tensor = self.head(functional.dropout(last, self.config.head_dropout, self.training))
        return logits.view(shape[0], -1)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """What may learn at its own rate or be unfrozen at once: embeddings, each layer, the head."""
        return by_layer(self, self.gpt.blocks, (self.gpt.final_norm, self.head))


def _flat(tokens: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """All sequences one below the other, `[M, T]`."""
    if valid is None:
        valid = torch.ones_like(tokens, dtype=torch.bool)
    tokens, valid = tokens.flatten(0, -2), valid.flatten(0, -2)
    check_right_padded(valid)
    if not bool(valid[:, :1].all()) or not tokens.shape[1]:
        raise RllabError("An input has no tokens; begin each with the start token and end it with extract.")
    return tokens, valid
