"""The symbols that words begin as, before any are merged: the characters of a corpus."""

from collections import Counter
from collections.abc import Iterable, Mapping

from envs.errors import RllabError


def find_alphabet(counts: Mapping[str, int], required: Iterable[str] = (), limit: int | None = None) -> list[str]:
    """The characters of a corpus, in the order of their code points.

    Args:
        counts: how often each word occurs.
        required: characters that belong to it in any case.
        limit: how many there may be; the most frequent stay, of equally frequent ones those of lower code points.
    """
    characters: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
    required = set(required)
    if limit is not None and len(characters.keys() | required) > limit:
        ranked = sorted(characters.keys() - required, key=lambda character: (-characters[character], character))
        return sorted(required | set(ranked[: max(limit - len(required), 0)]))
    return sorted(characters.keys() | required)


def check_size(size: int, special: int, symbols: int, remedy: str) -> None:
    """Raise RllabError if a vocabulary of `size` cannot hold the special tokens and the symbols of the corpus."""
    if size < special + symbols:
        raise RllabError(
            f"A vocabulary of {size:,} is smaller than the alphabet: the corpus needs {symbols:,} symbols and "
            f"{special:,} special tokens; ask for at least {special + symbols:,}{remedy}."
        )
