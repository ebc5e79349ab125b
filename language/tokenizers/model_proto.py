"""The `.model` files of sentencepiece: Protocol Buffers, read and written by hand.

The messages and the numbers of their fields are those of `sentencepiece_model.proto`. Only what a tokenizer needs is
given a name here; all other fields are kept as they were and written back.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

from envs.errors import RllabError


class PieceType(IntEnum):
    """What a piece is."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    """A special token that no text is read as by sentencepiece."""
    USER_DEFINED = 4
    """A token that is always read as one."""
    UNUSED = 5
    BYTE = 6


class ModelType(IntEnum):
    """How texts become pieces."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


@dataclass
class ModelPiece:
    """An entry of the vocabulary; its place is its id."""

    token: str = ""
    score: float = 0.0
    """The log-probability (Unigram), or minus the place among the merges (BPE)."""
    type: PieceType = PieceType.NORMAL


@dataclass
class TrainerSpec:
    """How the model was trained, of which encoding needs these."""

    model_type: ModelType = ModelType.UNIGRAM
    vocabulary_size: int = 8000
    whitespace_as_suffix: bool = False
    """Whether `▁` ends words instead of beginning them."""
    byte_fallback: bool = False
    unknown_id: int = 0
    begin_id: int = 1
    end_id: int = 2
    padding_id: int = -1
    unknown: str = "<unk>"
    begin: str = "<s>"
    end: str = "</s>"
    padding: str = "<pad>"
    other: bytes = b""
    """The remaining fields, encoded."""


@dataclass
class NormalizerSpec:
    """How texts are normalised."""

    name: str = ""
    charsmap: bytes = b""
    """What becomes of which characters (see `sentencepiece_charsmap.py`); empty if nothing does."""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True
    """Whether spaces become `▁`."""
    other: bytes = b""
    """The remaining fields, encoded."""


@dataclass
class ModelProto:
    """The content of a `.model` file."""

    pieces: list[ModelPiece] = field(default_factory=list)
    trainer: TrainerSpec = field(default_factory=TrainerSpec)
    normalizer: NormalizerSpec = field(default_factory=NormalizerSpec)
    other: bytes = b""
    """The remaining fields, encoded."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the bytes of a file. Raises RllabError if they are something else, or cut off."""
        model, found = cls(), set()
        try:
            for number, value, raw in _fields(data):
                found.add(number)
                if number == 1:
                    model.pieces.append(_parse_piece(_as_bytes(value)))
                elif number == 2:
                    _parse_into(model.trainer, _TRAINER, _as_bytes(value))
                elif number == 3:
                    _parse_into(model.normalizer, _NORMALIZER, _as_bytes(value))
                else:
                    model.other += raw
        except (IndexError, ValueError, TypeError, struct.error) as error:
            raise RllabError(f"This is not a model of sentencepiece, or it is damaged ({error}).") from error
        if not found >= {1, 2, 3}:
            raise RllabError("This is not a model of sentencepiece, or it is cut off: parts of it are missing.")
        return model

    def serialise(self) -> bytes:
        """The bytes of a file, which `parse` and sentencepiece read."""
        pieces = [
            _encoded(1, _encoded(1, piece.token) + _encoded(2, piece.score) + _encoded(3, int(piece.type)))
            for piece in self.pieces
        ]
        trainer, normalizer = _serialised(self.trainer, _TRAINER), _serialised(self.normalizer, _NORMALIZER)
        return b"".join([*pieces, _encoded(2, trainer), _encoded(3, normalizer), self.other])


_TRAINER = {
    3: "model_type", 4: "vocabulary_size", 24: "whitespace_as_suffix", 35: "byte_fallback", 40: "unknown_id",
    41: "begin_id", 42: "end_id", 43: "padding_id", 45: "unknown", 46: "begin", 47: "end", 48: "padding",
}  # fmt: skip
_NORMALIZER = {
    1: "name", 2: "charsmap", 3: "add_dummy_prefix", 4: "remove_extra_whitespaces", 5: "escape_whitespaces",
}  # fmt: skip
_Spec = TrainerSpec | NormalizerSpec
_Value = int | bytes | float


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _fields(data: bytes) -> Iterator[tuple[int, _Value, bytes]]:
    """The fields of a message: number, value, and both as they stand in the file."""
    position = 0
    while position < len(data):
        start = position
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        value: _Value
        match wire_type:
            case 0:
                value, position = _varint(data, position)
            case 2:
                length, position = _varint(data, position)
                value, position = data[position : position + length], position + length
            case 5:
                value, position = struct.unpack_from("<f", data, position)[0], position + 4
            case 1:
                value, position = data[position : position + 8], position + 8
            case _:
                raise ValueError(f"there is no field of wire type {wire_type}")
        if position > len(data):
            raise ValueError("it is cut off")
        yield number, value, data[start:position]


def _as_bytes(value: _Value) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("a number stands where a text should")
    return value


def _parse_piece(data: bytes) -> ModelPiece:
    piece = ModelPiece()
    for number, value, _ in _fields(data):
        if number == 1:
            piece.token = _as_bytes(value).decode()
        elif number == 2:
            piece.score = float(value)
        elif number == 3:
            piece.type = PieceType(int(value))
    return piece


def _parse_into(spec: _Spec, names: dict[int, str], data: bytes) -> None:
    for number, value, raw in _fields(data):
        name = names.get(number)
        if name is None:
            spec.other += raw
            continue
        default = getattr(spec, name)
        parsed: object
        if isinstance(default, str):
            parsed = _as_bytes(value).decode()
        elif isinstance(default, bytes):
            parsed = _as_bytes(value)
        else:  # 32-bit numbers below zero are written in 64 bits
            parsed = type(default)(int(value) - (1 << 64) if int(value) >> 63 else int(value))
        setattr(spec, name, parsed)


def _serialised(spec: _Spec, names: dict[int, str]) -> bytes:
    return b"".join(_encoded(number, getattr(spec, name)) for number, name in names.items()) + spec.other


def _encoded(number: int, value: str | _Value) -> bytes:
    if isinstance(value, float):
        return _number(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _number(number << 3) + _number(value & (1 << 64) - 1)
    content = value.encode() if isinstance(value, str) else value
    return _number(number << 3 | 2) + _number(len(content)) + content


def _number(value: int) -> bytes:
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])
