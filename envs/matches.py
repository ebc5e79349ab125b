"""A copy of a PettingZoo game with all that repeats it: seeds, and what was done since the game began.

Every game has a seed of its own. So a game is a function of its seed, its number and its actions, whatever random
generators it has, and is restored by playing it again. (Games that ignore their seed do not arrive where they had been,
which is noticed.)
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from envs.buffers import iterate_rows
from envs.games import Game, Moment
from envs.plain_data import make_generator


class Match:
    """One copy: game after game.

    Attributes:
        players: all that may take part, in the order of the rows.
        seed: of the game that is being played; None before the first.
        over: whether the game is.
        generator: where the games' seeds come from.
    """

    def __init__(self, game: Game, max_steps: int | None = None) -> None:
        """`max_steps`: games are truncated after so many steps; None: never."""
        self.game, self.players = game, game.players
        self.generator = np.random.default_rng()
        self.seed: int | None = None
        self.over = True
        self._next = 0
        self._max_steps = max_steps
        self._acting: list[Any] = []
        self._actions: list[Any] = []

    def restart(self, generator: np.random.Generator, number: int) -> None:
        """Take the next games' seeds from here, and count them from `number`."""
        self.generator, self._next = generator, number

    def begin(self) -> Moment:
        """The next game."""
        return self._begin(int(self.generator.integers(2**31)), self._next)

    def _begin(self, seed: int, number: int) -> Moment:
        self.seed, self._next, self._actions = seed, number + 1, []
        return self._see(self.game.reset(seed, number))

    def step(self, actions: Any) -> Moment:
        """Go on with the actions `[P, *act]` of the players that act; those of the others are not looked at."""
        self._actions.append(actions)
        acted = dict(zip(self.players, iterate_rows(actions), strict=True))
        moment = self.game.step({player: acted[player] for player in self._acting})
        if moment.acting and self._max_steps is not None and len(self._actions) >= self._max_steps:
            moment = self.game.cut(moment)
        return self._see(moment)

    def _see(self, moment: Moment) -> Moment:
        self._acting, self.over = moment.acting, not moment.acting
        return moment

    def snapshot(self) -> dict[str, Any]:
        """What `replay` needs, as plain data."""
        return {
            "generator": self.generator.bit_generator.state,
            "seed": self.seed,
            "number": self._next - 1,
            "actions": np.array(self._actions) if self._actions else None,
        }

    def replay(self, snapshot: dict[str, Any]) -> Iterator[Moment]:
        """Play the snapshot's game again, moment by moment."""
        self.restart(make_generator(snapshot["generator"]), snapshot["number"])
        yield self._begin(snapshot["seed"], snapshot["number"])
        for actions in () if snapshot["actions"] is None else snapshot["actions"]:
            yield self.step(actions)
