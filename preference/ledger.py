"""The rules by which answers are added: nothing is changed, nobody answers a pair twice, retries are harmless."""

import math
import uuid
from collections.abc import Iterable
from dataclasses import replace

from envs.errors import RllabError
from preference.comparisons import Answer, Label


class Ledger:
    """The answers to some pairs, complete for these pairs, and the checks that a further one must pass."""

    def __init__(self, recorded: Iterable[Answer]) -> None:
        self._answers: dict[uuid.UUID, Answer] = {}
        self._superseded: set[uuid.UUID] = set()
        self._standing: dict[uuid.UUID, dict[str, Answer]] = {}
        for answer in recorded:
            self._record(answer)

    def add(self, answer: Answer) -> bool:
        """Add an answer; False if it is there already, as when it was sent twice.

        Raises:
            RllabError: it contradicts what is there: its id stands for another answer, its annotator has answered the
                pair and it does not say that it supersedes that, or it supersedes what it cannot.
        """
        if (known := self._answers.get(answer.id)) is not None:
            # The times may differ: whoever makes an answer anew, after a crash, does so at another time.
            if replace(known, created=answer.created, seconds=answer.seconds, late=answer.late) != answer:
                raise RllabError(f"The answer {answer.id} is on record with other content; give a new answer a new id.")
            return False
        self._check_superseded(answer)
        standing = self._standing.get(answer.pair, {}).get(answer.annotator)
        if standing is not None and standing.id != answer.supersedes:
            raise RllabError(
                f"'{answer.annotator}' has answered the pair {answer.pair} already (answer {standing.id}); to change "
                "it, give the answer that is superseded."
            )
        self._record(answer)
        return True

    def answered(self, pair: uuid.UUID) -> int:
        """How many answers to a pair count, skips included."""
        return len(self._standing.get(pair, {}))

    def _check_superseded(self, answer: Answer) -> None:
        if answer.supersedes is None:
            if answer.label is None:
                raise RllabError(f"The answer {answer.id} has no label: it must say which answer it takes back.")
            return
        old = self._answers.get(answer.supersedes)
        if old is None or (old.pair, old.annotator) != (answer.pair, answer.annotator):
            raise RllabError(
                f"The answer {answer.id} supersedes {answer.supersedes}, which is no answer of '{answer.annotator}' "
                f"to the pair {answer.pair}."
            )
        if old.id in self._superseded:
            raise RllabError(f"The answer {old.id} has been superseded already, so {answer.id} cannot do so again.")

    def _record(self, answer: Answer) -> None:
        self._answers[answer.id] = answer
        standing = self._standing.setdefault(answer.pair, {})
        if answer.supersedes is not None:
            self._superseded.add(answer.supersedes)
            standing.pop(answer.annotator, None)
        if answer.label is not None:
            standing[answer.annotator] = answer


def check_answer(answer: Answer) -> None:
    """Make sure that an answer by itself makes sense.

    Raises:
        RllabError: its label is outside the set, its annotator has no name, or its times are no numbers.
    """
    if answer.label is not None and not isinstance(answer.label, Label):
        raise RllabError(f"{answer.label!r} is not a label: use {', '.join(label.value for label in Label)}.")
    if not isinstance(answer.annotator, str) or not answer.annotator.strip() or "\0" in answer.annotator:
        raise RllabError(f"The answer {answer.id} needs the name of its annotator, not {answer.annotator!r}.")
    if not math.isfinite(answer.created) or not (answer.seconds is None or 0 <= answer.seconds < math.inf):
        raise RllabError(f"The answer {answer.id} has times that are no numbers of seconds.")
