"""Many games at once in ale-py's C++ vector environment, which emulates, joins, shrinks and stacks frames in threads.

What it does not do by itself is added around it: an episode for every life without a new game for every life, the first
observation of the next game in the step that ends one, scores beside rewards, and exact snapshots.

Its emulators cannot be read or written, so a snapshot is how to come back to where they are: the seed with which each
was last loaded, and every action since. Loading takes 0.1 to 0.2 s, so a game is loaded anew at the first end of a game
after `RELOAD_AFTER` steps: that bounds the repetition, and costs well under a hundredth of training.
"""

import zlib
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.atari import FRAME_SKIP, SIZE, STACK, AtariProtocol
from envs.errors import RllabError

RELOAD_AFTER = 10_000
"""Steps of one game's environment."""

Bytes = NDArray[np.uint8]


class AtariVector(VectorEnv[Any, Any, Any]):
    """N games under a protocol, SAME_STEP; observations `[N, 4, 84, 84]` of bytes, the newest frame last.

    `infos["episode_over"]`, bool `[N]`, says whose game has ended, where `terminated` may only mean a lost life.
    """

    def __init__(
        self, game: str, num_envs: int, protocol: AtariProtocol, *, max_frames: int, full_action_space: bool = False,
        threads: int = 0, pictures: bool = False,
    ) -> None:  # fmt: skip
        """Load the emulators.

        Args:
            game: the ROM's name, such as `ms_pacman`.
            num_envs: N.
            protocol: by which it is played.
            max_frames: a game is cut after so many, a multiple of `FRAME_SKIP`; its no-ops do not count.
            full_action_space: all 18 actions of the console rather than those that the game heeds.
            threads: that emulate; 0: one for each core.
            pictures: observations are what a person sees, `[N, 1, 210, 160, 3]` in colour. A snapshot of the usual kind
                is then restored without a check, so that its games can be looked at.

        Raises:
            RllabError: there is no such ROM.
        """
        from ale_py import roms
        from ale_py.vector_env import AtariVectorEnv

        if game not in roms.get_all_rom_ids():
            raise RllabError(
                f"ale-py has no ROM '{game}' here: install it again (pip install --force-reinstall ale-py)."
            )
        self.lives_are_episodes, self.max_frames = protocol.lives_are_episodes, max_frames
        self.emulators = AtariVectorEnv(
            game, num_envs, num_threads=threads, max_num_frames_per_episode=max_frames,
            repeat_action_probability=protocol.sticky, full_action_space=full_action_space,
            img_height=210 if pictures else SIZE, img_width=160 if pictures else SIZE, grayscale=not pictures,
            stack_num=1 if pictures else STACK, frameskip=FRAME_SKIP, maxpool=True,
            noop_max=protocol.most_noops + 1, use_fire_reset=False,  # it draws from 0 to noop_max − 1
            episodic_life=False, life_loss_info=protocol.lives_are_episodes,  # the former begins a new game each time
            reward_clipping=False, autoreset_mode=AutoresetMode.NEXT_STEP,
        )  # fmt: skip
        self.num_envs, self.pictures = num_envs, pictures
        self.single_observation_space = self.emulators.single_observation_space
        self.single_action_space = self.emulators.single_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": [], "frame_stack": STACK}
        self._rows = np.arange(num_envs)
        self._generators = [np.random.default_rng() for _ in self._rows]
        self._seeds = np.zeros(num_envs, np.int64)
        """With which each was last loaded."""
        self._actions = np.empty((num_envs, 1024), np.uint8)
        self._count = np.zeros(num_envs, np.int64)
        """Actions since it was loaded."""
        self._length = np.zeros(num_envs, np.int64)
        """Actions since its game began."""
        self._observations: Bytes = np.empty((0,), np.uint8)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Load every game anew; `seed` (an integer or None) decides the rest of their lives."""
        self._generators = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(self.num_envs)]
        self._load(np.ones(self.num_envs, bool))
        self._length[:] = 0
        self._observations, infos = self.emulators.reset(seed=self._seeds)
        return self._observations, {"lives": infos["lives"]}

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Bytes, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One action each, `[N]`; arrays `[N, …]`."""
        if self._count.max() == self._actions.shape[1]:
            self._actions = np.concatenate([self._actions, np.empty_like(self._actions)], axis=1)
        self._actions[self._rows, self._count] = actions
        self._count += 1
        observations, rewards, terminated, truncated, native = self.emulators.step(actions)
        over = self._over(terminated, truncated, native)
        infos: dict[str, Any] = {"episode_over": over, "lives": native["lives"]}
        if over.any():
            infos["final_obs"], infos["_final_obs"] = np.full(self.num_envs, None, object), over
            for row in np.flatnonzero(over):
                infos["final_obs"][row] = observations[row]
            reload = over & (self._count >= RELOAD_AFTER)
            self._load(reload)
            observations = self._begin(over, np.where(reload, self._seeds, -1))
        self._observations = observations
        return observations, rewards.astype(np.float64), terminated, truncated, infos

    def _over(
        self, terminated: NDArray[np.bool_], truncated: NDArray[np.bool_], native: dict[str, Any]
    ) -> NDArray[np.bool_]:
        """Whose game, and not only a life, has ended with this step."""
        self._length += 1
        ended = terminated & (native["lives"] == 0) if self.lives_are_episodes else terminated
        # A game that is cut just as a life is lost is not called truncated, but will begin anew all the same.
        over: NDArray[np.bool_] = ended | truncated | (self._length * FRAME_SKIP >= self.max_frames)
        return over

    def _load(self, rows: NDArray[np.bool_]) -> None:
        """Draw seeds for `rows` and begin their lists of actions."""
        for row in np.flatnonzero(rows):
            self._seeds[row] = self._generators[row].integers(2**31 - 1)
        self._count[rows] = 0

    def _begin(self, rows: NDArray[np.bool_], seeds: NDArray[np.int64]) -> Bytes:
        """A new game in each of `rows`, loaded with its seed, or going on with its generator where that is −1."""
        self._length[rows] = 0
        observations: Bytes = self.emulators.reset(seed=seeds[rows], options={"reset_mask": rows})[0]
        return observations

    @property
    def observations(self) -> Bytes:
        """What the last step, reset or restored snapshot left, `[N, …]`."""
        return self._observations

    def get_snapshot(self) -> dict[str, Any]:
        """Seeds, actions, generators, and by what to know that the repetition has arrived."""
        return {
            "seeds": self._seeds.copy(),
            "actions": {str(row): self._actions[row, : self._count[row]].copy() for row in self._rows},
            "generators": [generator.bit_generator.state for generator in self._generators],
            "checks": [zlib.crc32(observation.tobytes()) for observation in self._observations],
        }

    def set_snapshot(self, snapshot: dict[str, Any]) -> dict[int, Bytes]:
        """Repeat what led to where the snapshot was taken.

        Returns:
            First observations of the rows that did not arrive there and have begun a new game.
        """
        for generator, state in zip(self._generators, snapshot["generators"], strict=True):
            generator.bit_generator.state = state
        played = [snapshot["actions"][str(row)] for row in self._rows]
        self._seeds = np.array(snapshot["seeds"])
        self._count = np.array([len(actions) for actions in played])
        longest = int(self._count.max())
        self._actions = np.zeros((self.num_envs, max(1024, longest)), np.uint8)
        # All arrive together: who has less to repeat is loaded later, and what it does until then is of no account.
        repeated = np.zeros((longest, self.num_envs), np.int64)
        for row, actions in enumerate(played):
            self._actions[row, : len(actions)] = actions
            repeated[longest - len(actions) :, row] = actions
        wait = longest - self._count
        observations = self.emulators.reset(seed=self._seeds)[0]
        self._length[:] = 0
        for column in range(longest):
            late = (wait == column) & (column > 0)
            if late.any():
                self._begin(late, self._seeds)
            observations, _, terminated, truncated, native = self.emulators.step(repeated[column])
            over = self._over(terminated, truncated, native) & (wait <= column)
            if over.any():
                observations = self._begin(over, np.full(self.num_envs, -1))
        if longest and (wait == longest).any():
            observations = self._begin(wait == longest, self._seeds)

        self._observations = observations
        if self.pictures:
            return {}
        astray = [row for row in self._rows if zlib.crc32(observations[row].tobytes()) != snapshot["checks"][row]]
        if astray:
            chosen = np.isin(self._rows, astray)
            self._load(chosen)
            observations = self._begin(chosen, self._seeds)
        self._observations = observations
        return {int(row): observations[row].copy() for row in astray}

    def close_extras(self, **kwargs: Any) -> None:
        """Let the emulators and their threads go."""
        if hasattr(self, "emulators"):
            del self.emulators
