"""A tiny GPT over a dozen characters, with prompts and a reward, for tests of fine-tuning from rewards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from language.models.folder import save_model
from language.models.gpt import GPT, GPTConfig
from language.preferences.collect import RewardConfig, TextCollector
from language.preferences.policy import TextPolicy, TextPolicyConfig, ValueHead
from language.preferences.responses import ResponsesConfig
from language.tokenizers.character import CharacterLevel, CharacterLevelConfig
from language.tokenizers.special import SpecialTokens

LETTERS = "abcdefgh "
RESPONSE = 8
"""T, the longest response."""
PROMPTS = ("ab", "c", "dead beef", "face", "h", "cab a")
"""Of different lengths."""


def tokenizer() -> CharacterLevel:
    """Eleven tokens: an unknown, an end, and the letters."""
    config = CharacterLevelConfig(special=SpecialTokens(unknown="<unk>", end="<end>"))
    return CharacterLevel.train([LETTERS], config)


def write_model_and_prompts(path: Path) -> Path:
    """`model`, with random weights, and `prompts.txt`, in a folder."""
    save_model(path / "model", gpt(), tokenizer())
    (path / "prompts.txt").write_text("\n".join([*PROMPTS, "gab", "hh", "fed a", "bade"]) + "\n")
    return path


def gpt(seed: int = 0, **changes: Any) -> GPT:
    """Random weights, large enough for its tokens to have clearly different probabilities."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"layers": 2, "heads": 2, "width": 16, "initial_std": 0.2, "dropout": 0.1}
    return GPT(GPTConfig(len(tokenizer()), 24, **{**sizes, **changes}))


def policy(
    value_head: ValueHead = "separate", frozen_layers: int = 0, temperature: float = 1.0, **changes: Any
) -> TextPolicy:  # fmt: skip
    """A policy of such a model; its value head is not 0, so that values are."""
    made = TextPolicy(
        gpt(**changes), TextPolicyConfig(value_head, frozen_layers), tokenizer=tokenizer(), temperature=temperature
    )  # fmt: skip
    if made.module.value is not None:
        torch.nn.init.normal_(made.module.value.weight, std=0.3)
    return made


def share_of_a(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """How much of the longest response is the letter a."""
    return [response.count("a") / RESPONSE for response in responses]


def collector(
    responses: int = 32, group_size: int = 1, seed: int = 0, temperature: float = 1.0, reward: Any = share_of_a,
    truncate_after: int = 0, **rewarding: Any,
) -> TextCollector:  # fmt: skip
    """Responses to `PROMPTS`."""
    letters = tokenizer()
    return TextCollector(
        [letters.ids(prompt) for prompt in PROMPTS], reward, letters, responses=responses, group_size=group_size,
        drawing=ResponsesConfig(RESPONSE, temperature, truncate_after=truncate_after),
        rewarding=RewardConfig(**rewarding), seed=seed,
    )  # fmt: skip
