"""Learning a reward beside the agent: the part that sits in the one training loop, as its callback and reward model.

Once round the loop (Christiano et al. 2017, figure 1): the collector's rollout is cut into clips; when labels are due,
pairs of clips are chosen and the teacher is asked; the reward model is fitted to all answers so far; the rollout is
relabelled, and the agent learns from it. The environment's own reward is used by synthetic teachers and by measures,
and by nothing that learns.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from preference.bradley_terry import HUMAN_NOISE
from preference.clips import ClipCutter
from preference.config import PreferenceConfig
from preference.dataset import ClipBatch, ComparisonData
from preference.desk import Answered, Desk
from preference.fit import Fitter
from preference.fitting import FitHere, Fitting, learnable, reference_count, require_learnable, slope_of, take_in
from preference.inputs import StepReader
from preference.measures import ensemble_spread
from preference.questions import Questions
from preference.reward_model import RewardModel
from preference.watch import Watch
from rllab.agents.agent import Metrics
from rllab.callbacks import Callback
from rllab.policies.actor_critic import ActorCritic
from rllab.rollout import Rollout
from rllab.train import Training

WAIT_SECONDS = 0.5
"""Between looks for answers that are waited for."""
Phase = Literal["collecting clips", "waiting for answers", "training"]


class PreferenceLearner(Callback):
    """Asks, fits and relabels.

    Attributes:
        model: the reward model.
        data: the comparisons that it learns from.
        questions: what is asked, and the clips that it is about.
        fits: how often the model has been fitted.
    """

    def __init__(
        self, config: PreferenceConfig, reader: StepReader, desk: Desk, *, rows: int, steps: int, clip_steps: int,
        seed: int, run: str, games: bool = False, note: Callable[[str], None] = print,
        fitting: Callable[[RewardModel, ComparisonData], Fitting] | None = None,
        tell: Callable[[Training, Phase], None] = lambda training, phase: None,
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
            games: an episode is a sequence of games (termination `restart`).
            note: tells a person something.
            fitting: makes what fits the model; None: it is fitted here.
            tell: is told again and again what is being done, for people who answer.
        """
        self.config, self.reader, self.desk, self.tell = config, reader, desk, tell
        choosing, drawing, shuffling = (
            np.random.default_rng(child) for child in np.random.SeedSequence([seed, 0x9E7E6]).spawn(3)
        )
        self.model = RewardModel(reader.inputs, config.reward, seed=seed)
        self.model.reader = reader
        fit, query = config.fit, config.query
        self.data = ComparisonData(config.reward.members, drawing, held_out=fit.held_out, bootstrap=fit.bootstrap)
        self.fitter = Fitter(self.model, fit, shuffling, noise=HUMAN_NOISE if config.teacher == "human" else 0.0)
        self.fitting = FitHere(self.model, self.data, self.fitter, note) if fitting is None else fitting(
            self.model, self.data
        )  # fmt: skip
        self.cutter = ClipCutter(reader, rows, clip_steps, reads=config.reward.reads, run=run)
        self.questions = Questions(query, self.model, self.data, choosing, steps=steps, clip_steps=clip_steps)
        self.most_open = query.most_open if query.most_open is not None else (
            self.questions.batch_size if config.teacher == "human" and not config.asynchronous else math.inf
        )  # fmt: skip
        self.watch = Watch(rows, games=games)
        self.initial_steps = self.fits = 0
        self._report: dict[str, float] = {}
        self._new = 0
        """Comparisons that have come or gone since the model was fitted."""

    # What the training loop calls, in the order of one iteration.

    def before_run(self, training: Training) -> None:
        """Play with the untrained policy until there is something to ask; ask, and fit the model to the answers."""
        if training.began_anew:
            # A clip is of one episode, and a return too: what was under way has no end.
            self.cutter.forget()
            self.watch.forget()
        if self.fits:
            return
        schedule, pool = self.questions.schedule, self.questions.pool
        enough, patience = min(pool.capacity, 10 * schedule.initial), schedule.steps_before_learning
        while not self._ending(training) and (len(pool) < 2 or (len(pool) < enough and self.initial_steps < patience)):
            self.tell(training, "collecting clips")
            rollout = training.collector.collect(training.policy)
            pool.add(self.cutter.cut(rollout, training.steps))
            training.policy.adapt(rollout)
            training.steps += rollout.num_steps
            self.initial_steps += rollout.num_steps
        if not self.questions.asked:
            self._ask(training, schedule.initial)
        self._wait(training)
        said = False
        while not self.fits and not self._ending(training):
            count = self.desk.open()
            self._take_in(self.desk.poll())
            self._learn(training)
            if self.fits:
                break
            if not count and not learnable(self.data):
                self._ask_more(training)
                continue
            if not said:
                training.note(f"waiting for answers to the first {self.questions.asked} questions")
                said = True
            self.tell(training, "waiting for answers")
            time.sleep(WAIT_SECONDS)

    def _ask_more(self, training: Training) -> None:
        """Ask about further clips, since all has been answered, and nothing can be learnt from it.

        Raises RllabError if all questions are used up.
        """
        asked = self.questions.asked
        self._ask(training, self.questions.batch_size)
        if self.questions.asked == asked:
            remedies = "ask more (--labels), about longer clips (--clip-seconds), or by another teacher"
            require_learnable(self.data, asked, remedies)

    @staticmethod
    def _ending(training: Training) -> bool:
        return training.interrupted or training.steps >= training.config.steps

    def after_collect(self, training: Training, rollout: Rollout) -> None:
        """Cut the rollout; ask if questions are due; learn from what has been answered."""
        self.questions.pool.add(self.cutter.cut(rollout, training.steps))
        due = self.questions.due(training.steps + rollout.num_steps)
        slope = self._ask(training, due) if due else 1.0
        self._take_in(self.desk.poll())
        slope *= self._wait(training)
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
        metrics["reward/labels"], metrics["reward/asked"] = len(self.data), self.questions.asked
        if self._report:
            report, self._report = self._report, {}  # a question below may lead to the next fit
            measures = report | self.watch.measures(true_reward=self.config.sees_rewards)
            valid = rollout.valid.cpu().numpy()
            spread = float(ensemble_spread(self.model.member_rewards(self._arrays(rollout)))[valid].mean())
            measures["reward/rollout_spread"] = spread
            for sentence in self.watch.alarm(measures, spread, measures.get("reward/labelled_spread_percentile_95")):
                training.note(sentence)
                self._ask(training, max(1, self.questions.batch_size // 4), newest=1.0)
            metrics.update(measures, **{f"reward/alarm_{name}": 1.0 for name in self.watch.alarms.active})

    def _arrays(self, rollout: Rollout) -> dict[str, NDArray[Any]]:
        return self.reader.arrays(rollout, self.config.reward.reads)

    def earliest_column(self) -> int:
        """The first column of the run that a clip may begin at which is yet to be asked about."""
        columns: list[int] = [clip.details["column"] for clip in self.questions.pool.clips if "column" in clip.details]
        return min([*columns, self.cutter.earliest_column])

    # Questions and answers.

    def _ask(self, training: Training, count: int, newest: float | None = None) -> float:
        """Ask about `count` pairs. Answers that come at once are learnt from; the result is as that of `_learn`."""
        chosen = self.questions.choose(count, informed=self.fits > 0, newest=newest)
        if not chosen:
            return 1.0
        self._take_in(self.desk.ask(chosen))
        return self._learn(training)

    def _take_in(self, answered: Answered) -> None:
        """Put what has been answered into the data."""
        self._new += take_in(self.data, answered)
        newest = self.questions.pool.newest_policy_step
        for comparison, *clips in answered.added:
            preference, expected = comparison.preference, comparison.pair.details.get("probability")
            recent = all(clip.policy_step >= newest for clip in clips)
            if self.fits and recent and preference is not None and expected is not None:
                self.watch.compare(float(expected), preference)

    def _learn(self, training: Training) -> float:
        """Bring the model up to date, if something new was taken in.

        Returns the factor by which the critic's values have been multiplied.
        """
        if self._new and self.fits and not self._enough():
            return 1.0
        changed, self._new = self._new > 0, 0
        return self._fit(training) if self.fitting.due(changed) else 1.0

    def _enough(self) -> bool:
        """Whether as many answers are new as a teacher gives at once; at the end, any.

        Fitted to each that comes, an agent would be given another reward at every step of its own.
        """
        if self.most_open == math.inf or self._new >= self.questions.batch_size:
            return True
        return self.questions.asked >= self.config.query.labels and not self.desk.open()

    def _wait(self, training: Training) -> float:
        """Let those who answer catch up, until few enough questions are open; the result is as that of `_learn`."""
        said = False
        while self.most_open < math.inf and not self._ending(training):
            if (count := self.desk.open()) <= self.most_open:
                break
            if not said:
                training.note(f"waiting for answers: {count} questions are open")
                said = True
            self.tell(training, "waiting for answers")
            time.sleep(WAIT_SECONDS)
            self._take_in(self.desk.poll())
        self.tell(training, "training")
        return self._learn(training)

    def _fit(self, training: Training) -> float:
        # Old and new: over the newest alone, a reward that they all have would lose its scale.
        half = reference_count(self.model) // 2
        reference = ClipBatch.of([*self.data.clips[:half], *self.questions.pool.clips[-half:]])
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
            "questions": self.questions.state_dict(),
            "desk": self.desk.state_dict(),
            "watch": self.watch.state_dict(),
            "initial_steps": self.initial_steps,
            "fits": self.fits,
            "report": dict(self._report),
            "new": self._new,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.fitter.load_state_dict(state["fitter"])
        self.data.load_state_dict(state["data"], self.desk.clips(state["data"]["clips"]))
        self.cutter.load_state_dict(state["cutter"])
        self.questions.load_state_dict(state["questions"])
        self.desk.load_state_dict(state["desk"])
        self.watch.load_state_dict(state["watch"])
        self.initial_steps, self.fits = state["initial_steps"], state["fits"]
        self._report, self._new = dict(state["report"]), state["new"]
        if self.config.asynchronous or self.config.teacher == "human":
            # Going on is not exact: what was asked after the checkpoint is not asked again, and counts.
            self.questions.note_asked(self.desk.asked())
