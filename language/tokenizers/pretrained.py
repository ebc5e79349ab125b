"""The tokenizer of a model that `transformers` wrote: its `tokenizer.json`, run by Hugging Face `tokenizers` as it is.

Nothing is trained here. Ids that the model has and the tokenizer has not, as models round their vocabularies up, are
tokens without text.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from envs.errors import RllabError
from language.tokenizers.engine import RustEngine
from language.tokenizers.special import SpecialTokens
from language.tokenizers.tokenizer import Encoding, Tokenizer

DOCUMENT, CONFIG, CHAT = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
_NAMES = {
    "padding": "pad_token", "unknown": "unk_token", "begin": "bos_token", "end": "eos_token",
    "classifier": "cls_token", "separator": "sep_token", "mask": "mask_token",
}  # fmt: skip
_PROBE = "a"


class PretrainedTokenizer(Tokenizer):
    """A `tokenizer.json` with the names of its special tokens.

    Attributes:
        prefix: ids that stand before every text that the model was trained on, such as a begin token; `ids` and
            `encode_batch` leave them out, as they encode parts of texts.
    """

    kind: ClassVar[str] = "pretrained"

    def __init__(self, document: dict[str, Any], config: Mapping[str, Any] | None = None, size: int = 0) -> None:
        """Take a document.

        Args:
            document: of the `tokenizer.json`.
            config: what `tokenizer_config.json` says.
            size: how many ids the model has; 0: as many as the tokenizer.

        Raises:
            RllabError: the package `tokenizers` is missing, or the model has fewer ids than the tokenizer.
        """
        self._document, self._config = document, dict(config or {})
        self._engine = RustEngine(document).tokenizer
        known = self._engine.get_vocab(with_added_tokens=True)
        there = set(known.values())
        highest = max(there, default=-1) + 1
        if size and size < highest:
            raise RllabError(
                f"The tokenizer has {highest:,} tokens and the model {size:,}; use the tokenizer that the model was "
                "trained with."
            )
        self._size = size or highest
        self._empty = frozenset(range(self._size)) - there
        vocabulary = known | {_placeholder(token_id, known): token_id for token_id in self._empty}
        super().__init__(vocabulary, _special(self._config, known))
        whole, part = (self._engine.encode(_PROBE, add_special_tokens=s).ids for s in (True, False))
        places = [place for place in range(len(whole) - len(part) + 1) if whole[place : place + len(part)] == part]
        self.prefix: list[int] = whole[: places[0]] if places and part else []

    @classmethod
    def of(cls, folder: Path | str, size: int = 0) -> Self:
        """The tokenizer in a folder that `transformers` wrote.

        Raises:
            RllabError: there is no `tokenizer.json`, or it is damaged.
        """
        path = Path(folder)
        try:
            document = json.loads((path / DOCUMENT).read_bytes())
            config = json.loads((path / CONFIG).read_bytes()) if (path / CONFIG).is_file() else {}
            if (path / CHAT).is_file():
                config["chat_template"] = (path / CHAT).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise RllabError(
                f"{path / DOCUMENT} is missing or damaged ({error}); save the model's fast tokenizer beside it by "
                "`AutoTokenizer.from_pretrained(…).save_pretrained(folder)`."
            ) from error
        return cls(document, config, size)

    def ids(self, text: str) -> list[int]:
        found: list[int] = self._engine.encode(text, add_special_tokens=False).ids
        return found

    def encode(self, text: str) -> Encoding:
        found = self._engine.encode(text, add_special_tokens=False)
        return Encoding(found.ids, found.tokens, found.offsets)

    def decode(self, ids: Sequence[int], keep_special: bool = False) -> str:
        self.check_ids(ids)
        there = [token_id for token_id in ids if token_id not in self._empty]
        text: str = self._engine.decode(there, skip_special_tokens=not keep_special)
        return text

    def to_huggingface(self) -> dict[str, Any]:
        return self._document

    def settings(self) -> dict[str, Any]:
        return {"config": self._config, "size": self._size}

    @classmethod
    def restore(cls, document: dict[str, Any], settings: dict[str, Any]) -> Self:
        return cls(document, settings["config"], settings["size"])

    def documents(self) -> dict[str, str]:
        """What `transformers` reads, by file name."""
        config = {name: value for name, value in self._config.items() if name != "chat_template"}
        files = {DOCUMENT: json.dumps(self._document, ensure_ascii=False), CONFIG: json.dumps(config, indent=2)}
        if isinstance(template := self._config.get("chat_template"), str):
            files[CHAT] = template
        return files


def _placeholder(token_id: int, known: Mapping[str, int]) -> str:
    name = f"<unused {token_id}>"
    while name in known:
        name += "_"
    return name


def _special(config: Mapping[str, Any], known: Mapping[str, int]) -> SpecialTokens:
    """The named special tokens; of names that share a token, as padding and end often do, the end has it."""
    found: dict[str, Any] = {}
    for name in ("end", "begin", *(name for name in _NAMES if name not in ("end", "begin"))):
        token = config.get(_NAMES[name])
        token = token.get("content") if isinstance(token, Mapping) else token
        if isinstance(token, str) and token in known and token not in found.values():
            found[name] = token
    return SpecialTokens(**found)
