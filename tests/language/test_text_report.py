"""What commands for runs of every kind show of those that learn texts."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_preferences import model_folder, records, written

from envs.errors import RllabError
from language.cli.pretrain import command as pretrain
from language.cli.reward import command as reward
from language.cli.tune import command as tune
from language.preferences.report import TextRecord, _over_optimised, page
from preference.report import write_report
from rllab.cli.main import main
from rllab.descriptions import describe
from rllab.runs import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that were taught by a teacher, tuned by a reward, of a reward model, and pre-trained."""
    path = tmp_path_factory.mktemp("runs")
    model = model_folder(path / "model")
    texts = path / "texts.txt"
    texts.write_text("ab cd\nbad <b>\ncage\n")
    drawn = ["--prompts", str(texts), "--prompt-tokens", "2", "--evaluation-prompts", "8", "--maximum-new-tokens", "5"]
    more = ["--responses", "16", "--steps", "240", "--evaluation-every", "120", "--no-tensorboard", "--quiet"]
    common = [str(model), *drawn, *more]
    assert tune([*common, "--teacher", "length:3", "--labels", "20", "--out", str(path / "taught")]) == 0
    assert tune([*common, "--reward", "length:3", "--out", str(path / "tuned")]) == 0
    pairs = written(path / "pairs.jsonl", records(32))
    assert (
        reward(
            [
                str(model),
                str(pairs),
                "--steps",
                "2",
                "--normalise-tokens",
                "6",
                "--quiet",
                "--out",
                str(path / "reward"),
            ]
        )
        == 0
    )
    lines = written(path / "lines.jsonl", [{"text": row["chosen"] * 9} for row in records(64)])
    small = ["--layers", "1", "--heads", "1", "--width", "8", "--context", "16", "--length", "8", "--batch-size", "2"]
    assert pretrain([
        "gpt", str(lines), *small, "--vocabulary-size", "270", "--steps", "2", "--warmup", "1", "--quiet",
        "--out", str(path / "gpt"),
    ]) == 0  # fmt: skip
    return path


def test_a_page_about_a_taught_run_is_whole_and_shows_texts_before_and_after(folder: Path) -> None:
    path = write_report(folder / "taught")
    html = path.read_text("utf-8")
    for said in ("Teacher&#x27;s true score", "Tokens of responses", "KL a response", "Comparisons", "Before"):
        assert said in html
    assert not re.search(r'(src|href)="(?!#)', html)
    assert "<b>" not in html.replace("&lt;b&gt;", "")
    samples = TextRecord.read(folder / "taught").evaluations[-1]["samples"]
    assert samples
    assert html.count("<th scope='row'>") == len(samples)


def test_a_run_on_a_given_reward_has_a_page_without_comparisons(folder: Path) -> None:
    html = page(folder / "tuned")
    assert "Reward&#x27;s score" not in html
    assert 'id="comparisons-heading"' not in html


def test_over_optimisation_is_said_where_the_judge_falls_while_the_reward_rises(folder: Path) -> None:
    def row(steps: int, score: float, gold: float) -> dict[str, float]:
        return {"steps": steps, "score": score, "gold": gold, "gold_std": 1.0}

    record = TextRecord.read(folder / "taught")
    count = record.config.prompts.evaluation_prompts
    assert count == 8
    by_chance = 2 * (2 / count) ** 0.5  # two standard errors of a difference of means
    fallen = replace(record, evaluations=[row(0, 0, 0), row(10, 1, 2), row(20, 2, 2 - by_chance - 0.01)])
    assert "over-optimisation" in _over_optimised(fallen)
    assert "From 10 tokens on" in _over_optimised(fallen)
    assert not _over_optimised(replace(record, evaluations=[row(0, 0, 0), row(10, 1, 2), row(20, 2, 2.01 - by_chance)]))
    assert not _over_optimised(replace(record, evaluations=[row(0, 0, 0), row(10, 1, 2), row(20, 0.9, -5)]))


def test_runs_of_texts_are_compared_by_their_own_measures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = folder / "x.svg"
    cases = {"taught": ("Score", "Tokens of responses"), "gpt": ("Perplexity", "Optimiser steps"),
             "reward": ("Loss", "Optimiser steps")}  # fmt: skip
    for name, words in cases.items():
        assert main(["compare", str(folder / name), "--output", str(figure)]) == 0
        assert f"Final {words[0].lower()}" in capsys.readouterr().out
        assert all(word in figure.read_text() for word in words)
    assert main(["compare", str(folder / "taught"), str(folder / "gpt"), "--output", str(figure)]) == 2
    assert "compare them apart" in capsys.readouterr().err


def test_what_plays_no_episodes_is_sent_to_the_command_of_its_kind(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, said in (
        (["evaluate", "taught"], "judge its texts by `rllab language evaluate"),
        (["watch", "gpt"], "write with it by `rllab language generate"),
        (["preference", "evaluate", "taught"], "no reward model of clips; judge its texts by"),
        (
            ["preference", "report", "gpt"],
            "no page about runs of the kind 'language-pretraining'; draw it with `rllab compare",
        ),
    ):
        *command, name = arguments
        assert main([*command, str(folder / name)]) == 2
        assert re.search(said, capsys.readouterr().err.replace("\n", " "))


def test_a_kind_that_nothing_here_knows_is_said(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {"kind": "of-tomorrow"})
    with pytest.raises(RllabError, match="of the kind 'of-tomorrow', which nothing installed here knows"):
        describe(run)
    run.close()
