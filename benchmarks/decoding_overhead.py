"""What decoding adds to a model's own step: a model that costs nothing, 1,024 tokens, one thread.

    .venv/bin/python benchmarks/decoding_overhead.py

The peer is what a step of Hugging Face's `generate` does with logits: its processors, softmax and multinomial, or
argmax; without what its loop adds.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from language.decoding import DecodingConfig, generate

NEW = 96
PROMPT = 32
VOCABULARY = 1024
RUNS = 15
SETTINGS: dict[str, tuple[dict[str, Any], list[tuple[str, float]]]] = {
    "greedy": ({"temperature": 0}, []),
    "drawn": ({}, []),
    "temperature": ({"temperature": 0.8}, [("TemperatureLogitsWarper", 0.8)]),
    "top-k 50": ({"top_k": 50}, [("TopKLogitsWarper", 50)]),
    "top-p .9": ({"top_p": 0.9}, [("TopPLogitsWarper", 0.9)]),
    "top-k 50, top-p .9": ({"top_k": 50, "top_p": 0.9}, [("TopKLogitsWarper", 50), ("TopPLogitsWarper", 0.9)]),
    "min-p .05": ({"min_p": 0.05}, [("MinPLogitsWarper", 0.05)]),
    "repetition penalty": ({"repetition_penalty": 1.2}, [("RepetitionPenaltyLogitsProcessor", 1.2)]),
}


def random_logits(rows: int) -> Tensor:
    """The logits that every step has."""
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(0)) * 3


class Free:
    """A model that gives the same logits whatever it reads."""

    context = None
    vocabulary_size = VOCABULARY

    def __init__(self, rows: int) -> None:
        self.logits = random_logits(rows)

    def begin(self, tokens: Tensor, valid: Tensor, capacity: int) -> tuple[Tensor, None]:
        """The logits."""
        return self.logits, None

    def step(self, tokens: Tensor, state: None) -> Tensor:
        """The same logits."""
        return self.logits

    def select(self, state: None, rows: Tensor) -> None:
        """Nothing to select."""
        return None


def milliseconds(run: Callable[[], object]) -> float:
    """Of one of `NEW` steps, by the thread's own time: the best run, since others on the machine can only add to it."""
    taken = []
    for _ in range(RUNS):
        start = time.thread_time()
        run()
        taken.append((time.thread_time() - start) / NEW * 1000)
    return min(taken)


def ours(rows: int, log_probabilities: bool, settings: dict[str, Any]) -> float:
    """A step of `generate`."""
    model, tokens = Free(rows), torch.zeros(rows, PROMPT, dtype=torch.int64)
    config = DecodingConfig(maximum_new_tokens=NEW, **settings)
    return milliseconds(lambda: generate(model, tokens, None, config, log_probabilities=log_probabilities))


def peer(rows: int, is_greedy: bool, processors: list[tuple[str, float]]) -> float:
    """A step's logits by Hugging Face's processors, in inference mode as above."""
    from transformers.generation import logits_process

    steps = [getattr(logits_process, name)(argument) for name, argument in processors]
    logits, tokens = random_logits(rows), torch.zeros(rows, PROMPT + NEW, dtype=torch.int64)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(NEW):
                scores = logits
                for step in steps:
                    scores = step(tokens, scores)
                scores.argmax(-1) if is_greedy else torch.multinomial(scores.softmax(-1), 1)

    return milliseconds(run)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(
        "| ms a step | batch 1 | 16 | 64 | 64, with log-probabilities | Hugging Face's, 64 |\n|---|---|---|---|---|---|"
    )
    for name, (settings, processors) in SETTINGS.items():
        cells = [ours(rows, False, settings) for rows in (1, 16, 64)]
        cells += [ours(64, True, settings), peer(64, name == "greedy", processors)]
        print(f"| {name} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
