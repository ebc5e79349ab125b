"""Train an agent on an environment: one run, or one for each of several seeds.

The flags are the fields of the run's configuration: of the agent's config, the policy's, the environment's and
the loop's. Their defaults are those of the preset for the agent and the environment, if there is one.
"""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Generic, TypeVar

from tyro.conf import Suppress

from envs.errors import RllabError
from envs.make import EnvConfig
from envs.registry import find_spec
from rllab.agents import CONFIGS, AgentConfig
from rllab.callbacks import Callback, StopAtReturn
from rllab.cli.arguments import Flag, JsonObject, parse
from rllab.cli.processes import Job, run_jobs
from rllab.cli.report import interruption, report_run, report_runs
from rllab.config import TrainConfig, configure, preset_for
from rllab.experiment import Interrupted, Workshop, train
from rllab.policies import PolicyConfig
from rllab.runs import default_folder, is_run
from rllab.train import LoopConfig

AgentKind = TypeVar("AgentKind", bound=AgentConfig)


@dataclass(frozen=True)
class RunOptions:
    """Where the run goes, and how it is started."""

    out: Path | None = None
    """The run's folder; with --seeds, the folder that holds seed-0, seed-1, …; by default a new one in runs/."""
    overwrite: Flag = False
    """Replace the run that lies there."""
    seed: int = 0
    """Seeds the weights, the environments, the actions and the minibatches: the same seed gives the same run."""
    seeds: int = 1
    """Train so many runs, a process each, with the seeds from --seed upwards."""
    jobs: int = 0
    """How many of them at once; 0: one for each CPU core, or one by one on a device other than the cpu."""
    stop_at: float | None = None
    """End once the mean return of an evaluation reaches this."""
    device: str = "cpu"
    """Where the policy's weights live and learn: cpu, cuda, cuda:1, mps."""
    preset: Flag = True
    """Ignore the preset: every default is the agent's own."""
    quiet: Flag = False
    """Print nothing but warnings and errors."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise RllabError(f"--seeds must be at least 1, not {self.seeds}")
        if self.seed < 0:
            raise RllabError(f"--seed must be 0 or more, not {self.seed}")
        if self.jobs < 0:
            raise RllabError(f"--jobs must be 0 (as many as there are cores) or more, not {self.jobs}")


@dataclass(frozen=True)
class EnvOptions(EnvConfig):
    """Which environment, how many of it, and how they are stepped."""

    id: Suppress[str] = ""
    env_kwargs: JsonObject = field(default_factory=dict)
    """Arguments for the environment's constructor, such as '{"gravity": -12.0}'."""


@dataclass(frozen=True)
class TrainArguments(Generic[AgentKind]):
    """The flags of `rllab train`, by part."""

    run: RunOptions
    loop: LoopConfig
    agent: AgentKind
    policy: PolicyConfig
    env: EnvOptions

    @property
    def config(self) -> TrainConfig:
        """The run's configuration."""
        env = EnvConfig(**{part.name: getattr(self.env, part.name) for part in dataclasses.fields(EnvConfig)})
        return TrainConfig(self.agent, env, self.policy, self.loop, self.run.seed, self.run.device)


def command(argv: Sequence[str]) -> int:
    """`rllab train AGENT ENV [flags]`."""
    agent, env, flags = _positionals(argv)
    arguments = _parse(agent, env, flags)
    config, options = arguments.config, arguments.run
    out = options.out or default_folder(config.env.id, config.agent_name, config.seed)
    if options.seeds > 1:
        return _train_seeds(config, options, out, argv)
    callbacks: list[Callback] = [] if options.stop_at is None else [StopAtReturn(options.stop_at)]
    if not options.quiet:
        preset = " with its preset" if options.preset and preset_for(agent or "", config.env.id) else ""
        print(f"{config.agent_name} on {config.env.id}{preset}, in {out}", flush=True)
    try:
        run = train(config, out=out, callbacks=callbacks, overwrite=options.overwrite, quiet=options.quiet)
    except Interrupted as error:
        return interruption(error, out, _stop_at_flag(options))
    if not options.quiet:
        report_run(run.path, run.stop_reason)
    return 0
