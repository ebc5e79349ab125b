"""Unigram as a tokenizer: Viterbi and sampling against all segmentations, Hugging Face's and sentencepiece's results."""

import json
import math
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import RllabError
from language.tokenizers.files import load_tokenizer
from language.tokenizers.special import NO_SPECIAL, SpecialTokens
from language.tokenizers.unigram import Unigram, UnigramConfig
from language.tokenizers.unigram_model import UNKNOWN, UnigramModel, express_unknown
from language.tokenizers.unigram_sampling import best_segmentations, sampled_segmentation

SUBWORDS = {
    "h": 15, "u": 36, "g": 20, "hu": 15, "ug": 20, "p": 17, "pu": 17, "n": 16, "un": 16, "b": 4, "bu": 4, "s": 5,
    "hug": 15, "gs": 5, "ugs": 5,
}  # fmt: skip
"""The guide's subwords and how often they occur, 210 times in all."""
GUIDE = {piece: math.log(count / 210) for piece, count in SUBWORDS.items()}
IDS = {piece: number for number, piece in enumerate(SUBWORDS)}
PIECES = list(SUBWORDS)


def model(scores: dict[str, float] = GUIDE) -> UnigramModel:
    return UnigramModel(scores, {piece: number for number, piece in enumerate(scores)})


def all_segmentations(word: str, scores: dict[str, float]) -> dict[tuple[str, ...], float]:
    found = {}
    for cuts in product([False, True], repeat=len(word) - 1):
        ends = [*(place for place, cut in enumerate(cuts, 1) if cut), len(word)]
        parts = tuple(word[a:b] for a, b in zip([0, *ends], ends, strict=False))
        if all(part in scores for part in parts):
            found[parts] = sum(scores[part] for part in parts)
    return found


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    """Sentences of made-up words, some far more frequent than others, with punctuation marks and accents."""
    generator = np.random.default_rng(7)
    syllables = ["ba", "ner", "ti", "ons", "qué", "über", "str", "ing", "ed", "o", "pre", "x", "日本"]
    words = ["".join(generator.choice(syllables, size=generator.integers(1, 5))) for _ in range(400)]
    weights = 1 / np.arange(1, 401)
    return [
        " ".join(generator.choice(words, size=12, p=weights / weights.sum())).capitalize() + generator.choice([".", "!", ", 19", "\n"])
        for _ in range(500)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(corpus: list[str]) -> Unigram:
    return Unigram.train(corpus, UnigramConfig(220))


def test_the_guides_words_are_cut_as_the_guide_says_or_into_equally_good_pieces() -> None:
    cut = {word: [PIECES[token_id] for token_id, _, _ in model().segment(word)] for word in ("hug", "pun", "bun")}
    assert cut == {"hug": ["hug"], "pun": ["p", "un"], "bun": ["b", "un"]}  # as good as pu n and bu n
    for word in ("pug", "hugs"):
        score = sum(GUIDE[PIECES[token_id]] for token_id, _, _ in model().segment(word))
        assert score == pytest.approx(max(all_segmentations(word, GUIDE).values()))


@given(st.text("hugpsnb", min_size=1, max_size=9))
def test_viterbi_finds_the_best_of_all_segmentations(word: str) -> None:
    pieces = model().segment(word)
    assert "".join(PIECES[token_id] for token_id, _, _ in pieces) == word
    assert [begin for _, begin, _ in pieces] == [0, *(end for _, _, end in pieces[:-1])]
    score = sum(GUIDE[PIECES[token_id]] for token_id, _, _ in pieces)
    assert score == pytest.approx(max(all_segmentations(word, GUIDE).values()))


@given(st.text("hugs", min_size=1, max_size=6), st.integers(1, 40))
def test_the_best_few_are_the_first_of_all_segmentations_in_order(word: str, count: int) -> None:
    expected = sorted(all_segmentations(word, GUIDE).values(), reverse=True)[:count]
    found = best_segmentations(model().edges(word), count)
    assert [score for score, _ in found] == pytest.approx(expected)
    cut = [tuple(PIECES[token_id] for token_id, _, _ in pieces) for _, pieces in found]
    assert len(set(cut)) == len(cut)
    assert [all_segmentations(word, GUIDE)[parts] for parts in cut] == pytest.approx(expected)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_segmentations_are_drawn_as_often_as_their_probability_to_the_alpha(alpha: float) -> None:
    generator = np.random.default_rng(0)
    draws = 4000
    edges = model().edges("hugs")
    counts = Counter(
        tuple(PIECES[token_id] for token_id, _, _ in sampled_segmentation(edges, generator, alpha))
        for _ in range(draws)
    )
    weights = {parts: math.exp(alpha * score) for parts, score in all_segmentations("hugs", GUIDE).items()}
    for parts, weight in weights.items():
        share = weight / sum(weights.values())
        assert counts[parts] / draws == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / draws))
    assert counts.keys() <= weights.keys()


def test_an_unknown_character_costs_ten_more_than_the_least_probable_piece() -> None:
    scores = {"a": -1.0, "b": -4.0, "bx": -30.0}
    assert model(scores).segment("axb") == [(0, 0, 1), (UNKNOWN, 1, 2), (1, 2, 3)]
    assert model(scores).segment("bxa") == [(2, 0, 2), (0, 2, 3)]  # -30 in place of -4 - 40
    assert [edge.score for edge in model(scores).edges("x")[0]] == [-40.0]


def test_unknown_characters_side_by_side_are_one_token_or_their_bytes() -> None:
    pieces = [(5, 0, 1), (UNKNOWN, 1, 2), (UNKNOWN, 2, 3), (5, 3, 4), (UNKNOWN, 4, 5)]
    assert express_unknown("aéßaé", pieces, 9) == [(5, 0, 1), (9, 1, 3), (5, 3, 4), (9, 4, 5)]
    byte_ids = list(range(1000, 1256))
    assert express_unknown("aéßaé", pieces, 9, byte_ids)[1:5] == [
        (1195, 1, 2), (1169, 1, 2), (1195, 2, 3), (1159, 2, 3),
    ]  # fmt: skip
    with pytest.raises(RllabError, match="no token for 'é'"):
        express_unknown("aéßaé", pieces, None)


def test_a_model_with_equal_scores_is_cut_as_hugging_face_does() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = [("<unk>", 0.0), ("a", -2.0), ("aa", -4.0), ("aaa", -6.0), ("b", -3.0), ("ab", -5.0), ("ba", -5.0)]
    peer = tokenizers.Tokenizer(tokenizers.models.Unigram(vocabulary, 0))
    ours = UnigramModel(dict(vocabulary[1:]), {piece: number for number, (piece, _) in enumerate(vocabulary)})
    for length in range(1, 9):
        for letters in product("ab", repeat=length):
            word = "".join(letters)
            assert [token_id for token_id, _, _ in ours.segment(word)] == peer.encode(word).ids


def test_hugging_face_encodes_and_decodes_alike(tokenizer: Unigram, corpus: list[str]) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    peer = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.to_huggingface()))
    texts = [*corpus[:100], "", " ", "<unk> ẞ unseen ‽‽ 語", "aaaaaaaaaa", "<0x41>", "  two", "\u2028x"]
    for text in texts:
        ours, theirs = tokenizer.encode(text), peer.encode(text)
        assert (ours.ids, ours.offsets) == (theirs.ids, theirs.offsets)
        assert ours.ids == tokenizer.ids(text)
        assert tokenizer.decode(ours.ids) == peer.decode(theirs.ids)
    assert tokenizer.encode_batch(texts, engine="rust") == tokenizer.encode_batch(texts, engine="python")


def test_known_texts_come_back_exactly(tokenizer: Unigram, corpus: list[str]) -> None:
    for text in corpus:
        assert tokenizer.decode(tokenizer.ids(text)) == text


def test_tokens_of_frequent_words_are_few(tokenizer: Unigram, corpus: list[str]) -> None:
    characters = sum(map(len, corpus))
    assert sum(len(tokenizer.ids(text)) for text in corpus) < characters / 3


def test_the_same_texts_give_the_same_vocabulary_whatever_their_order(tokenizer: Unigram, corpus: list[str]) -> None:
    assert Unigram.train(corpus[::-1], UnigramConfig(220)).to_huggingface() == tokenizer.to_huggingface()


def test_a_saved_tokenizer_is_the_same_when_loaded(tokenizer: Unigram, corpus: list[str], tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, Unigram)
    assert loaded.scores == tokenizer.scores
    assert loaded.settings() == tokenizer.settings()
    assert loaded.ids(corpus[0]) == tokenizer.ids(corpus[0])


@settings(deadline=None)
@given(st.text("banerti éx<", max_size=12), st.integers(0, 2**32))
def test_drawn_segmentations_are_of_the_same_text(tokenizer: Unigram, text: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for ids in (tokenizer.sample(text, generator, 0.2), tokenizer.sample(text, generator, 0.2, candidates=8)):
        known = set("".join(tokenizer.scores))
        if known.issuperset(text):
            assert tokenizer.decode(ids) == text


def test_a_large_alpha_draws_the_best_segmentation(tokenizer: Unigram, corpus: list[str]) -> None:
    generator = np.random.default_rng(0)
    scores = [tokenizer.scores[tokenizer.tokens[token_id]] for token_id in tokenizer.ids(corpus[0])]
    drawn = [tokenizer.scores[tokenizer.tokens[i]] for i in tokenizer.sample(corpus[0], generator, 1e6)]
    assert sum(drawn) == pytest.approx(sum(scores))


def test_the_best_segmentations_of_a_text_are_those_over_all_its_words() -> None:
    vocabulary = {"<unk>": 0, **{piece: number for number, piece in enumerate(PIECES, 1)}, " ": 16}
    config = UnigramConfig(special=SpecialTokens(unknown="<unk>"))
    tokenizer = Unigram(vocabulary, GUIDE | {"<unk>": 0.0, " ": -2.0}, config)
    words = [all_segmentations("hug", GUIDE), all_segmentations("bun", GUIDE)]
    expected = sorted((a + b - 2.0 for a in words[0].values() for b in words[1].values()), reverse=True)
    found = tokenizer.best("hug bun", 100)
    assert [score for _, score in found] == pytest.approx(expected)
    assert len({tuple(ids) for ids, _ in found}) == len(expected) == 12
    special = tokenizer.best("hug<unk>bun", 2)
    assert [tokenizer.decode(ids, keep_special=True) for ids, _ in special] == ["hug<unk>bun"] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((-0.1,), "alpha must not be negative"), ((0.1, 0), "must be at least 1"), ((math.nan,), "alpha")],
)
def test_sampling_that_makes_no_sense_is_refused(tokenizer: Unigram, arguments: Any, message: str) -> None:
    with pytest.raises(RllabError, match=message):
        tokenizer.sample("a", np.random.default_rng(0), *arguments)


def test_bad_corpora_and_sizes_are_refused() -> None:
    with pytest.raises(RllabError, match="The corpus is empty"):
        Unigram.train([], UnigramConfig())
    with pytest.raises(RllabError, match="smaller than the alphabet"):
        Unigram.train(["abcdef"], UnigramConfig(4))
    assert set(Unigram.train(["abcdeff ff"], UnigramConfig(4, alphabet_limit=2)).tokens) == {"<unk>", "f", "ff", " "}


def test_without_an_unknown_token_an_unknown_character_is_refused() -> None:
    tokenizer = Unigram.train(["ab ab"], UnigramConfig(5, special=NO_SPECIAL))
    with pytest.raises(RllabError, match="no token for 'z'"):
        tokenizer.ids("abz")
    with pytest.raises(RllabError, match="Rust engine cannot be used"):
        tokenizer.encode_batch(["ab"], engine="rust")
