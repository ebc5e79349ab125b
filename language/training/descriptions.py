"""What runs of this package say of themselves to `rllab compare` and others; see `rllab.descriptions`."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rllab.descriptions import Description

_METHODS = {"language-sft": "sft", "language-reward": "reward model"}
_JUDGED = "judge its texts by `rllab language evaluate {run}`"
_INSTEAD = {
    "language-pretraining": "write with it by `rllab language generate {run}`",
    "language-sft": _JUDGED,
    "language-direct": _JUDGED,
    "language-classification": "classify with it by `rllab language classify run {run} TEXT`",
    "language-translation": "translate with it by `rllab language translate run {run}`",
    "language-reward": "judge texts by it: `rllab language evaluate MODEL --reward model:{run}`",
}
_TEXTS = MappingProxyType({
    "return_mean": "Score", "length_mean": "Response length (tokens)", "kl_response": "KL a response (nats)",
})  # fmt: skip


def supervised(config: Mapping[str, Any]) -> Description:
    """Of a run of `language.training.recipe`."""
    kind, goal = config["kind"], f"evaluation/{config['goal']}"
    method = _METHODS.get(kind) or config.get("direct", {}).get("method") or config["model_kind"]
    return Description(method, _learnt_from(config), "Optimiser steps", goal, goal, {}, _INSTEAD[kind])


def tuning(config: Mapping[str, Any]) -> Description:
    """Of a run of `rllab language tune`."""
    rewards = config["reward"] or config["teaching"]["teacher"]
    task = f"{Path(config['model']).name}, {' + '.join(rewards)}"
    return Description(config["method"], task, "Tokens of responses", names=_TEXTS, instead=_JUDGED)


def _learnt_from(config: Mapping[str, Any]) -> str:
    """The names of the texts: of files, or of a data set."""
    for part in config.values():
        if isinstance(part, Mapping) and (found := part.get("files") or part.get("sources") or part.get("data")):
            return found if isinstance(found, str) else ", ".join(Path(name).name for name in found)
    return "texts"
