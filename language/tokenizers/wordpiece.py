"""WordPiece: words as the longest pieces of a vocabulary, from the left; pieces inside of a word begin with `##`.

Schuster, Nakajima: Japanese and Korean Voice Search (2012); Wu et al.: Google's Neural Machine Translation System
(2016), section 4.1; the way of encoding is BERT's (Devlin et al., 2019).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from envs.errors import RllabError
from language.tokenizers.alphabet import check_size, find_alphabet
from language.tokenizers.huggingface import tokenizer_document
from language.tokenizers.likelihood_merges import learn_likelihood_merges
from language.tokenizers.merges import CountedPairs, learn_merges
from language.tokenizers.normalisation import Normaliser, NormaliserName
from language.tokenizers.pipeline import Piece, Pipeline, Splitting
from language.tokenizers.pretokenisers import PreTokeniser, PreTokeniserName
from language.tokenizers.settings import from_settings, to_settings
from language.tokenizers.special import SpecialTokens
from language.tokenizers.tokenizer import Progress, Tokenizer

PREFIX = "##"
"""Begins the pieces that continue a word."""
BERT_SPECIAL = SpecialTokens(
    padding="[PAD]", unknown="[UNK]", classifier="[CLS]", separator="[SEP]", mask="[MASK]"
)  # fmt: skip
"""BERT's special tokens."""


@dataclass(frozen=True)
class WordPieceConfig:
    """How WordPiece is trained."""

    vocabulary_size: int = 30_000
    """Tokens, special ones and characters included. (Hugging Face's default; BERT has 30,522.)"""
    score: Literal["count", "likelihood"] = "count"
    """Which pair is merged: the most frequent, as in byte-pair encoding and in Hugging Face's trainer; or the one of
    the highest freq(pair) / (freq(first) · freq(second)), which prefers rare characters that occur together, and
    makes longer encodings."""
    minimum_count: int = 1
    """Pairs that occur less often are not merged."""
    alphabet_limit: int | None = None
    """Keep only so many characters, the most frequent; words with others are unknown then. (BERT: 1,000.)"""
    longest_word: int = 100
    """Words of more characters are unknown. (BERT's.)"""
    normaliser: NormaliserName = "bert"
    """What is done to a text first."""
    pretokeniser: PreTokeniserName = "bert"
    """What splits a text into words."""
    special: SpecialTokens = BERT_SPECIAL
    """The special tokens; there must be an unknown one."""

    def __post_init__(self) -> None:
        if self.special.unknown is None:
            raise RllabError("WordPiece needs an unknown token: it stands for words that no pieces make up.")


class WordPiece(Tokenizer):
    """Words as the longest pieces from the left; a word that cannot be made of pieces is unknown as a whole."""

    kind: ClassVar[str] = "wordpiece"

    def __init__(self, vocabulary: dict[str, int], config: WordPieceConfig) -> None:
        """Use a vocabulary."""
        super().__init__(vocabulary, config.special)
        self.config = config
        assert config.special.unknown is not None
        self._unknown = vocabulary[config.special.unknown]
        self._longest = max(len(token.removeprefix(PREFIX)) for token in vocabulary)
        # Without their prefix, so that a piece of a word is looked up as it stands.
        self._continuing = {
            token.removeprefix(PREFIX): token_id for token, token_id in vocabulary.items() if token.startswith(PREFIX)
        }
        self._pipeline = Pipeline(
            Splitting(Normaliser(config.normaliser), PreTokeniser(config.pretokeniser)),
            self._segment,
            self.tokens,
            self.special_ids,
        )

    @classmethod
    def train(
        cls, texts: Iterable[str], config: WordPieceConfig | None = None, progress: Progress | None = None
    ) -> Self:
        """Learn a vocabulary from texts, which are read once.

        Raises RllabError if there are no words, or more characters than the vocabulary may have tokens.
        """
        config = config or WordPieceConfig()
        special = config.special.tokens()
        splitting = Splitting(Normaliser(config.normaliser), PreTokeniser(config.pretokeniser))
        counts = splitting.count(texts, special, progress)
        alphabet = find_alphabet(counts, limit=config.alphabet_limit)
        symbols = dict.fromkeys([*alphabet, *(PREFIX + character for character in alphabet)])
        remedy = ", or set an alphabet_limit"
        check_size(config.vocabulary_size, len(special), len(symbols.keys() - set(special)), remedy)
        tokens = list(dict.fromkeys([*special, *symbols]))
        ids = {token: token_id for token_id, token in enumerate(tokens)}
        words = []
        for word in counts:
            found = [ids.get(PREFIX + character if place else character) for place, character in enumerate(word)]
            words.append([symbol for symbol in found if symbol is not None])
        learn = learn_merges if config.score == "count" else learn_likelihood_merges
        pairs = CountedPairs(words, list(counts.values()))
        learn(pairs, tokens, config.vocabulary_size, _join, config.minimum_count, progress)
        return cls({token: token_id for token_id, token in enumerate(tokens)}, config)

    @classmethod
    def from_vocabulary_file(cls, path: Path | str, config: WordPieceConfig | None = None) -> Self:
        """The tokenizer of a `vocab.txt` in BERT's format: a token a line, the first with the id 0.

        Args:
            path: the file.
            config: of which the special tokens, normaliser, pre-tokeniser and longest word count; by default those of
                uncased BERT.

        Raises:
            RllabError: the file cannot be read, has a token twice, or lacks a special token.
        """
        try:
            tokens = Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except OSError as error:
            raise RllabError(f"{path} cannot be read ({error.strerror}); check the path.") from error
        except UnicodeDecodeError as error:
            raise RllabError(f"{path} is not UTF-8 (at byte {error.start:,}); download it again.") from error
        vocabulary: dict[str, int] = {}
        for token_id, token in enumerate(token.rstrip("\r") for token in tokens):
            if vocabulary.setdefault(token, token_id) != token_id:
                raise RllabError(f"At line {token_id + 1:,} of {path} the token '{token}' comes twice; remove one.")
        return cls(vocabulary, replace(config or WordPieceConfig(), vocabulary_size=len(vocabulary)))

    def _segment(self, word: str) -> list[Piece]:
        length = len(word)
        if length > self.config.longest_word:
            return [(self._unknown, 0, length)]
        pieces: list[Piece] = []
        start, known = 0, self.vocabulary
        while start < length:
            # A continuing piece may be written with its prefix at the beginning of a word, as in "##a".
            for end in range(min(length, start + self._longest + (0 if start else len(PREFIX))), start, -1):
                token_id = known.get(word[start:end])
                if token_id is not None:
                    break
            else:
                return [(self._unknown, 0, length)]
            pieces.append((token_id, start, end))
            start, known = end, self._continuing
        return pieces

    def decode(self, ids: Sequence[int], keep_special: bool = False) -> str:
        """The words of some ids with a space between them; how they were set apart in the text is not kept."""
        parts: list[str] = []
        for token in self.spoken(ids, keep_special):
            if parts:
                token = token.removeprefix(PREFIX) if token.startswith(PREFIX) else f" {token}"
            parts.append(token)
        return "".join(parts)

    def to_huggingface(self) -> dict[str, Any]:
        return tokenizer_document(
            {
                "type": "WordPiece", "unk_token": self.special.unknown, "continuing_subword_prefix": PREFIX,
                "max_input_chars_per_word": self.config.longest_word, "vocab": self.vocabulary,
            },
            self.special_ids,
            normaliser=Normaliser(self.config.normaliser).to_huggingface(),
            pretokeniser=PreTokeniser(self.config.pretokeniser).to_huggingface(),
            decoder={"type": "WordPiece", "prefix": PREFIX, "cleanup": False},
        )  # fmt: skip

    def settings(self) -> dict[str, Any]:
        return to_settings(self.config)

    @classmethod
    def restore(cls, document: dict[str, Any], settings: dict[str, Any]) -> Self:
        return cls(document["model"]["vocab"], from_settings(WordPieceConfig, settings))


def _join(first: str, second: str) -> str:
    return first + second.removeprefix(PREFIX)
