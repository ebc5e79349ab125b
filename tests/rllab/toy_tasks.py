"""Small environments whose every reward, ending and legal action is known beforehand, and policies to go with them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from envs.serial import SerialVectorEnv
from rllab.policies import ActorCritic, PolicyConfig
from rllab.rollout import Batch

MODES = {"same_step": AutoresetMode.SAME_STEP, "next_step": AutoresetMode.NEXT_STEP}


class Scripted(gymnasium.Env[Any, Any]):
    """Episode e lasts `lengths[e]` steps (the list repeats), ends as `endings[e]` says, and pays `10·e + step`.

    The observation is `[episode, step]`. Nothing depends on the actions.
    """

    def __init__(
        self, lengths: Sequence[int] = (3,), endings: Sequence[str] = ("truncated",), reward: float | None = None
    ) -> None:
        self.observation_space = spaces.Box(-1, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(3)
        self.lengths, self.endings, self.reward = tuple(lengths), tuple(endings), reward
        self.episode, self.count = -1, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.count = self.episode + 1, 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        over = self.count == self.lengths[self.episode % len(self.lengths)]
        ending = self.endings[self.episode % len(self.endings)]
        terminated, truncated = over and ending != "truncated", over and ending != "terminated"
        reward = 10.0 * self.episode + self.count if self.reward is None else self.reward
        return self.observe(), reward, terminated, truncated, {}

    def observe(self) -> Any:
        return np.array([self.episode, self.count], np.float32)


@dataclass
class Transition:
    """One step as the script has it."""

    observation: Any
    reward: float
    next_observation: Any
    """The true one: an episode's last observation is never replaced by the next one's first."""
    terminated: bool
    truncated: bool
    starts: bool


def script_of(env: Scripted) -> Iterator[Transition]:
    """The endless sequence of transitions of a fresh environment, whoever steps it."""
    while True:
        observation, starts, over = env.reset()[0], True, False
        while not over:
            next_observation, reward, terminated, truncated, _ = env.step(0)
            yield Transition(observation, reward, next_observation, terminated, truncated, starts)
            observation, starts, over = next_observation, False, terminated or truncated


class AnySpaces(gymnasium.Env[Any, Any]):
    """Random observations of any space; refuses actions outside its space. Ends every five steps, in turn either way.

    `masks` sends an action mask by the infos: "always", or "seldom" (every third step, where action 1 is illegal).
    """

    def __init__(self, observation_space: Any, action_space: Any, masks: str = "never") -> None:
        self.observation_space, self.action_space, self.masks = observation_space, action_space, masks
        self.count = self.episode = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.count, self.episode = 0, self.episode + 1
        return self.observation_space.sample(), self.info()

    def step(self, action: Any) -> Any:
        assert action in self.action_space, f"{action!r} is not in {self.action_space}"
        assert not (self.info() and action == 1), "an illegal action"
        self.count += 1
        over, odd = self.count == 5, self.episode % 2 == 1
        return self.observation_space.sample(), 1.0, over and odd, over and not odd, self.info()

    def info(self) -> dict[str, Any]:
        legal = self.masks == "always" or (self.masks == "seldom" and self.count % 3 == 0)
        return {"action_mask": np.array([1, 0, 1], np.int8)} if legal else {}


class MaskedObservation(gymnasium.Env[Any, Any]):
    """A Dict observation with an `action_mask` that changes from step to step; illegal actions are refused.

    The mask and the number are both told by the step: action `step mod 4` is illegal.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Dict(
            action_mask=spaces.Box(0, 1, (4,), np.int8), position=spaces.Box(0, 1, (1,), np.float64)
        )
        self.action_space = spaces.Discrete(4)
        self.count = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        assert action != self.count % 4, "an illegal action"
        self.count += 1
        return self.observe(), float(action == 3), False, self.count == 6, {}

    def observe(self) -> Any:
        mask = np.ones(4, np.int8)
        mask[self.count % 4] = 0
        return {"action_mask": mask, "position": np.array([self.count / 6])}


class Failing(gymnasium.Env[Any, Any]):
    """Turns bad at a step: `what` is "observation" or "reward" (NaN), "huge_reward", "final_observation" or "reset"."""

    def __init__(self, what: str, at: int = 40) -> None:
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.what, self.at, self.total, self.count = what, at, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        if self.what == "reset":
            raise RuntimeError("the simulator did not start")
        self.count = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.total, self.count = self.total + 1, self.count + 1
        observation, reward, cut = np.zeros(2, np.float32), 1.0, self.count == 10
        if self.total >= self.at:
            if self.what == "observation" or (self.what == "final_observation" and cut):
                observation[1] = np.nan
            if self.what == "reward":
                reward = np.nan
            if self.what == "huge_reward":
                reward = 1e300
        return observation, reward, False, cut, {}


class CoinFlip(gymnasium.Env[Any, Any]):
    """An episode is short and pays 1, or long and pays 0: each half of the time."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 1, (1,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.short, self.count = bool(self.np_random.integers(2)), 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        over = self.count == (1 if self.short else 20)
        return np.zeros(1, np.float32), float(over and self.short), over, False, {}


class Memory(gymnasium.Env[Any, Any]):
    """Shows a bit once, then pays 1 for repeating it three times: only a policy with memory can know it."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.bit, self.count = int(self.np_random.integers(2)), 0
        return np.array([2.0 * self.bit - 1], np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return np.zeros(1, np.float32), float(action == self.bit), self.count == 3, False, {}


for environment in (Scripted, AnySpaces, MaskedObservation, Failing, CoinFlip, Memory):
    gymnasium.register(f"toy/{environment.__name__}-v0", entry_point=environment)


NUMBERS, CHOICE = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(3)
SPACES = {
    "scalar observation": (spaces.Box(-1, 1, (), np.float32), CHOICE),
    "matrix observation": (spaces.Box(-1, 1, (2, 3), np.float32), CHOICE),
    "double precision": (spaces.Box(-1, 1, (3,), np.float64), spaces.Box(-1, 1, (2,), np.float64)),
    "discrete observation": (spaces.Discrete(4, start=2), spaces.Discrete(3, start=-1)),
    "multi-discrete observation": (spaces.MultiDiscrete([[3, 2], [2, 2]]), CHOICE),
    "multi-binary observation": (spaces.MultiBinary(3), CHOICE),
    "small image": (spaces.Box(0, 255, (8, 8, 3), np.uint8), CHOICE),
    "image": (spaces.Box(0, 255, (40, 36, 3), np.uint8), CHOICE),
    "nested": (
        spaces.Dict(a=NUMBERS, b=CHOICE, c=spaces.Tuple([spaces.MultiBinary(2), spaces.Box(0, 255, (1, 36, 36), np.uint8)])),
        CHOICE,
    ),
    "tuple": (spaces.Tuple([NUMBERS, CHOICE]), CHOICE),
    "multi-discrete action": (NUMBERS, spaces.MultiDiscrete([[3, 2], [2, 3]], start=[[1, 1], [0, 0]])),
    "small integers": (NUMBERS, spaces.MultiDiscrete([3, 2], dtype=np.int32)),
    "multi-binary action": (NUMBERS, spaces.MultiBinary((2, 2))),
    "box action": (NUMBERS, spaces.Box(-1, 1, (2, 2), np.float32)),
    "scalar action": (NUMBERS, spaces.Box(-1, 1, (), np.float32)),
}  # fmt: skip
"""Observation and action spaces of every kind that the agents handle."""


def vector_of(mode: str, *envs: gymnasium.Env[Any, Any]) -> SerialVectorEnv:
    """A vector environment of these very environments."""
    return SerialVectorEnv([lambda env=env: env for env in envs], MODES[mode])


def policy_for(env: Any, **config: Any) -> ActorCritic:
    """A small policy for a vector environment, with weights large enough for values to differ."""
    policy = ActorCritic(
        env.single_observation_space, env.single_action_space,
        PolicyConfig(**{"hidden_sizes": (8,), "recurrent_size": 8, **config}), seed=3,
    )  # fmt: skip
    return policy


def constant_critic(policy: ActorCritic, value: float) -> None:
    """Make the critic say `value` of everything."""
    with torch.no_grad():
        policy.critic_parameters().zero_()
        list(policy.module.critic.parameters())[-1].fill_(value)


def values_along(policy: ActorCritic, observations: Sequence[Any]) -> list[float]:
    """The critic's values of one whole episode's observations, from its first."""
    stacked = torch.from_numpy(np.stack(observations))
    shape = (1, len(observations)) if policy.rows else (len(observations),)
    batch = Batch(
        observations=stacked.view(*shape, *stacked.shape[1:]),
        actions=torch.zeros(shape, dtype=torch.int64),
        valid=torch.ones(shape, dtype=torch.bool),
        starts=torch.zeros(shape, dtype=torch.bool) if policy.rows else None,
        hidden=policy.initial_hidden(1),
    )
    with torch.no_grad():
        values: list[float] = policy.value(batch).flatten().tolist()
    return values


def remember(policy: ActorCritic) -> None:
    """Set a recurrent core of one unit so that its state takes the sign of the last input that was not 0."""
    weights = dict(policy.module.named_parameters())
    with torch.no_grad():
        policy.flat.zero_()
        core = {name.rsplit(".", 1)[1]: weight for name, weight in weights.items() if ".core." in name}
        if len(core["weight_ih_l0"]) == 4:  # LSTM's gates: input, forget, cell, output
            core["bias_ih_l0"].copy_(torch.tensor([9.0, 9.0, 0.0, 9.0]))
            core["weight_ih_l0"].copy_(torch.tensor([[0.0], [0.0], [9.0], [0.0]]))
        else:  # GRU's gates: reset, update, new
            core["weight_ih_l0"].copy_(torch.tensor([[0.0], [0.0], [9.0]]))
            core["weight_hh_l0"].copy_(torch.tensor([[0.0], [0.0], [9.0]]))
            core["bias_ih_l0"].copy_(torch.tensor([9.0, 0.0, 0.0]))
        weights["actor.0.weight"].copy_(torch.tensor([[-5.0], [5.0]]))
