"""List the environments: what is installed, what would install the others, which agents have a preset."""

from collections.abc import Sequence
from dataclasses import dataclass

from tyro.conf import Positional

from envs.errors import RllabError
from envs.registry import ATARI, list_environments
from rllab.agents import CONFIGS
from rllab.cli.arguments import Flag, parse
from rllab.cli.console import print_table
from rllab.config import preset_for, presets


@dataclass(frozen=True)
class EnvsArguments:
    """List the environments: what is installed, what would install the others, which agents have a preset."""

    filter: Positional[str] = ""
    """Only those whose id or family contains this, in any case."""
    preset: Flag = False
    """Only those that an agent has a preset for."""


def command(argv: Sequence[str]) -> int:
    """`rllab envs [FILTER]`."""
    arguments: EnvsArguments = parse(EnvsArguments, argv, "envs")
    wanted = arguments.filter.lower()
    rows = []
    for environment in list_environments():
        if arguments.preset and not wanted and environment.family == ATARI.name:
            continue  # a line for all of them stands below
        agents = ", ".join(agent for agent in CONFIGS if preset_for(agent, environment.id))
        matches = wanted in environment.id.lower() or wanted in environment.family.lower()
        if matches and (agents or not arguments.preset):
            missing = f"pip install 'rllab[{environment.extra}]'" if environment.extra else "not installed"
            rows.append((environment.id, environment.family, "yes" if environment.installed else missing, agents))
    if not rows:
        raise RllabError(f"no environment matches '{arguments.filter}'; `rllab envs` lists them all")
    print_table(("Environment", "Family", "Installed", "Presets"), rows)
    if arguments.preset and not wanted:
        agents = " and ".join(agent for agent in CONFIGS if ATARI.name in presets(agent))
        print(f"Every game of Atari has a preset of {agents}.")
    return 0
