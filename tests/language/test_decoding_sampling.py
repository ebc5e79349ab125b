"""The loop: greedy decoding and drawing from a chain whose probabilities are known."""

import math
from typing import Any

import pytest
import torch
from markov_chain import MarkovChain
from scipy.stats import chisquare
from torch import Tensor

from envs.errors import RllabError
from language.decoding import DecodingConfig, Generated, Sampler, generate, pad_left
from language.decoding.noise import BLOCK, RowNoise, draw_tokens, row_seeds
from language.decoding.ranking import ascending, kth_largest, largest

CHAIN = MarkovChain.of([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0.25, 0.25, 0.5]])


def run(model: Any, prompts: list[list[int]], **options: Any) -> Generated:
    extra = {name: options.pop(name) for name in ("seeds", "log_probabilities", "further") if name in options}
    return generate(model, *pad_left(prompts), DecodingConfig(**options), **extra)


def row(generated: Generated, number: int) -> list[int]:
    return generated.tokens[number][generated.valid[number]].tolist()


def test_greedy_decoding_takes_the_likeliest_token_each_time_and_the_first_of_equals() -> None:
    assert row(run(CHAIN, [[0]], temperature=0, maximum_new_tokens=4), 0) == [1, 0, 1, 0]
    even = MarkovChain(torch.zeros(5, 5))
    assert row(run(even, [[3]], temperature=0, maximum_new_tokens=2), 0) == [0, 0]


def test_drawn_tokens_have_the_chains_frequencies() -> None:
    generated = run(CHAIN, [[0]] * 400, maximum_new_tokens=50)
    sequences = torch.cat([torch.zeros(400, 1, dtype=torch.int64), generated.tokens], 1)
    for before in range(3):
        counts = sequences[:, 1:][sequences[:, :-1] == before].bincount(minlength=3)
        expected = CHAIN.logits[before].exp() * counts.sum()
        assert chisquare(counts.numpy(), expected.numpy(), sum_check=False).pvalue > 1e-3


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": 0.5}, [0.01 / 0.46, 0.36 / 0.46, 0.09 / 0.46]),
        ({"top_k": 2}, [0, 2 / 3, 1 / 3]),
        ({"top_p": 0.5}, [0, 1, 0]),
        ({"min_p": 0.4}, [0, 2 / 3, 1 / 3]),
        ({"banned_tokens": (1,)}, [0.25, 0, 0.75]),
    ],
)
def test_what_is_drawn_follows_the_distribution_after_the_steps(options: dict[str, Any], expected: list[float]) -> None:
    generated = run(CHAIN, [[0]] * 4000, maximum_new_tokens=1, **options)
    counts = generated.tokens.flatten().bincount(minlength=3)
    for count, probability in zip(counts.tolist(), expected, strict=True):
        deviation = math.sqrt(4000 * probability * (1 - probability))
        assert abs(count - 4000 * probability) <= 4 * deviation


def test_a_row_alone_equals_the_row_in_a_batch_of_other_prompts() -> None:
    model = MarkovChain.random(30)
    prompts, seeds = [[1], [2, 3, 4], [7, 5], [9, 9, 9, 9]], [11, 2**40, 13, 14]
    options: dict[str, Any] = {
        "maximum_new_tokens": 150, "temperature": 0.8, "top_p": 0.95, "frequency_penalty": 0.1, "stop_tokens": (0,),
    }  # fmt: skip
    together = run(model, prompts, seeds=seeds, log_probabilities=True, **options)
    assert len({len(row(together, number)) for number in range(4)}) > 1
    for number, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        alone = run(model, [prompt], seeds=[seed], log_probabilities=True, **options)
        length = int(alone.valid.sum())
        assert row(alone, 0) == row(together, number)
        assert alone.finished[0] == together.finished[number]
        assert alone.log_probabilities is not None
        assert together.log_probabilities is not None
        assert torch.equal(alone.log_probabilities[0, :length], together.log_probabilities[number, :length])


def test_seeds_decide_what_is_drawn_and_rows_of_different_seeds_share_nothing() -> None:
    first, again, other = (run(CHAIN, [[0]] * 3, seed=seed, maximum_new_tokens=60).tokens for seed in (0, 0, 1))
    assert torch.equal(first, again)
    rows = {tuple(tokens) for tokens in [*first.tolist(), *other.tolist()]}
    assert len(rows) == 6
    assert len({*row_seeds(0, 50), *row_seeds(1, 50)}) == 100
    assert row_seeds(3, 50)[:7] == row_seeds(3, 7)


def test_a_row_ends_with_its_stop_token_and_leaves_the_batch_when_half_have_ended() -> None:
    # 0 → 1 → 2 → 3 → 3 → …; the rows are 1, 2 and 3 tokens from 3.
    model = MarkovChain.of([[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1.0]])
    generated = run(model, [[0], [1], [2], [0]], temperature=0, maximum_new_tokens=9, stop_tokens=(3,))
    assert generated.tokens.tolist() == [[1, 2, 3], [2, 3, 0], [3, 0, 0], [1, 2, 3]]
    assert generated.valid.sum(-1).tolist() == [3, 2, 1, 3]
    assert generated.finished.all()
    assert model.batches == [4, 4, 2]


def test_without_a_stop_token_a_row_ends_unfinished_at_the_limit() -> None:
    generated = run(CHAIN, [[0], [1]], maximum_new_tokens=5)
    assert generated.valid.all()
    assert generated.tokens.shape == (2, 5)
    assert generated.finished.tolist() == [False, False]


def test_a_minimum_of_new_tokens_holds_with_prompts_of_any_length() -> None:
    generated = run(CHAIN, [[0], [1, 2, 1, 1]] * 100, maximum_new_tokens=12, minimum_new_tokens=6, stop_tokens=(0,))
    lengths = generated.valid.sum(-1)
    assert int(lengths.min()) == 7
    assert not (generated.tokens[:, :6] == 0).any()


def test_penalties_count_what_was_generated_and_not_the_prompt() -> None:
    model = MarkovChain(torch.tensor([[2.0, 1.5, 0.0]]).repeat(3, 1))
    told = run(model, [[0, 0, 0]], temperature=0, maximum_new_tokens=4, frequency_penalty=0.75)
    assert row(told, 0) == [0, 1, 0, 1]  # 2 | 1.25, 1.5 | 1.25, 0.75 | 0.5, 0.75
    assert row(run(model, [[0, 0]], temperature=0, maximum_new_tokens=3, presence_penalty=1.0), 0) == [0, 1, 0]
    # CTRL's counts the prompt.
    assert row(run(model, [[0]], temperature=0, maximum_new_tokens=2, repetition_penalty=1.5), 0) == [1, 0]


def test_log_probabilities_are_those_of_the_drawn_distribution_and_those_of_the_model() -> None:
    options: dict[str, Any] = {"maximum_new_tokens": 20, "temperature": 0.7, "top_k": 2}
    generated = run(CHAIN, [[0], [2, 1]], log_probabilities=True, **options)
    assert generated.log_probabilities is not None
    assert generated.model_log_probabilities is not None
    before = torch.cat([torch.tensor([[0], [1]]), generated.tokens[:, :-1]], 1)
    logits = CHAIN.logits[before] / 0.7
    model = logits.log_softmax(-1).gather(2, generated.tokens[:, :, None])[:, :, 0]
    kept = logits >= logits.topk(2).values[:, :, -1:]
    drawn = torch.where(kept, logits, -torch.inf).log_softmax(-1).gather(2, generated.tokens[:, :, None])[:, :, 0]
    assert torch.allclose(generated.model_log_probabilities, model, atol=1e-6)
    assert torch.allclose(generated.log_probabilities, drawn, atol=1e-6)
    assert (drawn >= model).all()
    assert (drawn > model).any()


def test_without_truncation_and_penalties_both_log_probabilities_are_the_same() -> None:
    generated = run(CHAIN, [[0]], maximum_new_tokens=20, temperature=1.3, log_probabilities=True)
    assert generated.log_probabilities is not None
    assert torch.equal(generated.log_probabilities, generated.model_log_probabilities)  # type: ignore[arg-type]
    penalised = run(CHAIN, [[0]], maximum_new_tokens=20, presence_penalty=1.0, log_probabilities=True)
    assert not torch.equal(penalised.log_probabilities, penalised.model_log_probabilities)  # type: ignore[arg-type]


def test_greedy_log_probabilities_are_0_as_chosen_and_the_models_own() -> None:
    generated = run(CHAIN, [[0]], maximum_new_tokens=2, temperature=0, log_probabilities=True)
    assert generated.log_probabilities is not None
    assert generated.model_log_probabilities is not None
    assert generated.log_probabilities.tolist() == [[0, 0]]
    assert generated.model_log_probabilities[0].exp().tolist() == pytest.approx([0.6, 0.5])


def test_what_is_returned_may_take_part_in_training() -> None:
    generated = run(CHAIN, [[0]], maximum_new_tokens=3, log_probabilities=True)
    weights = torch.ones(1, 3, requires_grad=True)
    (weights * generated.log_probabilities).sum().backward()  # an inference tensor could not be kept for this
    assert torch.equal(weights.grad, generated.log_probabilities)  # type: ignore[arg-type]


def test_steps_of_the_callers_own_come_before_the_temperature() -> None:
    def only_two(tokens: Tensor, valid: Tensor, logits: Tensor) -> Tensor:
        return torch.where(torch.arange(3) == 2, 0.0, -torch.inf).expand_as(logits)

    assert row(run(CHAIN, [[0]], maximum_new_tokens=3, further=(only_two,)), 0) == [2, 2, 2]


def test_a_sampler_can_be_stepped_and_its_rows_ended_from_outside() -> None:
    sampler = Sampler(CHAIN, *pad_left([[0], [1], [2]]), DecodingConfig(temperature=0, maximum_new_tokens=4))
    assert [part.tolist() for part in sampler.advance()] == [[0, 1, 2], [1, 0, 2], [True] * 3]
    sampler.end(torch.tensor([False, True, False]))
    step = sampler.advance()
    assert (step.rows.tolist(), step.is_new.tolist()) == ([0, 1, 2], [True, False, True])
    sampler.end(torch.tensor([True, False, False]))
    assert [part.tolist() for part in sampler.advance()] == [[2], [2], [True]]
    assert not sampler.is_done
    generated = sampler.result()
    assert generated.valid.sum(-1).tolist() == [2, 1, 3]
    assert generated.finished.tolist() == [True, True, False]


def test_tokens_of_probability_0_are_never_drawn_at_the_ends_of_the_numbers() -> None:
    ends = torch.tensor([[0.0], [1 - 2**-24]])
    probabilities = torch.tensor([0.0, 0.0, 0.1, 0.0, 0.7, 0.0])
    for scale in (1.0, 0.3, 1e-3, 7.7):
        assert draw_tokens((scale * probabilities).expand(2, -1), ends).tolist() == [2, 4]
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        weights = torch.rand(2, 500, generator=generator) * (torch.rand(2, 500, generator=generator) < 0.1)
        assert (weights.gather(1, draw_tokens(weights, ends)[:, None]) > 0).all()


def test_a_rows_numbers_do_not_depend_on_the_rows_beside_it() -> None:
    alone, together = RowNoise([5], torch.device("cpu")), RowNoise([4, 5, 6], torch.device("cpu"))
    drawn = [together.draw()[1].item() for _ in range(10)]
    together.select(torch.tensor([1]))
    drawn += [together.draw().item() for _ in range(2 * BLOCK)]
    assert drawn == [alone.draw().item() for _ in range(2 * BLOCK + 10)]
    assert 0.4 < sum(drawn) / len(drawn) < 0.6


def test_ranking_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(9, 40, generator=generator)
    scores[:, ::3] = -math.inf
    for values in (scores, scores.bfloat16()):
        assert torch.equal(largest(values), values.argmax(-1))
        assert torch.equal(ascending(values), values.sort(-1).values)
        for count in (1, 3, 40):
            assert torch.equal(kth_largest(values, count), values.topk(count).values[:, -1:])


@pytest.mark.parametrize("options", [{}, {"top_p": 0.9}, {"top_k": 1}, {"banned_tokens": (0, 1, 2)}])
def test_logits_that_are_not_numbers_and_nothing_to_draw_are_refused(options: dict[str, Any]) -> None:
    model = CHAIN if options.get("banned_tokens") else MarkovChain(torch.full((3, 3), math.nan))
    with pytest.raises(RllabError, match="no token to draw"):
        run(model, [[0]], **options)


@pytest.mark.parametrize(
    ("tokens", "valid", "told"),
    [
        ([[0, 1], [2, 0]], [[True, True], [True, False]], "padded on the left"),
        ([[0, 1], [2, 0]], [[True, True], [False, False]], "at least one token"),
        ([[0, 1, 1]], [[True, False, True]], "between"),
        ([[0, 3]], None, "token 3"),
        ([[-1, 0]], None, "token -1"),
        ([[0, 1]], [[True]], "mask of the prompts"),
        ([[]], None, "at least one token"),
        ([[0] * 8], None, "ask for at most 2 new"),
        ([[0] * 12], None, "give at most 9 tokens"),
    ],
)
def test_bad_prompts_are_refused(tokens: list[list[int]], valid: list[list[bool]] | None, told: str) -> None:
    model = MarkovChain(CHAIN.logits, context=10)
    mask = None if valid is None else torch.tensor(valid)
    with pytest.raises(RllabError, match=told):
        generate(model, torch.tensor(tokens, dtype=torch.int64), mask, DecodingConfig(maximum_new_tokens=5))


def test_other_bad_input_is_refused() -> None:
    with pytest.raises(RllabError, match="at least one prompt"):
        pad_left([[1], []])
    with pytest.raises(RllabError, match="2 seeds for 1 prompts"):
        run(CHAIN, [[0]], seeds=[1, 2])
    with pytest.raises(RllabError, match="stop_tokens has 3"):
        run(CHAIN, [[0]], stop_tokens=(3,))
    with pytest.raises(RllabError, match="give the tokenizer"):
        run(CHAIN, [[0]], stop_strings=("a",))
    training = MarkovChain(CHAIN.logits)
    training.training = True  # type: ignore[attr-defined]
    with pytest.raises(RllabError, match="call model.eval"):
        run(training, [[0]])
