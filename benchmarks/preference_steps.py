"""Steps of DPO, of a reward model and of supervised fine-tuning beside TRL: pairs and samples a second, ratios.

A GPT of 4 layers of width 128, vocabulary 512, random weights; batches of 16 pairs (or texts) of 12 to 16 tokens of
prompt and 32 to 48 of response. DPO's reference is either computed at each step, on both sides, or once before, which
is what `rllab language direct` does, and is not timed then. TRL works in its own interpreter (`--trl-python`), one
thread on each side, in turns; without it ours is timed alone. `--profile` says where our time goes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
import tyro
from common import console, print_machine
from peer_process import PeerProcess
from rich.table import Table
from torch import nn

from language.models.gpt import GPT, GPTConfig
from language.preferences.comparing import Comparing
from language.preferences.direct import DirectConfig, DirectPreferences, Pair, log_probs_of_pairs
from language.preferences.reward_measures import EncodedComparison
from language.preferences.reward_model import TextRewardModel
from language.preferences.rows import Row, row_log_probs
from language.preferences.sft import Completions
from language.preferences.text_models import text_model
from language.tokenizers.tokenizer import Tokenizer
from language.training.supervised import SupervisedTraining
from language.training.training_config import TrainingConfig

SIZE = {"vocabulary": 512, "context": 128, "width": 128, "layers": 4, "heads": 4}
BATCH, PAIRS = 16, 128
WORDS = cast(Tokenizer, SimpleNamespace(special=SimpleNamespace(begin=None, end=None)))
"""Stands for a tokenizer where none is needed."""


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    trl_python: Path | None = None
    """The interpreter of an environment with trl."""
    repetitions: int = 3
    """How often each contender takes its turn, after one warm-up."""
    steps: int = 24
    """Of a turn."""
    profile: bool = False
    """Print what operators our DPO step spends its time in, and nothing else."""


def pairs(seed: int = 0) -> list[tuple[list[int], list[int], list[int]]]:
    """Prompts, chosen and rejected responses, without the end token."""
    generator = np.random.default_rng(seed)

    def tokens(low: int, high: int) -> list[int]:
        found: list[int] = generator.integers(SIZE["vocabulary"] - 1, size=generator.integers(low, high + 1)).tolist()
        return found

    return [(tokens(12, 16), tokens(32, 48), tokens(32, 48)) for _ in range(PAIRS)]


def model() -> GPT:
    """A GPT of TRL's size and order of layers."""
    torch.manual_seed(0)
    return GPT(GPTConfig(SIZE["vocabulary"], SIZE["context"], SIZE["layers"], SIZE["heads"], SIZE["width"],
                         norm="pre", dropout=0.0))  # fmt: skip


class ReferenceEachStep(DirectPreferences):
    """DPO whose reference is computed at each step."""

    reference: nn.Module

    def loss(self, model: nn.Module, batch: Any) -> Any:
        """See `DirectPreferences`."""
        with torch.no_grad():
            reference = row_log_probs(text_model(self.reference, WORDS), batch.rows)
        return super().loss(model, batch._replace(reference=reference))


def trainings() -> dict[tuple[str, str], SupervisedTraining[Any]]:
    """Ours, by step and side."""
    end = SIZE["vocabulary"] - 1
    made = [Pair(Row(p, [*c, end]), Row(p, [*r, end]), 1.0) for p, c, r in pairs()]
    encoded = [
        EncodedComparison([*p, *c, end], [*p, *r, end], 1.0, (len(c), len(r))) for p, c, r in pairs()
    ]  # fmt: skip
    config = TrainingConfig(steps=10**6, learning_rate=1e-5, schedule="constant", warmup=0, weight_decay=0.0,
                            evaluation_every=0)  # fmt: skip
    reference = log_probs_of_pairs(model(), WORDS, [*made, *made[:1]])
    each_step = ReferenceEachStep(made, made[:1], DirectConfig(), WORDS, BATCH, reference=reference)
    each_step.reference = model().eval()
    problems: dict[str, tuple[nn.Module, Any]] = {
        "dpo, reference each step": (model(), each_step),
        "dpo, reference once": (
            model(), DirectPreferences(made, made[:1], DirectConfig(), WORDS, BATCH, reference=reference)
        ),
        "reward model": (TextRewardModel.of(model()), Comparing(encoded, encoded[:1], BATCH)),
        "sft": (model(), Completions([pair.first for pair in made], [made[0].first], BATCH, WORDS)),
    }  # fmt: skip
    return {
        (name, "rllab"): SupervisedTraining(module, problem, config, quiet=True)
        for name, (module, problem) in problems.items()
    }


def timed(work: Callable[[], Any], times: int) -> tuple[float, float]:
    """Seconds by the wall and of the processor for doing it so often."""
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        work()
    return time.perf_counter() - began, time.process_time() - cpu


def ask(peer: PeerProcess, name: str, steps: int) -> tuple[float, float]:
    """TRL's."""
    task = {"dpo, reference each step": "dpo", "dpo, reference once": "dpo", "reward model": "reward"}.get(name, name)
    answer = peer.ask(task, steps=steps, batch=BATCH, pairs=pairs(), cached=name.endswith("once"), **SIZE)
    return answer["seconds"], answer["cpu_seconds"]


def main(arguments: Arguments) -> None:
    """Take turns and print."""
    torch.set_num_threads(1)
    ours = trainings()
    if arguments.profile:
        step = ours["dpo, reference once", "rllab"].step
        timed(step, 5)
        with torch.profiler.profile() as profile:
            timed(step, arguments.steps)
        console.print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))
        return
    print_machine()
    peer = None if arguments.trl_python is None else PeerProcess(arguments.trl_python, "peer_trl_preferences.py")
    contenders = [*ours, *((name, "TRL") for name, _ in ours if peer is not None)]
    measured: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in contenders}
    for turn in range(arguments.repetitions + 1):
        for key in contenders:
            if key in ours:
                found = timed(ours[key].step, arguments.steps)
            else:
                assert peer is not None
                found = ask(peer, key[0], arguments.steps)
            if turn:
                measured[key].append(found)
    table = Table("step", "side", "a second", "a CPU second", "times TRL", "of CPU time")
    for name, side in sorted(contenders, key=lambda key: list(dict.fromkeys(n for n, _ in contenders)).index(key[0])):
        wall, cpu = (median(column) for column in zip(*measured[name, side], strict=True))
        ratios = ["–", "–"]
        if peer is not None:
            other = [median(column) for column in zip(*measured[name, "TRL"], strict=True)]
            ratios = [f"{other[0] / wall:.2f}", f"{other[1] / cpu:.2f}"]
        count = arguments.steps * BATCH
        table.add_row(name, side, f"{count / wall:.1f}", f"{count / cpu:.1f}", *ratios)
    console.print(table)
    if peer is not None:
        peer.close()


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
