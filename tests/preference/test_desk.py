"""Questions and answers go by way of the store, and whoever is asked about clips sees them."""

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learning_runs import SETTINGS, configuration, person
from store_makers import TASK, identifier, make_clip, say

from envs.config import EnvConfig
from envs.errors import RllabError
from envs.make import make_single, make_vector
from envs.render import frames_of
from preference import desk as desks
from preference.comparisons import Clip, Label
from preference.desk import Patience, Question, StoreDesk, TeacherDesk
from preference.drawing import Drawing
from preference.experiment import STORE_FILE, learn
from preference.frames import _resized, decode_sheet, draw_sheet
from preference.origin_recorder import OriginRecorder, RecordedCollector
from preference.origins import Origin
from preference.sheets import encode_sheet
from preference.store import Store, StoreUnavailable, Task
from preference.teachers import SyntheticTeacher, TeacherConfig
from rllab.collect import EnvCollector
from rllab.policies.actor_critic import ActorCritic

RUN = "6f2f4a9e-7d9e-4d8f-9d8b-0f4a5a3c2b1d"
SECONDS = 60.0
"""After which a process that draws has failed."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store.db", TASK, timeout=0.05) as opened:
        yield opened


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(desks, "RETRY_SECONDS", 0.01)


def questions(count: int = 2) -> list[Question]:
    return [Question(make_clip(2 * number + 1), make_clip(2 * number + 2), "uniform", 0.5) for number in range(count)]


def silent() -> Patience:
    return Patience(lambda sentence: None)


def test_an_answer_comes_once_with_its_clips(store: Store) -> None:
    desk = StoreDesk(store, RUN, silent())
    assert desk.ask(questions()).added == []
    first, second = store.open_pairs(RUN)
    store.answer(say(second, Label.TIE))
    ((comparison, left, right),) = desk.poll().added
    assert (comparison.pair, comparison.preference) == (second, 0.5)
    assert (left.id, right.id) == (identifier(3), identifier(4))
    np.testing.assert_array_equal(left.arrays["observations"], make_clip(3).arrays["observations"])
    assert desk.poll().added == []
    again = StoreDesk(store, RUN, silent())
    again.load_state_dict(desk.state_dict())
    store.answer(say(first))
    assert [item[0].pair for item in again.poll().added] == [first]


def test_an_answer_that_was_taken_back_is_withdrawn(store: Store) -> None:
    desk = StoreDesk(store, RUN, silent())
    desk.ask(questions(1))
    answer = say(store.open_pairs(RUN)[0])
    store.answer(answer)
    desk.poll()
    store.undo("ann")
    assert desk.poll().withdrawn == [answer.id]


def test_a_desk_waits_while_a_question_is_open(store: Store) -> None:
    desk = StoreDesk(store, RUN, silent())
    desk.ask(questions(1))
    assert desk.open() == 1
    store.answer(say(store.open_pairs(RUN)[0]))
    assert desk.open() == 0
    assert len(desk.poll().added) == 1


def test_a_teacher_who_is_asked_the_same_after_a_crash_changes_nothing(store: Store) -> None:
    def ask() -> list[Label | None]:
        teacher = SyntheticTeacher(TeacherConfig(rationality=0.5), np.random.default_rng(0))
        answered = TeacherDesk(teacher, store, RUN, "boltzmann", silent()).ask(questions(8))
        return [comparison.answer.label for comparison, _, _ in answered.added]

    assert ask() == ask()
    assert store.progress().answered == 8


def test_patience_says_once_that_it_waits_and_once_that_it_goes_on() -> None:
    failures = [StoreUnavailable("it is locked."), StoreUnavailable("it is gone."), None]
    said: list[str] = []

    def call() -> int:
        failure = failures.pop(0)
        if failure is not None:
            raise failure
        return 7

    assert Patience(said.append)(call) == 7
    assert said == [
        "paused: it is locked. Trying again every 0.01 s.", "the store of comparisons is there again; going on",
    ]  # fmt: skip


def test_patience_ends_when_somebody_asks_to_stop() -> None:
    def call() -> None:
        raise StoreUnavailable("it is gone.")

    with pytest.raises(StoreUnavailable):
        Patience(lambda sentence: None, ending=lambda: True)(call)


class Stage:
    """Clips of two pendulums that were just played, where they come from, and a store to ask about them in."""

    def __init__(self, folder: Path) -> None:
        config = EnvConfig("Pendulum-v1", 2)
        self.env = make_vector(config)
        policy = ActorCritic(self.env.single_observation_space, self.env.single_action_space)
        self.recorder = OriginRecorder(config)
        collector = RecordedCollector(EnvCollector(self.env, policy, 6), self.recorder)
        rollouts = [collector.collect(policy) for _ in range(3)]
        observations = np.concatenate([rollout.observations.numpy() for rollout in rollouts], axis=1)
        actions = np.concatenate([rollout.actions.numpy() for rollout in rollouts], axis=1)
        # The second spans two rollouts.
        self.clips = [self._clip(observations, actions, row, column) for row, column in ((0, 1), (1, 4), (1, 12))]
        self.task = Task("Pendulum-v1", "clips", {"shape": [3], "dtype": "float32"}, {"shape": [1], "dtype": "float32"})
        self.store = Store.open(folder / "store.db", self.task)
        self.folder, self.said = folder, list[str]()

    @staticmethod
    def _clip(observations: Any, actions: Any, row: int, column: int) -> Clip:
        piece = (row, slice(column, column + 5))
        arrays = {"observations": observations[piece], "actions": actions[piece]}
        return Clip(uuid.uuid4(), arrays, RUN, 0, {"row": row, "column": column})

    def drawing(self, origin_of: Callable[[Clip], Origin] | None = None) -> Drawing:
        patience = Patience(self.said.append)
        origin_of = origin_of or self.recorder.origin
        return Drawing(self.store, RUN, origin_of, self.folder / "undrawn", patience, height=32)

    def ask(self, drawing: Drawing) -> None:
        desk = StoreDesk(self.store, RUN, Patience(self.said.append), drawing)
        first, second, third = self.clips
        desk.ask([Question(first, second, "uniform", 0.5), Question(second, third, "uniform", 0.5)])

    def drawn(self) -> list[bool]:
        return [self.store.sheet(clip.id) is not None for clip in self.clips]

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *error: object) -> None:
        self.store.close()
        self.env.close()


def test_clips_that_are_asked_about_are_drawn_even_if_whoever_draws_is_killed(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage, stage.drawing() as drawing:
        stage.ask(drawing)
        deadline = time.monotonic() + SECONDS
        while (popen := drawing.worker._process._popen) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert popen is not None
        os.kill(popen.pid, signal.SIGKILL)
        while not all(stage.drawn()) and time.monotonic() < deadline:
            time.sleep(0.02)
            drawing.collect()
        assert stage.drawn() == [True] * 3
        assert stage.said == []
        for clip in stage.clips:
            data, metadata = draw_sheet(stage.recorder.origin(clip), 32, observations=clip.arrays["observations"])
            assert stage.store.sheet(clip.id) == (data, metadata)
        assert list((tmp_path / "undrawn").iterdir()) == []


def test_what_was_asked_before_a_crash_is_drawn_after_it(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        before = stage.drawing()
        stage.ask(before)
        before.worker.close()  # as when its process was killed
        with stage.drawing() as after:
            pass  # the regular end waits for what is left
        assert after.worker.pending == 0
        assert stage.drawn() == [True] * 3


def test_questions_about_clips_that_cannot_be_drawn_are_withdrawn(tmp_path: Path) -> None:
    def unknown(clip: Clip) -> Origin:
        if clip.id == stage.clips[2].id:
            raise RllabError("it is not remembered.")
        return stage.recorder.origin(clip)

    with Stage(tmp_path) as stage:
        with stage.drawing(unknown) as drawing:
            stage.ask(drawing)
        assert stage.drawn() == [True, True, False]
        (left,) = stage.store.open_pairs(RUN)
        assert {left.first, left.second} == {clip.id for clip in stage.clips[:2]}
        assert stage.said == [f"it is not remembered. (Questions about clip {stage.clips[2].id} are withdrawn.)"]


def test_a_recorder_that_was_put_back_knows_the_same_origins(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        again = OriginRecorder(stage.recorder.env)
        again.load_state_dict(stage.recorder.state_dict())
        for clip in stage.clips:
            assert again.origin(clip).to_bytes() == stage.recorder.origin(clip).to_bytes()


def test_a_recorder_lets_go_what_no_clip_reaches_back_to(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        recorder = OriginRecorder(stage.recorder.env, lambda: 4)
        for kept in stage.recorder._beginnings:
            recorder.record(kept.snapshot, kept.actions)
        assert recorder.origin(stage.clips[1]).to_bytes() == stage.recorder.origin(stage.clips[1]).to_bytes()
        recorder.reach = lambda: 6
        recorder.record(kept.snapshot, kept.actions)
        recorder.origin(stage.clips[2])
        with pytest.raises(RllabError, match="not remembered any more"):
            recorder.origin(stage.clips[0])


def test_environments_without_snapshots_are_refused_when_clips_are_to_be_drawn() -> None:
    with pytest.raises(RllabError, match="use --vectorization sync"):
        OriginRecorder(EnvConfig("Pendulum-v1")).record({"native": None}, np.zeros((1, 2, 1)))


@pytest.mark.parametrize("vectorization", ["native", "sync"])
def test_a_person_sees_the_frames_of_the_very_clips_they_are_asked_about(tmp_path: Path, vectorization: str) -> None:
    settings = {**SETTINGS, "steps": 700, "vectorization": vectorization, "termination": "episode"}
    with person(tmp_path / "run"):
        learn("ppo", "CartPole-v1", configuration("human", labels=5), out=tmp_path / "run", **settings)
    env: Any = make_single(EnvConfig("CartPole-v1"), render_mode="rgb_array")
    env.reset(seed=0)
    with Store.open(tmp_path / "run" / STORE_FILE) as store:
        assert store.clips_without_sheet() == []
        asked = {clip for item in store.comparisons().added for clip in (item.pair.first, item.pair.second)}
        assert len(asked) >= 4
        for clip in store.clips(asked):
            sheet = store.sheet(clip.id)
            assert sheet is not None
            frames = []
            for observation in clip.arrays["observations"]:
                env.unwrapped.state = observation.astype(float)
                frames.append(frames_of(env)[0])
            assert sheet.metadata["count"] == clip.length > 1
            shown = decode_sheet(*sheet).astype(int)
            whole = np.stack(frames)
            expected = np.stack([_resized(frame, shown.shape[1]) for frame in whole])
            again = decode_sheet(*encode_sheet(expected, 75)).astype(int)
            assert np.abs(shown - again).mean() < 0.5 * np.abs(shown[1:] - again[:-1]).mean()
    env.close()
