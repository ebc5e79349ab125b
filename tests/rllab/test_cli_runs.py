"""The commands that look at runs: `rllab evaluate`, `watch`, `compare`, `envs`, and the demonstration."""

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import rllab
from rllab.cli import compare, demo
from rllab.cli.main import main
from rllab.descriptions import Description
from rllab.statistics import summarise


def settings(**changed: Any) -> dict[str, Any]:
    """Those of a PPO that trains in no time."""
    small = {"num_envs": 2, "rollout_steps": 64, "minibatch_size": 64, "epochs": 1, "steps": 256, "learning_rate": 3e-4}
    return {**small, "evaluation_episodes": 2, "tensorboard": False, **changed}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three runs: two seeds of one method, and another method in a folder inside."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        rllab.train("ppo", "CartPole-v1", out=folder / f"seed-{seed}", quiet=True, **settings(seed=seed))
    rllab.train("ppo", "CartPole-v1", out=folder / "other" / "run", quiet=True, **settings(learning_rate=0.01))
    return folder


def test_evaluation_as_json_has_the_returns_and_their_summary(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(runs / "seed-0"), "--episodes", "9", "--seed", "3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["env", "episodes", "actions", "mean", "std", "iqm", "ci95", "returns"]
    assert (document["env"], document["episodes"]) == ("CartPole-v1", 9)
    expected = rllab.evaluate(runs / "seed-0", episodes=9, seed=3).returns
    assert document["returns"] == expected.tolist()
    assert {name: document[name] for name in ("mean", "std", "iqm", "ci95")} == summarise(expected)


def test_evaluation_of_several_runs_is_a_list_or_a_table_with_a_row_for_each(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(runs), "--episodes", "2", "--json"]) == 0
    documents = json.loads(capsys.readouterr().out)
    assert [document["run"] for document in documents] == [str(runs / "seed-0"), str(runs / "seed-1")]
    assert main(["evaluate", str(runs), "--episodes", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("CartPole-v1" in line for line in lines) == 2


def test_checkpoints_are_named_best_latest_or_by_step(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(runs / "seed-0")
    for name in ("best", "latest", "0"):
        assert main(["evaluate", run, "--episodes", "1", "--checkpoint", name, "--actions", "sampled"]) == 0
    capsys.readouterr()
    assert main(["evaluate", run, "--checkpoint", "newest"]) == 2
    assert "there is no checkpoint 'newest'" in capsys.readouterr().err
    assert main(["evaluate", run, "--checkpoint", "7"]) == 2
    assert "There is no checkpoint of step 7" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["evaluate", "compare"])
def test_without_a_run_one_is_asked_for(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name]) == 2
    assert "name at least one run" in capsys.readouterr().err


def test_video_plays_and_holds_an_episode(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "videos" / "pole.mp4"
    assert main(["watch", str(runs / "seed-0"), "--output", str(output), "--episodes", "2"]) == 0
    with av.open(str(output)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert f"2 episodes, {len(frames)} frames" in capsys.readouterr().out
    assert len(frames) > 10
    assert frames[0].shape == (400, 600, 3)
    assert frames[0].std() > 1  # something is drawn


def test_video_of_an_unknown_format_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(runs / "seed-0"), "--output", "pole.avi"]) == 2
    assert "does not end in .mp4 or .gif" in capsys.readouterr().err


def test_comparison_draws_a_figure_and_prints_a_row_for_each_method(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "curves.png"
    assert main(["compare", str(runs), str(runs / "other"), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "ppo learning_rate=0.0003" in printed
    assert "ppo learning_rate=0.01" in printed
    with Image.open(output) as image:
        assert np.asarray(image.convert("L")).std() > 1


def test_seeds_of_one_configuration_are_one_method(runs: Path) -> None:
    [method] = compare.group([runs / "seed-0", runs / "seed-1", runs / "seed-1"])
    assert [run.config["seed"] for run in method.runs] == [0, 1]
    assert compare.labels([method]) == ["ppo CartPole-v1"]


def test_folders_named_separately_stay_apart_though_their_configuration_is_equal(tmp_path: Path) -> None:
    for name in ("before", "after"):
        rllab.train("ppo", "CartPole-v1", out=tmp_path / name / "seed-0", quiet=True, **settings(evaluation_every=0))
    methods = compare.group([tmp_path / "before", tmp_path / "after"])
    assert compare.labels(methods) == ["ppo before", "ppo after"]


def test_comparison_of_an_unknown_metric_names_those_there_are(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(runs), "--metric", "happiness"]) == 2
    assert "return_mean" in capsys.readouterr().err


def test_environments_are_listed_with_what_is_installed_and_tuned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "classic"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "CartPole-v1" in line]
    assert line.split()[1:5] == ["classic", "control", "yes", "reinforce,"]
    assert main(["envs", "--preset"]) == 0
    assert "phys2d" not in capsys.readouterr().out
    assert main(["envs", "no such"]) == 2


@pytest.mark.parametrize(("threshold", "code"), [(5.0, 0), (501.0, 1)])
def test_demonstration_ends_with_its_files_and_says_whether_the_threshold_was_reached(
    tmp_path: Path,
    threshold: float,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The act about texts takes minutes and has a test of its own.
    acts = [act for act in entry_points(group="rllab.demo_acts") if not act.value.startswith("language.")]
    monkeypatch.setattr(demo, "entry_points", lambda group: acts)
    monkeypatch.setattr(demo, "THRESHOLD", threshold)
    monkeypatch.setattr(demo, "configure", lambda agent, env, _: rllab.configure(agent, env, settings()))
    assert main(["demo", "--out", str(tmp_path / "demo")]) == code
    captured = capsys.readouterr()
    assert ("was not solved" in captured.err) == (code == 1)
    for name in ("learning-curve.png", "cartpole.mp4"):
        assert (tmp_path / "demo" / name).stat().st_size > 1000
        assert name in captured.out
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 2


def test_methods_of_several_agents_and_environments_are_told_apart_by_what_differs_among_their_own_kind() -> None:
    def method(agent: str, env: str, **settings: object) -> compare.Method:
        return compare.Method({"agent_name": agent, "id": env, **settings}, None, [], Description(agent, env))

    methods = [method("ppo", "A", epochs=4), method("ppo", "A", epochs=8), method("trpo", "A", max_kl=0.01)]
    assert compare.labels(methods) == ["ppo epochs=4", "ppo epochs=8", "trpo"]
    methods = [method("ppo", "A", epochs=4), method("ppo", "B", epochs=8)]
    assert compare.labels(methods) == ["ppo A", "ppo B"]
