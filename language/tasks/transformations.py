"""How GPT reads what tasks are made of: each input as sequences between a start and an extract token.

Radford et al. 2018, "Improving language understanding by generative pre-training", section 3.3 and figure 1.

    classification   start text extract
    entailment       start premise $ hypothesis extract
    similarity       start first $ second extract, and start second $ first extract
    choice           start context $ answer extract, for each answer

The question of a multiple-choice task stands at the end of its context.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from language.models.documents import WHAT_FITS, Form, ReadingConfig, check_form
from language.models.gpt_classifier import GPTClassifierConfig

Ids = Sequence[int]
_MARKERS = {"classification": 2, "entailment": 3, "similarity": 3, "choice": 3}


@dataclass(frozen=True)
class Transformation:
    """The ids of the new tokens, and how much fits between them."""

    start: int
    """Begins a sequence."""
    delimiter: int
    """Stands between two texts, the paper's $."""
    extract: int
    """Ends a sequence; its state is classified."""
    form: Form = "classification"
    """What an input is."""
    context: int | None = None
    """The model's longest sequence; None: any."""
    reading: ReadingConfig = WHAT_FITS
    """How much of a long text is read."""

    def __post_init__(self) -> None:
        self._room()

    @classmethod
    def of(cls, config: GPTClassifierConfig) -> Self:
        """A classifier's: the new tokens come after the tokenizer's. Raises RllabError if nothing fits into it."""
        first = config.gpt.vocabulary_size
        return cls(first, first + 1, first + 2, config.form, config.gpt.context, config.reading)

    def sequences(self, texts: Sequence[Ids]) -> list[list[int]]:
        """An input's sequences, all of its form; see the table above.

        Args:
            texts: the ids of one text; of two; or of a context and two answers or more.

        Raises:
            RllabError: there are more or fewer texts than the form has.
        """
        check_form(self.form, len(texts), "An input")
        if self.form == "classification":
            [text] = texts
            return [[self.start, *self.reading.cut(text, self._room()), self.extract]]
        first, *others = texts
        if self.form == "similarity":
            [second] = others
            return [self._pair(first, second), self._pair(second, first)]
        return [self._pair(first, other) for other in others]

    def _pair(self, first: Ids, second: Ids) -> list[int]:
        first, second = self.reading.cut_together([first, second], self._room())
        return [self.start, *first, self.delimiter, *second, self.extract]

    def _room(self) -> int | None:
        return self.reading.room(self.context, _MARKERS[self.form], 1 if self.form == "classification" else 2)
