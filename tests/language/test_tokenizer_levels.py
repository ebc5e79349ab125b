"""Tokenizers that merge nothing: words, characters, bytes."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import RllabError
from language.tokenizers import (
    ByteLevel,
    ByteLevelConfig,
    CharacterLevel,
    CharacterLevelConfig,
    WordLevel,
    WordLevelConfig,
)
from language.tokenizers.special import NO_SPECIAL, SpecialTokens

TEXTS = ["I love machine learning", "I love films, films and films"]


def test_words_are_ranked_by_count_then_by_code_point() -> None:
    tokenizer = WordLevel.train(TEXTS)
    # films 3, I 2, love 2, then one each.
    assert tokenizer.tokens == ["<unk>", "films", "I", "love", ",", "and", "learning", "machine"]
    assert tokenizer.encode("I love new films").tokens == ["I", "love", "<unk>", "films"]
    assert tokenizer.decode(tokenizer.ids("I love films,films")) == "I love films , films"


def test_word_vocabularies_are_those_of_hugging_face() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    peer = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token="<unk>"))
    peer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.WordLevelTrainer(
        vocab_size=6, min_frequency=1, special_tokens=["<unk>"], show_progress=False
    )
    peer.train_from_iterator(TEXTS, trainer)
    assert (
        WordLevel.train(TEXTS, WordLevelConfig(vocabulary_size=6)).vocabulary
        == json.loads(peer.to_str())["model"]["vocab"]
    )


def test_rare_words_are_unknown() -> None:
    assert WordLevel.train(TEXTS, WordLevelConfig(minimum_count=2)).tokens == ["<unk>", "films", "I", "love"]


def test_a_vocabulary_of_words_needs_a_token_for_the_others() -> None:
    with pytest.raises(RllabError, match="needs an unknown token"):
        WordLevelConfig(special=NO_SPECIAL)
    with pytest.raises(RllabError, match="ask for at least 2"):
        WordLevel.train(TEXTS, WordLevelConfig(vocabulary_size=1))


def test_characters_are_ordered_by_code_point_and_lose_nothing() -> None:
    tokenizer = CharacterLevel.train(["hug a pug"])
    assert tokenizer.tokens == ["<unk>", " ", "a", "g", "h", "p", "u"]
    encoding = tokenizer.encode("a bug")
    assert (encoding.tokens, encoding.offsets[2]) == (["a", " ", "<unk>", "u", "g"], (2, 3))
    assert tokenizer.decode(tokenizer.ids("pug a hug")) == "pug a hug"


def test_the_guides_sentence_has_14_characters_with_an_id_each() -> None:
    # The guide's own list gives 1 to I and to a.
    tokenizer = CharacterLevel.train(["I love machine learning"])
    ids = tokenizer.ids("I love machine learning")
    assert (len(ids), len(set(ids))) == (23, 14)
    assert tokenizer.decode(ids) == "I love machine learning"


def test_of_too_many_characters_the_most_frequent_stay() -> None:
    tokenizer = CharacterLevel.train(["aaabbcz"], CharacterLevelConfig(vocabulary_size=4))
    assert tokenizer.tokens == ["<unk>", "a", "b", "c"]
    with pytest.raises(RllabError, match="ask for at least 2"):
        CharacterLevel.train(["ab"], CharacterLevelConfig(vocabulary_size=1))


def test_an_unknown_character_without_a_token_for_it_is_refused() -> None:
    tokenizer = CharacterLevel.train(["ab"], CharacterLevelConfig(special=NO_SPECIAL))
    with pytest.raises(RllabError, match="no token for 'c'"):
        tokenizer.encode_batch(["abc"])


def test_a_byte_has_its_value_as_its_id_after_the_special_tokens() -> None:
    assert ByteLevel().ids("aé") == [0x61, 0xC3, 0xA9]
    tokenizer = ByteLevel.train([], ByteLevelConfig(special=SpecialTokens(begin="<s>", end="</s>")))
    encoding = tokenizer.encode("<s>aé")
    assert encoding.ids == [0, 0x63, 0xC5, 0xAB]
    assert encoding.offsets == [(0, 3), (3, 4), (4, 5), (4, 5)]
    assert tokenizer.decode([0x63, 1, 0xC5]) == "a\ufffd"


@settings(deadline=None)
@given(st.text())
def test_bytes_lose_nothing(text: str) -> None:
    tokenizer = ByteLevel()
    assert tokenizer.decode(tokenizer.ids(text)) == text
    assert len(tokenizer.ids(text)) == len(text.encode())


def test_half_a_surrogate_pair_has_no_bytes() -> None:
    for encode in (ByteLevel().ids, ByteLevel().encode, lambda text: ByteLevel().encode_batch([text])):
        with pytest.raises(RllabError, match="half a surrogate pair"):
            encode("a\udcff")
