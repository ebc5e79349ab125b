"""Small games of PettingZoo's two kinds, in which everything is known beforehand."""

import itertools
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from pettingzoo import AECEnv, ParallelEnv


class Attrition(ParallelEnv):
    """Player i is out after `lasts[i]` steps, the last one of all by a time limit; each step pays i + 1 and its action.

    The observation is `[player, step]`.
    """

    def __init__(self, lasts: tuple[int, ...] = (1, 3, 2), render_mode: str | None = None) -> None:
        self.metadata = {"name": "attrition_v0", "render_modes": []}
        self.possible_agents = [f"player_{i}" for i in range(len(lasts))]
        self.lasts = dict(zip(self.possible_agents, lasts, strict=True))
        self.render_mode = render_mode
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> Any:
        return Box(0, 100, (2,), np.float32)

    def action_space(self, agent: str) -> Any:
        return Discrete(10)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents, self.count = list(self.possible_agents), 0
        return {agent: self.observe(agent) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> Any:
        assert list(actions) == self.agents  # nobody acts who is out
        self.count += 1
        everyone = self.agents
        out = {agent: self.lasts[agent] == self.count for agent in everyone}
        cut = {agent: out[agent] and self.lasts[agent] == max(self.lasts.values()) for agent in everyone}
        self.agents = [agent for agent in everyone if not out[agent]]
        return (
            {agent: self.observe(agent) for agent in everyone},
            {agent: self.possible_agents.index(agent) + 1.0 + float(actions[agent]) for agent in everyone},
            {agent: out[agent] and not cut[agent] for agent in everyone},
            cut,
            {agent: {} for agent in everyone},
        )

    def observe(self, agent: str) -> Any:
        return np.array([self.possible_agents.index(agent), self.count], np.float32)

    def close(self) -> None:
        pass


class Unequal(Attrition):
    """Its second player has more to choose from."""

    def action_space(self, agent: str) -> Any:
        return Discrete(10 + self.possible_agents.index(agent))


class Unrepeatable(Attrition):
    """Ignores its seed: shows how many games the process has begun."""

    begun = itertools.count()

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.number = next(self.begun) % 90
        return super().reset(seed, options)

    def observe(self, agent: str) -> Any:
        return np.array([self.number, self.count], np.float32)


class Alternating(AECEnv):
    """Two players count to `length` in turns; every move costs who makes it 1 and brings the other 10.

    The observation is the count.
    """

    def __init__(self, length: int = 3, render_mode: str | None = None) -> None:
        self.metadata = {"name": "alternating_v0", "render_modes": []}
        self.possible_agents, self.length, self.render_mode = ["first", "second"], length, render_mode
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> Any:
        return Box(0, 100, (1,), np.float32)

    def action_space(self, agent: str) -> Any:
        return Discrete(2)

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        self.agents, self.count = list(self.possible_agents), 0
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations, self.truncations = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, False)
        self.infos: dict[str, Any] = {agent: {} for agent in self.agents}
        self.agent_selection = "first"

    def step(self, action: Any) -> None:
        player = self.agent_selection
        if self.terminations[player]:
            self._was_dead_step(action)
            return
        other = "second" if player == "first" else "first"
        self.count += 1
        self._cumulative_rewards[player] = 0.0
        self.rewards = {player: -1.0, other: 10.0}
        self._accumulate_rewards()
        self.agent_selection = other
        self.terminations = dict.fromkeys(self.agents, self.count == self.length)

    def observe(self, agent: str) -> Any:
        return np.array([self.count], np.float32)

    def close(self) -> None:
        pass


def parallel_env(**arguments: Any) -> Any:
    return Attrition(**arguments)


def no_game(render_mode: str | None = None) -> Any:
    return "nothing"
