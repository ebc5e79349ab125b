"""Answering questions with a part of a text by BERT (Devlin et al. 2018, sections 4.2 and 4.3: SQuAD 1.1 and 2.0)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from envs.errors import RllabError
from language.models.bert_tasks import BERTSpans
from language.tasks.answer_ranking import FoundAnswer, masked_logits, ranked_answers
from language.tasks.answer_windows import AnsweringBatch, AnsweringConfig, all_windows, collated
from language.tasks.squad import Question, answer_scores
from language.tokenizers.tokenizer import Tokenizer
from language.training.epochs import Epochs
from language.training.problem import Loss


class Answering:
    """Each window once in an epoch; cross-entropies of beginning and end; a `Problem` for a `BERTSpans`.

    Attributes:
        epoch_batches: how many batches an epoch has.
    """

    goal, higher_is_better = "f1", True

    def __init__(
        self, training: Sequence[Question], held_out: Sequence[Question], tokenizer: Tokenizer,
        config: AnsweringConfig | None = None, seed: int = 0, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """Take questions.

        Raises:
            RllabError: there are none, some have no answer though the configuration does not allow it, or see
                `windows_of`.
        """
        self.config = config = config or AnsweringConfig()
        for name, questions in (("training", training), ("validation", held_out)):
            if not questions:
                raise RllabError(f"There is no question for {name}; give one at least.")
            lacking = [question.name for question in questions if not question.answers]
            if lacking and not config.may_lack_answer:
                raise RllabError(
                    f"The question {lacking[0]} has no answer; set may_lack_answer, or leave such questions out."
                )
        self.held_out, self.device, self.tokenizer = held_out, device, tokenizer
        self._windows = all_windows(training, tokenizer, config)
        self._held_out_windows = all_windows(held_out, tokenizer, config)
        self._epochs = Epochs([len(window.packed.tokens) for window in self._windows], config.batch_size, seed)
        self.epoch_batches = self._epochs.batches

    def batch(self) -> AnsweringBatch:
        """The next one."""
        return collated([self._windows[number] for number in self._epochs.next()], self.device)

    def loss(self, model: nn.Module, batch: AnsweringBatch) -> Loss:
        """The mean of the cross-entropies of beginning and end, summed over windows, in nats.

        The softmax is over the context and [CLS]. In a window without the answer, [CLS] is to be told.
        """
        starts, ends = masked_logits(model, batch)
        total = functional.cross_entropy(starts, batch.starts, reduction="sum")
        total = (total + functional.cross_entropy(ends, batch.ends, reduction="sum")) / 2
        right = (starts.detach().argmax(1) == batch.starts) & (ends.detach().argmax(1) == batch.ends)
        return Loss(total, len(right), int(batch.valid.sum()), {"accuracy": right.float().mean().item()})

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Exact match and F1, as shares, of the held-out questions."""
        ranked = ranked_answers(model, self.held_out, self._held_out_windows, self.config, self.device)
        return dict(answer_scores([answers[0].text for answers in ranked], self.held_out)._asdict())

    def operations(self, model: nn.Module, tokens: int) -> float:
        """Not known: fine-tuning is short."""
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        """Where in an epoch it is."""
        return self._epochs.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there."""
        self._epochs.load_state_dict(state)


@dataclass(frozen=True)
class Answerer:
    """A trained model, its tokenizer, and how answers are chosen."""

    model: BERTSpans
    """In evaluation mode."""
    tokenizer: Tokenizer
    """The one that it was trained with."""
    config: AnsweringConfig = field(default_factory=AnsweringConfig)
    """As in the training."""
    device: torch.device | str = "cpu"
    """Where the model is."""

    def answer(self, question: str, context: str) -> list[FoundAnswer]:
        """The best answers, the best first. Raises RllabError if the context is empty."""
        return self.answer_all([Question("asked", question, context)])[0]

    def answer_all(self, questions: Sequence[Question]) -> list[list[FoundAnswer]]:
        """The best answers of each question, the best first. Raises RllabError if a context is empty."""
        windows = all_windows(questions, self.tokenizer, self.config)
        return ranked_answers(self.model, questions, windows, self.config, self.device)
