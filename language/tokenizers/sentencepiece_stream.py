"""SentencePiece's view of a text: one stream of characters in which `▁` stands for each space.

Kudo, Richardson: SentencePiece: A Simple and Language Independent Subword Tokenizer and Detokenizer for Neural Text
Processing (2018), section 3.1: nothing of the normalised text is lost, so that decoding is putting pieces together.
"""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from language.tokenizers.model_proto import NormalizerSpec
from language.tokenizers.normalisation import Aligned, Normaliser
from language.tokenizers.pretokenisers import PreTokeniser
from language.tokenizers.sentencepiece_charsmap import Charsmap

SPACE = "▁"
"""Stands for a space (U+2581)."""
FormName: TypeAlias = Literal["none", "nfkc"]
"""What is done to the characters of a text: nothing, or Unicode's normal form NFKC."""
NFKC = "rllab_nfkc"
"""The name by which a model says that its map of characters stands for NFKC itself."""
IDENTITY = "identity"
"""The name by which a model says that it leaves characters as they are."""
_ENDING = f" {SPACE}"  # what sentencepiece drops at the end of a text where it drops spaces
_WORDS = re.compile(f"{SPACE}[^{SPACE}]*|[^{SPACE}]+")
_WHOLE = re.compile("(?s:.)+")


@dataclass(frozen=True)
class StreamNormaliser(Normaliser):
    """A normal form, or a model's map of characters, and then `▁` for each space and before the text."""

    charsmap: Charsmap | None = None
    """In place of a normal form."""
    prefix: bool = True
    """Whether a space is put before the text, so that its first word is as others are."""
    collapse: bool = False
    """Whether spaces at the ends, and all but one of several, are dropped first."""

    @classmethod
    def of(cls, spec: NormalizerSpec) -> "StreamNormaliser":
        """That of a model. Raises RllabError if its map of characters is damaged."""
        charsmap = Charsmap(spec.charsmap) if spec.charsmap and spec.name != NFKC else None
        name: FormName = "nfkc" if spec.name == NFKC else "none"
        return cls(name, charsmap, spec.add_dummy_prefix, spec.remove_extra_whitespaces)

    def __call__(self, text: str) -> str:
        text = super().__call__(text) if self.charsmap is None else self.charsmap(text)
        if self.collapse:
            text = " ".join(filter(None, text.split(" "))).rstrip(_ENDING)
        text = text.replace(" ", SPACE)
        return SPACE + text if self.prefix and text else text

    def aligned(self, text: str) -> Aligned:
        given = super().aligned(text) if self.charsmap is None else self.charsmap.aligned(text)
        kept: Iterable[int] = range(len(given.text))
        if self.collapse:
            kept = [place for place in kept if given.text[place : place + 2].strip(" ")]
            kept = kept[1:] if kept and given.text[kept[0]] == " " else kept
            kept = kept[: len("".join(given.text[place] for place in kept).rstrip(_ENDING))]
        characters = [given.text[place] for place in kept]
        starts = [given.starts[place] for place in kept]
        ends = [given.ends[place] for place in kept]
        if self.prefix and characters:
            characters.insert(0, SPACE)
            starts.insert(0, starts[0])
            ends.insert(0, ends[0])
        return Aligned("".join(characters).replace(" ", SPACE), starts, ends)

    def to_huggingface(self) -> dict[str, Any] | None:
        parts: list[dict[str, Any]] = []
        if self.charsmap is not None:
            encoded = base64.b64encode(self.charsmap.data).decode()
            parts.append({"type": "Precompiled", "precompiled_charsmap": encoded})
        elif form := super().to_huggingface():
            parts.append(form)
        if self.collapse:
            parts.append(_replace({"Regex": rf"\A +|[{_ENDING}]+\z"}, ""))
            parts.append(_replace({"Regex": " {2,}"}, " "))
        if self.prefix:
            parts.append({"type": "Prepend", "prepend": SPACE})
        parts.append(_replace({"String": " "}, SPACE))
        return {"type": "Sequence", "normalizers": parts}


@dataclass(frozen=True)
class StreamSplitter(PreTokeniser):
    """Words with the `▁` before them; or the whole stream, where the pieces of a model reach from word to word."""

    whole: bool = False
    """Whether the stream is left whole."""

    def words(self, text: str) -> list[str]:
        return self._splits().findall(text)

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in self._splits().finditer(text)]

    def _splits(self) -> re.Pattern[str]:
        return _WHOLE if self.whole else _WORDS

    def to_huggingface(self) -> dict[str, Any] | None:
        if self.whole:
            return None
        return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "never", "split": True}


def decoder_part(prefix: bool, byte_fallback: bool) -> dict[str, Any]:
    """The `decoder` of a `tokenizer.json`."""
    parts: list[dict[str, Any]] = [_replace({"String": SPACE}, " ")]
    if byte_fallback:
        parts.append({"type": "ByteFallback"})
    parts.append({"type": "Fuse"})
    if prefix:
        parts.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": parts}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}
