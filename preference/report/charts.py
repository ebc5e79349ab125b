"""A report's figures, as SVG that takes its colours and its type from the page around it."""

import re
import tempfile
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from preference.comparisons import Label
from preference.fit import HIGHEST_RATIO, LOWEST_RATIO
from preference.plots import plot_reliability
from preference.report.record import Record
from rllab.plots import PALETTE, _label_steps, _new_figure, _new_panels
from rllab.statistics import Floats, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points: TypeAlias = tuple[Floats, Floats]
_BINS = 48
"""Of the label timeline."""
_REPLACED = {
    **{color.lower(): f"var(--c{index})" for index, color in enumerate(PALETTE) if color != "#000000"},
    "#000000": "currentColor",
    "#e3e3e3": "var(--grid)",
    "#8a8a8a": "var(--muted)",
    "#ffffff": "none",
}
_OUTCOMES = (
    ("first", PALETTE[0]),
    ("second", PALETTE[4]),
    ("tie", PALETTE[5]),
    ("skip", PALETTE[3]),
    ("open", "#8A8A8A"),
)


class Chart:
    """One panel over the steps of a training."""

    def __init__(self, name: str, title: str, steps: str = "Environment steps") -> None:
        """`name` keeps its ids apart from other charts'; `steps` says what they count."""
        self.name, self.title, self.steps = name, title, steps
        self.figure = _new_figure(Path("x.svg"), (5.2, 3.3))
        (self.panel,) = _new_panels(self.figure, 1, 1)
        self.panel.set_title(title, fontsize=11)
        self.panel.set_xlabel(steps)
        _label_steps(self.panel)

    def line(self, points: Points, color: str, label: str | None = None, style: str = "o-") -> None:
        """Draw a curve, with its points where there are few."""
        marker = style[0] if style[0] in "os" else ""
        few = len(points[0]) <= 60
        self.panel.plot(
            *points, style[len(marker) :] or "-", marker=marker if few else "", color=color, markersize=4,
            linewidth=1.5, label=label,
        )  # fmt: skip

    def svg(self, legend: bool = False) -> str:
        """The finished chart."""
        if legend:
            # Below the panel, where it hides nothing.
            self.figure.legend(loc="outside lower center", fontsize=9, frameon=False, ncols=2)
        return svg_of(self.figure, self.name, f"{self.title}, over {self.steps.lower()}")


def returns(record: Record) -> list[str]:
    """The environment's return, and the learned one, over steps; those that have been measured."""
    charts = []
    training, evaluated = _points(record, "return_mean"), _points(record, "evaluation/return_mean")
    if len(training[0]) or len(evaluated[0]):
        chart = Chart("true-return", "True return" if record.config.sees_rewards else "The environment's own return")
        chart.panel.plot(*training, color=PALETTE[0], linewidth=1.8, label="training")
        if len(evaluated[0]):
            deviations = _points(record, "evaluation/return_std")[1]
            matching = len(deviations) == len(evaluated[0])
            chart.panel.errorbar(
                *evaluated, yerr=deviations if matching else None, color=PALETTE[1], fmt="o-", markersize=4,
                linewidth=1.0, capsize=2, label="evaluation, ± 1 deviation" if matching else "evaluation",
            )  # fmt: skip
        charts.append(chart.svg(legend=True))
    learned = _points(record, "reward/predicted_return")
    if len(learned[0]):
        chart = Chart("learned-return", "Return by the learned reward, in training")
        chart.line(learned, PALETTE[2])
        charts.append(chart.svg())
    return charts


def timeline(record: Record) -> list[str]:
    """How many questions were asked when: by what was answered, and by strategy."""
    if not record.asked:
        return []
    at = record.asked_at
    end = max([float(at.max()), *(row["steps"] for row in record.rows), 1.0])
    edges = np.linspace(0, end * (1 + 1e-9), _BINS + 1)
    outcomes = [
        str(said[-1].answer.label) if (said := record.answers.get(pair.id)) else "open" for pair in record.asked
    ]
    answers = Chart("answers", "Questions by answer")
    _stack(answers.panel, edges, at, outcomes, [(name, color) for name, color in _OUTCOMES if name in outcomes])
    strategies = [pair.strategy or "unknown" for pair in record.asked]
    kinds = [(name, PALETTE[i % (len(PALETTE) - 1)]) for i, name in enumerate(dict.fromkeys(strategies))]
    chosen = Chart("strategies", "Questions by how they were chosen")
    _stack(chosen.panel, edges, at, strategies, kinds)
    return [answers.svg(legend=True), chosen.svg(legend=True)]


def accuracy(record: Record) -> list[str]:
    """Held-out and newest accuracy with intervals, the two losses' ratio, and λ."""
    charts = []
    chart, drawn = Chart("accuracy", "Accuracy, in 95 % intervals (dashed: chance)"), False
    for name, label, color in (("held_out", "held out", PALETTE[0]), ("newest", "newest pairs", PALETTE[1])):
        points = _points(record, f"reward/{name}_accuracy")
        if not len(points[0]):
            continue
        low, high = (_points(record, f"reward/{name}_accuracy_{end}")[1] for end in ("low", "high"))
        chart.line(points, color, label)
        if len(low) == len(high) == len(points[0]):
            chart.panel.fill_between(points[0], low, high, color=color, alpha=0.15, linewidth=0)
        drawn = True
    if drawn:
        chart.panel.axhline(0.5, color="#8A8A8A", linewidth=1.0, linestyle="--")
        chart.panel.set_ylim(-0.03, 1.03)
        charts.append(chart.svg(legend=True))
    ratio, l2 = _points(record, "reward/loss_ratio"), _points(record, "reward/l2")
    if len(ratio[0]):
        chart = Chart("ratio", f"Held-out / training loss (band: {LOWEST_RATIO:g} to {HIGHEST_RATIO:g})")
        chart.panel.axhspan(LOWEST_RATIO, HIGHEST_RATIO, color=PALETTE[2], alpha=0.25, linewidth=0)
        chart.line(ratio, PALETTE[0])
        _logarithmic(chart.panel, ratio[1])
        chart.panel.yaxis.set_major_formatter("{x:.3g}")
        charts.append(chart.svg())
    if len(l2[0]):
        chart = Chart("l2", "λ of the L2 penalty")
        chart.line(l2, PALETTE[0])
        _logarithmic(chart.panel, l2[1])
        chart.panel.yaxis.set_major_formatter("{x:.2g}")
        charts.append(chart.svg())
    return charts


def agreement(record: Record) -> list[str]:
    """The ensemble's spread, and the correlation with the true reward where that is known."""
    charts = []
    spread = _points(record, "reward/rollout_spread")
    if len(spread[0]):
        chart = Chart("spread", "Spread of the ensemble's rewards")
        chart.line(spread, PALETTE[0], "newest rollout, mean")
        chart.line(_points(record, "reward/labelled_spread_mean"), PALETTE[2], "labelled clips, mean", "s-")
        top = _points(record, "reward/labelled_spread_percentile_95")
        chart.line(top, PALETTE[1], "labelled clips, 95th percentile", "--")
        chart.panel.set_ylim(bottom=0)
        charts.append(chart.svg(legend=True))
    chart, drawn = Chart("correlation", "Correlation with the true reward"), False
    for unit, color in (("step", PALETTE[0]), ("episode", PALETTE[1])):
        for kind, style in (("pearson", "o-"), ("spearman", "s--")):
            points = _points(record, f"reward/{unit}_{kind}")
            if len(points[0]):
                chart.line(points, color, f"{kind.title()}, per {unit}", style)
                drawn = True
    return [*charts, chart.svg(legend=True)] if drawn else charts


def reliability(record: Record) -> str | None:
    """Observed against predicted preference; None without comparisons."""
    if not record.measures:
        return None

    def draw() -> str:
        with tempfile.TemporaryDirectory() as folder:
            return plot_reliability(record.measures, Path(folder) / "x.svg").read_text()

    return themed(_drawn(draw), "reliability", "Observed preference against predicted probability")


def svg_of(figure: "Figure", name: str, title: str) -> str:
    """A figure as SVG to put into a page; `name` keeps its ids apart from other figures'."""

    def draw() -> str:
        buffer = StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        return buffer.getvalue()

    return themed(_drawn(draw), name, title)


def themed(svg: str, name: str, title: str) -> str:
    """Matplotlib's SVG, with the page's colours and typeface, and a title for those who do not see it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    for color, replacement in _REPLACED.items():
        svg = re.sub(rf"(fill|stroke): {color}\b", rf"\1: {replacement}", svg)
    svg = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{name}-", svg)
    svg = re.sub(
        r"font: (?:(bold|\d+) )?([\d.]+)px [^;\"]+", lambda m: f"font: {m[1] or 'normal'} {m[2]}px var(--sans)", svg
    )
    head, _, body = svg.partition(">")
    width, height = (re.search(rf'{side}="([\d.]+)pt"', head)[1] for side in ("width", "height"))  # type: ignore[index]
    opening = (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{name}-title" '
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<title id="{name}-title">{title}</title>'
    )
    return opening + body


def _drawn(draw: Callable[[], str]) -> str:
    import matplotlib

    # Text as text: it can be read aloud, searched and selected. The salt makes ids the same at every call.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rllab"}):
        return draw()


def _points(record: Record, name: str) -> Points:
    return series(record.rows, "steps", name)


def _logarithmic(panel: "Axes", values: Floats) -> None:
    """A logarithmic axis for values that span more than a power of ten."""
    if (values > 0).all() and values.max() > 10 * values.min():
        panel.set_yscale("log")


def _stack(
    panel: "Axes", edges: Floats, at: Floats, names: Sequence[str], kinds: Sequence[tuple[str, str]]
) -> None:  # fmt: skip
    members = [at[[name == kind for name in names]] for kind, _ in kinds]
    labels = [f"{_title(kind)} ({len(member):,})" for (kind, _), member in zip(kinds, members, strict=True)]
    panel.hist(members, bins=list(edges), stacked=True, color=[color for _, color in kinds], label=labels)


def _title(kind: str) -> str:
    return {
        Label.FIRST: "first is better", Label.SECOND: "second is better", Label.TIE: "equally good",
        Label.SKIP: "cannot tell", "open": "not answered yet",
    }.get(kind, kind)  # fmt: skip
