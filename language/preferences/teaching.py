"""Learning a reward of texts from comparisons beside the agent that is tuned by it, as a callback of the training loop.

Christiano et al. 2017 ("Deep reinforcement learning from human preferences", figure 1), as Ziegler et al. 2019
(section 2.3) have it for texts: pairs of responses of the present policy to the same prompt are asked about; the reward
is fitted to all answers so far; the agent goes on with it. True scores are seen by synthetic teachers and by
evaluations, and by nothing that learns.
"""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from envs.errors import RllabError
from language.models.causal_lm import CausalLM
from language.preferences.learned_reward import LearnedReward
from language.preferences.policy import TextPolicy
from language.preferences.responses import ResponsesConfig
from language.preferences.rewards import make_reward
from language.preferences.scoring_teacher import ScoringTeacher
from language.preferences.teaching_config import TeachingConfig
from language.preferences.text_questions import TextQuestions
from language.tokenizers.tokenizer import Tokenizer
from preference.beside import Voice
from preference.bulletin import Bulletin
from preference.dataset import ComparisonData
from preference.desk import Answered, Desk, Patience, StoreDesk, TeacherDesk
from preference.experiment import STORE_FILE, clear_store
from preference.fitting import learnable, require_learnable, take_in
from preference.labelling import check_page, labelling_server
from preference.learner import WAIT_SECONDS, Phase
from preference.store import Store, Task
from preference.teachers import SCORING, SyntheticTeacher
from rllab.agents.agent import Metrics
from rllab.callbacks import Callback
from rllab.distributed import require_alone
from rllab.rollout import Rollout
from rllab.train import Training


class TextTeaching(Callback):
    """Asks, and fits.

    Attributes:
        reward: what is learnt.
        gold: the synthetic teacher's own reward; None where people answer.
        data: the comparisons that are learnt from.
        questions: what is asked, and when.
    """

    def __init__(
        self, config: TeachingConfig, policy: TextPolicy, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]],
        drawing: ResponsesConfig, *, steps: int, seed: int, run: str, device: str = "cpu",
    ) -> None:  # fmt: skip
        """Make it; `open` gives it a store.

        Args:
            config: who compares what, and how the reward is learnt from that.
            policy: whose reference the reward begins with; where it has adapters, so has the reward.
            tokenizer: of its model.
            prompts: ids of each.
            drawing: how responses are drawn.
            steps: of the training.
            seed: of everything that is drawn.
            run: a UUID that the ids of texts and pairs are made from.
            device: where a teacher's models are.

        Raises:
            RllabError: no reward model can be made of the policy's model, or the teacher cannot be had.
        """
        require_alone("A reward that is learnt meanwhile from comparisons is trained")
        drawn, judging, fitting, asking = (
            int(state) for state in np.random.SeedSequence([seed, 0x7EAC8]).generate_state(4)
        )
        self.config, self.run = config, run
        self.gold = None if config.human else make_reward(config.teacher, device)
        self.judging = np.random.default_rng(judging)
        tuned = policy.text.module
        lora = tuned.config.lora if isinstance(tuned, CausalLM) else None
        self.reward = LearnedReward(policy.reference.text.module, tokenizer, config, fitting, lora)
        self.data = ComparisonData(
            config.reward_members, np.random.default_rng(drawn), held_out=config.reward_held_out
        )  # fmt: skip
        self.questions = TextQuestions(config, prompts, tokenizer, drawing, steps=steps, seed=asking, run=run)
        open_at_most = self.questions.batch_size if config.most_open is None else config.most_open
        self.most_open = open_at_most if config.human else math.inf
        self.desk: Desk | None = None
        self.voice = Voice(True)
        self.bulletin: Bulletin | None = None
        self._new = 0
        """Comparisons that have come or gone since the last fit."""
        self._report: dict[str, float] = {}

    @property
    def task(self) -> Task:
        """What its store is about."""
        return Task("", "texts", question=self.config.question)

    def check(self, folder: Path, overwrite: bool) -> None:
        """Before a run is made: raise RllabError if its store or its page cannot be had.

        With `overwrite`, remove the store of the run that is replaced, unless people have answered there.
        """
        if self.config.store is not None:
            Store.open(self.config.store, self.task).close()
        if self.config.human and self.config.page:
            check_page(self.config.serving)
        if overwrite:
            clear_store(folder)

    def open(self, folder: Path, training: Training, stack: ExitStack, quiet: bool) -> None:
        """Open the store, in a run's folder if it has no other place, and serve the page; `stack` ends both."""
        store = stack.enter_context(Store.open(self.config.store or folder / STORE_FILE, self.task))
        self.voice = Voice(quiet)
        patience = Patience(self.voice, self.voice.ending)
        if self.gold is not None:
            teacher = ScoringTeacher(self.gold, SyntheticTeacher(self.config.flaws.judgement(), self.judging))
            self.desk = TeacherDesk(teacher, store, self.run, SCORING, patience)
            return
        self.desk = StoreDesk(store, self.run, patience)
        if self.config.page:
            stack.enter_context(labelling_server(store.url, self.config.serving, self.voice.aloud))
        self.bulletin = Bulletin(store, self.run)
        self.bulletin.questions = self.questions
        stack.callback(self.bulletin.end, training)

    # What the training loop calls.

    def before_run(self, training: Training) -> None:
        """Ask about responses of the untrained policy, and fit the reward to the answers."""
        self.voice.before_run(training)
        if self.reward.fits:
            return
        policy = _policy_of(training)
        if not self.reward.normalising:
            written = self.questions.responses(policy, self.config.reward_normalise)
            self.reward.normalise_over(*zip(*written, strict=True))
        if not self.questions.asked:
            self._ask(training, self.questions.schedule.initial)
        said = False
        while not self.reward.fits and not training.interrupted:
            count = self._desk.open()
            self._take_in(self._desk.poll())
            if count <= self.most_open and learnable(self.data):
                self._fit()
            elif not count:
                self._ask_more(training)
            else:
                if not said:
                    training.note(f"waiting for answers to the first {self.questions.asked} questions")
                said = True
                self._tell(training, "waiting for answers")
                time.sleep(WAIT_SECONDS)
        if not self.reward.fits:
            training.save()  # the loop does not come round, and saves nothing

    def after_collect(self, training: Training, rollout: Rollout) -> None:
        """Ask if questions are due; learn from what has been answered. The next rollout has the new reward."""
        if due := self.questions.due(training.steps + rollout.num_steps):
            self._ask(training, due)
        self._take_in(self._desk.poll())
        self._wait(training)
        if self._new and self._enough() and learnable(self.data):
            self._fit()

    def after_update(self, training: Training, rollout: Rollout, metrics: Metrics) -> None:
        """Report; in full after a fit."""
        metrics["reward/labels"], metrics["reward/asked"] = len(self.data), self.questions.asked
        metrics.update(self._report)
        self._report = {}
        if self.bulletin is not None:
            self.bulletin.after_update(training, rollout, metrics)

    # Questions and answers.

    @property
    def _desk(self) -> Desk:
        assert self.desk is not None, "`open` comes first"
        return self.desk

    def _tell(self, training: Training, phase: Phase) -> None:
        if self.bulletin is not None:
            self.bulletin(training, phase)

    def _ask(self, training: Training, count: int) -> None:
        self._tell(training, "collecting clips")
        questions = self.questions.choose(_policy_of(training), self.reward, count, training.steps)
        if questions:
            self._take_in(self._desk.ask(questions))

    def _ask_more(self, training: Training) -> None:
        """Ask about further pairs, since all has been answered, and nothing can be learnt from it.

        Raises RllabError if there are none.
        """
        asked = self.questions.asked
        self._ask(training, self.questions.batch_size)
        if self.questions.asked > asked:
            return
        if not asked:
            raise RllabError(
                "The model wrote no two different responses to a prompt, so that there is nothing to compare; raise "
                "the --temperature or give other prompts."
            )
        require_learnable(self.data, asked, "ask more (--labels), or another teacher")

    def _take_in(self, answered: Answered) -> None:
        self._new += take_in(self.data, answered)

    def _enough(self) -> bool:
        """Whether as many answers are new as a teacher gives at once; at the end, any."""
        if self.most_open == math.inf or self._new >= self.questions.batch_size:
            return True
        return self.questions.asked >= self.questions.labels and not self._desk.open()

    def _wait(self, training: Training) -> None:
        """Let people catch up, until few enough questions are open."""
        said = False
        while self.most_open < math.inf and not training.interrupted:
            count = self._desk.open()
            self._take_in(self._desk.poll())
            if count <= self.most_open:
                break
            if not said:
                training.note(f"waiting for answers: {count} questions are open")
                said = True
            self._tell(training, "waiting for answers")
            time.sleep(WAIT_SECONDS)

    def _fit(self) -> None:
        self._report, self._new = self.reward.fit(self.data), 0

    # Resuming.

    def state_dict(self) -> dict[str, Any]:
        """Everything but the compared texts, which the store keeps: they are known by their ids."""
        return {
            "reward": self.reward.state_dict(),
            "data": self.data.state_dict(),
            "questions": self.questions.state_dict(),
            "desk": self._desk.state_dict(),
            "bulletin": None if self.bulletin is None else self.bulletin.state_dict(),
            "new": self._new,
            "report": dict(self._report),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.reward.load_state_dict(state["reward"])
        self.data.load_state_dict(state["data"], self._desk.clips(state["data"]["clips"]))
        self.questions.load_state_dict(state["questions"])
        self._desk.load_state_dict(state["desk"])
        if self.bulletin is not None and state["bulletin"] is not None:
            self.bulletin.load_state_dict(state["bulletin"])
        self._new, self._report = state["new"], dict(state["report"])
        if self.config.human:
            # Going on is not exact: what was asked after the checkpoint is not asked again, and counts.
            self.questions.note_asked(self._desk.asked())


def _policy_of(training: Training) -> TextPolicy:
    assert isinstance(training.policy, TextPolicy)
    return training.policy
