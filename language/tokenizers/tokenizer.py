"""The contract that every tokenizer keeps: train, encode with offsets, decode, batches, save and load."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

from envs.errors import RllabError
from language.tokenizers.engine import RustEngine, is_installed
from language.tokenizers.files import read_tokenizer, write_tokenizer
from language.tokenizers.special import SpecialTokens

if TYPE_CHECKING:
    from language.tokenizers.pipeline import Pipeline

Engine: TypeAlias = Literal["auto", "rust", "python"]
"""What encodes a batch: the Rust engine of Hugging Face `tokenizers`, this package, or the first if it is installed."""
Progress: TypeAlias = Callable[[str, int, int], None]
"""Told during training: the stage, how much of it is done, and how much there is (0 where that is not known)."""


@dataclass(frozen=True)
class Encoding:
    """A text as tokens."""

    ids: list[int]
    """The tokens' ids."""
    tokens: list[str]
    """The tokens as the vocabulary writes them."""
    offsets: list[tuple[int, int]]
    """Where each comes from: characters of the text as it was given, start and (exclusive) end."""


class Tokenizer(ABC):
    """Turns texts into ids of a vocabulary and back.

    A kind of tokenizer is a subclass with a frozen dataclass as its configuration and a class method
    `train(texts, config, progress=None)`. Same texts and same configuration give the same vocabulary.
    """

    kind: ClassVar[str]
    """The name by which the command and saved folders call it."""
    _pipeline: "Pipeline"
    """From a text to pieces; each kind makes its own."""

    def __init__(self, vocabulary: dict[str, int], special: SpecialTokens) -> None:
        """Keep a vocabulary.

        Args:
            vocabulary: the id of each token, from 0 without gaps.
            special: the special tokens; the vocabulary has them all.

        Raises:
            RllabError: the ids have gaps, or a special token is missing.
        """
        self.vocabulary = vocabulary
        self.special = special
        self.tokens = [""] * len(vocabulary)
        """The token of each id."""
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise RllabError("The ids of a vocabulary must go from 0 upwards without gaps; this one's do not.")
        for token, token_id in vocabulary.items():
            self.tokens[token_id] = token
        for token in special.tokens():
            if token not in vocabulary:
                raise RllabError(f"The vocabulary has no special token '{token}'; add it, or leave it out.")

    def encode(self, text: str) -> Encoding:
        """The text as tokens with offsets.

        Raises RllabError if the vocabulary cannot express it and there is no token for the unknown.
        """
        return self._pipeline.encode(text)

    def ids(self, text: str) -> list[int]:
        """The ids alone, the quick way; the same as `encode(text).ids`."""
        return self._pipeline.ids(text)

    @abstractmethod
    def decode(self, ids: Sequence[int], keep_special: bool = False) -> str:
        """The text of some ids; special tokens are left out unless `keep_special`.

        Raises RllabError if there is no such id.
        """

    @abstractmethod
    def to_huggingface(self) -> dict[str, Any]:
        """The document of a `tokenizer.json`, which Hugging Face `tokenizers` loads and encodes with identically."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What JSON can hold of the configuration; with `to_huggingface`, enough for `restore`."""

    @classmethod
    @abstractmethod
    def restore(cls, document: dict[str, Any], settings: dict[str, Any]) -> Self:
        """The tokenizer whose `to_huggingface` and `settings` gave these two.

        Raises KeyError, TypeError, ValueError or RllabError if they are something else.
        """

    def encode_batch(self, texts: Sequence[str], engine: Engine = "auto") -> list[list[int]]:
        """The ids of many texts.

        Args:
            texts: what to encode.
            engine: `rust` encodes on all cores, by the package `tokenizers`; `python` here; `auto` by the first
                where it is installed and gives the same ids. (A few texts are quicker here: `ids`.)

        Raises:
            RllabError: see `encode`; or `rust` was asked for and is not installed, or would give other ids.
        """
        reason = self.engine_refusal()
        if engine == "rust" and reason is not None:
            raise RllabError(f"The Rust engine cannot be used: {reason}.")
        if engine == "rust" or (engine == "auto" and reason is None and is_installed()):
            return self._rust_engine.encode_batch(texts)
        return [self.ids(text) for text in texts]

    def engine_refusal(self) -> str | None:
        """Why the Rust engine would not give the same ids, where that is so."""
        return None

    @cached_property
    def _rust_engine(self) -> RustEngine:
        return RustEngine(self.to_huggingface())

    @property
    def special_ids(self) -> dict[str, int]:
        """The ids of the special tokens."""
        return {token: self.vocabulary[token] for token in self.special.tokens()}

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raise RllabError if one of the ids is none of the vocabulary's."""
        for token_id in ids:
            if not 0 <= token_id < len(self.tokens):
                raise RllabError(
                    f"There is no token with the id {token_id}; the vocabulary's ids go from 0 to "
                    f"{len(self.tokens) - 1}. Was it encoded by another tokenizer?"
                )

    def spoken(self, ids: Sequence[int], keep_special: bool) -> list[str]:
        """The tokens of some ids, without the special ones unless they are kept.

        Raises RllabError if there is no such id.
        """
        self.check_ids(ids)
        left_out = set() if keep_special else set(self.special.tokens())
        return [token for token_id in ids if (token := self.tokens[token_id]) not in left_out]

    def save(self, folder: Path | str) -> None:
        """Write `tokenizer.json` and `rllab.json` into a folder, which is made if it is not there.

        Raises RllabError if the files cannot be written.
        """
        write_tokenizer(Path(folder), self.kind, self.to_huggingface(), self.settings())

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """The tokenizer that was saved in a folder.

        Raises RllabError if there is none, or it is of another kind, of a newer version or damaged.
        """
        return read_tokenizer(Path(folder), cls)

    def __len__(self) -> int:
        """How many tokens the vocabulary has."""
        return len(self.tokens)
