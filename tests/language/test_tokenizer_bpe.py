"""Byte-pair encoding: the guide's worked example, and the merges and encodings of Hugging Face `tokenizers`."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import RllabError
from language.tokenizers.bpe import BPE, BPEConfig, train_on_words
from language.tokenizers.merges import MergeTable, apply_merges
from language.tokenizers.special import NO_SPECIAL, UNKNOWN_ONLY

COUNTS = {"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}
"""The guide's words and how often they occur."""
PLAIN = BPEConfig(end_of_word="")


def corpus(counts: dict[str, int]) -> list[str]:
    return [" ".join([word] * count) for word, count in counts.items()]


def train_by_hugging_face(texts: list[str], size: int) -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    peer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    peer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=size, special_tokens=["<unk>"], show_progress=False)
    peer.train_from_iterator(texts, trainer)
    return peer


def random_words(seed: int, letters: str, count: int, longest: int) -> str:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest, size=count)
    return " ".join("".join(generator.choice(list(letters), size=length)) for length in lengths)


def test_the_guides_words_merge_ug_then_un_then_hug() -> None:
    config = BPEConfig(vocabulary_size=10, end_of_word="", special=NO_SPECIAL)
    tokens, merges = train_on_words(COUNTS, config)
    assert merges == [("u", "g"), ("u", "n"), ("h", "ug")]
    assert tokens == ["b", "g", "h", "n", "p", "s", "u", "ug", "un", "hug"]


def test_the_guides_new_words_are_encoded_by_its_merges() -> None:
    tokenizer = BPE.train(corpus(COUNTS), BPEConfig(vocabulary_size=11, end_of_word=""))
    assert tokenizer.encode("bug").tokens == ["b", "ug"]
    assert tokenizer.encode("mug").tokens == ["<unk>", "ug"]
    assert [tokenizer.encode(word).tokens for word in COUNTS] == [
        ["hug"],
        ["p", "ug"],
        ["p", "un"],
        ["b", "un"],
        ["hug", "s"],
    ]


def test_of_equally_frequent_pairs_the_smallest_pair_of_ids_is_merged_first() -> None:
    tokens, merges = train_on_words(
        {"dc": 3, "ab": 3, "ad": 3}, BPEConfig(vocabulary_size=7, end_of_word="", special=NO_SPECIAL)
    )
    assert tokens[:4] == ["a", "b", "c", "d"]
    assert merges == [("a", "b"), ("a", "d"), ("d", "c")]


def test_a_pair_that_overlaps_itself_is_counted_as_it_stands_and_merged_from_the_left() -> None:
    # aaaa has three pairs; after the merge it is [aa, aa], which is one more pair.
    _, merges = train_on_words({"aaaa": 1}, BPEConfig(vocabulary_size=3, end_of_word="", special=NO_SPECIAL))
    assert merges == [("a", "a"), ("aa", "aa")]
    tokenizer = BPE.train(["aaaaa"], BPEConfig(vocabulary_size=3, end_of_word=""))
    assert tokenizer.encode("aaa").tokens == ["aa", "a"]


@pytest.mark.parametrize("seed", range(12))
def test_random_words_give_the_merges_and_encodings_of_hugging_face(seed: int) -> None:
    # Few letters and long words make many pairs that give the same token (ab c and a bc), and that come back.
    letters = "abcdef"[: 2 + seed % 5]
    text = random_words(seed, letters, count=50, longest=15)
    size = len(letters) + 1 + 5 * (seed + 1)
    tokenizer = BPE.train([text], BPEConfig(vocabulary_size=size, end_of_word=""))
    peer = train_by_hugging_face([text], size)
    model = json.loads(peer.to_str())["model"]
    assert tokenizer.vocabulary == model["vocab"]
    assert tokenizer.merges == [tuple(merge) for merge in model["merges"]]
    other = random_words(seed + 100, letters + "?é", count=50, longest=40)
    theirs = peer.encode(other)
    ours = tokenizer.encode(other)
    assert (ours.ids, ours.tokens, ours.offsets) == (theirs.ids, theirs.tokens, theirs.offsets)
    assert tokenizer.decode(ours.ids) == peer.decode(theirs.ids)


def test_the_end_of_a_word_is_marked_so_that_decoding_knows_the_spaces() -> None:
    tokenizer = BPE.train(corpus(COUNTS), BPEConfig(vocabulary_size=20))
    encoding = tokenizer.encode("hugs bun  pug")
    assert tokenizer.decode(encoding.ids) == "hugs bun pug"
    assert encoding.tokens[-1].endswith("</w>")
    assert encoding.offsets[-1][1] == 13
    tokenizers = pytest.importorskip("tokenizers")
    peer = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.to_huggingface()))
    assert peer.encode("hugs bun  pug").offsets == encoding.offsets
    assert peer.decode(encoding.ids) == "hugs bun pug"


def test_every_character_of_the_corpus_can_end_a_word() -> None:
    tokenizer = BPE.train(["abc abc"], BPEConfig(vocabulary_size=8))
    assert "<unk>" not in tokenizer.encode("cba").tokens


def test_words_of_special_tokens_are_not_learned_from() -> None:
    config = BPEConfig(vocabulary_size=8, end_of_word="", special=UNKNOWN_ONLY)
    assert BPE.train(["ab<unk>ab"], config).vocabulary == {"<unk>": 0, "a": 1, "b": 2, "ab": 3}


def test_rare_pairs_can_be_left_alone() -> None:
    _, merges = train_on_words(
        COUNTS, BPEConfig(vocabulary_size=99, minimum_count=15, end_of_word="", special=NO_SPECIAL)
    )
    # hug occurs 15 times (10 + 5 in hugs), p un 12 times.
    assert merges == [("u", "g"), ("u", "n"), ("h", "ug")]


def test_a_limited_alphabet_keeps_the_most_frequent_characters() -> None:
    tokens, _ = train_on_words(
        COUNTS, BPEConfig(vocabulary_size=4, alphabet_limit=3, end_of_word="", special=NO_SPECIAL)
    )
    # u 36, g 20, p 17, n 16, h 15 …
    assert tokens[:3] == ["g", "p", "u"]


def test_a_vocabulary_smaller_than_the_alphabet_is_refused() -> None:
    with pytest.raises(
        RllabError, match="7 symbols and 1 special tokens; ask for at least 8, or set an alphabet_limit"
    ):
        BPE.train(corpus(COUNTS), BPEConfig(vocabulary_size=7, end_of_word=""))


@pytest.mark.parametrize("texts", [[], [""], ["   ", "\n"]])
def test_an_empty_corpus_is_refused(texts: list[str]) -> None:
    with pytest.raises(RllabError, match="corpus is empty"):
        BPE.train(texts)


def test_without_an_unknown_token_unknown_characters_are_refused_by_name() -> None:
    tokenizer = BPE.train(["ab ab"], BPEConfig(vocabulary_size=9, special=NO_SPECIAL))
    for encode in (tokenizer.ids, tokenizer.encode, lambda text: tokenizer.encode_batch([text])):
        with pytest.raises(RllabError, match=r"no token for 'é' \(U\+00E9\)"):
            encode("aé")
    with pytest.raises(RllabError, match="Rust engine cannot be used"):
        tokenizer.encode_batch(["ab"], engine="rust")


def test_merges_of_tokens_that_are_not_there_are_refused() -> None:
    with pytest.raises(RllabError, match="no token 'b'"):
        BPE({"<unk>": 0, "a": 1}, [("a", "b")], PLAIN)
    with pytest.raises(RllabError, match="from 0 upwards without gaps"):
        BPE({"<unk>": 0, "a": 2}, [], PLAIN)


def merge_one_by_one(symbols: list[int], merges: MergeTable) -> list[int]:
    """The definition: find the pair that was learned first, merge it where it stands leftmost, begin again."""
    while found := [(merges[pair][0], place) for place, pair in enumerate(pairwise(symbols)) if pair in merges]:
        _, place = min(found)
        symbols = [*symbols[:place], merges[symbols[place], symbols[place + 1]][1], *symbols[place + 2 :]]
    return symbols


@settings(deadline=None)
@given(
    symbols=st.lists(st.integers(0, 3), max_size=30),
    pairs=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=12, unique=True),
)
def test_the_heap_merges_as_the_definition_does(symbols: list[int], pairs: list[tuple[int, int]]) -> None:
    merges = {pair: (rank, 4 + rank) for rank, pair in enumerate(pairs)}
    merged = apply_merges(symbols, merges)
    assert [symbol for symbol, _ in merged] == merge_one_by_one(symbols, merges)
    assert sum(length for _, length in merged) == len(symbols)
