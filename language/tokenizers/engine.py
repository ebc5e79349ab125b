"""The Rust engine of Hugging Face `tokenizers`, where it is installed: it encodes corpora on all cores."""

import importlib.util
import json
from collections.abc import Sequence
from typing import Any

from envs.errors import RllabError
from language.tokenizers.byte_alphabet import utf8


def is_installed() -> bool:
    """Whether the package `tokenizers` is there."""
    return importlib.util.find_spec("tokenizers") is not None


class RustEngine:
    """A tokenizer of Hugging Face `tokenizers`, made from the document of a `tokenizer.json`."""

    def __init__(self, document: dict[str, Any]) -> None:
        """Raises RllabError if the package is missing."""
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise RllabError(
                "The Rust engine needs the package tokenizers: `pip install tokenizers`, or encode with "
                "engine='python'."
            ) from error
        self.tokenizer = Tokenizer.from_str(json.dumps(document))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text; nothing is added to them. Raises RllabError if one is no Unicode text."""
        try:
            encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError:  # which says nothing of half surrogate pairs
            for text in texts:
                utf8(text)
            raise
        return [encoding.ids for encoding in encodings]
