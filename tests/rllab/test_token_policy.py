"""The same loop and the same agents train a causal transformer on tokens: only policy and collector are others."""

from pathlib import Path
from typing import Any

import pytest
import torch
from toy_language import PAD, PROMPT, RESPONSE, STOP, TokenCollector, TokenPolicy, target_score

from rllab.agents import PPO, TRPO, Agent, PPOConfig, Reinforce, ReinforceConfig, TRPOConfig
from rllab.callbacks import Callback
from rllab.loop_config import LoopConfig
from rllab.rollout import Rollout
from rllab.runs import Run
from rllab.train import Training

COMMON: dict[str, Any] = {"rollout_steps": RESPONSE, "discount": 1.0, "gae_lambda": 0.95}
ROWS = 32


def agent_of(name: str, policy: TokenPolicy) -> Agent:
    if name == "ppo":
        return PPO(
            policy, PPOConfig(**COMMON, minibatch_size=16 * RESPONSE, learning_rate=3e-3, entropy_coefficient=0.01)
        )
    if name == "trpo":
        return TRPO(policy, TRPOConfig(**COMMON, minibatch_size=16 * RESPONSE, max_kl=0.03, critic_epochs=3))
    return Reinforce(
        policy, ReinforceConfig(**COMMON, minibatch_size=16 * RESPONSE, learning_rate=5e-3, critic_epochs=3)
    )


class Watch(Callback):
    def __init__(self) -> None:
        self.scores: list[float] = []
        self.metrics: list[dict[str, float]] = []

    def after_collect(self, training: Training, rollout: Rollout) -> None:
        assert rollout.episode_returns is not None
        self.scores.append(float(rollout.episode_returns.mean()))

    def after_update(self, training: Training, rollout: Rollout, metrics: dict[str, float]) -> None:
        self.metrics.append(metrics)


@pytest.mark.parametrize("name", ["ppo", "trpo", "reinforce"])
def test_every_agent_teaches_a_transformer_its_target_token(name: str) -> None:
    policy, watch = TokenPolicy(), Watch()
    loop = LoopConfig(steps=14_000, evaluation_every=0)
    Training(
        TokenCollector(target_score, ROWS), policy, agent_of(name, policy), loop, callbacks=[watch], quiet=True
    ).run()
    assert sum(watch.scores[:3]) / 3 < 0.12
    assert sum(watch.scores[-5:]) / 5 > 0.5
    if name == "trpo":
        assert max(metrics["kl"] for metrics in watch.metrics) <= 0.03
        assert sum(metrics["line_search_failed"] for metrics in watch.metrics) <= 0.1 * len(watch.metrics)
        assert all(metrics["surrogate_improvement"] >= 0 for metrics in watch.metrics)


def test_responses_end_with_their_stop_token_and_are_scored_there() -> None:
    rollout = TokenCollector(lambda response: 1.0 + len(response), 200).collect(TokenPolicy())
    lengths = rollout.valid.sum(1)
    assert 1 <= int(lengths.min()) < int(lengths.max()) == RESPONSE
    responses = rollout.observations[:, PROMPT:]
    for row, length in enumerate(lengths.tolist()):
        assert STOP not in responses[row, : length - 1]
        assert length == RESPONSE or responses[row, length - 1] == STOP
        assert bool((responses[row, length:] == PAD).all())
        assert rollout.rewards[row].nonzero().tolist() == [[length - 1]]
        assert float(rollout.rewards[row].sum()) == 1 + length
    assert rollout.num_steps == int(lengths.sum())


def test_first_minibatch_ratios_are_one() -> None:
    policy = TokenPolicy()
    rollout = TokenCollector(target_score, 64).collect(policy)
    zeros = torch.zeros_like(rollout.rewards)
    whole = rollout.experience(zeros, zeros)
    log_probs = policy.evaluate(whole).log_prob[whole.valid]
    torch.testing.assert_close(log_probs, rollout.log_probs[whole.valid], rtol=0, atol=1e-7)
    few = whole.select(torch.tensor([9, 3, 40]))
    ratios = (policy.evaluate(few).log_prob - few.log_probs).exp()[few.valid]
    torch.testing.assert_close(ratios, torch.ones_like(ratios), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["ppo", "trpo", "reinforce"])
def test_padding_after_the_stop_token_influences_nothing(name: str) -> None:
    """Whatever stands in columns that do not exist, the update is the same to the bit."""
    flats = []
    for spoilt in (False, True):
        policy = TokenPolicy()
        rollout = TokenCollector(target_score, ROWS).collect(policy)
        gone = ~rollout.valid
        assert int(gone.sum()) > 20
        if spoilt:
            tokens = rollout.observations.clone()
            tokens[:, PROMPT:][gone] = 5
            rollout = rollout.replace(
                observations=tokens, actions=rollout.actions.masked_fill(gone, 6),
                rewards=rollout.rewards.masked_fill(gone, 99.0), log_probs=rollout.log_probs.masked_fill(gone, -3.0),
                values=rollout.values.masked_fill(gone, 50.0),
                next_values=rollout.next_values.masked_fill(gone | rollout.terminated, -70.0),
            )  # fmt: skip
        metrics = agent_of(name, policy).update(rollout)
        flats.append((policy.flat.detach().clone(), metrics))
    torch.testing.assert_close(flats[0][0], flats[1][0], rtol=1e-5, atol=1e-6)
    assert flats[0][1] == pytest.approx(flats[1][1], rel=1e-3, abs=1e-5)


def test_padding_before_a_short_prompt_influences_nothing() -> None:
    policy = TokenPolicy()
    with torch.no_grad():
        short = policy.module.features(torch.tensor([[4, 2, 7, 1]]))  # type: ignore[operator]
        padded = policy.module.features(torch.tensor([[PAD, PAD, 4, 2, 7, 1]]))  # type: ignore[operator]
        shifted = policy.module.features(torch.tensor([[3, 3, 4, 2, 7, 1]]))  # type: ignore[operator]
    torch.testing.assert_close(padded[:, 2:], short, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(shifted[:, 2:], short, atol=1e-2)


def test_a_critic_fitted_alone_leaves_the_transformer_where_it_was() -> None:
    policy = TokenPolicy()
    agent = Reinforce(policy, ReinforceConfig(**COMMON, minibatch_size=16 * RESPONSE))
    rollout = TokenCollector(target_score, ROWS).collect(policy)
    # Without a difference between rewards and values there is nothing for the actor to learn.
    still = rollout.replace(rewards=torch.zeros_like(rollout.rewards))
    before = policy.flat.detach()[: policy.actor_size].clone()
    batch = still.experience(torch.zeros_like(still.rewards), torch.ones_like(still.rewards))
    loss = batch.mean((policy.value(batch) - batch.returns).square())
    agent.critic_optimizer.step(loss)
    assert torch.equal(policy.flat.detach()[: policy.actor_size], before)
    assert policy.flat.grad is not None
    assert not bool(policy.flat.grad[: policy.actor_size].any())
    assert bool(policy.flat.grad[policy.actor_size :].any())


def test_a_run_of_tokens_is_saved_and_continues_bit_for_bit(tmp_path: Path) -> None:
    def training(run: Run | None = None, steps: int = 1_500) -> Training:
        policy = TokenPolicy()
        loop = LoopConfig(steps=steps, evaluation_every=0, tensorboard=False)
        return Training(TokenCollector(target_score, ROWS), policy, agent_of("ppo", policy), loop, run=run, quiet=True)

    straight = training()
    straight.run()
    with Run.create(tmp_path / "run", {}) as run:
        training(run, steps=600).run()
        resumed = training()
        assert resumed.load_state_dict(run.checkpoints.load()[1]) == []
    resumed.run()
    assert torch.equal(resumed.policy.flat, straight.policy.flat)
