"""Environments stepped one after another into batched arrays: all of a `SerialVectorEnv`, or one worker's share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from envs.buffers import Nested, StepBuffers, WrongReturnError, copy_row, describe_value, iterate_rows, row_writer
from envs.episode import Episode
from envs.errors import RllabError
from envs.termination import HIDDEN_END

Constructor = Callable[[], gymnasium.Env[Any, Any]]
"""Makes one environment."""

_NUMBERS = frozenset({float, int, np.float64, np.float32})


@dataclass
class Extras:
    """What a step or reset has to say beside the arrays; mostly nothing. Rows are counted over the whole vector."""

    ended: list[int] = field(default_factory=list)
    """Rows whose final observations were written, in SAME_STEP."""
    masks: dict[int, Any] = field(default_factory=dict)
    """Each row's `action_mask`, where one was sent."""
    over: dict[int, bool] = field(default_factory=dict)
    """Whether the game itself is over, in rows that sent an `episode_over` as their episode ended: after a lost life it
    may go on."""
    hidden: list[int] = field(default_factory=list)
    """Rows in which an end was hidden from whoever acts (`envs.termination.HIDDEN_END`)."""

    def __bool__(self) -> bool:
        return bool(self.ended or self.masks or self.over or self.hidden)

    def update(self, other: "Extras") -> None:
        """Adds those of other rows."""
        self.ended += other.ended
        self.masks |= other.masks
        self.over |= other.over
        self.hidden += other.hidden

    def to_infos(self, num_envs: int, final_observations: Nested) -> dict[str, Any]:
        """Gymnasium's infos, as far as this project reads them.

        Args:
            num_envs: N.
            final_observations: batched arrays; their rows are copied.

        Returns:
            `final_obs`, objects `[N]`, and `_final_obs`, bool `[N]`, if episodes ended; `action_mask` and
            `_action_mask` alike if masks were sent; `episode_over`, bool `[N]`, where games outlive an episode;
            `hidden_end`, bool `[N]`, where an end was hidden.
        """
        infos: dict[str, Any] = {}
        if self.ended:
            finals = {row: copy_row(final_observations, row) for row in self.ended}
            infos["final_obs"], infos["_final_obs"] = _objects(num_envs, finals)
        if self.masks:
            infos["action_mask"], infos["_action_mask"] = _objects(num_envs, self.masks)
        if self.over:
            infos["episode_over"] = np.zeros(num_envs, np.bool_)
            for row, over in self.over.items():
                infos["episode_over"][row] = over
        if self.hidden:
            infos[HIDDEN_END] = np.zeros(num_envs, np.bool_)
            infos[HIDDEN_END][self.hidden] = True
        return infos


class Rows:
    """N environments, or some of them, with the sentences for what can go wrong in them."""

    def __init__(
        self,
        constructors: Sequence[Constructor],
        autoreset_mode: AutoresetMode,
        first: int = 0,
        worker: int | None = None,
    ) -> None:
        """Makes the environments.

        Args:
            constructors: one for each environment; what they make is wrapped in `Episode` unless it is one.
            autoreset_mode: SAME_STEP or NEXT_STEP.
            first: the index of the first of these environments in the whole vector.
            worker: which worker process this is, for errors; None: it is none.

        Raises:
            RllabError: the environments' spaces differ.
        """
        made = [constructor() for constructor in constructors]
        self.envs = [env if isinstance(env, Episode) else Episode(env) for env in made]
        self.same_step = autoreset_mode is AutoresetMode.SAME_STEP
        self.first, self.worker, self.steps = first, worker, 0
        self.observation_space, self.action_space = self.envs[0].observation_space, self.envs[0].action_space
        for env in self.envs:
            if (env.observation_space, env.action_space) != (self.observation_space, self.action_space):
                raise RllabError(
                    f"{self.envs[0]} and {env} have different spaces: they cannot be stepped side by side."
                )

    def use(self, buffers: Sequence[StepBuffers], final_observations: Nested) -> None:
        """Where to write: as many buffers as take turns, and arrays `[N, *obs]` for final observations."""
        self._buffers = [(one, row_writer(one.observations)) for one in buffers]
        self._write_final = row_writer(final_observations, "a final observation")

    def reset(self, turn: int, seeds: Sequence[int | None], options: dict[str, Any] | None) -> Extras:
        """Starts an episode in each environment.

        Args:
            turn: which of the buffers to write.
            seeds: one for each.
            options: for each.

        Raises:
            RllabError: an environment fails or returns what it may not.
        """
        extras, row = Extras(), 0
        buffers, write = self._buffers[turn]
        buffers.rewards.fill(0.0)
        buffers.terminated.fill(False)
        buffers.truncated.fill(False)
        try:
            for row, (env, seed) in enumerate(zip(self.envs, seeds, strict=True)):
                observation, info = env.reset(seed=seed, options=options)
                if "action_mask" in info:
                    extras.masks[self.first + row] = info["action_mask"]
                write(row, observation)
        except Exception as error:
            self._fail(row, error, "at its reset after")
        return extras

    def step(self, turn: int, actions: Nested) -> Extras:
        """Steps each environment, or starts its next episode.

        Args:
            turn: which of the buffers to write.
            actions: batched arrays that nothing else will write to.

        Raises:
            RllabError: an environment fails or returns what it may not.
        """
        self.steps += 1
        extras, row = Extras(), 0
        buffers, write = self._buffers[turn]
        rewards = buffers.rewards
        buffers.terminated.fill(False)
        buffers.truncated.fill(False)
        try:
            for row, (env, action) in enumerate(zip(self.envs, iterate_rows(actions), strict=True)):
                if env.over:  # only in NEXT_STEP: this step's action counts for nothing
                    observation, info = env.reset()
                    rewards[row] = 0.0
                else:
                    observation, reward, terminated, truncated, info = env.step(action)
                    rewards[row] = reward if type(reward) in _NUMBERS else _number(reward)
                    if HIDDEN_END in info:
                        extras.hidden.append(self.first + row)
                    if terminated or truncated:
                        buffers.terminated[row], buffers.truncated[row] = terminated, truncated
                        if "episode_over" in info:
                            extras.over[self.first + row] = info["episode_over"]
                        if self.same_step:
                            # Written before the reset, for environments that use their array again.
                            self._write_final(row, observation)
                            extras.ended.append(self.first + row)
                            observation, info = env.reset()
                if "action_mask" in info:
                    extras.masks[self.first + row] = info["action_mask"]
                write(row, observation)
        except Exception as error:
            self._fail(row, error, "at")
        return extras

    def capture(self) -> list[dict[str, Any]]:
        """Each environment's snapshot."""
        return [env.snapshot() for env in self.envs]

    def restore(self, snapshots: Sequence[dict[str, Any]]) -> dict[int, Any]:
        """Continues from snapshots.

        Returns:
            First observations, by row of the whole vector, of those environments that had to begin anew.

        Raises:
            RllabError: a snapshot is of another environment.
        """
        exact = [env.restore(snapshot) for env, snapshot in zip(self.envs, snapshots, strict=True)]
        return {self.first + row: self.envs[row].last_observation for row, same in enumerate(exact) if not same}

    def render(self) -> list[Any]:
        """Each environment's frame."""
        return [env.render() for env in self.envs]

    def close(self) -> None:
        """Closes each environment."""
        for env in self.envs:
            env.close()

    def _fail(self, row: int, error: Exception, when: str) -> NoReturn:
        fail(name_row(self.first + row, self.envs[row].seed, self.worker), error, f"{when} step {self.steps}")


def fail(who: str, error: Exception, when: str) -> NoReturn:
    """Raises the sentence for what went wrong in an environment: `environment 3 failed at step 300: …`."""
    if isinstance(error, WrongReturnError):
        raise RllabError(f"{who} {error} ({when}).") from None
    reason = (str(error) or "no message").splitlines()[0].rstrip(".")
    kind = "" if isinstance(error, RllabError) else f"{type(error).__name__}: "
    raise RllabError(f"{who} failed {when}: {kind}{reason}.") from error


def describe_row(vector_env: VectorEnv[Any, Any, Any], row: int) -> str:
    """An environment of any vector environment, for errors, with as much as is known of it.

    Returns:
        `environment 3 (worker 1, seed 123456)`, or of a native one `environment 3`.
    """
    describe = getattr(vector_env.unwrapped, "describe_row", None)
    return f"environment {row}" if describe is None else str(describe(row))


def name_row(row: int, seed: int | None, worker: int | None = None) -> str:
    """An environment, for errors: `environment 3 (worker 1, seed 123456)`, as far as these are known."""
    known = {"worker": worker, "seed": seed}
    told = ", ".join(f"{name} {value}" for name, value in known.items() if value is not None)
    return f"environment {row} ({told})" if told else f"environment {row}"


def list_seeds(seed: int | Sequence[int | None] | None, num_envs: int) -> list[int | None]:
    """One seed for each environment, as Gymnasium's vector environments take them: `seed + i` of a single one.

    Raises:
        RllabError: there are not as many seeds as environments.
    """
    if seed is None:
        return [None] * num_envs
    seeds = [seed + row for row in range(num_envs)] if isinstance(seed, int) else list(seed)
    if len(seeds) != num_envs:
        raise RllabError(f"{num_envs} environments cannot be seeded with {len(seeds)} seeds.")
    return list(seeds)


def _number(reward: Any) -> Any:
    if isinstance(reward, int | float | np.number | np.bool_ | np.ndarray):
        array: NDArray[Any] = np.asarray(reward)
        if array.shape == () and array.dtype.kind in "biuf":
            return array
    raise WrongReturnError(f"returned the reward {describe_value(reward)} where a number is expected")


def _objects(num_envs: int, values: dict[int, Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values `[N]` of any kind, and which rows have one."""
    objects, present = np.full(num_envs, None, dtype=object), np.zeros(num_envs, np.bool_)
    for row, value in values.items():
        objects[row], present[row] = value, True
    return objects, present
