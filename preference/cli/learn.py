"""Train an agent on a reward that is learnt from comparisons of clips.

The flags are the fields of the run's configuration: those of `rllab train`, and who answers, what is asked, and what
the reward model is.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from envs.errors import RllabError
from envs.registry import find_spec
from preference.config import PreferenceConfig, QueryConfig, TeacherName
from preference.experiment import learn
from preference.fit import FitConfig
from preference.horizon import constant_horizon
from preference.labelling.settings import PageConfig
from preference.off_policy_config import AGENT_DEFAULTS, OffPolicyConfig
from preference.presets import preset_for
from preference.reward_model import RewardConfig
from preference.teachers import TEACHERS, TeacherConfig
from rllab.agents import CONFIGS, AgentConfig
from rllab.cli.arguments import Flag, parse
from rllab.cli.console import quoted
from rllab.cli.report import report_interruption, report_run
from rllab.cli.train import EnvOptions
from rllab.config import TrainConfig
from rllab.experiment import TrainedRun
from rllab.interrupt import Interrupted
from rllab.loop_config import LoopConfig
from rllab.policies import PolicyConfig
from rllab.runs import default_folder

if TYPE_CHECKING:
    from preference.off_policy import OffPolicyRun

AgentKind = TypeVar("AgentKind", bound=AgentConfig)


@dataclass(frozen=True)
class LearnOptions:
    """Where the run goes, and who answers."""

    agent: str = "ppo"
    """The agent that learns: reinforce, ppo or trpo; or Stable-Baselines3's sac, td3 or dqn."""
    teacher: TeacherName = "oracle"
    """Who answers: a synthetic teacher that sees the true reward (oracle, boltzmann, myopic, mistake, skip, equal), a
    file of answers, or human: people on the labelling page."""
    answers: Path | None = None
    """For the teacher file: JSON lines of answers."""
    store: str | None = None
    """Where clips and answers are kept, a file or a database's URL; by default comparisons.sqlite in the run's
    folder."""
    question: str = "Which clip is better?"
    """What people are asked, in Markdown."""
    no_page: Flag = False
    """Do not serve the labelling page where people answer; `rllab preference label` can, elsewhere too."""
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
class RewardSide:
    """The flags of the reward."""

    learn: LearnOptions
    teaching: TeacherOptions
    query: QueryConfig
    reward: RewardConfig
    fit: FitConfig
    page: PageConfig

    @property
    def preference(self) -> PreferenceConfig:
        """As a run keeps it."""
        options = self.learn
        return PreferenceConfig(
            teacher=options.teacher,
            judgement=self.teaching.judgement(options.teacher),
            answers=None if options.answers is None else str(options.answers),
            query=self.query,
            reward=self.reward,
            fit=self.fit,
            asynchronous=options.asynchronous,
            frames=options.frames,
            store=options.store,
            question=options.question,
            serve=not options.no_page,
            page=self.page,
        )


@dataclass(frozen=True)
class LearnArguments(RewardSide, Generic[AgentKind]):
    """The flags of `rllab preference learn`, by part."""

    loop: LoopConfig
    hyperparameters: AgentKind
    policy: PolicyConfig
    env: EnvOptions

    @property
    def config(self) -> TrainConfig:
        """The agent's side."""
        options = self.learn
        return TrainConfig(self.hyperparameters, self.env.config, self.policy, self.loop, options.seed, options.device)


@dataclass(frozen=True)
class OffPolicyArguments(RewardSide):
    """The flags with an agent of Stable-Baselines3."""

    loop: LoopConfig
    hyperparameters: OffPolicyConfig
    env: EnvOptions


def command(argv: Sequence[str]) -> int:
    """`rllab preference learn ENV [flags]`."""
    env, flags = _positional(argv)
    agent = _value_of("--agent", flags) or "ppo"
    if agent not in (*CONFIGS, *AGENT_DEFAULTS):
        raise RllabError(f"there is no agent '{agent}'; choose one of {', '.join((*CONFIGS, *AGENT_DEFAULTS))}")
    if env is not None and ":" not in env:
        env = find_spec(env).id  # CartPole is CartPole-v1, so that it finds its preset
    arguments = (_parse if agent in CONFIGS else _parse_off_policy)(agent, env, flags)
    preference, options = arguments.preference, arguments.learn
    id = arguments.env.id
    out = options.out or default_folder(id, f"{agent}-preference", options.seed)
    if not options.quiet:
        labels = f"{preference.query.labels} comparisons by {preference.teacher}"
        print(f"{agent} on {id} from {labels}, in {out}", flush=True)
    where: dict[str, Any] = {"out": out, "overwrite": options.overwrite, "quiet": options.quiet}
    try:
        if isinstance(arguments, OffPolicyArguments):
            from preference.off_policy import learn_off_policy

            run: TrainedRun | OffPolicyRun = learn_off_policy(
                agent, arguments.env.config, preference, config=arguments.hyperparameters, loop=arguments.loop,
                seed=options.seed, device=options.device, **where,
            )  # fmt: skip
        else:
            run = learn(arguments.config, preference=preference, **where)
    except Interrupted as error:
        return report_interruption(error, out)
    if not options.quiet:
        further = [("how the reward was learnt", f"rllab preference report {quoted(run.path)}")]
        report_run(run.path, run.stop_reason, further)
    return 0


def _positional(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    if argv and not argv[0].startswith("-"):
        return argv[0], list(argv[1:])
    if {"-h", "--help"} & set(argv):
        return None, list(argv)
    raise RllabError("name the environment first, such as `rllab preference learn Pendulum-v1 --labels 200`")


def _parse(agent: str, env: str | None, flags: Sequence[str]) -> LearnArguments[Any]:
    """The flags over the defaults of the agent and the environment."""
    config, preference = preset_for(agent, env or "", use="--no-preset" not in flags)
    default = LearnArguments(
        LearnOptions(agent, device=config.device), TeacherOptions(), preference.query, preference.reward,
        preference.fit, PageConfig(), config.loop, config.agent, config.policy,
        EnvOptions(**dataclasses.asdict(config.env)),
    )  # fmt: skip
    generic: Any = LearnArguments
    parsed: LearnArguments[Any] = _read(generic[type(config.agent)], agent, env, flags, default)
    return parsed


def _parse_off_policy(agent: str, env: str | None, flags: Sequence[str]) -> OffPolicyArguments:
    """Likewise, for an agent of Stable-Baselines3; of the presets only the reward's side applies to it."""
    _, preference = preset_for("ppo", env or "", use="--no-preset" not in flags)
    termination = constant_horizon(env) if env else "episode"
    default = OffPolicyArguments(
        LearnOptions(agent), TeacherOptions(), preference.query, preference.reward, preference.fit, PageConfig(),
        LoopConfig(),
        OffPolicyConfig(), EnvOptions(env or "", num_envs=1, termination=termination),
    )  # fmt: skip
    parsed: OffPolicyArguments = _read(OffPolicyArguments, agent, env, flags, default)
    return parsed


def _read(kind: Any, agent: str, env: str | None, flags: Sequence[str], default: Any) -> Any:
    description = f"Train {agent} on {env or 'an environment'}, on a reward that is learnt from comparisons of clips."
    return parse(kind, flags, f"preference learn {env or 'ENV'}", description=description, default=default)


def _value_of(flag: str, flags: Sequence[str]) -> str | None:
    """What is given for a flag that must be known before the others can be read."""
    value = None
    for i, word in enumerate(flags):
        if word == flag and i + 1 < len(flags):
            value = flags[i + 1]
        elif word.startswith(f"{flag}="):
            value = word.partition("=")[2]
    return value
