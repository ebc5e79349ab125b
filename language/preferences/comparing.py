"""The problem of a reward model of texts: comparisons as tokens, their batches, and Bradley–Terry's loss."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.padding import pad_right
from language.preferences.data import TextComparison
from language.preferences.reward_measures import EncodedComparison, LengthBaseline, Predictions
from language.preferences.reward_model import TextRewardModel, text_rows
from language.tokenizers.tokenizer import Tokenizer
from language.training.epochs import Epochs
from language.training.problem import Loss
from preference import bradley_terry

_BOOTSTRAP = 0xB007


class ComparisonBatch(NamedTuple):
    """N comparisons."""

    tokens: Tensor
    """int64 `[2 N, T]`, padded on the right; all first responses with their prompts, then all second."""
    valid: Tensor
    """bool `[2 N, T]`."""
    mu: Tensor
    """`[N]`."""
    weights: Tensor
    """`[E, N]`, how often each member has a comparison in its sample."""


class Comparing:
    """Cross-entropy of comparisons under Bradley–Terry; a `Problem`."""

    goal, higher_is_better = "loss", False

    def __init__(
        self, training: Sequence[EncodedComparison], held_out: Sequence[EncodedComparison], batch_size: int, *,
        members: int = 1, bootstrap: bool = True, seed: int = 0, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """Take comparisons. Raises RllabError if there are none on a side, or nothing but ties to learn from."""
        for name, some in (("learn from", training), ("judge by", held_out)):
            if not some:
                raise RllabError(f"No comparison is left to {name}; give more.")
        if all(comparison.mu == 0.5 for comparison in training):
            raise RllabError("All comparisons are ties, so that there is nothing to learn; give others.")
        self.training, self.held_out, self.device = list(training), list(held_out), device
        self.baseline = LengthBaseline.fit(training)
        self.weights = torch.ones(members, len(training))
        if bootstrap and members > 1:
            generator = np.random.default_rng(np.random.SeedSequence([seed, _BOOTSTRAP]))
            drawn = generator.multinomial(len(training), np.full(len(training), 1 / len(training)), size=members)
            self.weights = torch.from_numpy(drawn).float()
        lengths = [max(len(comparison.first), len(comparison.second)) for comparison in training]
        self._epochs = Epochs(lengths, batch_size, seed)
        self.epoch_batches = self._epochs.batches

    def batch(self) -> ComparisonBatch:
        """The next one."""
        numbers = self._epochs.next()
        some = [self.training[number] for number in numbers]
        tokens, valid = pad_right([*(each.first for each in some), *(each.second for each in some)], self.device)
        mu = torch.tensor([each.mu for each in some], device=self.device)
        return ComparisonBatch(tokens, valid, mu, self.weights[:, torch.from_numpy(numbers)].to(self.device))

    def loss(self, model: nn.Module, batch: ComparisonBatch) -> Loss:
        """The sum over comparisons, the mean over members, in nats; both sides go through the model at once."""
        logits = model(batch.tokens, batch.valid)
        count = len(batch.mu)
        difference = logits[:, :count] - logits[:, count:]
        total = (bradley_terry.cross_entropy(difference, batch.mu) * batch.weights).mean(0).sum()
        decided = batch.mu != 0.5
        right = ((difference.detach().mean(0) > 0) == (batch.mu > 0.5))[decided]
        metrics = {"accuracy": float(right.float().mean())} if len(right) else {}
        return Loss(total, count, int(batch.valid.sum()), metrics)

    def predictions(self, model: nn.Module) -> Predictions:
        """Of the held-out comparisons."""
        return Predictions.of(cast(TextRewardModel, model), self.held_out, self.baseline)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """`loss` is the mean cross-entropy with μ; the rest is as in `preference.measures`."""
        found = self.predictions(model)
        return {"loss": found.loss, "length_correlation": found.length_correlation, **found.measures.to_metrics()}

    def operations(self, model: nn.Module, tokens: int) -> float:
        """Six for each weight of a member and token, four for one that is frozen; all members read all texts."""
        members = cast(TextRewardModel, model).members
        weights = [parameter for member in members for parameter in member.parameters()]
        return float(tokens * sum((6 if each.requires_grad else 4) * each.numel() for each in weights))

    def state_dict(self) -> dict[str, Any]:
        """Where in an epoch it is."""
        return self._epochs.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there."""
        self._epochs.load_state_dict(state)


def encode(
    comparisons: Sequence[TextComparison], tokenizer: Tokenizer, context: int | None
) -> list[EncodedComparison]:  # fmt: skip
    """Comparisons as tokens; of texts longer than the context the last tokens are kept, as in scoring."""
    prompts = [comparison.prompt for comparison in comparisons]
    sides = [[comparison.first for comparison in comparisons], [comparison.second for comparison in comparisons]]
    rows = [text_rows(tokenizer, prompts, side, context) for side in sides]
    lengths = [[max(1, len(ids)) for ids in tokenizer.encode_batch(side)] for side in sides]
    return [
        EncodedComparison(first, second, comparison.mu, sizes)
        for first, second, comparison, sizes in zip(
            *rows, comparisons, zip(*lengths, strict=True), strict=True
        )
    ]  # fmt: skip
