"""What decoding adds to a model's own step: a model that costs nothing, 1,024 tokens, one thread.

    .venv/bin/python benchmarks/decoding_overhead.py
"""

import time
from typing import Any

import torch
from torch import Tensor

from language.decoding import DecodingConfig, generate

NEW = 96
PROMPT = 32
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "drawn": {},
    "temperature": {"temperature": 0.8},
    "top-k 50": {"top_k": 50},
    "top-p .9": {"top_p": 0.9},
    "top-k 50, top-p .9": {"top_k": 50, "top_p": 0.9},
    "min-p .05": {"min_p": 0.05},
    "repetition penalty": {"repetition_penalty": 1.2},
    "frequency, presence": {"frequency_penalty": 0.5, "presence_penalty": 0.5},
}


class Free:
    """Gives the same logits whatever it reads."""

    context = None

    def __init__(self, rows: int, vocabulary: int) -> None:
        self.vocabulary_size = vocabulary
        self.logits = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(0)) * 3

    def begin(self, tokens: Tensor, valid: Tensor, capacity: int) -> tuple[Tensor, None]:
        return self.logits, None

    def step(self, tokens: Tensor, state: None) -> Tensor:
        return self.logits

    def select(self, state: None, rows: Tensor) -> None:
        return None


def milliseconds(rows: int, vocabulary: int, log_probabilities: bool, **settings: Any) -> float:
    """Of one step, the median of seven runs."""
    model, tokens = Free(rows, vocabulary), torch.zeros(rows, PROMPT, dtype=torch.int64)
    config = DecodingConfig(maximum_new_tokens=NEW, **settings)
    taken = []
    for _ in range(7):
        start = time.perf_counter()
        generate(model, tokens, None, config, log_probabilities=log_probabilities)
        taken.append((time.perf_counter() - start) / NEW * 1000)
    return sorted(taken)[3]


def main() -> None:
    torch.set_num_threads(1)
    print("| ms a step, 1,024 tokens | batch 1 | 16 | 64 | 64, with log-probabilities |\n|---|---|---|---|---|")
    for name, settings in SETTINGS.items():
        cells = [milliseconds(rows, 1024, False, **settings) for rows in (1, 16, 64)]
        cells.append(milliseconds(64, 1024, True, **settings))
        print(f"| {name} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")


if __name__ == "__main__":
    main()
