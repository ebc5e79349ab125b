"""What methods reach at what divergence: points of runs, their means over seeds, a table's rows, CSV and the figure.

Gao, Schulman, Hilton 2022, "Scaling Laws for Reward Model Overoptimization" (arXiv:2210.10760), figure 1: the reward
that is learnt from and that of the judge, against √KL. Both are drawn in deviations of the model that all began with.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from envs.errors import RllabError
from preference.measures import wilson_interval
from rllab.files import explained_write_errors, write_atomically
from rllab.plots import PALETTE, _new_figure, _new_panels, _save
from rllab.statistics import bootstrap_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Score: TypeAlias = Literal["gold", "proxy"]
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Point:
    """What a model, at some moment of its training, is worth on held-out prompts."""

    method: str
    setting: str
    """Its budget, β, or n, as it reads."""
    seed: int
    steps: int
    """Tokens of responses that an agent learnt from, steps of the optimiser of a direct method, or n."""
    final: bool
    """Whether it is a model that was chosen, not one on the way."""
    kl: float
    """From the model that all began with, in nats a response."""
    kl_error: float
    """Its standard error; 0 where it is a formula's."""
    proxy: float
    """Mean of the reward that is learnt from."""
    gold: float
    """Mean of the judge's."""
    won: float = 0.0
    """Of `judged` prompts, on how many the judge prefers its response to one of the model that all began with."""
    judged: int = 0


@dataclass(frozen=True)
class Baseline:
    """The model that all began with."""

    proxy: float
    proxy_deviation: float
    """Of single responses."""
    gold: float
    gold_deviation: float
    responses: int

    def deviations(self, score: Score, value: float) -> float:
        """A mean score as its distance from the baseline's, in deviations of its responses."""
        deviation: float = getattr(self, f"{score}_deviation")
        return (value - float(getattr(self, score))) / deviation if deviation > 0 else float("nan")


@dataclass(frozen=True)
class Reached:
    """A method in one setting, over its seeds; pairs are 95 % intervals."""

    method: str
    setting: str
    seeds: int
    kl: float
    kl_interval: tuple[float, float]
    """Bootstrap over seeds, as the next two."""
    proxy: float
    proxy_interval: tuple[float, float]
    gold: float
    gold_interval: tuple[float, float]
    gain: float
    """Of the judge's score over the baseline's, in deviations of its responses."""
    win_rate: float
    """Over the baseline, by the judge; ties count a half."""
    win_interval: tuple[float, float]
    """Wilson's, over the responses of all seeds."""


def reached(points: Sequence[Point], baseline: Baseline) -> list[Reached]:
    """The chosen models' means over seeds, in the points' order."""
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        if point.final:
            groups.setdefault((point.method, point.setting), []).append(point)
    found = []
    for (method, setting), some in groups.items():
        means = {name: float(np.mean([getattr(each, name) for each in some])) for name in ("kl", "proxy", "gold")}
        spans = {name: _interval([getattr(each, name) for each in some]) for name in means}
        won, judged = sum(each.won for each in some), sum(each.judged for each in some)
        found.append(Reached(
            method, setting, len(some), means["kl"], spans["kl"], means["proxy"], spans["proxy"], means["gold"],
            spans["gold"], baseline.deviations("gold", means["gold"]), won / judged if judged else float("nan"),
            wilson_interval(won, judged),
        ))  # fmt: skip
    return found


def write_csv(path: Path, points: Sequence[Point], baseline: Baseline) -> None:
    """All points, a row each, also in deviations of the baseline."""
    text = io.StringIO(newline="")
    names = [field.name for field in fields(Point)]
    rows = csv.DictWriter(text, [*names, "proxy_gain", "gold_gain"], lineterminator="\n")
    rows.writeheader()
    for point in points:
        gains = {f"{score}_gain": baseline.deviations(score, getattr(point, score)) for score in ("proxy", "gold")}
        rows.writerow({**asdict(point), **gains})
    with explained_write_errors(path):
        write_atomically(path, text.getvalue().encode())


def draw(
    points: Sequence[Point], baseline: Baseline, output: Path | str, *, title: str = "", root: bool = True
) -> Path:  # fmt: skip
    """Draw the judge's score and the reward that is learnt from, side by side, against the divergence.

    Filled markers are the chosen models' means over seeds, with 95 % bootstrap intervals where there are several, and a
    line from the origin through them; thin lines are what single runs came through on their way.

    Args:
        points: of all runs.
        baseline: the origin.
        output: the file; its suffix is the format.
        title: above both panels.
        root: draw √KL, as Gao et al. do, in place of KL.

    Raises:
        RllabError: there is no point, the suffix is unknown, or the disk refuses.
    """
    path = Path(output)
    if not points:
        raise RllabError("There is nothing to draw yet; let a method finish.")
    figure = _new_figure(path, (12.0, 5.6))
    panels = _new_panels(figure, 1, 2, sharey=True)
    scores: tuple[tuple[Score, str], ...] = (("gold", "gold: the judge"), ("proxy", "proxy: what is learnt from"))
    methods = list(dict.fromkeys(point.method for point in points))
    for panel, (score, name) in zip(panels, scores, strict=True):
        panel.axhline(0.0, color="#8A8A8A", linewidth=0.8, zorder=1)
        for index, method in enumerate(methods):
            _draw_method(panel, index, method, [p for p in points if p.method == method], baseline, score, root)
        panel.set_title(name[:1].upper() + name[1:], fontsize=11)
        panel.set_xlabel("√KL(π ‖ ρ) of a response (√nats)" if root else "KL(π ‖ ρ) of a response (nats)")
        panel.set_xlim(left=0.0)
    panels[0].set_ylabel("Mean score − that of the model as it began\n(in deviations of its responses)")
    if title:
        figure.suptitle(title, fontsize=13, fontweight="bold")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False,
        title="marker: mean over seeds, with 95 % bootstrap intervals  ·  thin: single runs on their way",
        title_fontproperties={"size": 9.5},
    )  # fmt: skip
    return _save(figure, path)


def _draw_method(
    panel: "Axes", index: int, method: str, points: Sequence[Point], baseline: Baseline, score: Score, root: bool
) -> None:  # fmt: skip
    color, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]

    def place(kl: float, value: float) -> tuple[float, float]:
        # Estimates of a small divergence can lie below 0.
        return max(kl, 0.0) ** 0.5 if root else kl, baseline.deviations(score, value)

    for path in _paths(points):
        if len(path) > 1:
            line = np.array([(0.0, 0.0), *(place(each.kl, getattr(each, score)) for each in path)])
            panel.plot(*line.T, "-", color=color, linewidth=0.7, alpha=0.35, zorder=2)
    ends = sorted(reached(points, baseline), key=lambda each: each.kl)
    centres = np.array([place(each.kl, getattr(each, score)) for each in ends]).reshape(-1, 2)
    seeds = max((each.seeds for each in ends), default=0)
    line = np.concatenate([np.zeros((1, 2)), centres])
    panel.plot(*line.T, "-", color=color, linewidth=1.6, alpha=0.8, zorder=3)
    panel.plot(
        *centres.T, marker, color=color, markersize=6, zorder=4,
        label=f"{method} ({seeds} {'seed' if seeds == 1 else 'seeds'})",
    )  # fmt: skip
    for each, (x, y) in zip(ends, centres, strict=True):
        if each.seeds > 1:
            low, high = getattr(each, f"{score}_interval")
            left, right = each.kl_interval
            corners = np.array([place(left, low), place(right, high)])
            spans = np.abs(corners - (x, y)).T
            panel.errorbar(
                x, y, xerr=spans[0][:, None], yerr=spans[1][:, None], color=color, linewidth=1.0, zorder=3,
            )  # fmt: skip


def _paths(points: Sequence[Point]) -> list[list[Point]]:
    """The points of each run in the order of their steps."""
    runs: dict[tuple[str, int], list[Point]] = {}
    for point in points:
        runs.setdefault((point.setting, point.seed), []).append(point)
    return [sorted(some, key=lambda point: point.steps) for some in runs.values()]


def _interval(values: Sequence[float]) -> tuple[float, float]:
    low, high = bootstrap_interval(values, np.mean)
    return low, high


def as_json(points: Sequence[Point], baseline: Baseline, settings: Mapping[str, object]) -> dict[str, object]:
    """Everything, as `comparison.json` has it."""
    return {
        "settings": dict(settings), "baseline": asdict(baseline),
        "reached": [asdict(each) for each in reached(points, baseline)], "points": [asdict(each) for each in points],
    }  # fmt: skip
