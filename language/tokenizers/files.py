"""Saved tokenizers: a folder with `tokenizer.json`, which others read too, and `rllab.json`, which says what it is."""

import hashlib
import importlib
import json
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from envs.errors import RllabError
from rllab.files import explained_write_errors, write_atomically

if TYPE_CHECKING:
    from language.tokenizers.tokenizer import Tokenizer

Kind = TypeVar("Kind", bound="Tokenizer")

FORMAT = "rllab tokenizer"
VERSION = 1
_DOCUMENT, _DESCRIPTION = "tokenizer.json", "rllab.json"


@dataclass(frozen=True)
class TokenizerKind:
    """Where the class and the configuration of a kind of tokenizer are."""

    module: str
    """Imported when the kind is asked for."""
    tokenizer: str
    """The class's name."""
    configuration: str
    """The name of the dataclass that `train` takes."""
    choices: dict[str, Any] = field(default_factory=dict)
    """The fields of the configuration by which this kind differs from another of the same class."""

    def tokenizer_class(self) -> Any:
        """The class, a subclass of `Tokenizer`."""
        return getattr(importlib.import_module(self.module), self.tokenizer)

    def configuration_class(self) -> Any:
        """The dataclass."""
        return getattr(importlib.import_module(self.module), self.configuration)


def _kind(module: str, tokenizer: str, **choices: Any) -> TokenizerKind:
    return TokenizerKind(f"language.tokenizers.{module}", tokenizer, f"{tokenizer}Config", choices)


KINDS = {
    "word": _kind("word", "WordLevel"),
    "character": _kind("character", "CharacterLevel"),
    "byte": _kind("byte", "ByteLevel"),
    "bpe": _kind("bpe", "BPE"),
    "byte-bpe": _kind("byte_bpe", "ByteLevelBPE"),
    "wordpiece": _kind("wordpiece", "WordPiece"),
    "unigram": _kind("unigram", "Unigram"),
    "sentencepiece-bpe": _kind("sentencepiece", "SentencePiece", model="bpe"),
    "sentencepiece-unigram": _kind("sentencepiece", "SentencePiece", model="unigram"),
}
"""All kinds of tokenizers that can be trained, by the names that the command gives them."""
_LOADED = KINDS | {"pretrained": TokenizerKind("language.tokenizers.pretrained", "PretrainedTokenizer", "")}


def find_kind(name: str) -> TokenizerKind:
    """The kind of that name. Raises RllabError if there is none."""
    if name not in KINDS:
        near = get_close_matches(name, KINDS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(KINDS)}"
        raise RllabError(f"there is no kind of tokenizer '{name}'; {hint}")
    return KINDS[name]


def load_tokenizer(folder: Path | str) -> "Tokenizer":
    """The tokenizer, of whichever kind, that was saved in a folder.

    Raises RllabError if there is none, or it is of a newer version or damaged.
    """
    folder = Path(folder)
    name = _read_description(folder)["kind"]
    if name not in _LOADED:
        raise RllabError(f"{folder} has a tokenizer of the unknown kind '{name}'; there are {', '.join(_LOADED)}.")
    loaded: Tokenizer = _LOADED[name].tokenizer_class().load(folder)
    return loaded


def write_tokenizer(folder: Path, kind: str, document: dict[str, Any], settings: dict[str, Any]) -> None:
    """Save what a tokenizer is. Raises RllabError if it cannot be written."""
    content = json.dumps(document, ensure_ascii=False, indent=1).encode()
    description = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "settings": settings,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    with explained_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / _DOCUMENT, content)
        write_atomically(folder / _DESCRIPTION, json.dumps(description, ensure_ascii=False, indent=1).encode())


def read_tokenizer(folder: Path, kind: type[Kind]) -> Kind:
    """The tokenizer of class `kind` saved in a folder.

    Raises RllabError if there is none, or it is of another kind, of a newer version or damaged.
    """
    description = _read_description(folder)
    names = [name for name, other in KINDS.items() if other.tokenizer == kind.__name__] or [kind.kind]
    if description["kind"] not in names:
        raise RllabError(
            f"{folder} has a tokenizer of the kind '{description['kind']}', not '{names[0]}'; load it with "
            "load_tokenizer, which takes any kind."
        )
    content = _read(folder / _DOCUMENT)
    if hashlib.sha256(content).hexdigest() != description["sha256"]:
        raise RllabError(
            f"{folder / _DOCUMENT} is not what was saved with {_DESCRIPTION}: it is cut off or was changed since; "
            "save the tokenizer again."
        )
    try:
        return kind.restore(json.loads(content), description["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise RllabError(f"The tokenizer in {folder} is damaged ({error!r}); save it again.") from error


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / _DESCRIPTION
    if not path.is_file():
        raise RllabError(
            f"There is no tokenizer in {folder} (no {_DESCRIPTION}); name a folder that `rllab language tokenizer "
            "train` has made."
        )
    try:
        description = json.loads(_read(path))
    except ValueError as error:
        raise RllabError(f"{path} is damaged or cut off ({error}); save the tokenizer again.") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise RllabError(f"{path} does not describe a tokenizer; name a folder that has one.")
    if not isinstance(description.get("version"), int) or description["version"] > VERSION:
        raise RllabError(
            f"{path} is of version {description.get('version')}, newer than this rllab reads ({VERSION}); upgrade "
            "rllab to load it."
        )
    if missing := {"kind", "settings", "sha256"} - description.keys():
        raise RllabError(f"{path} lacks {' and '.join(sorted(missing))}; save the tokenizer again.")
    return description


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RllabError(f"{path} cannot be read ({error.strerror or error}); check the path.") from error
