"""A report as one HTML page that loads nothing: figures, clips and style are in it."""

import math
from html import escape
from importlib.metadata import entry_points
from pathlib import Path

from envs.errors import RllabError
from preference.comparisons import Label
from preference.measures import PreferenceMeasures
from preference.report import charts, clips
from preference.report.parts import configuration, head, moment, section, table, whole
from preference.report.record import Record
from rllab.files import explained_write_errors, write_atomically
from rllab.progress import format_duration
from rllab.runs import Run

FILE = "report.html"
PAGES = "rllab.run_pages"
"""Entry points: by the `kind` in a run's configuration, a function from its folder to the HTML about it."""


def write_report(run: Path | str, output: Path | None = None) -> Path:
    """Write the page about a run that learnt from comparisons, of clips or, by an entry point, of anything else.

    Args:
        run: its folder; it may still be training.
        output: the file; by default `report.html` in the folder.

    Returns the path written.

    Raises:
        RllabError: there is no page about its kind, its store is not there, or the page cannot be written.
    """
    folder = Path(run)
    config = Run.open(folder).config
    html = None
    for entry in entry_points(group=PAGES, name=str(config.get("kind"))):
        html = entry.load()(folder)
    if html is None and "kind" in config and "preference" not in config:
        raise RllabError(
            f"There is no page about runs of the kind '{config['kind']}'; draw it with `rllab compare {folder}`."
        )
    if html is None:
        html = page(Record.read(folder))
    path = output or folder / FILE
    with explained_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, html.encode())
    return path


def page(record: Record) -> str:
    """The HTML."""
    env, labels = record.run.config["env"]["id"], sum(map(len, record.answers.values()))
    title = f"{env}, learned from {labels:,} comparisons"
    sections = [
        _head(record, title), _alarms(record),
        section("Returns", _returns_note(record), charts.returns(record), "returns"),
        section("What was asked", _asked_note(record), charts.timeline(record), "questions"),
        section("How well answers are predicted", _ACCURACY_NOTE, charts.accuracy(record), "predictions"),
        _measures(record), section("Agreement", _AGREEMENT_NOTE, charts.agreement(record), "agreement"),
        _clips(record), configuration(record.run),
    ]  # fmt: skip
    return whole(title, sections)


_ACCURACY_NOTE = (
    "Held-out comparisons share no clip with those that the model learns from. The newest pairs (at most 100) were "
    "predicted before their answers were learnt from: they are chosen for being hard to predict, so expect less there. "
    "The held-out loss should stay between 1.1 and 1.5 times the training loss; λ is adapted to that end."
)
_AGREEMENT_NOTE = (
    "The spread is the standard deviation of the ensemble's members, in the unit of the learned reward. On new ground "
    "it is larger: above the dashed line a policy has left what was labelled."
)


def _head(record: Record, title: str) -> str:
    run, config = record.run, record.config
    steps, seconds = record.last("steps"), record.last("seconds")
    skips, ties, people = record.count(Label.SKIP), record.count(Label.TIE), sorted(_annotators(record))
    progress = "no metrics yet" if math.isnan(steps) else f"{steps:,.0f} steps in {format_duration(seconds)}"
    begun = moment(run.provenance["created"])
    lead = f"{run.config['agent_name']} · teacher: {config.teacher} · {progress} · begun {begun}"
    facts: list[tuple[str, str, str]] = [
        ("Answers", f"{record.answered:,}", f"of {config.query.labels:,} to ask for; {ties:,} ties, {skips:,} skips; "
         f"by {', '.join(people) or 'nobody yet'}"),
    ]  # fmt: skip
    for name, measure in record.measures.items():
        ends = f"95 % interval {_percent(measure.accuracy_low)} to {_percent(measure.accuracy_high)}"
        facts.append((f"Accuracy, {name}", _percent(measure.accuracy), f"{ends}; {measure.count:,} comparisons"))
    ratio, penalty = record.last("reward/loss_ratio"), record.last("reward/l2")
    if math.isfinite(ratio):
        facts.append(("Held-out / training loss", f"{ratio:.3g}", f"wanted: 1.1 to 1.5; λ = {penalty:.2g}"))
    evaluation = record.last("evaluation/return_mean")
    if math.isfinite(evaluation):
        known = "true return" if config.sees_rewards else "the environment's own return"
        deviation = record.last("evaluation/return_std")
        facts.append(("Last evaluation", f"{evaluation:,.4g}".replace("-", "−"), f"± {deviation:.3g}, {known}"))
    pearson = record.last("reward/episode_pearson")
    if math.isfinite(pearson):
        spearman = record.last("reward/episode_spearman")
        facts.append(
            ("Correlation with the true return", f"{pearson:.3f}", f"Pearson, per episode; Spearman {spearman:.3f}")
        )
    spread, labelled = record.last("reward/rollout_spread"), record.last("reward/labelled_spread_percentile_95")
    if math.isfinite(spread):
        facts.append(
            ("Ensemble spread", f"{spread:.3g}", f"newest rollout; 95 % of labelled steps below {labelled:.3g}")
        )
    return head(title, lead, facts, record.notes)


def _alarms(record: Record) -> str:
    if not record.alarms:
        if not math.isfinite(record.last("reward/predicted_return")):
            return ""
        return '<p class="note">No alarm for reward hacking sounded.</p>'
    items = "".join(f"<li>At {steps:,} steps: {escape(text)}</li>" for steps, text in record.alarms)
    note = (
        "Found again in the run's metrics, which know the training's own mean return: while there are few episodes, "
        "training may have told them a little earlier or later."
    )
    return f'<h2>Alarms</h2><ul class="alarms">{items}</ul><p class="note">{note}</p>'


def _returns_note(record: Record) -> str:
    if record.config.sees_rewards:
        return (
            "The true reward is known to the teacher and to these curves, and to nothing that learns. The learned one "
            "is normalised anew at every fit: it does not have the true one's unit, and its curve need not rise."
        )
    return (
        "The environment's own reward is shown to nobody who answers and to nothing that learns; it need not be what "
        "people wanted. The learned reward is normalised anew at every fit, so that its curve need not rise."
    )


def _asked_note(record: Record) -> str:
    share = _percent(record.config.query.initial_share)
    text = f"{len(record.asked):,} questions; {share} of the budget was asked before the agent learned anything"
    if (repeated := sum(len(items) > 1 for items in record.answers.values())) > 0:
        text += f"; {repeated:,} were answered by several annotators"
    return f"{text}."


def _measures(record: Record) -> str:
    svg = charts.reliability(record)
    if svg is None:
        return ""
    rows = "".join(f"<tr>{_cells(name, measure)}</tr>" for name, measure in record.measures.items())
    names = ("", "Comparisons", "Ties", "Accuracy", "95 % interval", "NLL", "Brier", "Calibration error")
    return (
        '<section aria-labelledby="measures-heading"><h2 id="measures-heading">Calibration</h2>'
        f"{table(names, rows, 'Measures')}"
        '<p class="note">Accuracy leaves ties out; its interval is Wilson’s. NLL: negative log-likelihood in nats, '
        "0.693 for a model that knows nothing; Brier: ¼ for such a model.</p>"
        f'<figure class="reliability">{svg}<figcaption>On the diagonal, of the pairs that were predicted to be '
        "preferred with a probability of 70 %, 70 % were. Below: how many predictions fell where.</figcaption></figure>"
        "</section>"
    )


def _cells(name: str, measure: PreferenceMeasures) -> str:
    cells = (
        f"{measure.count:,}", f"{measure.ties:,}", _percent(measure.accuracy),
        f"{_percent(measure.accuracy_low)} – {_percent(measure.accuracy_high)}",
        f"{measure.negative_log_likelihood:.3f}", f"{measure.brier:.3f}", f"{measure.calibration_error:.3f}",
    )  # fmt: skip
    return f'<th scope="row">{name}</th>' + "".join(f"<td>{cell}</td>" for cell in cells)


def _clips(record: Record) -> str:
    if not record.best:
        return ""
    note = clips.observation_note(record)
    control = ""
    if clips.has_films(record):
        control = '<p><label><input type="checkbox" id="still"> Hold the pictures still</label></p>'
    else:
        why = "have not been drawn yet" if record.config.frames else "were not drawn (<code>--frames</code> draws them)"
        note = f"The frames of these clips {why}: shown is what was observed and done. {note}"
    return (
        '<section aria-labelledby="clips-heading"><h2 id="clips-heading">Clips</h2>'
        "<p>Of the clips that were asked about, by their mean learned reward. The band around the learned reward is "
        f'the ensemble’s; all clips have the same scale.</p><p class="note">{note}</p>{control}'
        f'<h3>The best</h3><div class="clips">{clips.cards(record, record.best, "best")}</div>'
        f'<h3>The worst</h3><div class="clips">{clips.cards(record, record.worst, "worst")}</div></section>'
    )


def _annotators(record: Record) -> set[str]:
    return {item.answer.annotator for items in record.answers.values() for item in items}


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"
