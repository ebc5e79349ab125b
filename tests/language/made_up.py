"""Sentences of a few words, for tests that need text and do not care what it says."""

import random

WORDS = [
    "the",
    "a",
    "film",
    "plot",
    "actor",
    "scene",
    "was",
    "is",
    "seems",
    "good",
    "bad",
    "slow",
    "funny",
    "and",
    "but",
    "very",
    "never",
]


def sentence(chosen: random.Random, words: int) -> str:
    """So many words."""
    return " ".join(chosen.choices(WORDS, k=words))
