"""Plots show what the metrics say, and say so themselves."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from envs.errors import RllabError
from rllab.plots import plot_comparison, plot_run

Rows = list[dict[str, float]]


def run(final: float, length: int = 30, seconds_per_row: float = 1.0) -> Rows:
    return [
        {
            "steps": 1000.0 * i,
            "seconds": seconds_per_row * i,
            "return_mean": final * i / length,
            "loss/value_loss": 1 / i,
        }
        for i in range(1, length + 1)
    ]


def drawn_text(path: Path) -> str:
    """Of an SVG: matplotlib draws letters as outlines and puts the words beside them as comments."""
    return path.read_text()


def colours(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as image:
        return {tuple(pixel) for pixel in np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0).tolist()}


def test_a_comparison_draws_both_axes_and_every_label(tmp_path: Path) -> None:
    groups = {"ppo": [run(400.0), run(500.0)], "trpo": [run(300.0)]}
    path = plot_comparison(groups, tmp_path / "made" / "plot.svg", "CartPole-v1")
    text = drawn_text(path)
    for expected in (
        "CartPole-v1",
        "Environment steps",
        "Wall-clock time (seconds)",
        "ppo (2 seeds)",
        "trpo (1 seed)",
        "mean of the last 500 steps",
        "95 % bootstrap interval",
    ):
        assert expected in text


def test_each_method_has_its_own_colour(tmp_path: Path) -> None:
    path = plot_comparison({"ppo": [run(400.0)], "trpo": [run(300.0)]}, tmp_path / "plot.png")
    assert {(0, 114, 178), (213, 94, 0)} <= colours(path)


@pytest.mark.parametrize(("seconds_per_row", "unit"), [(1.0, "seconds"), (60.0, "minutes"), (3600.0, "hours")])
def test_wall_clock_time_is_told_in_a_readable_unit(tmp_path: Path, seconds_per_row: float, unit: str) -> None:
    groups = {"ppo": [run(400.0, seconds_per_row=seconds_per_row)]}
    assert f"Wall-clock time ({unit})" in drawn_text(plot_comparison(groups, tmp_path / "plot.svg"))


def test_a_plot_without_smoothing_claims_none(tmp_path: Path) -> None:
    path = plot_comparison({"ppo": [run(400.0)]}, tmp_path / "plot.svg", smoothing_steps=0)
    assert "mean of the last" not in drawn_text(path)


def test_runs_that_share_no_range_or_have_no_numbers_do_not_spoil_the_plot(tmp_path: Path) -> None:
    nothing: Rows = [{"steps": 1.0, "seconds": 1.0, "return_mean": math.nan}]
    groups: dict[str, list[Rows]] = {
        "apart": [run(400.0)[:5], run(400.0)[20:]],
        "nothing": [nothing],
        "empty": [[]],
        "good": [run(9.0)],
    }
    assert "good (1 seed)" in drawn_text(plot_comparison(groups, tmp_path / "plot.svg"))


def test_more_methods_than_colours_are_told_apart_by_line_style(tmp_path: Path) -> None:
    groups = {f"method {index}": [run(index + 1.0)] for index in range(9)}
    assert "method 8 (1 seed)" in drawn_text(plot_comparison(groups, tmp_path / "plot.svg"))


@pytest.mark.parametrize("name", ["plot.xyz", "plot"])
def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(RllabError, match=r"\.png"):
        plot_comparison({"ppo": [run(1.0)]}, tmp_path / name)
    with pytest.raises(RllabError, match=r"\.png"):
        plot_run(run(1.0), tmp_path / name)


def test_nothing_to_draw_is_explained(tmp_path: Path) -> None:
    without_runs: dict[str, list[Rows]] = {}
    without_rows: dict[str, list[Rows]] = {"ppo": [[]]}
    for groups in (without_runs, without_rows):
        with pytest.raises(RllabError, match="return_mean"):
            plot_comparison(groups, tmp_path / "plot.png")
    with pytest.raises(RllabError, match="no metrics"):
        plot_run([], tmp_path / "plot.png")


def test_a_path_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RllabError, match="could not be written"):
        plot_run(run(1.0), tmp_path / "file" / "plot.png")


def test_a_run_has_a_panel_for_each_number_and_evaluations_beside_training(tmp_path: Path) -> None:
    metrics = run(400.0)
    metrics[9]["evaluation/return_mean"] = 390.0
    metrics[9]["evaluation/score"] = 1.0
    text = drawn_text(plot_run(metrics, tmp_path / "plot.svg", "seed 0"))
    for expected in (
        "seed 0",
        "<!-- Return -->",
        "<!-- Value loss -->",
        "<!-- evaluation -->",
        "<!-- Score -->",
        "Environment steps",
    ):
        assert expected in text
    assert text.count("<!-- Return -->") == 1
    assert "Seconds" not in text
