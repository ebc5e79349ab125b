"""Supervised fine-tuning: a language model learns what to write after prompts (Ziegler et al. 2019, Stiennon et al.
2020, step 1), by cross-entropy of the completions' tokens alone; or whole texts, which have no prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import nn

from envs.errors import RllabError
from language.models.folder import check_vocabulary, kind_of, make_model
from language.models.lora import LoRAConfig
from language.preferences.data import (
    Demonstration,
    Found,
    TextsConfig,
    prompt_key,
    read_demonstrations,
    split_by_prompt,
)
from language.preferences.lora import load_adapted
from language.preferences.rows import Row, RowReader, Rows, TooLong, batches_by_length, chosen_log_probs
from language.preferences.text_models import text_model
from language.tokenizers.tokenizer import Progress, Tokenizer
from language.training.epochs import Epochs
from language.training.problem import Loss
from language.training.recipe import TOKENIZER_FOLDER, Recipe, tokenizer_of
from language.training.supervised import SupervisedTraining
from language.training.training_config import TrainingConfig
from rllab.runs import Run

_TOKENS = 8_192


@dataclass(frozen=True)
class RowsConfig:
    """How texts become batches."""

    batch_size: int = 16
    """Texts, or pairs of them, of a batch; those of about equal lengths come together."""
    held_out: float = 0.1
    """The share of texts, by prompt, that the model is judged by and does not learn from."""
    too_long: TooLong = "drop"
    """What becomes of a text that is longer than the model's context: drop, cut (its prompt's beginning;
    without a prompt its end) or refuse."""
    epochs: float = 0.0
    """How often each text is learnt from, in place of `steps`; 0: as many steps as `steps` says."""
    split_seed: int = 0
    """Decides which prompts are held out."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise RllabError(f"batch_size must be at least 1, not {self.batch_size}.")
        if not self.epochs >= 0:
            raise RllabError(f"epochs must be 0 (steps decide) or more, not {self.epochs}.")
        if not 0 < self.held_out < 1:
            raise RllabError(f"held_out must lie between 0 and 1, not {self.held_out}.")
        if self.too_long not in ("drop", "cut", "refuse"):
            raise RllabError(f"too_long must be drop, cut or refuse, not '{self.too_long}'.")


class Completions:
    """Cross-entropy of the completions' tokens, given their prompts; a `Problem`."""

    goal, higher_is_better = "loss", False

    def __init__(
        self, training: Sequence[Row], held_out: Sequence[Row], batch_size: int, tokenizer: Tokenizer, *,
        seed: int = 0, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """Take rows. Raises RllabError if there are none to learn from, or to judge by."""
        for name, rows in (("learn from", training), ("judge by", held_out)):
            if not rows:
                raise RllabError(f"No text is left to {name}; give more, or shorter ones, or a larger context.")
        self.training, self.held_out = list(training), list(held_out)
        self.tokenizer, self.device = tokenizer, device
        self._epochs = Epochs([row.length for row in self.training], batch_size, seed)
        self.epoch_batches = self._epochs.batches

    def batch(self) -> Rows:
        """The next one."""
        return Rows.of([self.training[number] for number in self._epochs.next()], self.device)

    def loss(self, model: nn.Module, batch: Rows) -> Loss:
        """The sum over the completions' tokens, in nats."""
        log_probs, _ = chosen_log_probs(text_model(model, self.tokenizer), batch)
        return Loss(-log_probs.sum(), len(log_probs), int(batch.valid.sum()))

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Nats a held-out token of completions, and their perplexity."""
        text, total, count = text_model(model, self.tokenizer), 0.0, 0
        for numbers in batches_by_length([row.length for row in self.held_out], _TOKENS):
            log_probs, _ = chosen_log_probs(text, Rows.of([self.held_out[number] for number in numbers], self.device))
            total, count = total - float(log_probs.double().sum()), count + len(log_probs)
        mean = torch.tensor(total / count)
        return {"loss": float(mean), "perplexity": float(mean.exp())}

    def operations(self, model: nn.Module, tokens: int) -> float:
        """Six for each weight and token, as all weights learn and attention over short texts is little beside them."""
        return 6.0 * tokens * sum(parameter.numel() for parameter in model.parameters())

    def state_dict(self) -> dict[str, Any]:
        """Where in an epoch it is."""
        return self._epochs.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there."""
        self._epochs.load_state_dict(state)


@dataclass(frozen=True)
class FineTunedRun:
    """What came of it."""

    path: Path
    """The run's folder."""
    stop_reason: str | None
    """Why training ended before its configured steps."""
    texts: int
    """How many were learnt from."""
    too_long: int
    """How many were left out because they are longer than the context."""
    dropped: int
    """How many records were left out because they cannot be learnt from."""
    held_out: dict[str, float]
    """Loss and perplexity of a held-out token."""


def check_not_compiled(training: TrainingConfig) -> None:
    """Raise RllabError if torch.compile is asked for."""
    if training.compile:
        raise RllabError("Fine-tuning takes texts of all lengths, for which compiling does not pay; leave it off.")


def in_epochs(training: TrainingConfig, epochs: float, epoch_batches: int) -> TrainingConfig:
    """The same with the steps of so many epochs; with none, as it is."""
    if not epochs:
        return training
    return replace(training, steps=max(1, round(epochs * epoch_batches / training.accumulation)))


@dataclass(frozen=True, kw_only=True)
class SupervisedFineTuning(Recipe[FineTunedRun]):
    """A language model that exists learns from demonstrations."""

    run_kind: ClassVar[str] = "language-sft"

    texts: TextsConfig
    """What is learnt."""
    rows: RowsConfig
    """How it becomes batches."""
    initial: str
    """A run or a model's folder: weights, sizes and tokenizer it begins with."""
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    """Adapters that learn in place of the weights, which are read from `initial` whenever the run goes on."""

    def __post_init__(self) -> None:
        check_not_compiled(self.training)

    @classmethod
    def of(
        cls, initial: Path | str, texts: TextsConfig, rows: RowsConfig, training: TrainingConfig, device: str = "cpu",
        lora: LoRAConfig | None = None,
    ) -> Self:  # fmt: skip
        """Of the model in a folder. Raises RllabError if there is none that writes text."""
        lora = lora or LoRAConfig()
        model, tokenizer = load_adapted(initial, lora)
        text_model(model, tokenizer)
        return cls(
            model_kind=kind_of(model), model=model.config, training=training, device=device, texts=texts, rows=rows,
            initial=str(initial), lora=lora,
        )  # fmt: skip

    @property
    def goal(self) -> str:
        """See `Recipe`."""
        return Completions.goal

    @cached_property
    def _found(self) -> Found[Demonstration]:
        return read_demonstrations(self.texts)

    def prepare(self, folder: Path, progress: Progress | None) -> Self:
        """Keep the model's tokenizer, and look at the texts."""
        model, tokenizer = load_adapted(self.initial, self.lora)
        tokenizer.save(folder / TOKENIZER_FOLDER)
        problem = self._problem(model, tokenizer)
        return replace(self, training=in_epochs(self.training, self.rows.epochs, problem.epoch_batches))

    def _problem(self, model: nn.Module, tokenizer: Tokenizer) -> Completions:
        check_vocabulary(tokenizer, self.model.vocabulary_size)
        reader = RowReader(text_model(model, tokenizer), tokenizer, self.rows.too_long)
        found = self._found.items
        made = reader.rows([each.prompt for each in found], [each.completion for each in found])
        keys = [prompt_key(each) for each, row in zip(found, made, strict=True) if row is not None]
        rows = [row for row in made if row is not None]
        if not rows:
            raise RllabError(
                f"All {len(made):,} texts are longer than the model's context of {reader.text.context}; cut their "
                "prompts by --too-long cut, or use a model with a larger context."
            )
        held = split_by_prompt(keys, self.rows.held_out, self.rows.split_seed)
        learnt, judged = ([row for row, is_held in zip(rows, held, strict=True) if is_held == s] for s in (False, True))
        return Completions(
            learnt, judged, self.rows.batch_size, tokenizer, seed=self.training.seed, device=self.device
        )  # fmt: skip

    def assemble(self, run: Run, quiet: bool) -> SupervisedTraining[Any]:
        """See `Recipe`."""
        if run.checkpoints.latest() is None or self.lora.on:  # checkpoints have the adapters alone
            model = load_adapted(self.initial, self.lora, self.device, self.training.seed)[0]
        else:
            model = make_model(self.model_kind, self.model).to(self.device)
        problem = self._problem(model, tokenizer_of(run.path))
        return SupervisedTraining(model, problem, self.training, run=run, quiet=quiet)

    def finish(self, training: SupervisedTraining[Any], run: Run) -> FineTunedRun:
        """Evaluate once more, as the weights are those of the best evaluation."""
        problem = cast(Completions, training.problem)
        learnt, held = len(problem.training), len(problem.held_out)
        return FineTunedRun(
            run.path, run.stop_reason(), learnt, len(self._found.items) - learnt - held, self._found.dropped,
            problem.evaluate(training.model),
        )  # fmt: skip
