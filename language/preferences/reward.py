"""Training a reward model of texts on comparisons, as a run, and its cross-validation.

Ziegler et al. 2019 (section 2.1) and Stiennon et al. 2020 (section 3.4).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from envs.errors import RllabError
from language.models.folder import check_vocabulary, make_model
from language.models.lora import LoRAConfig
from language.preferences.best_of import sampled_texts
from language.preferences.comparing import Comparing, encode
from language.preferences.data import (
    Found,
    TextComparison,
    TextsConfig,
    folds_by_prompt,
    prompt_key,
    read_comparisons,
    split_by_prompt,
)
from language.preferences.lora import load_adaptable
from language.preferences.responses import ResponsesConfig
from language.preferences.reward_config import TextRewardConfig, check_members
from language.preferences.reward_measures import Predictions
from language.preferences.reward_model import TextRewardModel, text_rows
from language.preferences.sft import RowsConfig, check_not_compiled, in_epochs
from language.tokenizers.tokenizer import Progress, Tokenizer
from language.training.recipe import TOKENIZER_FOLDER, TOKENS_FOLDER, Recipe, tokenizer_of
from language.training.supervised import SupervisedTraining
from language.training.training_config import TrainingConfig
from rllab.runs import Run

NORMALISING = "normalising.json"
"""In the run's folder of tokens: the texts that numbers are normalised on."""
_KIND = "text-reward"
"""See `language.models.folder.KINDS`."""


@dataclass(frozen=True)
class ScoringConfig:
    """What the reward model is, beside its trunk."""

    members: int = 1
    """E, models of the ensemble; they differ by their heads, their adapters and what they learn from."""
    bootstrap: bool = True
    """Resample the comparisons for each member, where there are several."""
    normalise: int = 256
    """Bring numbers to mean 0, deviation 1 on so many responses of the model that it begins with, before training and
    after (Ziegler et al. 2019, section 2.1); 0: on the responses that are learnt from, and only after."""
    normalise_tokens: int = 24
    """The longest of those responses."""
    frozen_layers: int = 0
    """Embeddings and so many layers from below stay as they are, shared by all members; 0: nothing is frozen."""

    def __post_init__(self) -> None:
        check_members(self.members, self.frozen_layers)
        if self.normalise < 0 or self.normalise == 1:
            raise RllabError(f"normalise must be 0 (off) or 2 or more, not {self.normalise}.")


@dataclass(frozen=True)
class RewardRun:
    """What came of it."""

    path: Path
    """The run's folder."""
    stop_reason: str | None
    """Why training ended before its configured steps."""
    comparisons: int
    """How many were learnt from."""
    dropped: int
    """Records that were left out because they cannot be learnt from."""
    predictions: Predictions
    """Of the held-out comparisons."""


@dataclass(frozen=True, kw_only=True)
class RewardTraining(Recipe[RewardRun]):
    """A language model becomes a reward model."""

    run_kind: ClassVar[str] = "language-reward"

    texts: TextsConfig
    """The comparisons."""
    rows: RowsConfig
    """How they become batches."""
    reward: ScoringConfig
    """What the model is."""
    initial: str
    """A run or a folder of a language model: weights, sizes and tokenizer it begins with."""
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    """Adapters that learn in place of the weights, which are read from `initial` whenever the run goes on."""

    def __post_init__(self) -> None:
        check_not_compiled(self.training)

    @classmethod
    def of(
        cls, initial: Path | str, texts: TextsConfig, rows: RowsConfig, reward: ScoringConfig, training: TrainingConfig,
        device: str = "cpu", lora: LoRAConfig | None = None,
    ) -> Self:  # fmt: skip
        """Of the language model in a folder. Raises RllabError if there is none that a reward model can be made of."""
        lora = lora or LoRAConfig()
        model, _ = load_adaptable(initial, lora)
        return cls(
            model_kind=_KIND, model=TextRewardConfig.of(model, reward.members, lora, reward.frozen_layers),
            training=training, device=device, texts=texts, rows=rows, reward=reward, initial=str(initial), lora=lora,
        )  # fmt: skip

    @property
    def goal(self) -> str:
        """See `Recipe`."""
        return Comparing.goal

    @cached_property
    def found(self) -> Found[TextComparison]:
        """The comparisons."""
        return read_comparisons(self.texts)

    @cached_property
    def keys(self) -> list[str]:
        """What decides on which side of a split each is."""
        return [prompt_key(each) for each in self.found.items]

    def prepare(self, folder: Path, progress: Progress | None) -> Self:
        """Keep the model's tokenizer, look at the comparisons, and have the model write what is normalised on."""
        model, tokenizer = load_adaptable(self.initial, self.lora, self.device)
        tokenizer.save(folder / TOKENIZER_FOLDER)
        held_out = split_by_prompt(self.keys, self.rows.held_out, self.rows.split_seed)
        problem = self.problem(tokenizer, ~held_out, held_out)
        rows = self.normalising_rows(model, tokenizer, ~held_out)
        (folder / TOKENS_FOLDER).mkdir(exist_ok=True)
        (folder / TOKENS_FOLDER / NORMALISING).write_text(json.dumps(rows))
        return replace(self, training=in_epochs(self.training, self.rows.epochs, problem.epoch_batches))

    def normalising_rows(
        self, model: nn.Module, tokenizer: Tokenizer, learnt: NDArray[np.bool_]
    ) -> list[list[int]]:  # fmt: skip
        """Responses of the model to prompts that are learnt from; or the responses that are."""
        items = [item for item, chosen in zip(self.found.items, learnt, strict=True) if chosen]
        context = self.model.context
        if self.reward.normalise:
            prompts = [items[number % len(items)].prompt for number in range(self.reward.normalise)]
            drawing = ResponsesConfig(self.reward.normalise_tokens)
            prompts, responses = sampled_texts(model, tokenizer, prompts, drawing, self.training.seed)
            return text_rows(tokenizer, prompts, responses, context)
        responses = [response for item in items for response in (item.first, item.second)]
        return text_rows(tokenizer, [item.prompt for item in items for _ in range(2)], responses, context)

    def problem(
        self, tokenizer: Tokenizer, learnt: NDArray[np.bool_],
        held_out: NDArray[np.bool_],
    ) -> Comparing:  # fmt: skip
        """That of some comparisons, `[comparisons]` both, judged by others."""
        check_vocabulary(tokenizer, self.model.vocabulary_size)
        encoded = encode(self.found.items, tokenizer, self.model.context)
        parts = [[each for each, chosen in zip(encoded, side, strict=True) if chosen] for side in (learnt, held_out)]
        return Comparing(
            parts[0], parts[1], self.rows.batch_size, members=self.reward.members, bootstrap=self.reward.bootstrap,
            seed=self.training.seed, device=self.device,
        )  # fmt: skip

    def begun(self, model: nn.Module, normalising: Sequence[Sequence[int]]) -> TextRewardModel:
        """A reward model with a language model's weights, its numbers normalised over these texts, if there are any."""
        made = TextRewardModel.of(model, self.reward.members, self.lora, self.reward.frozen_layers)
        if self.reward.normalise and normalising:
            made.eval().normalise_logits_on(normalising)
        return made

    def assemble(self, run: Run, quiet: bool) -> SupervisedTraining[Any]:
        """See `Recipe`."""
        held_out = split_by_prompt(self.keys, self.rows.held_out, self.rows.split_seed)
        problem = self.problem(tokenizer_of(run.path), ~held_out, held_out)
        begun = run.checkpoints.latest() is not None
        if begun and not self.lora.on:  # checkpoints of adapters have no other weights
            model = make_model(self.model_kind, self.model).to(self.device)
        else:
            initial = load_adaptable(self.initial, self.lora, self.device)[0]
            model = self.begun(initial, [] if begun else _normalising(run))
        return SupervisedTraining(model, problem, self.training, run=run, quiet=quiet)

    def finish(self, training: SupervisedTraining[Any], run: Run) -> RewardRun:
        """Predict the held-out comparisons, and normalise scores."""
        problem, model = cast(Comparing, training.problem), cast(TextRewardModel, training.model)
        predictions = problem.predictions(model)
        model.normalise_scores_on(_normalising(run))
        return RewardRun(run.path, run.stop_reason(), len(problem.training), self.found.dropped, predictions)


def _normalising(run: Run) -> list[list[int]]:
    rows: list[list[int]] = json.loads((run.path / TOKENS_FOLDER / NORMALISING).read_text())
    return rows


def cross_validated(
    recipe: RewardTraining, folds: int, told: Callable[[int, Predictions], None] | None = None
) -> Predictions:  # fmt: skip
    """Train as the recipe says once for each fold of the prompts, each time without that fold; nothing is written.

    Where evaluations stop a training or choose its weights, they are of a share of what it learns from, never of its
    fold.

    Args:
        recipe: says how.
        folds: how many.
        told: called after each fold with its number, from 1, and what was predicted of it.

    Returns:
        Predictions of all comparisons, each by the model that did not learn from its prompt.
    """
    model, tokenizer = load_adaptable(recipe.initial, recipe.lora, recipe.device)
    places = folds_by_prompt(recipe.keys, folds, recipe.rows.split_seed)
    found = []
    for fold in range(int(places.max()) + 1):
        rest = places != fold
        inner = np.zeros_like(rest)
        inner[rest] = split_by_prompt(
            [key for key, chosen in zip(recipe.keys, rest, strict=True) if chosen], recipe.rows.held_out, fold
        )
        problem = recipe.problem(tokenizer, rest & ~inner, inner)
        normalising = recipe.normalising_rows(model, tokenizer, rest & ~inner)
        config = in_epochs(recipe.training, recipe.rows.epochs, problem.epoch_batches)
        torch.manual_seed(config.seed)
        training = SupervisedTraining(recipe.begun(model, normalising), problem, config, quiet=True)
        training.run()
        training.model.eval()
        problem.held_out = recipe.problem(tokenizer, rest, ~rest).held_out
        found.append(problem.predictions(training.model))
        if told is not None:
            told(fold + 1, found[-1])
    return Predictions.together(found)
