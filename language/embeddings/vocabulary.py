"""Words of texts: how they are found, how often each occurs, and a corpus as numbers on disk."""

import itertools
import re
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from rllab.files import explained_write_errors

WordsOf: TypeAlias = Callable[[str], Sequence[str]]
"""Cuts a text into words."""

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+")
_TEXTS_A_WRITE = 4096


def words_of(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters, apostrophes inside them included, and runs of digits."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True)
class WordVocabulary:
    """Words by falling frequency, equally frequent ones in alphabetical order, each with its count."""

    words: tuple[str, ...]
    counts: NDArray[np.int64]
    """`[V]`, of the whole corpus."""
    index: dict[str, int] = field(repr=False)
    """The place of each word."""

    @classmethod
    def of_counts(
        cls, counts: Counter[str], minimum_count: int = 1, maximum_size: int | None = None
    ) -> "WordVocabulary":
        """The words that occur at least so often, of those the most frequent.

        Raises:
            RllabError: there is no word, or none is frequent enough.
        """
        if not counts:
            raise RllabError("The corpus has no words; give texts that are not empty.")
        kept = sorted((-count, word) for word, count in counts.items() if count >= minimum_count)[:maximum_size]
        if not kept:
            most = max(counts.values())
            raise RllabError(f"No word occurs {minimum_count} times (at most {most}); lower the minimum count.")
        words = tuple(word for _, word in kept)
        return cls(words, np.array([-count for count, _ in kept]), {word: place for place, word in enumerate(words)})

    @classmethod
    def of_texts(
        cls, texts: Iterable[str], words: WordsOf = words_of, minimum_count: int = 1, maximum_size: int | None = None
    ) -> "WordVocabulary":
        """Count the words of texts, one text after another. Raises RllabError as `of_counts` does."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(words(text))
        return cls.of_counts(counts, minimum_count, maximum_size)

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, words: Iterable[str]) -> list[int]:
        """The places of words; those that are not in the vocabulary are left out."""
        return [place for word in words if (place := self.index.get(word)) is not None]


@dataclass(frozen=True)
class Corpus:
    """The known words of texts as numbers in a temporary file, mapped into memory: larger than memory if need be."""

    vocabulary: WordVocabulary
    ids: NDArray[np.int32]
    """`[n]`, all texts one after another."""
    starts: NDArray[np.int64]
    """`[texts + 1]`, where each text begins; the last is n."""

    @classmethod
    def of_texts(
        cls, texts: Iterable[str], words: WordsOf = words_of, *, minimum_count: int = 1,
        maximum_size: int | None = None, folder: Path | None = None,
    ) -> "Corpus":  # fmt: skip
        """Read the texts twice: to count the words, and to number them. Words too rare for the vocabulary are left out.

        Args:
            texts: something that can be iterated over twice.
            words: cuts a text into words.
            minimum_count: rarer words are left out.
            maximum_size: of the vocabulary.
            folder: for the temporary file, 4 bytes a word; by default the system's.

        Raises:
            RllabError: the texts can be read only once, have no words, or the disk is full.
        """
        if iter(texts) is texts:
            raise RllabError("The texts are read twice; give a list, or what language.data.open_texts returns.")
        vocabulary = WordVocabulary.of_texts(texts, words, minimum_count, maximum_size)
        return cls._numbered(vocabulary, map(words, texts), folder)

    @classmethod
    def _numbered(cls, vocabulary: WordVocabulary, sentences: Iterator[Sequence[str]], folder: Path | None) -> "Corpus":
        starts = array("q", [0])
        place = Path(tempfile.gettempdir()) if folder is None else folder
        with explained_write_errors(place), tempfile.TemporaryFile(dir=folder) as file:
            while batch := list(itertools.islice(sentences, _TEXTS_A_WRITE)):
                encoded = [vocabulary.encode(sentence) for sentence in batch]
                starts.extend(starts[-1] + np.cumsum([len(ids) for ids in encoded]))
                np.fromiter(itertools.chain.from_iterable(encoded), np.int32).tofile(file)
            file.flush()
            # The map keeps the unnamed file alive.
            ids = np.memmap(file, np.int32, mode="r", shape=(starts[-1],))
        return cls(vocabulary, ids, np.frombuffer(starts, np.int64))

    def __len__(self) -> int:
        return len(self.ids)

    def chunks(self, size: int) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64]]]:
        """Pieces of the corpus: ids `[m]`, m ≤ size, and the number of the text each stands in `[m]`."""
        for begin in range(0, len(self), size):
            ids = np.asarray(self.ids[begin : begin + size])
            places = np.arange(begin, begin + len(ids))
            yield ids, np.searchsorted(self.starts, places, side="right") - 1
