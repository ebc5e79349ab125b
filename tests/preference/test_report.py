"""The page about a run: whole by itself, well-formed, and true to the store."""

import re
import uuid
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from run_makers import learned_run, trained_run

from envs.errors import RllabError
from preference.comparisons import Label
from preference.experiment import load_reward_model
from preference.report import charts, clips, write_report
from preference.report.charts import themed
from preference.report.record import Record
from preference.sheets import encode_sheet
from preference.store import Sheet, Store
from preference.stored import StoredComparisons, held_out_in_run
from rllab.runs import Run

VOID = {"meta", "input", "br", "link", "img"}


class Checked(HTMLParser):
    """Whether tags are closed in order; the ids, and what refers to something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._note(attributes)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._note(attributes)

    def _note(self, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "aria-labelledby"):
                self.references.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def record() -> Record:
    return Record.read(learned_run())


def test_the_page_is_well_formed_and_loads_nothing(tmp_path: Path) -> None:
    text = write_report(learned_run(), tmp_path / "deep" / "report.html").read_text()
    checked = Checked(text)
    assert checked.open == []
    assert len(checked.ids) == len(set(checked.ids))
    for reference in checked.references:
        assert reference.removeprefix("#") in checked.ids
    assert not re.search(r"url\((?!#|data:)", text)
    assert "@import" not in text
    assert "<script" not in text


def test_a_figure_is_the_same_each_time(record: Record) -> None:
    assert charts.returns(record) == charts.returns(record)


def test_the_record_has_every_question_and_answer_of_the_store(record: Record) -> None:
    with Store.open(learned_run() / "comparisons.sqlite") as store:
        progress = store.progress()
    assert len(record.asked) == progress.pairs
    assert record.answered == progress.answered
    assert record.count(Label.TIE) == progress.ties
    assert (np.diff(record.asked_at) >= 0).all()
    assert record.asked_at[-1] <= record.rows[-1]["steps"]


def test_the_best_clips_have_more_of_the_learned_reward_than_the_worst(record: Record) -> None:
    best, worst = [clip.mean for clip in record.best], [clip.mean for clip in record.worst]
    assert best == sorted(best, reverse=True)
    assert worst == sorted(worst)
    assert len(best) == len(worst) == 3
    assert min(best) > max(worst)


def test_measures_are_of_the_differences_that_the_model_gives_for_single_pairs() -> None:
    model = load_reward_model(learned_run())
    with Store.open(learned_run() / "comparisons.sqlite") as store:
        stored = StoredComparisons.read(store)
    differences = np.array([
        model.differences(stored.clips[item.pair.first], stored.clips[item.pair.second]) for item in stored.comparisons
    ])  # fmt: skip
    expected = (1 / (1 + np.exp(-differences.astype(np.float64)))).mean(axis=1)
    np.testing.assert_allclose(stored.probabilities(model), expected, atol=1e-5)


def test_comparisons_of_clips_that_are_held_out_are_held_out(record: Record) -> None:
    held_out = held_out_in_run(record.run)
    pairs = {str(i.answer.id): {i.pair.first, i.pair.second} for items in record.answers.values() for i in items}
    clips = set[uuid.UUID]().union(*(pairs[key] for key in held_out))
    others = [pair for key, pair in pairs.items() if key not in held_out]
    assert clips
    assert others
    assert not any(pair <= clips for pair in others)
    assert 0 < record.measures["held out"].count <= len(held_out)


def test_a_drawn_clip_is_shown_as_a_film_of_its_frames(record: Record) -> None:
    frames = np.zeros((20, 60, 90, 3), np.uint8)
    frames[:, :, :, 0] = np.arange(0, 200, 10)[:, None, None]
    drawn = replace(record.best[0], sheet=Sheet(*encode_sheet(frames, fps=20.0)))
    filmed = replace(record, best=(drawn,), worst=())
    assert clips.has_films(filmed)
    assert not clips.has_films(record)
    text = clips.cards(filmed, filmed.best, "best")
    assert text.count('class="film"') == 1
    # 60 by 90 pixels at a height of 150 are 225 wide, 20 times over.
    assert "width:225px;height:150px;--strip:-4500px" in text
    assert "steps(20)" in text


def test_a_run_without_model_answers_or_metrics_has_a_page_too(tmp_path: Path) -> None:
    source = Run.open(learned_run())
    with Store.open(learned_run() / "comparisons.sqlite") as store:
        task = store.task
    with Run.create(tmp_path / "run", {**source.config, "run_id": str(uuid.uuid4())}):
        Store.open(tmp_path / "run" / "comparisons.sqlite", task).close()
    text = write_report(tmp_path / "run").read_text()
    assert Checked(text).open == []
    assert "learned from 0 comparisons" in text
    assert "its reward model is not saved yet" in text


def test_what_people_wrote_is_not_taken_for_markup(tmp_path: Path) -> None:
    source = Run.open(learned_run())
    with Store.open(learned_run() / "comparisons.sqlite") as store:
        task = store.task
    config = {**source.config, "run_id": str(uuid.uuid4()), "agent_name": "<script>alert(1)</script>"}
    with Run.create(tmp_path / "run", config):
        Store.open(tmp_path / "run" / "comparisons.sqlite", task).close()
    assert "<script" not in write_report(tmp_path / "run").read_text()


def test_a_run_on_a_true_reward_has_no_report() -> None:
    with pytest.raises(RllabError, match="has learnt from no comparisons"):
        write_report(trained_run())


def test_figures_take_their_colours_and_type_from_the_page() -> None:
    svg = (
        '<?xml version="1.0"?><svg width="10pt" height="5pt" viewBox="0 0 10 5"><metadata>x</metadata>'
        '<path id="p" style="fill: #0072b2; stroke: #000000"/><use xlink:href="#p" clip-path="url(#c)"/>'
        "<text style=\"font: 12px 'DejaVu Sans'\">a</text></svg>"
    )
    result = themed(svg, "chart", "A chart")
    assert '<path id="chart-p" style="fill: var(--c0); stroke: currentColor"/>' in result
    assert 'xlink:href="#chart-p" clip-path="url(#chart-c)"' in result
    assert "font: normal 12px var(--sans)" in result
    assert '<title id="chart-title">A chart</title>' in result
    assert "metadata" not in result
