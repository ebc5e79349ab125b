"""State entropy as an intrinsic reward: what an agent explores for before anybody has been asked anything.

Lee, Smith, Abbeel 2021 ("PEBBLE: Feedback-efficient interactive reinforcement learning via relabeling experience and
unsupervised pre-training"), section 4.1: the particle-based estimate of the entropy of visited states (equation 4)
rises with the distance of each from its k-th nearest neighbour, so the reward of a state is the logarithm of that
distance (equation 5), divided by a running estimate of its standard deviation.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from envs.normalise import RunningMoments

NEIGHBOURS = 5
"""k, as in the configuration that B-Pref (Lee et al. 2021) published for PEBBLE."""
SMALLEST_DISTANCE = 1e-6
"""States that are nearer than this count as this far apart: the logarithm of 0 would be no reward."""
_CHUNK = 2**22
"""Distances computed at a time."""


def neighbour_distances(points: NDArray[Any], among: NDArray[Any], neighbours: int = NEIGHBOURS) -> NDArray[np.float64]:
    """Each point's Euclidean distance to its k-th nearest neighbour.

    Args:
        points: `[P, D]`, every one of which is among the others once.
        among: `[M, D]`.
        neighbours: k; where there are fewer others, the farthest of them counts.

    Returns:
        `[P]`; 0 where there is no other.
    """
    points, among = np.asarray(points, np.float64), np.asarray(among, np.float64)
    rank = min(neighbours, len(among) - 1)  # the nearest of all, at rank 0, is the point itself
    centre = among.mean(axis=0)  # products of large coordinates would lose the digits of small differences
    centred, squares = among - centre, np.square(among - centre).sum(axis=1)
    distances = np.empty(len(points))
    chunk = max(1, _CHUNK // len(among))
    for start in range(0, len(points), chunk):
        piece = points[start : start + chunk]
        # ‖a − b‖² − ‖a‖², which is in the same order as the distances.
        order = squares - 2 * (piece - centre) @ centred.T
        chosen = np.argpartition(order, rank, axis=1)[:, rank]
        distances[start : start + chunk] = np.linalg.norm(piece - among[chosen], axis=1)
    return distances


class StateEntropy:
    """Intrinsic rewards of states, among all that have been visited."""

    def __init__(self, neighbours: int = NEIGHBOURS) -> None:
        """`neighbours`: k. Raises RllabError if it is below 1."""
        if neighbours < 1:
            raise RllabError(f"entropy_neighbours must be at least 1, not {neighbours}")
        self.neighbours = neighbours
        self.moments = RunningMoments((1,))

    def rewards(self, states: NDArray[Any], visited: NDArray[Any], *, observe: bool = True) -> NDArray[np.float32]:
        """log ‖s − s⁽ᵏ⁾‖ over its running standard deviation, `[P]`.

        Args:
            states: `[P, D]`.
            visited: `[M, D]`, those of `states` among them.
            observe: let the running deviation see these rewards; not, where they are computed once more.
        """
        distances = neighbour_distances(states, visited, self.neighbours)
        logarithms = np.log(np.maximum(distances, SMALLEST_DISTANCE))
        if observe:
            self.moments.update(logarithms[:, None])
        deviation = float(np.sqrt(self.moments.variance[0]))
        rewards: NDArray[np.float32] = (logarithms / max(deviation, 1e-8)).astype(np.float32)
        return rewards

    def state_dict(self) -> dict[str, Any]:
        """The running moments."""
        return {"moments": self.moments.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.moments.load_state_dict(state["moments"])
