"""Figures about preferences: how reliable predicted probabilities are, and how strong the rated items."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from envs.errors import RllabError
from preference.measures import PreferenceMeasures
from preference.ratings import Ratings
from rllab.plots import PALETTE, _new_figure, _new_panels, _save


def plot_reliability(measures: Mapping[str, PreferenceMeasures], output: Path | str, title: str = "") -> Path:
    """Draw observed against predicted preference, a colour a set of comparisons, and how many predictions fell where.

    Args:
        measures: by the label to show, such as "old pairs" and "newest policy".
        output: the file to write; its suffix is the format, such as .png, .svg or .pdf.
        title: above both panels.

    Returns the path written. Raises RllabError for an unknown suffix, when there is no comparison to draw, or when
    the disk refuses.
    """
    path = Path(output)
    drawn = {label: measure for label, measure in measures.items() if measure.count}
    if not drawn:
        raise RllabError("There is no comparison to draw the reliability of yet; label some pairs first.")
    figure = _new_figure(path, (5.6, 6.6))
    upper, lower = _new_panels(figure, 2, 1)
    grid = upper.get_gridspec()
    assert grid is not None
    grid.set_height_ratios((3.0, 1.0))
    upper.plot([0, 1], [0, 1], color="#8A8A8A", linewidth=1.0, linestyle="--", label="perfectly calibrated")
    for index, (label, measure) in enumerate(drawn.items()):
        color, bins = PALETTE[index % len(PALETTE)], measure.reliability
        filled = bins.counts > 0
        note = f"{label} ({measure.count} pairs, error {measure.calibration_error:.3f})"
        upper.plot(bins.predicted[filled], bins.observed[filled], "o-", color=color, linewidth=1.8, label=note)
        lower.stairs(bins.counts, bins.edges, color=color, linewidth=1.8)
    upper.set_ylabel("Observed preference for the first")
    upper.set_ylim(-0.02, 1.02)
    figure.legend(loc="outside lower center", fontsize=9, frameon=False)  # where it hides nothing
    lower.set_xlabel("Predicted probability that the first is better")
    lower.set_ylabel("Pairs")
    for panel in (upper, lower):
        panel.set_xlim(-0.02, 1.02)
    if title:
        figure.suptitle(title, fontsize=14, fontweight="bold")
    return _save(figure, path)


def plot_ratings(ratings: Ratings, output: Path | str, title: str = "", confidence: float = 0.95) -> Path:
    """Draw each item's rating on Elo's scale with its interval, the strongest on top.

    Returns the path written. Raises RllabError for an unknown suffix, or when the disk refuses.
    """
    path = Path(output)
    figure = _new_figure(path, (7.2, 1.4 + 0.36 * len(ratings.names)))
    (panel,) = _new_panels(figure, 1, 1)
    rating, low, high = ratings.elo(confidence)
    order = ratings.order[::-1]
    places = np.arange(len(order))
    errors = [(rating - low)[order], (high - rating)[order]]
    panel.errorbar(rating[order], places, xerr=errors, fmt="o", color=PALETTE[0], ecolor=PALETTE[4], capsize=3)
    panel.set_yticks(places, [ratings.names[index] for index in order])
    panel.set_xlabel(
        f"Rating on Elo's scale, with {100 * confidence:g} % intervals ({ratings.comparisons:g} comparisons)"
    )
    if title:
        figure.suptitle(title, fontsize=14, fontweight="bold")
    return _save(figure, path)
