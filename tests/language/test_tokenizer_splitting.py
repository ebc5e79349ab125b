"""Normalisers and pre-tokenisers: the same as Hugging Face's for every character, and a way back to the text."""

import json
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import RllabError
from language.tokenizers.normalisation import Normaliser
from language.tokenizers.pretokenisers import PreTokeniser, ascii_pattern, unicode_pattern

NORMALISERS: list[Any] = ["nfc", "nfd", "nfkc", "nfkd", "lowercase", "bert", "bert-cased"]
PRETOKENISERS: list[Any] = ["whitespace", "bert", "gpt2", "gpt4", "characters"]
# Of those that Python's and Hugging Face's tables of Unicode both know: the first three planes, every third from U+3400.
CHARACTERS = [
    chr(code)
    for code in [*range(0x3400), *range(0x3400, 0x30000, 3)]
    if unicodedata.category(chr(code)) not in ("Cn", "Cs")
]


def from_document(part: str, document: Any) -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    whole = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}, part: document}
    return getattr(tokenizers.Tokenizer.from_str(json.dumps(whole)), part)


@pytest.mark.parametrize("name", PRETOKENISERS)
def test_words_are_those_of_hugging_face_whatever_the_character(name: Any) -> None:
    ours = PreTokeniser(name)
    theirs = from_document("pre_tokenizer", ours.to_huggingface())
    different = [
        character
        for character in CHARACTERS
        if ours.spans(text := f"a{character}{character}1 {character}!\n")
        != [span for _, span in theirs.pre_tokenize_str(text)]
    ]
    # Its table of punctuation for BERT is of an older Unicode; marks that came later, all of rare scripts, are letters.
    assert len(different) <= (110 if name == "bert" else 0)
    assert all(character > "\u0600" for character in different)


@pytest.mark.parametrize("name", NORMALISERS)
def test_normal_texts_are_those_of_hugging_face(name: Any) -> None:
    ours = Normaliser(name)
    theirs = from_document("normalizer", ours.to_huggingface())
    different = [character for character in CHARACTERS if ours(character) != theirs.normalize_str(character)]
    # Its tables for compatibility forms and for BERT are older than Python's.
    assert len(different) <= {"nfkc": 80, "nfkd": 80, "bert": 410, "bert-cased": 20}.get(name, 1)
    assert all(character > "\u02ff" for character in different)
    for text in ("ΟΔΟΣ İstanbul", "e\u0323\u0301 \u1e09 각 가\u11a8 ｶﾞ", "naïve\t Ｆｕｌｌ ① ½ 日本 \x00\x07x"):
        assert ours(text) == theirs.normalize_str(text)


TEXT = st.text(
    alphabet=st.one_of(st.sampled_from("aÀé\u0301\u0323\u0345각ᄀ\u1161\u11a8ﬁ①ｶﾞΣİß日 \t\u200b"), st.characters())
)


@pytest.mark.parametrize("name", ["none", *NORMALISERS])
@settings(deadline=None)
@given(text=TEXT)
def test_every_character_of_a_normal_text_comes_from_some_of_the_text(name: Any, text: str) -> None:
    normaliser = Normaliser(name)
    normal, starts, ends = normaliser.aligned(text)
    assert normal == normaliser(text)
    assert len(starts) == len(ends) == len(normal)
    assert list(starts) == sorted(starts)
    assert all(0 <= start < end <= len(text) for start, end in zip(starts, ends, strict=True))


def test_composed_and_decomposed_characters_keep_their_places() -> None:
    assert Normaliser("nfc").aligned("xe\u0301y") == ("xéy", [0, 1, 3], [1, 3, 4])
    assert Normaliser("nfd").aligned("xéy") == ("xe\u0301y", [0, 1, 1, 2], [1, 2, 2, 3])
    assert Normaliser("nfkc").aligned("oﬁx") == ("ofix", [0, 1, 1, 2], [1, 2, 2, 3])
    assert Normaliser("bert").aligned("\x00É日") == ("e 日 ", [1, 2, 2, 2], [2, 3, 3, 3])


@pytest.mark.parametrize("name", [*PRETOKENISERS, "none"])
@settings(deadline=None)
@given(text=st.text(alphabet=st.characters(max_codepoint=0x7F)))
def test_ascii_texts_are_split_the_same_way_by_either_pattern(name: Any, text: str) -> None:
    pretokeniser = PreTokeniser(name)
    words = pretokeniser.words(text)
    assert words == [text[start:end] for start, end in pretokeniser.spans(text)]
    assert ascii_pattern(name).findall(text) == unicode_pattern(name).findall(text) == words


def test_without_the_package_regex_only_ascii_texts_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "regex", None)
    unicode_pattern.cache_clear()
    assert PreTokeniser("gpt2").words("a cafe") == ["a", " cafe"]
    with pytest.raises(RllabError, match="pip install regex"):
        PreTokeniser("gpt2").words("a café")


def test_gpt2s_pattern_splits_as_published() -> None:
    assert PreTokeniser("gpt2").words("I'll see  the film's 2 ends!!\n\n Ok") == [
        "I", "'ll", " see", " ", " the", " film", "'s", " 2", " ends", "!!", "\n\n", " Ok",
    ]  # fmt: skip
    assert PreTokeniser("gpt4").words("I'LL pay 12345!\n") == ["I", "'LL", " pay", " ", "123", "45", "!\n"]
