"""A page about a run of `rllab language tune`: scores, divergence, what was compared, texts before and after."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from language.preferences.text_evaluation import read_evaluations
from language.preferences.tuning_config import TuneConfig
from preference.report.charts import Chart
from preference.report.parts import configuration, head, moment, section, table, whole
from rllab.descriptions import Description, describe
from rllab.metrics import METRICS_FILE
from rllab.plots import PALETTE
from rllab.progress import format_duration
from rllab.runs import Run
from rllab.statistics import series

Rows = Sequence[Mapping[str, Any]]
_SURE = 2.0
"""Standard errors by which the judge's score must have fallen to be said to have."""


@dataclass(frozen=True)
class TextRecord:
    """A run, read from its folder."""

    run: Run
    config: TuneConfig
    described: Description
    rows: Rows
    """The metrics."""
    evaluations: Rows
    """The earliest first; that of the model as it began, unless an older version made the run."""

    @classmethod
    def read(cls, path: Path) -> "TextRecord":
        """Raises RllabError if it is no run, or its metrics are damaged."""
        run = Run.open(path)
        rows = run.read_metrics() if (path / METRICS_FILE).exists() else []
        return cls(run, TuneConfig.from_json(run.config), describe(run), rows, read_evaluations(path))

    @property
    def judge(self) -> str:
        """Whose scores `gold` are."""
        if self.config.gold:
            return "Judge's score"
        if self.config.teaching.on and not self.config.teaching.human:
            return "Teacher's true score"
        return "Score"

    @property
    def judged_apart(self) -> bool:
        """Whether that is another one than what is learnt from."""
        return self.judge != "Score"


def page(path: Path) -> str:
    """The HTML about a run's folder. Raises RllabError as `TextRecord.read`."""
    record = TextRecord.read(path)
    title = f"{record.described.method.upper()} on {record.described.task}"
    return whole(title, [
        _head(record, title), _over_optimised(record),
        section("Scores", _scores_note(record), _scores(record), "scores"),
        section("Divergence", _DIVERGENCE_NOTE, _divergence(record), "divergence"),
        section("Comparisons", _COMPARISONS_NOTE, _comparisons(record), "comparisons"),
        section("Texts in numbers", _TEXTS_NOTE, _texts(record), "numbers"),
        _samples(record), configuration(record.run),
    ])  # fmt: skip


_DIVERGENCE_NOTE = (
    "The mean of log π − log ρ over whole responses, in nats: how far the policy has left the model that it began "
    "with. β is the price of it in the reward."
)
_COMPARISONS_NOTE = (
    "Held-out comparisons are not learnt from, and the accuracy leaves ties out (Wilson’s 95 % interval). While few of "
    "them are held out, it says little."
)
_TEXTS_NOTE = (
    "Pairs of neighbouring tokens that are distinct among all of a rollout’s fall where texts become alike; the "
    "entropy is that of the next token."
)


def _head(record: TextRecord, title: str) -> str:
    last = record.rows[-1] if record.rows else {}
    progress = "no metrics yet"
    if last:
        progress = f"{last['steps']:,.0f} tokens of responses in {format_duration(last['seconds'])}"
    judge = f" · judged by {' + '.join(record.config.gold)}" if record.config.gold else ""
    begun = moment(record.run.provenance["created"])
    lead = f"{progress}{judge} · β {record.config.rewarding.beta:.3g} · seed {record.config.seed} · begun {begun}"
    facts: list[tuple[str, str, str]] = []
    if record.evaluations:
        first, end = record.evaluations[0], record.evaluations[-1]
        began = "before" if not first["steps"] else f"at {first['steps']:,} tokens"
        more = f"{began} {_number(first['gold'])}"
        if first["gold_std"] > 0:
            gain = (end["gold"] - first["gold"]) / first["gold_std"]
            more += f"; that is {_number(gain, '+.2f')} deviations of the texts {began}"
        facts.append((record.judge, _number(end["gold"]), more))
        if record.judged_apart:
            facts.append(("Reward's score", _number(end["score"]), f"{began} {_number(first['score'])}"))
        wanted = record.config.rewarding.kl_target
        aim = "" if wanted is None else f"; wanted: {wanted:g}"
        facts.append(("KL a response", f"{end['kl_response']:.2f} nats", f"by the last evaluation{aim}"))
        facts.append(
            ("Response", f"{end['length']:.1f} tokens", f"{end['share_without_stop']:.0%} without an end token")
        )
    if record.config.teaching.on and "reward/labels" in last:
        facts.append(
            ("Comparisons", f"{last['reward/labels']:,.0f}", f"of {record.config.teaching.labels:,} to ask for")
        )
    facts += _predicted(record)
    return head(title, lead, facts)


def _predicted(record: TextRecord) -> list[tuple[str, str, str]]:
    """How well the last reward predicts held-out comparisons."""
    found: dict[str, float] = {}
    for row in record.rows:  # the newest of each: where all are ties there is no accuracy
        found |= {
            name.removeprefix("reward/held_out_"): row[name] for name in row if name.startswith("reward/held_out_")
        }
    if "nll" not in found:
        return []
    decided = found["comparisons"] - found["ties"]
    more = f"NLL {found['nll']:.3f}, Brier {found['brier']:.3f}, calibration error {found['calibration_error']:.3f}"
    if not decided or "accuracy" not in found:
        return [("Held out", f"{found['comparisons']:.0f}", f"all of them ties; {more}")]
    interval = f"95 % interval {found['accuracy_low']:.0%} to {found['accuracy_high']:.0%} of {decided:.0f}"
    return [("Accuracy, held out", f"{found['accuracy']:.0%}", f"{interval}; {more}")]


def _over_optimised(record: TextRecord) -> str:
    """What is to be said where the learned score rose and the judge's fell."""
    if not record.judged_apart or len(record.evaluations) < 2:
        return ""
    best, end = max(record.evaluations, key=lambda row: float(row["gold"])), record.evaluations[-1]
    count = max(record.config.prompts.evaluation_prompts, 1)
    error = math.sqrt((best["gold_std"] ** 2 + end["gold_std"] ** 2) / count)
    if best["gold"] - end["gold"] <= _SURE * error or end["score"] <= best["score"]:
        return ""
    sentence = (
        f"From {best['steps']:,} tokens on the reward's score rose from {_number(best['score'])} to "
        f"{_number(end['score'])}, while the {record.judge.lower()} fell from {_number(best['gold'])} to "
        f"{_number(end['gold'])}: the reward is pleased without what it stands for (over-optimisation)."
    )
    return f'<ul class="alarms"><li>{escape(sentence)}</li></ul>'


def _scores_note(record: TextRecord) -> str:
    if not record.judged_apart:
        return "Of responses to held-out prompts, always the same with the same random numbers; bars are ± 1 deviation."
    return (
        "Of responses to held-out prompts, always the same with the same random numbers; bars are ± 1 deviation. "
        "The reward’s score is what the policy learns from; the other one it never sees."
    )


def _scores(record: TextRecord) -> list[str]:
    charts = []
    if record.evaluations:
        chart = _chart(record, "gold", record.judge)
        _errors(chart, record.evaluations, "gold", PALETTE[1], "evaluation")
        charts.append(chart.svg())
    if record.rows:
        chart = _chart(
            record, "score", "Reward's score" if record.judged_apart else "Score, in training and evaluation"
        )
        chart.line(series(record.rows, "steps", "return_mean"), PALETTE[0], "training", "-")
        if record.evaluations:
            _errors(chart, record.evaluations, "score", PALETTE[1], "evaluation")
        charts.append(chart.svg(legend=True))
    return charts


def _divergence(record: TextRecord) -> list[str]:
    charts = []
    if record.rows:
        chart = _chart(record, "kl", "KL a response (nats)")
        chart.line(series(record.rows, "steps", "kl_response"), PALETTE[0], "training", "-")
        chart.line(series(record.evaluations, "steps", "kl_response"), PALETTE[1], "evaluation")
        for name, value in (("target", record.config.rewarding.kl_target), ("limit", record.config.rewarding.kl_limit)):
            if value is not None:
                chart.panel.axhline(value, color="#8A8A8A", linewidth=1.0, linestyle="--", label=name)
        charts.append(chart.svg(legend=True))
        beta = series(record.rows, "steps", "beta")
        if len(beta[0]) and np.ptp(beta[1]) > 0:
            chart = _chart(record, "beta", "β")
            chart.line(beta, PALETTE[0])
            charts.append(chart.svg())
    return charts


def _comparisons(record: TextRecord) -> list[str]:
    charts = []
    labels = series(record.rows, "steps", "reward/labels")
    if len(labels[0]):
        chart = _chart(record, "labels", "Comparisons that are learnt from or held out")
        chart.line(labels, PALETTE[0], "answered")
        chart.line(series(record.rows, "steps", "reward/asked"), PALETTE[3], "asked", "--")
        charts.append(chart.svg(legend=True))
    accuracy = series(record.rows, "steps", "reward/held_out_accuracy")
    if len(accuracy[0]):
        chart = _chart(record, "accuracy", "Accuracy on held-out ones (dashed: chance)")
        chart.line(accuracy, PALETTE[0])
        low, high = (series(record.rows, "steps", f"reward/held_out_accuracy_{end}")[1] for end in ("low", "high"))
        if len(low) == len(high) == len(accuracy[0]):
            chart.panel.fill_between(accuracy[0], low, high, color=PALETTE[0], alpha=0.15, linewidth=0)
        chart.panel.axhline(0.5, color="#8A8A8A", linewidth=1.0, linestyle="--")
        chart.panel.set_ylim(-0.03, 1.03)
        charts.append(chart.svg())
    return charts


def _texts(record: TextRecord) -> list[str]:
    charts = []
    titles = {
        "length_mean": "Tokens of a response", "distinct_2": "Distinct pairs of tokens", "entropy": "Entropy (nats)",
    }  # fmt: skip
    for name, title in titles.items():
        points = series(record.rows, "steps", name)
        if len(points[0]):
            chart = _chart(record, name, title)
            chart.line(points, PALETTE[0], style="-")
            charts.append(chart.svg())
    return charts


def _samples(record: TextRecord) -> str:
    if len(record.evaluations) < 2:
        return ""
    before, after = (record.evaluations[place] for place in (0, -1))
    rows = "".join(
        f"<tr><th scope='row'>{escape(a['prompt']) or '<i>empty</i>'}</th><td>{escape(a['response'].strip())}</td>"
        f"<td>{_number(a['score'])}</td><td>{escape(b['response'].strip())}</td><td>{_number(b['score'])}</td></tr>"
        for a, b in zip(before["samples"], after["samples"], strict=True)
    )
    began = "Before" if not before["steps"] else f"At {before['steps']:,} tokens"
    names = ("Prompt", began, record.judge, f"At {after['steps']:,} tokens", record.judge)
    return (
        '<section aria-labelledby="texts-heading"><h2 id="texts-heading">Texts, before and after</h2>'
        f"{table(names, rows, 'Texts', 'texts')}"
        '<p class="note">The first held-out prompts, not chosen; both responses are drawn with the same random '
        "numbers.</p></section>"
    )


def _chart(record: TextRecord, name: str, title: str) -> Chart:
    return Chart(name, title, record.described.steps)


def _errors(chart: Chart, rows: Rows, name: str, color: str, label: str) -> None:
    steps, means, deviations = (np.array([row[key] for row in rows]) for key in ("steps", name, f"{name}_std"))
    chart.panel.errorbar(
        steps, means, yerr=deviations, color=color, fmt="o-", markersize=4, linewidth=1.0, capsize=2, label=label
    )


def _number(value: float, form: str = ".3g") -> str:
    return format(value, form).replace("-", "−")
