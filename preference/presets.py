"""Tuned settings for learning from preferences, by environment: over those that the agent has for its true reward."""

import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib import resources
from typing import Any

from preference.config import PreferenceConfig, QueryConfig
from preference.fit import FitConfig
from preference.horizon import constant_horizon
from preference.reward_model import RewardConfig
from rllab.config import TrainConfig, configure, fitting

PARTS: dict[str, Any] = {"query": QueryConfig, "reward": RewardConfig, "fit": FitConfig}


def preset_for(
    agent: str, env: str, settings: Mapping[str, Any] | None = None, *, use: bool = True
) -> tuple[TrainConfig, PreferenceConfig]:
    """The configurations of agent and reward for an environment: with `use` its tuned ones, where there are any.

    `settings` of the agent's side take the place of either.

    Raises RllabError for an unknown agent or environment.
    """
    tuned = presets().get(env, {}) if use else {}
    homes = {field.name: part for part, kind in PARTS.items() for field in fields(kind)}
    ours: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    theirs: dict[str, Any] = {"termination": constant_horizon(env)} if env else {}
    for name, value in {**tuned, **tuned.get(agent, {})}.items():
        if name in homes:
            ours[homes[name]][name] = fitting(PARTS[homes[name]], name, value)
        elif not isinstance(value, dict):
            theirs[name] = value
    config = configure(agent, env, {**theirs, **(settings or {})}, preset=use)
    built = {part: kind(**ours[part]) for part, kind in PARTS.items()}
    return config, replace(PreferenceConfig(), **built)


def presets() -> dict[str, dict[str, Any]]:
    """All of them, by environment; a table within one is of the agent of its name."""
    return tomllib.loads(resources.files("preference").joinpath("presets.toml").read_text("utf-8"))
