"""Evaluation: fresh environments, raw rewards, the same episodes for the same seed, and no episode favoured."""

from typing import Any

import numpy as np
import pytest
import torch
from toy_tasks import Scripted, policy_for, remember

from envs.errors import RllabError
from envs.make import EnvConfig
from rllab.evaluate import Evaluator, film

MODES = ("same_step", "next_step")


def config_of(id: str, autoreset: str = "auto", **more: Any) -> EnvConfig:
    return EnvConfig(id, autoreset=autoreset, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("autoreset", MODES)
@pytest.mark.parametrize("episodes", [1, 3, 20])
def test_returns_and_lengths_are_the_scripts_own(autoreset: str, episodes: int) -> None:
    config = config_of("toy/Scripted-v0", autoreset, env_kwargs={"lengths": [4], "reward": 2.5})
    with Evaluator(config, episodes) as evaluator:
        result = evaluator(policy_for(evaluator.env, normalise_observations=True))
    assert result.returns.tolist() == [10.0] * episodes
    assert result.lengths.tolist() == [4] * episodes
    assert (result.mean, result.std, result.length_mean) == (10.0, 0.0, 4.0)


@pytest.mark.parametrize("autoreset", MODES)
def test_short_episodes_are_not_favoured(autoreset: str) -> None:
    with Evaluator(config_of("toy/CoinFlip-v0", autoreset), 400, seed=5) as evaluator:
        result = evaluator(policy_for(evaluator.env))
    # Four standard errors are 0.1; counting whichever episodes end first would give 0.9.
    assert result.mean == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1"])
def test_the_same_seed_plays_the_same_episodes_however_often(id: str, deterministic: bool) -> None:
    config = config_of(id, max_episode_steps=200)
    results = []
    with Evaluator(config, 4, seed=1, deterministic=deterministic) as evaluator:
        policy = policy_for(evaluator.env)
        with torch.no_grad():  # one that lets the pole fall
            list(policy.module.actor.parameters())[-1][0] = 1.0
        results += [evaluator(policy) for _ in range(2)]
    with Evaluator(config, 4, seed=1, deterministic=deterministic) as evaluator:
        results.append(evaluator(policy))
    for result in results[1:]:
        assert result.returns.tolist() == results[0].returns.tolist()
    with Evaluator(config, 4, seed=2, deterministic=deterministic) as evaluator:
        assert evaluator(policy).returns.tolist() != results[0].returns.tolist()


def test_evaluating_changes_nothing_in_the_policy() -> None:
    with Evaluator(config_of("Pendulum-v1", max_episode_steps=30), 3, deterministic=False) as evaluator:
        policy = policy_for(evaluator.env, normalise_observations=True)
        before = {name: value.clone() for name, value in policy.state_dict()["weights"].items()}
        moments = policy.state_dict()["observation_moments"]
        torch_state = torch.get_rng_state()
        evaluator(policy)
        after = policy.state_dict()
    assert all(torch.equal(before[name], after["weights"][name]) for name in before)
    assert all(np.array_equal(moments[name], after["observation_moments"][name]) for name in moments)
    assert torch.equal(torch_state, torch.get_rng_state())


@pytest.mark.parametrize("autoreset", MODES)
@pytest.mark.parametrize("recurrence", ["lstm", "gru"])
def test_memory_lasts_an_episode_and_no_longer(autoreset: str, recurrence: str) -> None:
    """A core whose state integrates what it sees says the sign of this episode's bit, never of earlier ones."""
    with Evaluator(config_of("toy/Memory-v0", autoreset), 40, seed=3) as evaluator:
        policy = policy_for(evaluator.env, recurrence=recurrence, recurrent_size=1, hidden_sizes=())
        remember(policy)
        result = evaluator(policy)
    assert result.returns.tolist() == [3.0] * 40


def test_normalised_observations_are_clipped_and_standardised_as_in_training() -> None:
    with Evaluator(config_of("Pendulum-v1", max_episode_steps=20), 2) as evaluator:
        plain, normalised = policy_for(evaluator.env), policy_for(evaluator.env, normalise_observations=True)
        assert evaluator(plain).returns.tolist() == pytest.approx(evaluator(normalised).returns.tolist(), rel=1e-4)
        normalised.module.normaliser.shift.fill_(0.5)  # type: ignore[union-attr]
        assert evaluator(plain).returns.tolist() != pytest.approx(evaluator(normalised).returns.tolist(), rel=1e-4)


def test_an_evaluation_of_no_episodes_is_refused() -> None:
    with pytest.raises(RllabError, match="at least 1 episode"):
        Evaluator(config_of("CartPole-v1"), 0)


def test_a_film_is_one_episode() -> None:
    config = config_of("CartPole-v1", max_episode_steps=5)
    with Evaluator(config, 1) as evaluator:
        frames = list(film(policy_for(evaluator.env, recurrence="gru"), config))
    assert len(frames) == 6
    assert frames[0].shape == (400, 600, 3)


def test_script_needs_no_particular_policy() -> None:
    """The toy's own promise, on which the tests above stand."""
    env = Scripted((2,), ("terminated",))
    assert env.reset()[0].tolist() == [0, 0]
    assert env.step(2)[2] is False
    assert env.step(0)[2] is True
