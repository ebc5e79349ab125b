"""Running statistics: observations brought to mean 0 and deviation 1, rewards to a common scale.

Follows the continuous-control details of Huang et al., "The 37 Implementation Details of Proximal Policy
Optimization" (2022), and for rewards Engstrom et al., "Implementation Matters in Deep RL" (2020, section 2).
Both are part of a policy's saved state and are frozen in evaluation.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from envs.errors import RllabError


class RunningMoments:
    """Mean and population variance of everything seen so far, whatever the batches it came in.

    Before the first update the mean is 0 and the variance 1, so that normalising only clips.

    Attributes:
        mean: `[*shape]`, updated in place: views of it stay valid.
        variance: `[*shape]`, updated in place.
        count: how many samples the moments stand on.
    """

    def __init__(self, shape: tuple[int, ...] = (), dtype: DTypeLike = np.float64) -> None:
        self.mean: NDArray[Any] = np.zeros(shape, dtype)
        self.variance: NDArray[Any] = np.ones(shape, dtype)
        self.count = 0

    def update(self, batch: ArrayLike, valid: ArrayLike | None = None) -> None:
        """Takes a batch in, by the parallel merge of Chan, Golub and LeVeque (1979).

        Args:
            batch: `[..., *shape]`, any number of leading axes.
            valid: bool over the leading axes; samples where it is False are left out. None takes all.
        """
        shape = self.mean.shape
        batch = np.asarray(batch)
        samples = batch.reshape(-1, *shape)
        if valid is not None:
            samples = samples[np.broadcast_to(valid, batch.shape[: batch.ndim - len(shape)]).reshape(-1)]
        added = len(samples)
        if added == 0:
            return
        batch_mean = samples.mean(axis=0, dtype=self.mean.dtype)
        batch_variance = np.square(samples - batch_mean).mean(axis=0)
        total = self.count + added
        shift = batch_mean - self.mean
        self.variance *= self.count / total
        self.variance += batch_variance * (added / total)
        self.variance += np.square(shift) * (self.count / total) * (added / total)
        self.mean += shift * (added / total)
        self.count = total

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copies of mean, variance and count, all NumPy arrays."""
        return {
            "mean": self.mean.copy(),
            "variance": self.variance.copy(),
            "count": np.array(self.count, np.int64),
        }

    def load_state_dict(self, state: dict[str, NDArray[Any]]) -> None:
        """Takes over what `state_dict` gave, in place.

        Raises:
            RllabError: the saved moments are of another shape.
        """
        if np.shape(state["mean"]) != self.mean.shape:
            raise RllabError(f"Saved moments of shape {np.shape(state['mean'])} do not fit shape {self.mean.shape}.")
        self.mean[...] = state["mean"]
        self.variance[...] = state["variance"]
        self.count = int(state["count"])


class RewardScaling:
    """Divides rewards by the running standard deviation of the discounted return, `R_t = γ·R_{t−1} + r_t`.

    The mean is not taken off: that would change which behaviour is optimal. `R` starts again at 0 with every
    episode, and is carried over from call to call, so a row must stay the same environment.

    Args:
        num_rows: N, the environments side by side.
        discount: γ, the agent's own.
        clip: largest magnitude of a scaled reward; 10 as in the 37 details.
        epsilon: keeps a constant return from being divided by 0.
    """

    def __init__(self, num_rows: int, discount: float, clip: float = 10.0, epsilon: float = 1e-8) -> None:
        self.discount = discount
        self.clip = clip
        self.epsilon = epsilon
        self.moments = RunningMoments()
        self.discounted_returns = np.zeros(num_rows)

    def __call__(
        self, rewards: ArrayLike, done: ArrayLike, valid: ArrayLike | None = None, update: bool = True
    ) -> NDArray[np.float32]:
        """Scales a block of rewards by the deviation of the returns up to and including this block's.

        Args:
            rewards: `[N, T]`, the columns that follow the last call's.
            done: `[N, T]` bool, `terminated | truncated`.
            valid: `[N, T]` bool; steps where it is False leave no trace. None takes all.
            update: False leaves moments and carried returns as they are (evaluation).

        Returns:
            `[N, T]` float32.

        Raises:
            RllabError: the number of rows is not the one given at the start.
        """
        rewards = np.asarray(rewards, np.float64)
        if rewards.ndim != 2 or len(rewards) != len(self.discounted_returns):
            raise RllabError(
                f"Rewards of shape {rewards.shape} do not fit [{len(self.discounted_returns)}, T]: "
                "one row per environment."
            )
        if update and rewards.shape[1] > 0:
            exists = np.ones(rewards.shape, bool) if valid is None else np.asarray(valid, bool)
            self.moments.update(self._accumulate(rewards, np.asarray(done, bool), exists), exists)
        scaled = rewards / np.sqrt(self.moments.variance + self.epsilon)
        return np.asarray(np.minimum(np.maximum(scaled, -self.clip), self.clip), dtype=np.float32)

    def _accumulate(self, rewards: NDArray[Any], done: NDArray[Any], valid: NDArray[Any]) -> NDArray[Any]:
        """The returns `[N, T]`; leaves in `discounted_returns` what carries over to the next call.

        What is carried past a step, `c_t = decay_t·c_{t−1} + gain_t`, is a linear recurrence, and such maps
        compose: doubling the reach of each composition gives all T in log₂ T vector operations
        (Hillis and Steele, 1986).
        """
        alive = ~done
        decay = np.where(valid, self.discount * alive, 1.0)
        gain = np.where(valid, rewards * alive, 0.0)
        gain[:, 0] += decay[:, 0] * self.discounted_returns
        reach = 1
        while reach < rewards.shape[1]:
            gain[:, reach:] += decay[:, reach:] * gain[:, :-reach]
            decay[:, reach:] = decay[:, reach:] * decay[:, :-reach]
            reach *= 2
        before = np.concatenate([self.discounted_returns[:, None], gain[:, :-1]], axis=1)
        self.discounted_returns = gain[:, -1].copy()
        returns: NDArray[Any] = self.discount * before + rewards
        return returns

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The moments and the carried returns `[N]`, all NumPy arrays."""
        return {**self.moments.state_dict(), "discounted_returns": self.discounted_returns.copy()}

    def load_state_dict(self, state: dict[str, NDArray[Any]]) -> None:
        """Takes over what `state_dict` gave.

        Raises:
            RllabError: it was saved for another number of rows.
        """
        carried = np.asarray(state["discounted_returns"], np.float64)
        if carried.shape != self.discounted_returns.shape:
            raise RllabError(f"Saved returns of {len(carried)} environments do not fit {len(self.discounted_returns)}.")
        self.moments.load_state_dict(state)
        self.discounted_returns = carried.copy()
