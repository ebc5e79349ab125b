"""Tuning of a tiny GPT by a reward that is learnt from comparisons, and a person who answers over HTTP."""

import json
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_texts import PROMPTS, RESPONSE, gpt, tokenizer

from language.models.folder import save_model
from language.preferences.collect import RewardConfig
from language.preferences.prompts import PromptsConfig
from language.preferences.responses import ResponsesConfig
from language.preferences.teaching_config import TeachingConfig
from language.preferences.text_questions import TextQuestions
from language.preferences.tuning_config import DEFAULTS, BatchConfig, TuneConfig, TuneLoopConfig

RUN = "12345678-1234-5678-1234-567812345678"
SCORE = "python:tiny_texts:share_of_a"
FAST: dict[str, Any] = {"reward_learning_rate": 3e-3, "reward_epochs": 6, "reward_normalise": 64}
"""For a model of a few thousand weights."""


def model_and_prompts(path: Path) -> Path:
    """A folder with both."""
    save_model(path / "model", gpt(), tokenizer())
    (path / "prompts.txt").write_text("\n".join([*PROMPTS, "gab", "hh", "fed a", "bade"]) + "\n")
    return path


def tuning(
    folder: Path, steps: int, teacher: str = SCORE, agent: str = "ppo", every: int = 400, **teaching: Any
) -> TuneConfig:
    """A configuration."""
    return TuneConfig(
        replace(DEFAULTS[agent], learning_rate=3e-3), str(folder / "model"), (),
        prompts=PromptsConfig(str(folder / "prompts.txt"), prompt_tokens=0, evaluation_prompts=4),
        drawing=ResponsesConfig(RESPONSE), rewarding=RewardConfig(beta=0.02), batch=BatchConfig(32, 16),
        loop=TuneLoopConfig(steps, evaluation_every=every, checkpoint_every=every, tensorboard=False),
        teaching=TeachingConfig((teacher,), **{"labels": 60, **FAST, **teaching}),
    )  # fmt: skip


def questions(prompts: Sequence[str] = PROMPTS, **settings: Any) -> TextQuestions:
    """Of letters, as a run would ask them."""
    letters = tokenizer()
    config = TeachingConfig((SCORE,), **settings)
    return TextQuestions(
        config, [letters.ids(prompt) for prompt in prompts], letters, ResponsesConfig(RESPONSE), steps=1000, seed=0,
        run=RUN,
    )  # fmt: skip


class Person(threading.Thread):
    """Answers on the labelling page's HTTP interface, as fast as it is asked, preferring what has the higher score.

    Attributes:
        answered: how many times.
        problems: what went wrong.
    """

    def __init__(self, port: int, better: Callable[[str], float], name: str = "ann") -> None:
        super().__init__(daemon=True)
        self.address, self.better, self.annotator = f"http://127.0.0.1:{port}", better, name
        self.answered = 0
        self.problems: list[str] = []
        self.ending = threading.Event()

    def run(self) -> None:
        """Until `ending` is set."""
        while not self.ending.is_set():
            try:
                pairs = self._post("/api/next", want=4, have=[])["pairs"]
                if not pairs:
                    time.sleep(0.05)
                    continue
                answers = [
                    {"id": str(uuid.uuid4()), "pair": pair["pair"], "choice": self._choice(pair), "seconds": 1.0}
                    for pair in pairs
                ]
                results = self._post("/api/answers", answers=answers)["results"]
                self.problems += [str(result) for result in results if result["status"] not in ("kept", "late")]
                self.answered += len(answers)
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)  # the page is not served yet, or no more

    def _choice(self, pair: dict[str, Any]) -> str:
        left, right = (self.better(pair[side]["text"]) for side in ("left", "right"))
        return "tie" if left == right else "left" if left > right else "right"

    def _post(self, path: str, **document: Any) -> dict[str, Any]:
        data = json.dumps({"annotator": self.annotator, **document}).encode()
        headers = {"content-type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.address + path, data, headers), timeout=5) as response:
            found: dict[str, Any] = json.loads(response.read())
        return found
