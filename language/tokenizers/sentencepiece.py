"""SentencePiece: texts as one stream of characters, spaces included, over Unigram or byte-pair encoding.

Kudo, Richardson: SentencePiece: A Simple and Language Independent Subword Tokenizer and Detokenizer for Neural Text
Processing (2018). Reads and writes the `.model` files of the package sentencepiece.
"""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from envs.errors import RllabError
from language.tokenizers.bpe import bpe_model
from language.tokenizers.huggingface import read_merges, tokenizer_document
from language.tokenizers.merges import apply_merges, merge_table
from language.tokenizers.model_proto import ModelProto, ModelType, NormalizerSpec, PieceType
from language.tokenizers.pipeline import Piece, Pipeline, Splitting
from language.tokenizers.sentencepiece_charsmap import nfkc_charsmap
from language.tokenizers.sentencepiece_stream import NFKC, SPACE, StreamNormaliser, StreamSplitter, decoder_part
from language.tokenizers.sentencepiece_training import BYTES, ModelName, SentencePieceConfig, assemble, train_model
from language.tokenizers.special import SpecialTokenMatcher, SpecialTokens
from language.tokenizers.tokenizer import Progress, Tokenizer
from language.tokenizers.unigram import NEVER, unigram_model
from language.tokenizers.unigram_model import UNKNOWN, UnigramModel, express_unknown
from language.tokenizers.unigram_sampling import Regulariser
from rllab.files import explained_write_errors, write_atomically

__all__ = ["SentencePiece", "SentencePieceConfig"]

_NAMES = {"[CLS]": "classifier", "[SEP]": "separator", "[MASK]": "mask"}


class SentencePiece(Tokenizer):
    """A model of sentencepiece, trained here or read from a file.

    Special tokens in a text are matched before anything else, each stretch between two being a text of its own; the
    package sentencepiece takes those of type CONTROL (`<s>`) for ordinary characters.
    """

    def __init__(self, model: ModelProto, special: SpecialTokens | None = None) -> None:
        """Use a model.

        Args:
            model: the content of a `.model` file.
            special: its special tokens; by default they are found by their types and names.

        Raises:
            RllabError: it is of a kind that is not known here, or has a token twice.
        """
        _check(model)
        vocabulary = {piece.token: token_id for token_id, piece in enumerate(model.pieces)}
        if len(vocabulary) < len(model.pieces):
            raise RllabError("The model has a token twice; train it again.")
        super().__init__(vocabulary, special or _special_of(model))
        self.model = model
        self._byte_ids = [vocabulary[token] for token in BYTES] if model.trainer.byte_fallback else None
        self._byte_values = {token_id: byte for byte, token_id in enumerate(self._byte_ids or ())}
        self._pieces = {piece.token: piece.score for piece in model.pieces if piece.type == PieceType.NORMAL}
        ids = {token: vocabulary[token] for token in self._pieces}
        self._unigram = UnigramModel(self._pieces, ids) if self.model_name == "unigram" else None
        if self._unigram is None:
            self._merges = list(_merges(self._pieces))
            self._table = merge_table(self._merges, vocabulary, str.__add__)
        normaliser = StreamNormaliser.of(model.normalizer)
        whole = any(SPACE in piece[1:] for piece in self._pieces)
        self._splitting = Splitting(normaliser, StreamSplitter("none", whole))
        self._pipeline = Pipeline(self._splitting, self._segment, self.tokens, self.special_ids)
        self._matcher = SpecialTokenMatcher(self.special_ids)

    @property
    def kind(self) -> str:  # type: ignore[override]
        """The name by which the command and saved folders call it; there is one for each way of segmenting."""
        return f"sentencepiece-{self.model_name}"

    @property
    def model_name(self) -> ModelName:
        """How words are segmented."""
        return "bpe" if self.model.trainer.model_type == ModelType.BPE else "unigram"

    @classmethod
    def train(
        cls, texts: Iterable[str], config: SentencePieceConfig | None = None, progress: Progress | None = None
    ) -> Self:
        """Learn a model from texts, which are read once.

        Raises RllabError if there are no words, or more characters than the vocabulary may have tokens.
        """
        config = config or SentencePieceConfig()
        return cls(train_model(texts, config, progress), config.special)

    @classmethod
    def from_model_file(cls, path: Path | str) -> Self:
        """The tokenizer of a `.model` file of sentencepiece.

        Raises RllabError if it cannot be read, or is of a kind that is not known here.
        """
        try:
            return cls(ModelProto.parse(Path(path).read_bytes()))
        except OSError as error:
            raise RllabError(f"{path} cannot be read ({error.strerror or error}); check the path.") from error
        except RllabError as error:
            raise RllabError(f"{path} cannot be used: {error}") from error

    def save_model(self, path: Path | str) -> None:
        """Write a `.model` file, which the package sentencepiece loads. Raises RllabError if it cannot be written."""
        with explained_write_errors(Path(path)):
            write_atomically(Path(path), self.to_model())

    def save(self, folder: Path | str) -> None:
        """Write `tokenizer.json`, `rllab.json` and `sentencepiece.model` into a folder.

        Raises RllabError if the files cannot be written.
        """
        super().save(folder)
        self.save_model(Path(folder) / "sentencepiece.model")

    def to_model(self) -> bytes:
        """The content of a `.model` file."""
        spec = self.model.normalizer
        if spec.name == NFKC and not spec.charsmap:
            spec = replace(spec, charsmap=nfkc_charsmap())  # which takes seconds, and is needed nowhere else
        return replace(self.model, normalizer=spec).serialise()

    def _segment(self, word: str) -> list[Piece]:
        if self._unigram is not None:
            return self._express(word, self._unigram.segment(word))
        absent = len(self.tokens)
        symbols = [self.vocabulary[character] if character in self._pieces else absent for character in word]
        pieces, start = [], 0
        for token_id, length in apply_merges(symbols, self._table):
            pieces.append((UNKNOWN if token_id == absent else token_id, start, start + length))
            start += length
        return self._express(word, pieces)

    def _express(self, word: str, pieces: list[Piece]) -> list[Piece]:
        assert self.special.unknown is not None
        return express_unknown(word, pieces, self.vocabulary[self.special.unknown], self._byte_ids)

    def _regulariser(self) -> Regulariser:
        if self._unigram is None:
            raise RllabError("Only Unigram models have other segmentations than the best; train sentencepiece-unigram.")
        return Regulariser(self._unigram, self._splitting, self._matcher, self._express)

    def sample(
        self, text: str, generator: np.random.Generator, alpha: float = 0.1, candidates: int | None = None
    ) -> list[int]:
        """The ids of a segmentation that is drawn at random: see `Unigram.sample`."""
        return self._regulariser().sample(text, generator, alpha, candidates)

    def best(self, text: str, count: int) -> list[tuple[list[int], float]]:
        """The `count` most probable segmentations, the best first: see `Unigram.best`."""
        return self._regulariser().best(text, count)

    def decode(self, ids: Sequence[int], keep_special: bool = False) -> str:
        """The text of some ids; bytes that are not UTF-8 become U+FFFD."""
        self.check_ids(ids)
        # The unknown token parts nothing: it stands among the pieces of one stretch of text.
        special = set(self.special.tokens()) - {self.special.unknown}
        parts: list[str] = []
        stretch = bytearray()
        for token_id in ids:
            token = self.tokens[token_id]
            if token in special:
                parts.append(self._decoded(stretch))
                stretch.clear()
                if keep_special:
                    parts.append(token)
            elif token_id in self._byte_values:
                stretch.append(self._byte_values[token_id])
            elif token != self.special.unknown:
                stretch += token.replace(SPACE, " ").encode()
            elif keep_special:
                stretch += token.encode()
        return "".join([*parts, self._decoded(stretch)])

    def _decoded(self, stretch: bytearray) -> str:
        text = stretch.decode(errors="replace")
        return text.removeprefix(" ") if self.model.normalizer.add_dummy_prefix else text

    def engine_refusal(self) -> str | None:
        if self.model.normalizer.charsmap and self._splitting.normaliser.name == "none":
            return "it applies the model's map of characters in another way"
        return None

    def to_huggingface(self) -> dict[str, Any]:
        assert self.special.unknown is not None
        fallback = self.model.trainer.byte_fallback
        if self._unigram is not None:
            model = unigram_model(self.tokens, self._pieces, self.vocabulary[self.special.unknown], fallback)
        else:
            model = bpe_model(self.vocabulary, self._merges, unknown=self.special.unknown, byte_fallback=fallback)
            model["fuse_unk"] = True
        return tokenizer_document(
            model,
            self.special_ids,
            normaliser=self._splitting.normaliser.to_huggingface(),
            pretokeniser=self._splitting.pretokeniser.to_huggingface(),
            decoder=decoder_part(self.model.normalizer.add_dummy_prefix, fallback),
        )

    def settings(self) -> dict[str, Any]:
        spec = self.model.normalizer
        user_defined = [piece.token for piece in self.model.pieces if piece.type == PieceType.USER_DEFINED]
        return {
            "model": self.model_name,
            "normaliser": "nfkc" if spec.name == NFKC else spec.name,
            "add_dummy_prefix": spec.add_dummy_prefix,
            "remove_extra_whitespaces": spec.remove_extra_whitespaces,
            "user_defined": user_defined,
            "special": self.special.to_json(),
        }

    @classmethod
    def restore(cls, document: dict[str, Any], settings: dict[str, Any]) -> Self:
        special = SpecialTokens.from_json(settings["special"])
        first, name, charsmap = document["normalizer"]["normalizers"][0], settings["normaliser"], b""
        if first["type"] == "Precompiled":
            charsmap = base64.b64decode(first["precompiled_charsmap"])
        elif name == "nfkc":
            name = NFKC
        spec = NormalizerSpec(name, charsmap, settings["add_dummy_prefix"], settings["remove_extra_whitespaces"])
        vocabulary = document["model"]["vocab"]
        if settings["model"] == "unigram":
            scores = {token: float(score) for token, score in vocabulary}
        else:
            tokens = sorted(vocabulary, key=vocabulary.__getitem__)
            merged = dict.fromkeys(first + second for first, second in read_merges(document["model"]))
            reserved = {*special.tokens(), *BYTES}
            ranked = [*merged, *(token for token in tokens if token not in merged and token not in reserved)]
            ranks = {token: -float(rank) for rank, token in enumerate(ranked)}
            scores = {token: ranks.get(token, 0.0) for token in tokens}
        known = {*special.tokens(), *BYTES}
        unused = {token for token, score in scores.items() if score == NEVER and token not in known}
        scores = {token: 0.0 if score == NEVER else score for token, score in scores.items()}
        return cls(assemble(scores, settings["model"], special, settings["user_defined"], spec, unused), special)


def _check(model: ModelProto) -> None:
    if model.trainer.model_type not in (ModelType.UNIGRAM, ModelType.BPE):
        name = model.trainer.model_type.name.lower()
        raise RllabError(f"The model is of the type '{name}'; only unigram and bpe are known here.")
    if model.trainer.whitespace_as_suffix or not model.normalizer.escape_whitespaces:
        raise RllabError(
            "The model has spaces after words, or leaves them as they are, which is not known here; train one with "
            "treat_whitespace_as_suffix off and escape_whitespaces on."
        )
    if model.trainer.byte_fallback and (missing := set(BYTES) - {piece.token for piece in model.pieces}):
        raise RllabError(f"The model falls back on bytes, but has no token {min(missing)}; it is damaged.")
    if [piece.type for piece in model.pieces].count(PieceType.UNKNOWN) != 1:
        raise RllabError("A model must have exactly one piece for the unknown; this one has another number of them.")


def _special_of(model: ModelProto) -> SpecialTokens:
    names = {getattr(model.trainer, name): name for name in ("begin", "end", "padding")} | _NAMES
    found: dict[str, str] = {}
    additional = []
    for piece in model.pieces:
        if piece.type == PieceType.UNKNOWN:
            found["unknown"] = piece.token
        elif piece.type in (PieceType.CONTROL, PieceType.USER_DEFINED):
            name = names.get(piece.token)
            if name is None:
                additional.append(piece.token)
            else:
                found[name] = piece.token
    return SpecialTokens(**found, additional=tuple(additional))


def _merges(pieces: dict[str, float]) -> Iterable[tuple[str, str]]:
    """Every pair of pieces that is a piece, in the order of the scores: sentencepiece merges any of them."""
    for token in sorted(pieces, key=lambda token: -pieces[token]):
        for place in range(1, len(token)):
            if token[:place] in pieces and token[place:] in pieces:
                yield token[:place], token[place:]
