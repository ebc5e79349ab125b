"""`rllab preference rate`: contests between runs, their balance, and what their ratings are."""

import json
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_makers import learned_run, trained_run
from store_makers import TASK, make_clip

from envs.errors import RllabError
from preference import contest
from preference.cli.main import command
from preference.comparisons import Answer, Clip, Label, Pair
from preference.contest import draw_pairs, enter, play_clips
from preference.store import Store
from rllab.cli.main import main


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence in which a command line is refused."""
    capsys.readouterr()
    assert main(["preference", *argv]) == 2
    return capsys.readouterr().err


def test_every_two_runs_meet_equally_often_and_no_two_clips_twice() -> None:
    clips = [[make_clip(100 * run + number) for number in range(1, 9)] for run in range(3)]
    owner = {clip.id: run for run, own in enumerate(clips) for clip in own}
    pairs = draw_pairs(clips, 100, np.random.default_rng(0))
    meetings = [tuple(sorted((owner[pair.first], owner[pair.second]))) for pair in pairs]
    assert sorted(meetings.count(two) for two in ((0, 1), (0, 2), (1, 2))) == [33, 33, 34]
    assert len({frozenset((pair.first, pair.second)) for pair in pairs}) == 100
    first = [owner[pair.first] < owner[pair.second] for pair in pairs]
    assert 25 < sum(first) < 75


def test_runs_trained_with_and_without_absorbing_ends_play_in_one_arena() -> None:
    clips = [play_clips(contestant, 1, 45, seed=0) for contestant in enter([learned_run(), trained_run()])]
    shapes = {clip.arrays["observations"].shape for own in clips for clip in own}
    assert shapes == {(45, 4)}
    assert [len(own) for own in clips] == [4, 4]
    # The same episodes for both.
    np.testing.assert_array_equal(clips[0][0].arrays["observations"][0], clips[1][0].arrays["observations"][0])


def test_runs_are_rated_and_rated_again_without_new_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ratings"
    argv = ["rate", str(learned_run()), str(trained_run()), "--labels", "12", "--episodes", "2", "--out", str(out)]
    assert command(argv) == 0
    printed = capsys.readouterr().out
    assert str(trained_run()) in printed
    assert "12 comparisons by oracle" in printed
    assert (out / "ratings.png").is_file()
    assert command(argv) == 0
    assert "12 comparisons by oracle" in capsys.readouterr().out


def test_ratings_of_stored_answers_are_those_of_the_closed_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.sqlite"
    with Store.open(path, TASK) as store:
        for number in range(8):  # a beats b in 6 of 8: odds of 3 to 1
            clips = [
                Clip(make_clip(2 * number + i + 1).id, make_clip(2 * number + i + 1).arrays, "ab"[i]) for i in (0, 1)
            ]
            store.add_clips(clips)
            pair = Pair(uuid.UUID(int=500 + number), clips[0].id, clips[1].id)
            store.ask([pair])
            store.answer(Answer(uuid.uuid4(), pair.id, "ann", Label.FIRST if number < 6 else Label.SECOND))
    assert command(["rate", "--store", str(path), "--prior", "0", "--out", str(tmp_path), "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["run"], second["run"]) == ("a", "b")
    assert first["elo"] - second["elo"] == pytest.approx(400 * np.log10(3), abs=1e-4)
    assert first["beats_next"] == pytest.approx(0.75)


def test_questions_for_people_wait_in_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ratings"
    argv = ["rate", str(learned_run()), str(trained_run()), "--labels", "6", "--episodes", "1", "--teacher", "human"]
    assert command([*argv, "--out", str(out)]) == 0
    assert "6 questions wait" in capsys.readouterr().out
    with Store.open(out / "comparisons.sqlite") as store:
        assert len(store.open_pairs()) == 6


def test_runs_that_cannot_be_rated_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(learned_run())
    assert "at least two runs" in refused(["rate", run], capsys)
    assert "at least two runs" in refused(["rate"], capsys)
    assert "same run" in refused(["rate", run, str(Path(run).resolve() / ".." / Path(run).name)], capsys)
    other = enter([learned_run(), trained_run()])[1]
    loaded = contest.load_with_config

    def elsewhere(path: Path, checkpoint: object) -> object:
        policy, config, step = loaded(path, checkpoint)  # type: ignore[arg-type]
        return policy, replace(config, env=replace(other.env, id=f"Other-{Path(path).name}")), step

    monkeypatch.setattr(contest, "load_with_config", elsewhere)
    with pytest.raises(RllabError, match="runs of different environments cannot be rated"):
        enter([learned_run(), trained_run()])
