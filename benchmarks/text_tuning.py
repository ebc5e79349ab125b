"""Fine-tuning a GPT from rewards beside TRL: episodes a second of PPO, samples a second of a group-baseline step.

4 layers of width 128, vocabulary 512, random weights; 64 prompts of 12 to 16 tokens and 24 new ones, PPO with 4 epochs
of one minibatch, a reference and a reward model of the same size. TRL's PPO has a separate value model, so that is the
like of ours to compare; with the value head on the policy's features ours does half of the work. The group step is GRPO
with groups of 8, one epoch, a reference, and a reward that costs nothing. TRL works in its own interpreter
(`--trl-python`), one thread on each side, in turns; 1.12 is the last release with PPO. Without it ours is timed alone.
"""

import time
from collections import Counter
from collections.abc import Sequence
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

from language.models.gpt import GPT, GPTConfig
from language.preferences.collect import RewardConfig, TextCollector
from language.preferences.policy import TextPolicy, TextPolicyConfig, ValueHead
from language.preferences.responses import ResponsesConfig
from language.tokenizers.tokenizer import Tokenizer
from rllab.agents import PPO, PPOConfig
from rllab.agents.agent import Agent

SIZE = {"vocabulary": 512, "context": 128, "width": 128, "layers": 4, "heads": 4}
TASK = {"responses": 64, "new": 24, "epochs": 4, "prompt": (12, 16), "group": 8}
PARTS = ("generating", "scoring", "evaluating", "update")


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    trl_python: Path | None = None
    """The interpreter of an environment with trl 1.12."""
    repetitions: int = 3
    """How often each contender takes its turn, after one warm-up."""
    updates: int = 3
    """Of a turn."""


class Words(SimpleNamespace):
    """Tokens t0, t1, … apart by spaces: as quick as text can be made of tokens and tokens of text."""

    special = SimpleNamespace(end=None)

    def decode(self, ids: Sequence[int], keep_special: bool = False) -> str:
        """The text of ids."""
        return " ".join(map(str, ids))


def model() -> GPT:
    """A GPT of TRL's size and order of layers."""
    return GPT(GPTConfig(SIZE["vocabulary"], SIZE["context"], SIZE["layers"], SIZE["heads"], SIZE["width"],
                         norm="pre", dropout=0.0))  # fmt: skip


def scored_by_a_model(scorer: GPT) -> Any:
    """A reward that costs a pass of a model as large as the policy."""

    @torch.no_grad()
    def reward(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        rows = [list(map(int, text.split()))[-36:] for text in map(" ".join, zip(prompts, responses, strict=True))]
        found: list[float] = scorer.features(torch.tensor(rows))[:, -1, 0].tolist()
        return found

    return reward


def free(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """A reward that costs nothing."""
    return [float(len(text) % 7) for text in responses]


class Ours:
    """Our side: a collector and an agent."""

    def __init__(self, kind: str, value_head: ValueHead) -> None:
        torch.manual_seed(0)
        self.policy = TextPolicy(model(), TextPolicyConfig(value_head))
        generator = np.random.default_rng(0)
        low, high = TASK["prompt"]  # type: ignore[misc]
        prompts = [
            generator.integers(SIZE["vocabulary"], size=generator.integers(low, high + 1)).tolist() for _ in range(256)
        ]
        columns, rows = cast(int, TASK["new"]), cast(int, TASK["responses"])
        group = cast(int, TASK["group"]) if kind == "grpo" else 1
        self.collector = TextCollector(
            prompts, free if kind == "grpo" else scored_by_a_model(model().eval()), cast(Tokenizer, Words()),
            responses=rows, group_size=group, drawing=ResponsesConfig(columns), rewarding=RewardConfig(beta=0.05),
        )  # fmt: skip
        settings: dict[str, Any] = {"advantage": "group", "epochs": 1} if kind == "grpo" else {"epochs": TASK["epochs"]}
        self.agent: Agent = PPO(self.policy, PPOConfig(
            rollout_steps=columns, minibatch_size=rows * columns, discount=1.0, learning_rate=1e-5,
            value_coefficient=0.1, value_clip_range=0.2, **settings,
        ))  # fmt: skip
        self.seconds: Counter[str] = self.collector.seconds

    def run(self, updates: int) -> tuple[float, float]:
        """Seconds by the wall and of the processor for so many updates."""
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(updates):
            rollout = self.collector.collect(self.policy)
            start = time.perf_counter()
            self.agent.update(rollout)
            self.seconds["update"] += time.perf_counter() - start  # type: ignore[assignment]
        return time.perf_counter() - began, time.process_time() - cpu


def main(arguments: Arguments) -> None:
    """Take turns and print."""
    torch.set_num_threads(1)
    print_machine()
    ours = {
        ("ppo", "rllab, separate critic"): Ours("ppo", "separate"),
        ("ppo", "rllab, value head on the policy"): Ours("ppo", "shared"),
        ("grpo", "rllab"): Ours("grpo", "none"),
    }
    peer = None if arguments.trl_python is None else PeerProcess(arguments.trl_python, "peer_trl.py")
    contenders = [*ours, *([("ppo", "TRL"), ("grpo", "TRL")] if peer is not None else [])]
    measured: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in contenders}
    for turn in range(arguments.repetitions + 1):
        for key in contenders:
            if key in ours:
                if turn == 1:
                    ours[key].seconds.clear()
                found = ours[key].run(arguments.updates)
            else:
                assert peer is not None
                answer = peer.ask(key[0], updates=arguments.updates, **SIZE, **TASK)
                found = answer["seconds"], answer["cpu_seconds"]
            if turn:
                measured[key].append(found)
    episodes = arguments.updates * cast(int, TASK["responses"])
    table = Table("step", "side", "a second", "a CPU second", "times TRL", "of CPU time", *PARTS)
    for key, times in measured.items():
        wall, cpu = (median(column) for column in zip(*times, strict=True))
        ratios = ["–", "–"]
        if peer is not None:
            other = [median(column) for column in zip(*measured[key[0], "TRL"], strict=True)]
            ratios = [f"{other[0] / wall:.2f}", f"{other[1] / cpu:.2f}"]
        spent = ours[key].seconds if key in ours else Counter[str]()
        shares = [f"{spent[part] / total:.0%}" if (total := sum(spent.values())) else "" for part in PARTS]
        table.add_row(*key, f"{episodes / wall:.1f}", f"{episodes / cpu:.1f}", *ratios, *shares)
    console.print(table)
    if peer is not None:
        peer.close()


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
