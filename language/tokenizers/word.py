"""Word level: a token for each of the most frequent words, and one for all the others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from envs.errors import RllabError
from language.tokenizers.alphabet import check_size
from language.tokenizers.huggingface import tokenizer_document
from language.tokenizers.normalisation import Normaliser, NormaliserName
from language.tokenizers.pipeline import Piece, Pipeline, Splitting
from language.tokenizers.pretokenisers import PreTokeniser, PreTokeniserName
from language.tokenizers.settings import from_settings, to_settings
from language.tokenizers.special import UNKNOWN_ONLY, SpecialTokens
from language.tokenizers.tokenizer import Progress, Tokenizer


@dataclass(frozen=True)
class WordLevelConfig:
    """How a vocabulary of words is made."""

    vocabulary_size: int = 30_000
    """Tokens, special ones included. (Hugging Face's default.)"""
    minimum_count: int = 1
    """Words that occur less often are unknown."""
    normaliser: NormaliserName = "none"
    """What is done to a text first."""
    pretokeniser: PreTokeniserName = "whitespace"
    """What splits a text into words."""
    special: SpecialTokens = UNKNOWN_ONLY
    """The special tokens; there must be an unknown one."""

    def __post_init__(self) -> None:
        if self.special.unknown is None:
            raise RllabError("A vocabulary of words needs an unknown token: no list of words is ever complete.")


class WordLevel(Tokenizer):
    """Each word as one token."""

    kind: ClassVar[str] = "word"

    def __init__(self, vocabulary: dict[str, int], config: WordLevelConfig) -> None:
        """Use a vocabulary."""
        super().__init__(vocabulary, config.special)
        self.config = config
        assert config.special.unknown is not None
        self._unknown = vocabulary[config.special.unknown]
        self._splitting = Splitting(Normaliser(config.normaliser), PreTokeniser(config.pretokeniser))
        self._pipeline = Pipeline(
            self._splitting,
            self._segment,
            self.tokens,
            self.special_ids,
        )

    @classmethod
    def train(
        cls, texts: Iterable[str], config: WordLevelConfig | None = None, progress: Progress | None = None
    ) -> Self:
        """Take the most frequent words of texts, which are read once; of equally frequent ones the first by code point.

        Raises RllabError if there are no words, or no room for one.
        """
        config = config or WordLevelConfig()
        special = config.special.tokens()
        check_size(config.vocabulary_size, len(special), 1, "")
        counts = Splitting(Normaliser(config.normaliser), PreTokeniser(config.pretokeniser)).count(
            texts, special, progress
        )
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        frequent = [word for word in ranked if counts[word] >= config.minimum_count and word not in special]
        tokens = [*special, *frequent][: config.vocabulary_size]
        return cls({token: token_id for token_id, token in enumerate(tokens)}, config)

    def words(self, text: str) -> list[str]:
        """The words of a text, also those that are not in the vocabulary."""
        return self._splitting.words(text)

    def _segment(self, word: str) -> list[Piece]:
        return [(self.vocabulary.get(word, self._unknown), 0, len(word))]

    def decode(self, ids: Sequence[int], keep_special: bool = False) -> str:
        """The words of some ids with a space between them; how they were set apart in the text is not kept."""
        return " ".join(self.spoken(ids, keep_special))

    def to_huggingface(self) -> dict[str, Any]:
        return tokenizer_document(
            {"type": "WordLevel", "vocab": self.vocabulary, "unk_token": self.special.unknown},
            self.special_ids,
            normaliser=Normaliser(self.config.normaliser).to_huggingface(),
            pretokeniser=PreTokeniser(self.config.pretokeniser).to_huggingface(),
        )

    def settings(self) -> dict[str, Any]:
        return to_settings(self.config)

    @classmethod
    def restore(cls, document: dict[str, Any], settings: dict[str, Any]) -> Self:
        return cls(document["model"]["vocab"], from_settings(WordLevelConfig, settings))
