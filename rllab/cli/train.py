"""Train an agent on an environment: one run, or one for each of several seeds.

The flags are the fields of the run's configuration: of the agent's config, the policy's, the environment's and
the loop's. Their defaults are those of the preset for the agent and the environment, if there is one.
"""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import Any, Generic, TypeVar

from tyro.conf import Suppress

from envs.errors import RllabError
from envs.make import EnvConfig
from envs.registry import find_spec
from rllab.agents import CONFIGS, AgentConfig
from rllab.cli.arguments import Flag, JsonObject, parse
from rllab.cli.processes import Job, cores, run_jobs
from rllab.cli.report import report_interruption, report_run, report_runs
from rllab.config import TrainConfig, configure, preset_for
from rllab.experiment import train
from rllab.interrupt import Interrupted
from rllab.loop_config import LoopConfig
from rllab.policies import PolicyConfig
from rllab.runs import default_folder, is_run
from rllab.workshop import Workshop

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
    device: str = "cpu"
    """Where the policy's weights live and learn: cpu, cuda, cuda:1, mps."""
    no_preset: Flag = False
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

    @property
    def config(self) -> EnvConfig:
        """The same as the run keeps it."""
        return EnvConfig(**{part.name: getattr(self, part.name) for part in dataclasses.fields(EnvConfig)})


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
        return TrainConfig(self.agent, self.env.config, self.policy, self.loop, self.run.seed, self.run.device)


def command(argv: Sequence[str]) -> int:
    """`rllab train AGENT ENV [flags]`."""
    agent, env, flags = _positionals(argv)
    arguments = _parse(agent, env, flags)
    config, options = arguments.config, arguments.run
    out = options.out or default_folder(config.env.id, config.agent_name, config.seed)
    if not options.quiet:
        preset = " with its preset" if not options.no_preset and preset_for(config.agent_name, config.env.id) else ""
        print(f"{config.agent_name} on {config.env.id}{preset}, in {out}", flush=True)
    if options.seeds > 1:
        return _train_seeds(config, options, out, argv)
    try:
        run = train(config, out=out, overwrite=options.overwrite, quiet=options.quiet)
    except Interrupted as error:
        return report_interruption(error, out)
    if not options.quiet:
        report_run(run.path, run.stop_reason)
    return 0


def _positionals(argv: Sequence[str]) -> tuple[str | None, str | None, list[str]]:
    """The agent's name, the environment's id, and the rest; the names may be missing if help is asked for."""
    named = list(takewhile(lambda word: not word.startswith("-"), argv))[:2]
    flags = list(argv[len(named) :])
    agent, env = [*named, None, None][:2]
    if agent is not None and agent not in CONFIGS:
        near = get_close_matches(agent, CONFIGS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(CONFIGS)}"
        raise RllabError(f"there is no agent '{agent}'; {hint}")
    if env is None and not {"-h", "--help"} & set(flags):
        raise RllabError(
            "name the agent and the environment first, such as `rllab train ppo CartPole-v1 --steps 50000`"
        )
    return agent, env, flags


def _parse(agent: str | None, env: str | None, flags: Sequence[str]) -> TrainArguments[Any]:
    """The flags over the defaults of the agent and the environment."""
    if agent is None:
        description = (
            "Train reinforce, ppo or trpo on an environment. These are the flags that all agents have; "
            "`rllab train ppo --help` adds those of ppo, and `rllab train ppo CartPole-v1 --help` shows the tuned "
            "defaults for an environment."
        )
        blank = TrainArguments(RunOptions(), LoopConfig(), AgentConfig(), PolicyConfig(), EnvOptions())
        command = f"train {{{','.join(CONFIGS)}}} ENV"
        parsed: TrainArguments[Any] = parse(
            TrainArguments[AgentConfig], flags, command, description=description, default=blank
        )
        return parsed
    if env is not None and ":" not in env:
        env = find_spec(env).id  # CartPole is CartPole-v1, so that it finds its preset
    config = configure(agent, env or "", preset="--no-preset" not in flags)
    tuned = env is not None and "--no-preset" not in flags and preset_for(agent, env)
    description = f"Train {agent} on {env or 'an environment'}." + (
        f" The defaults are tuned: those of the preset for {env}." if tuned else ""
    )
    default = TrainArguments(
        RunOptions(seed=config.seed, device=config.device),
        config.loop,
        config.agent,
        config.policy,
        EnvOptions(**dataclasses.asdict(config.env)),
    )
    generic: Any = TrainArguments
    parsed = parse(
        generic[type(config.agent)], flags, f"train {agent} {env or 'ENV'}", description=description, default=default
    )
    return parsed


def _train_seeds(config: TrainConfig, options: RunOptions, out: Path, argv: Sequence[str]) -> int:
    """Train a run for each seed, each by this same command in a process of its own."""
    seeds = range(options.seed, options.seed + options.seeds)
    folders = {seed: out / f"seed-{seed}" for seed in seeds}
    if is_run(out):
        raise RllabError(f"{out} is a run itself; name another folder for the {options.seeds} seeds with --out")
    taken = [folder.name for folder in folders.values() if is_run(folder)]
    if taken and not options.overwrite:
        raise RllabError(
            f"{out} already holds {', '.join(taken)}; go on with them by `rllab resume {out}`, replace them with "
            "--overwrite, or choose another folder with --out"
        )
    # Input that cannot work is refused here, once, before any process starts.
    with Workshop(config) as workshop:
        workshop.check()
    # Of a flag given twice the last one counts.
    jobs = [
        Job(folder, ["train", *argv, "--seed", str(seed), "--seeds", "1", "--out", str(folder), "--quiet"])
        for seed, folder in folders.items()
    ]
    at_once = options.jobs or (cores() if config.device == "cpu" else 1)
    ending = run_jobs(jobs, at_once, config.loop.steps * options.seeds, quiet=options.quiet)
    if ending.interruption is not None:
        code = report_interruption(ending.interruption, out)
        if missing := ending.not_begun:
            first = str(seeds[-len(missing)])
            rest = [*argv, "--seed", first, "--seeds", str(len(missing)), "--out", str(out)]
            print(f"rllab: train those that had not begun with: rllab train {shlex.join(rest)}", file=sys.stderr)
        return code
    if not options.quiet:
        report_runs(out, [folder for folder in folders.values() if ending.codes[folder] == 0])
    return ending.exit_code
