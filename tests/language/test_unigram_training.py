"""Unigram's training: seeds against counting by hand, lattices against all segmentations, the guide's loss."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import digamma as reference_digamma

from envs.errors import RllabError
from language.tokenizers.lattice import Lattices
from language.tokenizers.unigram_seeds import LONGEST_WORD, CountedWords, find_seeds, script
from language.tokenizers.unigram_training import Fitting, covered, digamma, rounded, train_unigram

COUNTS = {"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}
"""The guide's words and how often they occur."""
SUBWORDS = {
    "h": 15, "u": 36, "g": 20, "hu": 15, "ug": 20, "p": 17, "pu": 17, "n": 16, "un": 16, "b": 4, "bu": 4, "s": 5,
    "hug": 15, "gs": 5, "ugs": 5,
}  # fmt: skip
"""Its subwords and how often they occur."""
WORDS = st.dictionaries(st.text("abc", min_size=1, max_size=7), st.integers(1, 20), min_size=1, max_size=8)


def segmentations(word: str, pieces: dict[str, float]) -> list[tuple[list[str], float]]:
    """All ways of cutting a word into pieces, with the sums of their scores."""
    found = []
    for cuts in itertools.product([False, True], repeat=len(word) - 1):
        ends = [*(place for place, cut in enumerate(cuts, 1) if cut), len(word)]
        parts = [word[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        if all(part in pieces for part in parts):
            found.append((parts, sum(pieces[part] for part in parts)))
    return found


def lattices(words: list[str], pieces: list[str]) -> Lattices:
    """The lattices of words, of which the shortest come first."""
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])
    edges = [
        (starts[number] + begin, starts[number] + end, pieces.index(word[begin:end]))
        for number, word in enumerate(words)
        for begin in range(len(word))
        for end in range(begin + 1, len(word) + 1)
        if word[begin:end] in pieces
    ]
    begins, ends, names = np.array(edges).reshape(-1, 3).T
    return Lattices(starts, begins, ends, names)


def log_likelihood(counts: dict[str, int], pieces: dict[str, float]) -> float:
    """Of the best segmentations, which is the guide's measure."""
    return sum(count * max(score for _, score in segmentations(word, pieces)) for word, count in counts.items())


def viterbi_loss(subwords: dict[str, int]) -> float:
    """The guide's corpus loss, by the lattices, with probabilities that are counts over 210."""
    words = sorted(COUNTS, key=len)
    pieces = list(subwords)
    paths = lattices(words, pieces).best_paths(np.log([subwords[piece] / 210 for piece in pieces]))
    return -float(paths.scores @ [COUNTS[word] for word in words])


def test_the_guides_subwords_occur_210_times() -> None:
    counts: Counter[str] = Counter()
    for word, count in COUNTS.items():
        for begin, end in itertools.combinations(range(len(word) + 1), 2):
            counts[word[begin:end]] += count
    assert {piece: counts[piece] for piece in SUBWORDS} == SUBWORDS
    assert sum(SUBWORDS.values()) == 210


def test_the_guides_segmentations_of_hug_have_these_probabilities_and_not_its_own() -> None:
    scores = {piece: math.log(count / 210) for piece, count in SUBWORDS.items()}
    found = {" ".join(parts): math.exp(score) for parts, score in segmentations("hug", scores)}
    assert found == pytest.approx(
        {"h u g": 0.0011662, "hu g": 0.0068027, "h ug": 0.0068027, "hug": 0.0714286}, rel=1e-4
    )


def test_the_guides_best_scores_and_its_corpus_loss_are_right() -> None:
    words = sorted(COUNTS, key=len)
    scores = np.log([count / 210 for count in SUBWORDS.values()])
    best = lattices(words, list(SUBWORDS)).best_paths(scores).scores
    assert dict(zip(words, np.exp(best), strict=True)) == pytest.approx(
        {"hug": 0.071428, "pug": 0.007710, "pun": 0.006168, "bun": 0.001451, "hugs": 0.001701}, rel=1e-3
    )
    assert viterbi_loss(SUBWORDS) == pytest.approx(169.8, abs=0.05)


def test_the_guides_loss_does_not_change_without_pu_and_rises_by_23_5_without_hug() -> None:
    def without(gone: str) -> float:
        return viterbi_loss({piece: count for piece, count in SUBWORDS.items() if piece != gone})

    assert without("pu") == pytest.approx(viterbi_loss(SUBWORDS), abs=1e-9)
    assert without("hug") - viterbi_loss(SUBWORDS) == pytest.approx(10 * math.log(10.5), abs=1e-9)
    assert 10 * math.log(10.5) == pytest.approx(23.5, abs=0.05)


def test_the_seeds_of_the_guides_words_have_the_counts_that_the_guide_gives() -> None:
    words = CountedWords.of(COUNTS)
    seeds = find_seeds(words, 100, 16)
    found = dict(zip(seeds.strings(words.text), seeds.counts, strict=True))
    # hu always stands before g, and bu before n.
    assert found.keys() == {*"hugpnbs", "pu", "ug", "un", "hug", "ugs", "gs", "pug", "pun", "bun", "hugs"}
    assert {piece: found[piece] for piece in SUBWORDS if piece in found} == {
        piece: count for piece, count in SUBWORDS.items() if piece in found
    }


@given(WORDS, st.integers(1, 5))
def test_seeds_are_what_counting_every_substring_finds(counts: dict[str, int], longest: int) -> None:
    occurrences: Counter[str] = Counter()
    for word, count in counts.items():
        for begin, end in itertools.combinations(range(len(word) + 1), 2):
            occurrences[word[begin:end]] += count
    expected = {
        piece: count
        for piece, count in occurrences.items()
        if len(piece) == 1
        or (
            len(piece) <= longest and count >= 2 and all(occurrences[piece + letter] < count for letter in "abc")
        )
    }  # fmt: skip
    words = CountedWords.of(counts)
    seeds = find_seeds(words, 1000, longest)
    assert dict(zip(seeds.strings(words.text), seeds.counts, strict=True)) == expected
    weighted: Counter[str] = Counter()
    places = np.searchsorted(words.starts, seeds.occurrences.begins, side="right") - 1
    for begin, length, place in zip(seeds.occurrences.begins, seeds.occurrences.lengths, places, strict=True):
        weighted[words.text[begin : begin + length]] += int(words.counts[place])
    assert weighted == expected


def test_the_weightiest_seeds_stay_and_all_characters() -> None:
    words = CountedWords.of({"abab": 3, "ab": 1, "zz": 1})
    assert find_seeds(words, 4, 16).strings(words.text) == ["a", "b", "z", "ab"]  # 7 times 2, before 3 times 4
    assert find_seeds(words, 5, 16).strings(words.text) == ["a", "b", "z", "ab", "abab"]
    assert find_seeds(words, 1, 16).strings(words.text) == ["a", "b", "z"]


def test_a_piece_has_letters_of_one_script_or_none() -> None:
    words = CountedWords.of({"▁end.": 9, "▁9,5": 9, "аб.ab": 9})
    seeds = set(find_seeds(words, 1000, 16, one_script=True).strings(words.text))
    assert {"▁end", "▁9,5", "аб"} <= seeds
    assert not {"▁end.", "d.", "аб.ab", ".ab"} & seeds
    assert [script(character) for character in "aаかカ漢1.▁ \u0301"] == [
        "LATIN", "CYRILLIC", "CJK", "CJK", "CJK", "COMMON", "COMMON", None, None, None,
    ]  # fmt: skip


def test_long_words_are_learned_from_in_parts() -> None:
    words = CountedWords.of({"a" * (2 * LONGEST_WORD + 1): 3, "a": 2})
    assert words.counts.tolist() == [5, 6]
    assert np.diff(words.starts).tolist() == [1, LONGEST_WORD]


@settings(deadline=None)
@given(WORDS, st.randoms(use_true_random=False))
def test_expected_counts_and_best_paths_are_those_over_all_segmentations(counts: dict[str, int], random) -> None:  # type: ignore[no-untyped-def]
    words = sorted(counts, key=len)
    longer = sorted(
        {word[a:b] for word in words for a, b in itertools.combinations(range(len(word) + 1), 2)} - set("abc")
    )
    pieces = [*"abc", *(piece for piece in longer if random.random() < 0.6)]
    scores = {piece: -random.uniform(0.5, 4) for piece in pieces}
    expected = dict.fromkeys(pieces, 0.0)
    total = 0.0
    for word, count in counts.items():
        found = segmentations(word, scores)
        likelihood = sum(math.exp(score) for _, score in found)
        total += count * math.log(likelihood)
        for parts, score in found:
            for part in parts:
                expected[part] += count * math.exp(score) / likelihood
    graph = lattices(words, pieces)
    word_counts = np.array([counts[word] for word in words], float)
    found_counts, log_likelihood = graph.expected_counts(np.array(list(scores.values())), word_counts)
    assert found_counts == pytest.approx(np.array(list(expected.values())), rel=1e-9, abs=1e-9)
    assert log_likelihood == pytest.approx(total)

    paths = graph.best_paths(np.array(list(scores.values())))
    ranked = {word: sorted(segmentations(word, scores), key=lambda found: -found[1]) for word in words}
    best = {word: found[0] for word, found in ranked.items()}
    assert paths.scores == pytest.approx([best[word][1] for word in words])
    # Sums that differ by rounding alone, such as a + (a + b) and (a + a) + b, may be ranked either way.
    assume(all(len(found) == 1 or found[0][1] - found[1][1] > 1e-9 for found in ranked.values()))
    uses: Counter[str] = Counter()
    for word, (parts, _) in best.items():
        uses.update({part: counts[word] * parts.count(part) for part in parts})
    assert paths.counts(len(pieces), word_counts).tolist() == [uses[piece] for piece in pieces]


def test_a_word_that_cannot_be_cut_has_no_path() -> None:
    paths = lattices(["b", "aa"], ["a", "aa"]).best_paths(np.array([-1.0, -3.0]))
    assert paths.scores.tolist() == [-math.inf, -2.0]
    assert [(words.tolist(), pieces.tolist()) for words, pieces in paths.walk()] == [([1], [0]), ([1], [0])]


def test_pieces_that_are_taken_out_leave_the_lattices() -> None:
    graph = lattices(["ab", "abc"], ["a", "b", "c", "ab", "bc"])
    kept = np.array([True, True, True, False, True])
    graph.keep(kept, np.array([0, 1, 2, -1, 3]))
    paths = graph.best_paths(np.log([0.2, 0.2, 0.2, 0.4]))
    assert paths.scores == pytest.approx(np.log([0.04, 0.08]))
    graph.keep(np.ones(4, bool), np.arange(4), np.array([True, False]))
    assert np.isfinite(graph.best_paths(np.zeros(4)).scores).tolist() == [True, False]


def test_rounds_of_expectation_maximisation_never_lower_the_likelihood() -> None:
    words = ["hug", "pug", "pun", "bun", "hugs"]
    pieces = list(SUBWORDS)
    graph = lattices(words, pieces)
    scores = np.log(np.array(list(SUBWORDS.values())) / 210)
    likelihoods = []
    for _ in range(8):
        counts, likelihood = graph.expected_counts(scores, np.array([10.0, 5, 12, 4, 5]))
        likelihoods.append(likelihood)
        scores = np.log(np.maximum(counts, 1e-12) / counts.sum())
    assert likelihoods == sorted(likelihoods)
    assert likelihoods[-1] > likelihoods[0] + 10


def test_digamma_is_scipys() -> None:
    values = np.concatenate([np.geomspace(1e-3, 1e7, 500), [0.5, 1.0, 6.0]])
    assert digamma(values) == pytest.approx(reference_digamma(values), rel=1e-11, abs=1e-11)


def test_training_keeps_every_character_and_the_size_and_gives_probabilities() -> None:
    generator = np.random.default_rng(0)
    counts = {"".join(generator.choice(list("abcdef"), size=generator.integers(2, 9))): 5 for _ in range(300)} | {
        "é": 1
    }
    pieces = train_unigram(counts, 60, Fitting())
    assert len(pieces) == 60
    assert {piece for piece, _ in pieces} >= set("abcdefé")
    assert [score for _, score in pieces] == sorted((score for _, score in pieces), reverse=True)
    assert 0.8 < sum(math.exp(score) for _, score in pieces) <= 1.0
    assert train_unigram(dict(reversed(counts.items())), 60, Fitting()) == pieces


def test_a_vocabulary_learned_from_frequent_words_has_them() -> None:
    counts = {"the": 900, "then": 300, "there": 300, "here": 200, "hen": 20, "rote": 3}
    pieces = dict(train_unigram(counts, 12, Fitting()))
    assert {"the", "here"} <= pieces.keys()
    better = log_likelihood(counts, pieces)
    worse = log_likelihood(counts, {piece: score for piece, score in pieces.items() if piece != "the"})
    assert better > worse


def test_a_corpus_of_single_characters_has_no_more_pieces_than_these() -> None:
    assert [piece for piece, _ in train_unigram({"a": 3, "b": 1}, 50, Fitting())] == ["a", "b"]


def test_words_are_cut_where_the_alphabet_lacks_a_character() -> None:
    assert covered({"abxcd": 2, "xx": 3, "cd": 1, "a\0b": 4}, "abcd\0") == {"ab": 2, "cd": 3, "a\0b": 4}


def test_scores_are_multiples_of_a_1024th_so_that_sums_are_exact() -> None:
    assert rounded(-3.14159) == -3217 / 1024
    generator = np.random.default_rng(1)
    scores = [rounded(-score) for score in generator.uniform(2, 16, size=1000)]
    assert np.float32(sum(scores)) == np.add.accumulate(np.array(scores, np.float32))[-1] == sum(scores)


@pytest.mark.parametrize("wrong", [{"longest": 0}, {"kept": 1.0}, {"rounds": 0}, {"seed_size": 0}])
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(RllabError, match="training needs"):
        Fitting(**wrong)
