from io import BytesIO

import av
import numpy as np
import pytest
from PIL import Image

from envs.errors import RllabError
from envs.make import EnvConfig, make_single, make_vector, reset
from envs.render import frames_of, gif_bytes, record_episode, render_fps, write_video


def gradient_frames(count, height, width):
    """Frames whose red channel rises with time and whose green one rises from left to right."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[..., 0] = np.linspace(0, 240, count)[:, None, None]
    frames[..., 1] = np.linspace(0, 240, width)
    return list(frames)


@pytest.mark.parametrize("id", ["CartPole-v1", "LunarLander-v3", "FrozenLake-v1"])
def test_an_episode_is_filmed_from_its_first_observation_to_its_last(id):
    seen = []

    def predict(observations, infos):
        seen.append(observations)
        return np.array([0])

    frames = list(record_episode(EnvConfig(id), predict, max_steps=5, seed=0))
    assert len(frames) == len(seen) + 1 == 6
    assert all(len(observations) == 1 for observations in seen)
    assert frames[0].dtype == np.uint8
    assert frames[0].shape[2] == 3
    assert frames[0].std() > 0


def test_filming_stops_where_the_episode_ends():
    frames = list(record_episode(EnvConfig("CartPole-v1"), lambda observations, infos: np.array([1]), seed=0))
    assert 8 <= len(frames) <= 12


def test_a_vector_environment_gives_a_frame_for_each():
    for vectorization in ("native", "sync"):
        vector_env = make_vector(EnvConfig("CartPole-v1", 3, vectorization), render_mode="rgb_array")
        reset(vector_env, 0)
        assert [frame.shape for frame in frames_of(vector_env)] == [(400, 600, 3)] * 3
        vector_env.close()


def test_frames_a_second_come_from_the_environment():
    env = make_single(EnvConfig("CartPole-v1"))
    assert render_fps(env) == 50
    assert render_fps(make_single(EnvConfig("toy_environments:RandomWalk-v1"))) == 30


@pytest.mark.parametrize(("height", "width"), [(64, 96), (63, 95)])
def test_a_video_can_be_read_back(tmp_path, height, width):
    frames = gradient_frames(12, height, width)
    write_video(tmp_path / "new" / "video.mp4", frames, fps=12.5)
    with av.open(str(tmp_path / "new" / "video.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 12.5
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(decoded) == 12
    assert decoded[0].shape == (64, 96, 3)
    np.testing.assert_allclose(decoded[-1][:height, :width], frames[-1], atol=25)


@pytest.mark.parametrize(("fps", "duration"), [(20, 50), (1000, 20)])
def test_a_gif_can_be_read_back(tmp_path, fps, duration):
    frames = gradient_frames(5, 31, 41)
    write_video(tmp_path / "image.gif", frames, fps)
    assert (tmp_path / "image.gif").read_bytes() == gif_bytes(frames, fps)
    image = Image.open(BytesIO(gif_bytes(frames, fps)))
    assert (image.n_frames, image.size, image.info["duration"]) == (5, (41, 31), duration)
    assert image.info["loop"] == 0


def test_an_environment_made_without_frames_is_refused():
    env = make_single(EnvConfig("CartPole-v1"))
    env.reset()
    with pytest.raises(RllabError, match="'CartPole-v1' cannot be filmed"):
        frames_of(env)


def test_an_environment_that_cannot_be_drawn_is_refused():
    with pytest.raises(RllabError, match="cannot be drawn"):
        next(record_episode(EnvConfig("toy_environments:RandomWalk-v1"), lambda observations, infos: np.array([0])))


def test_a_missing_renderer_is_told_with_what_to_install(monkeypatch):
    env = make_single(EnvConfig("CartPole-v1"), render_mode="rgb_array")
    env.reset()
    monkeypatch.setitem(__import__("sys").modules, "pygame", None)
    with pytest.raises(RllabError, match="pip install pygame"):
        frames_of(env)


def test_other_suffixes_and_missing_frames_are_refused(tmp_path):
    with pytest.raises(RllabError, match=r"end in \.mp4 or \.gif"):
        write_video(tmp_path / "video.webm", gradient_frames(2, 8, 8))
    with pytest.raises(RllabError, match="no frames"):
        write_video(tmp_path / "video.mp4", [])
    with pytest.raises(RllabError, match="one size"):
        gif_bytes([*gradient_frames(1, 8, 8), *gradient_frames(1, 8, 10)])
    with pytest.raises(RllabError, match="positive number of frames"):
        gif_bytes(gradient_frames(2, 8, 8), fps=0)
