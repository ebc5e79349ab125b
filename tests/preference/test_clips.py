import uuid

import gymnasium
import numpy as np
import pytest
import torch
from clip_makers import make_clip

from envs.make import EnvConfig, make_vector
from preference.clips import ClipCutter, ClipPool, clip_length, clip_of, clip_state, pair_key
from preference.dataset import ClipBatch
from preference.inputs import StepReader
from rllab.collect import EnvCollector
from rllab.policies import ActorCritic
from rllab.rollout import Rollout

READER = StepReader(gymnasium.spaces.Box(-10, 1000, (2,), np.float32), gymnasium.spaces.Discrete(3))
RUN = str(uuid.UUID(int=7))


def rollout(
    row_steps: np.ndarray, done: np.ndarray, valid: np.ndarray | None = None, *, truncated: bool = False
) -> Rollout:
    """A rollout whose observations are (row, step), and whose rewards are the step."""
    rows, columns = row_steps.shape
    observations = np.stack([np.broadcast_to(np.arange(rows)[:, None], row_steps.shape), row_steps], -1)
    steps = torch.from_numpy(row_steps.astype(np.float32))
    ends, none = torch.from_numpy(done), torch.zeros(rows, columns, dtype=torch.bool)
    return Rollout(
        observations=torch.from_numpy(observations.astype(np.float32)),
        actions=torch.from_numpy(row_steps % 3).long(),
        rewards=steps,
        terminated=none if truncated else ends,
        truncated=ends if truncated else none,
        valid=torch.ones_like(none) if valid is None else torch.from_numpy(valid),
        log_probs=steps,
        values=steps,
        next_values=steps,
        environment_rewards=steps,
    )


def steps_of(clips: list) -> list[list[int]]:
    return [clip.arrays["observations"][:, 1].astype(int).tolist() for clip in clips]


def no_ends(rows: int, columns: int) -> np.ndarray:
    return np.zeros((rows, columns), bool)


def test_clips_go_on_from_rollout_to_rollout_without_gap_or_overlap() -> None:
    cutter = ClipCutter(READER, 1, 4, run=RUN)
    first = cutter.cut(rollout(np.arange(6)[None], no_ends(1, 6)), 0)
    second = cutter.cut(rollout(np.arange(6, 12)[None], no_ends(1, 6)), 6)
    assert steps_of(first) == [[0, 1, 2, 3]]
    assert steps_of(second) == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert [clip.policy_step for clip in second] == [6, 6]


def test_an_episodes_last_clip_reaches_back_to_be_whole() -> None:
    done = no_ends(1, 8)
    done[0, 5] = True
    for truncated in (False, True):
        cutter = ClipCutter(READER, 1, 4, run=RUN)
        clips = cutter.cut(rollout(np.array([[0, 1, 2, 3, 4, 5, 0, 1]]), done, truncated=truncated), 0)
        assert steps_of(clips) == [[0, 1, 2, 3], [2, 3, 4, 5]]
        clips = cutter.cut(rollout(np.array([[2, 3]]), no_ends(1, 2)), 8)
        assert steps_of(clips) == [[0, 1, 2, 3]]


def test_reaching_back_goes_beyond_the_rollout() -> None:
    cutter = ClipCutter(READER, 1, 4, run=RUN)
    cutter.cut(rollout(np.arange(5)[None], no_ends(1, 5)), 0)
    done = no_ends(1, 1)
    done[0, 0] = True
    assert steps_of(cutter.cut(rollout(np.array([[5]]), done), 5)) == [[2, 3, 4, 5]]


def test_an_episode_shorter_than_a_clip_is_a_shorter_clip() -> None:
    done = no_ends(1, 5)
    done[0, 2] = True
    clips = ClipCutter(READER, 1, 4, run=RUN).cut(rollout(np.array([[0, 1, 2, 0, 1]]), done), 0)
    assert steps_of(clips) == [[0, 1, 2]]
    batch = ClipBatch.of([*clips, make_like(clips[0], 5)])
    assert batch.valid.tolist() == [[True] * 3 + [False] * 2, [True] * 5]


def make_like(clip, length):
    arrays = {name: np.resize(array, (length, *array.shape[1:])) for name, array in clip.arrays.items()}
    return type(clip)(uuid.uuid4(), arrays)


def test_an_episode_that_ends_with_a_whole_clip_leaves_no_rest() -> None:
    done = no_ends(1, 4)
    done[0, 3] = True
    cutter = ClipCutter(READER, 1, 4, run=RUN)
    assert steps_of(cutter.cut(rollout(np.arange(4)[None], done), 0)) == [[0, 1, 2, 3]]
    assert cutter.cut(rollout(np.arange(3)[None], no_ends(1, 3)), 4) == []


def test_columns_that_only_reset_are_in_no_clip() -> None:
    valid = np.array([[True, True, False, True, True, True]])
    done = no_ends(1, 6)
    done[0, 1] = True
    clips = ClipCutter(READER, 1, 3, run=RUN).cut(rollout(np.array([[0, 1, 99, 0, 1, 2]]), done, valid), 0)
    assert steps_of(clips) == [[0, 1], [0, 1, 2]]


def test_rows_are_kept_apart() -> None:
    clips = ClipCutter(READER, 2, 3, run=RUN).cut(rollout(np.arange(6).reshape(2, 3), no_ends(2, 3)), 0)
    assert [clip.arrays["observations"][:, 0].tolist() for clip in clips] == [[0, 0, 0], [1, 1, 1]]


def test_an_episode_whose_rest_will_not_come_is_in_no_clip_with_the_next() -> None:
    cutter = ClipCutter(READER, 1, 4, run=RUN)
    cutter.cut(rollout(np.arange(6)[None], no_ends(1, 6)), 0)
    cutter.forget()
    clips = cutter.cut(rollout(np.arange(100, 106)[None], no_ends(1, 6)), 6)
    assert steps_of(clips) == [[100, 101, 102, 103]]
    assert clips[0].details["column"] == 6


@pytest.mark.parametrize("at", [1, 5, 9, 13])
def test_a_resumed_cutter_makes_the_same_clips_with_the_same_ids(at: int) -> None:
    generator = np.random.default_rng(at)
    rollouts = []
    for i in range(16):
        done = generator.random((3, 5)) < 0.15
        rollouts.append(rollout(generator.integers(0, 100, (3, 5)) + i, done))
    whole, first, second = (ClipCutter(READER, 3, 7, run=RUN) for _ in range(3))
    expected = [clip for item in rollouts for clip in whole.cut(item, 0)]
    clips = [clip for item in rollouts[:at] for clip in first.cut(item, 0)]
    second.load_state_dict(first.state_dict())
    clips += [clip for item in rollouts[at:] for clip in second.cut(item, 0)]
    assert [clip.id for clip in clips] == [clip.id for clip in expected]
    assert len(expected) > 10
    # Every step of an ended episode is in a clip.
    assert sum(map(len, steps_of(expected))) >= 16 * 15 - 3 * 2 * 7


@pytest.mark.parametrize("vectorization", ["native", "sync"])
def test_next_observations_are_the_true_ones_in_both_autoreset_modes(vectorization: str) -> None:
    config = EnvConfig("CartPole-v1", 4, vectorization)  # type: ignore[arg-type]
    env = make_vector(config)
    policy = ActorCritic(env.single_observation_space, env.single_action_space)
    collector = EnvCollector(env, policy, 60, keep_next=True)
    made = collector.collect(policy)
    dynamics = gymnasium.make("CartPole-v1").unwrapped
    dynamics.reset()
    ended = (made.terminated & made.valid).nonzero()
    assert len(ended) > 3
    assert made.next_observations is not None
    for row, column in [*ended.tolist(), [0, 0], [2, 5]]:
        dynamics.state = made.observations[row, column].double().numpy()
        dynamics.steps_beyond_terminated = None
        expected = dynamics.step(int(made.actions[row, column]))[0]
        np.testing.assert_allclose(made.next_observations[row, column], expected, atol=1e-5)
    env.close()


def test_clip_seconds_are_of_the_environments_own_time() -> None:
    assert clip_length(50, 1.5) == 75
    assert clip_length(0.1) == 1


def test_a_clip_is_as_it_was_after_a_state_tree() -> None:
    clip = make_clip(np.random.default_rng(0))
    again = clip_of(clip_state(clip))
    assert (again.id, again.policy_step, again.details) == (clip.id, clip.policy_step, clip.details)


def test_a_pool_draws_different_clips_and_the_newest_more_often() -> None:
    generator = np.random.default_rng(0)
    pool = ClipPool(40)
    clips = [make_clip(generator) for _ in range(60)]
    pool.add(clips)
    assert len(pool) == 40
    assert pool.draw_pairs(5, generator, 0.0)
    assert ClipPool(3).draw_pairs(5, generator, 0.5) == []
    pairs = [pair for _ in range(400) for pair in pool.draw_pairs(10, generator, 0.5)]
    assert all(first.id != second.id for first, second in pairs)
    newest = {clip.id for clip in clips[-10:]}
    share = np.mean([first.id in newest and second.id in newest for first, second in pairs])
    assert share == pytest.approx(0.5 + 0.5 * (10 / 40) * (9 / 39), abs=0.03)
    oldest = {clip.id for clip in clips[:20]}
    assert not any(clip.id in oldest for pair in pairs for clip in pair)


def test_no_pair_is_drawn_twice_whichever_way_round() -> None:
    generator = np.random.default_rng(0)
    pool = ClipPool(10)
    pool.add([make_clip(generator) for _ in range(5)])
    pairs = pool.draw_pairs(1000, generator, 0.0)
    assert len(pairs) == 5 * 4 / 2
    known = {pair_key(*pair) for pair in pairs[:7]}
    assert {pair_key(*pair) for pair in pool.draw_pairs(1000, generator, 0.0, known)} == {
        pair_key(second, first) for first, second in pairs[7:]
    }


def test_pairs_are_of_one_side_and_a_share_of_them_is_held_out() -> None:
    generator = np.random.default_rng(0)
    pool = ClipPool(100)
    clips = [make_clip(generator, 2) for _ in range(100)]
    pool.add(clips)
    held_out = {clip.id for clip in clips[::4]}
    for newest in (0.0, 0.5, 1.0):
        pairs = [
            pair
            for _ in range(40)
            for pair in pool.draw_pairs(50, generator, newest, held_out=lambda clip: clip.id in held_out, share=0.1)
        ]
        sides = np.array([[clip.id in held_out for clip in pair] for pair in pairs])
        assert (sides[:, 0] == sides[:, 1]).all()
        # Of the 2,000 draws; a few pairs of the small held-out side are drawn twice and count once.
        assert sides[:, 0].mean() == pytest.approx(0.1, abs=0.025)
    few = {clips[0].id}
    pairs = pool.draw_pairs(50, generator, 0.0, held_out=lambda clip: clip.id in few, share=0.5)
    assert pairs
    assert not any(clip.id in few for pair in pairs for clip in pair), "one clip of a side makes no pair"
