"""PettingZoo games as rows of a vector environment: each player of each copy of a game is a row.

A row acts only when it is its player's turn; `acting` says which rows' next actions count, whether players act at once
or in turns. The others wait: for their turn, or, once they are out, for the copy's next game. Whoever collects makes
a row's own steps of this (`rllab.turns`), each from one of its turns to the next.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal, NoReturn

import numpy as np
from gymnasium import Space
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.buffers import allocate_batch, copy_batch, copy_row, row_writer, rows_of
from envs.config import EnvConfig, check_time_limit
from envs.errors import RllabError
from envs.games import AgainstRandom, Game, Moment, SimultaneousGame, TurnGame, spaces_of
from envs.matches import Match
from envs.plain_data import encode, identical, make_generator
from envs.renderers import prepare_rendering
from envs.rows import Extras, fail, name_row
from envs.single import one_clear_sentence, with_render_mode

ACTING = "acting"
"""In the infos of a game's reset and step: bool `[N]`, the rows whose next actions count."""


def as_multi_agent(vector_env: VectorEnv[Any, Any, Any]) -> "MultiAgentVectorEnv | None":
    """The game whose players are this vector environment's rows; None of any other, in which all rows always act."""
    env = vector_env.unwrapped
    return env if isinstance(env, MultiAgentVectorEnv) else None


def make_multi_agent(config: EnvConfig, spec: EnvSpec, render_mode: str | None) -> "MultiAgentVectorEnv":
    """The rows of `config.num_envs` copies of a PettingZoo game.

    Raises:
        RllabError: it cannot be made, its players' spaces differ, or the configuration asks for what games cannot do.
    """
    if config.vectorization not in ("auto", "sync"):
        raise RllabError(f"PettingZoo's games are stepped one after another: use sync, not {config.vectorization}.")
    if config.termination != "episode":
        raise RllabError(
            f"'{config.id}' is a game, which its end ends: termination '{config.termination}' is not for it."
        )
    check_time_limit(config)
    prepare_rendering(spec, render_mode)
    with one_clear_sentence(config, spec):
        games = [_make_game(config, spec, render_mode) for _ in range(config.num_envs)]
    if config.opponent == "random":
        games = [AgainstRandom(game) for game in games]
    autoreset = AutoresetMode.NEXT_STEP if config.autoreset == "next_step" else AutoresetMode.SAME_STEP
    vector_env = MultiAgentVectorEnv(games, config.id, autoreset, config.max_episode_steps)
    vector_env.spec, vector_env.render_mode = spec, render_mode
    return vector_env


def _make_game(config: EnvConfig, spec: EnvSpec, render_mode: str | None) -> Game:
    from pettingzoo import AECEnv, ParallelEnv

    assert isinstance(spec.entry_point, str)
    module, _, function = spec.entry_point.partition(":")
    env = getattr(import_module(module), function)(**with_render_mode(config.env_kwargs, render_mode))
    if not isinstance(env, AECEnv | ParallelEnv):
        raise RllabError(f"'{config.id}' makes a {type(env).__name__}, which is no environment of PettingZoo.")
    if not getattr(env, "possible_agents", None):
        raise RllabError(f"'{config.id}' does not say who may play: it needs a list of possible_agents.")
    game: Game = SimultaneousGame(env) if isinstance(env, ParallelEnv) else TurnGame(env)
    _require_equal_spaces(config.id, "observation", game)
    _require_equal_spaces(config.id, "action", game)
    return game


def _require_equal_spaces(id: str, what: Literal["observation", "action"], game: Game) -> None:
    """Raises RllabError if one policy cannot play all players: two players' spaces differ."""
    (first, space), *others = spaces_of(game.env, what).items()
    for player, other in others:
        if other != space:
            raise RllabError(
                f"'{id}' cannot be played by one policy, since its players' {what} spaces differ: {first} has {space}, "
                f"{player} has {other}."
            )


class MultiAgentVectorEnv(VectorEnv[Any, Any, Any]):
    """Copies of a game with P players each as N rows: copy by copy, and in it player by player.

    A step takes the actions of the rows that act and ignores the others'. Each row's reward is what it received since
    its last turn, told when it is its turn again or its game ends; `terminated` and `truncated` are True in the step
    in which its game ends for it. While a row waits, its observation stays as it was. When a copy's game is over for
    all, its next one begins: in the same step (the last observations are in `infos["final_obs"]`), or in the next, in
    which none of its rows acts.

    Each game has a seed of its own, drawn from the copy's generator. So a game is repeated exactly by its seed and
    actions, by which it is captured and restored, whatever random generators it has.

    Attributes:
        acting: bool `[N]`, the rows whose next actions count; also in the infos.
        players: P, of one copy.
        takes_turns: whether they act one after another.
    """

    def __init__(
        self, games: list[Game], name: str, autoreset_mode: AutoresetMode, max_episode_steps: int | None = None
    ) -> None:
        """Lays out the rows.

        Args:
            games: the copies, made alike.
            name: of the game, for snapshots.
            autoreset_mode: SAME_STEP or NEXT_STEP.
            max_episode_steps: games are truncated after so many steps; None: never.
        """
        env = games[0].env
        self.players, self.takes_turns, self.name = len(games[0].players), games[0].takes_turns, name
        self.num_envs = len(games) * self.players
        self.matches = [Match(game, max_episode_steps) for game in games]
        self.metadata = {**env.metadata, "autoreset_mode": autoreset_mode}
        self.single_observation_space: Space[Any] = next(iter(spaces_of(env, "observation").values()))
        self.single_action_space: Space[Any] = next(iter(spaces_of(env, "action").values()))
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.acting = np.zeros(self.num_envs, bool)
        self._same_step = autoreset_mode is AutoresetMode.SAME_STEP
        self._observations = allocate_batch(self.single_observation_space, self.num_envs)
        self._finals = allocate_batch(self.single_observation_space, self.num_envs)
        self._actions = allocate_batch(self.single_action_space, self.num_envs)
        self._write = row_writer(self._observations)
        self._write_final = row_writer(self._finals, "a final observation")
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins a game in every copy; each copy's generator is made from `seed`, so that no two copies are alike.

        There are no options.

        Returns:
            Observations `[N, *obs]`, new, and infos with `acting` and, where the game says them so, `action_mask`.

        Raises:
            RllabError: a game fails, or returns what it may not.
        """
        if seed is not None:
            sequences = np.random.SeedSequence(seed).spawn(len(self.matches))
            for copy, (match, sequence) in enumerate(zip(self.matches, sequences, strict=True)):
                # Copies begin on different seats, so that few games of each are shared fairly, too.
                match.restart(np.random.default_rng(sequence), copy)
        extras = Extras()
        for copy in range(len(self.matches)):
            self._begin(copy, extras)
        return copy_batch(self._observations, self._observations), self._infos(extras)

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One step of every copy: all its players' that act at once, or one turn. `actions` `[N, *act]`.

        Returns:
            Observations `[N, *obs]`, rewards, terminated and truncated `[N]`, all new, and infos: `acting`, `final_obs`
            with `_final_obs` (SAME_STEP), `action_mask` with `_action_mask`.

        Raises:
            RllabError: a game fails, or returns what it may not, or the actions have another shape.
        """
        self._steps += 1
        actions = copy_batch(actions, self._actions)
        rewards, extras = np.zeros(self.num_envs), Extras()
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        for copy, match in enumerate(self.matches):
            if match.over:
                self._begin(copy, extras)
                continue
            first = copy * self.players
            try:
                moment = match.step(rows_of(actions, first, first + self.players))
                self._show(copy, moment, extras)
                for row, player in enumerate(match.players, first):
                    rewards[row] = moment.rewards.get(player, 0.0)
                    terminated[row], truncated[row] = player in moment.terminated, player in moment.truncated
                    if self._same_step and (terminated[row] or truncated[row]):
                        self._write_final(row, moment.observations[player])
                        extras.ended.append(row)
            except Exception as error:
                self._fail(copy, error)
            if match.over and self._same_step:
                self._begin(copy, extras)
        observations = copy_batch(self._observations, self._observations)
        return observations, rewards, terminated, truncated, self._infos(extras)

    def _begin(self, copy: int, extras: Extras) -> None:
        """The copy's next game."""
        try:
            self._show(copy, self.matches[copy].begin(), extras)
        except Exception as error:
            self._fail(copy, error)

    def _show(self, copy: int, moment: Moment, extras: Extras) -> None:
        """What the players see, and which of them act."""
        for row, player in enumerate(self.matches[copy].players, copy * self.players):
            self.acting[row] = player in moment.acting
            if player in moment.observations:
                self._write(row, moment.observations[player])
            if player in moment.masks and self.acting[row]:
                extras.masks[row] = moment.masks[player]

    def _infos(self, extras: Extras) -> dict[str, Any]:
        return {**extras.to_infos(self.num_envs, self._finals), ACTING: self.acting.copy()}

    def _fail(self, copy: int, error: Exception) -> NoReturn:
        fail(self.describe_row(copy * self.players), error, f"at step {self._steps}")

    def describe_row(self, row: int) -> str:
        """A row, for errors: `environment 3 (seed 123456)`; the environment is the copy, the seed its game's."""
        copy = row // self.players
        return name_row(copy, self.matches[copy].seed)

    def capture(self) -> list[dict[str, Any]]:
        """Each copy's snapshot (`envs.snapshot.capture`)."""
        return [
            {**match.snapshot(), "name": self.name, "observations": self._rows_now(copy)}
            for copy, match in enumerate(self.matches)
        ]

    def restore(self, snapshots: Sequence[dict[str, Any]]) -> dict[int, Any]:
        """Continues from snapshots, by playing each copy's game again (`envs.snapshot.restore`).

        Returns:
            First observations, by row, of the copies that did not arrive where they had been and began a new game.

        Raises:
            RllabError: a snapshot is of another game.
        """
        anew: dict[int, Any] = {}
        for copy, (match, snapshot) in enumerate(zip(self.matches, snapshots, strict=True)):
            if snapshot["name"] != self.name:
                raise RllabError(f"A snapshot of {snapshot['name']} cannot be restored into {self.name}.")
            try:
                for moment in match.replay(snapshot):
                    self._show(copy, moment, Extras())
                exact = identical(self._rows_now(copy), snapshot["observations"])
            except Exception:  # what cannot be repeated begins anew, as every environment does here
                exact = False
            if not exact:
                match.generator = make_generator(snapshot["generator"])
                self._begin(copy, Extras())
                for row in range(copy * self.players, (copy + 1) * self.players):
                    anew[row] = copy_row(self._observations, row)
        return anew

    def _rows_now(self, copy: int) -> Any:
        """What the copy's players see and whether they act, as plain data."""
        first, last = copy * self.players, (copy + 1) * self.players
        return encode((rows_of(self._observations, first, last), self.acting[first:last]))

    def render(self) -> tuple[Any, ...]:
        """Each copy's frame."""
        return tuple(match.game.env.render() for match in self.matches)

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the games."""
        for match in self.matches:
            match.game.env.close()
