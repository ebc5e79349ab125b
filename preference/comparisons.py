"""What is compared and what is said of it: clips, pairs, answers, and the comparisons that count.

These are plain values. `preference.store` keeps them, teachers make answers, reward models learn from comparisons.
"""

import hashlib
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Label(StrEnum):
    """What can be said of a pair (Christiano et al. 2017, section 2.2.2)."""

    FIRST = "first"
    """The first is better: μ = (1, 0)."""
    SECOND = "second"
    """The second is better: μ = (0, 1)."""
    TIE = "tie"
    """Both are equally good: μ = (½, ½)."""
    SKIP = "skip"
    """Cannot tell: kept on record, learnt from by nobody."""

    @property
    def preference(self) -> float | None:
        """μ(1), the share of preference for the first; None for a skip."""
        return _PREFERENCES[self]

    @property
    def reversed(self) -> "Label":
        """The label of the same pair the other way round."""
        return _REVERSED.get(self, self)

    @staticmethod
    def of(preference: float | None) -> "Label":
        """The label for μ(1) of 1, 0 or ½, or None."""
        return next(label for label, value in _PREFERENCES.items() if value == preference)


_PREFERENCES = {Label.FIRST: 1.0, Label.SECOND: 0.0, Label.TIE: 0.5, Label.SKIP: None}
_REVERSED = {Label.FIRST: Label.SECOND, Label.SECOND: Label.FIRST}


@dataclass(frozen=True)
class Clip:
    """A short stretch of one trajectory (or, for text, a prompt with a response).

    What a person must not see (rewards, scores, the policy's age) is here too: what is shown is chosen elsewhere.
    """

    id: uuid.UUID
    arrays: Mapping[str, NDArray[Any]]
    """`observations` `[L, *obs]` and `actions` `[L, *act]` as the environment got them (choices counted from 0), L ≥ 1
    steps; where they are known `next_observations` `[L, *obs]` and the environment's own `rewards` `[L]`, for synthetic
    teachers and measures. Empty for text."""
    run: str = ""
    """The run that it was cut from."""
    policy_step: int = 0
    """How many steps the policy that played it had trained for."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON about where it comes from; for text: `prompt` and `response`."""
    created: float = field(default_factory=time.time, compare=False)
    """Seconds since 1970."""

    @property
    def length(self) -> int:
        """L, its steps."""
        return len(self.arrays["actions"]) if self.arrays else 0


@dataclass(frozen=True)
class Pair:
    """A question: which of two clips is better?"""

    id: uuid.UUID
    first: uuid.UUID
    second: uuid.UUID
    run: str = ""
    """The run that asked."""
    strategy: str = ""
    """How it was chosen (`preference.queries`)."""
    priority: float = 0.0
    """Higher ones are asked first; among equals the older."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON. What the store looks at: `wanted`, how many different people are to answer (1); `reserved`, the name of the
    only one who is asked. What others do: `probability`, that the first is better, as predicted when it was chosen;
    `repeats`, the id of the pair that it asks about once more."""
    created: float = field(default_factory=time.time, compare=False)


@dataclass(frozen=True)
class Answer:
    """What somebody said of a pair. Answers are only ever added: a change of mind is one that supersedes another."""

    id: uuid.UUID
    """Made by whoever answers, so that sending it twice is harmless."""
    pair: uuid.UUID
    annotator: str
    label: Label | None
    """Of the pair as it is stored, however it was shown; None takes back the answer that it supersedes."""
    swapped: bool = False
    """Whether the second clip was shown on the left."""
    seconds: float | None = None
    """Between question and answer."""
    supersedes: uuid.UUID | None = None
    """The answer that this one stands in place of."""
    created: float = field(default_factory=time.time, compare=False)
    late: bool = False
    """Whether it came when the pair was not the annotator's to answer any more; it counts nevertheless."""


@dataclass(frozen=True)
class Comparison:
    """A pair with an answer that counts: the newest of its annotator's that was not taken back."""

    pair: Pair
    answer: Answer

    @property
    def preference(self) -> float | None:
        """μ(1); None if it was skipped."""
        assert self.answer.label is not None
        return self.answer.label.preference


def content_id(namespace: uuid.UUID, arrays: Mapping[str, NDArray[Any]], context: str = "") -> uuid.UUID:
    """An id that the same content in the same run always gets, so that storing it again changes nothing."""
    digest = hashlib.sha256(context.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return uuid.uuid5(namespace, digest.hexdigest())
