"""EnvCollector against scripts known beforehand: columns, bootstraps, episodes, in both autoreset modes."""

from itertools import islice
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from toy_tasks import (
    CHOICE,
    SPACES,
    AnySpaces,
    Scripted,
    Transition,
    constant_critic,
    policy_for,
    script_of,
    values_along,
    vector_of,
)

from envs.make import EnvConfig, make_vector
from rllab.agents import AGENTS, CONFIGS
from rllab.collect import EnvCollector
from rllab.policies import ActorCritic, PolicyConfig
from rllab.returns import generalised_advantages
from rllab.rollout import Rollout

MODES = ("same_step", "next_step")
LENGTHS, ENDINGS = (3, 1, 5, 2, 2), ("truncated", "terminated", "truncated", "both", "terminated", "truncated")
OTHER_LENGTHS, OTHER_ENDINGS = (1, 1, 4, 7), ("truncated", "truncated", "terminated")


def two_scripts() -> list[Scripted]:
    return [Scripted(LENGTHS, ENDINGS), Scripted(OTHER_LENGTHS, OTHER_ENDINGS)]


def collected(mode: str, scripts: list[Scripted], rollouts: int, steps: int, **policy: Any) -> Any:
    """Several rollouts in a row, and the policy and collector that made them."""
    env = vector_of(mode, *scripts)
    acting = policy_for(env, **policy)
    collector = EnvCollector(env, acting, steps)
    return [collector.collect(acting) for _ in range(rollouts)], acting, collector


def existing(rollouts: list[Rollout], row: int, field: str) -> np.ndarray:
    """A field of one environment's steps that exist, over all rollouts."""
    return np.concatenate([getattr(r, field)[row][r.valid[row]].numpy() for r in rollouts])


def expected_steps(script: Scripted, count: int) -> list[Transition]:
    return list(islice(script_of(script), count))


def episodes_of(steps: list[Transition]) -> list[list[Transition]]:
    episodes: list[list[Transition]] = []
    for step in steps:
        if step.starts:
            episodes.append([])
        episodes[-1].append(step)
    return episodes


def advantages_of(rollout: Rollout, gae_lambda: float = 0.95) -> torch.Tensor:
    return generalised_advantages(
        rollout.rewards, rollout.values, rollout.next_values, rollout.terminated, rollout.truncated, rollout.valid,
        discount=0.99, gae_lambda=gae_lambda,
    )  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("steps", [1, 4, 7])
def test_steps_that_exist_are_exactly_those_of_the_script(mode: str, rows: int, steps: int) -> None:
    rollouts, _, _ = collected(mode, two_scripts()[:rows], 5, steps)
    for row, script in enumerate(two_scripts()[:rows]):
        rewards = existing(rollouts, row, "rewards")
        expected = expected_steps(script, len(rewards))
        assert rewards.tolist() == [step.reward for step in expected]
        assert existing(rollouts, row, "environment_rewards").tolist() == [step.reward for step in expected]
        np.testing.assert_array_equal(existing(rollouts, row, "observations"), [step.observation for step in expected])
        assert existing(rollouts, row, "terminated").tolist() == [step.terminated for step in expected]
        assert existing(rollouts, row, "truncated").tolist() == [step.truncated for step in expected]


@pytest.mark.parametrize("mode", MODES)
def test_only_the_column_after_an_episodes_end_does_not_exist_and_only_in_next_step(mode: str) -> None:
    rollouts, _, _ = collected(mode, two_scripts(), 4, 6)
    done = torch.cat([r.terminated | r.truncated for r in rollouts], dim=1)
    valid = torch.cat([r.valid for r in rollouts], dim=1)
    if mode == "same_step":
        assert bool(valid.all())
    else:
        assert bool(valid[:, 0].all())
        assert torch.equal(valid[:, 1:], ~done[:, :-1])
        assert not bool((done & ~valid).any())
    assert [r.num_steps for r in rollouts] == [int(r.valid.sum()) for r in rollouts]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("recurrence", ["none", "lstm", "gru"])
@pytest.mark.parametrize("share_torso", [True, False])
def test_next_value_is_the_critics_of_the_true_next_observation(mode: str, recurrence: str, share_torso: bool) -> None:
    rollouts, policy, _ = collected(
        mode, two_scripts(), 5, 6, recurrence=recurrence, share_torso=share_torso, normalise_observations=False
    )
    for row, script in enumerate(two_scripts()):
        values, next_values = existing(rollouts, row, "values"), existing(rollouts, row, "next_values")
        steps = expected_steps(script, len(values))
        expected_values, expected_next = [], []
        for episode in episodes_of(steps):
            # A recurrent policy is run over the whole episode in one piece, across the rollouts' borders.
            along = values_along(policy, [episode[0].observation, *(step.next_observation for step in episode)])
            expected_values += along[:-1]
            expected_next += along[1:]
        bootstrapped = [not step.terminated for step in steps]
        assert sum(step.truncated and not step.terminated for step in steps) >= 3
        np.testing.assert_allclose(values, expected_values, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            next_values[bootstrapped], np.array(expected_next)[bootstrapped], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("mode", MODES)
def test_starts_mark_the_first_observations_of_episodes(mode: str) -> None:
    rollouts, _, _ = collected(mode, two_scripts(), 4, 5, recurrence="gru")
    for row, script in enumerate(two_scripts()):
        starts = existing(rollouts, row, "starts")
        assert starts.tolist() == [step.starts for step in expected_steps(script, len(starts))]


@pytest.mark.parametrize("mode", MODES)
def test_log_probabilities_are_those_of_the_acting_policy(mode: str) -> None:
    rollouts, policy, _ = collected(mode, two_scripts(), 2, 6, recurrence="lstm")
    for rollout in rollouts:
        zeros = torch.zeros_like(rollout.rewards)
        evaluation = policy.evaluate(rollout.experience(zeros, zeros))
        torch.testing.assert_close(evaluation.log_prob.detach(), rollout.log_probs, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(evaluation.value.detach(), rollout.values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_episode_returns_and_lengths_are_carried_across_rollouts(mode: str) -> None:
    rollouts, _, collector = collected(mode, two_scripts(), 8, 3)
    per_row = [0, 0]
    expected_returns, expected_lengths = [], []
    counts = [len(existing(rollouts, row, "rewards")) for row in (0, 1)]
    ended = []  # (column, row) in time order
    for row in (0, 1):
        done = torch.cat([(r.terminated | r.truncated)[row] for r in rollouts])
        ended += [(int(column), row) for column in done.nonzero()]
    finished = [
        [e for e in episodes_of(expected_steps(script, counts[row])) if e[-1].terminated or e[-1].truncated]
        for row, script in enumerate(two_scripts())
    ]
    for _, row in sorted(ended):
        episode = finished[row][per_row[row]]
        per_row[row] += 1
        expected_returns.append(sum(step.reward for step in episode))
        expected_lengths.append(len(episode))
    assert np.concatenate([r.episode_returns for r in rollouts]).tolist() == expected_returns
    assert np.concatenate([r.episode_lengths for r in rollouts]).tolist() == expected_lengths
    assert collector.recent() == {
        "return_mean": pytest.approx(np.mean(expected_returns)), "length_mean": pytest.approx(np.mean(expected_lengths)),
    }  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("recurrence", ["none", "lstm"])
def test_constant_reward_under_a_time_limit_is_worth_its_geometric_sum_everywhere(
    mode: str, rows: int, recurrence: str
) -> None:
    env = vector_of(mode, *(Scripted((8,), ("truncated",), reward=1.0) for _ in range(rows)))
    policy = policy_for(env, recurrence=recurrence)
    constant_critic(policy, 100.0)
    collector = EnvCollector(env, policy, 21)
    for _ in range(3):
        rollout = collector.collect(policy)
        returns = advantages_of(rollout) + rollout.values
        assert int(rollout.truncated.sum()) >= rows
        torch.testing.assert_close(
            returns[rollout.valid], torch.full((rollout.num_steps,), 100.0), rtol=1e-5, atol=1e-3
        )


@pytest.mark.parametrize("recurrence", ["none", "lstm"])
def test_both_autoreset_modes_give_the_same_advantages(recurrence: str) -> None:
    steps = {}
    for mode in MODES:
        # One rollout each, so that no cut lies in between; the next-step mode needs columns for its resets.
        (rollout,), _, _ = collected(mode, [Scripted(LENGTHS, ENDINGS)], 1, 40, recurrence=recurrence)
        advantages = advantages_of(rollout)[rollout.valid]
        done = (rollout.terminated | rollout.truncated)[rollout.valid].nonzero()
        steps[mode] = (advantages, int(done[-1]) + 1)
    count = min(last for _, last in steps.values())
    assert count > 20
    torch.testing.assert_close(steps["same_step"][0][:count], steps["next_step"][0][:count], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_a_terminated_step_has_no_future_however_large_the_critic_thinks_it(mode: str) -> None:
    env = vector_of(mode, Scripted((2,), ("terminated",), reward=1.0))
    policy = policy_for(env)
    constant_critic(policy, 1000.0)
    rollout = EnvCollector(env, policy, 12).collect(policy)
    returns = (advantages_of(rollout, gae_lambda=1.0) + rollout.values)[rollout.terminated]
    torch.testing.assert_close(returns, torch.ones(len(returns)), rtol=0, atol=1e-3)


class ReusesItsBuffer(Scripted):
    """Returns one array for ever, overwritten at each step."""

    def __init__(self) -> None:
        super().__init__((3,), ("truncated",))
        self.buffer = np.zeros(2, np.float32)

    def observe(self) -> Any:
        self.buffer[:] = self.episode, self.count
        return self.buffer


@pytest.mark.parametrize("mode", MODES)
def test_an_environment_may_overwrite_the_observations_that_it_returned(mode: str) -> None:
    gymnasium.register("toy/ReusesItsBuffer-v0", entry_point=ReusesItsBuffer)
    env = make_vector(EnvConfig("toy/ReusesItsBuffer-v0", num_envs=1, autoreset=mode))  # type: ignore[arg-type]
    del gymnasium.registry["toy/ReusesItsBuffer-v0"]
    policy = policy_for(env)
    rollout = EnvCollector(env, policy, 12).collect(policy)
    finals = rollout.truncated.nonzero()
    assert len(finals) == 3 + (mode == "same_step")
    for episode, (row, column) in enumerate(finals.tolist()):
        expected = values_along(policy, [np.array([episode, 3], np.float32)])[0]
        assert float(rollout.next_values[row, column]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("recurrence", ["none", "lstm"])
@pytest.mark.parametrize("case", SPACES)
def test_every_agent_learns_from_every_space(case: str, recurrence: str) -> None:
    observation_space, action_space = SPACES[case]
    for mode, agent in (("same_step", "ppo"), ("next_step", "trpo"), ("same_step", "reinforce")):
        env = vector_of(mode, *(AnySpaces(observation_space, action_space) for _ in range(2)))
        policy = ActorCritic(
            observation_space, action_space,
            PolicyConfig(hidden_sizes=(8,), recurrence=recurrence, recurrent_size=4, normalise_observations=True),  # type: ignore[arg-type]
        )  # fmt: skip
        learner = AGENTS[agent](policy, CONFIGS[agent](rollout_steps=6, minibatch_size=6))  # type: ignore[call-arg]
        collector = EnvCollector(env, policy, 6)
        before = policy.flat.detach().clone()
        for _ in range(2):
            rollout = collector.collect(policy)
            metrics = learner.update(rollout)
            policy.adapt(rollout)
            assert all(np.isfinite(value) for value in metrics.values()), metrics
        assert not torch.equal(before, policy.flat.detach())
        env.close()


def test_double_precision_observations_are_kept_in_single() -> None:
    env = vector_of("same_step", AnySpaces(spaces.Box(-1, 1, (3,), np.float64), CHOICE))
    policy = policy_for(env)
    rollout = EnvCollector(env, policy, 6).collect(policy)
    assert rollout.observations.dtype == torch.float32


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_final_observations_of_nested_spaces_reach_the_critic(mode: str, kind: str) -> None:
    """The same random observations in either form give the same values as in one flat vector."""

    class Nested(Scripted):
        def __init__(self) -> None:
            super().__init__((3, 2), ("truncated",))
            box = spaces.Box(-1, np.inf, (1,), np.float32)
            self.observation_space = spaces.Dict(a=box, b=box) if kind == "dict" else spaces.Tuple([box, box])

        def observe(self) -> Any:
            parts = super().observe()[:, None]
            return {"a": parts[0], "b": parts[1]} if kind == "dict" else (parts[0], parts[1])

    values = []
    for script in (Nested(), Scripted((3, 2), ("truncated",))):
        env = vector_of(mode, script)
        policy = policy_for(env)
        values.append(EnvCollector(env, policy, 11).collect(policy).next_values)
    torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=1e-6)


def test_a_double_precision_final_observation_on_its_bound_passes() -> None:
    """Rounded to single precision, 0.7 lies below itself; a final observation is rounded as all others are."""

    class OnTheBound(gymnasium.Env[Any, Any]):
        observation_space = spaces.Box(-0.7, 0.7, (1,), np.float64)
        action_space = spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            super().reset(seed=seed)
            return np.array([0.7]), {}

        def step(self, action: Any) -> Any:
            return np.array([0.7]), 0.0, False, True, {}

    vector_env = vector_of("same_step", OnTheBound())
    policy = ActorCritic(vector_env.single_observation_space, vector_env.single_action_space)
    rollout = EnvCollector(vector_env, policy, 4).collect(policy)
    assert rollout.truncated.all()
