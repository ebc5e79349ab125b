"""Figures about preferences say what was measured."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from envs.errors import RllabError
from preference.measures import PreferenceMeasures
from preference.plots import plot_ratings, plot_reliability
from preference.ratings import fit_strengths


def measured(count: int, seed: int = 0) -> PreferenceMeasures:
    generator = np.random.default_rng(seed)
    predictions = generator.uniform(size=count)
    return PreferenceMeasures.of(predictions, (generator.uniform(size=count) < predictions).astype(float))


def test_a_reliability_plot_names_its_sets_and_their_errors(tmp_path: Path) -> None:
    old, new = measured(300), measured(40, seed=1)
    drawn = {"old pairs": old, "newest policy": new, "none yet": measured(0)}
    text = plot_reliability(drawn, tmp_path / "reliability.svg", "Pendulum-v1").read_text()
    assert "Pendulum-v1" in text
    assert f"old pairs (300 pairs, error {old.calibration_error:.3f})" in text
    assert f"newest policy (40 pairs, error {new.calibration_error:.3f})" in text
    assert "perfectly calibrated" in text
    assert "none yet" not in text


def test_a_ratings_plot_names_items_and_intervals(tmp_path: Path) -> None:
    ratings = fit_strengths([[0, 3, 4], [2, 0, 3], [1, 1, 0]], ["ppo", "trpo", "reinforce"])
    path = plot_ratings(ratings, tmp_path / "ratings.svg", "Ratings", confidence=0.9)
    text = path.read_text()
    for expected in ("ppo", "trpo", "reinforce", "90 % intervals (14 comparisons)"):
        assert expected in text


def test_both_are_drawn_in_the_labs_colours(tmp_path: Path) -> None:
    reliability = plot_reliability({"old": measured(50)}, tmp_path / "reliability.png")
    ratings = plot_ratings(fit_strengths([[0, 3], [2, 0]]), tmp_path / "ratings.png")
    for path in (reliability, ratings):
        with Image.open(path) as image:
            assert (np.asarray(image.convert("RGB")) == (0, 114, 178)).all(axis=2).any()


def test_nothing_to_draw_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RllabError, match="no comparison"):
        plot_reliability({"old": measured(0)}, tmp_path / "plot.png")
    with pytest.raises(RllabError, match="known format"):
        plot_ratings(fit_strengths([[0, 3], [2, 0]]), tmp_path / "plot.bmp2")
