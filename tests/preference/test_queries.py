import math

import numpy as np
import pytest

from envs.errors import RllabError
from preference.queries import (
    Candidates,
    LabelSchedule,
    coverage,
    disagreement,
    embed,
    entropy,
    parse_mix,
    select,
)


def candidates(count: int = 20, members: int = 3, seed: int = 0, known: int = 0) -> Candidates:
    generator = np.random.default_rng(seed)
    draw = lambda *shape: generator.standard_normal(shape).astype(np.float32)  # noqa: E731
    return Candidates(draw(members, count), draw(count, 4), draw(known, 4))


def test_disagreement_is_the_variance_of_the_predicted_preferences() -> None:
    differences = np.array([[math.log(3), 0.0], [-math.log(3), 0.0]], np.float32)  # P = ¾ and ¼; ½ and ½
    scores = disagreement(Candidates(differences, np.empty((2, 0), np.float32), np.empty((0, 0), np.float32)))
    np.testing.assert_allclose(scores, [1 / 16, 0], atol=1e-7)


def test_entropy_is_that_of_the_mean_prediction() -> None:
    differences = np.array([[math.log(3), 9.0], [-math.log(3), 9.0]], np.float32)
    scores = entropy(Candidates(differences, np.empty((2, 0), np.float32), np.empty((0, 0), np.float32)))
    p = 1 / (1 + math.exp(-9))
    np.testing.assert_allclose(scores, [math.log(2), -p * math.log(p) - (1 - p) * math.log(1 - p)], rtol=1e-3)


def test_coverage_chooses_the_corners_before_anything_between() -> None:
    points = np.array([[0, 0], [0.1, 0], [10, 0], [0, 10], [10, 10], [5, 5.5]], np.float32)
    known = np.array([[0, 0]], np.float32)
    chosen = coverage(Candidates(np.zeros((1, 6), np.float32), points, known), 3)
    assert chosen[0] == 4
    assert set(chosen.tolist()) == {2, 3, 4}


def test_coverage_with_nothing_known_begins_in_the_middle_and_repeats_nothing() -> None:
    given = candidates(12)
    chosen = coverage(given, 12)
    assert sorted(chosen.tolist()) == list(range(12))
    middle = np.square(given.embeddings - given.embeddings.mean(axis=0)).sum(axis=1).argmin()
    assert chosen[0] == middle


def test_a_mix_takes_each_strategys_share_and_no_pair_twice() -> None:
    given = candidates(200, known=3)
    mix = parse_mix("disagreement:2,uniform:1,coverage:1")
    chosen = select(given, 41, mix, np.random.default_rng(0))
    names = [name for _, name in chosen]
    assert len({index for index, _ in chosen}) == 41
    assert (names.count("disagreement"), names.count("uniform"), names.count("coverage")) in {
        (21, 10, 10),
        (20, 11, 10),
    }
    best = np.argsort(-disagreement(given))[: names.count("disagreement")]
    assert {index for index, name in chosen if name == "disagreement"} == set(best.tolist())


def test_there_are_never_more_questions_than_candidates() -> None:
    assert len(select(candidates(5), 9, {"uniform": 1.0}, np.random.default_rng(0))) == 5


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("boldness", "no query strategy 'boldness'"), ("uniform:lots", "must be a number"), ("uniform:-1", "above 0")],
)
def test_a_mix_that_is_none_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(RllabError, match=sentence):
        parse_mix(text)


def test_the_schedule_begins_with_a_quarter_and_ends_with_all() -> None:
    schedule = LabelSchedule(700, 1_000_000)
    assert schedule.initial == schedule.due(0) == 175
    assert schedule.due(1_000_000) == schedule.due(10**9) == 700
    assert schedule.due(999_999) < 700


def test_the_first_questions_are_fewer_where_their_clips_would_take_more_than_a_tenth_of_the_steps() -> None:
    hopper = LabelSchedule(1400, 300_000, clip_steps=188)
    assert hopper.initial == hopper.due(0) == 159, "159 clips of 188 steps are the most in 30,000 steps"
    assert hopper.steps_before_learning == 30_000
    assert hopper.due(300_000) == 1400
    cheetah = LabelSchedule(1400, 300_000, clip_steps=30)
    assert cheetah.initial == 350
    assert cheetah.steps_before_learning == 2 * 350 * 30
    assert LabelSchedule(10, 100_000, clip_steps=10).steps_before_learning == 5_000, "a wider choice"
    assert LabelSchedule(10, 100, clip_steps=50).initial == 1


def test_the_rate_of_labels_falls_as_c_over_t_plus_c() -> None:
    schedule = LabelSchedule(10**8, 8_000_000, decay=2e6)
    at = lambda steps: (schedule.due(steps + 1000) - schedule.due(steps)) / 1000  # noqa: E731
    assert at(2_000_000) / at(0) == pytest.approx(2e6 / 4e6, rel=2e-3)
    assert at(6_000_000) / at(0) == pytest.approx(2e6 / 8e6, rel=2e-3)


@pytest.mark.parametrize(
    "wrong", [{"labels": 0}, {"initial_share": 0.0}, {"initial_share": 1.5}, {"decay": 0.0}]
)  # fmt: skip
def test_a_schedule_that_cannot_be_kept_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RllabError):
        LabelSchedule(**{"labels": 10, "steps": 100, **wrong})  # type: ignore[arg-type]


def test_a_pairs_point_is_both_of_its_clips() -> None:
    means = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    np.testing.assert_array_equal(embed(means, [(0, 2), (1, 0)]), [[1, 2, 5, 6], [3, 4, 1, 2]])
