"""Figures: several methods over their seeds beside each other, and one run in detail."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from envs.errors import RllabError
from rllab.descriptions import Description
from rllab.files import explained_write_errors
from rllab.progress import format_count
from rllab.statistics import learning_curve, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows: TypeAlias = Sequence[Mapping[str, float]]
"""One run's metrics, as `Run.read_metrics` gives them."""

# Okabe and Ito's palette, told apart with every common colour blindness; its pale yellow is left out.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINE_STYLES = ("-", "--", ":", "-.")  # one for each time the palette is used up
_SMOOTHING_SHARE = 0.02  # of the longest run's steps: enough to calm the noise, too little to hide a collapse
_FIRST_PANELS = ("return_mean", "length_mean", "steps_per_second")
_AXES = ("steps", "seconds")
_ENVIRONMENT = Description("", "")


def plot_comparison(
    groups: Mapping[str, Sequence[Rows]],
    output: Path | str,
    title: str = "",
    *,
    y: str = "return_mean",
    smoothing_steps: float | None = None,
    described: Description | None = None,
) -> Path:
    """Draw learning curves of several methods, by steps and by wall-clock time.

    Each method is a thick line, the interquartile mean over its seeds, in a band, the 95 % bootstrap
    interval; thin lines are its seeds. Method and band end where the first of the seeds ends.

    Args:
        groups: the seeds' metrics of each method, by the label to show.
        output: the file to write; its suffix is the format, such as .png, .svg or .pdf.
        title: above both panels.
        y: the column to draw.
        smoothing_steps: average over so many of the last steps, 0 for none; by default 2 % of the longest run,
            rounded. The axis says it.
        described: one of the runs, for the names of steps and columns; by default those of environments.

    Returns the path written. Raises RllabError for an unknown suffix, when no run has anything to draw, or
    when the disk refuses.
    """
    path = Path(output)
    if smoothing_steps is None:
        smoothing_steps = _rounded(_SMOOTHING_SHARE * _longest(groups, "steps"))
    if not any(len(series(rows, "steps", y)[0]) for runs in groups.values() for rows in runs):
        raise RllabError(f"No run has any {y!r} to draw yet; let one train for longer.")
    figure = _new_figure(path, (12.0, 5.4))
    panels = _new_panels(figure, 1, 2, sharey=True)
    seconds_a_unit, unit = _time_unit(_longest(groups, "seconds"))
    for index, (label, runs) in enumerate(groups.items()):
        _draw_group(panels[0], index, label, runs, "steps", y, smoothing_steps)
        _draw_group(panels[1], index, label, runs, "seconds", y, smoothing_steps, seconds_a_unit)
    described = described or _ENVIRONMENT
    panels[0].set_xlabel(described.steps)
    _label_steps(panels[0])
    panels[1].set_xlabel(f"Wall-clock time ({unit})")
    smoothing = f"\n(mean of the last {format_count(smoothing_steps)} steps)" if smoothing_steps else ""
    panels[0].set_ylabel(f"{described.name(y)}{smoothing}")
    if title:
        figure.suptitle(title, fontsize=14, fontweight="bold")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(len(labels), 4),
        frameon=False,
        title="line: interquartile mean over seeds  ·  band: 95 % bootstrap interval  ·  thin: single seeds",
        title_fontproperties={"size": 9.5},
    )
    return _save(figure, path)


def plot_run(metrics: Rows, output: Path | str, title: str = "", described: Description | None = None) -> Path:
    """Draw every number of one run against its steps, a panel each; evaluations as points.

    Returns the path written. Raises RllabError for an unknown suffix, when there is nothing to draw, or
    when the disk refuses.
    """
    path = Path(output)
    names = _panel_names(metrics)
    if not names:
        raise RllabError("The run has no metrics to draw yet; let it train for longer.")
    described = described or _ENVIRONMENT
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = _new_figure(path, (4.4 * columns, 2.7 * lines + 0.6))
    panels = _new_panels(figure, lines, columns)
    for panel, name in zip(panels, names, strict=False):
        positions, values = series(metrics, "steps", name)
        panel.plot(positions, values, color=PALETTE[0], linewidth=1.6, label="training")
        positions, values = series(metrics, "steps", f"evaluation/{name}")
        if len(positions):
            panel.plot(positions, values, "o-", color=PALETTE[1], linewidth=1.0, markersize=4, label="evaluation")
            panel.legend(fontsize=9, frameon=False)
        panel.set_title(described.name(name), fontsize=11)
        panel.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
        _label_steps(panel)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    if title:
        figure.suptitle(title, fontsize=14, fontweight="bold")
    figure.supxlabel(described.steps)
    return _save(figure, path)


def _draw_group(
    panel: "Axes",
    index: int,
    label: str,
    runs: Sequence[Rows],
    x: Literal["steps", "seconds"],
    y: str,
    smoothing_steps: float,
    x_unit: float = 1.0,
) -> None:
    color = PALETTE[index % len(PALETTE)]
    style = LINE_STYLES[index // len(PALETTE) % len(LINE_STYLES)]
    for rows in runs:
        positions, values = series(rows, x, y, smoothing_steps)
        panel.plot(positions / x_unit, values, style, color=color, linewidth=0.7, alpha=0.35)
    curve = learning_curve(runs, x, y=y, smoothing_steps=smoothing_steps)
    if len(runs) > 1:
        panel.fill_between(curve.grid / x_unit, curve.low, curve.high, color=color, alpha=0.18, linewidth=0)
    seeds = "1 seed" if len(runs) == 1 else f"{len(runs)} seeds"
    panel.plot(curve.grid / x_unit, curve.centre, style, color=color, linewidth=2.2, label=f"{label} ({seeds})")


def _panel_names(metrics: Rows) -> list[str]:
    """The columns to draw: the well-known ones first, then in the order of their appearance."""
    names = dict.fromkeys(name for row in metrics for name in row if name not in _AXES)
    # An evaluation shares the panel of the training number it is to be seen beside.
    own = [name for name in names if name == (base := name.removeprefix("evaluation/")) or base not in names]
    drawable = [name for name in own if len(series(metrics, "steps", name)[0])]
    return sorted(drawable, key=lambda name: _FIRST_PANELS.index(name) if name in _FIRST_PANELS else len(names))


def _longest(groups: Mapping[str, Sequence[Rows]], x: str) -> float:
    return max((row[x] for runs in groups.values() for rows in runs for row in rows if x in row), default=0.0)


def _new_figure(path: Path, size: tuple[float, float]) -> "Figure":
    # A figure without pyplot: no global state, no window, and the file's suffix chooses the renderer.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    known = canvas.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in known:
        raise RllabError(
            f"{path} does not end in a known format; choose one of {', '.join(f'.{name}' for name in known)}."
        )
    return figure


def _new_panels(figure: "Figure", lines: int, columns: int, sharey: bool = False) -> "list[Axes]":
    panels: list[Axes] = list(figure.subplots(lines, columns, sharey=sharey, squeeze=False).ravel())
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="#E3E3E3", linewidth=0.8)
        panel.set_axisbelow(True)
    return panels


def _save(figure: "Figure", path: Path) -> Path:
    with explained_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return path


def _label_steps(panel: "Axes") -> None:
    panel.xaxis.set_major_formatter(lambda value, _: format_count(value))


def _time_unit(seconds: float) -> tuple[float, str]:
    """The unit in which a time reads best: its length in seconds, and its name."""
    if seconds < 300.0:
        return 1.0, "seconds"
    return (60.0, "minutes") if seconds < 10_800.0 else (3600.0, "hours")


def _rounded(value: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten; 0 stays 0."""
    if value <= 0:
        return 0.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(min((1 * power, 2 * power, 5 * power, 10 * power), key=lambda nice: abs(nice - value)))
