"""Best-of-n: of several responses to each prompt the one with the highest reward, as a way to write, and as what is
learnt from (rejection sampling: supervised fine-tuning on the best; Nakano et al. 2021, "WebGPT", section 2; Stiennon
et al. 2020, section 4.3).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from envs.errors import RllabError
from language.decoding.noise import row_seeds
from language.preferences.data import Demonstration
from language.preferences.policy import TextPolicy, TextPolicyConfig
from language.preferences.responses import Responses, ResponsesConfig, respond
from language.preferences.rewards import TextReward, score
from language.tokenizers.tokenizer import Tokenizer
from rllab.files import explained_write_errors, write_atomically

_AT_ONCE = 64


def best_of_n_kl(n: int) -> float:
    """log n − (n − 1)/n nats: how far best-of-n is from the model it draws from, at most.

    This is how papers report it (Stiennon et al. 2020, appendix G.3). It is the divergence where all rewards differ and
    no response comes twice; in general it is an upper bound (Beirami et al. 2024, "Theoretical guarantees on the
    best-of-n alignment policy").

    Raises RllabError if n is below 1.
    """
    if n < 1:
        raise RllabError(f"Best-of-n needs 1 response at least, not {n}.")
    return math.log(n) - (n - 1) / n


def best_of_n_weights(scores: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """How probably each of N responses is the best of n that are drawn from them without putting back, `[..., N]`.

    The weighted mean of any number of the responses estimates what best-of-n has of it, without bias, and from one
    sample for all n (Nakano et al. 2021, "WebGPT", appendix I). Of equally good responses the last counts as better.

    Args:
        scores: by which the best is chosen, `[..., N]`.
        n: from 1 to N.

    Raises RllabError if n is not.
    """
    count = scores.shape[-1]
    if not 1 <= n <= count:
        raise RllabError(f"The best of {n} cannot be told from {count} responses; draw as many at least.")
    # The best of n is the one of rank r if the others are of lower rank: C(r − 1, n − 1) of C(N, n) choices.
    all_choices = math.comb(count, n)
    weights = np.array([math.comb(rank, n - 1) / all_choices for rank in range(count)])
    found: NDArray[np.float64] = weights[scores.argsort(-1, kind="stable").argsort(-1)]
    return found


@dataclass(frozen=True)
class Best:
    """The best response to a prompt."""

    prompt: str
    response: str
    score: float
    """Its reward."""
    mean: float
    """The mean reward of all that were drawn."""
    finished: bool
    """Whether an end token ended it."""


def prompt_ids(policy: TextPolicy, tokenizer: Tokenizer, prompts: Sequence[str], new_tokens: int) -> list[list[int]]:
    """The ids of prompts; of long ones the last tokens that leave room for so many new ones in the model's context.

    Raises RllabError if no prompt leaves room, or an empty one needs a token that the tokenizer has not.
    """
    context = policy.text.context
    if context is not None and new_tokens >= context:
        raise RllabError(f"Responses of {new_tokens} tokens leave no room for prompts in a context of {context}.")
    name = tokenizer.special.begin or tokenizer.special.end
    rows = []
    for ids in tokenizer.encode_batch(list(prompts)):
        if not ids and name is None:
            raise RllabError("An empty prompt needs a tokenizer with a begin or an end token; give prompts.")
        row = policy.text.prompt(ids or [tokenizer.vocabulary[str(name)]])
        rows.append(row if context is None else row[-(context - new_tokens) :])
    return rows


def responses_in_parts(
    policy: TextPolicy, tokenizer: Tokenizer, rows: Sequence[Sequence[int]], drawing: ResponsesConfig, seed: int
) -> list[Responses]:  # fmt: skip
    """A response to each prompt, some prompts at a time."""
    seeds = row_seeds(seed, len(rows))
    return [
        respond(policy, tokenizer, rows[start : start + _AT_ONCE], seeds[start : start + _AT_ONCE], drawing)
        for start in range(0, len(rows), _AT_ONCE)
    ]


def sampled_texts(
    model: nn.Module, tokenizer: Tokenizer, prompts: Sequence[str], drawing: ResponsesConfig, seed: int = 0
) -> tuple[list[str], list[str]]:  # fmt: skip
    """The prompts as the model saw them, and a response to each."""
    policy = writer(model, tokenizer, drawing)
    rows = prompt_ids(policy, tokenizer, prompts, drawing.maximum_new_tokens)
    parts = responses_in_parts(policy, tokenizer, rows, drawing, seed)
    return [text for part in parts for text in part.prompts], [text for part in parts for text in part.texts]


def writer(model: nn.Module, tokenizer: Tokenizer, drawing: ResponsesConfig) -> TextPolicy:
    """A model as a policy that only writes."""
    device = next(model.parameters()).device
    return TextPolicy(
        model.eval(), TextPolicyConfig("none"), tokenizer=tokenizer, temperature=drawing.temperature, device=device
    )


def best_of_n(
    model: nn.Module, tokenizer: Tokenizer, prompts: Sequence[str], reward: TextReward, n: int,
    drawing: ResponsesConfig | None = None, seed: int = 0,
) -> list[Best]:  # fmt: skip
    """Draw n responses to each prompt and keep the best; of equally good ones the first.

    Raises:
        RllabError: n is below 1, the reward failed, or the model writes no text.
    """
    best_of_n_kl(n)
    drawing = drawing or ResponsesConfig()
    policy = writer(model, tokenizer, drawing)
    rows = prompt_ids(policy, tokenizer, prompts, drawing.maximum_new_tokens)
    parts = responses_in_parts(policy, tokenizer, [row for row in rows for _ in range(n)], drawing, seed)
    given = [text for part in parts for text in part.prompts]
    texts = [text for part in parts for text in part.texts]
    finished = [ended for part in parts for ended in part.finished.tolist()]
    scores = score(reward, given, texts).reshape(-1, n)
    best = scores.argmax(1) + np.arange(len(rows)) * n
    return [
        Best(prompt, texts[place], float(scores.flat[place]), float(some.mean()), finished[place])
        for prompt, place, some in zip(prompts, best.tolist(), scores, strict=True)
    ]


def rejection_sampled(best: Sequence[Best], *, share: float = 1.0) -> list[Demonstration]:
    """What supervised fine-tuning learns from: the best responses, or of them the share with the highest rewards.

    Empty ones are left out. Raises RllabError if the share is not in (0, 1], or nothing is left.
    """
    if not 0 < share <= 1:
        raise RllabError(f"The share of the best responses must lie in (0, 1], not {share}.")
    kept = sorted((each for each in best if each.response.strip()), key=lambda each: -each.score)
    kept = kept[: math.ceil(share * len(kept))]
    if not kept:
        raise RllabError("All best responses are empty, so that there is nothing to learn from; draw longer ones.")
    return [Demonstration(each.prompt, each.response) for each in kept]


def write_demonstrations(path: Path | str, demonstrations: Sequence[Demonstration]) -> None:
    """As JSON lines of `prompt` and `completion`, which `rllab language sft` reads."""
    lines = [json.dumps({"prompt": d.prompt, "completion": d.completion}, ensure_ascii=False) for d in demonstrations]
    with explained_write_errors(Path(path)):
        write_atomically(Path(path), ("\n".join(lines) + "\n").encode())
