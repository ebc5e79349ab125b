"""Learning a reward beside the agent: the part that sits in the one training loop, as its callback and reward model.

Once round the loop (Christiano et al. 2017, figure 1): the collector's rollout is cut into clips; when labels are due,
pairs of clips are chosen and the teacher is asked; the reward model is fitted to all answers so far; the rollout is
relabelled, and the agent learns from it. The environment's own reward is used by synthetic teachers and by measures,
and by nothing that learns.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from preference.bradley_terry import HUMAN_NOISE
from preference.clips import ClipCutter, ClipPool, pair_key
from preference.comparisons import Clip
from preference.config import PreferenceConfig
from preference.dataset import ClipBatch, ComparisonData
from preference.desk import Answered, Desk, Question
from preference.fit import Fitter, check_preferences
from preference.fitting import FitHere, Fitting, learnable, reference_count, take_in
from preference.inputs import StepReader
from preference.measures import ensemble_spread
from preference.prediction import clip_returns, prepare
from preference.queries import Candidates, LabelSchedule, embed, select
from preference.reward_model import RewardModel
from preference.watch import Watch
from rllab.agents.agent import Metrics
from rllab.callbacks import Callback
from rllab.policies.actor_critic import ActorCritic
from rllab.rollout import Rollout
from rllab.train import Training

WAIT_SECONDS = 0.5
"""Between looks for the first answers, where somebody else gives them."""


class PreferenceLearner(Callback):
    """Asks, fits and relabels.

    Attributes:
        model: the reward model.
        data: the comparisons that it learns from.
        pool: the clips that questions are drawn from.
        asked: how many pairs have been asked about.
    """

    def __init__(
        self, config: PreferenceConfig, reader: StepReader, desk: Desk, *, rows: int, steps: int, clip_steps: int,
        seed: int, run: str, note: Callable[[str], None] = print,
        fitting: Callable[[RewardModel, ComparisonData], Fitting] | None = None,
    ) -> None:  # fmt: skip
        """Make model, pool and schedule.

        Args:
            config: everything that can be chosen.
            reader: reads the environment's steps.
            desk: where questions go, and answers come from.
            rows: N, of the rollouts.
            steps: of the training.
            clip_steps: L.
            seed: of the networks and of everything drawn.
            run: a UUID that the ids of clips and pairs are made from.
            note: tells a person something.
            fitting: makes what fits the model; None: it is fitted here.
        """
        self.config, self.reader, self.desk = config, reader, desk
        choosing, drawing, shuffling = (
            np.random.default_rng(child) for child in np.random.SeedSequence([seed, 0x9E7E6]).spawn(3)
        )
        self.generator = choosing
        self.model = RewardModel(reader.inputs, config.reward, seed=seed)
        self.model.reader = reader
        fit, query = config.fit, config.query
        self.data = ComparisonData(config.reward.members, drawing, held_out=fit.held_out, bootstrap=fit.bootstrap)
        self.fitter = Fitter(self.model, fit, shuffling, noise=HUMAN_NOISE if config.teacher == "human" else 0.0)
        self.fitting = FitHere(self.model, self.data, self.fitter, note) if fitting is None else fitting(
            self.model, self.data
        )  # fmt: skip
        self.cutter = ClipCutter(reader, rows, clip_steps, reads=config.reward.reads, run=run)
        self.pool = ClipPool(query.pool or (100 if reader.inputs.image else 2000))
        decay = query.rate_decay or (5e6 if reader.inputs.image else 2e6)
        self.schedule = LabelSchedule(query.labels, steps, query.initial_share, decay)
        self.mix = query.mix(config.reward.members)
        self.batch_size = query.query_batch or max(1, round(query.labels / 20))
        self.watch = Watch(rows)
        self.asked = self.initial_steps = self.fits = 0
        self._report: dict[str, float] = {}
        self._known: set[frozenset[str]] = set()
        """The pairs that were asked about."""

    # What the training loop calls, in the order of one iteration.

    def before_run(self, training: Training) -> None:
        """Play with the untrained policy until there is something to ask; ask, and fit the model to the answers."""
        if training.began_anew:
            # A clip is of one episode, and a return too: what was under way has no end.
            self.cutter.forget()
            self.watch.forget()
        if self.fits:
            return
        wanted = 2 * self.schedule.initial
        # A wider choice than what is asked about, for at most a twentieth of the training.
        patience = max(wanted * self.cutter.length, self.schedule.steps // 20)
        enough = min(self.pool.capacity, 5 * wanted)
        while not self._ending(training) and (
            len(self.pool) < 2 or (len(self.pool) < enough and self.initial_steps < patience)
        ):
            rollout = training.collector.collect(training.policy)
            self.pool.add(self.cutter.cut(rollout, training.steps))
            training.policy.adapt(rollout)
            training.steps += rollout.num_steps
            self.initial_steps += rollout.num_steps
        if not self.asked:
            self._ask(training, self.schedule.initial)
        said = False
        while not self.fits and not self._ending(training):
            waiting = self.desk.waiting()
            self._learn(training, self.desk.poll())
            if self.fits:
                break
            if not waiting and not learnable(self.data):
                self._ask_more(training)
                continue
            if not said:
                training.note(f"waiting for answers to the first {self.asked} questions")
                said = True
            time.sleep(WAIT_SECONDS)

    def _ask_more(self, training: Training) -> None:
        """Ask about further clips, since all has been answered, and nothing can be learnt from it.

        Raises RllabError if all questions are used up.
        """
        asked = self.asked
        self._ask(training, self.batch_size)
        if self.asked == asked:
            try:
                check_preferences(np.array(self.data.preferences, np.float32))
            except RllabError as error:
                raise RllabError(
                    f"all {asked} questions are answered, and no reward can be learnt: {error}; or ask more "
                    "(--labels), about longer clips (--clip-seconds), or by another teacher"
                ) from error

    @staticmethod
    def _ending(training: Training) -> bool:
        return training.interrupted or training.steps >= training.config.steps

    def after_collect(self, training: Training, rollout: Rollout) -> None:
        """Cut the rollout; ask if questions are due; learn from what has been answered."""
        self.pool.add(self.cutter.cut(rollout, training.steps))
        steps = training.steps + rollout.num_steps
        due = self.schedule.due(steps) - self.asked
        slope = 1.0
        if due >= self.batch_size or (due > 0 and steps >= training.config.steps):
            slope *= self._ask(training, due)
        slope *= self._learn(training, self.desk.poll())
        # What the critic said of this rollout, it said in the old rewards.
        rollout.values.mul_(slope)
        rollout.next_values.mul_(slope)

    def relabel(self, rollout: Rollout) -> Rollout:
        """The rollout with learned rewards."""
        relabelled = self.model.relabel(rollout)
        self.watch.see(rollout, relabelled)
        return relabelled

    def after_update(self, training: Training, rollout: Rollout, metrics: Metrics) -> None:
        """Report; in full after a fit."""
        metrics["reward/labels"], metrics["reward/asked"] = len(self.data), self.asked
        if self._report:
            report, self._report = self._report, {}  # a question below may lead to the next fit
            measures = report | self.watch.measures(true_reward=self.config.sees_rewards)
            valid = rollout.valid.cpu().numpy()
            spread = float(ensemble_spread(self.model.member_rewards(self._arrays(rollout)))[valid].mean())
            measures["reward/rollout_spread"] = spread
            for sentence in self.watch.alarm(measures, spread, measures.get("reward/labelled_spread_percentile_95")):
                training.note(sentence)
                self._ask(training, max(1, self.batch_size // 4), newest=1.0)
            metrics.update(measures, **{f"reward/alarm_{name}": 1.0 for name in self.watch.alarms.active})

    def _arrays(self, rollout: Rollout) -> dict[str, NDArray[Any]]:
        return self.reader.arrays(rollout, self.config.reward.reads)

    def earliest_column(self) -> int:
        """The first column of the run that a clip may begin at which is yet to be asked about."""
        columns: list[int] = [clip.details["column"] for clip in self.pool.clips if "column" in clip.details]
        return min([*columns, self.cutter.earliest_column])

    # Questions.

    def _ask(self, training: Training, count: int, newest: float | None = None) -> float:
        """Choose `count` pairs by the mix of strategies, and hand them to the desk.

        Answers that come at once are learnt from; the result is as that of `_learn`.
        """
        query = self.config.query
        count = min(count, query.labels - self.asked)
        knows_nothing = not self.fits  # such an ensemble disagrees about nothing in particular
        drawn = count * (2 if knows_nothing else query.candidates)
        newest = query.newest if newest is None else newest
        pairs = self.pool.draw_pairs(drawn, self.generator, newest, self._known)
        # A pair of a clip that is learnt from and one that is measured on would serve for neither.
        sides = [{self.data.side(first), self.data.side(second)} for first, second in pairs]
        pairs = [pair for pair, both in zip(pairs, sides, strict=True) if not both >= {True, False}]
        if not pairs or count < 1:
            return 1.0
        candidates = self._candidates(pairs)
        # Clips that look the same to the model can only be ties.
        different = np.abs(candidates.differences).max(axis=0) > 1e-6
        if different.sum() >= count:
            pairs = [pair for pair, keep in zip(pairs, different, strict=True) if keep]
            candidates = candidates.only(different)
        mix = {"uniform": 1.0} if knows_nothing and "coverage" not in self.mix else self.mix
        chosen = select(candidates, count, mix, self.generator)
        expected = (0.5 * np.tanh(0.5 * candidates.differences) + 0.5).mean(axis=0)
        questions = [Question(*pairs[index], strategy, float(expected[index])) for index, strategy in chosen]
        self._known.update(pair_key(question.first, question.second) for question in questions)
        self.asked += len(questions)
        return self._learn(training, self.desk.ask(questions))

    def _candidates(self, pairs: Sequence[tuple[Clip, Clip]]) -> Candidates:
        """The ensemble's predictions of pairs, and where they lie."""
        index: dict[uuid.UUID, int] = {}
        clips: list[Clip] = []
        for clip in (clip for pair in pairs for clip in pair):
            if clip.id not in index:
                index[clip.id] = len(clips)
                clips.append(clip)
        numbered = np.array([(index[a.id], index[b.id]) for a, b in pairs], np.int64)
        prepared = prepare(self.model, ClipBatch.of(clips))
        returns = clip_returns(self.model, prepared, np.arange(len(clips)))
        means = prepared.means()
        known = np.empty((0, 2 * means.shape[1]), np.float32)
        if "coverage" in self.mix and self.data.pairs:
            known = embed(prepare(self.model, self.data.batch).means(), np.array(self.data.pairs))
        return Candidates(returns[:, numbered[:, 0]] - returns[:, numbered[:, 1]], embed(means, numbered), known)

    # Answers.

    def _learn(self, training: Training, answered: Answered) -> float:
        """Take in what has been answered, and bring the model up to date if that gave something new.

        Returns the factor by which the critic's values have been multiplied.
        """
        changed = take_in(self.data, answered)
        newest = self.pool.newest_policy_step
        for comparison, *clips in answered.added:
            preference, expected = comparison.preference, comparison.pair.details.get("probability")
            recent = all(clip.policy_step >= newest for clip in clips)
            if self.fits and recent and preference is not None and expected is not None:
                self.watch.compare(float(expected), preference)
        return self._fit(training) if self.fitting.due(changed > 0) else 1.0

    def _fit(self, training: Training) -> float:
        # Old and new: over the newest alone, a reward that they all have would lose its scale.
        half = reference_count(self.model) // 2
        reference = ClipBatch.of([*self.data.clips[:half], *self.pool.clips[-half:]])
        before = self.model.reward(**reference.arrays)[reference.valid]
        first = self.fits == 0
        report = self.fitting.improve(reference, first)
        self.fits += 1
        self._report = {**report, "reward/fits": float(self.fits)}
        if first or not isinstance(training.policy, ActorCritic):
            return 1.0
        slope = slope_of(before, self.model.reward(**reference.arrays)[reference.valid])
        training.policy.map_values(slope, 0.0)
        return slope

    # Resuming.

    def state_dict(self) -> dict[str, Any]:
        """Everything but the labelled clips that the store keeps: those are known by their ids."""
        return {
            "model": self.model.state_dict(),
            "fitter": self.fitter.state_dict(),
            "data": self.data.state_dict(),
            "cutter": self.cutter.state_dict(),
            "pool": self.pool.state_dict(),
            "desk": self.desk.state_dict(),
            "watch": self.watch.state_dict(),
            "generator": self.generator.bit_generator.state,
            "asked": self.asked,
            "known": [sorted(key) for key in sorted(self._known, key=sorted)],
            "initial_steps": self.initial_steps,
            "fits": self.fits,
            "report": dict(self._report),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.fitter.load_state_dict(state["fitter"])
        self.data.load_state_dict(state["data"], self.desk.clips(state["data"]["clips"]))
        self.cutter.load_state_dict(state["cutter"])
        self.pool.load_state_dict(state["pool"])
        self.desk.load_state_dict(state["desk"])
        self.watch.load_state_dict(state["watch"])
        self.generator.bit_generator.state = state["generator"]
        self._known = {frozenset(key) for key in state["known"]}
        self.asked, self.initial_steps, self.fits = state["asked"], state["initial_steps"], state["fits"]
        self._report = dict(state["report"])
        if self.config.asynchronous:
            # Going on is not exact: what was asked after the checkpoint is not asked again, and counts.
            pairs = self.desk.asked()
            self._known |= {frozenset((str(pair.first), str(pair.second))) for pair in pairs}
            self.asked = max(self.asked, len(pairs))


def slope_of(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """By what to multiply a critic so that it survives a refit: the slope of the least-squares line from old to new.

    A value is a discounted sum of rewards, so its slope is theirs. Where new rewards have little to do with the old
    ones it is near 0, and the critic begins anew. (Both have a mean near 0, which leaves no constant to add.)
    """
    variance = float(before.var())
    if variance < 1e-12:
        return 1.0
    return max(float(((before - before.mean()) * (after - after.mean())).mean()) / variance, 0.0)
