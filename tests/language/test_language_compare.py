"""Comparisons of methods: pairs, best-of-n's weights, points and their means, what is left on disk, and the command."""

import csv
import itertools
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_preferences import PROMPTS, model_folder
from tiny_texts import RESPONSE, gpt, tokenizer

from envs.errors import RllabError
from language.cli.compare import command
from language.preferences.best_of import best_of_n_kl, best_of_n_weights
from language.preferences.collect import TextCollector
from language.preferences.compare import Comparison
from language.preferences.compare_config import CompareConfig, LearningConfig, MethodsConfig, Piece, beta_at
from language.preferences.data import TextsConfig, read_comparisons
from language.preferences.direct import DirectPreferences
from language.preferences.frontier import Baseline, Point, draw, reached, write_csv
from language.preferences.prompts import PromptsConfig
from language.preferences.responses import ResponsesConfig
from language.preferences.sampled_pairs import sampled_pairs, write_pairs
from language.preferences.tuning_config import DEFAULTS, BatchConfig
from language.training import supervised
from preference.measures import wilson_interval
from rllab.interrupt import Interrupted
from rllab.runs import Run

GOLD = "python:tiny_texts:share_of_a"
BASELINE = Baseline(proxy=1.0, proxy_deviation=2.0, gold=-1.0, gold_deviation=0.5, responses=30)


def point(method: str, seed: int, kl: float, gold: float, **changes: Any) -> Point:
    parts: dict[str, Any] = {"setting": "KL 2", "steps": 100, "final": True, "kl_error": 0.1, "proxy": 2.0}
    return Point(method, seed=seed, kl=kl, gold=gold, **{**parts, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compare")
    model_folder(path / "model")
    (path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    return path


def config(folder: Path, *methods: str, learning: dict[str, Any] | None = None, **changes: Any) -> CompareConfig:
    learnt: dict[str, Any] = {"steps": 300, "path_points": 2, "pairs": 64, "best_of": 8, "direct_epochs": 1.0}
    parts: dict[str, Any] = {
        "reward": (GOLD,),
        "methods": MethodsConfig(methods, (2.0,), (0.1,), 1),
        "learning": LearningConfig(**{**learnt, **(learning or {})}),
        "prompts": PromptsConfig(str(folder / "prompts.txt"), prompt_tokens=0, evaluation_prompts=12),
        "drawing": ResponsesConfig(RESPONSE),
        "batch": BatchConfig(16, 8),
    }
    return CompareConfig(str(folder / "model"), (GOLD,), **{**parts, **changes})


def test_best_of_n_weights_are_the_shares_of_all_choices_of_n() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 6))
    for n in range(1, 7):
        choices = list(itertools.combinations(range(6), n))
        shares = np.zeros_like(scores)
        for row, values in enumerate(scores):
            for chosen in choices:
                shares[row, max(chosen, key=values.__getitem__)] += 1 / len(choices)
        np.testing.assert_allclose(best_of_n_weights(scores, n), shares, atol=1e-12)
    with pytest.raises(RllabError, match="The best of 7 cannot be told from 6"):
        best_of_n_weights(scores, 7)


def test_pairs_prefer_the_better_response_and_leave_out_what_cannot_be_decided(tmp_path: Path) -> None:
    letters = tokenizer()

    def score(prompts: Any, responses: Any) -> list[float]:
        return [float(response.count("a")) for response in responses]

    prompts = [letters.ids(prompt) for prompt in PROMPTS]
    pairs = sampled_pairs(gpt(), letters, prompts, 80, score, ResponsesConfig(RESPONSE))
    assert 10 < len(pairs) < 80
    assert all(pair.first.count("a") > pair.second.count("a") for pair in pairs)
    assert {pair.prompt for pair in pairs} <= set(PROMPTS)
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert read_comparisons(TextsConfig((str(tmp_path / "pairs.jsonl"),))).items == pairs
    with pytest.raises(RllabError, match="none has one that is better"):
        sampled_pairs(gpt(), letters, prompts, 8, lambda p, r: [0.0] * len(r), ResponsesConfig(RESPONSE))


def test_sampled_labels_are_as_often_right_as_bradley_terry_says() -> None:
    letters = tokenizer()
    prompts = [letters.ids(prompt) for prompt in PROMPTS]

    def score(prompts: Any, responses: Any) -> list[float]:
        return [1.0 if response < "d" else 0.0 for response in responses]

    pairs = sampled_pairs(gpt(), letters, prompts, 1_500, score, ResponsesConfig(2), labelling="sampled")
    decided = [pair for pair in pairs if (pair.first < "d") != (pair.second < "d")]
    right = sum(pair.first < "d" for pair in decided)
    low, high = wilson_interval(right, len(decided), 0.999)
    assert low < 1 / (1 + math.exp(-1)) < high
    assert high < 0.85


def test_means_intervals_and_wins_are_those_of_the_seeds() -> None:
    points = [
        point("ppo", 0, 1.0, 0.0, won=6, judged=10), point("ppo", 1, 3.0, 1.0, won=9, judged=10),
        point("ppo", 0, 0.5, 9.0, final=False, steps=50), point("dpo", 0, 2.0, -1.0, setting="β 0.1"),
    ]  # fmt: skip
    ppo, dpo = reached(points, BASELINE)
    assert (ppo.method, ppo.seeds, ppo.kl, ppo.gold) == ("ppo", 2, 2.0, 0.5)
    assert ppo.gain == pytest.approx((0.5 + 1.0) / 0.5)
    assert ppo.win_rate == 0.75
    assert ppo.win_interval == wilson_interval(15, 20)
    assert ppo.gold_interval == (0.0, 1.0)
    assert dpo.gold_interval == (-1.0, -1.0)
    assert math.isnan(dpo.win_rate)


def test_the_figure_is_drawn_and_the_rows_of_the_csv_are_the_points(tmp_path: Path) -> None:
    points = [point("ppo", seed, 2.0 + seed, 0.3 * seed, steps=steps, final=steps == 100)
              for seed in range(2) for steps in (50, 100)]  # fmt: skip
    points += [point("best-of-n", 0, best_of_n_kl(n), 0.1 * n, setting=f"n {n}") for n in (2, 4)]
    with Image.open(draw(points, BASELINE, tmp_path / "frontier.png", title="t")) as image:
        assert image.size[0] > 1_000
    assert "<svg" in draw(points, BASELINE, tmp_path / "frontier.svg", root=False).read_text()
    write_csv(tmp_path / "points.csv", points, BASELINE)
    rows = list(csv.DictReader((tmp_path / "points.csv").open()))
    assert len(rows) == len(points)
    assert float(rows[1]["gold_gain"]) == pytest.approx((points[1].gold + 1.0) / 0.5)
    with pytest.raises(RllabError, match="nothing to draw"):
        draw([], BASELINE, tmp_path / "none.png")


def test_every_method_is_judged_and_what_is_done_is_not_done_again(folder: Path, tmp_path: Path) -> None:
    everything = config(
        folder, "reinforce", "ppo", "trpo", "dpo", "ipo", "best-of-n", learning={"steps": 130, "pairs": 40}
    )
    comparison = Comparison(everything, tmp_path / "out")
    comparison.prepare(quiet=True)
    assert comparison.seconds_needed(comparison.pieces) > 0
    for piece in comparison.missing():
        comparison.make(piece, quiet=True)
    points = comparison.points()
    assert {p.method for p in points} == {"reinforce", "ppo", "trpo", "dpo", "ipo", "best-of-n"}
    finals = [p for p in points if p.final]
    assert [p.setting for p in finals if p.method == "best-of-n"] == ["n 2", "n 4", "n 8"]
    assert all(p.judged == 12 and 0 <= p.won <= 12 for p in finals)
    # Here the reward is the judge, so that the better of more is never worse.
    best = [p.gold for p in finals if p.method == "best-of-n"]
    assert best == sorted(best)
    assert all(p.gold == pytest.approx(p.proxy) for p in finals)
    run = tmp_path / "out" / "ppo-kl2-seed0"
    assert (run / "model").is_dir()
    assert not (run / "checkpoints").exists()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()}
    again = Comparison(everything, tmp_path / "out")
    again.prepare(quiet=True)
    assert again.missing() == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()} == before
    more = replace(everything, methods=MethodsConfig(("best-of-n",), seeds=2))
    assert Comparison(more, tmp_path / "out").missing() == [Piece("best-of-n", 8, 1)]


def test_other_settings_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    Comparison(config(folder, "ppo"), tmp_path / "out")
    with pytest.raises(RllabError, match=r"other settings \(drawing.temperature, learning.steps\)"):
        Comparison(
            config(folder, "ppo", learning={"steps": 400}, drawing=ResponsesConfig(RESPONSE, 0.7)), tmp_path / "out"
        )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(RllabError, match="holds no comparison"):
        Comparison(config(folder, "ppo"), tmp_path / "other")


def test_an_interrupted_training_goes_on_to_the_same_result(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = (Comparison(config(folder, "ppo", "dpo"), tmp_path / name) for name in ("whole", "broken"))
    for comparison in (whole, broken):
        comparison.prepare(quiet=True)
    expected = [comparison_points for piece in whole.pieces for comparison_points in whole.make(piece, quiet=True)]

    stops: list[Any] = []
    for place in (sys.modules["rllab.train"], supervised):
        real = place.deferred_signals  # type: ignore[attr-defined]
        monkeypatch.setattr(place, "deferred_signals", lambda stop, real=real: (stops.append(stop), real(stop))[1])
    for piece, (kind, name) in zip(
        broken.pieces, ((TextCollector, "collect"), (DirectPreferences, "batch")), strict=True
    ):
        calls = itertools.count()
        work = getattr(kind, name)

        def interrupted(self: Any, *given: Any, calls: Any = calls, work: Any = work) -> Any:
            if next(calls) == 1:
                stops[-1](15)
            return work(self, *given)

        with monkeypatch.context() as patch:
            patch.setattr(kind, name, interrupted)
            with pytest.raises(Interrupted):
                broken.make(piece, quiet=True)
        assert (Run.open(tmp_path / "broken" / piece.name).checkpoints.latest() or 0) > 0
    found = [each for piece in broken.missing() for each in broken.make(piece, quiet=True)]
    assert found == expected


def arguments(folder: Path, out: Path, *more: str) -> list[str]:
    return [
        str(folder / "model"), "--gold", GOLD, "--prompts", str(folder / "prompts.txt"), "--prompt-tokens", "0",
        "--maximum-new-tokens", str(RESPONSE), "--responses", "16", "--minibatch-responses", "8", "--steps", "200",
        "--path-points", "1", "--pairs", "80", "--best-of", "4", "--evaluation-prompts", "8", "--seeds", "1",
        "--kl-budgets", "2", "--betas", "0.1", "--out", str(out), *more,
    ]  # fmt: skip


def test_the_command_learns_a_reward_compares_reports_and_goes_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert command(arguments(folder, out, "--methods", "reinforce", "best-of-n")) == 0
    printed = capsys.readouterr().out
    for words in ("of held-out ones are predicted", "of agents take about", "reinforce-kl2-seed0", "model as it began"):
        assert words in printed
    document = json.loads((out / "comparison.json").read_text())
    assert {each["method"] for each in document["reached"]} == {"reinforce", "best-of-n"}
    assert document["settings"]["gold"] == [GOLD]
    assert {path.name for path in out.iterdir()} >= {
        "frontier.svg",
        "frontier.png",
        "points.csv",
        "reward",
        "pairs.jsonl",
    }
    assert command(arguments(folder, out, "--methods", "reinforce", "best-of-n", "dpo")) == 0
    printed = capsys.readouterr().out
    assert "1 to do, 2 done before" in printed
    assert "[1/1] dpo-beta0.1-seed0" in printed


def test_what_cannot_work_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    cases: dict[str, list[str]] = {
        "There is no method 'pppo'": ["--methods", "pppo"],
        "is named twice": ["--methods", "ppo", "ppo"],
        "must be numbers above 0": ["--kl-budgets", "0"],
        "sets nothing": ["--set", "ppo=3"],
        "ppo has no setting 'epoch'": ["--set", "ppo.epoch=3"],
        "There is no training 'x'": ["--only", "x"],
        "none has one that is better": ["--gold", "keywords:nothing"],
        "gives 0 to all": ["--gold", "keywords:nothing", "--labelling", "sampled"],
        "There is no reward 'praise'": ["--reward", "praise:much"],
    }  # fmt: skip
    for number, (words, more) in enumerate(cases.items()):
        with pytest.raises(RllabError, match=words):
            command(arguments(folder, tmp_path / str(number), *more, "--quiet"))
    with pytest.raises(RllabError, match="Name a judge"):
        command([str(folder / "model")])


def test_agents_take_the_settings_that_were_given() -> None:
    learning = LearningConfig(set=("ppo.learning_rate=0.002", "reinforce.baseline=leave_one_out"))
    assert learning.agent("ppo").learning_rate == 0.002
    assert learning.agent("reinforce").baseline == "leave_one_out"  # type: ignore[attr-defined]
    assert learning.agent("trpo") == LearningConfig(set=()).agent("trpo") == DEFAULTS["trpo"]


def test_normal_rewards_tilted_by_the_first_beta_are_as_far_away_as_the_budget_says() -> None:
    rewards = np.linspace(-12, 12, 20_001)
    before = np.exp(-(rewards**2) / 2)
    before /= before.sum()
    after = before * np.exp(rewards / beta_at(5.0))
    after /= after.sum()
    assert float((after * np.log(after / before)).sum()) == pytest.approx(5.0, rel=1e-6)
