"""Synthetic teachers of texts: they prefer what a reward gives the higher score, and may err as those of clips do."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from envs.errors import RllabError
from language.preferences.rewards import RewardFailedError, TextReward, score
from preference.comparisons import Clip, Label
from preference.teachers import SyntheticTeacher


class ScoringTeacher:
    """A synthetic teacher of texts: `preference.teachers` has how it judges and errs, a text's score is its return."""

    def __init__(self, reward: TextReward, synthetic: SyntheticTeacher) -> None:
        self.reward, self.synthetic = reward, synthetic

    def label(self, pairs: Sequence[tuple[Clip, Clip]]) -> list[Label]:
        """One label a pair, in order. Raises RewardFailedError if the reward fails or is not finite."""
        texts = [clip for pair in pairs for clip in pair]
        try:
            scores = score(self.reward, *([clip.details[name] for clip in texts] for name in ("prompt", "response")))
        except RllabError as error:
            raise RewardFailedError(f"The teacher could not answer. {error}") from error
        known = [
            replace(clip, arrays={"rewards": np.array([value])}) for clip, value in zip(texts, scores, strict=True)
        ]
        return self.synthetic.label(list(zip(known[::2], known[1::2], strict=True)))

    def state_dict(self) -> dict[str, Any]:
        """What its next answers depend on."""
        return self.synthetic.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.synthetic.load_state_dict(state)
