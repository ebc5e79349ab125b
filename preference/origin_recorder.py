"""What it takes to draw a clip later: the environments as they were before each rollout, and what was done from there.

Training steps environments that draw nothing. A snapshot of them costs little, and pictures much: so snapshots are kept
of the last rollouts, for as long as a clip that may be asked about reaches back to them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.errors import RllabError
from envs.snapshot import capture
from preference.comparisons import Clip
from preference.origins import Origin
from rllab.collect import EnvCollector
from rllab.policies.actor_critic import ActorCritic
from rllab.rollout import Rollout


@dataclass(frozen=True)
class Beginning:
    """The environments before a rollout, and what was done in it."""

    column: int
    """The rollout's first, counted from the start of the run."""
    snapshot: Mapping[str, Any]
    """`envs.snapshot.capture`'s."""
    actions: NDArray[Any]
    """`[N, T, *act]` as the environments got them."""


class OriginRecorder:
    """Knows where the clips of the last rollouts come from.

    Attributes:
        reach: gives the first column that is still needed; what lies before it is let go.
    """

    def __init__(self, env: EnvConfig, reach: Callable[[], int] | None = None) -> None:
        """`env`: whose clips these are; `reach`: None keeps everything."""
        self.env, self.reach = env, reach
        self._beginnings: list[Beginning] = []
        self._columns = 0

    def record(self, snapshot: Mapping[str, Any], actions: NDArray[Any]) -> None:
        """Take in a rollout: the snapshot from before it, and its actions `[N, T, *act]` as the environments got them.

        Raises:
            RllabError: the snapshot says nothing, as EnvPool's do.
        """
        if snapshot.get("native", ...) is None:
            raise RllabError(
                f"clips of '{self.env.id}' cannot be drawn, since its environments take no snapshots: use "
                "--vectorization sync"
            )
        if self.reach is not None:
            needed = self.reach()
            self._beginnings = [kept for kept in self._beginnings if kept.column + kept.actions.shape[1] > needed]
        self._beginnings.append(Beginning(self._columns, snapshot, actions))
        self._columns += actions.shape[1]

    def origin(self, clip: Clip) -> Origin:
        """Where a clip comes from, by its details.

        Raises:
            RllabError: it is not of the rollouts that are remembered.
        """
        column, row = clip.details.get("column", -1), clip.details.get("row")
        before = [number for number, kept in enumerate(self._beginnings) if kept.column <= column]
        if row is None or not before or column >= self._columns:
            raise RllabError(f"clip {clip.id} cannot be drawn: where it was cut is not remembered any more")
        played = self._beginnings[before[-1] :]
        actions = np.concatenate([kept.actions for kept in played], axis=1)
        first = column - played[0].column
        return Origin.of(self.env, played[0].snapshot, actions, row, first, clip.length)

    def state_dict(self) -> dict[str, Any]:
        """All that is remembered."""
        return {"beginnings": [vars(kept) for kept in self._beginnings], "columns": self._columns}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._beginnings = [Beginning(**kept) for kept in state["beginnings"]]
        self._columns = state["columns"]


class RecordedCollector:
    """A collector whose rollouts an `OriginRecorder` hears of."""

    def __init__(self, collector: EnvCollector, recorder: OriginRecorder) -> None:
        """`collector` steps the environments."""
        self.collector, self.recorder = collector, recorder
        self.num_rows = collector.num_rows

    def collect(self, policy: ActorCritic) -> Rollout:
        """The next rollout."""
        snapshot = capture(self.collector.env)
        rollout = self.collector.collect(policy)
        actions = rollout.actions.cpu().numpy()
        family, steps = self.collector.family, actions.reshape(-1, *actions.shape[2:])
        done = family.to_environment(steps)
        self.recorder.record(snapshot, done.reshape(*actions.shape[:2], *done.shape[1:]))
        return rollout

    def recent(self) -> dict[str, float]:
        """Means over recent episodes."""
        return self.collector.recent()

    def state_dict(self) -> dict[str, Any]:
        """The collector's state, and what is remembered."""
        return {"collector": self.collector.state_dict(), "recorder": self.recorder.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> list[str]:
        """Take over what `state_dict` gave; what cannot be restored exactly, in sentences."""
        self.recorder.load_state_dict(state["recorder"])
        return self.collector.load_state_dict(state["collector"])

    def close(self) -> None:
        """Close the environments."""
        self.collector.close()
