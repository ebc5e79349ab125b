"""Training in processes of its own, to be killed and compared."""

import json
import math
import multiprocessing
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

TIMES = ("seconds", "steps_per_second")
INTERRUPTED = 7

# Children are forked from a server that has imported everything and computed nothing: they start in no time, and
# none inherits another's threads.
_SPAWNER = multiprocessing.get_context("forkserver")
_SPAWNER.set_forkserver_preload(["rllab.experiment", "torch._dynamo", "gymnasium.envs.classic_control"])


def start(folder: Path, agent: str, env: str, settings: dict[str, Any]) -> BaseProcess:
    """A process that trains in `folder`, or goes on with the run that lies there."""
    process: BaseProcess = _SPAWNER.Process(target=_train_or_resume, args=(folder, agent, env, settings))
    process.start()
    return process


def _train_or_resume(folder: Path, agent: str, env: str, settings: dict[str, Any]) -> None:
    import warnings

    import rllab
    from rllab.runs import is_run

    warnings.simplefilter("error")  # a resume that is not exact says so in a warning
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
        if is_run(folder):
            rllab.resume(folder, quiet=True)
        else:
            rllab.train(agent, env, out=folder, quiet=True, **settings)
    except rllab.Interrupted:
        raise SystemExit(INTERRUPTED) from None


def finish(process: BaseProcess) -> None:
    """Wait until the process has trained to the end."""
    process.join(120)
    assert process.exitcode == 0, f"training ended with {process.exitcode}"


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what the clock says."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def differences(left: Any, right: Any, place: str = "") -> list[str]:
    """Where two state trees differ in any bit or type, other than in the seconds they took."""
    if type(left) is not type(right):
        return [f"{place}: {type(left).__name__} and {type(right).__name__}"]
    if isinstance(left, dict):
        if left.keys() != right.keys():
            return [f"{place}: keys {sorted(map(str, left.keys() ^ right.keys()))}"]
        names = [name for name in left if name != "seconds"]
        return [line for name in names for line in differences(left[name], right[name], f"{place}/{name}")]
    if isinstance(left, list | tuple):
        if len(left) != len(right):
            return [f"{place}: {len(left)} and {len(right)} entries"]
        pairs = zip(left, right, strict=True)
        return [line for i, (a, b) in enumerate(pairs) for line in differences(a, b, f"{place}/{i}")]
    if isinstance(left, torch.Tensor):
        left, right = left.contiguous().numpy(), right.contiguous().numpy()
    if isinstance(left, np.ndarray):
        same = left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    else:
        same = left == right or (isinstance(left, float) and math.isnan(left) and math.isnan(right))
    return [] if same else [place]


def require_equal_runs(left: Path, right: Path) -> None:
    """Both runs ended in the same state, and wrote the same rows on their way."""
    from rllab.runs import Run

    (left_step, left_state), (right_step, right_state) = (Run.open(run).checkpoints.load() for run in (left, right))
    assert left_step == right_step
    assert differences(left_state, right_state) == []
    assert rows_of(left) == rows_of(right)
    assert Run.open(left).checkpoints.best() == Run.open(right).checkpoints.best()
