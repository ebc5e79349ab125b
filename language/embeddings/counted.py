"""Text as counts: one-hot, bag of words, n-grams, TF-IDF and co-occurrences, as sparse matrices.

Rows are documents (or occurrences, or words), columns are words. Salton and Buckley, "Term-Weighting Approaches in
Automatic Text Retrieval", 1988, for TF-IDF; Lund and Burgess, "Producing High-Dimensional Semantic Spaces from Lexical
Co-occurrence", 1996, for windows that weigh by distance.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from envs.errors import RllabError

Document: TypeAlias = Sequence[str]
"""A text as words."""
Sparse: TypeAlias = sparse.csr_array
"""A sparse matrix by rows."""
TfIdfFormula: TypeAlias = Literal["plain", "smoothed"]


def first_seen(documents: Iterable[Document]) -> tuple[str, ...]:
    """The different words, in the order in which they first occur: the columns of the functions below by default."""
    return tuple(dict.fromkeys(word for document in documents for word in document))


def one_hot(words: Document, vocabulary: Sequence[str]) -> Sparse:
    """A row for each word, with a single 1 in the word's column; zeros for a word that is not in the vocabulary.

    Returns:
        `[words, V]`, float64.

    Raises:
        RllabError: a word stands in the vocabulary twice.
    """
    return _counted([[word] for word in words], vocabulary)


def bag_of_words(documents: Sequence[Document], vocabulary: Sequence[str] | None = None) -> Sparse:
    """How often each document has each word; other words than the vocabulary's do not count.

    Args:
        documents: as words.
        vocabulary: the columns; by default `first_seen(documents)`.

    Returns:
        `[documents, V]`, float64.

    Raises:
        RllabError: a word stands in the vocabulary twice, or there is no word at all.
    """
    return _counted(documents, first_seen(documents) if vocabulary is None else vocabulary)


def ngrams(words: Document, n: int, joint: str = " ") -> list[str]:
    """The n-grams of a text: each run of n words, joined. `bag_of_words` counts them as it does words.

    Raises:
        RllabError: n is below 1.
    """
    if n < 1:
        raise RllabError(f"An n-gram has at least 1 word, not {n}.")
    return [joint.join(words[start : start + n]) for start in range(len(words) - n + 1)]


def ngrams_between(words: Document, shortest: int, longest: int, joint: str = " ") -> list[str]:
    """The n-grams of several lengths, the short ones first. Raises RllabError as `ngrams` does."""
    return [gram for n in range(shortest, longest + 1) for gram in ngrams(words, n, joint)]


def tf_idf(counts: Sparse, formula: TfIdfFormula = "plain") -> Sparse:
    """Weigh words by how much they say of a document.

    - `plain`, of textbooks: count / words of the document × ln(D / df). A word of every document weighs 0.
    - `smoothed`, scikit-learn's: count × (1 + ln((1 + D) / (1 + df))), each row then brought to length 1.

    D is the number of documents, df of those that have the word.

    Args:
        counts: `[D, V]`, of `bag_of_words`. Words outside its vocabulary do not count as words of a document.
        formula: one of the two.

    Returns:
        `[D, V]`, float64. A document without words stays 0, and so does a word without documents.
    """
    counts = sparse.csr_array(counts, dtype=np.float64)
    if formula == "plain":
        frequency = np.asarray((counts > 0).sum(axis=0)).ravel()
        sizes = _row_sums(counts)
        rare = np.log(counts.shape[0] / np.maximum(frequency, 1))
        weighted = _scaled(counts, 1 / np.where(sizes > 0, sizes, 1), rare)
        weighted.eliminate_zeros()
        return weighted
    if formula != "smoothed":
        raise RllabError(f"There is no formula '{formula}' of TF-IDF; choose plain or smoothed.")
    return weighted_rows(counts, rarity(counts))


def rarity(counts: Sparse) -> NDArray[np.float64]:
    """1 + ln((1 + D) / (1 + df)) of each word, `[V]`: the inverse document frequency of `smoothed`."""
    frequency = np.asarray((counts > 0).sum(axis=0)).ravel()
    found: NDArray[np.float64] = 1 + np.log((1 + counts.shape[0]) / (1 + frequency))
    return found


def weighted_rows(counts: Sparse, rare: NDArray[np.float64]) -> Sparse:
    """Each count times its word's rarity `[V]`, and each row then brought to length 1; an empty row stays 0."""
    found = _scaled(counts, np.ones(counts.shape[0]), rare)
    lengths = np.sqrt(_row_sums(found.multiply(found).tocsr()))
    return _scaled(found, 1 / np.where(lengths > 0, lengths, 1), np.ones(counts.shape[1]))


def cooccurrences(
    documents: Sequence[Document], window: int = 1, vocabulary: Sequence[str] | None = None, *,
    by_distance: bool = False, symmetric: bool = True,
) -> Sparse:  # fmt: skip
    """How often two words stand at most `window` words apart in a document.

    Args:
        documents: as words; a window never reaches into another document. Words that are not in the vocabulary keep
            their place: they do not bring their neighbours together.
        window: the farthest distance.
        vocabulary: rows and columns; by default `first_seen(documents)`.
        by_distance: count a pair 1/distance instead of 1.
        symmetric: count a pair in both directions; otherwise only words that stand behind the row's word.

    Returns:
        `[V, V]`, float64; the row is the word in the middle. For corpora larger than memory there is
        `language.embeddings.pair_counts.count_pairs`.

    Raises:
        RllabError: the window is below 1, a word stands in the vocabulary twice, or there is no word at all.
    """
    if window < 1:
        raise RllabError(f"A window reaches at least 1 word, not {window}.")
    columns = _columns(first_seen(documents) if vocabulary is None else vocabulary)
    unknown, size = len(columns), len(columns)
    ids = np.array([columns.get(word, unknown) for document in documents for word in document], np.int32)
    texts = np.repeat(np.arange(len(documents)), [len(document) for document in documents])
    matrix = sparse.csr_array((size, size))
    for distance in range(1, min(window, max(len(ids) - 1, 0)) + 1):
        first, second = ids[:-distance], ids[distance:]
        counted = (texts[:-distance] == texts[distance:]) & (first < size) & (second < size)
        values = np.full(int(counted.sum()), 1 / distance if by_distance else 1.0)
        matrix = matrix + sparse.coo_array((values, (first[counted], second[counted])), shape=(size, size)).tocsr()
    return sparse.csr_array(matrix + matrix.T if symmetric else matrix)


def conditional(counts: Sparse) -> Sparse:
    """P(column's word | row's word) = X_ij / Σ_k X_ik; a row without counts stays 0 (GloVe's paper, section 3)."""
    sums = _row_sums(counts)
    return _scaled(counts, 1 / np.where(sums > 0, sums, 1), np.ones(counts.shape[1]))


def _columns(vocabulary: Sequence[str]) -> dict[str, int]:
    columns = {word: place for place, word in enumerate(vocabulary)}
    if len(columns) < len(vocabulary):
        [(twice, _)] = Counter(vocabulary).most_common(1)
        raise RllabError(f"The vocabulary has '{twice}' more than once; give each word once.")
    if not columns:
        raise RllabError("There are no words to count; give texts that are not empty.")
    return columns


def _counted(documents: Sequence[Document], vocabulary: Sequence[str]) -> Sparse:
    columns = _columns(vocabulary)
    found: list[int] = []
    starts = [0]
    for document in documents:
        found.extend(place for word in document if (place := columns.get(word)) is not None)
        starts.append(len(found))
    counts = sparse.csr_array((np.ones(len(found)), found, starts), shape=(len(documents), len(columns)))
    counts.sum_duplicates()
    return counts


def _row_sums(matrix: Sparse) -> NDArray[np.float64]:
    return np.asarray(matrix.sum(axis=1), np.float64).ravel()


def _scaled(matrix: Sparse, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Sparse:
    """Each entry times its row's and its column's number."""
    return sparse.csr_array(sparse.diags_array(rows) @ matrix @ sparse.diags_array(columns))
