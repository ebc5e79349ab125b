"""Best-of-n and rejection sampling; judging models side by side, their divergence against exact values."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_texts import PROMPTS, gpt, share_of_a, tokenizer

from envs.errors import RllabError
from language.preferences.best_of import (
    Best,
    best_of_n,
    best_of_n_kl,
    prompt_ids,
    rejection_sampled,
    sampled_texts,
    write_demonstrations,
    writer,
)
from language.preferences.data import Demonstration, TextsConfig, read_demonstrations
from language.preferences.judging import Judged, judge, wins
from language.preferences.responses import ResponsesConfig

LETTERS = tokenizer()
DRAWING = ResponsesConfig(6)


def divergence_of_best_of(n: int, chances: np.ndarray) -> float:
    """Exactly, where response k is better than all before it."""
    reached = np.cumsum(chances)
    best = reached**n - np.concatenate([[0.0], reached[:-1]]) ** n
    return float((best * np.log(best / chances)).sum())


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_the_divergence_of_best_of_n_is_reached_by_many_responses_and_never_exceeded(n: int) -> None:
    bound = best_of_n_kl(n)
    assert bound == pytest.approx(math.log(n) - 1 + 1 / n)
    assert divergence_of_best_of(n, np.full(100_000, 1e-5)) == pytest.approx(bound, abs=1e-3)
    for seed in range(5):
        few = np.random.default_rng(seed).dirichlet(np.ones(6))
        assert divergence_of_best_of(n, few) <= bound + 1e-9
    with pytest.raises(RllabError, match="at least"):
        best_of_n_kl(0)


def test_best_of_1_is_what_the_model_writes() -> None:
    best = best_of_n(gpt(), LETTERS, PROMPTS, share_of_a, 1, DRAWING, seed=3)
    prompts, texts = sampled_texts(gpt(), LETTERS, PROMPTS, DRAWING, seed=3)
    assert [each.response for each in best] == texts
    assert [each.score for each in best] == [each.mean for each in best] == share_of_a(prompts, texts)


def test_the_best_of_several_has_the_highest_reward_of_them() -> None:
    asked: list[tuple[list[str], list[str]]] = []

    def reward(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        asked.append((list(prompts), list(responses)))
        return share_of_a(prompts, responses)

    best = best_of_n(gpt(), LETTERS, PROMPTS, reward, 5, DRAWING)
    [(prompts, responses)] = asked
    assert prompts == [prompt for prompt in PROMPTS for _ in range(5)]
    for number, found in enumerate(best):
        drawn = responses[5 * number : 5 * number + 5]
        scores = share_of_a(drawn, drawn)
        assert found.prompt == PROMPTS[number]
        assert found.response == drawn[int(np.argmax(scores))]
        assert (found.score, found.mean) == pytest.approx((max(scores), np.mean(scores)))
    assert len({*responses}) > len(PROMPTS)


def test_rejection_sampling_keeps_the_best_and_writes_what_supervised_tuning_reads(tmp_path: Path) -> None:
    best = [Best(f"p{n}", f" r{n}", float(n), 0.0, True) for n in range(5)] + [Best("q", "", 9.0, 0.0, True)]
    kept = rejection_sampled(best, share=0.4)
    assert kept == [Demonstration("p4", " r4"), Demonstration("p3", " r3")]
    write_demonstrations(tmp_path / "best.jsonl", kept)
    assert read_demonstrations(TextsConfig((str(tmp_path / "best.jsonl"),))).items == kept
    with pytest.raises(RllabError, match="All best responses are empty"):
        rejection_sampled(best[-1:])
    with pytest.raises(RllabError, match="share"):
        rejection_sampled(best, share=0.0)


def test_long_prompts_lose_their_beginning_so_that_a_response_fits() -> None:
    policy = writer(gpt(), LETTERS, DRAWING)
    rows = prompt_ids(policy, LETTERS, ["a" * 20 + "b" * 5, "", "c"], 6)
    assert [len(row) for row in rows] == [18, 1, 1]
    assert rows[0] == LETTERS.ids("a" * 13 + "b" * 5)
    assert rows[1] == [LETTERS.vocabulary["<end>"]]
    with pytest.raises(RllabError, match="leave no room"):
        prompt_ids(policy, LETTERS, ["c"], 24)


def test_the_divergence_of_a_model_from_itself_is_0_and_from_another_near_the_exact_one() -> None:
    model, other = gpt(0).eval(), gpt(1).eval()
    itself = judge(model, LETTERS, PROMPTS, DRAWING, reference=model)
    assert itself.divergences == pytest.approx(0, abs=1e-5)
    one_token = ResponsesConfig(1)
    found = judge(model, LETTERS, ["ab"] * 3000, one_token, reference=other)
    ids = torch.tensor([LETTERS.ids("ab")])
    p, q = (torch.log_softmax(each(ids)[0, -1].detach(), -1) for each in (model, other))
    exact = float((p.exp() * (p - q)).sum())
    kl, error = found.kl
    assert error < 0.1 * exact
    assert abs(kl - exact) < 4 * error


def test_a_temperature_is_that_of_both_sides_of_the_divergence() -> None:
    model, other = gpt(0).eval(), gpt(1).eval()
    found = judge(model, LETTERS, ["ab"] * 2000, ResponsesConfig(1, temperature=3.0), reference=other)
    ids = torch.tensor([LETTERS.ids("ab")])
    p, q = (torch.log_softmax(each(ids)[0, -1].detach() / 3, -1) for each in (model, other))
    assert abs(found.kl[0] - float((p.exp() * (p - q)).sum())) < 4 * found.kl[1]


def judged(scores: list[float], ids: list[list[int]] | None = None) -> Judged:
    rows = ids or [[1]] * len(scores)
    lengths, ended = np.array([len(row) for row in rows]), np.ones(len(rows), bool)
    return Judged([""] * len(rows), [""] * len(rows), np.array(scores), None, lengths, ended, rows)


def test_wins_count_ties_as_a_half_and_have_wilson_s_interval() -> None:
    found = wins(judged([1.0, 2.0, 0.0, 5.0]), judged([0.0, 2.0, 1.0, 4.0]))
    assert found.rate == pytest.approx(2.5 / 4)
    # (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n) = (0.625 + 0.4802 ± 1.96 · 0.3444) / 1.9604.
    assert (found.low, found.high) == pytest.approx((0.2194, 0.9081), abs=2e-4)
    with pytest.raises(RllabError, match="same prompts"):
        wins(judged([1.0]), judged([1.0, 2.0]))


def test_distinct_n_is_the_share_of_different_runs_of_tokens() -> None:
    found = judged([0.0, 0.0], [[1, 2, 1, 2], [1, 2, 3]])
    assert found.distinct(1) == pytest.approx(3 / 7)
    assert found.distinct(2) == pytest.approx(3 / 5)
    assert found.distinct(9) == 1.0


def test_a_judge_that_fails_or_is_not_finite_is_said_in_a_sentence() -> None:
    def fails(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        raise ValueError("no licence")

    with pytest.raises(RllabError, match="no licence"):
        judge(gpt(), LETTERS, PROMPTS, DRAWING, reward=fails)
    with pytest.raises(RllabError, match="nan"):
        best_of_n(gpt(), LETTERS, PROMPTS, lambda prompts, responses: [math.nan] * len(responses), 2, DRAWING)
    with pytest.raises(RllabError, match="no prompts"):
        judge(gpt(), LETTERS, [], DRAWING)
