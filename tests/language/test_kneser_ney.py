"""Kneser–Ney: by hand, against a dictionary of counts and NLTK; losses in windows; the same tokens for everyone."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from envs.errors import RllabError
from language.data.blocks import write_token_file
from language.models.awd_lstm import AWDLSTM, AWDLSTMConfig
from language.models.gpt import GPT, GPTConfig
from language.models.kneser_ney import FALLBACK, KneserNey, KneserNeyConfig, estimated_discounts
from language.models.moe_lstm import MoELSTM, MoELSTMConfig
from language.training.held_out import carried_losses, sliding_losses
from language.training.language_modelling import perplexity

HALVES = (0.5, 0.5, 0.5)


def stream(length: int = 600, vocabulary: int = 7, seed: int = 0) -> NDArray[np.int64]:
    """Tokens of a Markov chain, some rare, so that all counts of counts exist."""
    generator = np.random.default_rng(seed)
    table = generator.dirichlet([0.3] * vocabulary, vocabulary)
    tokens = [0]
    for _ in range(length - 1):
        tokens.append(int(generator.choice(vocabulary, p=table[tokens[-1]])))
    return np.array(tokens)


def slow_probability(tokens: Sequence[int], model: KneserNey, context: tuple[int, ...], word: int) -> float:
    """Chen and Goodman's recursion, from sets and dictionaries."""
    order, size = model.config.order, model.config.vocabulary_size
    context = context[max(0, len(context) - order + 1) :]
    found = 1 / size
    for length in range(1, len(context) + 2):
        counts: Counter[tuple[int, ...]] = Counter()
        if length == order:
            counts.update(tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1))
        else:
            before = defaultdict(set)
            for i in range(1, len(tokens) - length + 1):
                before[tuple(tokens[i : i + length])].add(tokens[i - 1])
            counts.update({gram: len(seen) for gram, seen in before.items()})
        start = context[len(context) - length + 1 :]
        own = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == start}
        if not own:
            continue
        discounts = (0.0, *model.orders[length - 1].discounts)
        left = sum(discounts[min(count, 3)] for count in own.values())
        count = own.get(word, 0)
        found = (count - discounts[min(count, 3)] + left * found) / sum(own.values())
    return found


def test_a_small_stream_has_the_probabilities_worked_out_by_hand() -> None:
    # a b a b a c: the pairs ab 2, ba 2, ac 1; each of a, b, c comes after one other token. d never comes.
    model = KneserNey.train(np.array([0, 1, 0, 1, 0, 2]), KneserNeyConfig(4, 2, (HALVES, HALVES)))
    alone = [1 / 6 + 1 / 8, 1 / 6 + 1 / 8, 1 / 6 + 1 / 8, 1 / 8]  # (1 − ½)/3, and 3 · ½/3 shared by four
    np.testing.assert_allclose(model.distribution([]), alone)
    after_a = [alone[0] / 3, 1.5 / 3 + alone[1] / 3, 0.5 / 3 + alone[2] / 3, alone[3] / 3]  # left: 2 · ½/3
    np.testing.assert_allclose(model.distribution([0]), after_a)
    np.testing.assert_allclose(model.distribution([3]), alone)
    found = model.log_probabilities(np.array([0, 1, 3, 2]))
    after_b = [1.5 / 2 + alone[0] / 4, alone[1] / 4, alone[2] / 4, alone[3] / 4]
    np.testing.assert_allclose(np.exp(found), [alone[0], after_a[1], after_b[3], alone[2]])


def test_discounts_come_from_counts_of_counts() -> None:
    counts = np.array([1, 1, 1, 1, 2, 2, 3, 4, 9])  # n₁ 4, n₂ 2, n₃ 1, n₄ 1, so Y = 4/(4 + 2·2)
    assert estimated_discounts(counts) == (1 - 2 * 0.5 * 2 / 4, 2 - 3 * 0.5 * 1 / 2, 3 - 4 * 0.5 * 1 / 1)
    assert estimated_discounts(np.array([5, 6, 7])) == FALLBACK


@pytest.mark.parametrize("order", [1, 2, 4])
def test_the_sorted_arrays_say_what_dictionaries_of_counts_say(order: int) -> None:
    tokens = stream()
    model = KneserNey.train(tokens, KneserNeyConfig(7, order))
    other = stream(40, seed=1)
    expected = [
        slow_probability(tokens.tolist(), model, tuple(other[:place].tolist()), int(word))
        for place, word in enumerate(other)
    ]
    np.testing.assert_allclose(np.exp(model.log_probabilities(other)), expected)
    if order == 4:
        assert FALLBACK not in [some.discounts for some in model.orders[2:]]  # they were estimated


def test_the_probabilities_after_every_context_sum_to_1() -> None:
    tokens = stream(300, 5)
    model = KneserNey.train(tokens, KneserNeyConfig(6, 3))
    for first in range(6):
        for second in range(6):
            found = model.distribution([first, second])
            assert found.sum() == pytest.approx(1)
            assert found.min() > 0
            ids = np.array([first, second, 0])
            assert model.log_probabilities(ids)[2] == pytest.approx(math.log(found[0]))


def test_with_equal_discounts_it_is_nltks() -> None:
    nltk = pytest.importorskip("nltk.lm")
    tokens = stream()
    discount = 0.1
    words = [str(token) for token in tokens]
    theirs = nltk.KneserNeyInterpolated(3, discount=discount)
    theirs.fit([[tuple(words[i : i + length]) for length in (1, 2, 3) for i in range(len(words) - length + 1)]], words)
    # Its single tokens are not discounted.
    ours = KneserNey.train(tokens, KneserNeyConfig(7, 3, ((0.0,) * 3, (discount,) * 3, (discount,) * 3)))
    for first, second in {(int(tokens[i]), int(tokens[i + 1])) for i in range(len(tokens) - 2)}:
        expected = [theirs.score(str(word), (str(first), str(second))) for word in range(7)]
        np.testing.assert_allclose(ours.distribution([first, second]), expected, atol=1e-12)


def test_longer_n_grams_predict_a_text_of_long_patterns_better(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    phrases = [generator.integers(0, 50, 6).tolist() for _ in range(20)]
    training, held_out = (
        write_token_file(tmp_path / f"{name}.npy", (phrases[i] for i in generator.integers(0, 20, count)), 50)
        for name, count in (("training", 400), ("held_out", 50))
    )
    found = [KneserNey.train(training.ids, KneserNeyConfig(50, order)).perplexity(held_out) for order in (1, 2, 4)]
    assert found[0]["perplexity"] > found[1]["perplexity"] > found[2]["perplexity"] > 1
    assert found[2]["perplexity"] < 2.5  # within a phrase nothing is open; its successor is one of 20: 20^(1/6) is 1.6
    assert math.exp(found[1]["loss"]) == pytest.approx(found[1]["perplexity"])


def test_a_model_of_a_large_vocabulary_is_counted_as_one_of_a_small() -> None:
    tokens = stream(200, 5)
    small, large = (KneserNey.train(tokens + shift, KneserNeyConfig(5 + shift, 5)) for shift in (0, 2**31))
    for one, other in zip(small.orders[1:], large.orders[1:], strict=True):
        np.testing.assert_allclose(one.shares, other.shares)
        np.testing.assert_allclose(one.remainders, other.remainders)


def test_what_cannot_be_counted_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RllabError, match="outside the vocabulary of 3 tokens"):
        KneserNey.train(np.array([0, 3]), KneserNeyConfig(3, 1))
    with pytest.raises(RllabError, match="no n-gram of 3"):
        KneserNey.train(np.array([0, 1]), KneserNeyConfig(3, 3))
    with pytest.raises(RllabError, match="at least 1"):
        KneserNeyConfig(3, 0)
    with pytest.raises(RllabError, match="greater than the count"):
        KneserNeyConfig(3, 1, ((1.5, 1, 1),))
    with pytest.raises(RllabError, match="nothing to predict"):
        KneserNey.train(np.array([0, 1]), KneserNeyConfig(2, 1)).perplexity(
            write_token_file(tmp_path / "one.npy", [[0]], 2)
        )


@pytest.fixture
def gpt() -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(7, 8, 1, 2, 8, initial_std=0.5)).eval()


def test_a_window_that_moves_by_its_length_gives_the_perplexity_of_blocks(gpt: GPT, tmp_path: Path) -> None:
    file = write_token_file(tmp_path / "tokens.npy", [stream(60).tolist()], 7)
    losses = sliding_losses(gpt, file.ids, 8, 8, batch_size=3)
    with torch.no_grad():
        expected = perplexity(gpt, file, 8, 16)
    assert losses.shape == (59,)  # 7 blocks, and what is left after them
    assert losses[:56].mean() == pytest.approx(expected["loss"], rel=1e-6)


def test_a_sliding_window_shows_each_token_those_before_it(gpt: GPT) -> None:
    ids = stream(31)
    losses = sliding_losses(gpt, ids, 8, 4, batch_size=2)
    assert losses.shape == (30,)  # 8, 4 of each of 5 more, and the last 2
    begins = {1: 0, 8: 0, 9: 4, 12: 4, 13: 8, 28: 20, 29: 22, 30: 22}
    for target, begin in begins.items():
        with torch.no_grad():
            logits = gpt(torch.from_numpy(ids[None, begin:target]))[0, -1]
        assert losses[target - 1] == pytest.approx(-float(logits.log_softmax(0)[ids[target]]), abs=1e-5)


@pytest.mark.parametrize("model", [
    AWDLSTM(AWDLSTMConfig(7, 6, 2, 8)),
    MoELSTM(MoELSTMConfig(vocabulary_size=7, width=8, feed_forward_width=8, experts=4, k=2)),
], ids=["awd-lstm", "moe-lm"])  # fmt: skip
def test_a_recurrent_model_remembers_its_row_however_it_is_cut(model: AWDLSTM | MoELSTM) -> None:
    model.eval()
    ids = stream(64)
    whole = carried_losses(model, ids, 100, rows=3)
    np.testing.assert_allclose(carried_losses(model, ids, 5, rows=3), whole, atol=1e-5)
    alone = sliding_losses(model, ids[:22], 21, 21)
    np.testing.assert_allclose(whole[:21], alone, atol=1e-5)


def test_windows_that_do_not_fit_are_refused(gpt: GPT) -> None:
    with pytest.raises(RllabError, match="between 1 and its length"):
        sliding_losses(gpt, stream(30), 8, 9)
    with pytest.raises(RllabError, match="too few for a window"):
        sliding_losses(gpt, stream(8), 8, 4)
    with pytest.raises(RllabError, match="GPT remembers nothing"):
        carried_losses(gpt, stream(30), 8)
