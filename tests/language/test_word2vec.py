"""word2vec: its parts by closed forms, its gradients against autograd, its learning on texts of known structure."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from envs.errors import RllabError
from language.embeddings.hierarchical_softmax import HierarchicalSoftmax, HuffmanTree
from language.embeddings.negative_sampling import NegativeSampling
from language.embeddings.rows import add_rows
from language.embeddings.sampling import AliasTable, keep_probabilities, noise_table
from language.embeddings.vocabulary import Corpus, WordVocabulary, words_of
from language.embeddings.windows import WindowBatch, window_batches
from language.embeddings.word2vec import Word2Vec, Word2VecConfig

FRUITS, TOOLS = ("apple", "pear", "plum", "cherry"), ("hammer", "saw", "drill", "file")


def two_topics(texts: int = 600) -> list[str]:
    """Texts of fruits and texts of tools; each has a word of its own that stands in all of them."""
    generator = np.random.default_rng(0)
    topics = [(FRUITS, "tree"), (TOOLS, "shed")]
    return [
        " ".join(word for name in generator.choice(names, 6) for word in (name, place))
        for names, place in (topics[number % 2] for number in range(texts))
    ]


def small_batch(corpus: Corpus, **settings: int) -> WindowBatch:
    keep = np.ones(len(corpus.vocabulary), np.float32)
    return next(iter(window_batches(corpus, keep, 3, np.random.default_rng(1), **settings)))


def test_words_are_runs_of_letters_with_inner_apostrophes_or_of_digits() -> None:
    assert words_of("Don't panic—it's 42_000 O'Clock in Gdańsk!") == [
        "don't", "panic", "it's", "42", "000", "o'clock", "in", "gdańsk",
    ]  # fmt: skip


def test_a_vocabulary_is_ordered_by_count_and_then_alphabet() -> None:
    vocabulary = WordVocabulary.of_texts(["b a c b", "a b d"], minimum_count=1, maximum_size=3)
    assert vocabulary.words == ("b", "a", "c")
    assert vocabulary.counts.tolist() == [3, 2, 1]
    assert vocabulary.encode(["d", "c", "b"]) == [2, 0]


def test_a_corpus_without_frequent_words_is_refused_and_so_is_a_stream() -> None:
    with pytest.raises(RllabError, match="no words"):
        Corpus.of_texts(["", "!"])
    with pytest.raises(RllabError, match=r"No word occurs 3 times \(at most 2\)"):
        Corpus.of_texts(["a a b"], minimum_count=3)
    with pytest.raises(RllabError, match="read twice"):
        Corpus.of_texts(iter(["a"]))
    with pytest.raises(RllabError, match="single word"):
        Word2Vec(Corpus.of_texts(["a a a"]))


def test_chunks_of_a_corpus_know_their_texts() -> None:
    corpus = Corpus.of_texts(["a b c", "", "d", "x"], minimum_count=1)
    ids, texts = zip(*corpus.chunks(2), strict=True)
    assert np.concatenate(ids).tolist() == corpus.vocabulary.encode("abcdx")
    assert np.concatenate(texts).tolist() == [0, 0, 0, 2, 3]


def test_an_alias_table_draws_from_the_distribution_it_was_given() -> None:
    weights = np.array([5, 0, 1, 3.5, 0.5])
    table = AliasTable(weights)
    np.testing.assert_allclose(table.probabilities(), weights / 10, atol=1e-7)
    drawn = np.bincount(table.draw((100, 1000), np.random.default_rng(0)).ravel(), minlength=5) / 1e5
    np.testing.assert_allclose(drawn, weights / 10, atol=0.006)
    assert drawn[1] == 0


def test_noise_is_counts_to_the_three_quarters() -> None:
    np.testing.assert_allclose(noise_table(np.array([81, 16, 1])).probabilities(), np.array([27, 8, 1]) / 36, rtol=1e-6)


def test_frequent_words_are_kept_by_the_programs_formula_and_rare_ones_always() -> None:
    # f = 0.1 and 0.0009: t/f is 0.01 and above 1.
    keep = keep_probabilities(np.array([100_000, 900, 899_100]), 1e-3)
    assert keep[0] == pytest.approx(0.1 + 0.01)
    assert keep[1] == 1
    assert keep_probabilities(np.array([9, 1]), 0).tolist() == [1, 1]


def test_huffman_codes_are_prefix_free_and_as_short_as_can_be() -> None:
    tree = HuffmanTree.of_counts(np.array([8, 3, 1, 1, 1, 1, 1]))
    # Joined: 1+1, 1+1, 1+2, 2+3, 3+5, 8+8. Weighted length 2+2+3+5+8+16 = 36.
    assert (tree.lengths * [8, 3, 1, 1, 1, 1, 1]).sum() == 36
    codes = ["".join(map(str, row[:length])) for row, length in zip(tree.codes.tolist(), tree.lengths, strict=True)]
    assert not any(second.startswith(first) for first, second in pairwise(sorted(codes)))
    assert sum(2.0 ** -len(code) for code in codes) == 1
    assert set(tree.nodes[:, 0].tolist()) == {5}


def test_every_pair_in_a_window_is_in_exactly_one_block() -> None:
    texts = ["a b c d e f g", "h i", "j", "k l m n o p q r s t"]
    corpus = Corpus.of_texts(texts, minimum_count=1)
    names = corpus.vocabulary.words
    # With windows of reach 1 nothing is left to chance.
    batches = window_batches(corpus, np.ones(len(names), np.float32), 1, np.random.default_rng(0), block=4, blocks=2)
    found: list[tuple[str, str]] = []
    last = 0.0
    for batch in batches:
        for block, context, centre in zip(*np.nonzero(batch.pairs), strict=True):
            found.append((names[batch.contexts[block, context]], names[batch.centres[block, centre]]))
        last = batch.done
    expected = [pair for text in texts for pair in pairwise(text.split())]
    assert sorted(found) == sorted(expected + [(second, first) for first, second in expected])
    assert last == 1


def test_windows_reach_from_one_to_the_largest_each_as_often() -> None:
    corpus = Corpus.of_texts(["a b c d e f g h " * 2000], minimum_count=1)
    counts = np.zeros(4)
    for batch in window_batches(corpus, np.ones(8, np.float32), 4, np.random.default_rng(0)):
        # The words before a centre that are in its window, away from the ends.
        before = np.stack([np.diagonal(batch.pairs, -offset, 1, 2)[:, 4 - offset :][:, :28] for offset in range(4)])
        counts += before.sum((1, 2))
    shares = counts / counts[3]
    np.testing.assert_allclose(shares, [1 / 4, 2 / 4, 3 / 4, 1], atol=0.03)


def test_rows_that_stand_more_than_once_are_added_each_time() -> None:
    matrix, rows = np.zeros((4, 2), np.float32), np.array([[3, 1], [3, 3]])
    values = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    expected = matrix.copy()
    np.add.at(expected, rows, values)
    add_rows(matrix, rows, values)
    np.testing.assert_array_equal(matrix, expected)


def random_problem(corpus: Corpus, blocks: int) -> tuple[WindowBatch, NDArray[np.float32], NDArray[np.float32]]:
    generator = np.random.default_rng(3)
    batch = small_batch(corpus, block=5, blocks=blocks)
    hidden = generator.normal(size=(*batch.contexts.shape, 6)).astype(np.float32)
    return batch, hidden, generator.normal(size=(len(corpus.vocabulary), 6)).astype(np.float32)


def test_negative_samplings_gradients_are_autograds() -> None:
    corpus = Corpus.of_texts(two_topics(8))
    batch, hidden, outputs = random_problem(corpus, 3)
    layer = NegativeSampling(noise_table(corpus.vocabulary.counts), 6, negatives=5, shared=7)
    layer.outputs[:] = outputs
    gradients = layer.gradients(hidden, batch.centres, batch.pairs, np.random.default_rng(9), with_loss=True)
    drawn = layer.noise.draw((3, 7), np.random.default_rng(9))

    h, u = (torch.tensor(array, requires_grad=True) for array in (hidden, outputs))
    log_sigmoid = torch.nn.functional.logsigmoid
    total = torch.zeros(())
    for block, row, centre in zip(*np.nonzero(batch.pairs), strict=True):
        word = int(batch.centres[block, centre])
        total = total + log_sigmoid(u[word] @ h[block, row])
        for negative in drawn[block].tolist():
            if negative != word:
                total = total + 5 / 7 * log_sigmoid(-(u[negative] @ h[block, row]))
    total.backward()
    dense = np.zeros_like(outputs)
    np.add.at(dense, gradients.rows, gradients.outputs)
    np.testing.assert_allclose(gradients.hidden, h.grad, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dense, u.grad, rtol=1e-4, atol=1e-5)
    assert gradients.loss == pytest.approx(-total.item() / batch.pairs.sum(), rel=1e-5)


def test_hierarchical_softmaxs_gradients_are_autograds() -> None:
    corpus = Corpus.of_texts(two_topics(8))
    batch, hidden, outputs = random_problem(corpus, 1)
    layer = HierarchicalSoftmax(corpus.vocabulary.counts, 6)
    layer.outputs[:] = outputs[:-1]
    gradients = layer.gradients(hidden, batch.centres, batch.pairs, np.random.default_rng(0), with_loss=True)

    h, n = (torch.tensor(array, requires_grad=True) for array in (hidden, outputs[:-1]))
    total = torch.zeros(())
    for block, row, centre in zip(*np.nonzero(batch.pairs), strict=True):
        word = int(batch.centres[block, centre])
        for node, code in zip(layer.tree.nodes[word].tolist(), layer.tree.codes[word].tolist(), strict=True):
            if node >= 0:
                total = total + torch.nn.functional.logsigmoid((1 - 2 * code) * (n[node] @ h[block, row]))
    total.backward()
    dense = np.zeros_like(layer.outputs)
    np.add.at(dense, gradients.rows, gradients.outputs)
    np.testing.assert_allclose(gradients.hidden, h.grad, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dense, n.grad, rtol=1e-4, atol=1e-5)
    assert gradients.loss == pytest.approx(-total.item() / batch.pairs.sum(), rel=1e-5)
    assert len(set(gradients.rows.tolist())) == len(gradients.rows)


def test_a_hierarchical_softmaxs_probabilities_add_up_to_one() -> None:
    layer = HierarchicalSoftmax(np.array([9, 4, 4, 2, 1]), 3)
    layer.outputs[:] = np.random.default_rng(0).normal(size=(4, 3))
    hidden = np.ones((1, 1, 3), np.float32)
    losses = [
        layer.gradients(hidden, np.array([[word]]), np.ones((1, 1, 1), np.float32), np.random.default_rng(0), True).loss
        for word in range(5)
    ]
    assert sum(math.exp(-loss) for loss in losses if loss is not None) == pytest.approx(1, abs=1e-6)


def test_a_cbow_step_gives_each_word_of_a_window_the_error_of_the_mean() -> None:
    corpus = Corpus.of_texts(two_topics(8))
    model = Word2Vec(corpus, Word2VecConfig("cbow", dimensions=6, negatives=3, seed=1))
    assert isinstance(model.layer, NegativeSampling)
    model.layer.outputs[:] = np.random.default_rng(2).normal(size=model.layer.outputs.shape)
    batch, before = small_batch(corpus, block=5, blocks=2), model.inputs.copy()
    outputs = model.layer.outputs.copy()
    # The negatives are drawn by the model's own generator, which is put back to draw them again.
    state = model._generator.bit_generator.state
    model.step(batch, 0.1)
    model._generator.bit_generator.state = state
    drawn = model.layer.noise.draw((len(batch.centres), model.layer.shared), model._generator)

    expected = before.copy()
    for block, centre in np.ndindex(*batch.centres.shape):
        context = batch.contexts[block][batch.pairs[block, :, centre] > 0]
        if not len(context):
            continue
        h = torch.tensor(before[context].mean(0), requires_grad=True)
        word, u = int(batch.centres[block, centre]), torch.tensor(outputs)
        negatives = drawn[block][drawn[block] != word]
        gain = torch.nn.functional.logsigmoid(u[word] @ h)
        gain = gain + 3 / model.layer.shared * torch.nn.functional.logsigmoid(-(u[negatives] @ h)).sum()
        gain.backward()
        assert h.grad is not None
        np.add.at(expected, context, 0.1 * h.grad.numpy())
    np.testing.assert_allclose(model.inputs, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("architecture", ["skip-gram", "cbow"])
@pytest.mark.parametrize("objective", ["negative-sampling", "hierarchical-softmax"])
def test_words_of_one_topic_come_to_lie_together(architecture: str, objective: str) -> None:
    corpus = Corpus.of_texts(two_topics())
    config = Word2VecConfig(architecture, objective, dimensions=16, subsample=0, epochs=8)  # type: ignore[arg-type]
    vectors = Word2Vec(corpus, config).train()
    within = [vectors.similarity(a, b) for names in (FRUITS, TOOLS) for a in names for b in names if a != b]
    across = [vectors.similarity(a, b) for a in FRUITS for b in TOOLS]
    assert min(within) > max(across) + 0.3


def test_equal_seeds_give_equal_vectors_and_others_give_others() -> None:
    corpus = Corpus.of_texts(two_topics(50))
    first, again, other = (
        Word2Vec(corpus, Word2VecConfig(dimensions=8, epochs=1, seed=seed)).train().matrix for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_the_loss_falls_and_the_learning_rate_falls_in_a_line() -> None:
    rows: list[tuple[float, float, float]] = []
    corpus = Corpus.of_texts(two_topics(1500))
    Word2Vec(corpus, Word2VecConfig(dimensions=16, epochs=2, subsample=0)).train(lambda *row: rows.append(row))
    losses = [loss for _, _, loss in rows]
    # Vectors of zeros would have 6 log 2 = 4.16.
    assert losses[-1] < losses[0] - 0.05 < 6 * math.log(2)
    for done, rate, _ in rows:
        # Reported after the batch for which the rate was set.
        assert rate == pytest.approx(0.025 + (1e-4 - 0.025) * done, abs=2e-4)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"dimensions": 0}, "dimensions"), ({"learning_rate": -1.0}, "learning_rate"), ({"subsample": -1.0}, "subsample")],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float], sentence: str) -> None:
    with pytest.raises(RllabError, match=sentence):
        Word2VecConfig(**settings)  # type: ignore[arg-type]
