"""Frames of environments, and the videos and animated images made of them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from itertools import chain, count
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from PIL import Image

from envs.errors import RllabError
from envs.make import EnvConfig, make_vector, reset
from envs.multi_agent import ACTING
from envs.termination import HIDDEN_END

Frame = NDArray[np.uint8]
"""`[height, width, 3]`, red, green and blue from 0 to 255."""


def record_episode(
    config: EnvConfig,
    policy_predict: Callable[[Any, dict[str, Any]], Any],
    max_steps: int | None = None,
    seed: int | None = None,
) -> Iterator[Frame]:
    """Films one episode (with termination `restart` one game), from its first observation to its last, frame by frame
    as they are asked for.

    Args:
        config: the environment; its `num_envs`, `vectorization` and `autoreset` play no part.
        policy_predict: takes a batch of one observation `[1, *obs]` (of a game's players, `[N, *obs]`) and Gymnasium's
            infos (which may hold an action mask), gives a batch of as many actions `[1, *act]`.
        max_steps: where to stop if the episode has not ended by then; None films to its end.
        seed: of the episode.

    Raises:
        RllabError: the environment cannot be made or cannot be drawn.
    """
    one = replace(config, num_envs=1, vectorization="sync", autoreset="next_step")
    vector_env = make_vector(one, render_mode="rgb_array")
    try:
        observations, infos = reset(vector_env, seed)
        yield from frames_of(vector_env)
        for _ in count() if max_steps is None else range(max_steps):
            observations, _, terminated, truncated, infos = vector_env.step(policy_predict(observations, infos))
            if config.termination == "restart" and HIDDEN_END in infos:
                break  # what is to be seen is the next game
            yield from frames_of(vector_env)
            # A lost life may end an episode for the agent, or one player be out first; a film shows the whole game.
            over = ~infos[ACTING].any(keepdims=True) if ACTING in infos else terminated | truncated
            if infos.get("episode_over", over)[0]:
                break
    finally:
        vector_env.close()


def frames_of(env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> list[Frame]:
    """What a started environment looks like now: one frame, or one for each environment of a vector.

    Raises:
        RllabError: the environment was not made with `render_mode="rgb_array"`, cannot draw such frames, or
            its renderer is missing.
    """
    if env.render_mode != "rgb_array" or "rgb_array" not in env.metadata.get("render_modes", ()):
        raise RllabError(f"{_name(env)} cannot be filmed: it does not render to 'rgb_array'.")
    try:
        rendered: Any = env.render()
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise RllabError(f"{_name(env)} cannot be filmed: {reason}.{_remedy(reason)}") from error
    frames = [np.asarray(frame) for frame in (rendered if isinstance(env, VectorEnv) else [rendered])]
    if any(frame.ndim != 3 or frame.shape[-1] != 3 for frame in frames):
        raise RllabError(f"{_name(env)} cannot be filmed: its frames are not [height, width, 3].")
    return [np.array(frame, dtype=np.uint8) for frame in frames]


def render_fps(env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any], default: float = 30.0) -> float:
    """Frames a second at which the environment runs in its own time, from its metadata."""
    return float(env.metadata.get("render_fps") or default)


def frames_per_second(config: EnvConfig) -> float:
    """The speed at which videos of an environment that has yet to be made run in its own time.

    Raises:
        RllabError: it cannot be made.
    """
    with closing(make_vector(replace(config, num_envs=1, vectorization="sync"))) as vector_env:
        return render_fps(vector_env)


def write_video(path: str | Path, frames: Iterable[Frame], fps: float = 30.0) -> int:
    """Writes frames as H.264 (`.mp4`, which every browser plays) or as an animated image (`.gif`).

    An mp4's frames are encoded as they come, so a long video takes no memory; a gif's are held until the end.

    Returns:
        How many frames there were.

    Raises:
        RllabError: there are no frames, they differ in size, or the suffix is neither.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".mp4", ".gif"):
        raise RllabError(f"Cannot write '{path}': videos end in .mp4 or .gif.")
    checked = _checked(frames, fps)
    first = next(checked)
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".mp4":
        return _write_mp4(path, chain([first], checked), fps)
    held = [first, *checked]
    path.write_bytes(gif_bytes(held, fps))
    return len(held)


def gif_bytes(frames: Iterable[Frame], fps: float = 30.0) -> bytes:
    """Frames as an animated GIF that repeats for ever. GIF counts in hundredths of a second: at most 50 fps.

    Raises:
        RllabError: there are no frames, or they differ in size.
    """
    images = [Image.fromarray(frame) for frame in _checked(frames, fps)]
    buffer = BytesIO()
    # Viewers take a duration under 20 ms for a mistake and slow down to 100 ms.
    duration = max(20, round(100 / fps) * 10)
    images[0].save(buffer, format="GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
    return buffer.getvalue()


def _write_mp4(path: Path, frames: Iterator[Frame], fps: float) -> int:
    # Imported here: FFmpeg's libraries take a while to load, and few commands need them.
    import av

    first = next(frames)
    height, width = first.shape[:2]
    written = 0
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("h264", rate=Fraction(fps).limit_denominator(1000))
        # 4:2:0 keeps one colour for two by two pixels, so both sides must be even: the edge is repeated.
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        for frame in chain([first], frames):
            padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(padded, format="rgb24")))
            written += 1
        container.mux(stream.encode())
    return written


def _checked(frames: Iterable[Frame], fps: float) -> Iterator[Frame]:
    """The frames, each held against the first one's size."""
    if fps <= 0:
        raise RllabError(f"A video needs a positive number of frames a second, not {fps}.")
    shape = None
    for frame in frames:
        if shape not in (None, frame.shape):
            raise RllabError("All frames of a video must have one size.")
        shape = frame.shape
        yield frame
    if shape is None:
        raise RllabError("There are no frames to make a video of.")


def _name(env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> str:
    return f"'{env.spec.id}'" if env.spec is not None else type(env.unwrapped).__name__


def _remedy(reason: str) -> str:
    if "pygame" in reason:
        return " Install it: pip install pygame."
    if "OpenGL" in reason or "GLContext" in reason or "EGL" in reason.upper() or "osmesa" in reason.lower():
        return " Without a display MuJoCo draws by EGL or OSMesa: install one and set MUJOCO_GL=egl or osmesa."
    return ""
