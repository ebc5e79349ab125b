"""Comparisons of a store, read to be learnt from or measured on, without the environment that they come from."""

import math
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from preference.bradley_terry import HUMAN_NOISE
from preference.comparisons import Clip, Comparison, Label
from preference.dataset import ClipBatch, ComparisonData
from preference.fit import FitConfig, Fitter
from preference.fitting import INITIAL_EPOCHS
from preference.inputs import Inputs
from preference.measures import PreferenceMeasures
from preference.prediction import differences, prepare
from preference.reward_model import RewardConfig, RewardModel
from preference.store import Store, Task
from preference.teachers import SYNTHETIC
from rllab.runs import Run

REPORTS = 20
"""How often a fit says how far it has come."""


@dataclass(frozen=True)
class StoredComparisons:
    """The comparisons of a store that say something, ties among them."""

    task: Task
    comparisons: tuple[Comparison, ...]
    """In the order in which they were answered; skips are left out."""
    clips: Mapping[uuid.UUID, Clip]
    """Every clip that they compare."""
    skipped: int
    """Answers that said nothing."""

    @classmethod
    def read(cls, store: Store, run: str | None = None) -> "StoredComparisons":
        """Read them all, or those that one run asked.

        Raises:
            RllabError: the store compares texts, or nothing in it says which clip is better.
        """
        if store.task.kind != "clips":
            raise RllabError(
                f"{store.url} compares texts, and reward models of steps learn from clips: give a store of clips"
            )
        found = store.comparisons(run).added
        said = tuple(item for item in found if item.answer.label is not Label.SKIP)
        if not said:
            why = f"all its {len(found)} answers are skips" if found else "nothing in it has been answered yet"
            raise RllabError(f"there is no comparison in {store.url} to use ({why}): label some pairs first")
        ids = dict.fromkeys(clip for item in said for clip in (item.pair.first, item.pair.second))
        clips = {clip.id: clip for clip in store.clips(ids)}
        return cls(store.task, said, clips, len(found) - len(said))

    def __len__(self) -> int:
        return len(self.comparisons)

    @property
    def preferences(self) -> NDArray[np.float64]:
        """μ(1) `[P]`."""
        return np.array([item.preference for item in self.comparisons], np.float64)

    @property
    def annotators(self) -> Counter[str]:
        """How many answers each gave."""
        return Counter(item.answer.annotator for item in self.comparisons)

    @property
    def repeated(self) -> int:
        """Pairs that several annotators answered."""
        return sum(count > 1 for count in Counter(item.pair.id for item in self.comparisons).values())

    def only(self, keep: Callable[[Comparison], bool]) -> "StoredComparisons":
        """Those that `keep` says yes to."""
        kept = tuple(item for item in self.comparisons if keep(item))
        return StoredComparisons(self.task, kept, self.clips, self.skipped)

    def inputs(self) -> Inputs:
        """What a reward model reads of these clips.

        A store does not say how many options the choices of an action have, if there are several of them: as many as
        occur.

        Raises:
            RllabError: reward models cannot read them.
        """
        observation, action = self.task.spaces()
        if isinstance(observation, gymnasium.spaces.Discrete):
            raise RllabError("the observations in this store are numbered choices: store them one-hot instead")
        if self.task.action is None or "dtype" not in self.task.action:
            raise RllabError("the store does not say what its actions are; export it, complete its task, and import it")
        dtype = np.dtype(self.task.action["dtype"])
        if dtype.kind in "iu" and not isinstance(action, gymnasium.spaces.Discrete):
            steps = [clip.arrays["actions"].reshape(clip.length, -1) for clip in self.clips.values()]
            options = np.concatenate(steps).max(axis=0).astype(np.int64) + 1
            action = gymnasium.spaces.MultiDiscrete(options) if action.shape else gymnasium.spaces.Discrete(options[0])
        return Inputs.of(observation, action)

    def fits(self, model: RewardModel) -> None:
        """Raise RllabError if a model does not read clips like these."""
        clip = next(iter(self.clips.values()))
        own, its = (clip.arrays[name].shape[1:] for name in ("observations", "actions"))
        size = int(np.prod(own)) if not model.inputs.image else own
        wanted = int(np.prod(model.inputs.observation_shape)) if not model.inputs.image else (
            model.inputs.observation_shape)  # fmt: skip
        if size != wanted or its != model.inputs.action_shape:
            raise RllabError(
                f"the reward model reads observations of shape {list(model.inputs.observation_shape)} and actions of "
                f"shape {list(model.inputs.action_shape)}, but the store's clips have {list(own)} and {list(its)}: "
                "they are of another environment, or its episodes end in another way"
            )

    def probabilities(self, model: RewardModel) -> NDArray[np.float64]:
        """P(first is better) `[P]`, the mean over the members."""
        self.fits(model)
        return probabilities(model, list(self.clips.values()), [
            (item.pair.first, item.pair.second) for item in self.comparisons
        ])  # fmt: skip

    def measures(self, model: RewardModel) -> PreferenceMeasures:
        """Predictions against answers."""
        return PreferenceMeasures.of(self.probabilities(model), self.preferences)


def probabilities(
    model: RewardModel, clips: Sequence[Clip], pairs: Sequence[tuple[uuid.UUID, uuid.UUID]]
) -> NDArray[np.float64]:
    """P(first is better) `[P]` of pairs of these clips, the mean over the members."""
    if not pairs:
        return np.empty(0)
    index = {clip.id: i for i, clip in enumerate(clips)}
    numbered = np.array([(index[first], index[second]) for first, second in pairs], np.int64)
    fitter = Fitter(model, FitConfig(), np.random.default_rng(0))
    difference = differences(model, prepare(fitter.model, ClipBatch.of(clips)), numbered).astype(np.float64)
    result: NDArray[np.float64] = (0.5 * np.tanh(0.5 * difference) + 0.5).mean(axis=0)
    return result


@dataclass(frozen=True)
class StoredFit:
    """A reward model that was learnt from stored comparisons."""

    model: RewardModel
    losses: Mapping[str, float]
    """As `Fitter.fit` gives them: training and held-out loss, their ratio, λ."""
    training: PreferenceMeasures
    held_out: PreferenceMeasures
    """Of comparisons that it did not learn from; without any if there were too few to hold some out."""
    held_out_answers: tuple[str, ...]
    """The ids of their answers."""

    def save(self, folder: Path | str, about: Mapping[str, Any]) -> None:
        """Write the model; `about` is kept with it, and which answers were held out."""
        self.model.save(folder, {**about, "held_out": list(self.held_out_answers)})


def fit_stored(
    stored: StoredComparisons,
    reward: RewardConfig | None = None,
    fit: FitConfig | None = None,
    *,
    epochs: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int, float], None] = lambda done, total, loss: None,
) -> StoredFit:
    """Learn a reward model from stored comparisons alone.

    Args:
        stored: what to learn from; each answer counts, where several people answered one pair too.
        reward: what the model is.
        fit: how it is fitted. Where it leaves ε open, it is 0.1 if any person answered, else 0.
        epochs: passes over the comparisons; None: as many as the first fit of a run.
        seed: of the weights and of everything drawn.
        progress: told the epochs done, all of them, and the training loss.

    Raises:
        RllabError: nothing can be learnt from them: all are ties, or of one side; or the model cannot read them.
    """
    reward, fit = reward or RewardConfig(), fit or FitConfig()
    total = fit.fit_epochs * INITIAL_EPOCHS if epochs is None else epochs
    if total < 1:
        raise RllabError(f"--epochs must be at least 1, not {total}")
    drawing, shuffling = (np.random.default_rng(child) for child in np.random.SeedSequence([seed, 0xF17]).spawn(2))
    data = ComparisonData(reward.members, drawing, held_out=fit.held_out, bootstrap=fit.bootstrap)
    for item in stored.comparisons:
        assert item.preference is not None
        first, second = stored.clips[item.pair.first], stored.clips[item.pair.second]
        data.add(first, second, item.preference, str(item.answer.id))
    model = RewardModel(stored.inputs(), reward, seed=seed)
    people = set(stored.annotators) - SYNTHETIC
    fitter = Fitter(model, fit, shuffling, noise=HUMAN_NOISE if people else 0.0)
    batch = data.batch
    model.observe(model.numbers(batch.arrays)[batch.valid])
    done, losses = 0, {"reward/training_loss": math.nan}
    while done < total:
        some = min(max(1, total // REPORTS), total - done)
        losses = fitter.fit(data, some)
        done += some
        progress(done, total, losses["reward/training_loss"])
    model.normalise_over(batch.arrays, batch.valid)
    held_out = data.held_out()
    if held_out.all():  # as the fitter does, which then learns from all of them
        held_out = np.zeros(len(held_out), bool)
    held_ids = {data.keys[i] for i in np.flatnonzero(held_out)}
    unseen = stored.only(lambda item: str(item.answer.id) in held_ids).measures(model)
    learnt = stored.only(lambda item: str(item.answer.id) not in held_ids).measures(model)
    return StoredFit(model, losses, learnt, unseen, tuple(sorted(held_ids)))


def held_out_in_run(run: Run) -> frozenset[str]:
    """The ids of the answers that a run of `learn` holds out, by its latest checkpoint.

    Raises RllabError if there is no good checkpoint, or it is not a run of `learn`.
    """
    _, state = run.checkpoints.load("latest")
    data = next((part["data"] for part in state["callbacks"] if "data" in part and "fitter" in part), None)
    if data is None:
        raise RllabError(f"{run.path} is no run of `rllab preference learn`: nothing was held out in it")
    ids = [uuid.UUID(identifier) for identifier in data["clips"]]
    restored = ComparisonData(1, np.random.default_rng(0))
    # Which pairs share clips is known by the clips' ids alone.
    restored.load_state_dict(data, [Clip(identifier, {}) for identifier in ids])
    return frozenset(restored.keys[i] for i in np.flatnonzero(restored.held_out()))
