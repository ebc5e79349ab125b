"""Small runs of learning from preferences, in this process and in others, to be compared, interrupted and killed."""

import multiprocessing
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from preference.comparisons import Answer, Label
from preference.config import PreferenceConfig, QueryConfig
from preference.experiment import STORE_FILE, learn, resume
from preference.fit import FitConfig
from preference.reward_model import RewardConfig
from preference.store import Store

# What is known there of trainings in processes of their own serves here too.
sys.path.append(str(Path(__file__).parents[1] / "rllab"))

SETTINGS: dict[str, Any] = {
    "num_envs": 2, "rollout_steps": 32, "minibatch_size": 32, "hidden_sizes": (8,), "evaluation_every": 0,
    "tensorboard": False, "max_episode_steps": 40, "quiet": True,
}  # fmt: skip
_SPAWNER = multiprocessing.get_context("forkserver")
_SPAWNER.set_forkserver_preload(["preference.experiment", "torch._dynamo", "gymnasium.envs.classic_control"])


def configuration(teacher: str = "oracle", labels: int = 24, clip_steps: int = 8, **fields: Any) -> PreferenceConfig:
    """A small one."""
    return PreferenceConfig(
        teacher, query=QueryConfig(labels=labels, clip_steps=clip_steps, pool=60),
        reward=RewardConfig(members=2, reward_hidden_sizes=(8,)), fit=FitConfig(fit_epochs=3), **fields,
    )  # type: ignore[arg-type]  # fmt: skip


def start(folder: Path, env: str, preference: PreferenceConfig, settings: dict[str, Any]) -> BaseProcess:
    """A process that learns in `folder`, or goes on with the run that lies there."""
    process: BaseProcess = _SPAWNER.Process(target=_learn_or_resume, args=(folder, env, preference, settings))
    process.start()
    return process


def _learn_or_resume(folder: Path, env: str, preference: PreferenceConfig, settings: dict[str, Any]) -> None:
    import warnings

    from rllab.runs import is_run

    warnings.simplefilter("error")  # a resume that is not exact says so in a warning
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if is_run(folder):
        resume(folder, quiet=True)
    else:
        learn("ppo", env, preference, out=folder, **{**SETTINGS, **settings})


@contextmanager
def person(folder: Path, name: str = "ann") -> Iterator[None]:
    """Somebody who answers the questions of the run that is made in `folder`, beside what is done meanwhile."""
    done = threading.Event()

    def answer() -> None:
        path = folder / STORE_FILE
        while not path.exists() or not path.stat().st_size:
            if done.wait(0.01):
                return
        while True:
            try:
                store = Store.open(path)
                break
            except Exception:  # it is being made
                if done.wait(0.02):
                    return
        count = 0
        with store:
            while not done.is_set():
                pair = store.lease(name)
                if pair is None:
                    done.wait(0.02)
                    continue
                store.answer(Answer(uuid.uuid4(), pair.id, name, (Label.FIRST, Label.SECOND)[count % 2]))
                count += 1

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
