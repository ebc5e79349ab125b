"""Teachers answer as their configuration says, and only as often wrongly as it says."""

import json
import math
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.errors import RllabError
from preference.comparisons import Clip, Label
from preference.teachers import TEACHERS, FileTeacher, SyntheticTeacher, TeacherConfig
from rllab.state import load_state, save_state

FIRST, SECOND, TIE, SKIP = Label.FIRST, Label.SECOND, Label.TIE, Label.SKIP


def clip(*rewards: float) -> Clip:
    steps = np.array(rewards)
    return Clip(uuid.uuid4(), {"observations": steps, "actions": steps, "rewards": steps})


def pairs_of(returns: Sequence[tuple[float, float]]) -> list[tuple[Clip, Clip]]:
    return [(clip(first), clip(second)) for first, second in returns]


def teacher(config: TeacherConfig | str, seed: int = 0) -> SyntheticTeacher:
    return SyntheticTeacher(TEACHERS[config] if isinstance(config, str) else config, np.random.default_rng(seed))


def answers(config: TeacherConfig | str, returns: Sequence[tuple[float, float]], seed: int = 0) -> list[Label]:
    return teacher(config, seed).label(pairs_of(returns))


def share_within_four_deviations(share: float, expected: float, count: int) -> bool:
    return abs(share - expected) <= 4.0 * math.sqrt(expected * (1.0 - expected) / count)


def test_the_oracle_prefers_the_larger_sum_of_rewards() -> None:
    pairs = [(clip(1, 2, 3), clip(2, 2, 1)), (clip(-5, 0), clip(0, -4)), (clip(0.5), clip(0.5))]
    labels = teacher("oracle").label(pairs)
    assert labels == [FIRST, SECOND, TIE]
    assert all(type(label) is Label for label in labels)


def test_equal_rewards_in_another_order_are_a_tie_though_their_sums_round_differently() -> None:
    forward, backward = (0.1, 0.2, 0.3), (0.3, 0.2, 0.1)
    assert sum(forward) != sum(backward)
    assert teacher("oracle").label([(clip(*forward), clip(*backward))]) == [TIE]


def test_a_small_true_difference_is_no_tie() -> None:
    assert answers("oracle", [(1000.0, 1000.0 + 1e-6)]) == [SECOND]


@pytest.mark.parametrize("name", ["oracle", "boltzmann", "myopic", "mistake"])
def test_an_exact_tie_is_never_a_coin_flip(name: str) -> None:
    assert set(answers(name, [(2.0, 2.0)] * 200)) == {TIE}


@pytest.mark.parametrize(("rationality", "difference"), [(1.0, 0.5), (2.0, 0.5), (1.0, -2.0), (0.0, 3.0)])
def test_a_boltzmann_teacher_prefers_the_first_with_the_logistic_probability(
    rationality: float, difference: float
) -> None:
    count = 20_000
    labels = answers(TeacherConfig(rationality=rationality), [(difference, 0.0)] * count)
    expected = 1.0 / (1.0 + math.exp(-rationality * difference))
    assert share_within_four_deviations(labels.count(FIRST) / count, expected, count)
    assert labels.count(FIRST) + labels.count(SECOND) == count


def test_a_boltzmann_teacher_survives_any_difference() -> None:
    assert answers(TeacherConfig(rationality=1e3), [(1e9, -1e9), (-1e9, 1e9)]) == [FIRST, SECOND]


def test_a_myopic_teacher_weighs_a_step_by_the_discount_to_the_power_of_steps_left() -> None:
    # γ = ½: the first is worth 4/4 + 0 + 0 = 1, the second 0 + 0 + b. Its break-even is at b = 1, an oracle's at 4.
    config = TeacherConfig(discount=0.5)
    early = clip(4.0, 0.0, 0.0)
    pairs = [(early, clip(0.0, 0.0, late)) for late in (0.99, 1.0, 1.01)]
    assert teacher(config).label(pairs) == [FIRST, TIE, SECOND]
    assert teacher("oracle").label(pairs) == [FIRST, FIRST, FIRST]


def test_a_myopic_teacher_counts_the_last_step_of_a_shorter_clip_in_full() -> None:
    # γ = ½: 1 against 1 + ½ + ¼ · 0 = 1.5 and against ¼ + 0 + 0.
    pairs = [(clip(1.0), clip(0.0, 1.0, 1.0)), (clip(1.0), clip(1.0, 0.0, 0.0))]
    assert teacher(TeacherConfig(discount=0.5)).label(pairs) == [SECOND, FIRST]


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 1.0])
def test_mistakes_are_a_share_epsilon_and_not_its_square(rate: float) -> None:
    count = 40_000
    labels = answers(TeacherConfig(mistake_rate=rate), [(1.0, 0.0), (0.0, 1.0)] * (count // 2))
    wrong = labels[::2].count(SECOND) + labels[1::2].count(FIRST)
    assert share_within_four_deviations(wrong / count, rate, count)
    assert labels.count(TIE) == 0


def test_mistakes_make_no_tie_or_skip_into_a_preference() -> None:
    config = TeacherConfig(mistake_rate=1.0, skip_below=1.0, equal_within=0.5, threshold_unit="reward")
    assert answers(config, [(0.5, 0.2), (2.0, 2.3), (3.0, 2.0)]) == [SKIP, TIE, SECOND]


def test_a_pair_is_skipped_only_if_both_returns_are_below_the_threshold() -> None:
    config = TeacherConfig(skip_below=1.0, threshold_unit="reward")
    assert answers(config, [(0.9, 0.5), (1.0, 0.5), (0.5, 2.0)]) == [SKIP, FIRST, SECOND]


def test_thresholds_in_rewards_may_be_negative() -> None:
    config = TeacherConfig(skip_below=-10.0, threshold_unit="reward")
    assert answers(config, [(-12.0, -11.0), (-9.0, -20.0)]) == [SKIP, FIRST]


def test_returns_closer_than_the_threshold_are_a_tie() -> None:
    config = TeacherConfig(equal_within=0.5, threshold_unit="reward")
    assert answers(config, [(1.0, 1.25), (1.0, 1.5), (1.5, 1.25)]) == [TIE, SECOND, TIE]


def test_thresholds_are_of_undiscounted_returns_even_if_the_teacher_is_myopic() -> None:
    # Discounted, 4 early and 1 late would be equal; undiscounted they differ by 3.
    config = TeacherConfig(discount=0.5, equal_within=1.0, threshold_unit="reward")
    assert teacher(config).label([(clip(4.0, 0.0, 0.0), clip(0.0, 0.0, 2.0))]) == [SECOND]
    assert teacher(config).label([(clip(4.0, 0.0, 0.0), clip(0.0, 0.0, 3.5))]) == [TIE]


def test_relative_thresholds_are_shares_of_the_mean_return_of_the_clips_so_far() -> None:
    # After the second pair the mean is (10 + 10 + 1 + 3) / 4 = 6, so that 10 % of it is 0.6 and half of it is 3.
    pairs = [(10.0, 10.0), (1.0, 3.0)]
    assert answers(TeacherConfig(skip_below=0.1), pairs)[1] is SECOND
    assert answers(TeacherConfig(skip_below=0.51), pairs)[1] is SKIP
    assert answers(TeacherConfig(equal_within=0.33), pairs)[1] is SECOND
    assert answers(TeacherConfig(equal_within=0.34), pairs)[1] is TIE


def test_relative_thresholds_are_applied_once_at_every_call_and_not_squared_later() -> None:
    # A tenth of the mean, 100, is 10; a tenth of a tenth would be 1.
    asked = teacher("equal")
    for _ in range(3):
        assert asked.label(pairs_of([(98.0, 102.0), (90.0, 110.0)])) == [TIE, SECOND]


def test_the_mean_forgets_all_but_the_recent_clips() -> None:
    config = TeacherConfig(equal_within=0.1, recent_clips=4)
    old, new = [(1000.0, 1000.0)] * 10, [(9.0, 11.0)] * 3
    # With old clips in it the mean is above 500 and 2 is nothing; once they are gone it is 10, and 2 is more than 1.
    assert answers(config, old + new)[-3:] == [TIE, SECOND, SECOND]


def test_where_mean_returns_are_negative_nothing_is_skipped_and_ties_use_their_magnitude() -> None:
    assert answers(TeacherConfig(skip_below=0.1), [(-100.0, -90.0)]) == [SECOND]
    assert answers(TeacherConfig(equal_within=0.1), [(-100.0, -95.0), (-100.0, -80.0)]) == [TIE, SECOND]


def mixed() -> TeacherConfig:
    return TeacherConfig(rationality=0.5, discount=0.9, mistake_rate=0.2, skip_below=0.5, equal_within=0.2)


def test_the_answers_do_not_depend_on_how_the_questions_are_divided_into_calls() -> None:
    generator = np.random.default_rng(3)
    pairs = [(clip(*generator.random(5)), clip(*generator.random(generator.integers(1, 9)))) for _ in range(300)]
    whole = teacher(mixed()).label(pairs)
    divided = teacher(mixed())
    parts = [divided.label(pairs[start:end]) for start, end in ((0, 1), (1, 1), (1, 120), (120, 300))]
    assert [label for part in parts for label in part] == whole
    assert set(whole) == set(Label)


def test_a_restored_teacher_goes_on_with_the_same_answers(tmp_path: Path) -> None:
    pairs = pairs_of([tuple(row) for row in np.random.default_rng(4).normal(3.0, 2.0, (400, 2))])
    asked = teacher(mixed())
    asked.label(pairs[:200])
    save_state(tmp_path, asked.state_dict())
    expected = asked.label(pairs[200:])
    restored = teacher(mixed(), seed=99)
    restored.load_state_dict(load_state(tmp_path))
    assert restored.label(pairs[200:]) == expected


def test_the_presets_have_the_values_of_the_paper() -> None:
    changed = {
        name: {field: value for field, value in vars(config).items() if value != getattr(TeacherConfig(), field)}
        for name, config in TEACHERS.items()
    }
    assert changed == {
        "oracle": {},
        "boltzmann": {"rationality": 1.0},
        "myopic": {"discount": 0.9},
        "mistake": {"mistake_rate": 0.1},
        "skip": {"skip_below": 0.1},
        "equal": {"equal_within": 0.1},
    }


def test_no_pairs_have_no_labels() -> None:
    assert teacher("skip").label([]) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rationality": -1.0}, "rationality"),
        ({"discount": 0.0}, "discount"),
        ({"discount": 1.1}, "discount"),
        ({"mistake_rate": 1.5}, "mistake_rate"),
        ({"equal_within": -0.1}, "equal_within"),
        ({"skip_below": math.nan}, "skip_below"),
        ({"threshold_unit": "metres"}, "threshold_unit"),
        ({"recent_clips": 0}, "recent_clips"),
    ],
)
def test_a_setting_outside_its_range_is_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(RllabError, match=words):
        replace(TeacherConfig(), **settings)


def test_a_clip_without_usable_rewards_is_named() -> None:
    bare = Clip(uuid.uuid4(), {"actions": np.zeros(3)})
    with pytest.raises(RllabError, match=str(bare.id)):
        teacher("oracle").label([(clip(1.0), bare)])
    broken = clip(0.0, math.nan)
    with pytest.raises(RllabError, match=f"{broken.id}.*not finite"):
        teacher("oracle").label([(clip(1.0, 2.0), clip(3.0)), (broken, clip(1.0))])


def answer_file(path: Path, *lines: str | dict[str, Any]) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def entry(first: Clip, second: Clip, label: str, **more: Any) -> dict[str, Any]:
    return {"first": str(first.id), "second": str(second.id), "label": label, **more}


def test_a_file_answers_for_its_pairs_in_both_orders_and_the_others_are_skipped_and_counted(tmp_path: Path) -> None:
    a, b, c, d = (clip(0.0) for _ in range(4))
    path = answer_file(
        tmp_path / "answers.jsonl",
        entry(a, b, "first", annotator="Ada"), "", entry(b, c, "tie"), entry(c, d, "skip"), entry(b, a, "second"),
    )  # fmt: skip
    asked = FileTeacher(path)
    assert len(asked) == 3
    labels = asked.label([(a, b), (b, a), (b, c), (c, b), (d, c), (a, c)])
    assert labels == [FIRST, SECOND, TIE, TIE, SKIP, SKIP]
    assert asked.unknown == 1
    again = FileTeacher(path)
    again.load_state_dict(asked.state_dict())
    assert again.unknown == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{not JSON", "not JSON"),
        ("[1, 2]", "must be an object"),
        ({"first": str(uuid.uuid4()), "label": "first"}, "must be an object"),
        ({"first": "clip 1", "second": str(uuid.uuid4()), "label": "first"}, "ids of clips"),
        ({"first": 7, "second": str(uuid.uuid4()), "label": "first"}, "ids of clips"),
        ({"first": str(uuid.UUID(int=1)), "second": str(uuid.UUID(int=1)), "label": "tie"}, "with itself"),
        ({"first": str(uuid.uuid4()), "second": str(uuid.uuid4()), "label": "left"}, '"first", "second".*not \'left\''),
        ({"first": str(uuid.uuid4()), "second": str(uuid.uuid4()), "label": None}, "not None"),
    ],
)
def test_a_line_that_is_no_answer_is_told_by_its_number(tmp_path: Path, line: str | dict[str, Any], words: str) -> None:
    path = answer_file(tmp_path / "answers.jsonl", entry(clip(0.0), clip(0.0), "first"), line)
    with pytest.raises(RllabError, match=f"line 2.*{words}"):
        FileTeacher(path)


def test_a_line_that_contradicts_another_names_both(tmp_path: Path) -> None:
    a, b = clip(0.0), clip(0.0)
    path = answer_file(tmp_path / "answers.jsonl", "", entry(a, b, "first"), entry(b, a, "first"))
    with pytest.raises(RllabError, match="line 3.*line 2"):
        FileTeacher(path)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RllabError, match="cannot be read"):
        FileTeacher(tmp_path / "nowhere.jsonl")
