"""Train an agent on a reward that is learnt from comparisons of clips.

The flags are the fields of the run's configuration: those of `rllab train`, and who answers, what is asked, and what
the reward model is.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from envs.errors import RllabError
from envs.registry import find_spec
from preference.config import PreferenceConfig, QueryConfig, TeacherName
from preference.fit import FitConfig
from preference.reward_model import RewardConfig
from preference.teachers import TEACHERS, TeacherConfig
from rllab.agents import CONFIGS, AgentConfig
from rllab.cli.arguments import Flag, parse
from rllab.cli.report import report_interruption, report_run
from rllab.cli.train import EnvOptions
from rllab.config import TrainConfig
from rllab.policies import PolicyConfig
from rllab.runs import default_folder
from rllab.train import Interrupted, LoopConfig

AgentKind = TypeVar("AgentKind", bound=AgentConfig)


@dataclass(frozen=True)
class LearnOptions:
    """Where the run goes, and who answers."""

    agent: str = "ppo"
    """The agent that learns: reinforce, ppo or trpo."""
    teacher: TeacherName = "oracle"
    """Who answers: a synthetic teacher that sees the true reward (oracle, boltzmann, myopic, mistake, skip, equal), a
    file of answers, or human: people on the labelling page."""
    answers: Path | None = None
    """For the teacher file: JSON lines of answers."""
    store: str | None = None
    """Where clips and answers are kept, a file or a database's URL; by default comparisons.sqlite in the run's
    folder."""
    asynchronous: Flag = False
    """Answer and fit in processes of their own, while the agent goes on."""
    frames: Flag = False
    """Draw the clips that are asked about also where no person answers."""
    out: Path | None = None
    """The run's folder; by default a new one in runs/."""
    overwrite: Flag = False
    """Replace the run that lies there."""
    seed: int = 0
    """Seeds everything: the same seed gives the same run, unless people answer or it is asynchronous."""
    device: str = "cpu"
    """Where the policy's weights live and learn."""
    no_preset: Flag = False
    """Ignore the presets: every default is the agent's own."""
    quiet: Flag = False
    """Print nothing but warnings and errors."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise RllabError(f"--seed must be 0 or more, not {self.seed}")


@dataclass(frozen=True)
class TeacherOptions:
    """How a synthetic teacher judges (B-Pref); what is not given is as the named teacher has it."""

    rationality: float | None = None
    """β: the first is preferred with probability σ(β·(R₁ − R₂)); boltzmann has 1, the others are exact."""
    teacher_discount: float | None = None
    """γ by which earlier steps of a clip weigh less; myopic has 0.9."""
    mistake_rate: float | None = None
    """Share of answers that are the wrong way round; mistake has 0.1."""
    skip_below: float | None = None
    """Skip pairs whose returns are both below this; skip has 0.1."""
    equal_within: float | None = None
    """Call a tie what differs by less; equal has 0.1."""
    threshold_unit: str | None = None
    """Of the last two: mean_return (shares of the clips' mean return) or reward."""

    def judgement(self, teacher: str) -> TeacherConfig:
        """The teacher's configuration with what was given."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        if given and teacher not in TEACHERS:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise RllabError(f"the teacher '{teacher}' judges by itself: leave out {flags}")
        if "teacher_discount" in given:
            given["discount"] = given.pop("teacher_discount")
        return dataclasses.replace(TEACHERS.get(teacher, TeacherConfig()), **given)


@dataclass(frozen=True)
class LearnArguments(Generic[AgentKind]):
    """The flags of `rllab preference learn`, by part."""

    learn: LearnOptions
    teaching: TeacherOptions
    query: QueryConfig
    reward: RewardConfig
    fit: FitConfig
    loop: LoopConfig
    hyperparameters: AgentKind
    policy: PolicyConfig
    env: EnvOptions

    @property
    def config(self) -> TrainConfig:
        """The agent's side."""
        options = self.learn
        return TrainConfig(self.hyperparameters, self.env.config, self.policy, self.loop, options.seed, options.device)

    @property
    def preference(self) -> PreferenceConfig:
        """The reward's side."""
        options = self.learn
        return PreferenceConfig(
            options.teacher, self.teaching.judgement(options.teacher), None if options.answers is None else
            str(options.answers), self.query, self.reward, self.fit, options.asynchronous, options.store,
            options.frames,
        )  # fmt: skip


def command(argv: Sequence[str]) -> int:
    """`rllab preference learn ENV [flags]`."""
    from preference.experiment import learn

    env, flags = _positional(argv)
    arguments = _parse(env, flags)
    config, preference, options = arguments.config, arguments.preference, arguments.learn
    out = options.out or default_folder(config.env.id, f"{config.agent_name}-preference", config.seed)
    if not options.quiet:
        labels = preference.query.labels
        print(
            f"{config.agent_name} on {config.env.id} from {labels} comparisons by {preference.teacher}, in {out}",
            flush=True,
        )
    try:
        run = learn(config, preference=preference, out=out, overwrite=options.overwrite, quiet=options.quiet)
    except Interrupted as error:
        return report_interruption(error, out)
    if not options.quiet:
        report_run(run.path, run.stop_reason)
    return 0


def _positional(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    if argv and not argv[0].startswith("-"):
        return argv[0], list(argv[1:])
    if {"-h", "--help"} & set(argv):
        return None, list(argv)
    raise RllabError("name the environment first, such as `rllab preference learn Pendulum-v1 --labels 200`")


def _parse(env: str | None, flags: Sequence[str]) -> LearnArguments[Any]:
    """The flags over the defaults of the agent and the environment."""
    from preference.presets import preset_for

    agent = _value_of("--agent", flags) or "ppo"
    if agent not in CONFIGS:
        raise RllabError(f"there is no agent '{agent}' here; choose one of {', '.join(CONFIGS)}")
    if env is not None and ":" not in env:
        env = find_spec(env).id
    config, preference = preset_for(agent, env or "", use="--no-preset" not in flags)
    default = LearnArguments(
        LearnOptions(agent, device=config.device), TeacherOptions(), preference.query, preference.reward,
        preference.fit, config.loop, config.agent, config.policy, EnvOptions(**dataclasses.asdict(config.env)),
    )  # fmt: skip
    generic: Any = LearnArguments
    description = f"Train {agent} on {env or 'an environment'}, on a reward that is learnt from comparisons of clips."
    parsed: LearnArguments[Any] = parse(
        generic[type(config.agent)], flags, f"preference learn {env or 'ENV'}", description=description, default=default
    )
    return parsed


def _value_of(flag: str, flags: Sequence[str]) -> str | None:
    """What is given for a flag that must be known before the others can be read."""
    value = None
    for i, word in enumerate(flags):
        if word == flag and i + 1 < len(flags):
            value = flags[i + 1]
        elif word.startswith(f"{flag}="):
            value = word.partition("=")[2]
    return value
