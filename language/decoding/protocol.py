"""What a model offers so that text can be generated with it, and checks of what it is given."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from envs.errors import RllabError


@runtime_checkable
class Decodable(Protocol):
    """A language model that is read one token at a time.

    Its state is its own business (a cache of keys and values, the hidden states of an LSTM). Where prompts differ in
    length, what it says of a row must equal what it says of that row alone: padding is neither looked at nor counted in
    positions. It is called in torch's inference mode, so it must not keep tensors that it makes then for training.
    """

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are, V."""

    @property
    def context(self) -> int | None:
        """The longest sequence; None where there is no limit."""

    def begin(self, tokens: Tensor, valid: Tensor, capacity: int) -> tuple[Tensor, Any]:
        """Read prompts.

        Args:
            tokens: int64 `[N, P]`, padded on the left.
            valid: bool `[N, P]`, true where a token is.
            capacity: how many columns there will be at most, those of the prompts included.

        Returns:
            The logits `[N, V]` of the token that comes next, and the state.
        """

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        """Append a token `[N]` to each row: the logits `[N, V]` of the one after it. The state changes in place."""

    def select(self, state: Any, rows: Tensor) -> Any:
        """The state of some rows, int64 `[M]`, in that order; a row may come more than once."""


def check_prompts(model: Decodable, tokens: Tensor, valid: Tensor | None, maximum_new_tokens: int) -> Tensor:
    """The mask of prompts; where none is given, everything is valid.

    Args:
        model: what is to read them.
        tokens: int64 `[N, P]`, padded on the left.
        valid: bool `[N, P]`, or None.
        maximum_new_tokens: how many tokens are to follow at most.

    Raises:
        RllabError: the shapes are wrong, a prompt is empty or padded elsewhere than on the left, a token is none of the
            model's, prompt and new tokens are longer than the model's context, or the model is in training mode.
    """
    if getattr(model, "training", False):
        raise RllabError("The model is in training mode, where dropout disturbs what it says; call model.eval() first.")
    if tokens.ndim != 2 or tokens.dtype != torch.int64 or tokens.numel() == 0:
        raise RllabError(
            f"Prompts must be an int64 tensor [rows, columns] with at least one token a row, not {tokens.dtype} "
            f"{list(tokens.shape)}; give a begin token where a prompt has no text."
        )
    if valid is None:
        valid = torch.ones_like(tokens, dtype=torch.bool)
    if valid.shape != tokens.shape or valid.dtype != torch.bool:
        raise RllabError(
            f"The mask of the prompts must be a bool tensor {list(tokens.shape)}, as they are, not {valid.dtype} "
            f"{list(valid.shape)}."
        )
    if not bool(valid[:, -1].all()):
        raise RllabError("Prompts must have at least one token each and be padded on the left; pad_left does that.")
    if bool((valid[:, :-1] & ~valid[:, 1:]).any()):
        raise RllabError("A prompt has padding between its tokens; pad on the left only.")
    lowest, highest = int(tokens.min()), int(tokens.max())
    if lowest < 0 or highest >= model.vocabulary_size:
        raise RllabError(
            f"The prompts have the token {lowest if lowest < 0 else highest}, but the model's go from 0 to "
            f"{model.vocabulary_size - 1}; was another tokenizer used?"
        )
    longest = int(valid.sum(-1).max())
    if model.context is not None and longest + maximum_new_tokens > model.context:
        room = model.context - longest
        advice = f"ask for at most {room} new tokens" if room > 0 else f"give at most {model.context - 1} tokens of it"
        raise RllabError(
            f"A prompt of {longest} tokens and {maximum_new_tokens} new ones do not fit into the model's context of "
            f"{model.context}; {advice}."
        )
    return valid


def pad_left(rows: Sequence[Sequence[int]], padding: int = 0) -> tuple[Tensor, Tensor]:
    """Prompts of different lengths as one tensor `[N, P]`, padded on the left, and where its tokens are, bool `[N, P]`.

    Raises RllabError if there are no rows, or one is empty.
    """
    if not rows or not all(map(len, rows)):
        raise RllabError(
            "There must be at least one prompt and one token in each; begin with a token that starts texts."
        )
    longest = max(map(len, rows))
    tokens = torch.full((len(rows), longest), padding)
    valid = torch.zeros(len(rows), longest, dtype=torch.bool)
    for number, row in enumerate(rows):
        tokens[number, longest - len(row) :] = torch.tensor(row)
        valid[number, longest - len(row) :] = True
    return tokens, valid
