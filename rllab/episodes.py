"""Episodes as people count them: raw returns and lengths, across the borders of rollouts."""

import math
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray


class EpisodeRecorder:
    """Adds up rewards row by row and remembers the last episodes that ended."""

    def __init__(self, num_rows: int, window: int = 100) -> None:
        """`window`: over how many episodes `means` are taken (100 as in the field's learning curves)."""
        self._return = np.zeros(num_rows)
        self._length = np.zeros(num_rows, np.int64)
        self._recent_returns: deque[float] = deque(maxlen=window)
        self._recent_lengths: deque[int] = deque(maxlen=window)

    def record(
        self, rewards: NDArray[np.float64], done: NDArray[np.bool_], valid: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Take in the next columns, each `[N, T]`; returns and lengths of the episodes that ended, in time order."""
        totals = np.cumsum(rewards * valid, axis=1) + self._return[:, None]
        counts = np.cumsum(valid, axis=1) + self._length[:, None]
        columns, rows = np.nonzero(done.T)
        returns, lengths = np.empty(len(rows)), np.empty(len(rows), np.int64)
        earlier_return, earlier_length = np.zeros(len(totals)), np.zeros(len(totals), np.int64)
        for i, (t, n) in enumerate(zip(columns, rows, strict=True)):
            returns[i], lengths[i] = totals[n, t] - earlier_return[n], counts[n, t] - earlier_length[n]
            earlier_return[n], earlier_length[n] = totals[n, t], counts[n, t]
        self._return, self._length = totals[:, -1] - earlier_return, counts[:, -1] - earlier_length
        self._recent_returns.extend(returns.tolist())
        self._recent_lengths.extend(lengths.tolist())
        return returns, lengths

    def forget(self, row: int) -> None:
        """Drop the episode under way in a row."""
        self._return[row], self._length[row] = 0.0, 0

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
            "recent_returns": list(self._recent_returns),
            "recent_lengths": list(self._recent_lengths),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._return, self._length = np.array(state["return"]), np.array(state["length"])
        self._recent_returns.extend(state["recent_returns"])
        self._recent_lengths.extend(state["recent_lengths"])
