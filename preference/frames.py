"""What a clip looks like, drawn when somebody asks for it: by playing it again, away from the training.

Training steps environments that draw nothing. What leads to a clip (`preference.origins`) is repeated in an environment
that draws, and what it observes on the way is held against what the clip has.
"""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from PIL import Image

from envs import render
from envs.atari import FRAME_SKIP, FRAMES_A_SECOND, game_of
from envs.config import EnvConfig
from envs.errors import RllabError
from envs.make import make_single, make_vector
from envs.native import make_atari_pictures
from envs.registry import ATARI, family_of, find_spec
from envs.render import Frame, frames_of
from envs.serial import SerialVectorEnv
from envs.simulators import mujoco_simulation
from envs.snapshot import restore
from preference.origins import Origin, is_atari
from preference.score_regions import blank
from preference.sheets import Frames, Sheet, decode_sheet, encode_sheet

__all__ = ["Frames", "Origin", "Sheet", "decode_sheet", "draw", "draw_sheet", "encode_sheet", "frames_per_second"]


def draw(origin: Origin, height: int | None = None, observations: NDArray[Any] | None = None) -> Frames:
    """The frames of a clip: at each of its steps what was there before its action.

    Of Atari's games scores and lives are painted over (`preference.score_regions`).

    Args:
        origin: of the clip.
        height: of the frames, in pixels; None: as the environment draws them.
        observations: the clip's own `[L, *obs]`, to make sure that the frames are of this clip.

    Returns:
        `[L, height, width, 3]` of bytes.

    Raises:
        RllabError: the environment cannot be made, drawn or brought to where it was; or what was observed there is not
            what the clip has.
    """
    spec = find_spec(origin.env.id)
    game = game_of(spec) if family_of(spec) is ATARI else None
    if observations is not None and len(observations) != origin.steps:
        raise RllabError(f"A clip of {origin.steps} steps cannot be held against {len(observations)} observations.")
    frames = []
    with ExitStack() as stack:
        played, step, picture = _open(origin, height, stack, checked=observations is not None)
        observed = None  # by the step before; nothing tells of what was observed just before the snapshot
        for column in range(origin.first + origin.steps):
            if column >= origin.first:
                if observations is not None and observed is not None:
                    _check(observed, observations[column - origin.first], column - origin.first)
                frame = picture()
                frames.append(_resized(frame if game is None else blank(frame, game), height))
            if column < origin.first + origin.steps - 1:
                actions = origin.actions[:, column].astype(played.single_action_space.dtype)
                observed = step(actions)[origin.row]
    return np.stack(frames)


def frames_per_second(env: EnvConfig) -> float:
    """The speed at which a clip runs in the environment's own time."""
    spec = find_spec(env.id)
    if family_of(spec) is ATARI and env.protocol != "none":
        return FRAMES_A_SECOND / FRAME_SKIP
    return render.frames_per_second(env)


def draw_sheet(
    origin: Origin, height: int | None = None, quality: int = 75, observations: NDArray[Any] | None = None
) -> Sheet:
    """A clip's frames as one image, with metadata (`preference.sheets`); arguments and errors as `draw`'s."""
    return encode_sheet(draw(origin, height, observations), quality, frames_per_second(origin.env))


def _open(
    origin: Origin, height: int | None, stack: ExitStack, checked: bool
) -> tuple[VectorEnv[Any, Any, Any], Callable[[Any], Any], Callable[[], Frame]]:
    """The environments at the snapshot; what steps them and gives observations `[N, *obs]`; what draws the row."""
    if is_atari(origin.snapshot):
        return _open_atari(origin, stack, checked)
    config = origin.env
    if "environments" in origin.snapshot:
        config = replace(config, num_envs=1, vectorization="sync")
    else:
        config = replace(config, num_envs=len(origin.actions), vectorization="native")
    if height is not None and family_of(find_spec(config.id)).package == "mujoco":
        # Drawn at the size that is asked for: where there is no graphics card every pixel takes its time.
        config = replace(config, env_kwargs={"width": height, "height": height, **config.env_kwargs})
    vector_env = stack.enter_context(closing(make_vector(config, render_mode="rgb_array")))
    _restore(vector_env, origin)
    bare: Any = vector_env.unwrapped
    if isinstance(bare, SerialVectorEnv) and height is not None:
        _draw_faster(bare.envs[0].unwrapped)
    # CartPole's batch draws all of its rows, where one is wanted: a single pole stands in for it.
    one = make_single(config, render_mode="rgb_array") if isinstance(bare, CartPoleVectorEnv) else None
    if one is not None:
        stack.enter_context(closing(one))

    def picture() -> Frame:
        if one is None:
            return frames_of(vector_env)[origin.row]
        pole: Any = one.unwrapped
        pole.state = bare.state[:, origin.row].copy()
        return frames_of(one)[0]

    return vector_env, lambda actions: vector_env.step(actions)[0], picture


def _draw_faster(env: Any) -> None:
    """Leaves out MuJoCo's shadows and its four samples a pixel: without a graphics card, nine tenths of the time.

    They are of its picture and not of its physics, and count before the first one is drawn.
    """
    simulation = mujoco_simulation(env)
    if simulation is not None:
        quality = simulation[0].vis.quality
        quality.shadowsize = quality.offsamples = 0


def _open_atari(
    origin: Origin, stack: ExitStack, checked: bool
) -> tuple[VectorEnv[Any, Any, Any], Callable[[Any], Any], Callable[[], Frame]]:
    """ale-py's vector environment cannot draw what it plays: beside it a second one plays the same in colour."""
    config = replace(origin.env, num_envs=1, vectorization="native", workers=1)
    pictures = stack.enter_context(closing(make_atari_pictures(config)))
    pictures.set_snapshot(dict(origin.snapshot["native"]))
    latest = pictures.observations
    usual = stack.enter_context(closing(make_vector(config))) if checked else None
    if usual is not None:
        _restore(usual, origin)

    def step(actions: Any) -> Any:
        nonlocal latest
        latest = pictures.step(actions)[0]
        return latest if usual is None else usual.step(actions)[0]

    return pictures, step, lambda: np.array(latest[0, 0])


def _restore(vector_env: VectorEnv[Any, Any, Any], origin: Origin) -> None:
    if restore(vector_env, dict(origin.snapshot)):
        raise RllabError(
            f"A clip of '{origin.env.id}' cannot be drawn: the environment could not be brought back to where it was."
        )


def _check(observed: Any, expected: NDArray[Any], step: int) -> None:
    """Raises `RllabError` if an observation is not the one that the clip has, in the clip's precision."""
    if not isinstance(observed, np.ndarray | np.generic):
        raise RllabError("Clips are held against observations that are arrays; nested ones cannot be checked.")
    same = np.array_equal(observed.astype(expected.dtype), expected, equal_nan=expected.dtype.kind == "f")
    if not same:
        raise RllabError(
            f"A clip was not drawn: playing it again led elsewhere at its step {step}, so that its frames would be of "
            "another one; the environment, or a library that it uses, is not the one that it was played with."
        )


def _resized(frame: Frame, height: int | None) -> Frame:
    if height is None or height == len(frame):
        return frame
    width = max(1, round(frame.shape[1] * height / len(frame)))
    method = Image.Resampling.BOX if height < len(frame) else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(frame).resize((width, height), method))
