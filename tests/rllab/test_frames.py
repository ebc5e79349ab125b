"""Stacks of frames stored once: equal to the whole stacks, and four times smaller."""

import numpy as np
import pytest
import torch

from rllab.frames import FrameStacks
from rllab.observations import StackedObservations, WholeObservations

ROWS, STEPS, DEPTH = 3, 40, 4


def episodes(clears: bool, seed: int = 0):
    """Observations `[N, 4, 2, 2]` of each column as an environment shows them, and which rows began an episode."""
    rng = np.random.default_rng(seed)
    stack = rng.integers(0, 256, (ROWS, DEPTH, 2, 2), np.uint8)
    yield stack.copy(), np.ones(ROWS, bool)
    for _ in range(STEPS):
        began = rng.random(ROWS) < 0.2
        newest = rng.integers(0, 256, (ROWS, 1, 2, 2), np.uint8)
        stack = np.concatenate([stack[:, 1:], newest], axis=1)
        if clears:
            stack[began, :-1] = 0
        yield stack.copy(), began


@pytest.mark.parametrize("clears", [True, False])
def test_stacks_stored_once_are_the_stacks_that_were_shown(clears):
    columns = list(episodes(clears))
    stacked = StackedObservations(columns[0][0], STEPS)
    whole = WholeObservations(columns[0][0], STEPS)
    for column, (observations, began) in enumerate(columns[1:], start=1):
        stacked.write(column, observations, began)
        whole.write(column, observations, began)
        assert (stacked.latest == observations).all()
    assert torch.equal(stacked.finish().pixels(), whole.finish())


def test_a_rollout_without_ends_holds_each_frame_once():
    columns = [observations for observations, _ in episodes(clears=False)]
    buffer = StackedObservations(columns[0], STEPS)
    for column, observations in enumerate(columns[1:], start=1):
        buffer.write(column, observations, None)
    assert len(buffer.finish().frames) == ROWS * (STEPS + DEPTH)


def test_more_ends_than_there_was_room_for_are_stored_all_the_same():
    columns = [observations for observations, _ in episodes(clears=False)]
    buffer = StackedObservations(columns[0], STEPS)
    for column, observations in enumerate(columns[1:], start=1):
        buffer.write(column, observations, np.ones(ROWS, bool))
    expected = torch.from_numpy(np.stack(columns, axis=1))
    assert torch.equal(buffer.finish().pixels(), expected)


def test_frame_stacks_are_indexed_and_flattened_as_the_tensor_they_stand_for():
    frames = torch.randint(0, 256, (20, 5, 6), dtype=torch.uint8)
    stacks = FrameStacks(frames, torch.randint(0, 20, (3, 7, 4)))
    tensor = stacks.pixels()
    assert stacks.shape == tensor.shape == (3, 7, 4, 5, 6)
    assert stacks.dtype == tensor.dtype
    assert len(stacks) == 3
    permutation = torch.randperm(21)
    assert torch.equal(stacks.flatten(0, 1)[permutation].pixels(), tensor.flatten(0, 1)[permutation])
    assert torch.equal(stacks[:, 2:5].pixels(), tensor[:, 2:5])


def test_a_rollout_of_eight_by_128_steps_takes_well_under_60_megabytes():
    first = np.zeros((8, 4, 84, 84), np.uint8)
    buffer = StackedObservations(first, 128)
    for column in range(1, 129):
        buffer.write(column, first, None)
    assert buffer.finish().nbytes < 8e6  # whole stacks would take 29 MB, floats 117
