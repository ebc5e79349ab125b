"""One PettingZoo game, whether its players act at once or in turns, and the same game against players at random.

Both kinds tell the same after each step: who acts next, what they see, what each received, whose game has ended.
"""

import copy
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import gymnasium
import numpy as np

Player = Any
"""PettingZoo's name of an agent, mostly a string."""


@dataclass
class Moment:
    """A game between two steps."""

    acting: list[Player] = field(default_factory=list)
    """Whose actions the next step takes; nobody's: the game is over."""
    observations: dict[Player, Any] = field(default_factory=dict)
    """What those see who act next and those whose game has just ended; after a reset everyone."""
    rewards: dict[Player, float] = field(default_factory=dict)
    """What players received since they acted last, told when they are to act again or their game ends."""
    terminated: set[Player] = field(default_factory=set)
    truncated: set[Player] = field(default_factory=set)
    """Whose game has just ended."""
    masks: dict[Player, Any] = field(default_factory=dict)
    """Legal actions, where the infos say them."""


class Game(Protocol):
    """A game with its rules: the same seed, number and actions give the same moments."""

    env: Any
    """PettingZoo's environment."""
    players: list[Player]
    """All that may take part."""
    takes_turns: bool
    """Whether they act one after another."""

    def reset(self, seed: int, number: int) -> Moment:
        """Begin; `number` counts the games."""

    def step(self, actions: Mapping[Player, Any]) -> Moment:
        """Go on with an action of each player that acts."""

    def cut(self, moment: Moment) -> Moment:
        """The same moment with the game truncated for everyone who still plays."""


class SimultaneousGame:
    """Players act at once (PettingZoo's ParallelEnv); some may be out before others."""

    takes_turns = False

    def __init__(self, env: Any) -> None:
        self.env = env
        self.players = list(env.possible_agents)

    def reset(self, seed: int, number: int) -> Moment:
        observations, infos = self.env.reset(seed=seed)
        return Moment(list(self.env.agents), dict(observations), masks=_masks(infos))

    def step(self, actions: Mapping[Player, Any]) -> Moment:
        observations, rewards, terminations, truncations, infos = self.env.step(dict(actions))
        terminated = {player for player, ended in terminations.items() if ended}
        truncated = {player for player, ended in truncations.items() if ended}
        acting = [player for player in self.env.agents if player not in terminated | truncated]
        return Moment(acting, dict(observations), dict(rewards), terminated, truncated, _masks(infos))

    def cut(self, moment: Moment) -> Moment:
        moment.truncated |= set(moment.acting)
        moment.acting = []
        return moment


class TurnGame:
    """Players act in turns (PettingZoo's AECEnv)."""

    takes_turns = True

    def __init__(self, env: Any) -> None:
        self.env = env
        self.players = list(env.possible_agents)

    def reset(self, seed: int, number: int) -> Moment:
        self.env.reset(seed=seed)
        return self._next_turn({player: self.env.observe(player) for player in self.env.agents})

    def step(self, actions: Mapping[Player, Any]) -> Moment:
        self.env.step(actions[self.env.agent_selection])
        return self._next_turn({})

    def _next_turn(self, observations: dict[Player, Any]) -> Moment:
        """On to the next player that can act; those whose game has ended take their leave on the way."""
        moment = Moment(observations=observations)
        while self.env.agents:
            player = self.env.agent_selection
            observation, reward, terminated, truncated, info = self.env.last()
            moment.observations[player], moment.rewards[player] = observation, reward
            if not (terminated or truncated):
                moment.acting = [player]
                moment.masks = _masks({player: info})
                break
            if terminated:
                moment.terminated.add(player)
            if truncated:
                moment.truncated.add(player)
            self.env.step(None)
        return moment

    def cut(self, moment: Moment) -> Moment:
        for player in self.env.agents:
            moment.truncated.add(player)
            if player not in moment.acting:
                moment.observations[player] = self.env.observe(player)
                moment.rewards[player] = self.env._cumulative_rewards[player]
        moment.acting = []
        return moment


class AgainstRandom:
    """A game for one player, the learner; all others choose uniformly among the legal actions.

    It takes the next seat in every game. What it receives is all that its seat did between its actions.
    """

    def __init__(self, game: Game) -> None:
        self.game, self.env, self.takes_turns = game, game.env, game.takes_turns
        self.players = ["learner"]
        self._spaces = copy.deepcopy(spaces_of(game.env, "action"))
        self._owed = 0.0
        """What the learner received before its first turn, which no step of its own brought; told with its first."""

    def reset(self, seed: int, number: int) -> Moment:
        self.seat = self.game.players[number % len(self.game.players)]
        # The game has the same seed: its own random numbers must not be those by which its players choose.
        streams = np.random.SeedSequence([seed, 1]).generate_state(len(self._spaces))
        for space, stream in zip(self._spaces.values(), streams, strict=True):
            space.seed(int(stream))
        moment = self.game.reset(seed, number)
        self._owed = 0.0
        mine = self._until_its_turn(moment)
        self._owed = mine.rewards["learner"]
        # It may be that nothing is to be seen of its own, in a game that was over before it could act.
        if self.seat in moment.observations:
            mine.observations.setdefault("learner", moment.observations[self.seat])
        return mine

    def step(self, actions: Mapping[Player, Any]) -> Moment:
        return self._until_its_turn(self.game.step(self._actions(actions["learner"])))

    def _until_its_turn(self, moment: Moment) -> Moment:
        received, self._owed = self._owed + moment.rewards.get(self.seat, 0.0), 0.0
        while moment.acting and not {self.seat} & ({*moment.acting} | moment.terminated | moment.truncated):
            self._moment = moment
            moment = self.game.step(self._actions())
            received += moment.rewards.get(self.seat, 0.0)
        self._moment = moment
        return self._of_the_learner(moment, received)

    def _of_the_learner(self, moment: Moment, received: float) -> Moment:
        def mine(players: Iterable[Player]) -> list[Player]:
            return ["learner" for player in players if player == self.seat]

        def its(values: dict[Player, Any]) -> dict[Player, Any]:
            return {"learner": values[self.seat]} if self.seat in values else {}

        return Moment(
            mine(moment.acting), its(moment.observations), {"learner": received}, set(mine(moment.terminated)),
            set(mine(moment.truncated)), its(moment.masks),
        )  # fmt: skip

    def _actions(self, own: Any = None) -> dict[Player, Any]:
        """An action of each player that acts now, in the game's own order; `own` is the learner's."""
        actions = {}
        for player in self._moment.acting:
            if player == self.seat:
                actions[player] = own
                continue
            observation = self._moment.observations[player]
            mask = observation.get("action_mask") if isinstance(observation, Mapping) else None
            mask = self._moment.masks.get(player) if mask is None else mask
            actions[player] = self._spaces[player].sample(mask=None if mask is None else _as_gymnasium(mask))
        return actions

    def cut(self, moment: Moment) -> Moment:
        return self._of_the_learner(self.game.cut(self._moment), moment.rewards["learner"])


def spaces_of(env: Any, what: Literal["observation", "action"]) -> dict[Player, gymnasium.Space[Any]]:
    """Each player's space."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PettingZoo's advice to authors who have dicts of spaces
        return {player: getattr(env, f"{what}_space")(player) for player in env.possible_agents}


def _masks(infos: Mapping[Player, Any]) -> dict[Player, Any]:
    return {player: info["action_mask"] for player, info in infos.items() if "action_mask" in info}


def _as_gymnasium(mask: Any) -> Any:
    """A mask in the type that Gymnasium's spaces take."""
    return tuple(map(_as_gymnasium, mask)) if isinstance(mask, tuple) else mask.astype("int8")
