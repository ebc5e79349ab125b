"""Tiny files of preferences: responses with many a's are better, whatever the prompt; and models to learn from them."""

import json
import random
from pathlib import Path
from typing import Any

from tiny_texts import gpt, tokenizer

from language.models.folder import save_model

PROMPTS = ("ab", "c", "dead", "face", "h", "cab", "gab", "bade", "fed", "hag", "b", "gag", "ebb", "add", "egg", "head")


def response(chosen: random.Random, letters: str) -> str:
    """A few letters."""
    return "".join(chosen.choices(letters, k=chosen.randint(3, 6)))


def records(count: int = 96, seed: int = 0) -> list[dict[str, Any]]:
    """Comparisons whose chosen response has a's where the rejected one has h's."""
    chosen = random.Random(seed)
    return [
        {
            "prompt": PROMPTS[number % len(PROMPTS)],
            "chosen": response(chosen, "aab") + "a",
            "rejected": response(chosen, "hhb") + "h",
        }
        for number in range(count)
    ]  # fmt: skip


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def model_folder(path: Path, **changes: Any) -> Path:
    """A model with random weights."""
    save_model(path, gpt(**changes), tokenizer())
    return path
