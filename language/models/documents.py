"""What all classifiers of documents have: names of classes, what an input is made of, how much of a long one is read.

How long documents are cut follows Sun et al. 2019, "How to fine-tune BERT for text classification?" (1905.05583),
section 5.3.1, which compares the three ways.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar, get_args

from envs.errors import RllabError

Form: TypeAlias = Literal["classification", "entailment", "similarity", "choice"]
"""What is classified: a text; a text and a second one; the same, whose order means nothing; or which of several answers
goes with a context (Radford et al. 2018, figure 1)."""
Keep: TypeAlias = Literal["head", "tail", "both"]
"""Which part of a long document is read: its beginning, its end, or a quarter from its beginning and the rest from its
end (Sun et al.: 128 and 382 of 510 tokens, the best of the three for reviews)."""
Token = TypeVar("Token")


@dataclass(frozen=True)
class ReadingConfig:
    """How much of a long document is read."""

    longest: int = 0
    """Tokens of an input that are read, markers included; 0: as many as the model has positions, or else all."""
    keep: Keep = "head"
    """Which part of a longer one: its head, its tail, or a quarter from its head and the rest from its tail."""

    def __post_init__(self) -> None:
        if self.longest < 0:
            raise RllabError(f"longest must be 0 or more, not {self.longest}.")
        if self.keep not in get_args(Keep):
            raise RllabError(f"keep must be {', '.join(get_args(Keep))}, not '{self.keep}'.")

    def room(self, context: int | None, markers: int, parts: int = 1) -> int | None:
        """How many tokens of texts fit into an input; None if any number does.

        Args:
            context: the model's longest sequence; None if it has none.
            markers: tokens of an input that are no text's.
            parts: texts of an input, of each of which one token at least must fit.

        Raises:
            RllabError: they do not fit.
        """
        limits = [limit for limit in (self.longest, context) if limit]
        if not limits:
            return None
        room = min(limits) - markers
        if room < parts:
            raise RllabError(
                f"Inputs of {min(limits)} tokens leave no room for text beside {markers} markers; raise --longest or "
                "--context."
            )
        return room

    def cut(self, tokens: Sequence[Token], room: int | None) -> Sequence[Token]:
        """What is read of a document, `room` tokens at most."""
        if room is None or len(tokens) <= room:
            return tokens
        head = {"head": room, "tail": 0, "both": room // 4}[self.keep]
        return [*tokens[:head], *tokens[len(tokens) - (room - head) :]]

    def cut_together(self, parts: Sequence[Sequence[Token]], room: int | None) -> list[Sequence[Token]]:
        """What is read of several texts of one input: the longest are cut first, to equal lengths."""
        if room is None:
            return list(parts)
        taken = [0] * len(parts)
        for done, number in enumerate(sorted(range(len(parts)), key=lambda number: len(parts[number]))):
            taken[number] = min(len(parts[number]), room // (len(parts) - done))
            room -= taken[number]
        return [self.cut(part, count) for part, count in zip(parts, taken, strict=True)]


WHAT_FITS = ReadingConfig()
"""The default: as much as the model can read."""


def check_form(form: Form, count: int, what: str) -> None:
    """Raise RllabError if an input, called `what`, has another number of texts than its form."""
    wanted = {"classification": "one text", "choice": "a context and two answers or more"}.get(form, "two texts")
    fits = {"classification": count == 1, "choice": count > 2}.get(form, count == 2)
    if not fits:
        given = "one text" if count == 1 else f"{count} texts"
        raise RllabError(f"{what} has {given}, and one of the form '{form}' is {wanted}.")


def checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of classes, none where they are not known yet. Raises RllabError if there is one only, or one twice."""
    names = tuple(classes)
    if len(names) == 1 or len(set(names)) < len(names):
        raise RllabError(f"A classifier needs at least two different classes, not {', '.join(names)}.")
    return names


def class_count(classes: Sequence[str]) -> int:
    """How many there are. Raises RllabError if they are not known yet, which a model needs."""
    if not classes:
        raise RllabError("A classifier needs the names of its classes; give two at least.")
    return len(classes)
