"""Episodes as people count them: raw returns and lengths, across the borders of rollouts."""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.termination import HIDDEN_END


class EpisodeEnds:
    """What the environments' infos say, column by column, of ends that differ from those the agent sees."""

    def __init__(self) -> None:
        self._over: dict[int, NDArray[np.bool_]] = {}
        self._hidden: dict[int, NDArray[np.bool_]] = {}

    def note(self, column: int, infos: Mapping[str, Any]) -> None:
        """Take in the infos of a step of all environments."""
        if "episode_over" in infos:
            self._over[column] = infos["episode_over"]
        if HIDDEN_END in infos:
            self._hidden[column] = infos[HIDDEN_END]

    def over(self, done: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Of the agent's ends `[N, T]` those that end a whole game: where a lost life ends an episode, not all do."""
        over = done.copy()
        for column, ends in self._over.items():
            over[:, column] = ends
        return over

    def hidden(self, done: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        """The ends `[N, T]` that the agent does not see; None without any."""
        if not self._hidden:
            return None
        hidden = np.zeros_like(done)
        for column, ends in self._hidden.items():
            hidden[:, column] = ends
        return hidden


class EpisodeRecorder:
    """Adds up rewards row by row and remembers the last episodes that ended.

    Where ends are hidden from the agent, games are counted by them: an episode in which one ended says nothing at its
    own end, since what came last was no game, or one that was cut before its time.
    """

    def __init__(self, num_rows: int, window: int = 100) -> None:
        """`window`: over how many episodes `means` are taken (100 as in the field's learning curves)."""
        self._return = np.zeros(num_rows)
        self._length = np.zeros(num_rows, np.int64)
        self._counted = np.zeros(num_rows, bool)
        """Whether an end was hidden in the episode under way."""
        self._recent_returns: deque[float] = deque(maxlen=window)
        self._recent_lengths: deque[int] = deque(maxlen=window)

    def record(
        self,
        rewards: NDArray[np.float64],
        done: NDArray[np.bool_],
        valid: NDArray[np.bool_],
        hidden: NDArray[np.bool_] | None = None,
        acted: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Take in the next columns.

        Args:
            rewards: `[N, T]`.
            done: bool `[N, T]`, where an episode ended.
            valid: bool `[N, T]`, which steps exist.
            hidden: bool `[N, T]`, where an end was hidden from the agent; None: nowhere.
            acted: bool `[N, T]`, which steps a row's length counts: in a game its own; None: all that exist.

        Returns:
            Returns and lengths of the episodes or games that ended, in time order.
        """
        totals = np.cumsum(rewards * valid, axis=1) + self._return[:, None]
        counts = np.cumsum(valid if acted is None else acted, axis=1) + self._length[:, None]
        columns, rows = np.nonzero((done if hidden is None else done | hidden).T)
        returns, lengths, told = np.empty(len(rows)), np.empty(len(rows), np.int64), np.ones(len(rows), bool)
        earlier_return, earlier_length = np.zeros(len(totals)), np.zeros(len(totals), np.int64)
        for i, (t, n) in enumerate(zip(columns, rows, strict=True)):
            returns[i], lengths[i] = totals[n, t] - earlier_return[n], counts[n, t] - earlier_length[n]
            earlier_return[n], earlier_length[n] = totals[n, t], counts[n, t]
            kept_back = hidden is not None and bool(hidden[n, t])
            told[i] = kept_back or not self._counted[n]
            self._counted[n] = (kept_back or self._counted[n]) and not done[n, t]
        returns, lengths = returns[told], lengths[told]
        self._return, self._length = totals[:, -1] - earlier_return, counts[:, -1] - earlier_length
        self._recent_returns.extend(returns.tolist())
        self._recent_lengths.extend(lengths.tolist())
        return returns, lengths

    def forget(self, row: int) -> None:
        """Drop the episode under way in a row."""
        self._return[row], self._length[row], self._counted[row] = 0.0, 0, False

    def means(self) -> dict[str, float]:
        """`return_mean` and `length_mean` of the last episodes; NaN before the first has ended."""
        if not self._recent_returns:
            return {"return_mean": math.nan, "length_mean": math.nan}
        return {
            "return_mean": sum(self._recent_returns) / len(self._recent_returns),
            "length_mean": sum(self._recent_lengths) / len(self._recent_lengths),
        }

    def state_dict(self) -> dict[str, Any]:
        """Running totals and the window."""
        return {
            "return": self._return,
            "length": self._length,
            "counted": self._counted,
            "recent_returns": list(self._recent_returns),
            "recent_lengths": list(self._recent_lengths),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._return, self._length = np.array(state["return"]), np.array(state["length"])
        self._counted = np.array(state.get("counted", np.zeros(len(self._return))), bool)
        self._recent_returns.extend(state["recent_returns"])
        self._recent_lengths.extend(state["recent_lengths"])
