"""Everything that determines a comparison of methods: what is compared, at what divergences, on what."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from envs.errors import RllabError
from language.preferences.collect import RewardConfig
from language.preferences.direct import DirectConfig
from language.preferences.policy import TextPolicyConfig
from language.preferences.prompts import PromptsConfig
from language.preferences.responses import ResponsesConfig
from language.preferences.sampled_pairs import Labelling
from language.preferences.tuning_config import DEFAULTS, BatchConfig, TuneConfig, TuneLoopConfig
from language.training.training_config import TrainingConfig
from rllab.agents import AgentConfig

DIRECT = ("dpo", "ipo")
BEST_OF_N = "best-of-n"
METHODS = (*DEFAULTS, *DIRECT, BEST_OF_N)


@dataclass(frozen=True)
class Piece:
    """One training of a comparison, or one sample of best-of-n."""

    method: str
    value: float
    """The agent's budget, the direct method's β, or N."""
    seed: int

    @property
    def setting(self) -> str:
        """As it reads."""
        if self.method in DIRECT:
            return f"β {self.value:g}"
        return f"N {self.value:g}" if self.method == BEST_OF_N else f"KL {self.value:g}"

    @property
    def name(self) -> str:
        """Of its folder and its file."""
        what = "beta" if self.method in DIRECT else "n" if self.method == BEST_OF_N else "kl"
        return f"{self.method}-{what}{self.value:g}-seed{self.seed}"


@dataclass(frozen=True)
class MethodsConfig:
    """What is compared. More can be added to a comparison later."""

    methods: tuple[str, ...] = ("reinforce", "ppo", "trpo", "dpo", BEST_OF_N)
    """reinforce, ppo, trpo, dpo, ipo, best-of-n."""
    kl_budgets: tuple[float, ...] = (2.0, 5.0, 10.0)
    """Nats a response: an agent's β adapts until its divergence is this; a training for each."""
    betas: tuple[float, ...] = (0.3, 0.1, 0.03)
    """β of the direct methods; a training for each."""
    seeds: int = 3
    """Trainings of each method and budget, with the seeds 0, 1, …"""

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            what = f"There is no method '{unknown[0]}'" if unknown else "Name methods"
            raise RllabError(f"{what}; there are {', '.join(METHODS)}.")
        if self.seeds < 1:
            raise RllabError(f"seeds must be at least 1, not {self.seeds}.")
        for name in ("kl_budgets", "betas"):
            values = getattr(self, name)
            if not values or not all(value > 0 for value in values):
                raise RllabError(f"{name} must be numbers above 0, at least one.")


@dataclass(frozen=True)
class LearningConfig:
    """How each method learns; the same for all seeds and budgets."""

    steps: int = 120_000
    """Tokens of responses that an agent learns from in each training."""
    path_points: int = 6
    """Evaluations on the way, which the figure shows as thin lines; 0: none."""
    set: tuple[str, ...] = (
        "trpo.max_kl=0.03", "trpo.fisher_fraction=0.1", "ppo.learning_rate=3e-5", "ppo.gae_lambda=1"
    )  # fmt: skip
    """Settings of agents, each METHOD.FIELD=VALUE; see `rllab language tune --help`. (By δ 0.01 TRPO leaves a language
    model too slowly to use its budget. At 1e-4 the sixteen steps that PPO takes where REINFORCE takes one drift from
    the model without getting better. With a score at the end alone, λ 1 has no bias.)"""
    beta: float = 0.0
    """β of the agents as they begin, over rewards of deviation 1; 0: see `beta_at`, 0.22 for 10 nats."""
    beta_rate: float = 0.002
    """By what share β adapts after a rollout at most. It begins where the budget wants it, and would fall for as long
    as the model is still near. (Ziegler et al. 2019: a fifth of 64/10,000, over 300,000 responses.)"""
    pairs: int = 8_000
    """Pairs that the model writes, from which the direct methods learn, and the reward unless one is given."""
    labelling: Labelling = "better"
    """How pairs are labelled: the better response is preferred always, or as often as Bradley–Terry's model has it."""
    reward_epochs: float = 1.0
    """Passes of the reward model over the pairs; it ends before where it is not getting better."""
    reward_learning_rate: float = 1e-4
    """Of the reward model."""
    direct_epochs: float = 1.0
    """Passes of the direct methods over the pairs."""
    direct_learning_rate: float = 1e-4
    """Of the direct methods."""
    best_of: int = 64
    """N responses to each prompt that best-of-n chooses from, for n = 2, 4, 8, … up to N."""

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("path_points", 0), ("pairs", 2), ("best_of", 2)):
            if getattr(self, name) < least:
                raise RllabError(f"{name} must be at least {least}, not {getattr(self, name)}.")
        if not self.beta_rate > 0 or not self.beta >= 0:
            raise RllabError("beta_rate must be above 0, and beta 0 (chosen by the budget) or more.")
        for method in DEFAULTS:
            self.agent(method)

    def agent(self, method: str) -> AgentConfig:
        """An agent's settings. Raises RllabError if what was set is not among them."""
        changed: dict[str, Any] = {}
        for text in self.set:
            name, _, value = text.partition("=")
            whose, _, what = name.partition(".")
            if whose not in DEFAULTS or not what or not value:
                raise RllabError(f"'{text}' sets nothing; write it as ppo.learning_rate=3e-4.")
            if whose == method:
                if not hasattr(DEFAULTS[method], what):
                    raise RllabError(
                        f"{method} has no setting '{what}'; see `rllab language tune --agent {method} -h`."
                    )
                changed[what] = _value(value)
        return replace(DEFAULTS[method], **changed)


@dataclass(frozen=True)
class CompareConfig:
    """A whole comparison."""

    model: str
    """The folder of the model that all begin with, and from which divergences are measured."""
    gold: tuple[str, ...]
    """The judge, as `language.preferences.rewards.make_reward` understands it; the sum of these."""
    reward: tuple[str, ...] = ()
    """What is learnt from; by default a reward model of pairs that the judge has labelled."""
    methods: MethodsConfig = field(default_factory=MethodsConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    drawing: ResponsesConfig = field(default_factory=ResponsesConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    policy: TextPolicyConfig = field(default_factory=TextPolicyConfig)
    device: str = "cpu"
    """Where: cpu, cuda, cuda:1, …"""

    def __post_init__(self) -> None:
        if not self.gold:
            raise RllabError("Name a judge, such as --gold words:runs/sentiment:positive.")

    def pieces(self) -> list[Piece]:
        """Everything that is to be trained or drawn, one seed after another, so that early results are of all methods.

        Raises RllabError if a name comes twice.
        """
        found = []
        for seed in range(self.methods.seeds):
            for method in self.methods.methods:
                values: Sequence[float] = self.methods.kl_budgets
                if method in DIRECT:
                    values = self.methods.betas
                elif method == BEST_OF_N:
                    values = (self.learning.best_of,)
                found += [Piece(method, value, seed) for value in values]
        if len({piece.name for piece in found}) < len(found):
            raise RllabError("A method, budget or β is named twice; name each once.")
        return found

    def settled(self) -> dict[str, Any]:
        """What must not change when a comparison goes on, as JSON has it."""
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        del document["methods"]
        return document

    def tuning(self, piece: Piece, reward: tuple[str, ...]) -> TuneConfig:
        """Of an agent."""
        learning = self.learning
        # The controller clips its relative error to a fifth.
        horizon = max(1, round(0.2 * self.batch.responses / learning.beta_rate))
        rewarding = RewardConfig(
            beta=learning.beta or beta_at(piece.value), kl_target=piece.value, kl_horizon=horizon, normalise_rewards=256
        )  # fmt: skip
        every = -(-learning.steps // learning.path_points) if learning.path_points else 0
        loop = TuneLoopConfig(learning.steps, every, None, -(-learning.steps // 4), 1, tensorboard=False)
        return TuneConfig(
            agent=learning.agent(piece.method), model=self.model, reward=reward, gold=self.gold, prompts=self.prompts,
            drawing=self.drawing, rewarding=rewarding, batch=self.batch, policy=self.policy, loop=loop, seed=piece.seed,
            device=self.device,
        )  # fmt: skip

    def direct(self, piece: Piece) -> DirectConfig:
        """Of a direct method."""
        return DirectConfig("ipo" if piece.method == "ipo" else "dpo", piece.value)

    def training(self, seed: int, learning_rate: float) -> TrainingConfig:
        """Of a direct method or the reward model; `epochs` give its steps."""
        return TrainingConfig(
            learning_rate=learning_rate, warmup=10, weight_decay=0.0, beta_2=0.999, evaluation_every=25, patience=6,
            checkpoint_every=50, keep_checkpoints=1, tensorboard=False, seed=seed,
        )  # fmt: skip


def beta_at(kl: float) -> float:
    """The β at which the best policy is so many nats away, 1/√(2·KL), if rewards were normal with deviation 1.

    Rewards of ρ, N(0, 1), become N(1/β, 1) under π ∝ ρ·exp(r/β), whose divergence is 1/(2β²).
    """
    return float((2 * kl) ** -0.5)


def changed(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The names of settings that differ, those of parts with a point."""
    found = []
    for name in sorted({*before, *now}):
        one, other = before.get(name), now.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += changed(one, other, f"{prefix}{name}.")
        elif one != other:
            found.append(prefix + name)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
