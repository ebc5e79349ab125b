"""What people see of a clip: its own frames, drawn later and elsewhere, without the score."""

import os
import signal
import time
import uuid
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from envs.config import EnvConfig
from envs.errors import RllabError
from envs.make import make_single, make_vector, reset
from envs.render import frames_of
from envs.renderers import prepare_rendering
from envs.snapshot import capture
from preference.frame_worker import FrameWorker
from preference.frames import decode_sheet, draw, draw_sheet, encode_sheet, frames_per_second
from preference.origins import Origin
from preference.score_regions import GAMES, blank, blank_observations, missing_regions, visible

PATIENCE = 60.0
"""Seconds after which a process that draws has failed."""


def clip_of(config, row=1, before=30, first=25, steps=20):
    """The origin and the observations `[L, *obs]` of a clip that nobody has drawn yet."""
    vector_env = make_vector(config)
    reset(vector_env, 3)
    vector_env.action_space.seed(3)
    for _ in range(before):
        vector_env.step(vector_env.action_space.sample())
    snapshot, actions, observations = capture(vector_env), [], []
    for _ in range(first + steps):
        actions.append(vector_env.action_space.sample())
        observations.append(np.copy(vector_env.step(actions[-1])[0][row]))
    vector_env.close()
    # What step k left is what the action of column k + 1 saw.
    seen = np.array(observations[first - 1 : first - 1 + steps])
    return Origin.of(config, snapshot, np.stack(actions, axis=1), row, first, steps), seen


def can_draw(id):
    from envs.registry import find_spec

    try:
        prepare_rendering(find_spec(id), "rgb_array")
    except RllabError:
        return False
    return True


@pytest.mark.parametrize(
    "config",
    [
        EnvConfig("CartPole-v1", 3, "native"),
        EnvConfig("CartPole-v1", 3, "sync"),
        EnvConfig("CartPole-v1", 3, "sync", "next_step"),
        EnvConfig("CartPole-v1", 3, termination="restart"),
        EnvConfig("Pendulum-v1", 2),
        EnvConfig("Hopper-v5", 2),
        EnvConfig("ALE/Pong-v5", 2, workers=1),
        EnvConfig("PongNoFrameskip-v4", 1, termination="restart"),
    ],
    ids=lambda config: f"{config.id}-{config.vectorization}-{config.autoreset}-{config.termination}",
)
def test_a_clip_played_again_shows_what_it_observed(config):
    if not can_draw(config.id):
        pytest.skip("MuJoCo has nothing to draw by")
    # Random play ends many an episode of CartPole before and in these steps.
    steps = 20 if "Pong" not in config.id else 8
    origin, observations = clip_of(config, row=config.num_envs - 1, steps=steps)
    stored = Origin.from_bytes(origin.to_bytes())
    frames = draw(stored, 64, observations)
    assert frames.shape[:2] == (steps, 64)
    assert frames.dtype == np.uint8
    assert len({frame.tobytes() for frame in frames}) > steps / 2
    if "Pong" in config.id:
        assert (frames[:, :7] == 0).all(), "the score is shown"
        assert (frames[:, 8:] != 0).any()


def test_a_clip_that_goes_another_way_when_it_is_played_again_is_refused():
    origin, observations = clip_of(EnvConfig("Pendulum-v1", 2))
    observations[19] += 1e-6
    with pytest.raises(RllabError, match="led elsewhere at its step 19"):
        draw(origin, 64, observations)


@pytest.mark.parametrize("vectorization", ["native", "sync"])
def test_frames_are_those_of_each_steps_state_before_its_action(vectorization):
    origin, observations = clip_of(EnvConfig("CartPole-v1", 2, vectorization))
    env = make_single(EnvConfig("CartPole-v1"), render_mode="rgb_array")
    env.reset(seed=0)
    for frame, observation in zip(draw(origin), observations, strict=True):
        env.unwrapped.state = observation.astype(float)
        # Half a pixel may lie between a state and itself in single precision.
        assert (frame != frames_of(env)[0]).mean() < 0.002


def test_a_clip_may_begin_at_its_snapshot():
    vector_env = make_vector(EnvConfig("CartPole-v1", 2, "sync"))
    first, _ = reset(vector_env, 0)
    origin = Origin.of(EnvConfig("CartPole-v1", 2, "sync"), capture(vector_env), np.zeros((2, 1), int), 1, 0, 1)
    assert draw(origin, observations=first[1:2]).shape == (1, 400, 600, 3)


def test_the_next_steps_reset_is_a_column_like_any_other():
    config = EnvConfig("CartPole-v1", 2, "native", max_episode_steps=7)
    origin, observations = clip_of(config, before=5, first=1, steps=30)
    draw(origin, 32, observations)


def test_the_origin_of_a_row_that_stands_alone_holds_nothing_of_the_others():
    origin, _ = clip_of(EnvConfig("Pendulum-v1", 6), row=4)
    assert origin.actions.shape == (1, 44, 1)
    assert list(origin.snapshot["environments"]) == ["0"]
    assert len(origin.to_bytes()) < 3000


@pytest.mark.parametrize(("row", "first", "steps"), [(2, 0, 1), (-1, 0, 1), (0, 0, 0), (0, -1, 2), (0, 5, 7)])
def test_a_clip_outside_of_its_actions_is_refused(row, first, steps):
    with pytest.raises(RllabError, match="is not among actions of shape"):
        Origin.of(EnvConfig("Pendulum-v1", 2), {"environments": {}}, np.zeros((2, 10, 1)), row, first, steps)


def test_environments_without_snapshots_are_refused():
    with pytest.raises(RllabError, match="take no snapshots"):
        Origin.of(EnvConfig("CartPole-v1", 2, "envpool"), {"native": None}, np.zeros((2, 10)), 0, 0, 5)


@pytest.mark.parametrize("damage", [b"", b"nothing", lambda data: data[:-9], lambda data: b"x" + data])
def test_a_damaged_origin_is_refused(damage):
    data = clip_of(EnvConfig("Pendulum-v1", 2))[0].to_bytes()
    with pytest.raises(RllabError, match="damaged"):
        Origin.from_bytes(damage(data) if callable(damage) else damage)


def test_a_clip_runs_at_the_environments_own_speed():
    assert frames_per_second(EnvConfig("CartPole-v1")) == 50
    assert frames_per_second(EnvConfig("ALE/Pong-v5")) == 15


def moving_square(count, height=48, width=64):
    frames = np.full((count, height, width, 3), 200, np.uint8)
    for index, frame in enumerate(frames):
        frame[8:24, index % 40 : index % 40 + 16] = (20, 120, 30)
    return frames


@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_a_sheet_gives_back_its_frames_in_order(count):
    frames = moving_square(count)
    data, metadata = encode_sheet(frames, quality=90, fps=12.5)
    assert data[8:12] == b"WEBP"
    assert metadata == {"width": 64, "height": 48, "count": count, "columns": metadata["columns"], "fps": 12.5}
    decoded = decode_sheet(data, metadata)
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames).mean() < 4


@pytest.mark.parametrize(("count", "height", "width"), [(40, 1000, 40), (40, 40, 1000), (3, 16000, 2), (3, 2, 16000)])
def test_a_sheet_stays_within_webps_16383_pixels_a_side(count, height, width):
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[-1] = 255
    data, metadata = encode_sheet(frames, quality=0)
    with Image.open(BytesIO(data)) as image:
        assert max(image.size) <= 16_383
    decoded = decode_sheet(data, metadata)
    assert decoded[-1].min() > 200
    assert decoded[0].max() < 55


@pytest.mark.parametrize("shape", [(2, 16_000, 9_000, 3), (1, 2, 16_384, 3), (0, 8, 8, 3), (4, 8, 8)])
def test_frames_that_no_sheet_holds_are_refused(shape):
    with pytest.raises(RllabError, match="do not fit|A sheet is made of"):
        encode_sheet(np.broadcast_to(np.uint8(0), shape))


def test_a_damaged_sheet_is_refused():
    data, metadata = encode_sheet(moving_square(4))
    for wrong, about in ((data[:50], metadata), (b"", metadata), (data, metadata | {"count": 900}), (data, {})):
        with pytest.raises(RllabError, match="damaged"):
            decode_sheet(wrong, about)


def collect(worker, count):
    """What a worker has drawn, when it has drawn so many."""
    drawn, deadline = [], time.monotonic() + PATIENCE
    while len(drawn) < count:
        assert time.monotonic() < deadline, "the worker does not answer"
        drawn += worker.poll()
        time.sleep(0.005)
    return drawn


def test_a_worker_draws_in_its_process_what_is_drawn_here_and_tells_what_it_cannot():
    origin, observations = clip_of(EnvConfig("Pendulum-v1", 2), steps=5)
    impossible = replace(origin, env=replace(origin.env, id="toy_environments:NoSuch-v0"))
    ids = [uuid.uuid4() for _ in range(3)]
    worker = FrameWorker(height=64)
    try:
        assert worker.poll() == []
        worker.submit(ids[0], origin, observations)
        worker.submit(ids[1], impossible)
        worker.submit(ids[2], origin)
        assert worker.pending == 3
        drawn = collect(worker, 3)
    finally:
        worker.close()
    assert [clip_id for clip_id, _ in drawn] == ids
    assert worker.pending == 0
    for index in (0, 2):
        np.testing.assert_array_equal(drawn[index][1], draw(origin, 64))
    assert isinstance(drawn[1][1], str)
    assert "NoSuch" in drawn[1][1]
    with pytest.raises(RllabError, match="closed"):
        worker.submit(ids[0], origin)


def test_a_worker_that_is_killed_costs_one_clip_and_is_started_again():
    origin, _ = clip_of(EnvConfig("Pendulum-v1", 2), steps=5)
    worker = FrameWorker(height=64, quality=60)
    try:
        worker.submit(uuid.uuid4(), origin)
        first = collect(worker, 1)[0][1]
        os.kill(worker._process._popen.pid, signal.SIGKILL)
        worker.submit(uuid.uuid4(), origin)
        assert "was killed by SIGKILL" in collect(worker, 1)[0][1]
        worker.submit(uuid.uuid4(), origin)
        assert collect(worker, 1)[0][1] == first == draw_sheet(origin, 64, 60)
    finally:
        worker.close()


# Bytes of the console's memory with points: where they are was found by changing each and looking at the picture.
SCORES = {"pong": (13, 14), "breakout": (76, 77), "ms_pacman": (120, 121)}


@pytest.mark.parametrize("game", SCORES)
def test_two_scores_look_the_same(game):
    camel = "".join(part.capitalize() for part in game.split("_"))
    env = make_single(EnvConfig(f"{camel}NoFrameskip-v4", 1), render_mode="rgb_array")

    def screens(points):
        env.reset(seed=0)
        for _ in range(4):
            for byte in SCORES[game]:
                env.unwrapped.ale.setRAM(byte, points)
            observation = env.step(0)[0]
        return frames_of(env)[0], observation

    (frame, observation), (other_frame, other_observation) = screens(1), screens(3)
    assert (frame != other_frame).any(), "the score is not to be seen at all"
    assert (observation != other_observation).any()
    np.testing.assert_array_equal(blank(frame, game), blank(other_frame, game))
    np.testing.assert_array_equal(blank_observations(observation, game), blank_observations(other_observation, game))


@pytest.mark.parametrize("game", sorted(GAMES))
def test_most_of_a_game_stays_visible_at_any_size(game):
    for height, width in ((84, 84), (210, 160), (256, 195)):
        assert 0.7 < visible(game, height, width).mean() < 0.98


def test_painted_over_is_copied_and_the_rest_as_it_was():
    frames = np.full((2, 210, 160, 3), 77, np.uint8)
    painted = blank(frames, "pong")
    assert (frames == 77).all()
    assert (painted[:, :24] == 0).all()
    assert (painted[:, 24:] == 77).all()
    stack = blank_observations(np.full((5, 4, 84, 84), 9, np.uint8), "pong")
    np.testing.assert_array_equal(stack[0, 0, :, 0], np.repeat([0, 9], [10, 74]))


def test_a_game_whose_score_is_not_known_is_warned_of():
    frames = np.full((1, 210, 160, 3), 77, np.uint8)
    with pytest.warns(UserWarning, match="Where 'adventure' shows its score is not known"):
        np.testing.assert_array_equal(blank(frames, "adventure"), frames)
    assert "adventure" in missing_regions("adventure")
    assert missing_regions("pong") is None
