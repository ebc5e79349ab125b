"""Logits steps: against Hugging Face's processors on equal logits, and by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.errors import RllabError
from language.decoding import (
    BannedTokens,
    DecodingConfig,
    FrequencyPenalty,
    LogitsStep,
    MinimumNewTokens,
    MinP,
    PowerPenalty,
    PresencePenalty,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
    apply_steps,
)

NOTHING = torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0, dtype=torch.bool)
VOCABULARY = 50


def peers() -> Any:
    return pytest.importorskip("transformers.generation.logits_process")


def batch(ties: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, all valid, and logits of 40 rows; with ties the logits are multiples of a half."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, VOCABULARY, (40, 12), generator=generator)
    logits = torch.randn(40, VOCABULARY, generator=generator) * 3
    return tokens, torch.ones_like(tokens, dtype=torch.bool), (2 * logits).round() / 2 if ties else logits


def logs(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities]).log()


def after(step: LogitsStep, logits: Tensor, *tokens: int) -> list[float]:
    """The probabilities of one row after a step."""
    seen = torch.tensor([tokens], dtype=torch.int64).reshape(1, -1)
    return step(seen, torch.ones_like(seen, dtype=torch.bool), logits).softmax(-1)[0].tolist()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("name", "argument", "step"),
    [
        ("TemperatureLogitsWarper", 0.7, Temperature(0.7)),
        ("TemperatureLogitsWarper", 1.9, Temperature(1.9)),
        *(("TopKLogitsWarper", count, TopK(count)) for count in (1, 2, 7, 49, 50, 80)),
        *(("TopPLogitsWarper", mass, TopP(mass)) for mass in (1e-4, 0.1, 0.5, 0.9, 0.999, 1.0)),
        *(("MinPLogitsWarper", share, MinP(share)) for share in (0.0, 0.05, 0.5, 1.0)),
        *(("RepetitionPenaltyLogitsProcessor", penalty, RepetitionPenalty(penalty)) for penalty in (0.8, 1.2, 5.0)),
        ("SuppressTokensLogitsProcessor", [3, 0, 49], BannedTokens((3, 0, 49))),
    ],
)
def test_a_step_gives_the_logits_that_hugging_faces_processor_gives(
    name: str, argument: Any, step: LogitsStep, ties: bool
) -> None:
    tokens, valid, logits = batch(ties)
    expected = getattr(peers(), name)(argument)(tokens, logits.clone())
    given = logits.clone()
    found = step(tokens, valid, logits)
    if ties and isinstance(step, TopP):  # which of equally likely ones stay is not defined there
        found, expected = found.sort().values, expected.sort().values
    assert torch.equal(found, expected)
    assert torch.equal(logits, given)


@pytest.mark.parametrize("minimum", [0, 1, 4, 5, 20])
def test_a_minimum_of_new_tokens_is_hugging_faces(minimum: int) -> None:
    tokens, valid, logits = batch()
    prompt = 8
    expected = peers().MinNewTokensLengthLogitsProcessor(prompt, minimum, [2, 5])(tokens, logits.clone())
    assert torch.equal(MinimumNewTokens((2, 5), prompt + minimum)(tokens, valid, logits), expected)


@pytest.mark.parametrize("ties", [False, True])
def test_steps_after_one_another_are_hugging_faces_list_of_processors(ties: bool) -> None:
    tokens, valid, logits = batch(ties)
    peer = peers()
    expected = peer.LogitsProcessorList([
        peer.RepetitionPenaltyLogitsProcessor(1.3), peer.SuppressTokensLogitsProcessor([7, 9]),
        peer.TemperatureLogitsWarper(0.6), peer.TopKLogitsWarper(12), peer.TopPLogitsWarper(0.8),
        peer.MinPLogitsWarper(0.02),
    ])(tokens, logits.clone())  # fmt: skip
    config = DecodingConfig(
        repetition_penalty=1.3, banned_tokens=(7, 9), temperature=0.6, top_k=12, top_p=0.8, min_p=0.02
    )
    found = apply_steps(config.steps(), tokens, valid, logits)
    assert torch.equal(found.sort().values, expected.sort().values) if ties else torch.equal(found, expected)


def test_the_order_of_steps_is_documented_and_what_changes_nothing_is_left_out() -> None:
    config = DecodingConfig(
        temperature=0.5, top_k=5, top_p=0.9, min_p=0.1, repetition_penalty=1.2, power_penalty=1.1, frequency_penalty=0.5,
        presence_penalty=0.25, banned_tokens=(3,), stop_tokens=(1,), minimum_new_tokens=2,
    )  # fmt: skip
    further = TopK(40)
    assert config.steps(6, (further,)) == [
        RepetitionPenalty(1.2), PowerPenalty(1.1, 6), FrequencyPenalty(0.5, 6), PresencePenalty(0.25, 6),
        BannedTokens((3,)), MinimumNewTokens((1,), 8), further, Temperature(0.5), TopK(5), TopP(0.9), MinP(0.1),
    ]  # fmt: skip
    assert DecodingConfig().steps() == []


def test_penalties_do_not_look_at_padding_or_before_their_column() -> None:
    tokens = torch.tensor([[4, 4, 4, 1, 2, 2]])
    valid = torch.tensor([[False, True, True, True, True, True]])
    logits = torch.ones(1, 6)
    assert FrequencyPenalty(1.0)(tokens, valid, logits).tolist() == [[1, 0, -1, 1, -1, 1]]
    assert FrequencyPenalty(1.0, since=3)(tokens, valid, logits).tolist() == [[1, 0, -1, 1, 1, 1]]
    assert PresencePenalty(1.0, since=3)(tokens, valid, logits).tolist() == [[1, 0, 0, 1, 1, 1]]
    assert RepetitionPenalty(2.0, since=4)(tokens, valid, -logits).tolist() == [[-1, -1, -2, -1, -1, -1]]
    assert RepetitionPenalty(2.0)(tokens[:, :1], valid[:, :1], logits).tolist() == [[1] * 6]


@pytest.mark.parametrize(
    ("mass", "kept"), [(0.69, 1), (0.71, 2), (0.89, 2), (0.93, 3), (0.939, 3), (0.945, 4), (1.0, 8)]
)
def test_of_the_guides_70_20_4_1_p_93_keeps_three_tokens(mass: float, kept: int) -> None:
    probabilities = after(TopP(mass), logs(0.7, 0.2, 0.04, 0.01, 0.0125, 0.0125, 0.0125, 0.0125))
    assert sum(probability > 0 for probability in probabilities) == kept
    if kept == 3:
        assert probabilities[:3] == pytest.approx([0.7 / 0.94, 0.2 / 0.94, 0.04 / 0.94])


def test_of_the_guides_30_29_7_5_3_p_93_keeps_at_least_twelve_tokens() -> None:
    # 74 % are told; of what is left no token has more than 3 %, so that 19 % take 7 tokens or more.
    told = [0.3, 0.29, 0.07, 0.05, 0.03]
    fewest = after(TopP(0.93), logs(*told, *[0.03] * 8, 0.02))
    assert sum(probability > 0 for probability in fewest) == 12
    more = after(TopP(0.93), logs(*told, *[0.01] * 26))
    assert sum(probability > 0 for probability in more) == 24


def test_a_nucleus_that_reaches_p_exactly_is_large_enough() -> None:
    assert [p > 0 for p in after(TopP(0.75), logs(0.5, 0.25, 0.125, 0.125))] == [True, True, False, False]


def test_of_equally_likely_tokens_the_nucleus_has_as_many_as_it_needs() -> None:
    assert after(TopP(0.5), logs(*[0.125] * 8)) == [0.25] * 4 + [0] * 4
    assert after(TopP(0.7), logs(0.2, 0.5, 0.2, 0.1)) == pytest.approx([2 / 7, 5 / 7, 0, 0])


def test_the_nucleus_is_among_the_k_likeliest_when_top_k_comes_first() -> None:
    # Of the three likeliest, 50 of 95 are more than half; of all they are not.
    steps = DecodingConfig(top_k=3, top_p=0.52).steps()
    logits = logs(0.5, 0.25, 0.2, 0.05)
    assert apply_steps(steps, *NOTHING, logits).isfinite().tolist() == [[True, False, False, False]]
    assert apply_steps(steps[::-1], *NOTHING, logits).isfinite().tolist() == [[True, True, False, False]]


def test_top_k_renormalises_and_keeps_what_is_as_likely_as_the_last() -> None:
    assert after(TopK(2), logs(0.4, 0.1, 0.3, 0.2)) == pytest.approx([4 / 7, 0, 3 / 7, 0])
    assert after(TopK(2), logs(0.4, 0.25, 0.25, 0.1)) == pytest.approx([4 / 9, 2.5 / 9, 2.5 / 9, 0])


def test_temperatures_raise_probabilities_to_the_power_of_their_inverse() -> None:
    probabilities = (0.6, 0.3, 0.1)
    for temperature in (0.1, 0.5, 1.0, 3.0):
        powers = [probability ** (1 / temperature) for probability in probabilities]
        expected = [power / sum(powers) for power in powers]
        assert after(Temperature(temperature), logs(*probabilities)) == pytest.approx(expected, rel=1e-4)
    assert after(Temperature(0.01), logs(*probabilities)) == pytest.approx([1, 0, 0], abs=1e-6)
    assert after(Temperature(1e4), logs(*probabilities)) == pytest.approx([1 / 3] * 3, abs=1e-3)


def test_min_p_keeps_what_is_a_share_of_the_likeliest() -> None:
    assert [p > 0 for p in after(MinP(0.3), logs(0.5, 0.2, 0.14, 0.16))] == [True, True, False, True]


def test_the_guides_repetition_penalty_makes_tokens_of_negative_logits_likelier() -> None:
    logits = torch.tensor([[2.0, 2.0, -2.0, -2.0]])
    assert PowerPenalty(2.0)(torch.tensor([[0, 0, 2]]), torch.ones(1, 3, dtype=torch.bool), logits).tolist() == [
        [0.5, 2.0, -1.0, -2.0]
    ]
    before = logits.softmax(-1)[0].tolist()
    by_power, by_sign = after(PowerPenalty(2.0), logits, 0, 0, 2), after(RepetitionPenalty(2.0), logits, 0, 0, 2)
    assert by_power[2] / by_power[3] == pytest.approx(math.e)
    assert by_power[2] > before[2]
    assert by_sign[2] / by_sign[3] == pytest.approx(math.exp(-2))
    assert by_sign[0] / by_sign[1] == pytest.approx(math.exp(-1))


def test_the_guides_repetition_penalty_depends_on_a_constant_that_changes_no_probability() -> None:
    logits = torch.tensor([[1.0, 0.0]])
    assert after(PowerPenalty(2.0), logits, 0) == pytest.approx([1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(0.5))])
    assert (
        after(PowerPenalty(2.0), logits - 4, 0)[0] > logits.softmax(-1)[0, 0] > after(PowerPenalty(2.0), logits, 0)[0]
    )
    assert after(FrequencyPenalty(0.5), logits - 4, 0) == pytest.approx(after(FrequencyPenalty(0.5), logits, 0))


def test_frequency_and_presence_penalties_are_openais_difference() -> None:
    # mu[j] - c[j]·frequency - (c[j] > 0)·presence
    tokens = torch.tensor([[1, 1, 2]])
    valid = torch.ones_like(tokens, dtype=torch.bool)
    steps = DecodingConfig(frequency_penalty=0.5, presence_penalty=0.25).steps()
    found = apply_steps(steps, tokens, valid, torch.tensor([[1.0, 1.0, 1.0, 1.0]]))
    assert found.tolist() == [[1.0, 1 - 2 * 0.5 - 0.25, 1 - 0.5 - 0.25, 1.0]]


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Temperature, 0.0),
        (TopK, 0),
        (TopP, 0.0),
        (TopP, 1.1),
        (MinP, -0.1),
        (RepetitionPenalty, 0.0),
        (PowerPenalty, -1.0),
    ],
)
def test_numbers_that_make_no_sense_are_refused(kind: Any, wrong: float) -> None:
    with pytest.raises(RllabError, match=f"not {wrong}"):
        kind(wrong)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"maximum_new_tokens": 0}, "at least 1"),
        ({"minimum_new_tokens": 200}, "more than maximum_new_tokens"),
        ({"temperature": -1.0}, "must be 0"),
        ({"stop_strings": ("",)}, "must not be empty"),
        ({"beams": 2, "stop_strings": ("a",)}, "stop tokens only"),
        ({"beams": 2, "top_k": 3}, "draws nothing"),
        ({"top_p": 2.0}, "Top-p"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(RllabError, match=told):
        DecodingConfig(**wrong)
