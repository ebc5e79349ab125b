"""Human-normalised scores: 0 at random, 1 for the human, None where nobody knows."""

import pytest

from envs.atari_scores import SCORES, human_normalised


def test_there_are_the_57_games() -> None:
    assert len(SCORES) == 57


@pytest.mark.parametrize("game", SCORES)
def test_play_at_random_is_0_and_the_human_1(game: str) -> None:
    at_random, human = SCORES[game]
    assert human_normalised(game, at_random) == 0
    assert human_normalised(game, human) == 1
    assert human > at_random


def test_pong_at_20_and_breakout_at_415_by_hand() -> None:
    assert human_normalised("pong", 20.0) == pytest.approx((20 + 20.7) / (14.6 + 20.7))  # 1.153
    assert human_normalised("breakout", 415.0) == pytest.approx(413.3 / 28.8)  # 14.35


def test_a_game_without_a_human_score_has_none() -> None:
    assert human_normalised("adventure", 1.0) is None
