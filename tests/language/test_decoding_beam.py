"""Beam search: against all sequences of a chain."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from markov_chain import MarkovChain

from language.decoding import DecodingConfig, beam_search, generate, pad_left


def every_hypothesis(model: MarkovChain, start: int, longest: int, stop: int) -> Iterator[tuple[list[int], float]]:
    """All continuations that end with the stop token, or at the limit without one; and their log-probabilities."""
    for length in range(1, longest + 1):
        for tokens in itertools.product(range(model.vocabulary_size), repeat=length):
            if stop not in tokens[:-1] and (tokens[-1] == stop or length == longest):
                yield list(tokens), model.log_probability([start, *tokens])


@pytest.mark.parametrize("norm", ["power", "gnmt"])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.0])
def test_a_wide_beam_finds_the_best_of_all_sequences(alpha: float, norm: Any) -> None:
    model = MarkovChain.random(4, seed=3)
    config = DecodingConfig(
        beams=64, maximum_new_tokens=4, stop_tokens=(0,), length_penalty=alpha, length_norm=norm, beam_stop="exact"
    )
    found = beam_search(model, *pad_left([[1], [2, 2, 3]]), config)

    def score(tokens: list[int], total: float) -> float:
        return total / (len(tokens) if norm == "power" else (5 + len(tokens)) / 6) ** alpha

    for number, start in enumerate((1, 3)):
        every = {tuple(tokens): score(tokens, total) for tokens, total in every_hypothesis(model, start, 4, 0)}
        beam = [tuple(row[kept].tolist()) for row, kept in zip(found.tokens[number], found.valid[number], strict=True)]
        # Sequences of the same transitions are equally likely, whatever their order.
        assert [every[tokens] for tokens in beam[:9]] == pytest.approx(
            sorted(every.values(), reverse=True)[:9], rel=1e-5
        )
        assert found.scores[number, :9].tolist() == pytest.approx([every[tokens] for tokens in beam[:9]], rel=1e-5)
        assert found.finished[number, :9].tolist() == [tokens[-1] == 0 for tokens in beam[:9]]
        assert len(set(beam[:9])) == 9


def test_beams_find_what_greedy_decoding_misses() -> None:
    # .6 · .4 by the likeliest first token, .4 · .9 by the other.
    model = MarkovChain.of([[1e-9, 0.6, 0.4, 1e-9], [0.3, 1e-9, 0.3, 0.4], [0.05, 0.05, 1e-9, 0.9], [0.25] * 4])
    options: dict[str, Any] = {"maximum_new_tokens": 2, "stop_tokens": (3,)}
    greedy = generate(model, torch.tensor([[0]]), None, DecodingConfig(temperature=0, **options))
    beam = generate(model, torch.tensor([[0]]), None, DecodingConfig(beams=2, length_penalty=0.0, **options))
    assert greedy.tokens.tolist() == [[1, 3]]
    assert beam.tokens.tolist() == [[2, 3]]
    assert beam.scores is not None
    assert beam.scores.exp().tolist() == pytest.approx([0.36])


@pytest.mark.parametrize(
    ("alpha", "norm", "best"),
    # log .45 = -.799 of one token; log .55 · .75 = -.886 of two, over 2^.6 = 1.516 or (7/6)^.6 = 1.097, (7/6)^1 = 1.167.
    [(0.0, "power", [2]), (0.6, "power", [1, 2]), (0.6, "gnmt", [2]), (1.0, "gnmt", [1, 2]), (-1.0, "power", [2])],
)
def test_length_penalties_choose_between_short_and_long(alpha: float, norm: Any, best: list[int]) -> None:
    model = MarkovChain.of([[1e-9, 0.55, 0.45], [0.25, 1e-9, 0.75], [1, 1e-9, 1e-9]])
    config = DecodingConfig(
        beams=3, maximum_new_tokens=2, stop_tokens=(2,), length_penalty=alpha, length_norm=norm, beam_stop="exact"
    )
    found = generate(model, torch.tensor([[0]]), None, config)
    assert found.tokens[0][found.valid[0]].tolist() == best


def test_one_beam_is_greedy_decoding() -> None:
    model = MarkovChain.random(20, seed=5)
    prompts = pad_left([[1], [4, 2], [3]])
    options: dict[str, Any] = {"maximum_new_tokens": 8, "stop_tokens": (7, 9)}
    greedy = generate(model, *prompts, DecodingConfig(temperature=0, **options))
    found = beam_search(model, *prompts, DecodingConfig(beam_stop="full", **options))
    assert torch.equal(found.tokens[:, 0], greedy.tokens)
    assert torch.equal(found.valid[:, 0], greedy.valid)
    assert torch.equal(found.finished[:, 0], greedy.finished)


def test_a_prompt_alone_gives_what_it_gives_in_a_batch() -> None:
    model = MarkovChain.random(12, seed=1)
    prompts = [[1], [2, 3, 4], [7, 5], [9, 9, 9, 9]]
    config = DecodingConfig(beams=3, maximum_new_tokens=10, stop_tokens=(0,), frequency_penalty=0.2)
    together = beam_search(model, *pad_left(prompts), config)
    for number, prompt in enumerate(prompts):
        alone = beam_search(model, *pad_left([prompt]), config)
        assert torch.equal(alone.scores[0], together.scores[number])
        length = alone.tokens.shape[2]
        assert torch.equal(alone.tokens[0], together.tokens[number, :, :length])
        assert not together.valid[number, :, length:].any()


def test_prompts_that_are_done_leave_the_batch() -> None:
    model = MarkovChain.of([[0.02, 0.97, 0.01], [0.001, 0.009, 0.99], [0.9, 0.05, 0.05]])
    config = DecodingConfig(beams=2, maximum_new_tokens=6, stop_tokens=(2,), beam_stop="full")
    alone = beam_search(model, *pad_left([[1]]), config)
    assert alone.finished.all()
    model.batches.clear()
    beam_search(model, *pad_left([[1], [0]]), config)
    assert model.batches[0] == 2
    assert model.batches[1] == 4
    assert model.batches[-1] == 2


def test_the_three_ways_to_end_differ_in_how_long_they_search() -> None:
    model = MarkovChain.random(8, seed=2)
    steps = {}
    scores = {}
    for way in ("full", "heuristic", "exact"):
        model.batches.clear()
        config = DecodingConfig(beams=3, maximum_new_tokens=40, stop_tokens=(0, 1), length_penalty=1.0, beam_stop=way)  # type: ignore[arg-type]
        scores[way] = beam_search(model, *pad_left([[5]]), config).scores[0, 0].item()
        steps[way] = len(model.batches)
    assert steps["full"] <= steps["heuristic"] <= steps["exact"]
    assert scores["full"] <= scores["heuristic"] <= scores["exact"]


def test_more_beams_than_there_are_sequences_leave_empty_hypotheses() -> None:
    model = MarkovChain.of([[0.5, 0.5], [0.5, 0.5]])
    found = beam_search(model, *pad_left([[0]]), DecodingConfig(beams=8, maximum_new_tokens=1, stop_tokens=(1,)))
    assert found.valid[0].sum(-1).tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert found.scores[0, 2:].isneginf().all()
