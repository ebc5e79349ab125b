"""The subcommands of `rllab preference` beside learn: what they print, write and refuse."""

import json
import subprocess
import sys
import types
import uuid
from pathlib import Path

import numpy as np
import pytest
from run_makers import learned_run, trained_run
from store_makers import TASK, fill, say

from envs.config import EnvConfig
from preference.cli.main import SUBCOMMANDS, command
from preference.comparisons import Clip, Label, Pair
from preference.experiment import load_reward_model
from preference.playing import Player, transitions_of
from preference.store import Store, Task
from preference.stored import StoredComparisons, fit_stored, held_out_in_run
from rllab.cli.main import main
from rllab.evaluate import Evaluator
from rllab.experiment import load
from rllab.runs import Run

LINEAR = Task("Pendulum-v1", "clips", {"shape": [3], "dtype": "float32"}, {"shape": [1], "dtype": "float32"})


def linear_store(path: Path, count: int, environment: str = "Pendulum-v1") -> Path:
    """Comparisons of random clips by a reward that is linear in what is observed."""
    generator = np.random.default_rng(0)
    with Store.open(path, Task(environment, "clips", LINEAR.observation, LINEAR.action)) as store:
        for number in range(count):
            clips = []
            for side in range(2):
                observations = generator.standard_normal((8, 3)).astype(np.float32)
                arrays = {
                    "observations": observations,
                    "actions": generator.uniform(-1, 1, (8, 1)).astype(np.float32),
                    "rewards": observations @ np.array([1, -2, 0.5], np.float32),
                }
                clips.append(Clip(uuid.UUID(int=1 + 2 * number + side), arrays, "run"))
            store.add_clips(clips)
            pair = Pair(uuid.UUID(int=10_000 + number), clips[0].id, clips[1].id, "run")
            store.ask([pair])
            better = clips[0].arrays["rewards"].sum() > clips[1].arrays["rewards"].sum()
            store.answer(say(pair, Label.FIRST if better else Label.SECOND))
    return path


def answered_store(path: Path, labels: list[Label]) -> Path:
    with Store.open(path, TASK) as store:
        pairs = fill(store, len(labels))
        store.answer([say(pair, label) for pair, label in zip(pairs, labels, strict=True)])
    return path


def fails(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence in which a command line is refused."""
    capsys.readouterr()
    assert main(["preference", *argv]) == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith("rllab: error: ")
    assert sentence.count("\n") == 1
    return sentence


def test_help_has_every_subcommand_with_the_first_line_of_its_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "fit Learn a reward model from stored comparisons alone, without the environment." in printed
    for name in SUBCOMMANDS:
        assert f" {name} " in printed


def test_without_a_subcommand_the_help_goes_to_the_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert command([]) == 2
    assert "usage: rllab preference" in capsys.readouterr().err


def test_an_unknown_subcommand_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean export?" in fails(["exprot"], capsys)
    assert "the subcommand comes first" in fails(["--labels"], capsys)


def test_help_imports_neither_torch_nor_sqlalchemy() -> None:
    code = (
        "import sys; from preference.cli.main import command; command(['--help']); "
        "print(*(name for name in ('torch', 'sqlalchemy', 'tyro', 'numpy') if name in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""


def test_a_reward_is_learnt_from_a_store_without_its_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = linear_store(tmp_path / "c.sqlite", 150, environment="Nowhere-v0")
    out = tmp_path / "model"
    smaller = ["--members", "1", "--reward-hidden-sizes", "32"]
    assert command(["fit", str(store), "--out", str(out), "--epochs", "60", *smaller]) == 0
    printed = capsys.readouterr().out
    assert "150 comparisons of 300 clips of Nowhere-v0" in printed
    assert "held out" in printed
    assert (out / "reliability.png").is_file()
    with Store.open(store) as opened:
        stored = StoredComparisons.read(opened)
    model = load_reward_model(out)
    held_out = json.loads((out / "model.json").read_text())["about"]["held_out"]
    assert 15 <= len(held_out) <= 45
    unseen = stored.only(lambda item: str(item.answer.id) in held_out)
    assert unseen.measures(model).accuracy >= 0.85
    assert command(["evaluate", str(out), "--store", str(store), "--held-out", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["comparisons"]["held out"]["comparisons"] == len(held_out)


def test_the_same_seed_fits_the_same_model(tmp_path: Path) -> None:
    with Store.open(linear_store(tmp_path / "c.sqlite", 30)) as store:
        stored = StoredComparisons.read(store)
    one, other, third = (fit_stored(stored, epochs=3, seed=seed).model.flat for seed in (4, 4, 5))
    assert (one == other).all()
    assert not (one == third).all()


def test_both_answers_of_a_pair_that_two_people_answered_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.sqlite"
    with Store.open(path, TASK) as store:
        pairs = fill(store, 12, details={"wanted": 2})
        for pair in pairs:
            store.answer([say(pair, Label.FIRST, "ann"), say(pair, Label.SECOND, "bob")])
        stored = StoredComparisons.read(store)
    assert (len(stored), stored.repeated) == (24, 12)
    assert command(["fit", str(path), "--out", str(tmp_path / "m"), "--epochs", "1"]) == 0
    assert "12 pairs were answered by several annotators, and every answer counts" in capsys.readouterr().out


def test_choices_without_a_number_of_options_have_as_many_as_occur(tmp_path: Path) -> None:
    task = Task("X", "clips", {"shape": [2], "dtype": "float32"}, {"shape": [2], "dtype": "int64"})
    actions = np.array([[0, 1], [2, 0]])
    clips = [
        Clip(uuid.UUID(int=i), {"observations": np.full((2, 2), i, np.float32), "actions": actions}) for i in (1, 2)
    ]
    with Store.open(tmp_path / "c.sqlite", task) as store:
        store.add_clips(clips)
        pair = Pair(uuid.UUID(int=9), clips[0].id, clips[1].id)
        store.ask([pair])
        store.answer(say(pair))
        assert StoredComparisons.read(store).inputs().choices == (3, 2)


def test_frames_in_a_store_are_read_as_images(tmp_path: Path) -> None:
    task = Task("X", "clips", {"shape": [40, 40, 3], "dtype": "uint8"}, {"shape": [], "dtype": "int64", "n": 4})
    clips = [
        Clip(
            uuid.UUID(int=i), {"observations": np.full((2, 40, 40, 3), i, np.uint8), "actions": np.array([0, 3])}
        )
        for i in (1, 2)
    ]  # fmt: skip
    with Store.open(tmp_path / "c.sqlite", task) as store:
        store.add_clips(clips)
        pair = Pair(uuid.UUID(int=9), clips[0].id, clips[1].id)
        store.ask([pair])
        store.answer(say(pair))
        inputs = StoredComparisons.read(store).inputs()
    assert (inputs.image, inputs.channels_last, inputs.choices) == (True, True, (4,))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([], "nothing in it has been answered yet"),
        ([Label.SKIP] * 3, "all its 3 answers are skips"),
        ([Label.TIE] * 5, "all 5 comparisons are ties"),
        ([Label.SECOND] * 25, "prefer the second clip"),
    ],
)
def test_comparisons_that_teach_nothing_are_refused_in_one_sentence(
    labels: list[Label], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = answered_store(tmp_path / "c.sqlite", labels)
    assert said in fails(["fit", str(store), "--out", str(tmp_path / "m"), "--quiet"], capsys)
    assert not (tmp_path / "m").exists()


def test_a_store_of_texts_and_one_that_is_not_there_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Store.open(tmp_path / "t.sqlite", Task("", "texts")).close()
    assert "compares texts" in fails(["fit", str(tmp_path / "t.sqlite")], capsys)
    assert "no store" in fails(["fit", str(tmp_path / "none.sqlite")], capsys)


def test_a_model_of_another_environment_is_not_measured_on_a_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = answered_store(tmp_path / "c.sqlite", [Label.FIRST, Label.SECOND])
    assert "of another environment" in fails(["evaluate", str(learned_run()), "--store", str(store)], capsys)


def test_a_run_is_measured_on_what_it_held_out(capsys: pytest.CaptureFixture[str]) -> None:
    held_out = held_out_in_run(Run.open(learned_run()))
    assert command(["evaluate", str(learned_run()), "--held-out", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["comparisons"]["held out"]["comparisons"]
    assert 0 < measured <= len(held_out)


def test_played_episodes_have_the_returns_of_an_evaluation_and_the_rewards_of_the_equation() -> None:
    policy, env = load(trained_run()), EnvConfig("Pendulum-v1")
    episodes = list(Player(policy, env).episodes(3, seed=5))
    with Evaluator(env, 3, seed=5) as evaluator:
        evaluated = evaluator(policy).returns
    np.testing.assert_allclose(sorted(e["rewards"].sum() for e in episodes), sorted(evaluated), rtol=1e-5)
    for episode in episodes:
        cosine, sine, velocity = episode["observations"].T
        reward = -(np.arctan2(sine, cosine) ** 2 + 0.1 * velocity**2 + 0.001 * episode["actions"][:, 0] ** 2)
        np.testing.assert_allclose(episode["rewards"], reward, rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(episode["observations"][1:], episode["next_observations"][:-1])


def test_clips_without_next_observations_have_one_transition_fewer() -> None:
    arrays = {"observations": np.arange(4.0)[:, None], "actions": np.arange(4)}
    transitions = transitions_of([arrays, arrays])
    assert transitions.observations[:, 0].tolist() == [0, 1, 2, 0, 1, 2]
    assert transitions.next_observations[:, 0].tolist() == [1, 2, 3, 1, 2, 3]


def test_the_epic_distance_is_0_from_itself_and_1_from_the_opposite(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(learned_run())
    model = load_reward_model(run)
    module = types.ModuleType("opposites")
    module.opposite = lambda observations, actions, following: -model.reward(observations, actions)  # type: ignore[attr-defined]
    module.broken = lambda observations: observations  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "opposites", module)
    for other, distance in ((run, 0.0), ("opposites:opposite", 1.0)):
        assert command(["evaluate", run, "--epic", other, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["epic"]["distance"] == pytest.approx(distance, abs=1e-3)
    assert "opposites:broken failed (TypeError" in fails(["evaluate", run, "--epic", "opposites:broken"], capsys)
    assert "no reward function" in fails(["evaluate", run, "--epic", "opposites:none"], capsys)


def test_a_model_is_held_against_the_true_reward(capsys: pytest.CaptureFixture[str]) -> None:
    run = str(learned_run())
    assert command(["evaluate", run, "--run", run, "--episodes", "3", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["true_reward"]
    assert (measured["episodes"], measured["steps"]) == (3, 600)
    assert -1 <= measured["pearson_step"] <= 1
    assert measured["spread_mean"] > 0
    assert "--termination" in fails(["evaluate", run, "--run", str(trained_run())], capsys)


def test_what_was_exported_comes_back_in_a_new_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = answered_store(tmp_path / "c.sqlite", [Label.FIRST, Label.TIE, Label.SKIP])
    for name in ("c.jsonl", "c.parquet"):
        assert command(["export", str(store), str(tmp_path / name)]) == 0
        assert "6 clips, 3 pairs and 3 answers that count (1 ties, 1 skips)" in capsys.readouterr().out
        copy = tmp_path / f"{name}.sqlite"
        assert command(["import", str(tmp_path / name), str(copy)]) == 0
        assert "New  6 clips, 3 pairs and 3 answers" in capsys.readouterr().out
        assert command(["import", str(tmp_path / name), str(copy)]) == 0
        assert "New  0 clips, 0 pairs and 0 answers" in capsys.readouterr().out
        with Store.open(copy) as opened:
            assert opened.task == TASK


def test_a_damaged_import_leaves_no_new_store_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = answered_store(tmp_path / "c.sqlite", [Label.FIRST, Label.SECOND])
    assert command(["export", str(store), str(tmp_path / "c.jsonl")]) == 0
    with open(tmp_path / "c.jsonl", "a") as file:
        file.write("no comparison\n")
    assert "line 4" in fails(["import", str(tmp_path / "c.jsonl"), str(tmp_path / "new.sqlite")], capsys)
    assert list(tmp_path.glob("new*")) == []
