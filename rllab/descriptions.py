"""What a run says of itself to commands that show runs of every kind: what is learnt, what steps are, its columns."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from types import MappingProxyType

from envs.errors import RllabError
from rllab.runs import Run

DESCRIPTIONS = "rllab.run_descriptions"
"""Entry points: by the `kind` in a run's configuration, a function from the configuration to a `Description`."""
_RETURNS = MappingProxyType({"return_mean": "Return", "length_mean": "Episode length"})


@dataclass(frozen=True)
class Description:
    """A run in the words of those who look at it."""

    method: str
    """What learns, such as ppo."""
    task: str
    """What is learnt, such as an environment's id."""
    steps: str = "Environment steps"
    """What its steps count, the name of an axis."""
    goal: str = "return_mean"
    """The column of its metrics that says how well it does."""
    evaluated: str = "evaluation/return_mean"
    """The column of its evaluations that says so."""
    names: Mapping[str, str] = field(default_factory=lambda: _RETURNS)
    """Names of columns, where those that their own words make are not good enough."""
    instead: str = ""
    """What to do with it where a policy is expected that plays episodes, with `{run}` for its path."""

    def name(self, column: str) -> str:
        """A column's name for people: `losses/value_loss` as "Value loss"."""
        last = column.rpartition("/")[2]
        words = last.replace("_", " ").replace("kl", "KL")
        return self.names.get(last, words[:1].upper() + words[1:])


def describe(run: Run) -> Description:
    """What a run says of itself. Raises RllabError if nothing installed here knows its kind."""
    config = run.config
    kind = config.get("kind")
    for entry in entry_points(group=DESCRIPTIONS, name=str(kind)):
        described: Description = entry.load()(config)
        return described
    if "agent_name" not in config or "id" not in config.get("env", {}):
        raise RllabError(f"{run.path} is a run of the kind '{kind}', which nothing installed here knows.")
    return Description(config["agent_name"], config["env"]["id"])


def not_of_use(run: Run, why: str = "which plays no episodes") -> RllabError:
    """The error of a command that expects another kind of run: why this one will not do, and what will do with it."""
    sentence = f"{run.path} is a run of the kind '{run.config.get('kind')}', {why}"
    with contextlib.suppress(RllabError):
        if instead := describe(run).instead:
            sentence += f"; {instead.format(run=run.path)}"
    return RllabError(f"{sentence}.")
