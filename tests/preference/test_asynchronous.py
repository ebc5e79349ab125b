"""Agent, reward fitting and labelling side by side: none waits for another, and none outlives the agent."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from clip_makers import VECTOR, make_clip
from learning_runs import SETTINGS, configuration, person, start
from store_makers import say

from envs.errors import RllabError
from preference import desk as desks
from preference.asynchronous import supervise
from preference.asynchronous.fitting import FitElsewhere, LiveFitting
from preference.asynchronous.labelling import Labelling, teacher_of
from preference.asynchronous.supervise import Assistant
from preference.clips import pair_key
from preference.comparisons import Clip
from preference.config import PreferenceConfig, QueryConfig
from preference.dataset import ClipBatch, ComparisonData
from preference.desk import Patience, Question, StoreDesk
from preference.experiment import STORE_FILE, learn, resume
from preference.inputs import StepReader
from preference.learner import PreferenceLearner
from preference.questions import Questions
from preference.reward_model import RewardModel
from preference.store import Store, Task
from rllab.callbacks import Callback
from rllab.checkpoints import Checkpoints
from rllab.interrupt import Interrupted
from rllab.rollout import Rollout
from rllab.runs import Run
from rllab.train import Training

RUN = "6f2f4a9e-7d9e-4d8f-9d8b-0f4a5a3c2b1d"
TASK = Task("Toy-v0", "clips", {"shape": [3], "dtype": "float32"}, {"shape": [1], "dtype": "float32"})
PATIENCE = Patience(lambda sentence: None)
SECONDS = 60.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store.db", TASK) as opened:
        yield opened


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "POLL_SECONDS", 0.0)


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ask(store: Store, count: int, seed: int = 0) -> list[tuple[Clip, Clip]]:
    generator = np.random.default_rng(seed)
    pairs = [(make_clip(generator), make_clip(generator)) for _ in range(count)]
    StoreDesk(store, RUN, PATIENCE).ask([Question(first, second, "uniform", 0.5) for first, second in pairs])
    return pairs


def answer_all(store: Store) -> int:
    labelling = Labelling(teacher_of(PreferenceConfig(), 0), store, RUN, "oracle", PATIENCE)
    answered = 0
    while some := labelling.step():
        answered += some
    return answered


def fitting(store: Store, folder: Path, enough: int = 1) -> LiveFitting:
    desk = StoreDesk(store, RUN, PATIENCE)
    return LiveFitting(configuration(), VECTOR, 0, desk, folder, enough=enough, note=lambda sentence: None)


def run_dry(fit: LiveFitting) -> int:
    """Fit until there is nothing to do; how many rounds that took."""
    return next(rounds for rounds in range(1000) if not fit.step())


def test_the_labelling_process_answers_everything_and_first_what_another_left_in_hand(store: Store) -> None:
    pairs = ask(store, 45)
    left = store.lease("oracle", run=RUN)
    assert left is not None
    labelling = Labelling(teacher_of(PreferenceConfig(), 0), store, RUN, "oracle", PATIENCE)
    assert labelling.step() == 20
    assert left.id in {item.pair.id for item in store.comparisons(RUN).added}
    assert answer_all(store) == 25
    preferences = {(item.pair.first, item.pair.second): item.preference for item in store.comparisons(RUN).added}
    for first, second in pairs:
        better = first.arrays["rewards"].sum() > second.arrays["rewards"].sum()
        assert preferences[first.id, second.id] == float(better)


def test_nothing_is_published_before_there_are_enough_answers(store: Store, tmp_path: Path) -> None:
    fit = fitting(store, tmp_path / "live", enough=30)
    ask(store, 29)
    answer_all(store)
    ask(store, 1, seed=1)
    run_dry(fit)
    assert fit.published.latest() is None
    answer_all(store)
    assert run_dry(fit) > 1
    assert fit.published.latest() == 1


def test_fewer_answers_are_enough_where_no_more_was_asked(store: Store, tmp_path: Path) -> None:
    fit = fitting(store, tmp_path / "live", enough=30)
    ask(store, 20)
    answer_all(store)
    run_dry(fit)
    assert fit.published.latest() == 1


def test_a_fit_goes_on_with_new_answers_and_rests_without(store: Store, tmp_path: Path) -> None:
    fit = fitting(store, tmp_path / "live")
    losses = []
    for seed in range(6):
        ask(store, 60, seed)
        answer_all(store)
        run_dry(fit)
        losses.append(fit.published.load()[1]["report"]["reward/training_loss"])
        assert not fit.step()
    assert fit.published.latest() == 6
    assert losses[-1] < 0.85 * losses[0]


def test_a_fit_that_was_killed_goes_on_from_what_it_published(store: Store, tmp_path: Path) -> None:
    ask(store, 30)
    answer_all(store)
    whole = fitting(store, tmp_path / "live")
    run_dry(whole)
    again = fitting(store, tmp_path / "live")
    assert not again.step()
    ask(store, 10, seed=1)
    answer_all(store)
    run_dry(whole)
    state = whole.published.load(2)[1]
    whole.published.folder.joinpath("2").rename(tmp_path / "aside")
    run_dry(again)
    for name, weights in again.published.load(2)[1]["model"]["weights"].items():
        np.testing.assert_array_equal(weights, state["model"]["weights"][name])


def test_an_answer_that_is_taken_back_is_unlearnt(store: Store, tmp_path: Path) -> None:
    fit = fitting(store, tmp_path / "live")
    ask(store, 10)
    answer_all(store)
    run_dry(fit)
    store.undo("oracle")
    run_dry(fit)
    assert len(fit.data) == 9
    assert fit.published.latest() == 2


def test_the_agent_adopts_what_is_published_at_its_own_scale(store: Store, tmp_path: Path) -> None:
    preference = configuration()
    model = RewardModel(VECTOR, preference.reward, seed=5)
    data = ComparisonData(2, np.random.default_rng(0))
    adopting = FitElsewhere(model, data, tmp_path / "live", lambda: None, lambda sentence: None)
    assert not adopting.due(changed=True)
    ask(store, 30)
    answer_all(store)
    fit = fitting(store, tmp_path / "live")
    run_dry(fit)
    assert adopting.due(changed=False)
    reference = ClipBatch.of([make_clip(np.random.default_rng(9), 200)])
    report = adopting.improve(reference, first=True)
    assert report["reward/training_loss"] > 0
    np.testing.assert_array_equal(model.flat.detach(), fit.model.flat.detach())
    rewards = model.reward(**reference.arrays)
    assert rewards.mean() == pytest.approx(0, abs=1e-5)
    assert rewards.std() == pytest.approx(1, abs=1e-4)
    assert not adopting.due(changed=False)


def helper(folder: Path, does: str, said: list[str]) -> Assistant:
    job = {"file": str(folder / "pids"), "does": does}
    return Assistant("helps", "assistants", job, folder / "helping.log", said.append)


def pids(folder: Path) -> list[int]:
    file = folder / "pids"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has buried yet has, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize(
    ("does", "how"), [("die", "was killed by SIGKILL"), ("refuse", r"ended with code 2 \(there is nothing to do.\)")]
)
def test_a_process_that_dies_is_started_again_a_few_times(tmp_path: Path, does: str, how: str) -> None:
    said: list[str] = []
    assistant = helper(tmp_path, does, said)
    with pytest.raises(RllabError, match=f"the process that helps {how}, for the 4th time; see"):
        wait_for(lambda: assistant.check())
    assistant.close()
    assert len(said) == supervise.RESTARTS == 3
    assert all(sentence.endswith("; it is started again") for sentence in said)
    assert len(set(pids(tmp_path))) == 4


def test_a_process_that_is_let_go_puts_its_things_in_order(tmp_path: Path) -> None:
    assistant = helper(tmp_path, "wait", [])
    wait_for(lambda: pids(tmp_path))
    os.kill(pids(tmp_path)[0], signal.SIGINT)  # as Ctrl-C in the terminal does
    time.sleep(0.1)
    assistant.check()
    assistant.close()
    assert (tmp_path / "pids.tidy").exists()
    assert len(pids(tmp_path)) == 1
    assert is_gone(pids(tmp_path)[0])


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are listed by Linux alone")
def test_what_was_asked_after_the_checkpoint_counts_among_the_labels_and_is_not_asked_again(store: Store) -> None:
    def learner() -> PreferenceLearner:
        config = replace(configuration(), asynchronous=True)
        reader = StepReader(gymnasium.spaces.Box(-1, 1, (3,)), gymnasium.spaces.Box(-1, 1, (1,)))
        desk = StoreDesk(store, RUN, PATIENCE)
        return PreferenceLearner(config, reader, desk, rows=1, steps=100, clip_steps=5, seed=0, run=RUN)

    checkpoint = learner().state_dict()
    pairs = ask(store, 3)
    answer_all(store)
    pairs += ask(store, 2, seed=1)
    resumed = learner()
    resumed.load_state_dict(checkpoint)
    assert resumed.questions.asked == 5
    assert resumed.questions._known == {pair_key(*pair) for pair in pairs}


def test_the_agent_waits_for_no_other_process_none_outlives_it_and_its_run_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    preference = configuration(asynchronous=True)
    process = start(run, "Pendulum-v1", preference, {"steps": 10_000_000, "checkpoint_every": 200})
    wait_for(lambda: (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size)
    assert process.pid is not None
    beside = children_of(process.pid)
    assert len(beside) == 2
    for pid in beside:
        os.kill(pid, signal.SIGSTOP)
    size = (run / "metrics.jsonl").stat().st_size
    wait_for(lambda: (run / "metrics.jsonl").stat().st_size > size + 5_000)  # the agent waits for neither
    for pid in beside:
        os.kill(pid, signal.SIGCONT)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    wait_for(lambda: all(is_gone(pid) for pid in beside))
    reached = Run.open(run).checkpoints.latest()
    assert reached is not None
    fits = Checkpoints(run / "reward-live").latest()
    assert fits is not None

    trained = resume(run, steps=reached + 2_000, quiet=True)
    assert trained.steps >= reached + 2_000
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children_of(os.getpid())]
    assert not any(b"preference.asynchronous" in command for command in commands)
    with Store.open(run / STORE_FILE) as store:
        assert store.progress().by_annotator.keys() == {"oracle"}
    rows = Run.open(run).read_metrics()
    assert rows[-1]["reward/labels"] >= 6
    assert any("reward/training_loss" in row for row in rows)


def test_ctrl_c_ends_the_wait_for_the_first_answers_and_the_questions_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def interrupt(training: Training, sentence: str) -> None:
        said.append(sentence)
        if sentence.startswith("waiting for answers"):
            os.kill(os.getpid(), signal.SIGINT)

    run = tmp_path / "run"
    with monkeypatch.context() as patched:  # later there may be a wait, too
        patched.setattr(Training, "note", interrupt)
        with pytest.raises(Interrupted):
            learn("ppo", "Pendulum-v1", configuration("human", labels=8), out=run, **{**SETTINGS, "steps": 500})
    assert said[0] == "waiting for answers: 2 questions are open"
    with Store.open(run / STORE_FILE) as store:
        first, second = store.open_pairs()
        store.answer([say(first), say(second)])
    with person(run):
        assert resume(run, quiet=True).steps >= 500


def test_the_agent_does_not_run_ahead_of_the_people_who_answer(tmp_path: Path) -> None:
    open_pairs: list[int] = []

    class Count(Callback):
        def after_update(self, training: Training, rollout: Rollout, metrics: dict[str, float]) -> None:
            with Store.open(tmp_path / "run" / STORE_FILE) as store:
                open_pairs.append(store.progress().open)

    preference = configuration("human", labels=20)
    preference = replace(preference, query=replace(preference.query, most_open=2, query_batch=4))
    with person(tmp_path / "run"):
        learn(
            "ppo", "Pendulum-v1", preference, out=tmp_path / "run", callbacks=[Count()], **{**SETTINGS, "steps": 1000}
        )
    assert len(open_pairs) > 5
    assert max(open_pairs) <= 2
    # Fitted at first, to each batch of four, and to what is left: not to each answer that comes.
    fits = [row["reward/fits"] for row in Run.open(tmp_path / "run").read_metrics() if "reward/fits" in row]
    assert 3 <= max(fits) <= 6
    with Store.open(tmp_path / "run" / STORE_FILE) as store:
        assert store.progress().answered >= 18


def test_people_hear_of_the_training_through_the_store(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with person(run):
        learn("ppo", "Pendulum-v1", configuration("human", labels=40), out=run, **{**SETTINGS, "steps": 1000})
    with Store.open(run / STORE_FILE) as store:
        (status,) = store.statuses().values()
        assert set(store.statuses()) == {Run.open(run).config["run_id"]}
    assert status["phase"] == "finished"
    assert status["step"] == Run.open(run).read_metrics()[-1]["steps"]
    assert (status["asked"], status["labels"], status["next_questions"]) == (40, 40, None)
    rows = [row for row in Run.open(run).read_metrics() if "reward/held_out_accuracy" in row]
    assert status["accuracy"] == [[row["reward/labels"], row["reward/held_out_accuracy"]] for row in rows]


def test_the_next_questions_are_expected_when_the_schedule_has_a_batch() -> None:
    model = RewardModel(VECTOR, configuration().reward)
    data = ComparisonData(2, np.random.default_rng(0))
    questions = Questions(
        QueryConfig(labels=100, query_batch=5), model, data, np.random.default_rng(0), steps=10_000, clip_steps=1
    )
    questions.asked = 30
    step = questions.next_due(0)
    assert step is not None
    assert questions.schedule.due(step) == 35
    assert questions.schedule.due(step - 1) == 34
    questions.asked = 98
    assert questions.next_due(9_000) == 10_000  # what is left makes no batch, and is asked at the end
    questions.asked = 100
    assert questions.next_due(9_000) is None
