"""What is chosen about a reward that is learnt from comparisons of texts while the model is tuned."""

from dataclasses import dataclass, field

from envs.errors import RllabError
from preference.labelling.settings import PageConfig
from preference.queries import LabelSchedule, parse_mix
from preference.teachers import TeacherConfig

HUMAN = "human"
"""The teacher that is people on the labelling page."""


@dataclass(frozen=True)
class TeacherFlaws:
    """How a synthetic teacher errs (B-Pref, Lee et al. 2021); with the defaults it is an exact oracle."""

    teacher_beta: float | None = None
    """It prefers the first response with probability σ(β · difference of scores); by default the better one, always."""
    teacher_mistakes: float = 0.0
    """Share of its answers that are the wrong way round."""
    teacher_equal: float = 0.0
    """It calls a tie what differs by less, in units of its score."""

    def __post_init__(self) -> None:
        self.judgement()

    def judgement(self) -> TeacherConfig:
        """As `preference.teachers` has it. Raises RllabError if it is none."""
        return TeacherConfig(
            self.teacher_beta, mistake_rate=self.teacher_mistakes, equal_within=self.teacher_equal or None,
            threshold_unit="reward",
        )  # fmt: skip


@dataclass(frozen=True)
class TeachingConfig:
    """Who compares responses, which and when, and how the reward is learnt from that."""

    teacher: tuple[str, ...] = ()
    """Learn the reward from comparisons, in place of --reward, by: human (people on the labelling page), or a synthetic
    teacher, which prefers the response of the higher reward, the sum of these, written as --reward is."""
    labels: int = 500
    """Comparisons to ask for in all."""
    initial_share: float = 0.25
    """Of the labels, asked for before the model learns anything (Christiano et al. 2017, appendix A.1)."""
    rate_decay: float = 2e6
    """c of the rate c/(T + c) of the later ones, in tokens of responses (Christiano et al. 2017, appendix A)."""
    query_batch: int = 0
    """Pairs asked about at a time; 0: a twentieth of the labels."""
    most_open: int | None = None
    """Unanswered questions above which tuning waits for people; by default the pairs asked about at a time."""
    queries: str = "auto"
    """How pairs are chosen: uniform, disagreement, entropy, or a mix such as disagreement:0.7,uniform:0.3; auto: by
    disagreement, or at random where there is no ensemble."""
    candidates: int = 4
    """Pairs of responses that are written for each that is asked about, where pairs are chosen."""
    reward_members: int = 1
    """Reward models of the ensemble; they differ by their heads and by what they learn from."""
    reward_epochs: int = 3
    """Passes over all comparisons of a fit; each fit begins with the model's own weights."""
    reward_learning_rate: float = 1e-4
    """Of a fit's first step; it falls to 0 linearly."""
    reward_batch: int = 16
    """Comparisons of a minibatch."""
    reward_held_out: float = 0.1
    """Share of the comparisons that the reward does not learn from, and by which its accuracy is measured; 0: none."""
    reward_normalise: int = 256
    """Responses of the model as it begins over which the reward has mean 0 and deviation 1 after every fit (Ziegler et
    al. 2019, section 2.1)."""
    store: str | None = None
    """Where responses and answers are kept, a file or a database's URL; by default comparisons.sqlite in the run's
    folder."""
    question: str = "Which text is better?"
    """What people are asked, in Markdown."""
    page: bool = True
    """Serve the labelling page where people answer; `rllab preference label` can, elsewhere too."""
    flaws: TeacherFlaws = field(default_factory=TeacherFlaws)
    serving: PageConfig = field(default_factory=PageConfig)

    def __post_init__(self) -> None:
        if HUMAN in self.teacher and len(self.teacher) > 1:
            raise RllabError("People answer by themselves: give --teacher human without other teachers.")
        if self.human and self.flaws != TeacherFlaws():
            raise RllabError("People judge as they do: leave out --teacher-beta, --teacher-mistakes, --teacher-equal.")
        for name in ("labels", "candidates", "reward_members", "reward_epochs", "reward_batch"):
            if getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.query_batch < 0 or (self.most_open is not None and self.most_open < 0):
            raise RllabError("query_batch and most_open must be 0 or more.")
        if not self.reward_learning_rate > 0:
            raise RllabError(f"reward_learning_rate must be above 0, not {self.reward_learning_rate}.")
        if not 0 <= self.reward_held_out < 1:
            raise RllabError(f"reward_held_out must lie in [0, 1), not {self.reward_held_out}.")
        if self.reward_normalise < 2:
            raise RllabError(f"reward_normalise must be at least 2, not {self.reward_normalise}.")
        self.schedule(1)
        self.mix()

    @property
    def on(self) -> bool:
        """Whether the reward is learnt."""
        return bool(self.teacher)

    @property
    def human(self) -> bool:
        """Whether people answer."""
        return self.teacher == (HUMAN,)

    def schedule(self, steps: int) -> LabelSchedule:
        """When labels are asked for in a training of so many steps."""
        return LabelSchedule(self.labels, steps, self.initial_share, self.rate_decay)

    def mix(self) -> dict[str, float]:
        """How pairs are chosen, with shares. Raises RllabError if there is no such way."""
        if self.queries == "auto":
            return {"uniform" if self.reward_members == 1 else "disagreement": 1.0}
        mix = parse_mix(self.queries)
        if "coverage" in mix:
            raise RllabError("Texts have no coverage: choose among uniform, disagreement, entropy.")
        if self.reward_members == 1 and "disagreement" in mix:
            raise RllabError("A single reward model disagrees with nobody: use more --reward-members.")
        return mix
