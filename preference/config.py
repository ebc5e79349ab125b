"""The configuration of learning from preferences: what is asked, who answers, what the reward model is."""

from dataclasses import dataclass, field
from typing import Any, Literal

from envs.errors import RllabError
from preference.clips import CLIP_SECONDS, clip_length
from preference.fit import FitConfig
from preference.labelling.settings import PageConfig
from preference.queries import LabelSchedule, parse_mix
from preference.reward_model import RewardConfig
from preference.teachers import TEACHERS, TeacherConfig

TeacherName = Literal["oracle", "boltzmann", "myopic", "mistake", "skip", "equal", "file", "human"]


@dataclass(frozen=True)
class QueryConfig:
    """What is asked, and when."""

    labels: int = 700
    """Comparisons to ask for in all (the paper's robots learn from 700 and 1400)."""
    initial_share: float = 0.25
    """Of the labels, asked for before the agent learns anything (appendix A.1); fewer where clips for them would take
    more than a tenth of the steps."""
    rate_decay: float | None = None
    """c of the rate c/(T + c) of the later ones, in environment steps (appendix A); None: 2e6, for images 5e6."""
    query_batch: int = 0
    """Pairs asked about at a time; 0: a twentieth of the labels."""
    most_open: int | None = None
    """Unanswered questions above which the agent waits for answers; None: query_batch where people answer in their own
    time, no limit where nobody is waited for (asynchronous)."""
    queries: str = "auto"
    """How pairs are chosen: uniform, disagreement, entropy, coverage, or a mix such as disagreement:0.7,uniform:0.3;
    auto: by disagreement, or at random where there is no ensemble."""
    candidates: int = 10
    """Random pairs among which each question is chosen."""
    newest: float = 0.5
    """Share of the candidates that are drawn among the newest quarter of the pool."""
    clip_steps: int = 0
    """Steps of a clip; 0: by clip_seconds."""
    clip_seconds: float = CLIP_SECONDS
    """Length of a clip in the environment's own time (section 2.2.2: 1 to 2 seconds)."""
    pool: int = 0
    """How many of the newest clips are kept to choose from; 0: 2000, for images 100."""

    def __post_init__(self) -> None:
        for name in ("query_batch", "clip_steps", "pool"):
            if getattr(self, name) < 0:
                raise RllabError(f"{name} must be 0 (choose for me) or more, not {getattr(self, name)}")
        if self.most_open is not None and self.most_open < 0:
            raise RllabError(f"most_open must be 0 or more, not {self.most_open}")
        if self.labels < 1 or self.candidates < 1:
            raise RllabError("labels and candidates must be at least 1")
        if not 0 < self.initial_share <= 1:
            raise RllabError(f"initial_share must lie in (0, 1], not {self.initial_share}")
        if not 0 <= self.newest <= 1:
            raise RllabError(f"newest must lie in [0, 1], not {self.newest}")
        if not 0 < self.clip_seconds <= 60:
            raise RllabError(f"clip_seconds must be above 0 and at most 60, not {self.clip_seconds}")
        if self.rate_decay is not None and not self.rate_decay > 0:
            raise RllabError(f"rate_decay must be above 0 steps, not {self.rate_decay}")
        if self.queries != "auto":
            parse_mix(self.queries)

    def length(self, fps: float) -> int:
        """Steps of a clip, at so many steps a second."""
        return self.clip_steps or clip_length(fps, self.clip_seconds)

    def schedule(self, steps: int, clip_steps: int, *, image: bool) -> LabelSchedule:
        """When the labels are asked for in a training of so many steps."""
        decay = self.rate_decay or (5e6 if image else 2e6)
        return LabelSchedule(self.labels, steps, self.initial_share, decay, clip_steps)

    def mix(self, members: int) -> dict[str, float]:
        """Strategies with their shares, for an ensemble of so many.

        Raises RllabError if a single model is to disagree with itself.
        """
        if self.queries == "auto":
            return {"uniform" if members == 1 else "disagreement": 1.0}
        mix = parse_mix(self.queries)
        if members == 1 and "disagreement" in mix:
            raise RllabError(
                "a single reward model has nobody to disagree with: use more --members, or other --queries"
            )
        return mix


@dataclass(frozen=True)
class PreferenceConfig:
    """Everything that determines how a reward is learnt from comparisons."""

    teacher: TeacherName = "oracle"
    """Who answers: a synthetic teacher that sees the true reward (oracle, boltzmann, myopic, mistake, skip, equal), a
    file of answers, or people on the labelling page."""
    judgement: TeacherConfig = field(default_factory=TeacherConfig)
    """How a synthetic teacher judges."""
    answers: str | None = None
    """The file of answers, for the teacher `file`."""
    query: QueryConfig = field(default_factory=QueryConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    asynchronous: bool = False
    """Answer and fit in processes of their own while the agent goes on (as the paper's three processes do)."""
    store: str | None = None
    """Where clips and answers are kept, a file or a database's URL; None: comparisons.sqlite in the run's folder."""
    frames: bool = False
    """Draw the clips that are asked about also where no person answers."""

    question: str = "Which clip is better?"
    """What people are asked, in Markdown."""
    serve: bool = False
    """Serve the labelling page beside the training, where people answer."""
    page: PageConfig = field(default_factory=PageConfig)
    """How it is served."""

    def __post_init__(self) -> None:
        self.query.mix(self.reward.members)
        if self.teacher == "file" and self.answers is None:
            raise RllabError("the teacher 'file' needs the file of answers: name it by --answers")

    @property
    def sees_rewards(self) -> bool:
        """Whether the teacher is a synthetic one."""
        return self.teacher in TEACHERS

    @staticmethod
    def from_json(document: dict[str, Any]) -> "PreferenceConfig":
        """The inverse of `dataclasses.asdict`."""
        from rllab.documents import with_tuples

        try:
            parts = {"judgement": TeacherConfig, "query": QueryConfig, "reward": RewardConfig, "fit": FitConfig,
                     "page": PageConfig}  # fmt: skip
            built = {name: kind(**with_tuples(document[name])) for name, kind in parts.items()}
            return PreferenceConfig(**{**document, **built})
        except (KeyError, TypeError) as error:
            raise RllabError(
                f"the run's config.json does not fit this version of rllab ({error}); install the version named in it, "
                "or start a new run"
            ) from error
