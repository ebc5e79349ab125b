"""Alarms sound when reward hacking would look so, and not for noise."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from envs.errors import RllabError
from preference.alarms import AlarmConfig, HackingAlarms, trend
from rllab.state import load_state, save_state

RISING, FALLING, FLAT = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [60.0, 50.0, 40.0, 30.0, 20.0, 10.0], [5.0] * 6


def sentences(
    predicted: Sequence[float],
    true: Sequence[float | None] | None = None,
    accuracy: Sequence[float | None] | None = None,
    alarms: HackingAlarms | None = None,
) -> list[str]:
    alarms = alarms or HackingAlarms()
    nothing = [None] * len(predicted)
    rows = zip(predicted, true or nothing, accuracy or nothing, strict=True)
    return [sentence for row in rows for sentence in alarms.observe(*row)]


def test_a_predicted_return_that_rises_while_the_true_one_falls_is_told_once() -> None:
    (sentence,) = sentences(RISING, FALLING)
    assert "predicted return rises (1 to 4 over 4 evaluations)" in sentence
    assert "the true return falls (60 to 30)" in sentence


def test_a_predicted_return_that_rises_while_accuracy_on_the_newest_pairs_falls_is_told() -> None:
    (sentence,) = sentences(RISING, None, [0.95, 0.9, 0.92, 0.8, 0.7, 0.6])
    assert "accuracy on the newest policy's pairs falls" in sentence


@pytest.mark.parametrize(
    ("predicted", "true"),
    [
        (RISING, RISING),
        (FALLING, FALLING),
        (FALLING, RISING),
        (FLAT, FALLING),
        (RISING, FLAT),
        (RISING[:3], FALLING[:3]),
    ],
)
def test_what_agrees_or_stands_still_or_is_too_short_is_no_alarm(predicted: list[float], true: list[float]) -> None:
    assert sentences(predicted, true) == []


def test_one_bad_evaluation_is_no_trend() -> None:
    assert sentences([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [10.0, 20.0, 30.0, 40.0, 50.0, -500.0]) == []


def test_one_good_evaluation_does_not_hide_a_trend() -> None:
    for index in range(1, 7):
        true = [80.0, 70.0, 60.0, 50.0, 40.0, 30.0, 20.0, 10.0]
        true[index] = 900.0
        alarms = HackingAlarms()
        sentences([*range(8)], true, alarms=alarms)
        assert alarms.active == {"true_return"}


def test_only_the_window_counts() -> None:
    # Long ago the true return rose; within the last six it falls.
    short = AlarmConfig(window=6)
    assert len(sentences([*range(12)], [*range(6), *FALLING], alarms=HackingAlarms(short))) == 1
    # Long ago it fell; within the last six it rises, and the alarm of then has ended.
    alarms = HackingAlarms(short)
    assert len(sentences([*range(12)], [*FALLING, *RISING], alarms=alarms)) == 1
    assert alarms.active == set()


def test_an_alarm_that_ended_sounds_again() -> None:
    true = [*FALLING, *RISING, *FALLING]
    assert len(sentences([*range(18)], true, alarms=HackingAlarms(AlarmConfig(window=6)))) == 2


def test_evaluations_without_a_true_return_are_left_out_of_its_trend() -> None:
    alarms = HackingAlarms(AlarmConfig(window=8))
    true: list[float | None] = [60.0, None, 50.0, None, 40.0, None, 30.0, None]
    assert len(sentences([*range(8)], true, alarms=alarms)) == 1
    assert sentences([*range(6)], true[:6]) == []


def test_noise_seldom_alarms() -> None:
    generator = np.random.default_rng(0)
    count = sum(len(sentences(*generator.standard_normal((2, 8)).tolist())) for _ in range(500))
    # Two independent trends at 5 % each, at five evaluations (of 4 to 8 points): at most 5 · 0.25 % of 500 are expected.
    assert count <= 6.25 + 4 * 2.5


def test_a_spread_above_the_labelled_clips_is_told_until_it_is_back() -> None:
    alarms = HackingAlarms()
    heard = [
        alarms.observe(0.0, rollout_spread=spread, labelled_spread_95=1.0) for spread in (0.9, 1.0, 1.1, 2.0, 0.5, 1.5)
    ]
    assert [len(sentences) for sentences in heard] == [0, 0, 1, 0, 0, 1]
    assert "spread 1.1" in heard[2][0]
    assert "labelled clips (1)" in heard[2][0]
    # Unknown is not over.
    assert alarms.observe(0.0, rollout_spread=None, labelled_spread_95=1.0) == []
    assert alarms.active == {"spread"}


def test_restored_alarms_neither_forget_the_past_nor_repeat_themselves(tmp_path: Path) -> None:
    for split in range(1, 6):
        whole, alarms = HackingAlarms(), HackingAlarms()
        expected = sentences(RISING, FALLING, alarms=whole)
        before = sentences(RISING[:split], FALLING[:split], alarms=alarms)
        save_state(tmp_path, alarms.state_dict())
        restored = HackingAlarms()
        restored.load_state_dict(load_state(tmp_path))
        assert before + sentences(RISING[split:], FALLING[split:], alarms=restored) == expected
        assert restored.active == {"true_return"}


@pytest.mark.parametrize("count", [4, 5, 6, 8])
def test_a_trend_is_kendalls_tau_beyond_chance(count: int) -> None:
    generator = np.random.default_rng(count)
    for _ in range(200):
        values = generator.standard_normal(count)
        rising, falling = (
            scipy.stats.kendalltau(np.arange(count), values, method="exact", alternative=side).pvalue
            for side in ("greater", "less")
        )
        # Near the edge the normal approximation may decide otherwise; elsewhere it must not.
        if rising < 0.045:
            assert trend(list(values)) == 1
        elif falling < 0.045:
            assert trend(list(values)) == -1
        elif min(rising, falling) > 0.055:
            assert trend(list(values)) == 0


def test_a_stair_is_a_trend_and_equal_values_are_none() -> None:
    assert trend([1.0, 1.0, 2.0, 2.0, 3.0, 3.0]) == 1
    assert trend([2.0] * 10) == 0
    assert trend([1.0, 2.0, 3.0]) == 0
    assert trend([4.0, 3.0, 2.0, 1.0]) == -1


@pytest.mark.parametrize(("settings", "words"), [({"window": 3}, "window"), ({"significance": 0.7}, "significance")])
def test_a_setting_outside_its_range_is_named(settings: dict[str, float], words: str) -> None:
    with pytest.raises(RllabError, match=words):
        AlarmConfig(**settings)  # type: ignore[arg-type]
