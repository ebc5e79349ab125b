"""People compare texts on the labelling page while a model is tuned by the reward that is learnt from their answers."""

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
from tiny_teaching import Person, model_and_prompts, tuning
from tiny_texts import policy, tokenizer

from envs.errors import RllabError
from language.preferences.responses import ResponsesConfig
from language.preferences.rewards import make_reward
from language.preferences.teaching_config import TeachingConfig
from language.preferences.text_questions import TextQuestions
from language.preferences.tune import REWARD_FOLDER, TunedRun, resume, tune
from preference.experiment import STORE_FILE
from preference.labelling.settings import PageConfig
from preference.store import Store
from rllab.cli.main import main
from rllab.interrupt import Interrupted
from rllab.runs import Run

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_and_prompts(tmp_path_factory.mktemp("labelling"))


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    return number


def few_h(text: str) -> float:
    """What the person likes."""
    return -text.count("h") - text.count("g") - text.count("f")


@pytest.fixture
def person(port: int) -> Iterator[Person]:
    somebody = Person(port, few_h)
    yield somebody
    somebody.ending.set()
    somebody.join(10)


def serving(port: int, **settings: Any) -> dict[str, Any]:
    """People answer, on a page at this port."""
    plain = {"second_opinions": 0.0, "repeats": 0.0}
    return {"serving": PageConfig(port=port, **{**plain, **settings})}


def agreement(run: TunedRun, count: int = 200) -> float:
    """How often the run's reward agrees with the person on new pairs of the model as it was, ties left out."""
    letters = tokenizer()
    asking = TextQuestions(
        TeachingConfig(("human",)), [letters.ids(text) for text in ("ab", "c", "dead")], letters, ResponsesConfig(8),
        steps=1, seed=99, run="0" * 32,
    )  # fmt: skip
    texts = asking.responses(policy(), 2 * count)
    scores = make_reward((f"model:{run.path / REWARD_FOLDER}",))(*zip(*texts, strict=True))
    liked = [few_h(response) for _, response in texts]
    told = np.subtract(scores[::2], scores[1::2]) > 0
    meant = np.subtract(liked[::2], liked[1::2])
    return float((told == (meant > 0))[meant != 0].mean())


def test_the_reward_agrees_with_a_person_who_answers_while_the_model_is_tuned(
    folder: Path, tmp_path: Path, port: int, person: Person
) -> None:
    person.start()
    run = tune(tuning(folder, 600, "human", labels=100, **serving(port)), tmp_path / "run", quiet=True)
    assert person.problems == []
    assert agreement(run) > 0.7  # of some 170 pairs: 5 deviations above chance
    with Store.open(run.path / STORE_FILE) as store:
        found = store.comparisons().added
        assert store.task.kind == "texts"
        (status,) = store.statuses().values()
    assert {item.answer.annotator for item in found} == {"ann"}
    # As many questions as are asked at a time may be open when the training ends.
    assert 95 <= len(found) <= 100
    assert status["phase"] == "finished"
    assert status["labels"] == 100
    rows = Run.open(run.path).read_metrics()
    assert 95 <= rows[-1]["reward/labels"] <= len(found)
    assert any("reward/held_out_accuracy" in row for row in rows)


def test_ctrl_c_while_people_are_waited_for_loses_nothing(
    folder: Path, tmp_path: Path, port: int, person: Person
) -> None:
    config = tuning(folder, 500, "human", labels=40, **serving(port))
    target = tmp_path / "run"

    def interrupt() -> None:
        for _ in range(1200):
            time.sleep(0.05)
            with suppress(RllabError), Store.open(target / STORE_FILE) as store:  # once it has been made
                if store.open_pairs():
                    os.kill(os.getpid(), signal.SIGINT)
                    return

    impatient = threading.Thread(target=interrupt, daemon=True)
    impatient.start()
    with pytest.raises(Interrupted):
        tune(config, target, quiet=True)
    impatient.join()
    with Store.open(target / STORE_FILE) as store:
        asked = store.open_pairs()
        (status,) = store.statuses().values()
    assert len(asked) == 10
    assert status["phase"] == "stopped"
    assert Run.open(target).checkpoints.load()[1]["callbacks"][0]["questions"]["asked"] == 10
    with (
        socket.create_server(("127.0.0.1", port)),  # somebody else has the page's port
        pytest.raises(RllabError, match="port"),
    ):
        resume(target, quiet=True)
    person.start()
    run = resume(target, quiet=True)
    assert run.steps >= 500
    with Store.open(target / STORE_FILE) as store:
        found = store.comparisons().added
    assert {pair.id for pair in asked} <= {item.pair.id for item in found}
    assert 38 <= len(found) <= 40
    with pytest.raises(RllabError, match=r"has answers of ann, which --overwrite would delete"):
        tune(config, target, overwrite=True, quiet=True)


def test_the_commands_for_stores_take_such_a_run(
    folder: Path, tmp_path: Path, port: int, person: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    person.start()
    run = tune(tuning(folder, 200, "human", labels=20, **serving(port)), tmp_path / "run", quiet=True)
    lines = tmp_path / "pairs.jsonl"
    assert main(["preference", "export", str(run.path), str(lines), "--format", "chosen"]) == 0
    assert "rllab language reward MODEL" in capsys.readouterr().out
    assert '"chosen"' in lines.read_text()
    assert main(["preference", "export", str(run.path), str(tmp_path / "all.jsonl")]) == 0
    assert main(["preference", "import", str(tmp_path / "all.jsonl"), str(tmp_path / "other.sqlite")]) == 0
    assert "of texts" in capsys.readouterr().out
    with Store.open(run.path / STORE_FILE) as one, Store.open(tmp_path / "other.sqlite") as other:
        assert [item.answer for item in one.comparisons().added] == [item.answer for item in other.comparisons().added]


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (Debian: apt install chromium)")
def test_somebody_clicks_in_a_browser_and_the_model_goes_on(folder: Path, tmp_path: Path, port: int) -> None:
    playwright_api = pytest.importorskip("playwright.sync_api")
    found: list[TunedRun] = []
    config = tuning(folder, 200, "human", labels=12, query_batch=4, **serving(port))
    training = threading.Thread(target=lambda: found.append(tune(config, tmp_path / "run", quiet=True)))
    training.start()
    clicks = 0
    try:
        with playwright_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page()
            page.add_init_script("localStorage.setItem('rllab.annotator', 'bea')")
            for _ in range(200):
                try:
                    page.goto(f"http://127.0.0.1:{port}/")
                    break
                except playwright_api.Error:
                    page.wait_for_timeout(100)
            for _ in range(1200):
                number = page.get_attribute("body", "data-pair")
                if not training.is_alive():
                    break
                if number is None:
                    page.wait_for_timeout(50)
                    continue
                page.wait_for_timeout(270)
                assert page.is_visible("#prompt")
                left, right = (few_h(page.text_content(f"#{side}-text") or "") for side in ("left", "right"))
                page.click("#choose-tie" if left == right else "#choose-left" if left > right else "#choose-right")
                clicks += 1
            browser.close()
    finally:
        training.join(60)
    assert len(found) == 1
    with Store.open(found[0].path / STORE_FILE) as store:
        answers = store.comparisons().added
        texts = {clip.id: clip for clip in store.clips({c for a in answers for c in (a.pair.first, a.pair.second)})}
    assert 8 <= len(answers) <= clicks  # what is asked at the very end may stay open
    for item in answers:
        first, second = (few_h(texts[clip].details["response"]) for clip in (item.pair.first, item.pair.second))
        assert item.preference == (0.5 if first == second else float(first > second))
