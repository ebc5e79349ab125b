"""Model files and maps of characters against the package sentencepiece."""

import io
import struct
import sys
import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.errors import RllabError
from language.tokenizers.model_proto import ModelPiece, ModelProto, ModelType, NormalizerSpec, PieceType, TrainerSpec
from language.tokenizers.sentencepiece_charsmap import Charsmap, build_charsmap, nfkc_charsmap

sentencepiece = pytest.importorskip("sentencepiece")
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0▁")


def train(**options: Any) -> bytes:
    content = io.BytesIO()
    sentences = iter(["the cat sat on the mat", "the hat of the cat"] * 5)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences,
        model_writer=content,
        vocab_size=25,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return content.getvalue()


@pytest.fixture(scope="module")
def nmt() -> bytes:
    """A model with sentencepiece's default normaliser, and spaces left alone."""
    return train(remove_extra_whitespaces=False, add_dummy_prefix=False)


def load(model: ModelProto) -> Any:
    return sentencepiece.SentencePieceProcessor(model_proto=model.serialise())


def test_a_model_of_sentencepiece_is_read_as_it_reads_it(nmt: bytes) -> None:
    model, peer = ModelProto.parse(nmt), sentencepiece.SentencePieceProcessor(model_proto=nmt)
    assert [piece.token for piece in model.pieces] == [peer.id_to_piece(token_id) for token_id in range(len(peer))]
    assert [piece.score for piece in model.pieces] == [peer.get_score(token_id) for token_id in range(len(peer))]
    assert [piece.type for piece in model.pieces[:4]] == [
        PieceType.UNKNOWN, PieceType.CONTROL, PieceType.CONTROL, PieceType.NORMAL,
    ]  # fmt: skip
    assert model.trainer.model_type == ModelType.UNIGRAM
    assert (model.trainer.unknown_id, model.trainer.padding_id) == (0, -1)
    assert model.normalizer.name == "nmt_nfkc"
    assert not model.normalizer.remove_extra_whitespaces


def test_a_model_with_all_choices_is_read() -> None:
    model = ModelProto.parse(
        train(
            model_type="bpe", user_defined_symbols=["<x>"], control_symbols=["<c>"], pad_id=3, pad_piece="<fill>",
            unk_piece="<?>", normalization_rule_name="identity",
        )
    )  # fmt: skip
    types = {piece.token: piece.type for piece in model.pieces}
    assert types["<x>"] == PieceType.USER_DEFINED
    assert types["<c>"] == types["<fill>"] == PieceType.CONTROL
    assert types["<?>"] == PieceType.UNKNOWN
    assert (model.trainer.padding, model.trainer.padding_id, model.trainer.model_type) == ("<fill>", 3, ModelType.BPE)
    assert model.normalizer.charsmap == b""


def test_what_is_written_is_read_back_with_fields_that_have_no_name_here(nmt: bytes) -> None:
    model = ModelProto.parse(nmt)
    model.other += b"\xfa\x06\x03new"  # field 111, which nobody knows
    again = ModelProto.parse(model.serialise())
    assert again == model
    assert again.trainer.other
    assert load(again).encode("the cat") == load(ModelProto.parse(nmt)).encode("the cat")


@given(st.integers(-(2**31), 2**31 - 1), st.text(max_size=300), st.floats(width=32, allow_nan=False))
def test_numbers_texts_and_scores_survive(number: int, text: str, score: float) -> None:
    pieces = [ModelPiece(text, score), ModelPiece("", -0.0, PieceType.BYTE)]
    model = ModelProto(pieces, TrainerSpec(padding_id=number), NormalizerSpec(text, b"\0\xff", False))
    assert ModelProto.parse(model.serialise()) == model


@pytest.mark.parametrize("damage", [b"", b"not a model at all", b"\x0a\x05ab", b"\x0a\x02\x0a\xff", b"\xff" * 20])
def test_bytes_that_are_no_model_are_refused(damage: bytes) -> None:
    with pytest.raises(RllabError, match="not a model of sentencepiece"):
        ModelProto.parse(damage)


def test_a_model_that_is_cut_off_is_refused_wherever_it_is_cut(nmt: bytes) -> None:
    model = ModelProto.parse(nmt)
    model.normalizer.charsmap = b""
    content = model.serialise()
    for length in range(len(content)):
        with pytest.raises(RllabError, match="not a model of sentencepiece"):
            ModelProto.parse(content[:length])


def test_a_map_of_sentencepiece_does_here_what_it_does_there(nmt: bytes) -> None:
    model = ModelProto.parse(nmt)
    ours, theirs = Charsmap(model.normalizer.charsmap), load(model)
    for code in [*range(1, 0x3000), *range(0x3000, sys.maxunicode, 101), *range(0xFF00, 0xFFFF)]:
        if not 0xD800 <= code < 0xE000:
            text = f"a{chr(code)}\u0301"
            assert ours(text).replace(" ", "▁") == theirs.normalize(text), hex(code)


def test_the_default_map_differs_from_nfkc_in_spaces_control_characters_and_the_wide_tilde(nmt: bytes) -> None:
    ours = Charsmap(ModelProto.parse(nmt).normalizer.charsmap)
    assert ours("a\tb\nc\u200bd\ufeff\u2028") == "a b c d  "
    assert ours("\x01a\x7f\x0b") == "a"
    assert ours("～Ａ①") == "～A1"
    assert unicodedata.normalize("NFKC", "～") == "~"


@given(st.text(CHARACTERS, max_size=20))
def test_a_map_says_where_each_character_comes_from(nmt: bytes, text: str) -> None:
    ours = Charsmap(ModelProto.parse(nmt).normalizer.charsmap)
    whole, starts, ends = ours.aligned(text)
    assert ours(text) == whole
    assert len(whole) == len(starts) == len(ends)
    assert list(starts) == sorted(starts)
    assert all(0 <= start < end <= len(text) for start, end in zip(starts, ends, strict=True))


def test_the_longest_string_of_a_map_is_replaced_first() -> None:
    ours = Charsmap(build_charsmap({"é": "e", "éa": "X", "éab": "YZ", "q": "", "語": "go"}))
    assert ours("éabéaéq語q") == "YZXego"
    assert ours.aligned("zéab語")[1:] == ([0, 1, 1, 4, 4], [1, 4, 4, 5, 5])


@given(
    st.dictionaries(
        st.text(CHARACTERS, min_size=1, max_size=4), st.text(CHARACTERS, max_size=3), min_size=1, max_size=30
    )
)
def test_sentencepiece_reads_a_map_that_is_built_here(replacements: dict[str, str]) -> None:
    spec = NormalizerSpec("test", build_charsmap(replacements), False, False)
    pieces = [ModelPiece("<unk>", 0.0, PieceType.UNKNOWN), ModelPiece("a", -1.0)]
    theirs = load(ModelProto(pieces, TrainerSpec(), spec))
    for key, value in replacements.items():
        assert theirs.normalize(key).replace("▁", " ") == value


def test_the_map_of_nfkc_is_nfkc_for_characters_and_for_what_composes(nmt: bytes) -> None:
    spec = NormalizerSpec("nfkc", nfkc_charsmap(), False, False)
    theirs = load(replace(ModelProto.parse(nmt), normalizer=spec))
    for code in [*range(1, 0x3400), *range(0xAC00, 0xD800, 11), *range(0xF900, 0x10000), *range(0x1D400, 0x1D800)]:
        for form in ("NFC", "NFD"):
            text = unicodedata.normalize(form, chr(code))
            expected = unicodedata.normalize("NFKC", text)
            assert theirs.normalize(text).replace("▁", " ") == expected.replace("▁", " "), hex(code)


@pytest.mark.parametrize(
    "damage", [b"", b"\x01", struct.pack("<I", 8) + b"12345", struct.pack("<I", 4) + b"\0\0\0\0\xff"]
)
def test_a_damaged_map_is_refused(damage: bytes) -> None:
    with pytest.raises(RllabError, match="map of characters is damaged"):
        Charsmap(damage)("é")
