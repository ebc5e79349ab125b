"""Byte-level byte-pair encoding: nothing is lost, and Hugging Face reads and writes the same files."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import RllabError
from language.tokenizers.byte_alphabet import CHARACTERS
from language.tokenizers.byte_bpe import ByteLevelBPE, ByteLevelBPEConfig
from language.tokenizers.special import NO_SPECIAL, SpecialTokens

TEXTS = [
    "The film isn't bad; we've seen 1999's better ones, they'll say.\n\n  Two  spaces, a tab\tand café, naïve, Größe…",
    "日本語のテキスト、そして絵文字 👩‍👩‍👧 and ﬁnally the end. The end! THE END?  \n",
    "low lower lowest, new newer newest, the the the film film films filmed",
]


def small(pattern: Any = "gpt2") -> ByteLevelBPE:
    return ByteLevelBPE.train(TEXTS * 2, ByteLevelBPEConfig(vocabulary_size=330, pattern=pattern))


TOKENIZER = small()


def test_bytes_are_written_as_in_gpt2s_vocabulary() -> None:
    # From GPT-2's own vocab.json: "!" has the id 0, "~" 93, "¡" 94, "Ā" (byte 0) 188, "Ġ" (the space) 220, "Ċ" 198.
    tokens = sorted(CHARACTERS)
    assert [tokens.index(character) for character in "!~¡ĀĠĊ"] == [0, 93, 94, 188, 220, 198]
    assert [CHARACTERS[byte] for byte in (0, 10, 32, 33, 0xFF)] == list("ĀĊĠ!ÿ")


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
def test_merges_and_encodings_are_those_of_hugging_face(pattern: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = small(pattern)
    document = tokenizer.to_huggingface()
    blank = document | {"model": document["model"] | {"vocab": {}, "merges": []}, "added_tokens": []}
    peer = tokenizers.Tokenizer.from_str(json.dumps(blank))
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    peer.train_from_iterator(TEXTS * 2, trainer)
    model = json.loads(peer.to_str())["model"]
    assert (tokenizer.vocabulary, tokenizer.merges) == (model["vocab"], [tuple(pair) for pair in model["merges"]])
    for text in [*TEXTS, "a<|endoftext|> b", ""]:
        ours, theirs = tokenizer.encode(text), peer.encode(text)
        assert (ours.ids, ours.tokens, ours.offsets) == (theirs.ids, theirs.tokens, theirs.offsets)


@settings(deadline=None)
@given(st.text())
def test_decoding_gives_back_any_text(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.ids(text), keep_special=True) == text


@settings(deadline=None)
@given(st.text())
def test_offsets_cover_any_text_without_gaps(text: str) -> None:
    position = 0
    for start, end in TOKENIZER.encode(text).offsets:
        # Tokens that have parts of the same character overlap in it.
        assert position - 1 <= start <= position <= end
        assert start < end
        position = end
    assert position == len(text)


def test_half_a_character_becomes_the_replacement_character() -> None:
    assert TOKENIZER.decode([TOKENIZER.vocabulary[CHARACTERS[0xF0]]]) == "\ufffd"


def test_gpt2_files_load_and_encode_as_hugging_face_does_with_them(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokens = [*sorted(CHARACTERS), "Ġt", "he", "Ġthe", "in", "re", "Ġfi", "lm", "Ġfilm", "Ã©", "<|endoftext|>"]
    merges = ["Ġ t", "h e", "Ġt he", "i n", "r e", "Ġ f", "Ġf i", "l m", "Ġfi lm", "Ã ©"]
    tokens.insert(261, "Ġf")
    vocabulary, merge_file = tmp_path / "vocab.json", tmp_path / "merges.txt"
    vocabulary.write_text(json.dumps({token: token_id for token_id, token in enumerate(tokens)}))
    merge_file.write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    tokenizer = ByteLevelBPE.from_gpt2_files(vocabulary, merge_file)
    assert tokenizer.encode("the film in there").tokens == [
        "t", "he", "Ġfilm", "Ġ", "in", "Ġthe", "re",
    ]  # fmt: skip
    peer = tokenizers.ByteLevelBPETokenizer(str(vocabulary), str(merge_file))
    for text in TEXTS:
        assert tokenizer.ids(text) == peer.encode(text).ids
        assert tokenizer.decode(tokenizer.ids(text)) == peer.decode(peer.encode(text).ids) == text
    assert tokenizer.ids("<|endoftext|>") == [len(tokens) - 1]
    tokenizer.to_gpt2_files(tmp_path / "v.json", tmp_path / "m.txt")
    assert json.loads((tmp_path / "v.json").read_text(encoding="utf-8")) == tokenizer.vocabulary
    assert (tmp_path / "m.txt").read_text(encoding="utf-8") == merge_file.read_text(encoding="utf-8")


def test_wrong_gpt2_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    vocabulary, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    merges.write_text("#version: 0.2\na b c\n")
    with pytest.raises(RllabError, match="vocab.json cannot be read"):
        ByteLevelBPE.from_gpt2_files(vocabulary, merges)
    vocabulary.write_text('{"a": 0')
    with pytest.raises(RllabError, match="is damaged"):
        ByteLevelBPE.from_gpt2_files(vocabulary, merges)
    vocabulary.write_text('["a"]')
    with pytest.raises(RllabError, match="must be a JSON object"):
        ByteLevelBPE.from_gpt2_files(vocabulary, merges)
    vocabulary.write_text('{"a": 0}')
    with pytest.raises(RllabError, match="Line 2 of .* is no merge"):
        ByteLevelBPE.from_gpt2_files(vocabulary, merges)
    merges.write_text("#version: 0.2\n")
    with pytest.raises(RllabError, match="one of the 256 bytes"):
        ByteLevelBPE.from_gpt2_files(vocabulary, merges)


def test_the_256_bytes_and_the_special_tokens_must_fit() -> None:
    with pytest.raises(RllabError, match="ask for at least 257"):
        ByteLevelBPE.train(TEXTS, ByteLevelBPEConfig(vocabulary_size=256))
    with pytest.raises(RllabError, match="written as a byte is"):
        ByteLevelBPEConfig(special=SpecialTokens(end="Ġ"))
    assert len(ByteLevelBPE.train(TEXTS, ByteLevelBPEConfig(vocabulary_size=256, special=NO_SPECIAL))) == 256


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(RllabError, match=r"half a surrogate pair \(U\+D800\)"):
        TOKENIZER.ids("a\ud800")
