"""Counted representations against hand-worked tables and scikit-learn."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from envs.errors import RllabError
from language.embeddings.counted import (
    bag_of_words,
    conditional,
    cooccurrences,
    first_seen,
    ngrams,
    ngrams_between,
    one_hot,
    tf_idf,
)

SENTENCES = [
    "this is the first document",
    "this document is the second document",
    "this is the third one",
    "is this the first document",
]
DOCUMENTS = [sentence.split() for sentence in SENTENCES]
WORDS = ("this", "is", "the", "first", "document", "second", "third", "one")


def test_the_bag_of_words_of_the_worked_example() -> None:
    assert first_seen(DOCUMENTS) == WORDS
    assert bag_of_words(DOCUMENTS).toarray().tolist() == [
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 2, 1, 0, 0],
        [1, 1, 1, 0, 0, 0, 1, 1],
        [1, 1, 1, 1, 1, 0, 0, 0],
    ]


def test_the_tf_idf_of_the_worked_example_is_zero_for_words_of_every_document() -> None:
    first, document, rare = np.log(4 / 2), np.log(4 / 3), np.log(4)
    expected = [
        [0, 0, 0, first / 5, document / 5, 0, 0, 0],
        [0, 0, 0, 0, 2 * document / 6, rare / 6, 0, 0],
        [0, 0, 0, 0, 0, 0, rare / 5, rare / 5],
        [0, 0, 0, first / 5, document / 5, 0, 0, 0],
    ]
    weighted = tf_idf(bag_of_words(DOCUMENTS))
    np.testing.assert_allclose(weighted.toarray(), expected, rtol=1e-12)
    assert weighted.toarray().round(3)[1].tolist() == [0, 0, 0, 0, 0.096, 0.231, 0, 0]
    assert weighted.nnz == 8


def test_counts_and_smoothed_tf_idf_are_scikit_learns() -> None:
    vectorizer = CountVectorizer(vocabulary=WORDS, token_pattern=r"\w+")
    np.testing.assert_array_equal(bag_of_words(DOCUMENTS).toarray(), vectorizer.transform(SENTENCES).toarray())
    theirs = TfidfVectorizer(vocabulary=WORDS, token_pattern=r"\w+").fit_transform(SENTENCES)
    ours = tf_idf(bag_of_words(DOCUMENTS), "smoothed")
    np.testing.assert_allclose(ours.toarray(), theirs.toarray(), rtol=1e-12)


def test_bigrams_and_words_together_are_scikit_learns() -> None:
    vectorizer = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\w+")
    theirs = vectorizer.fit_transform(SENTENCES).toarray()
    grams = [ngrams_between(document, 1, 2) for document in DOCUMENTS]
    ours = bag_of_words(grams, vectorizer.get_feature_names_out().tolist())
    np.testing.assert_array_equal(ours.toarray(), theirs)


def test_the_ngrams_of_the_worked_example() -> None:
    words = DOCUMENTS[0][:4]
    assert ngrams(words, 2) == ["this is", "is the", "the first"]
    assert ngrams(words, 3) == ["this is the", "is the first"]
    assert ngrams(words, 5) == []
    with pytest.raises(RllabError, match="at least 1 word"):
        ngrams(words, 0)


def test_order_is_lost_in_a_bag_of_words_but_not_in_bigrams() -> None:
    texts = [sentence.split() for sentence in ("the cat sat on the mat", "the mat sat on the cat")]
    bags = bag_of_words(texts).toarray()
    assert (bags[0] == bags[1]).all()
    pairs = bag_of_words([ngrams(text, 2) for text in texts]).toarray()
    assert (pairs[0] != pairs[1]).any()


def test_a_word_is_one_hot_and_an_unknown_one_cold() -> None:
    assert one_hot(["b", "x", "a"], ["a", "b", "c"]).toarray().tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_the_probability_of_pizza_given_is_is_a_quarter() -> None:
    """The guide says 1/3: it overlooks that "my" stands beside "is" as well."""
    documents = [sentence.split() for sentence in ("Pizza is the best", "Margherita is my favorite")]
    words = first_seen(documents)
    counts = cooccurrences(documents, window=1)
    row = dict(zip(words, counts.toarray()[words.index("is")].tolist(), strict=True))
    assert {word for word, count in row.items() if count == 1} == {"Pizza", "the", "Margherita", "my"}
    assert sum(row.values()) == 4
    assert conditional(counts).toarray()[words.index("is"), words.index("Pizza")] == 0.25
    # Were "my" not there, it would be the guide's number.
    without = cooccurrences([documents[0], ["Margherita", "is"]], window=1, vocabulary=words)
    assert conditional(without).toarray()[words.index("is"), words.index("Pizza")] == pytest.approx(1 / 3)


def test_windows_weigh_by_distance_and_end_with_the_document() -> None:
    documents = [["a", "b", "a", "c"], ["c", "b"]]
    counts = cooccurrences(documents, window=2, by_distance=True).toarray()
    # a–b at distances 1 and 1; a–a at 2, seen from both sides; a–c at 1; b–c at 2 and, in the other document, 1.
    assert counts.tolist() == [[1.0, 2.0, 1.0], [2.0, 0.0, 1.5], [1.0, 1.5, 0.0]]
    behind = cooccurrences(documents, window=2, by_distance=True, symmetric=False).toarray()
    assert behind.tolist() == [[0.5, 1.0, 1.0], [1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]
    np.testing.assert_array_equal(behind + behind.T, counts)


def test_unknown_words_keep_their_place_in_a_window() -> None:
    counts = cooccurrences([["a", "x", "b"]], window=1, vocabulary=["a", "b"])
    assert counts.nnz == 0


def test_cooccurrences_are_the_product_of_counts_where_the_window_is_the_document() -> None:
    bags = bag_of_words(DOCUMENTS).toarray()
    expected = bags.T @ bags - np.diag(bags.sum(0))
    np.testing.assert_array_equal(cooccurrences(DOCUMENTS, window=9).toarray(), expected)


def test_documents_without_words_weigh_nothing() -> None:
    counts = bag_of_words([["a"], []], ["a", "b"])
    for formula in ("plain", "smoothed"):
        assert np.isfinite(tf_idf(counts, formula).toarray()).all()
    with pytest.raises(RllabError, match="no words"):
        bag_of_words([[], []])
    with pytest.raises(RllabError, match="'a' more than once"):
        bag_of_words([["a"]], ["a", "b", "a"])
    with pytest.raises(RllabError, match="at least 1 word"):
        cooccurrences([["a"]], window=0)
