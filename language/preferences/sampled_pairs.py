"""Comparisons that a model makes itself: two responses to each prompt, which a reward in a person's place compares.

Ziegler et al. 2019, section 2.3, have people compare samples of the model that is then tuned; Gao et al. 2022,
"Scaling laws for reward model overoptimization", section 2, let a better reward model do it, so that what is learnt
from few comparisons can be judged by it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from torch import nn

from envs.errors import RllabError
from language.preferences.best_of import responses_in_parts, writer
from language.preferences.formats import TextComparison
from language.preferences.prompts import PromptOrder
from language.preferences.responses import ResponsesConfig
from language.preferences.rewards import TextReward, score
from language.tokenizers.tokenizer import Tokenizer
from rllab.files import explained_write_errors, write_atomically

Labelling: TypeAlias = Literal["better", "sampled"]
"""The response of the higher score is preferred, or with probability σ(difference of scores) (Bradley–Terry)."""
_DRAW, _LABEL = 0x9A12, 0x1ABE1


def sampled_pairs(
    model: nn.Module, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], count: int, reward: TextReward,
    drawing: ResponsesConfig, *, labelling: Labelling = "better", seed: int = 0,
) -> list[TextComparison]:  # fmt: skip
    """Draw two responses to each of so many prompts, and say which is better; of each the preferred one stands first.

    Args:
        model: writes.
        tokenizer: the model's.
        prompts: ids of each; where they are fewer, they come again.
        count: of pairs. Pairs with an empty response, two equal ones, or equal scores where the better one is to be
            preferred, are left out, so that there may be fewer.
        reward: compares.
        drawing: how responses are drawn.
        labelling: how the reward decides.
        seed: of prompts, responses and decisions.

    Raises:
        RllabError: no pair is left, or the reward failed.
    """
    rows = [row for row in PromptOrder(prompts, seed).take(count) for _ in range(2)]
    parts = responses_in_parts(writer(model, tokenizer, drawing), tokenizer, rows, drawing, seed + _DRAW)
    given, texts = ([text for part in parts for text in getattr(part, name)] for name in ("prompts", "texts"))
    scores = score(reward, given, texts).reshape(-1, 2)
    difference = scores[:, 0] - scores[:, 1]
    first_wins = difference > 0
    if labelling == "sampled":
        drawn = np.random.default_rng(np.random.SeedSequence([seed, _LABEL])).random(count)
        first_wins = drawn < 1 / (1 + np.exp(-np.clip(difference, -500, 500)))
    found = []
    for number, (prompt, wins) in enumerate(zip(given[::2], first_wins.tolist(), strict=True)):
        one, other = texts[2 * number : 2 * number + 2]
        undecided = labelling == "better" and difference[number] == 0
        if one.strip() and other.strip() and one != other and not undecided:
            found.append(TextComparison(prompt, *((one, other) if wins else (other, one)), mu=1.0))
    if not found:
        raise RllabError(
            f"Of {count} pairs of responses none has one that is better; give another reward, other prompts, or more "
            "pairs."
        )
    return found


def write_pairs(path: Path | str, pairs: Sequence[TextComparison]) -> None:
    """As JSON lines of `prompt`, `chosen` and `rejected`."""
    lines = [
        json.dumps({"prompt": pair.prompt, "chosen": pair.first, "rejected": pair.second}, ensure_ascii=False)
        for pair in pairs
    ]
    with explained_write_errors(Path(path)):
        write_atomically(Path(path), ("\n".join(lines) + "\n").encode())
