"""A contest of runs: clips that their policies play in one environment, pairs of them, and who owns which clip."""

import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.errors import RllabError
from envs.make import make_single
from preference.clips import clip_length
from preference.comparisons import Answer, Clip, Pair, content_id
from preference.frames import frames_per_second
from preference.horizon import constant_horizon
from preference.playing import Episode, Player
from preference.store import Store, Task
from preference.teachers import Teacher
from rllab.experiment import Checkpoint, load_with_config
from rllab.policies.actor_critic import ActorCritic
from rllab.runs import Run

STRATEGY = "rating"
"""Of pairs that were chosen to rate runs."""
_NAMESPACE = uuid.UUID("5b1f8a52-0c0e-4b7c-9d6e-1c7e6a1f0a11")


@dataclass(frozen=True)
class Contestant:
    """A run whose policy takes part."""

    path: Path
    owner: str
    """What its clips carry as their run."""
    policy: ActorCritic
    env: EnvConfig
    deterministic: bool
    """As its own evaluations play."""
    policy_steps: int


def owner_of(run: Path) -> str:
    """The id of a run: that of a run of `learn` is its own, another's follows from when it was made, and of what."""
    opened = Run.open(run)
    own: str | None = opened.config.get("run_id")
    return own or str(uuid.uuid5(_NAMESPACE, f"{opened.provenance.get('created')} {sorted(opened.config.items())}"))


def enter(paths: Sequence[Path], checkpoint: Checkpoint = "best") -> list[Contestant]:
    """The contestants of these runs.

    Raises:
        RllabError: there are fewer than two, two are the same, or they are not of one environment.
    """
    contestants = []
    for path in paths:
        policy, config, steps = load_with_config(path, checkpoint)
        contestants.append(
            Contestant(path, owner_of(path), policy, config.env, config.loop.evaluation_deterministic, steps)
        )  # fmt: skip
    if len(contestants) < 2:
        raise RllabError("name at least two runs to rate, such as `rllab preference rate RUN RUN`")
    first = contestants[0]
    for other in contestants[1:]:
        for name in ("id", "env_kwargs", "protocol", "max_episode_steps"):
            mine, its = getattr(first.env, name), getattr(other.env, name)
            if mine != its:
                raise RllabError(
                    f"runs of different environments cannot be rated against each other: {first.path} has {name} "
                    f"{mine!r}, {other.path} has {its!r}"
                )
    for one, other in combinations(contestants, 2):
        if one.owner == other.owner:
            raise RllabError(f"{one.path} and {other.path} are the same run: name each once")
    return contestants


def arena(env: EnvConfig) -> EnvConfig:
    """Where all runs play: with episodes of a constant length, whatever each was trained with.

    Their ends would tell what is good (Christiano et al. 2017, appendix A), and clips of some would be shorter.
    """
    return replace(env, termination=constant_horizon(env.id))


def play_clips(contestant: Contestant, episodes: int, steps: int, seed: int) -> list[Clip]:
    """Clips of `steps` steps from whole episodes in the arena, each step in at most one.

    An episode's rest is left out, but an episode shorter than that is one shorter clip.
    """
    env, policy = arena(contestant.env), contestant.policy
    with closing(make_single(env)) as played, closing(make_single(contestant.env)) as own:
        size, known = played.observation_space.shape, own.observation_space.shape
    if size != known:
        # A vector, with the mark of an absorbing end or without it.
        assert size is not None
        assert known is not None
        policy = _Marks(policy, known[0] - size[0])  # type: ignore[assignment]
    clips: list[Clip] = []
    for number, episode in enumerate(Player(policy, env, contestant.deterministic).episodes(episodes, seed)):
        length = len(episode["rewards"])
        starts = range(0, max(length - steps, 0) + 1, steps)
        clips += [_clip(contestant, episode, slice(start, start + steps), number) for start in starts]
    return clips


class _Marks:
    """A policy whose observations lack the mark of an absorbing end (`envs.termination`) that it knows, or have one."""

    def __init__(self, policy: ActorCritic, more: int) -> None:
        """`more`: numbers that it knows beyond those that are there, 1 or −1."""
        self._policy, self._more = policy, more

    def act(self, observations: NDArray[Any], noise: Any, **others: Any) -> Any:
        """As the policy does."""
        if self._more < 0:
            observations = np.ascontiguousarray(observations[:, :-1])
        else:
            observations = np.append(observations, np.zeros((len(observations), 1), observations.dtype), axis=1)
        return self._policy.act(observations, noise, **others)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)


def default_clip_steps(env: EnvConfig) -> int:
    """L of a clip of one and a half seconds."""
    return clip_length(frames_per_second(env))


def task_for(clip: Clip, env: EnvConfig) -> Task:
    """What the store of a contest is about."""
    observations, actions = clip.arrays["observations"], clip.arrays["actions"]
    return Task(
        env.id, "clips", {"shape": list(observations.shape[1:]), "dtype": str(observations.dtype)},
        {"shape": list(actions.shape[1:]), "dtype": str(actions.dtype)}, fps=frames_per_second(env),
    )  # fmt: skip


def draw_pairs(clips: Sequence[Sequence[Clip]], count: int, generator: np.random.Generator) -> list[Pair]:
    """`count` questions between clips `[runs][clips]`: every two runs meet equally often, to within one question.

    No two clips meet twice, so that there are fewer questions where there are too few clips. Which one is first is
    drawn.

    Raises RllabError for no question.
    """
    if count < 1:
        raise RllabError(f"--labels must be at least 1, not {count}")
    meetings = list(combinations(range(len(clips)), 2))
    each, more = divmod(count, len(meetings))
    lucky = set(generator.permutation(len(meetings))[:more].tolist())
    pairs: list[Pair] = []
    for number, (a, b) in enumerate(meetings):
        possible = len(clips[a]) * len(clips[b])
        drawn = generator.choice(possible, min(each + (number in lucky), possible), replace=False)
        for index in drawn.tolist():
            first, second = clips[a][index // len(clips[b])], clips[b][index % len(clips[b])]
            if generator.random() < 0.5:
                first, second = second, first
            identity = uuid.uuid5(_NAMESPACE, f"{first.id} {second.id}")
            pairs.append(Pair(identity, first.id, second.id, "", STRATEGY))
    return [pairs[i] for i in generator.permutation(len(pairs))]


def ask_teacher(store: Store, pairs: Sequence[Pair], clips: Sequence[Clip], teacher: Teacher, name: str) -> int:
    """Put questions to a teacher who answers at once, and keep what it says; how many answers are new."""
    known = {clip.id: clip for clip in clips}
    labels = teacher.label([(known[pair.first], known[pair.second]) for pair in pairs])
    answers = [
        Answer(uuid.uuid5(pair.id, name), pair.id, name, label) for pair, label in zip(pairs, labels, strict=True)
    ]
    answered = {(item.pair.id, item.answer.annotator) for item in store.comparisons().added}
    return store.answer([answer for answer in answers if (answer.pair, name) not in answered])


def _clip(contestant: Contestant, episode: Episode, part: slice, number: int) -> Clip:
    arrays = {name: array[part] for name, array in episode.items()}
    identity = content_id(_NAMESPACE, arrays, f"{contestant.owner} {contestant.policy_steps} {number} {part.start}")
    details = {"episode": number, "start": part.start}
    return Clip(identity, arrays, contestant.owner, contestant.policy_steps, details)
