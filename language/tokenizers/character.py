"""Character level: a token for each character of the corpus."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from language.tokenizers.alphabet import check_size, find_alphabet
from language.tokenizers.huggingface import tokenizer_document
from language.tokenizers.normalisation import Normaliser, NormaliserName
from language.tokenizers.pipeline import Piece, Pipeline, Splitting, unknown_character
from language.tokenizers.pretokenisers import PreTokeniser
from language.tokenizers.settings import from_settings, to_settings
from language.tokenizers.special import UNKNOWN_ONLY, SpecialTokens
from language.tokenizers.tokenizer import Progress, Tokenizer


@dataclass(frozen=True)
class CharacterLevelConfig:
    """How a vocabulary of characters is made."""

    vocabulary_size: int | None = None
    """Keep only so many tokens (special ones included), for the most frequent characters; others are unknown then. By
    default there is one for every character of the corpus."""
    normaliser: NormaliserName = "none"
    """What is done to a text first."""
    special: SpecialTokens = UNKNOWN_ONLY
    """The special tokens."""


class CharacterLevel(Tokenizer):
    """Each character as one token."""

    kind: ClassVar[str] = "character"

    def __init__(self, vocabulary: dict[str, int], config: CharacterLevelConfig) -> None:
        """Use a vocabulary."""
        super().__init__(vocabulary, config.special)
        self.config = config
        unknown = config.special.unknown
        self._unknown = None if unknown is None else vocabulary[unknown]
        self._pipeline = Pipeline(
            Splitting(Normaliser(config.normaliser), PreTokeniser("characters")),
            self._segment,
            self.tokens,
            self.special_ids,
        )

    @classmethod
    def train(
        cls, texts: Iterable[str], config: CharacterLevelConfig | None = None, progress: Progress | None = None
    ) -> Self:
        """Take the characters of texts, which are read once.

        Raises RllabError if there are none, or no room for one.
        """
        config = config or CharacterLevelConfig()
        special = config.special.tokens()
        counts = Splitting(Normaliser(config.normaliser), PreTokeniser("characters")).count(texts, special, progress)
        limit = None
        if config.vocabulary_size is not None:
            check_size(config.vocabulary_size, len(special), 1, "")
            limit = config.vocabulary_size - len(special)
        alphabet = find_alphabet({character: counts[character] for character in counts.keys() - special}, limit=limit)
        return cls({token: token_id for token_id, token in enumerate([*special, *alphabet])}, config)

    def _segment(self, word: str) -> list[Piece]:
        token_id = self.vocabulary.get(word, self._unknown)
        if token_id is None:
            raise unknown_character(word)
        return [(token_id, 0, 1)]

    def decode(self, ids: Sequence[int], keep_special: bool = False) -> str:
        return "".join(self.spoken(ids, keep_special))

    def engine_refusal(self) -> str | None:
        return "it needs an unknown token" if self._unknown is None else None

    def to_huggingface(self) -> dict[str, Any]:
        return tokenizer_document(
            # Where there is no unknown token, the field names one that the vocabulary lacks: unknown characters are
            # refused there too.
            {"type": "WordLevel", "vocab": self.vocabulary, "unk_token": self.special.unknown or "<unk>"},
            self.special_ids,
            normaliser=Normaliser(self.config.normaliser).to_huggingface(),
            pretokeniser=PreTokeniser("characters").to_huggingface(),
            decoder={"type": "Fuse"},
        )

    def settings(self) -> dict[str, Any]:
        return to_settings(self.config)

    @classmethod
    def restore(cls, document: dict[str, Any], settings: dict[str, Any]) -> Self:
        return cls(document["model"]["vocab"], from_settings(CharacterLevelConfig, settings))
