"""A row's own steps in games of several players: rewards, ends, values and advantages against games worked out by hand."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode
from toy_tasks import policy_for

pytest.importorskip("pettingzoo")

import pettingzoo

from envs.errors import RllabError
from envs.games import SimultaneousGame
from envs.make import EnvConfig, make_vector, reset
from envs.multi_agent import MultiAgentVectorEnv
from rllab.agents import AGENTS, CONFIGS
from rllab.collect import EnvCollector
from rllab.returns import generalised_advantages
from rllab.rollout import Batch, Rollout
from rllab.turns import Acted, Turns

TIC_TAC_TOE = "pettingzoo:classic/tictactoe_v3"
X_WINS, O_WINS = [0, 3, 1, 4, 2], [0, 3, 1, 4, 8, 5]
"""Moves in turns: X has the first column in the first game, O the second one in the second."""


class Fading(pettingzoo.ParallelEnv):
    """Three players; player i sees `[i, step]`, gets 10·i + step, and is out after step i + 1, the last by truncation."""

    metadata = {"name": "fading_v0", "render_modes": []}  # noqa: RUF012
    possible_agents = ["a", "b", "c"]  # noqa: RUF012

    def observation_space(self, agent: str) -> Any:
        return Box(-1, 100, (2,), np.float32)

    def action_space(self, agent: str) -> Any:
        return Discrete(3)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents, self.count = list(self.possible_agents), 0
        return self._observe(self.agents), {}

    def step(self, actions: dict[str, Any]) -> Any:
        self.count += 1
        acted = self.agents
        number = {agent: self.possible_agents.index(agent) for agent in acted}
        out = {agent: number[agent] + 1 == self.count for agent in acted}
        self.agents = [agent for agent in acted if not out[agent]]
        return (
            self._observe(acted),
            {agent: 10.0 * number[agent] + self.count for agent in acted},
            {agent: out[agent] and agent != "c" for agent in acted},
            {agent: out[agent] and agent == "c" for agent in acted},
            {},
        )

    def _observe(self, agents: list[str]) -> Any:
        return {agent: np.array([self.possible_agents.index(agent), self.count], np.float32) for agent in agents}


def fading(copies: int = 1) -> MultiAgentVectorEnv:
    return MultiAgentVectorEnv([SimultaneousGame(Fading()) for _ in range(copies)], "fading", AutoresetMode.SAME_STEP)


def scripted(policy: Any, moves: list[int]) -> None:
    """Have every row of the policy choose one move after the other."""
    script: Iterator[int] = iter(moves)

    def act(observations: Any, noise: Any, *, hidden: Any, action_mask: Any) -> Any:
        return np.full(len(action_mask), next(script)), hidden

    policy.act = act


def advantages_by_hand(rollout: Rollout, row: int, discount: float, gae_lambda: float) -> list[float]:
    """Of a row's own steps, one after the other from the last."""
    result: list[float] = []
    following = 0.0
    for t in reversed(range(int(rollout.valid[row].sum()))):
        value, next_value = float(rollout.values[row, t]), float(rollout.next_values[row, t])
        terminated, truncated = bool(rollout.terminated[row, t]), bool(rollout.truncated[row, t])
        delta = float(rollout.rewards[row, t]) + (0.0 if terminated else discount * next_value) - value
        following = delta + (0.0 if terminated or truncated else discount * gae_lambda * following)
        result.append(following)
    return result[::-1]


def test_alternating_rows_get_the_steps_between_their_own_turns() -> None:
    turns = Turns(np.array([True, False]), steps=2, players=2)
    for acting, full in (([False, True], False), ([True, False], False), ([False, True], False), ([True, False], True)):
        assert turns.note(np.array(acting)) is full
    acted = Acted(
        torch.arange(10).view(2, 5), np.arange(8).reshape(2, 4), np.array([[1.0, 2, 4, 8], [1, 2, 4, 8]]),
        np.array([[False] * 4, [False] * 4]), np.array([[False] * 4, [False] * 4]), None, [], [],
    )  # fmt: skip
    own, valid, starts, fresh = turns.own_steps(acted, np.array([True, True]))
    np.testing.assert_array_equal(own.rewards, [[3, 12], [6, 8]])  # what came before a first turn belongs to no step
    np.testing.assert_array_equal(own.observations, [[0, 2, 4], [6, 8, 8]])
    np.testing.assert_array_equal(own.actions, [[0, 2], [5, 7]])
    np.testing.assert_array_equal(valid, [[True, True], [True, False]])  # what the last step brings is not known yet
    np.testing.assert_array_equal(starts, [[True, False, False], [True, False, False]])
    assert not fresh.any()


def test_what_a_new_game_brings_before_a_rows_first_turn_is_not_of_its_last_game() -> None:
    turns = Turns(np.array([True]), steps=3, players=2)
    for acting in (False, False, True, False):
        assert not turns.note(np.array([acting]))
    ended = np.array([[True, False, False, False]])  # its game ends in its first step; its next turn is two ticks later
    acted = Acted(
        torch.arange(5).view(1, 5), np.arange(4).reshape(1, 4), np.array([[1.0, 2, 4, 8]]), ended,
        np.zeros((1, 4), bool), None, [], [],
    )  # fmt: skip
    own, valid, starts, fresh = turns.own_steps(acted, np.array([False]))
    assert own.rewards[0, 0] == 1
    np.testing.assert_array_equal(valid, [[True, False, False]])
    np.testing.assert_array_equal(starts, [[False, True, False, False]])
    assert not fresh.any()


def test_two_games_of_tic_tac_toe_reach_both_players_with_their_ends() -> None:
    env = make_vector(EnvConfig(TIC_TAC_TOE, 1))
    policy = policy_for(env)
    scripted(policy, X_WINS + O_WINS)
    collector = EnvCollector(env, policy, 6)
    rollout = collector.collect(policy)

    assert rollout.valid.tolist() == [[True] * 6, [True] * 5 + [False]]
    assert rollout.actions[0].tolist() == [0, 1, 2, 0, 1, 8]
    assert rollout.actions[1, :5].tolist() == [3, 4, 3, 4, 5]
    assert rollout.rewards[0].tolist() == [0, 0, 1, 0, 0, -1]
    assert rollout.rewards[1, :5].tolist() == [0, -1, 0, 0, 1]
    assert rollout.terminated[0].tolist() == [False, False, True] * 2
    assert rollout.terminated[1, :5].tolist() == [False, True, False, False, True]
    assert not rollout.truncated.any()
    assert rollout.num_steps == 11
    assert rollout.episode_returns is not None
    assert rollout.episode_lengths is not None
    assert rollout.episode_returns.tolist() == [1, -1, -1, 1]
    assert rollout.episode_lengths.tolist() == [3, 2, 3, 3]
    # X's stones, then O's, as each sees them before its last move of the first game.
    assert rollout.observations["observation"][0, 2].sum((0, 1)).tolist() == [2, 2]
    assert rollout.observations["observation"][1, 1].sum((0, 1)).tolist() == [1, 2]
    # The state after a step is what the player sees at its next turn.
    assert torch.equal(rollout.next_values[0, :2], rollout.values[0, 1:3])
    assert torch.equal(rollout.next_values[1, 2:4], rollout.values[1, 3:5])


def test_advantages_are_those_of_each_rows_own_steps() -> None:
    env = make_vector(EnvConfig(TIC_TAC_TOE, 1))
    policy = policy_for(env)
    scripted(policy, X_WINS + O_WINS)
    rollout = EnvCollector(env, policy, 6).collect(policy)
    found = generalised_advantages(
        rollout.rewards, rollout.values, rollout.next_values, rollout.terminated, rollout.truncated, rollout.valid,
        discount=0.9, gae_lambda=0.8,
    )  # fmt: skip
    for row, count in enumerate((6, 5)):
        expected = advantages_by_hand(rollout, row, 0.9, 0.8)
        np.testing.assert_allclose(found[row, :count].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert found[1, 5] == 0


def test_a_step_under_way_at_the_border_is_left_out_but_its_reward_is_counted_for_people() -> None:
    env = make_vector(EnvConfig(TIC_TAC_TOE, 1))
    policy = policy_for(env)
    scripted(policy, X_WINS + X_WINS)
    collector = EnvCollector(env, policy, 2)
    first = collector.collect(policy)  # four moves: it is X's third turn, and O waits for the answer to its second move
    assert first.valid.tolist() == [[True, True], [True, False]]
    assert first.episode_returns is not None
    assert len(first.episode_returns) == 0
    second = collector.collect(policy)
    assert second.rewards[0].tolist() == [1, 0]
    assert second.terminated[0].tolist() == [True, False]
    assert second.actions[0].tolist() == [2, 0]
    assert torch.equal(first.next_values[0, 1], second.values[0, 0])
    # O's −1 came to the step that had been left out; its first steps here are of the second game.
    assert second.valid.tolist() == [[True, True], [False, False]]
    assert second.episode_returns is not None
    assert second.episode_lengths is not None
    assert second.episode_returns.tolist() == [1, -1]
    assert second.episode_lengths.tolist() == [3, 2]
    now = policy.value(collector_batch(collector, policy)).detach()
    torch.testing.assert_close(second.next_values[0, 1], now[0])


def collector_batch(collector: EnvCollector, policy: Any) -> Any:
    """What the rows see now, as a batch."""
    observations = {key: torch.from_numpy(leaf) for key, leaf in collector._observations.items()}
    return Batch(observations=observations, actions=torch.zeros(2), valid=torch.ones(2, dtype=torch.bool))


def test_players_that_are_out_have_no_steps_until_the_next_game() -> None:
    env = fading()
    policy = policy_for(env)
    rollout = EnvCollector(env, policy, 6).collect(policy)
    assert rollout.valid.sum(1).tolist() == [2, 4, 6]
    assert rollout.rewards[0, :2].tolist() == [1, 1]
    assert rollout.rewards[1, :4].tolist() == [11, 12, 11, 12]
    assert rollout.rewards[2].tolist() == [21, 22, 23, 21, 22, 23]
    assert rollout.terminated[0, :2].tolist() == [True, True]
    assert rollout.terminated[1, :4].tolist() == [False, True, False, True]
    assert rollout.truncated[2].tolist() == [False, False, True] * 2
    assert not rollout.terminated[2].any()
    assert rollout.episode_returns is not None
    assert rollout.episode_returns.tolist() == [1, 23, 66] * 2
    assert rollout.num_steps == 12


@pytest.mark.parametrize("recurrence", ["none", "gru"])
def test_the_truncated_player_bootstraps_from_its_last_observation(recurrence: str) -> None:
    env = fading()
    policy = policy_for(env, recurrence=recurrence)
    collector = EnvCollector(env, policy, 3, keep_next=True)
    rollout = collector.collect(policy)
    assert rollout.next_observations is not None
    assert rollout.next_observations[2].tolist() == [[2, 1], [2, 2], [2, 3]]
    assert rollout.next_observations[1, :2].tolist() == [[1, 1], [1, 2]]
    if recurrence == "none":
        one = torch.ones(1, dtype=torch.bool)
        final = Batch(observations=torch.tensor([[2.0, 3.0]]), actions=torch.zeros(1), valid=one)
        torch.testing.assert_close(rollout.next_values[2, 2], policy.value(final).detach()[0])
    assert not torch.equal(rollout.next_values[2, 2], rollout.values[2, 0])


@pytest.mark.parametrize("recurrence", ["lstm", "gru"])
@pytest.mark.parametrize("kind", ["turns", "at once"])
def test_memory_moves_on_at_a_rows_own_turns_only(recurrence: str, kind: str) -> None:
    env: Any = make_vector(EnvConfig(TIC_TAC_TOE, 3)) if kind == "turns" else fading(2)
    policy = policy_for(env, recurrence=recurrence)
    collector, acted = EnvCollector(env, policy, 7), []
    inner = policy.module.act

    def act(batch: Any) -> Any:
        parameters, hidden = inner(batch)
        acted.append((parameters, env.unwrapped.acting.copy()))
        return parameters, hidden

    policy.module.act = act  # type: ignore[method-assign]
    for _ in range(3):
        acted.clear()
        rollout = collector.collect(policy)
        evaluated = policy.evaluate(rollout.experience(rollout.values, rollout.values)).parameters.detach()
        evaluated = evaluated.view(*rollout.valid.shape, -1)
        for row in range(env.num_envs):
            own = [parameters[row] for parameters, acting in acted if acting[row]]
            count = int(rollout.valid[row].sum())
            assert len(own) - count in (0, 1)
            for t in range(count):
                torch.testing.assert_close(evaluated[row, t], own[t], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("recurrence", ["none", "lstm"])
def test_every_agent_learns_from_games_and_chooses_legal_moves_alone(agent: str, recurrence: str) -> None:
    env = make_vector(EnvConfig(TIC_TAC_TOE, 4))
    policy = policy_for(env, recurrence=recurrence, normalise_observations=True)
    size = {} if agent == "reinforce" else {"minibatch_size": 16}
    learner = AGENTS[agent](policy, CONFIGS[agent](rollout_steps=16, scale_rewards=False, **size))
    collector = EnvCollector(env, policy, 16)
    for _ in range(3):
        rollout = collector.collect(policy)
        assert rollout.action_mask is not None
        legal = rollout.action_mask.gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1)
        assert bool((legal | ~rollout.valid).all())
        assert not rollout.truncated.any()  # which is how an illegal move ends a game
        assert rollout.valid.any(1).all()
        metrics = learner.update(rollout)
        assert all(np.isfinite(value) for value in metrics.values())
        policy.adapt(rollout)


def test_one_seed_collects_one_rollout() -> None:
    rollouts = []
    for seed in (3, 3, 4):
        env = make_vector(EnvConfig(TIC_TAC_TOE, 2))
        policy = policy_for(env)
        rollouts.append(EnvCollector(env, policy, 9, seed).collect(policy))
    assert torch.equal(rollouts[0].actions, rollouts[1].actions)
    assert torch.equal(rollouts[0].rewards, rollouts[1].rewards)
    assert not torch.equal(rollouts[0].actions, rollouts[2].actions)


def test_a_collector_resumes_in_the_middle_of_games_to_the_bit() -> None:
    def collector_for(policy: Any, seed: int) -> EnvCollector:
        return EnvCollector(make_vector(EnvConfig(TIC_TAC_TOE, 3)), policy, 5, seed)

    policy = policy_for(make_vector(EnvConfig(TIC_TAC_TOE, 1)), recurrence="lstm")
    straight = collector_for(policy, 1)
    for _ in range(3):
        straight.collect(policy)
    resumed = collector_for(policy, 2)
    assert resumed.load_state_dict(straight.state_dict()) == []
    for _ in range(3):
        one, other = straight.collect(policy), resumed.collect(policy)
        for name in ("actions", "rewards", "valid", "terminated", "values", "log_probs", "next_values", "starts"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert one.episode_returns is not None
        np.testing.assert_array_equal(one.episode_returns, other.episode_returns)


def test_rows_of_a_game_that_began_anew_act_by_its_own_masks() -> None:
    env = make_vector(EnvConfig(TIC_TAC_TOE, 2))
    policy = policy_for(env)
    collector = EnvCollector(env, policy, 3)
    collector.collect(policy)
    state = collector.state_dict()
    state["environments"]["environments"]["1"]["observations"] = None  # as if it had not arrived there
    (sentence,) = collector.load_state_dict(state)
    assert sentence.startswith("2 of 4 environments could not be restored")
    np.testing.assert_array_equal(collector._mask, collector._observations["action_mask"].astype(bool))
    rollout = collector.collect(policy)
    assert not rollout.truncated.any()
    assert rollout.observations["observation"][2, 0].sum() == 0


def test_games_are_not_collected_with_resets_on_the_next_step() -> None:
    env = make_vector(EnvConfig(TIC_TAC_TOE, 1, autoreset="next_step"))
    with pytest.raises(RllabError, match="autoreset same_step"):
        EnvCollector(env, policy_for(env), 4)


def test_a_vector_environment_of_one_player_is_collected_as_ever() -> None:
    env = make_vector(EnvConfig(TIC_TAC_TOE, 3, opponent="random"))
    reset(env, 0)
    policy = policy_for(env)
    rollout = EnvCollector(env, policy, 8).collect(policy)
    assert rollout.valid.all()
    assert set(rollout.rewards.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert torch.equal(rollout.rewards != 0, (rollout.rewards != 0) & rollout.terminated)
