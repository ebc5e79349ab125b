"""Choosing what is asked: pairs of the pool's clips, by the mix of strategies, each pair once.

Christiano et al. 2017, section 2.2.4 and appendix A. How strategies score pairs is in `preference.queries`.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from preference.budget import Budget
from preference.clips import ClipPool, pair_key
from preference.comparisons import Clip
from preference.config import QueryConfig
from preference.dataset import ClipBatch, ComparisonData
from preference.desk import Question
from preference.prediction import clip_returns, prepare
from preference.queries import Candidates, embed, select
from preference.reward_model import RewardModel


class Questions(Budget):
    """The pool of clips, and what is asked about them when.

    Attributes:
        pool: the clips that questions are drawn from.
    """

    def __init__(
        self, config: QueryConfig, model: RewardModel, data: ComparisonData, generator: np.random.Generator, *,
        steps: int, clip_steps: int,
    ) -> None:  # fmt: skip
        """`model` predicts the answers, `data` has those that are known, `steps` are those of the training."""
        self.config, self.model, self.data, self.generator = config, model, data, generator
        image = model.inputs.image
        self.pool = ClipPool(config.pool or (100 if image else 2000))
        super().__init__(config.schedule(steps, clip_steps, image=image), config.query_batch)
        self.mix = config.mix(model.members)

    def choose(self, count: int, *, informed: bool, newest: float | None = None) -> list[Question]:
        """At most `count` pairs that were not asked about yet.

        Args:
            count: how many; the budget may allow fewer, and the pool.
            informed: whether the model has been fitted; before that it disagrees about nothing in particular, and pairs
                are drawn at random.
            newest: share of the candidates from the newest quarter of the pool; None: the configuration's.
        """
        query = self.config
        count = min(count, query.labels - self.asked)
        drawn = count * (query.candidates if informed else 2)
        # A pair of a clip that is learnt from and one that is measured on would serve for neither.
        pairs = self.pool.draw_pairs(
            drawn, self.generator, query.newest if newest is None else newest, self._known,
            held_out=self.data.intended_side, share=self.data.share,
        )  # fmt: skip
        pairs = [pair for pair in pairs if not {self.data.side(clip) for clip in pair} >= {True, False}]
        if not pairs or count < 1:
            return []
        candidates = self.candidates(pairs)
        # Clips that look the same to the model can only be ties.
        different = np.abs(candidates.differences).max(axis=0) > 1e-6
        if different.sum() >= count:
            pairs = [pair for pair, keep in zip(pairs, different, strict=True) if keep]
            candidates = candidates.only(different)
        mix = self.mix if informed or "coverage" in self.mix else {"uniform": 1.0}
        chosen = select(candidates, count, mix, self.generator)
        expected = (0.5 * np.tanh(0.5 * candidates.differences) + 0.5).mean(axis=0)
        questions = [Question(*pairs[index], strategy, float(expected[index])) for index, strategy in chosen]
        self._known.update(pair_key(question.first, question.second) for question in questions)
        self.asked += len(questions)
        return questions

    def candidates(self, pairs: Sequence[tuple[Clip, Clip]]) -> Candidates:
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
        differences = returns[:, numbered[:, 0]] - returns[:, numbered[:, 1]]
        if "coverage" not in self.mix:
            return Candidates(differences, np.empty((len(pairs), 0), np.float32), np.empty((0, 0), np.float32))
        points = embed(prepared.means(), numbered)
        known = embed(prepare(self.model, self.data.batch).means(), self.data.pairs) if self.data.pairs else points[:0]
        return Candidates(differences, points, known)

    def state_dict(self) -> dict[str, Any]:
        """The pool, the random generator, and what was asked."""
        return {
            "pool": self.pool.state_dict(),
            "generator": self.generator.bit_generator.state,
            **super().state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.pool.load_state_dict(state["pool"])
        self.generator.bit_generator.state = state["generator"]
        super().load_state_dict(state)
