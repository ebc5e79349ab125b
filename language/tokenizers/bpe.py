"""Byte-pair encoding over the characters of words.

Sennrich, Haddow, Birch: Neural Machine Translation of Rare Words with Subword Units (2016). The end of a word is marked
(section 3.2), so that decoding knows where the spaces were.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import Any, ClassVar, Self

from envs.errors import RllabError
from language.tokenizers.alphabet import check_size, find_alphabet
from language.tokenizers.huggingface import read_merges, tokenizer_document
from language.tokenizers.merges import CountedPairs, apply_merges, learn_merges, merge_table
from language.tokenizers.normalisation import Normaliser, NormaliserName
from language.tokenizers.pipeline import Piece, Pipeline, Splitting, unknown_character
from language.tokenizers.pretokenisers import PreTokeniser, PreTokeniserName
from language.tokenizers.settings import from_settings, to_settings
from language.tokenizers.special import UNKNOWN_ONLY, SpecialTokens
from language.tokenizers.tokenizer import Progress, Tokenizer


@dataclass(frozen=True)
class BPEConfig:
    """How byte-pair encoding is trained."""

    vocabulary_size: int = 30_000
    """Tokens, special ones and characters included. (Hugging Face's default.)"""
    minimum_count: int = 1
    """Pairs that occur less often are not merged."""
    alphabet_limit: int | None = None
    """Keep only so many characters, the most frequent; others are unknown then."""
    end_of_word: str = "</w>"
    """Marks the last symbol of a word, as in the paper. Without it (\"\") decoding puts a space after every token."""
    normaliser: NormaliserName = "none"
    """What is done to a text first."""
    pretokeniser: PreTokeniserName = "whitespace"
    """What splits a text into words."""
    special: SpecialTokens = UNKNOWN_ONLY
    """The special tokens."""


class BPE(Tokenizer):
    """Words as the fewest pieces that merging frequent pairs has made; what is not in the alphabet is unknown."""

    kind: ClassVar[str] = "bpe"

    def __init__(self, vocabulary: dict[str, int], merges: Sequence[tuple[str, str]], config: BPEConfig) -> None:
        """Use a vocabulary and its merges in their order.

        Raises RllabError if a merge has a token that the vocabulary lacks.
        """
        super().__init__(vocabulary, config.special)
        self.config, self.merges = config, list(merges)
        try:
            self._table = merge_table(self.merges, vocabulary, add)
        except KeyError as error:
            raise RllabError(
                f"The vocabulary has no token {error}, which its merges need; give matching files."
            ) from None
        self._pipeline = Pipeline(
            Splitting(Normaliser(config.normaliser), PreTokeniser(config.pretokeniser)),
            self._segment,
            self.tokens,
            self.special_ids,
        )

    @classmethod
    def train(cls, texts: Iterable[str], config: BPEConfig | None = None, progress: Progress | None = None) -> Self:
        """Learn a vocabulary from texts, which are read once.

        Raises RllabError if there are no words, or more characters than the vocabulary may have tokens.
        """
        config = config or BPEConfig()
        splitting = Splitting(Normaliser(config.normaliser), PreTokeniser(config.pretokeniser))
        counts = splitting.count(texts, config.special.tokens(), progress)
        tokens, merges = train_on_words(counts, config, progress)
        return cls({token: token_id for token_id, token in enumerate(tokens)}, merges, config)

    def _segment(self, word: str) -> list[Piece]:
        symbols = [self.vocabulary.get(character, -1) for character in word]
        if self.config.end_of_word:
            symbols[-1] = self.vocabulary.get(word[-1] + self.config.end_of_word, -1)
        if -1 in symbols:
            unknown = self.special.unknown
            if unknown is None:
                raise unknown_character(word[symbols.index(-1)])
            symbols = [self.vocabulary[unknown] if symbol < 0 else symbol for symbol in symbols]
        pieces, start = [], 0
        for token_id, length in apply_merges(symbols, self._table):
            pieces.append((token_id, start, start + length))
            start += length
        return pieces

    def decode(self, ids: Sequence[int], keep_special: bool = False) -> str:
        tokens = self.spoken(ids, keep_special)
        mark = self.config.end_of_word
        if not mark:
            return " ".join(tokens)
        return "".join(
            token.replace(mark, " " if number < len(tokens) else "") for number, token in enumerate(tokens, 1)
        )

    def engine_refusal(self) -> str | None:
        if self.special.unknown is None:
            return "without an unknown token it leaves unknown characters out and says nothing"
        return None

    def to_huggingface(self) -> dict[str, Any]:
        mark = self.config.end_of_word
        return tokenizer_document(
            bpe_model(self.vocabulary, self.merges, unknown=self.special.unknown, end_of_word=mark or None),
            self.special_ids,
            normaliser=Normaliser(self.config.normaliser).to_huggingface(),
            pretokeniser=PreTokeniser(self.config.pretokeniser).to_huggingface(),
            decoder={"type": "BPEDecoder", "suffix": mark} if mark else None,
        )

    def settings(self) -> dict[str, Any]:
        return to_settings(self.config)

    @classmethod
    def restore(cls, document: dict[str, Any], settings: dict[str, Any]) -> Self:
        model = document["model"]
        return cls(model["vocab"], read_merges(model), from_settings(BPEConfig, settings))


def train_on_words(
    counts: Mapping[str, int], config: BPEConfig, progress: Progress | None = None
) -> tuple[list[str], list[tuple[str, str]]]:
    """Byte-pair encoding of counted words, the part of training that comes after splitting.

    Args:
        counts: how often each word occurs.
        config: of which the normaliser and the pre-tokeniser are not looked at.
        progress: told the number of tokens.

    Returns:
        The tokens in the order of their ids, and the merges in their order.
    """
    alphabet = find_alphabet(counts, limit=config.alphabet_limit)
    mark = config.end_of_word
    symbols = alphabet + ([character + mark for character in alphabet] if mark else [])
    special = config.special.tokens()
    remedy = ", or set an alphabet_limit"
    check_size(config.vocabulary_size, len(special), len(set(symbols) - set(special)), remedy)
    tokens = list(dict.fromkeys([*special, *symbols]))
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    words = []
    for word in counts:
        symbols_of_word = [ids.get(character) for character in word]
        if mark:
            symbols_of_word[-1] = ids.get(word[-1] + mark)
        words.append([symbol for symbol in symbols_of_word if symbol is not None])
    pairs = CountedPairs(words, list(counts.values()))
    merges = learn_merges(pairs, tokens, config.vocabulary_size, add, config.minimum_count, progress)
    return tokens, merges_as_tokens(merges, tokens)


def merges_as_tokens(merges: Iterable[tuple[int, int]], tokens: Sequence[str]) -> list[tuple[str, str]]:
    """Merges of ids as merges of tokens."""
    return [(tokens[first], tokens[second]) for first, second in merges]


def bpe_model(
    vocabulary: dict[str, int],
    merges: Sequence[tuple[str, str]],
    *,
    unknown: str | None = None,
    end_of_word: str | None = None,
    byte_fallback: bool = False,
) -> dict[str, Any]:
    """The `model` of a `tokenizer.json` for byte-pair encoding."""
    return {
        "type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
        "end_of_word_suffix": end_of_word, "fuse_unk": False, "byte_fallback": byte_fallback, "ignore_merges": False,
        "vocab": vocabulary, "merges": [list(merge) for merge in merges],
    }  # fmt: skip
