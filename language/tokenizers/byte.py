"""Byte level: a token for each of the 256 bytes. There is nothing to learn, and nothing is ever unknown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from language.tokenizers.bpe import bpe_model
from language.tokenizers.byte_alphabet import CHARACTERS, characters_of_bytes, check_special, utf8
from language.tokenizers.byte_bpe import byte_level, decode_bytes
from language.tokenizers.huggingface import tokenizer_document
from language.tokenizers.settings import from_settings, to_settings
from language.tokenizers.special import NO_SPECIAL, SpecialTokenMatcher, SpecialTokens
from language.tokenizers.tokenizer import Encoding, Progress, Tokenizer


@dataclass(frozen=True)
class ByteLevelConfig:
    """Which special tokens a vocabulary of bytes has."""

    special: SpecialTokens = NO_SPECIAL
    """The special tokens; the bytes follow them."""

    def __post_init__(self) -> None:
        check_special(self.special)


class ByteLevel(Tokenizer):
    """Each byte of a text's UTF-8 as one token: the byte's value plus the number of special tokens."""

    kind: ClassVar[str] = "byte"

    def __init__(self, config: ByteLevelConfig | None = None) -> None:
        """Make the vocabulary."""
        self.config = config or ByteLevelConfig()
        special = self.config.special.tokens()
        super().__init__(
            {token: token_id for token_id, token in enumerate([*special, *CHARACTERS])}, self.config.special
        )
        self._first = len(special)
        self._matcher = SpecialTokenMatcher({token: token_id for token_id, token in enumerate(special)})

    @classmethod
    def train(
        cls, texts: Iterable[str] = (), config: ByteLevelConfig | None = None, progress: Progress | None = None
    ) -> Self:
        """The same whatever the texts, which are not read."""
        return cls(config)

    def ids(self, text: str) -> list[int]:
        ids: list[int] = []
        for start, end, special in self._matcher.split(text):
            if special is None:
                data = utf8(text[start:end])
                ids += [byte + self._first for byte in data] if self._first else data
            else:
                ids.append(special)
        return ids

    def encode(self, text: str) -> Encoding:
        ids = self.ids(text)
        offsets: list[tuple[int, int]] = []
        for start, end, special in self._matcher.split(text):
            if special is None:
                offsets += [(start + number, start + number + 1) for number in characters_of_bytes(text[start:end])]
            else:
                offsets.append((start, end))
        return Encoding(ids, [self.tokens[token_id] for token_id in ids], offsets)

    def decode(self, ids: Sequence[int], keep_special: bool = False) -> str:
        """The text of some ids; bytes that are no UTF-8, such as half a character, become U+FFFD."""
        return decode_bytes(self, ids, keep_special)

    def to_huggingface(self) -> dict[str, Any]:
        return tokenizer_document(
            bpe_model(self.vocabulary, ()),
            self.special_ids,
            pretokeniser=byte_level(split=False),
            decoder=byte_level(split=False),
        )

    def settings(self) -> dict[str, Any]:
        return to_settings(self.config)

    @classmethod
    def restore(cls, document: dict[str, Any], settings: dict[str, Any]) -> Self:
        return cls(from_settings(ByteLevelConfig, settings))
