"""Byte-pair encoding over bytes: every text has tokens, and decoding gives back exactly what was encoded.

Radford et al.: Language Models are Unsupervised Multitask Learners (2019), section 2.2. Texts are split by GPT-2's
pattern, which keeps the space before a word with it; tokens are written as in GPT-2's `vocab.json` and `merges.txt`.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import add
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from envs.errors import RllabError
from language.tokenizers.alphabet import check_size
from language.tokenizers.bpe import bpe_model, merges_as_tokens
from language.tokenizers.byte_alphabet import CHARACTERS, characters_of_bytes, check_special, read_bytes, utf8
from language.tokenizers.huggingface import read_merges, sequence, tokenizer_document
from language.tokenizers.merges import CountedPairs, apply_merges, learn_merges, merge_table
from language.tokenizers.normalisation import Normaliser, NormaliserName
from language.tokenizers.pipeline import Piece, Pipeline, Splitting
from language.tokenizers.pretokenisers import PreTokeniser
from language.tokenizers.settings import from_settings, to_settings
from language.tokenizers.special import SpecialTokens
from language.tokenizers.tokenizer import Progress, Tokenizer

END_OF_TEXT = "<|endoftext|>"
"""GPT-2's one special token."""
GPT2_SPECIAL = SpecialTokens(end=END_OF_TEXT)
"""GPT-2's special tokens."""


@dataclass(frozen=True)
class ByteLevelBPEConfig:
    """How byte-level byte-pair encoding is trained."""

    vocabulary_size: int = 30_000
    """Tokens, special ones and the 256 bytes included. (Hugging Face's default; GPT-2 has 50,257.)"""
    minimum_count: int = 1
    """Pairs that occur less often are not merged."""
    pattern: Literal["gpt2", "gpt4"] = "gpt2"
    """What splits a text into words."""
    normaliser: NormaliserName = "none"
    """What is done to a text first; anything but none changes what decoding gives back."""
    special: SpecialTokens = GPT2_SPECIAL
    """The special tokens; nothing is ever unknown."""

    def __post_init__(self) -> None:
        check_special(self.special)


class ByteLevelBPE(Tokenizer):
    """Texts as pieces that merging frequent pairs of bytes has made."""

    kind: ClassVar[str] = "byte-bpe"

    def __init__(
        self, vocabulary: dict[str, int], merges: Sequence[tuple[str, str]], config: ByteLevelBPEConfig
    ) -> None:
        """Use a vocabulary, whose tokens are written as GPT-2 writes them, and its merges in their order.

        Raises RllabError if a byte, or what a merge needs, is missing from the vocabulary.
        """
        super().__init__(vocabulary, config.special)
        self.config, self.merges = config, list(merges)
        try:
            self._byte_ids = [vocabulary[character] for character in CHARACTERS]
            self._table = merge_table(self.merges, vocabulary, add)
        except KeyError as error:
            raise RllabError(
                f"The vocabulary has no token {error}, one of the 256 bytes or what a merge needs; give matching files "
                "in GPT-2's format."
            ) from None
        self._pipeline = Pipeline(
            Splitting(Normaliser(config.normaliser), PreTokeniser(config.pattern)),
            self._segment,
            self.tokens,
            self.special_ids,
        )

    @classmethod
    def train(
        cls, texts: Iterable[str], config: ByteLevelBPEConfig | None = None, progress: Progress | None = None
    ) -> Self:
        """Learn a vocabulary from texts, which are read once.

        Raises RllabError if there is no text, or the vocabulary cannot hold the 256 bytes.
        """
        config = config or ByteLevelBPEConfig()
        special = config.special.tokens()
        check_size(config.vocabulary_size, len(special), 256, "")
        counts = Splitting(Normaliser(config.normaliser), PreTokeniser(config.pattern)).count(texts, special, progress)
        tokens = [*special, *sorted(CHARACTERS)]
        ids = [len(special) + tokens[len(special) :].index(character) for character in CHARACTERS]
        words = [[ids[byte] for byte in utf8(word)] for word in counts]
        pairs = CountedPairs(words, list(counts.values()))
        merges = learn_merges(pairs, tokens, config.vocabulary_size, add, config.minimum_count, progress)
        vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
        return cls(vocabulary, merges_as_tokens(merges, tokens), config)

    @classmethod
    def from_gpt2_files(
        cls, vocabulary: Path | str, merges: Path | str, config: ByteLevelBPEConfig | None = None
    ) -> Self:
        """The tokenizer of a `vocab.json` and a `merges.txt` in GPT-2's format.

        Args:
            vocabulary: a JSON object of tokens and their ids.
            merges: two tokens a line, the first merge first; a first line that begins with `#version` is passed over.
            config: of which the special tokens, the pattern and the normaliser count. By default GPT-2's; its special
                token only where the vocabulary has it.

        Raises:
            RllabError: a file cannot be read, or is not what it should be.
        """
        try:
            ids = json.loads(Path(vocabulary).read_text(encoding="utf-8"))
            lines = Path(merges).read_text(encoding="utf-8").split("\n")
        except OSError as error:
            raise RllabError(f"{error.filename} cannot be read ({error.strerror}); check the path.") from error
        except ValueError as error:
            raise RllabError(f"{vocabulary} or {merges} is damaged ({error}); download it again.") from error
        if not isinstance(ids, dict) or not all(isinstance(token_id, int) for token_id in ids.values()):
            raise RllabError(f"{vocabulary} is not a vocabulary: it must be a JSON object of tokens and their ids.")
        pairs: list[tuple[str, str]] = []
        for number, line in enumerate(lines, 1):
            if not line.strip() or (number == 1 and line.startswith("#version")):
                continue
            match line.rstrip("\r").split(" "):
                case [first, second]:
                    pairs.append((first, second))
                case _:
                    raise RllabError(f"Line {number:,} of {merges} is no merge: it must be two tokens and a space.")
        if config is None:
            special = SpecialTokens(end=END_OF_TEXT if END_OF_TEXT in ids else None)
            config = ByteLevelBPEConfig(special=special)
        return cls(ids, pairs, replace(config, vocabulary_size=len(ids)))

    def to_gpt2_files(self, vocabulary: Path | str, merges: Path | str) -> None:
        """Write a `vocab.json` and a `merges.txt` in GPT-2's format."""
        from rllab.files import explained_write_errors, write_atomically

        lines = ["#version: 0.2", *(" ".join(pair) for pair in self.merges), ""]
        with explained_write_errors(Path(vocabulary)):
            write_atomically(Path(vocabulary), json.dumps(self.vocabulary, ensure_ascii=False).encode())
            write_atomically(Path(merges), "\n".join(lines).encode())

    def _segment(self, word: str) -> list[Piece]:
        symbols = [self._byte_ids[byte] for byte in utf8(word)]
        characters = characters_of_bytes(word)
        pieces, start = [], 0
        for token_id, length in apply_merges(symbols, self._table):
            end = start + length
            pieces.append((token_id, characters[start], characters[end - 1] + 1))
            start = end
        return pieces

    def decode(self, ids: Sequence[int], keep_special: bool = False) -> str:
        """The text of some ids; bytes that are no UTF-8, such as half a character, become U+FFFD."""
        return decode_bytes(self, ids, keep_special)

    def to_huggingface(self) -> dict[str, Any]:
        split = PreTokeniser(self.config.pattern).to_huggingface()
        return tokenizer_document(
            bpe_model(self.vocabulary, self.merges),
            self.special_ids,
            normaliser=Normaliser(self.config.normaliser).to_huggingface(),
            # GPT-2's pattern is built in; another one splits first.
            pretokeniser=byte_level() if self.config.pattern == "gpt2" else sequence(split, byte_level(split=False)),
            decoder=byte_level(),
        )

    def settings(self) -> dict[str, Any]:
        return to_settings(self.config)

    @classmethod
    def restore(cls, document: dict[str, Any], settings: dict[str, Any]) -> Self:
        model = document["model"]
        return cls(model["vocab"], read_merges(model), from_settings(ByteLevelBPEConfig, settings))


def byte_level(split: bool = True) -> dict[str, Any]:
    """Hugging Face's part that writes bytes as characters, or reads them; it may split by GPT-2's pattern too."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": split}


def decode_bytes(tokenizer: Tokenizer, ids: Sequence[int], keep_special: bool) -> str:
    """The text of ids whose tokens are bytes written as characters."""
    return read_bytes(tokenizer.spoken(ids, keep_special)).decode("utf-8", "replace")
