"""Rollouts of responses: where rewards, values and ends are, what divergence costs, how β and scores are scaled."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tiny_texts import PROMPTS, RESPONSE, collector, policy, share_of_a, tokenizer

from envs.errors import RllabError
from language.preferences.collect import (
    ConstantRewardWarning,
    KLRunawayError,
    RewardConfig,
    TextCollector,
    adapted_beta,
    kl_estimate,
    whitened,
)
from language.preferences.prompts import PromptOrder
from language.preferences.responses import ResponsesConfig, truncated
from rllab.agents import PPO, PPOConfig

END = tokenizer().vocabulary["<end>"]


def test_responses_end_with_their_stop_token_and_are_rewarded_there() -> None:
    made = policy()
    rollout = collector(64, beta=0.0, reward=lambda prompts, texts: [1.0 + len(text) for text in texts]).collect(made)
    lengths = rollout.valid.sum(1)
    assert rollout.actions.shape == (64, RESPONSE)
    assert 1 <= int(lengths.min()) < int(lengths.max()) == RESPONSE
    for row, length in enumerate(lengths.tolist()):
        tokens = rollout.actions[row]
        stopped = int(tokens[length - 1]) == END
        assert END not in tokens[: length - 1]
        assert stopped or length == RESPONSE
        assert rollout.terminated[row].nonzero().tolist() == [[length - 1]]
        assert rollout.rewards[row].nonzero().tolist() == [[length - 1]]
        # The scored text has a character for each token that is one, and no stop token.
        letters = int((tokens[:length] >= 2).sum())
        assert float(rollout.rewards[row].sum()) == 1 + letters
    assert not bool(rollout.truncated.any())
    assert rollout.episode_returns is not None
    np.testing.assert_allclose(rollout.episode_returns, rollout.environment_rewards.sum(1).numpy())


def test_the_value_after_the_last_token_is_never_used() -> None:
    made = policy()
    texts = collector(32)
    rollout = texts.collect(made)
    assert bool((rollout.values[rollout.valid] != 0).all())
    before_last = rollout.valid & ~rollout.terminated
    torch.testing.assert_close(
        rollout.next_values[:, :-1][before_last[:, :-1]], rollout.values[:, 1:][before_last[:, :-1]]
    )
    agent = PPO(made, PPOConfig(rollout_steps=RESPONSE, discount=1.0, gae_lambda=0.95))
    spoilt = rollout.replace(next_values=rollout.next_values.masked_fill(rollout.terminated, 1e6))
    torch.testing.assert_close(agent.advantages(rollout), agent.advantages(spoilt))
    # With λ = 1 and γ = 1, advantage and value are all that is still to come.
    whole = PPO(made, PPOConfig(rollout_steps=RESPONSE, discount=1.0, gae_lambda=1.0)).advantages(rollout)
    to_come = (rollout.rewards * rollout.valid).flip(1).cumsum(1).flip(1)
    torch.testing.assert_close((whole + rollout.values)[rollout.valid], to_come[rollout.valid], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_divergence_costs_beta_at_each_token(estimator: Any) -> None:
    made = policy()
    with torch.no_grad():
        made.flat.add_(0.05 * torch.randn(made.flat.shape, generator=torch.Generator().manual_seed(0)))
    texts = collector(16, beta=0.3, kl_estimator=estimator, reward=lambda prompts, texts: list(range(len(texts))))
    rollout = texts.collect(made)
    batch = rollout.experience(rollout.rewards, rollout.rewards)
    difference = (rollout.log_probs - made.reference.log_probs(batch)).double()
    assert float(difference[rollout.valid].abs().min()) > 0
    cost = {
        "k1": difference, "k2": difference**2 / 2, "k3": (-difference).exp() - 1 + difference,
    }[estimator]  # fmt: skip
    expected = -0.3 * cost + rollout.terminated * torch.arange(16.0)[:, None]
    torch.testing.assert_close(rollout.rewards[rollout.valid], expected[rollout.valid].float(), rtol=1e-4, atol=1e-5)
    assert not bool(rollout.rewards[~rollout.valid].any())
    assert texts.recent()["kl_response"] == pytest.approx(float((difference * rollout.valid).sum(1).mean()), rel=1e-4)


def test_estimators_have_the_exact_divergence_as_their_mean() -> None:
    p, q = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
    difference = (p / q).log()
    exact = float((p * difference).sum())
    for estimator in ("k1", "k3"):
        assert float((p * kl_estimate(difference, estimator)).sum()) == pytest.approx(exact, abs=1e-12)  # type: ignore[arg-type]
    assert float((p * kl_estimate(difference, "k2")).sum()) == pytest.approx(float((p * difference**2).sum() / 2))
    assert bool((kl_estimate(difference, "k3") >= 0).all())


def test_sampled_divergences_average_to_the_exact_one() -> None:
    made = policy()
    with torch.no_grad():
        made.flat.add_(0.08 * torch.randn(made.flat.shape, generator=torch.Generator().manual_seed(0)))
    texts = collector(2048, beta=0.0)
    texts.drawing = ResponsesConfig(1)
    rollout = texts.collect(made)
    batch = rollout.experience(rollout.rewards, rollout.rewards)
    with torch.no_grad():
        new = made.evaluate(batch).parameters
        old = made.reference.text.features(
            batch.observations["tokens"], batch.observations["valid"], batch.observations["tokens"].shape[1] - 1
        )
        old = torch.nn.functional.linear(old, made.reference.text.output()[0])
    assert new is not None
    exact = (new.softmax(-1) * (new.log_softmax(-1) - old.log_softmax(-1))).sum(-1).mean()
    difference = rollout.log_probs - made.reference.log_probs(batch)
    for estimator in ("k1", "k3"):
        found = kl_estimate(difference, estimator)  # type: ignore[arg-type]
        error = float(found.std()) / 2048**0.5
        assert abs(float(found.mean() - exact)) < 4 * error


def test_beta_follows_zieglers_controller() -> None:
    # Error 9/6 − 1 = 0.5 is clipped to 0.2; 0.15 · (1 + 0.2 · 512 / 10,000).
    assert adapted_beta(0.15, 9.0, 6.0, 512, 10_000) == pytest.approx(0.15 * 1.01024)
    assert adapted_beta(0.15, 6.6, 6.0, 512, 10_000) == pytest.approx(0.15 * (1 + 0.1 * 0.0512))
    assert adapted_beta(0.15, 0.0, 6.0, 512, 10_000) == pytest.approx(0.15 * (1 - 0.2 * 0.0512))
    assert adapted_beta(0.15, 6.0, 6.0, 512, 10_000) == 0.15


def test_beta_moves_after_the_rollout_that_it_was_used_for() -> None:
    made, texts = policy(), collector(32, beta=0.1, kl_target=5.0, kl_horizon=100)
    texts.collect(made)
    assert texts.recent()["beta"] == 0.1
    # At first the divergence is 0 to rounding, so the error is −1, clipped to −0.2.
    assert texts.beta == pytest.approx(0.1 * (1 - 0.2 * 32 / 100))
    texts.collect(made)
    assert texts.recent()["beta"] == pytest.approx(0.1 * (1 - 0.2 * 32 / 100))


def test_whitened_rewards_have_deviation_one_and_keep_or_lose_their_mean() -> None:
    rewards = torch.tensor([[1.0, 2.0, 99.0], [3.0, 6.0, 0.0]])
    valid = torch.tensor([[True, True, False], [True, True, True]])
    real = torch.tensor([1.0, 2.0, 3.0, 6.0, 0.0])
    shifted = (real - real.mean()) / real.std(correction=0)
    torch.testing.assert_close(whitened(rewards, valid, shift=True)[valid], shifted)
    torch.testing.assert_close(whitened(rewards, valid, shift=False)[valid], shifted + real.mean())
    assert not bool(whitened(rewards, valid, shift=False)[~valid].any())


def test_scores_are_normalised_by_the_model_as_it_was_once_for_all() -> None:
    made = policy()
    texts = collector(
        256, beta=0.0, normalise_rewards=1024, reward=lambda prompts, texts: [3 + 5.0 * len(t) for t in texts]
    )
    texts.collect(made)
    scale = texts.scale
    assert scale is not None
    assert abs(texts.recent()["reward"]) < 0.25
    assert texts.recent()["return_mean"] == pytest.approx(texts.recent()["reward"] * scale[1] + scale[0], rel=1e-5)
    texts.collect(made)
    assert texts.scale == scale


def test_a_response_that_nothing_stopped_has_the_score_for_it() -> None:
    rollout = collector(64, beta=0.0, no_stop_score=-1.0, reward=lambda prompts, texts: [5.0] * len(texts))
    with pytest.warns(UserWarning, match="nothing is learnt"):
        found = rollout.collect(policy())
    stopped = (found.actions == END).any(1)
    assert 0 < int(stopped.sum()) < 64
    assert found.rewards.sum(1).tolist() == [5.0 if ended else -1.0 for ended in stopped.tolist()]
    assert rollout.recent()["share_without_stop"] == pytest.approx(1 - float(stopped.float().mean()))


def test_a_response_ends_at_the_first_stop_token_from_a_place_on() -> None:
    tokens = torch.tensor([[9, 1, 9, 9], [9, 9, 1, 1], [1, 1, 1, 1]])
    valid, ended = truncated(tokens, (9,), 1)
    assert valid.tolist() == [[True, True, True, False], [True, True, False, False], [True] * 4]
    assert ended.tolist() == [True, True, False]


def test_groups_are_responses_to_the_same_prompt() -> None:
    texts = collector(32, group_size=4)
    rollout = texts.collect(policy())
    assert rollout.group is not None
    assert rollout.group.tolist() == [row // 4 for row in range(32)]
    prompts = rollout.observations["tokens"][:, :-RESPONSE]
    for group in range(8):
        assert len(torch.unique(prompts[rollout.group == group], dim=0)) == 1
        assert len(torch.unique(rollout.actions[rollout.group == group], dim=0)) > 1
    assert collector(32).collect(policy()).group is None


def test_every_prompt_comes_before_any_comes_again() -> None:
    order = PromptOrder([[number] for number in range(7)], seed=0)
    taken = [row[0] for _ in range(7) for row in order.take(3)]
    assert all(sorted(taken[start : start + 7]) == list(range(7)) for start in (0, 7, 14))
    assert taken[:7] != taken[7:14]


def test_the_collector_goes_on_exactly_from_its_state() -> None:
    made = policy()
    settings: dict[str, Any] = {"beta": 0.1, "kl_target": 3.0, "normalise_rewards": 32}
    one, other = collector(16, **settings), collector(16, seed=5, **settings)
    one.collect(made)
    other.load_state_dict(one.state_dict())
    ours, theirs = one.collect(made), other.collect(made)
    assert torch.equal(ours.actions, theirs.actions)
    assert torch.equal(ours.rewards, theirs.rewards)
    assert one.recent() == other.recent()
    assert not torch.equal(collector(16, seed=5, **settings).collect(made).actions, ours.actions)


def test_a_rewards_mistakes_are_said_at_once_in_a_sentence() -> None:
    def fails(prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
        raise ConnectionError("the judge is gone")

    cases: list[tuple[str, Any]] = [
        ("ConnectionError: the judge is gone", fails),
        ("gave nan for the response", lambda prompts, texts: [math.nan] * len(texts)),
        ("one number for each", lambda prompts, texts: [1.0]),
    ]
    for words, reward in cases:
        with pytest.raises(RllabError, match=words):
            collector(8, reward=reward).collect(policy())
    with pytest.raises(RllabError, match="is 2 for all of 64 responses"):
        collector(8, normalise_rewards=64, reward=lambda prompts, texts: [2.0] * len(texts)).collect(policy())


def test_a_reward_that_is_the_same_for_all_responses_is_warned_of_at_the_first_rollout() -> None:
    made = collector(8, reward=lambda prompts, texts: [2.0] * len(texts))
    with pytest.warns(ConstantRewardWarning, match="is 2 for all 8 responses of a rollout"):
        made.collect(policy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.collect(policy())  # said once


def test_a_policy_too_far_from_the_reference_is_stopped() -> None:
    made = policy()
    collector(32, kl_limit=0.5).collect(made)
    with torch.no_grad():
        made.flat.add_(0.3 * torch.randn(made.flat.shape, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(KLRunawayError, match="above kl_limit 0.5"):
        collector(32, kl_limit=0.5).collect(made)


def test_settings_without_meaning_are_refused() -> None:
    letters = tokenizer()
    rows = [letters.ids(prompt) for prompt in PROMPTS]
    cases: list[tuple[str, Any]] = [
        ("do not divide into groups", lambda: TextCollector(rows, share_of_a, letters, responses=10, group_size=4)),
        ("temperature must be above 0", lambda: ResponsesConfig(temperature=0)),
        ("truncate_after", lambda: ResponsesConfig(4, truncate_after=4)),
        ("beta must be 0 or more", lambda: RewardConfig(beta=-1)),
        ("beta of 0 cannot adapt", lambda: RewardConfig(beta=0, kl_target=6)),
        ("kl_limit must be above 0", lambda: RewardConfig(kl_limit=0)),
        ("normalise_rewards", lambda: RewardConfig(normalise_rewards=1)),
    ]
    for words, make in cases:
        with pytest.raises(RllabError, match=words):
            make()
