"""Prompts and what follows them as rows of tokens, and the log-probabilities of the latter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from envs.errors import RllabError
from language.preferences.chosen import chosen_tokens
from language.preferences.text_models import TextModel
from language.tokenizers.tokenizer import Tokenizer

TooLong: TypeAlias = Literal["drop", "cut", "refuse"]
"""What becomes of a row that is longer than the model's context: it is left out; its prompt's beginning is cut off, or
its end if it has no prompt; or the training is refused with a sentence."""
TOKENS_AT_ONCE = 16_384
"""Tokens, padding included, of a pass that needs no gradient."""


class Row(NamedTuple):
    """A prompt and what follows it."""

    prompt: list[int]
    response: list[int]
    """Ended by the end token, where the tokenizer has one."""

    @property
    def length(self) -> int:
        """Tokens of both."""
        return len(self.prompt) + len(self.response)


class Rows(NamedTuple):
    """Rows in tensors: prompts padded on the left, responses on the right."""

    tokens: Tensor
    """int64 `[N, P + T]`."""
    valid: Tensor
    """bool `[N, P + T]`."""
    prompt: int
    """P, columns of prompts."""

    @classmethod
    def of(cls, rows: Sequence[Row], device: torch.device | str = "cpu") -> "Rows":
        """As few columns as hold them all."""
        prompts, responses = ([len(row[side]) for row in rows] for side in (0, 1))
        longest = max(prompts)
        columns = np.arange(-longest, max(responses))
        valid = (columns >= -np.array(prompts)[:, None]) & (columns < np.array(responses)[:, None])
        tokens = np.zeros(valid.shape, np.int64)
        tokens[valid] = np.concatenate([side for row in rows for side in row])
        return cls(torch.from_numpy(tokens).to(device), torch.from_numpy(valid).to(device), longest)


@dataclass(frozen=True)
class RowReader:
    """Makes rows of texts for a model."""

    text: TextModel
    tokenizer: Tokenizer
    too_long: TooLong = "drop"

    def rows(self, prompts: Sequence[str], responses: Sequence[str]) -> list[Row | None]:
        """A row for each prompt and response; None where it is too long and left out.

        Raises:
            RllabError: one is too long and that is to be refused, or an empty prompt needs a begin or end token that
                the tokenizer has not.
        """
        end = self.tokenizer.special.end
        ending = [] if end is None else [self.tokenizer.vocabulary[end]]
        encoded = self.tokenizer.encode_batch([*prompts, *responses])
        made = []
        for number, (before, after) in enumerate(zip(encoded[: len(prompts)], encoded[len(prompts) :], strict=True), 1):
            row = Row(self.text.prompt(before or self._beginning()), [*after, *ending])
            if not row.response:
                raise RllabError(f"Text {number:,} has a response without tokens ({responses[number - 1]!r:.40}).")
            made.append(self._fitted(row, number, bool(before)))
        return made

    def _beginning(self) -> list[int]:
        """What stands for an empty prompt."""
        name = self.tokenizer.special.begin or self.tokenizer.special.end
        if name is None:
            raise RllabError("An empty prompt needs a tokenizer with a begin or an end token; give prompts.")
        return [self.tokenizer.vocabulary[name]]

    def _fitted(self, row: Row, number: int, has_prompt: bool) -> Row | None:
        context = self.text.context
        if context is None or row.length <= context:
            return row
        if self.too_long == "refuse":
            raise RllabError(
                f"Text {number:,} has {row.length:,} tokens, {len(row.prompt):,} of them its prompt's, and the model a "
                f"context of {context}; drop or cut such texts by --too-long drop or cut, or use a larger context."
            )
        room = context - len(row.response)
        if self.too_long == "cut" and not has_prompt:
            return Row(row.prompt, row.response[: context - len(row.prompt)])
        if self.too_long == "cut" and room > 0:
            return Row(row.prompt[-room:], row.response)
        return None


def chosen_log_probs(text: TextModel, rows: Rows) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the responses' tokens, and the row of each, `[M]` both, M tokens of responses in all."""
    features = text.features(*rows)
    there = rows.valid[:, rows.prompt :].flatten().nonzero()[:, 0]
    chosen = rows.tokens[:, rows.prompt :].flatten()[there]
    log_probs, _ = chosen_tokens(features.flatten(0, 1).index_select(0, there), *text.output(), chosen)
    return log_probs, there // features.shape[1]


def row_log_probs(text: TextModel, rows: Rows) -> Tensor:
    """The log-probability of each response `[N]`, given its prompt, the end token included."""
    log_probs, numbers = chosen_log_probs(text, rows)
    return torch.zeros(len(rows.tokens), device=log_probs.device).index_add(0, numbers, log_probs)


@torch.no_grad()
def all_log_probs(text: TextModel, rows: Sequence[Row], device: torch.device | str = "cpu") -> Tensor:
    """Those of many rows, without gradients, `[len(rows)]` on the CPU; those of equal lengths are read together."""
    found = torch.empty(len(rows))
    for numbers in batches_by_length([row.length for row in rows], TOKENS_AT_ONCE):
        found[numbers] = row_log_probs(text, Rows.of([rows[number] for number in numbers], device)).cpu()
    return found


def batches_by_length(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """The numbers of rows, the shortest first, in batches of so many tokens at most, padding included."""
    batches: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not batches or (len(batches[-1]) + 1) * lengths[number] > tokens:
            batches.append([])
        batches[-1].append(number)
    return batches
