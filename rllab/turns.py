"""Own steps: what rows did that act only in their turn, told as if each had been alone with its environment.

In a game of several players a step of the vector environment, a *tick* here, is a step of those rows alone whose
players act. A row's own step goes from one of its turns to its next, or to the end of its game: its reward is the sum
of all that the row received meanwhile, such as for what the opponent's answer brought, and its next observation is that
of the next turn.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllab.nested import Nested, map_nested

Final = tuple[int, int, Nested, Tensor | None]
"""Row, column, the true last observation of a cut episode, and the recurrent state that led to it."""


@dataclass(frozen=True)
class Acted:
    """What a collector wrote while it acted: T columns of N rows."""

    observations: Nested
    """Tensors `[N, T + 1, *obs]`."""
    actions: NDArray[Any]
    """`[N, T, *act]`"""
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    """`[N, T]`"""
    masks: NDArray[np.bool_] | None
    """`[N, T + 1, A]`"""
    finals: list[Final]
    lasts: list[tuple[int, int, Nested]]
    """Row, column and the last observation of every ended episode, where they were asked for."""

    @property
    def done(self) -> NDArray[np.bool_]:
        """Where an episode ended, `[N, T]`."""
        return self.terminated | self.truncated


class Turns:
    """Whose turn it was, tick by tick, until one row has had as many steps as a rollout has columns."""

    def __init__(self, acting: NDArray[np.bool_], steps: int, players: int) -> None:
        """Begin a rollout.

        Args:
            acting: bool `[N]`, the rows that act first.
            steps: T, columns of a rollout.
            players: of one game, of whom at least one acts at each tick.
        """
        self.steps, self.most = steps, steps * players
        """Ticks at most: by then one player of each game has acted `steps` times and is to act again."""
        self.acting = np.zeros((len(acting), self.most + 1), bool)
        """Bool `[N, ticks + 1]`, filled as far as `ticks`."""
        self.acting[:, 0] = acting
        self.ticks = 0
        self._taken = acting.astype(int)

    def note(self, acting: NDArray[np.bool_]) -> bool:
        """Take in who acts after a tick; whether the rollout is full."""
        self.ticks += 1
        self.acting[:, self.ticks] = acting
        self._taken += acting
        return bool(self._taken.max() > self.steps)

    @property
    def own(self) -> NDArray[np.bool_]:
        """Which ticks were a row's own, bool `[N, ticks]`."""
        return self.acting[:, : self.ticks]

    def own_steps(
        self, acted: Acted, fresh: NDArray[np.bool_]
    ) -> tuple[Acted, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """The ticks as each row's own steps, from the left; the columns to the right of a row's last one do not exist.

        A step that is still under way at the last tick does not exist either: what it will bring is not known. Its
        observation is the next one of the step before it, and its reward still counts in the episode's return.

        Args:
            acted: in ticks.
            fresh: bool `[N]`, rows whose next turn begins an episode.

        Returns:
            `acted` in own steps; which of them exist, bool `[N, T]`; which of the T + 1 observations begin an episode;
            and `fresh` for the next rollout.
        """
        rows, ticks = acted.rewards.shape
        acting, done = self.acting[:, : ticks + 1], acted.done
        under_way, begins = np.zeros((rows, ticks), bool), np.zeros((rows, ticks + 1), bool)
        going = np.zeros(rows, bool)
        for t in range(ticks):
            begins[:, t] = fresh
            going = going | acting[:, t]
            under_way[:, t] = going
            going = going & ~done[:, t]
            fresh = fresh & ~acting[:, t] | done[:, t]
        begins[:, ticks] = fresh

        index = np.cumsum(acting, axis=1) - 1
        """The own column of each tick's step."""
        turn_rows, turn_ticks = np.nonzero(acting)
        turn_columns = index[turn_rows, turn_ticks]
        columns = np.zeros((rows, self.steps + 1), int)
        columns[turn_rows, turn_columns] = turn_ticks
        columns = np.maximum.accumulate(columns, axis=1)  # to the right of its last turn a row repeats it
        starts = np.zeros((rows, self.steps + 1), bool)
        starts[turn_rows, turn_columns] = begins[turn_rows, turn_ticks]

        step_rows, step_ticks = np.nonzero(under_way)
        step = step_rows, index[step_rows, step_ticks]
        rewards = np.zeros((rows, self.steps))
        terminated, truncated = np.zeros(rewards.shape, bool), np.zeros(rewards.shape, bool)
        np.add.at(rewards, step, acted.rewards[step_rows, step_ticks])
        np.logical_or.at(terminated, step, acted.terminated[step_rows, step_ticks])
        np.logical_or.at(truncated, step, acted.truncated[step_rows, step_ticks])
        valid = terminated | truncated | (np.arange(1, self.steps + 1) < acting.sum(1)[:, None])

        row = np.arange(rows)[:, None]
        place = torch.from_numpy(row), torch.from_numpy(columns)
        own = replace(
            acted,
            observations=map_nested(lambda leaf: leaf[place], acted.observations),
            actions=acted.actions[row, np.minimum(columns[:, :-1], ticks - 1)],
            rewards=rewards,
            terminated=terminated,
            truncated=truncated,
            masks=None if acted.masks is None else acted.masks[row, columns],
            finals=[(n, int(index[n, t]), *rest) for n, t, *rest in acted.finals if under_way[n, t]],
            lasts=[(n, int(index[n, t]), last) for n, t, last in acted.lasts if under_way[n, t]],
        )
        return own, valid, starts, fresh


def advance(before: Tensor | None, after: Tensor | None, acting: NDArray[np.bool_] | None) -> Tensor | None:
    """Recurrent state `[N, S]` after a step: a row that waits keeps its own. `acting`: bool `[N]`; None: all act."""
    if before is None or after is None or acting is None:
        return after
    return torch.where(torch.from_numpy(acting).unsqueeze(1), after, before)
