"""Frequent substrings of a corpus: the vocabulary that Unigram's training begins with.

Kudo: Subword Regularization (2018), section 3.2, takes the most frequent substrings as seeds. They are found length by
length: a substring of n + 1 characters is one of n and the character after it, so one sort of pairs of numbers a length
names all of them, in time n log n for n characters. Where each begins comes with it, which is what the lattices of the
words are made of; a suffix array would give the counts alone.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

LONGEST_WORD = 512
"""Characters; what is longer is learned from in parts, since a lattice takes a step of NumPy for each."""


@dataclass(frozen=True)
class CountedWords:
    """The different words of a corpus, the shortest first, as one array."""

    text: str
    """All of them, without anything between."""
    starts: Integers
    """`[W + 1]`, where each begins; the last is the length of `text`."""
    counts: Floats
    """`[W]`, how often each occurs."""

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> "CountedWords":
        """Of counted words; long ones are cut."""
        parts: dict[str, int] = {}
        for word, count in counts.items():
            for begin in range(0, len(word), LONGEST_WORD):
                part = word[begin : begin + LONGEST_WORD]
                parts[part] = parts.get(part, 0) + count
        words = sorted(parts, key=lambda word: (len(word), word))
        starts = np.cumsum([0, *map(len, words)])
        return cls("".join(words), starts, np.array([parts[word] for word in words], np.float64))


class Occurrences(NamedTuple):
    """Places in the corpus where seeds stand."""

    begins: Integers
    """`[E]`, the place in `CountedWords.text` of its first character."""
    lengths: Integers
    """`[E]`, how many characters it has."""
    seeds: Integers
    """`[E]`, which seed."""


@dataclass(frozen=True)
class Seeds:
    """The pieces to begin with: all characters first, then the other substrings, the weightiest first."""

    begins: Integers
    """`[S]`, a place where each stands."""
    lengths: Integers
    """`[S]`, its characters."""
    counts: Floats
    """`[S]`, how often it occurs in the corpus."""
    characters: int
    """How many of them are single characters."""
    occurrences: Occurrences
    """Every place of every one of them."""

    def strings(self, text: str) -> list[str]:
        """The pieces themselves, given the text of the words."""
        return [text[begin : begin + length] for begin, length in zip(self.begins, self.lengths, strict=True)]


def find_seeds(words: CountedWords, size: int, longest: int, one_script: bool = False) -> Seeds:
    """The characters of a corpus and its most important substrings.

    A substring counts if it occurs twice and not always before the same character: one that does is never needed, since
    the longer one serves as well. Importance is the count times the length, as sentencepiece's trainer has it.

    Args:
        words: the corpus.
        size: how many seeds there may be; the characters are among them in any case.
        longest: how many characters a seed may have.
        one_script: whether it may have letters of one script alone, or no letters (see `script`).
    """
    codes = np.frombuffer(words.text.encode("utf-32-le", "surrogatepass"), np.uint32)
    alphabet, letters = np.unique(codes, return_inverse=True)
    word_lengths = np.diff(words.starts)
    weights = np.repeat(words.counts, word_lengths)
    ends = np.repeat(words.starts[1:], word_lengths)
    scripts = _numbered_scripts(alphabet)[letters] if one_script else np.zeros(len(codes), np.int64)
    # Whether a piece may go on after a character: 0 is the script of what goes with any.
    goes_on = (scripts[:-1] == scripts[1:]) | (scripts[:-1] == 0) | (scripts[1:] == 0)

    begins, names = np.arange(len(codes)), letters.astype(np.int64)
    counts = _summed(names, weights, len(alphabet))
    found: list[tuple[Integers, Integers, Floats, Flags]] = []
    for length in range(1, longest + 1):
        # The next length first: it says which of this one are always followed by the same character.
        longer = (begins + length < ends[begins]) & (counts[names] >= 2)
        longer[longer] = goes_on[begins[longer] + length - 1]
        parents, next_begins = names[longer], begins[longer]
        keys, next_names = np.unique(parents * len(alphabet) + letters[next_begins + length], return_inverse=True)
        next_counts = _summed(next_names, weights[next_begins], len(keys))
        commonest = np.zeros(len(counts))
        np.maximum.at(commonest, keys // len(alphabet), next_counts)
        wanted: Flags = np.full(len(counts), length == 1) | ((counts >= 2) & (counts > commonest))
        found.append((begins, names, counts, wanted))
        begins, names, counts = next_begins, next_names, next_counts
    return _chosen(found, size)


def _summed(names: Integers, weights: Floats, size: int) -> Floats:
    return np.bincount(names, weights, size).astype(np.float64, copy=False)


def script(character: str) -> str | None:
    """The script of a letter by the first word of its Unicode name, `COMMON` of other signs, None for spaces and `▁`.

    Kana count as Chinese, as in sentencepiece. Marks, which belong to the letter before, have None too.
    """
    if character in " ▁" or unicodedata.category(character).startswith("M"):
        return None
    if not character.isalpha():
        return "COMMON"
    name = unicodedata.name(character, "UNNAMED").partition(" ")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA") else name


def _numbered_scripts(alphabet: NDArray[np.uint32]) -> Integers:
    names = [script(chr(code)) for code in alphabet.tolist()]
    numbers = {name: number for number, name in enumerate(sorted({name for name in names if name}), 1)}
    return np.array([numbers[name] if name else 0 for name in names])


def _chosen(found: list[tuple[Integers, Integers, Floats, Flags]], size: int) -> Seeds:
    characters = len(found[0][2])
    weight = np.concatenate([counts * length for length, (_, _, counts, _) in enumerate(found, 1)])
    wanted = np.concatenate([wanted for _, _, _, wanted in found])
    weight[:characters] = np.inf
    order = np.argsort(-weight, kind="stable")
    order = order[wanted[order]][: max(size, characters)]
    number = np.full(len(weight), -1)
    number[order] = np.arange(len(order))

    occurrences = []
    first = 0
    for length, (begins, names, counts, _) in enumerate(found, 1):
        seeds = number[first + names]
        kept = seeds >= 0
        occurrences.append((begins[kept], np.full(np.count_nonzero(kept), length), seeds[kept]))
        first += len(counts)
    places = Occurrences(*(np.concatenate(column) for column in zip(*occurrences, strict=True)))
    representatives = np.zeros(len(order), np.int64)
    representatives[places.seeds] = places.begins
    lengths = np.zeros(len(order), np.int64)
    lengths[places.seeds] = places.lengths
    all_counts = np.concatenate([counts for _, _, counts, _ in found])
    return Seeds(representatives, lengths, all_counts[order], characters, places)
