"""GloVe: its counts against a dense count, its gradients and steps against torch, its own loss."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from envs.errors import RllabError
from language.embeddings.counted import cooccurrences
from language.embeddings.glove import GloVe, GloVeConfig, train_glove
from language.embeddings.pair_counts import PairCounts, count_pairs, summed
from language.embeddings.vocabulary import Corpus


def random_texts(count: int = 40) -> list[str]:
    generator = np.random.default_rng(0)
    weights = 1 / np.arange(1, 27)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    lengths = generator.integers(1, 30, count)
    return [" ".join(generator.choice(letters, length, p=weights / weights.sum())) for length in lengths]


def dense(pairs: PairCounts) -> NDArray[np.float64]:
    """Both directions, as GloVe's program counts them: a word beside itself counts from both sides."""
    counts = np.zeros((pairs.vocabulary_size,) * 2)
    for part in range(pairs.parts):
        first, second, values = pairs.part(part)
        assert (first <= second).all()
        counts[first, second] += values
        counts[second, first] += values
    return counts


@pytest.mark.parametrize("entries_in_memory", [40, 300, 10**7])
def test_counts_that_were_spilled_to_disk_and_merged_are_those_in_memory(
    tmp_path: Path, entries_in_memory: int
) -> None:
    texts = random_texts()
    corpus = Corpus.of_texts(texts)
    # Pieces are cut where memory ends; a pair across such a cut is not seen, so the expected texts are cut as well.
    size = max(min(200_000, entries_in_memory // 10), 2)
    words = corpus.vocabulary.words
    expected = np.zeros((len(words),) * 2)
    for ids, places in corpus.chunks(size):
        documents = [
            [words[word] for _, word in group]
            for _, group in itertools.groupby(zip(places, ids, strict=True), key=lambda pair: pair[0])
        ]
        expected += cooccurrences(documents, 5, words, by_distance=True).toarray()
    with count_pairs(corpus, 5, entries_in_memory=entries_in_memory, folder=tmp_path) as pairs:
        np.testing.assert_allclose(dense(pairs), expected, rtol=1e-6)
        assert pairs.entries == (np.triu(expected) > 0).sum()
        assert (pairs.parts > 1) == (entries_in_memory < 1000)
    assert not list(tmp_path.iterdir())


def test_sums_of_keys_are_numpys() -> None:
    generator = np.random.default_rng(0)
    keys, values = generator.integers(0, 20, 200), generator.random(200)
    found, sums = summed(keys, values)
    np.testing.assert_array_equal(found, np.unique(keys))
    np.testing.assert_allclose(sums, np.bincount(keys, values)[found])


def test_a_step_is_torchs_adagrad_on_the_papers_loss() -> None:
    config = GloVeConfig(dimensions=4, x_max=10, learning_rate=0.05)
    model = GloVe(9, config)
    generator = np.random.default_rng(1)
    model.words[:], model.contexts[:] = generator.normal(size=(2, 9, 5))
    # Torch's AdaGrad squares gradients before the learning rate; see `GloVe.__init__`.
    words, contexts = (torch.tensor(array, requires_grad=True) for array in (model.words, model.contexts))
    optimizer = torch.optim.Adagrad([words, contexts], lr=1.0, initial_accumulator_value=1 / 0.05**2)
    for _ in range(3):
        # No word stands in two pairs on one side, so one batch is one step of each row.
        rows, columns = (generator.permutation(9)[:6].astype(np.int32) for _ in range(2))
        counts = generator.uniform(0.5, 30, 6).astype(np.float32)
        loss = model.step(rows, columns, counts)

        x, w, c = torch.tensor(counts), words[rows.astype(int)], contexts[columns.astype(int)]
        weight = torch.clamp(x / 10, max=1) ** 0.75
        error = (w[:, :4] * c[:, :4]).sum(1) + w[:, 4] + c[:, 4] - torch.log(x)
        total = 0.5 * (weight * error**2).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        assert loss == pytest.approx(total.item() / 6, rel=1e-5)
        np.testing.assert_allclose(model.words, words.detach(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(model.contexts, contexts.detach(), rtol=1e-4, atol=1e-5)


def test_dot_products_become_the_logarithms_of_counts() -> None:
    # Counts exp(u·v + a + b) of rank 2 can be fitted exactly; all are above x_max, so all weigh the same.
    generator = np.random.default_rng(0)
    factors = generator.normal(size=(12, 2))
    logarithms = factors @ factors.T + 2.0
    model = GloVe(12, GloVeConfig(dimensions=4, x_max=1e-3))
    rows, columns = (array.ravel().astype(np.int32) for array in np.indices((12, 12)))
    counts = np.exp(logarithms).ravel().astype(np.float32)
    losses = [model.step(rows, columns, counts) for _ in range(1500)]
    assert losses[-1] < 1e-3 * losses[0]
    fitted = model.words[:, :-1] @ model.contexts[:, :-1].T + model.words[:, -1:] + model.contexts[:, -1]
    np.testing.assert_allclose(fitted, logarithms, atol=0.15)


def test_learning_is_the_same_for_equal_seeds_lowers_the_loss_and_tells_topics_apart() -> None:
    fruits, tools = ("apple", "pear", "plum", "cherry"), ("hammer", "saw", "drill", "file")
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(names, 8)) for _ in range(300) for names in (fruits, tools)]
    texts += ["apple hammer", "pear saw", "plum drill", "cherry file"]
    losses: list[float] = []
    config = GloVeConfig(dimensions=6, window=4, epochs=100)
    corpus = Corpus.of_texts(texts)
    vectors = train_glove(corpus, config, lambda done, rate, loss: losses.append(loss))
    np.testing.assert_array_equal(vectors.matrix, train_glove(corpus, config).matrix)
    assert losses[-1] < losses[0] / 10
    assert {word for word, _ in vectors.nearest("apple", 3)} == set(fruits) - {"apple"}


def test_texts_of_single_words_have_nothing_to_learn_from() -> None:
    with pytest.raises(RllabError, match="No two words"):
        train_glove(Corpus.of_texts(["a", "b"]), GloVeConfig(epochs=1))
    with pytest.raises(RllabError, match="x_max must be above 0"):
        GloVeConfig(x_max=0)
