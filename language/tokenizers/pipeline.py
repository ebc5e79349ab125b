"""From a text to tokens: special tokens first, then the normaliser, the pre-tokeniser, and the model for each word."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

from envs.errors import RllabError
from language.tokenizers.normalisation import Normaliser
from language.tokenizers.pretokenisers import PreTokeniser
from language.tokenizers.special import SpecialTokenMatcher
from language.tokenizers.tokenizer import Encoding, Progress

Piece: TypeAlias = tuple[int, int, int]
"""A token of a word: its id, and the characters of the word that it covers, start and (exclusive) end."""

_LONGEST_CACHED = 256  # characters; longer words hardly come twice
_TEXTS_BETWEEN_REPORTS = 1_000


@dataclass(frozen=True)
class Splitting:
    """How texts become words."""

    normaliser: Normaliser
    """What is done to a text first."""
    pretokeniser: PreTokeniser
    """What splits it."""

    def words(self, text: str) -> list[str]:
        """The words of a text."""
        return self.pretokeniser.words(self.normaliser(text))

    def count(
        self, texts: Iterable[str], special: Iterable[str] = (), progress: Progress | None = None
    ) -> Counter[str]:
        """How often each word occurs. The texts may be more than memory holds, their different words may not.

        Args:
            texts: the corpus.
            special: special tokens, which are no words.
            progress: told the number of texts.

        Raises:
            RllabError: there is no word in the corpus.
        """
        counts: Counter[str] = Counter()
        matcher = SpecialTokenMatcher(dict.fromkeys(special, 0))
        for number, text in enumerate(texts, 1):
            if matcher.occurs_in(text):
                for start, end, token_id in matcher.split(text):
                    if token_id is None:
                        counts.update(self.words(text[start:end]))
            else:
                counts.update(self.words(text))
            if progress is not None and number % _TEXTS_BETWEEN_REPORTS == 0:
                progress("counting words", number, 0)
        if not counts:
            raise RllabError("The corpus is empty: there is no word to learn from; give texts that have some.")
        return counts


class _Cache(dict[str, list[int]]):
    """The ids of words, computed when first asked for; forgets all once it is full."""

    def __init__(self, segment: Callable[[str], list[Piece]], capacity: int) -> None:
        super().__init__()
        self._segment, self._capacity = segment, capacity

    def __missing__(self, word: str) -> list[int]:
        ids = [token_id for token_id, _, _ in self._segment(word)]
        if len(word) <= _LONGEST_CACHED:
            if len(self) >= self._capacity:
                self.clear()
            self[word] = ids
        return ids


class Pipeline:
    """All that encodes a text but for the model, which is given as a function of a word."""

    def __init__(
        self,
        splitting: Splitting,
        segment: Callable[[str], list[Piece]],
        tokens: list[str],
        special_ids: dict[str, int],
        cache_capacity: int = 200_000,
    ) -> None:
        """Put the parts together.

        Args:
            splitting: how texts become words.
            segment: the model: the tokens of a word.
            tokens: the token of each id.
            special_ids: the id of each special token.
            cache_capacity: how many words' ids are kept.
        """
        self.splitting, self.tokens = splitting, tokens
        self._segment = segment
        self._matcher = SpecialTokenMatcher(special_ids)
        self._cache = _Cache(segment, cache_capacity)

    def ids(self, text: str) -> list[int]:
        """The ids of a text."""
        if not self._matcher.occurs_in(text):
            return self._plain_ids(text)
        ids: list[int] = []
        for start, end, special in self._matcher.split(text):
            if special is None:
                ids += self._plain_ids(text[start:end])
            else:
                ids.append(special)
        return ids

    def _plain_ids(self, text: str) -> list[int]:
        return list(chain.from_iterable(map(self._cache.__getitem__, self.splitting.words(text))))

    def encode(self, text: str) -> Encoding:
        """The tokens of a text with their offsets."""
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for start, end, special in self._matcher.split(text):
            if special is not None:
                ids.append(special)
                offsets.append((start, end))
                continue
            normalised, starts, ends = self.splitting.normaliser.aligned(text[start:end])
            for first, last in self.splitting.pretokeniser.spans(normalised):
                for token_id, a, b in self._segment(normalised[first:last]):
                    ids.append(token_id)
                    offsets.append((start + starts[first + a], start + ends[first + b - 1]))
        return Encoding(ids, [self.tokens[token_id] for token_id in ids], offsets)


def unknown_character(character: str) -> RllabError:
    """What to raise for a character that is not in the vocabulary, where there is no token for the unknown."""
    return RllabError(
        f"The vocabulary has no token for {character!r} (U+{ord(character):04X}), and there is none for the unknown; "
        "train with an unknown token, or with a byte-level kind, which has a token for everything."
    )
