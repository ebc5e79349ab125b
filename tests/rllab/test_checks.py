"""What environments send is held against what they promised, and the sentence names environment and step."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from envs.errors import RllabError
from rllab.checks import RolloutChecks

UNIT = spaces.Box(-1.0, 1.0, (2,), np.float32)


def check(
    space: gymnasium.Space[Any], observations: Any, rewards: Any = None, finals: Any = (), *, bounds: bool = True
) -> None:
    rewards = np.zeros((2, 3), np.float32) if rewards is None else rewards
    RolloutChecks(space, bounds)(observations, rewards, list(finals), before=100)


def observed(value: float, at: tuple[int, int, int] = (1, 2, 0)) -> np.ndarray:
    array = np.zeros((2, 4, 2), np.float32)
    array[at] = value
    return array


def test_what_lies_within_bounds_passes_up_to_the_bounds_themselves() -> None:
    check(UNIT, observed(1.0))
    check(UNIT, observed(-1.0))


def test_booleans_have_no_bounds_to_leave() -> None:
    check(spaces.Box(0, 1, (2,), np.bool_), np.ones((2, 4, 2), np.bool_))


def test_an_observation_out_of_bounds_is_named_with_environment_step_value_and_way_out() -> None:
    with pytest.raises(RllabError) as caught:
        check(UNIT, observed(1.5))
    sentence = str(caught.value)
    assert "environment 1" in sentence
    assert "step 102" in sentence  # column 2 was sent by the second step after the first hundred
    assert "1.5 outside its space's bounds [-1, 1]" in sentence
    assert "--no-check-bounds" in sentence
    assert "checkpoint is intact" in sentence


def test_bounds_can_be_left_unchecked_but_nan_is_never_let_pass() -> None:
    check(UNIT, observed(1.5), bounds=False)
    with pytest.raises(RllabError, match=r"environment 1 .*not finite.*step 102"):
        check(UNIT, observed(np.nan), bounds=False)


def test_an_infinite_reward_is_named_with_its_step() -> None:
    rewards = np.zeros((2, 3), np.float32)
    rewards[0, 2] = np.inf
    with pytest.raises(RllabError, match=r"environment 0 gave a reward that is not finite.* at step 103"):
        check(UNIT, observed(0.0), rewards)


def test_a_final_observation_is_checked_like_any_other() -> None:
    with pytest.raises(RllabError, match=r"environment 1 gave a final observation of 3 outside .*step 101"):
        check(UNIT, observed(0.0), finals=[(1, 0, np.array([0, 3], np.float32))])


def test_a_choice_that_does_not_exist_is_out_of_bounds() -> None:
    space = spaces.Discrete(3, start=1)
    check(space, np.array([[1, 2, 3, 1]]), np.zeros((1, 3), np.float32))
    with pytest.raises(RllabError, match=r"observation of 4 outside .*\[1, 3\]"):
        check(space, np.array([[1, 2, 3, 4]]), np.zeros((1, 3), np.float32))


def test_leaves_of_a_nested_observation_have_their_own_bounds() -> None:
    space = spaces.Dict({"wide": spaces.Box(-np.inf, np.inf, (2,)), "narrow": UNIT})
    check(space, {"wide": observed(9.0), "narrow": observed(0.5)})
    with pytest.raises(RllabError, match="outside"):
        check(space, {"wide": observed(0.5), "narrow": observed(9.0)})


def test_a_double_precision_bound_is_rounded_as_its_observations_are() -> None:
    space = spaces.Box(0.0, 0.1, (2,), np.float64)
    check(space, observed(np.float32(0.1)))


def test_bytes_that_fill_their_type_need_no_check() -> None:
    assert RolloutChecks(spaces.Box(0, 255, (2,), np.uint8), True).bounds == {(): None}
    assert RolloutChecks(spaces.Box(0, 7, (2,), np.uint8), True).bounds != {(): None}
