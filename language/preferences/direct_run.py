"""Fine-tuning by a direct method, as a run: the reference is kept in it, and its log-probabilities are computed once.

runs/NAME/
  reference/         the model as it began
  tokens/reference.npy   log-probabilities of all responses under it
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.causal_lm import CausalLM
from language.models.folder import check_vocabulary, kind_of, load_model, make_model, save_model
from language.models.lora import LoRAConfig
from language.preferences.data import Found, TextComparison, TextsConfig, prompt_key, read_comparisons, split_by_prompt
from language.preferences.direct import DirectConfig, DirectPreferences, Pair, check_finite, log_probs_of_pairs
from language.preferences.judging import judge
from language.preferences.lora import load_adapted
from language.preferences.responses import ResponsesConfig
from language.preferences.rows import RowReader
from language.preferences.sft import RowsConfig, check_not_compiled, in_epochs
from language.preferences.text_models import text_model
from language.preferences.tune import REFERENCE_FOLDER
from language.tokenizers.tokenizer import Progress, Tokenizer
from language.training.recipe import TOKENIZER_FOLDER, TOKENS_FOLDER, Recipe, tokenizer_of
from language.training.supervised import SupervisedTraining
from language.training.training_config import TrainingConfig
from rllab.runs import Run

_LOG_PROBS = "reference.npy"


@dataclass(frozen=True)
class DirectRun:
    """What came of it."""

    path: Path
    """The run's folder."""
    stop_reason: str | None
    """Why training ended before its configured steps."""
    comparisons: int
    """How many were learnt from."""
    too_long: int
    """How many were left out because a response with its prompt is longer than the context."""
    dropped: int
    """How many records were left out because they cannot be learnt from."""
    held_out: dict[str, float]
    """See `DirectPreferences.evaluate`."""
    kl: tuple[float, float] | None
    """Nats a response that the policy is from the reference, on held-out prompts, and the standard error of that."""


@dataclass(frozen=True, kw_only=True)
class DirectTraining(Recipe[DirectRun]):
    """A language model that exists learns from comparisons."""

    run_kind: ClassVar[str] = "language-direct"

    texts: TextsConfig
    """The comparisons."""
    rows: RowsConfig
    """How they become batches."""
    direct: DirectConfig
    """What is learnt from them."""
    initial: str
    """A run or a model's folder: the policy as it begins, and the reference."""
    kl_responses: int = 64
    """How many responses to held-out prompts the divergence from the reference is estimated from at the end; 0: it is
    not."""
    kl_tokens: int = 64
    """The longest of them."""
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    """Adapters that learn in place of the weights."""

    def __post_init__(self) -> None:
        check_not_compiled(self.training)
        if self.kl_responses < 0 or self.kl_tokens < 1:
            raise RllabError("kl_responses must be 0 or more, and kl_tokens at least 1.")

    @classmethod
    def of(
        cls, initial: Path | str, texts: TextsConfig, rows: RowsConfig, direct: DirectConfig, training: TrainingConfig,
        device: str = "cpu", lora: LoRAConfig | None = None, **further: Any,
    ) -> Self:  # fmt: skip
        """Of the model in a folder. Raises RllabError if there is none that writes text."""
        lora = lora or LoRAConfig()
        model, tokenizer = load_adapted(initial, lora)
        text_model(model, tokenizer)
        return cls(
            model_kind=kind_of(model), model=model.config, training=training, device=device, texts=texts, rows=rows,
            direct=direct, initial=str(initial), lora=lora, **further,
        )  # fmt: skip

    @property
    def goal(self) -> str:
        """See `Recipe`."""
        return DirectPreferences.goal

    @cached_property
    def _found(self) -> Found[TextComparison]:
        return read_comparisons(self.texts)

    def prepare(self, folder: Path, progress: Progress | None) -> Self:
        """Keep the model as the reference, and the log-probabilities of all responses under it."""
        model, tokenizer = load_adapted(self.initial, self.lora, self.device)
        if isinstance(model, CausalLM):
            model = model.unadapted()
        pairs, _ = self._pairs(model, tokenizer)
        reference = torch.zeros(2, len(pairs))
        if not self.direct.reference_free:
            reference = log_probs_of_pairs(model, tokenizer, pairs, self.device)
            check_finite(reference)
        # Written once nothing is left that could be wrong: a run that cannot begin leaves nothing.
        problem = self._problem(model, tokenizer, reference)
        tokenizer.save(folder / TOKENIZER_FOLDER)
        save_model(folder / REFERENCE_FOLDER, model, tokenizer)
        (folder / TOKENS_FOLDER).mkdir(exist_ok=True)
        np.save(folder / TOKENS_FOLDER / _LOG_PROBS, reference.numpy())
        return replace(self, training=in_epochs(self.training, self.rows.epochs, problem.epoch_batches))

    def _pairs(self, model: nn.Module, tokenizer: Tokenizer) -> tuple[list[Pair], list[TextComparison]]:
        """Those that fit into the context, as tokens and as texts."""
        check_vocabulary(tokenizer, self.model.vocabulary_size)
        reader = RowReader(text_model(model, tokenizer), tokenizer, self.rows.too_long)
        items = self._found.items
        prompts = [item.prompt for item in items]
        sides = [reader.rows(prompts, [getattr(item, side) for item in items]) for side in ("first", "second")]
        pairs, kept = [], []
        for item, first, second in zip(items, *sides, strict=True):
            if first is not None and second is not None:
                pairs.append(Pair(first, second, item.mu))
                kept.append(item)
        if not pairs:
            raise RllabError(
                f"All {len(items):,} comparisons are longer than the model's context of {reader.text.context}; cut "
                "their prompts by --too-long cut, or use a model with a larger context."
            )
        return pairs, kept

    def _problem(self, model: nn.Module, tokenizer: Tokenizer, reference: Tensor) -> DirectPreferences:
        pairs, items = self._pairs(model, tokenizer)
        held_out = self._held_out(items)
        order = np.concatenate([np.flatnonzero(~held_out), np.flatnonzero(held_out)])
        count = int((~held_out).sum())
        sorted_pairs = [pairs[place] for place in order]
        return DirectPreferences(
            sorted_pairs[:count], sorted_pairs[count:], self.direct, tokenizer, self.rows.batch_size,
            reference=reference[:, torch.from_numpy(order)], seed=self.training.seed, device=self.device,
        )  # fmt: skip

    def _held_out(self, items: list[TextComparison]) -> "np.ndarray[Any, np.dtype[np.bool_]]":
        return split_by_prompt([prompt_key(item) for item in items], self.rows.held_out, self.rows.split_seed)

    def assemble(self, run: Run, quiet: bool) -> SupervisedTraining[Any]:
        """See `Recipe`."""
        model = self._model(run, begun=run.checkpoints.latest() is not None)
        reference = torch.from_numpy(np.load(run.path / TOKENS_FOLDER / _LOG_PROBS))
        problem = self._problem(model, tokenizer_of(run.path), reference)
        return SupervisedTraining(model, problem, self.training, run=run, quiet=quiet)

    def _model(self, run: Run, begun: bool) -> nn.Module:
        """The model as it begins, or with weights that are about to be replaced."""
        if begun and not self.lora.on:  # with adapters, only theirs are replaced
            return make_model(self.model_kind, self.model).to(self.device)
        return load_adapted(run.path / REFERENCE_FOLDER, self.lora, self.device, self.training.seed)[0]

    def finish(self, training: SupervisedTraining[Any], run: Run) -> DirectRun:
        """Evaluate the best weights, and estimate their divergence from the reference."""
        problem = cast(DirectPreferences, training.problem)
        kl = None
        if self.kl_responses:
            reference, tokenizer = load_model(run.path / REFERENCE_FOLDER, self.device)
            _, items = self._pairs(reference, tokenizer)
            prompts = [item.prompt for item, held in zip(items, self._held_out(items), strict=True) if held]
            some = [prompts[number % len(prompts)] for number in range(self.kl_responses)]
            context = text_model(reference, tokenizer).context
            drawing = ResponsesConfig(self.kl_tokens if context is None else min(self.kl_tokens, context // 2))
            policy = self._model(run, begun=True)
            policy.load_state_dict(training.model.state_dict())
            kl = judge(policy, tokenizer, some, drawing, reference=reference, seed=self.training.seed).kl
        learnt, held = len(problem.training), len(problem.held_out)
        return DirectRun(
            run.path, run.stop_reason(), learnt, len(self._found.items) - learnt - held, self._found.dropped,
            problem.evaluate(training.model), kl,
        )  # fmt: skip
