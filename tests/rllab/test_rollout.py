"""Batches and rollouts: weighted means, pieces, and what is kept of each field."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import VECTOR, as_experience, make_batch, make_policy, make_rollout

from rllab.nested import leaves_of, map_nested
from rllab.rollout import Batch

NESTED = spaces.Dict({"a": VECTOR, "b": spaces.Tuple((spaces.Discrete(3), spaces.MultiBinary(2)))})


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(-100, 100, width=32), st.booleans()), min_size=1, max_size=40))
def test_a_batchs_mean_is_over_the_steps_that_exist(steps: list[tuple[float, bool]]) -> None:
    values, valid = (torch.tensor(column) for column in zip(*steps, strict=True))
    batch = Batch(observations=values, actions=values, valid=valid)
    exist = [value for value, there in steps if there]
    assert float(batch.mean(values)) == pytest.approx(np.mean(exist) if exist else 0.0, abs=1e-3)


def test_a_mean_is_the_same_over_rows_and_over_their_steps() -> None:
    valid = torch.tensor([[True, True, False], [True, False, False]])
    values = torch.arange(6.0).view(2, 3)
    rows = Batch(observations=values, actions=values, valid=valid)
    assert float(rows.mean(values)) == float(rows.flatten().mean(values.flatten())) == pytest.approx(4 / 3)


@pytest.mark.parametrize("recurrence", ["none", "lstm"])
def test_selecting_entries_takes_them_of_every_field(recurrence: str) -> None:
    policy = make_policy(NESTED, recurrence=recurrence)
    batch = as_experience(policy, make_batch(policy, 4, 3, masked=True))
    index = torch.tensor([2, 0])
    chosen = batch.select(index)
    for field in fields(batch):
        value, part = getattr(batch, field.name), getattr(chosen, field.name)
        assert (value is None) == (part is None)
        if value is not None:
            pairs = zip(leaves_of(part), leaves_of(value), strict=True)
            assert all(torch.equal(one, leaf[index]) for one, leaf in pairs)
    torch.testing.assert_close(policy.evaluate(chosen).value, batch.values[index])


def test_flattening_keeps_rows_in_order_and_drops_what_only_rows_have() -> None:
    policy = make_policy(recurrence="gru")
    rollout = make_rollout(policy, 3, 4)
    rows = rollout.experience(rollout.rewards, rollout.rewards)
    steps = rows.flatten()
    assert torch.equal(steps.advantages, rollout.rewards.reshape(-1))
    assert steps.observations.shape == (12, 5)
    assert steps.starts is None
    assert steps.hidden is None


def test_a_slice_of_a_shuffled_epoch_copies_nothing() -> None:
    policy = make_policy()
    batch = as_experience(policy, make_batch(policy, 6, 5))
    first, second = list(batch.minibatches(15, np.random.default_rng(0)))
    assert first.observations.untyped_storage().data_ptr() == second.observations.untyped_storage().data_ptr()


def test_only_steps_that_exist_are_counted() -> None:
    rollout = make_rollout(make_policy(), 5, 20)
    assert rollout.num_steps == int(rollout.valid.sum()) < 100


def test_relabelling_rewards_leaves_the_environments_own_apart() -> None:
    rollout = make_rollout(make_policy(), 3, 4)
    relabelled = rollout.replace(rewards=rollout.rewards + 1)
    assert torch.equal(relabelled.environment_rewards, rollout.environment_rewards)
    assert torch.equal(relabelled.rewards, rollout.rewards + 1)


def test_a_rollout_keeps_its_statistics_when_it_changes_device() -> None:
    rollout = make_rollout(make_policy(NESTED), 3, 4)
    rollout = replace(rollout, episode_returns=np.array([1.0]), episode_lengths=np.array([3]))
    moved = rollout.to("cpu")
    assert moved.episode_returns is rollout.episode_returns
    assert torch.equal(moved.observations["a"], rollout.observations["a"])


def test_functions_are_applied_to_leaves_side_by_side_whatever_the_order_of_keys() -> None:
    one, other = {"a": 1, "b": (2, 3)}, {"b": (20, 30), "a": 10}
    assert map_nested(lambda x, y: x + y, one, other) == {"a": 11, "b": (22, 33)}
    assert leaves_of(one) == [1, 2, 3]
