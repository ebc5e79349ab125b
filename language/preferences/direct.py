"""Direct methods: a policy learns from comparisons without a reward model and without sampling.

DPO (Rafailov et al. 2023, "Direct preference optimization", equation 7) is Bradley–Terry on implicit rewards,
β·(log π(y|x) − log ρ(y|x)); IPO (Azar et al. 2023, "A general theoretical paradigm to understand learning from human
preferences", equation 17) draws the difference of log-ratios to 1/(2β), where more is no better. With label smoothing
DPO is cDPO (Mitchell 2023). Nothing is dropped out, and probabilities are those of temperature 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.preferences.reward_measures import measured
from language.preferences.rows import Row, Rows, all_log_probs, row_log_probs
from language.preferences.text_models import text_model
from language.tokenizers.tokenizer import Tokenizer
from language.training.epochs import Epochs
from language.training.problem import Loss
from preference import bradley_terry


@dataclass(frozen=True)
class DirectConfig:
    """What is learnt from comparisons."""

    method: Literal["dpo", "ipo"] = "dpo"
    """dpo, or ipo, which does not push sure preferences further and further apart."""
    beta: float = 0.1
    """β: how dear it is to leave the reference (Rafailov et al. 2023, appendix B: 0.1)."""
    label_smoothing: float = 0.0
    """The share of preferences taken to be the other way round (cDPO)."""
    reference_free: bool = False
    """Take the reference to give all responses the same probability."""
    length_normalised: bool = False
    """Divide a response's log-probabilities by its tokens."""

    def __post_init__(self) -> None:
        if self.method not in ("dpo", "ipo"):
            raise RllabError(f"There is no direct method '{self.method}'; there are dpo and ipo.")
        if not self.beta > 0:
            raise RllabError(f"beta must be above 0, not {self.beta}.")
        if not 0 <= self.label_smoothing < 0.5:
            raise RllabError(f"label_smoothing must lie in [0, 0.5), not {self.label_smoothing}; at 0.5 all are ties.")


def direct_loss(difference: Tensor, mu: Tensor, config: DirectConfig) -> Tensor:
    """The loss of each comparison, `[N]`.

    Args:
        difference: log π(y₁)/ρ(y₁) − log π(y₂)/ρ(y₂), `[N]`.
        mu: the preference for the first, `[N]`; ½ for a tie.
        config: which loss.
    """
    smoothed = mu * (1 - config.label_smoothing) + (1 - mu) * config.label_smoothing
    if config.method == "dpo":
        return bradley_terry.cross_entropy(config.beta * difference, smoothed)
    target = 1 / (2 * config.beta)
    return smoothed * (difference - target).square() + (1 - smoothed) * (difference + target).square()


class Pair(NamedTuple):
    """A comparison as tokens."""

    first: Row
    second: Row
    mu: float


class PairBatch(NamedTuple):
    """N comparisons, all first responses before all second."""

    rows: Rows
    """Of 2 N rows."""
    reference: Tensor
    """Log-probabilities of the responses under the reference `[2 N]`; 0 without a reference."""
    lengths: Tensor
    """Tokens of the responses `[2 N]`, or 1 where nothing is divided by them."""
    mu: Tensor
    """`[N]`."""


class DirectPreferences:
    """DPO's or IPO's loss of comparisons; a `Problem`."""

    goal, higher_is_better = "loss", False

    def __init__(
        self, training: Sequence[Pair], held_out: Sequence[Pair], config: DirectConfig, tokenizer: Tokenizer,
        batch_size: int, *, reference: Tensor | None = None, seed: int = 0, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """Take comparisons.

        Args:
            training: what is learnt from.
            held_out: what the policy is judged by.
            config: which loss.
            tokenizer: of the model.
            batch_size: pairs of a batch.
            reference: log-probabilities under the reference `[2, training + held_out]`; none where there is none.
            seed: of the pairs' order.
            device: where the model is.

        Raises:
            RllabError: there are none on a side, nothing but ties, or the reference is missing.
        """
        for name, pairs in (("learn from", training), ("judge by", held_out)):
            if not pairs:
                raise RllabError(f"No comparison is left to {name}; give more, or shorter ones, or a larger context.")
        if all(pair.mu == 0.5 for pair in training):
            raise RllabError("All comparisons are ties, so that there is nothing to learn; give others.")
        if reference is None and not config.reference_free:
            raise RllabError("There is no reference; give its log-probabilities, or choose reference_free.")
        self.training, self.held_out, self.config = list(training), list(held_out), config
        self.tokenizer, self.device = tokenizer, device
        pairs = [*training, *held_out]
        self._reference = torch.zeros(2, len(pairs)) if reference is None or config.reference_free else reference
        self._lengths = torch.ones(2, len(pairs))
        if config.length_normalised:
            self._lengths = torch.tensor([[len(row.response) for row in side] for side in _sides(pairs)]).float()
        self._mu = torch.tensor([pair.mu for pair in pairs])
        self._epochs = Epochs([max(pair.first.length, pair.second.length) for pair in training], batch_size, seed)
        self.epoch_batches = self._epochs.batches

    def batch(self) -> PairBatch:
        """The next one."""
        numbers = self._epochs.next()
        some = [self.training[number] for number in numbers]
        first, second = _sides(some)
        rows = Rows.of([*first, *second], self.device)
        places = torch.from_numpy(numbers)
        reference, lengths = (part[:, places].flatten().to(self.device) for part in (self._reference, self._lengths))
        return PairBatch(rows, reference, lengths, self._mu[places].to(self.device))

    def loss(self, model: nn.Module, batch: PairBatch) -> Loss:
        """The sum over comparisons; both responses go through the model at once."""
        model.eval()  # nothing is dropped out: a log-ratio of a dropped-out policy would not begin at 0
        log_probs = row_log_probs(text_model(model, self.tokenizer), batch.rows)
        ratios = ((log_probs - batch.reference) / batch.lengths).view(2, -1)
        difference = ratios[0] - ratios[1]
        total = direct_loss(difference, batch.mu, self.config).sum()
        metrics = _measures(ratios.detach(), batch.mu, self.config.beta)
        return Loss(total, len(batch.mu), int(batch.rows.valid.sum()), metrics)

    def held_out_ratios(self, model: nn.Module) -> Tensor:
        """log π/ρ of both responses of the held-out comparisons, `[2, held_out]`, on the CPU."""
        log_probs = log_probs_of_pairs(model, self.tokenizer, self.held_out, self.device)
        first = len(self.training)
        return (log_probs - self._reference[:, first:]) / self._lengths[:, first:]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Of held-out comparisons: `loss`, `accuracy` with its interval and other measures of the implicit rewards'
        predictions, `margin`, and the mean log-ratios of better and worse responses."""
        ratios, mu = self.held_out_ratios(model), self._mu[len(self.training) :]
        difference = ratios[0] - ratios[1]
        predicted = torch.sigmoid(self.config.beta * difference).double().numpy()
        measures = measured(predicted, mu.double().numpy())
        return {
            **measures.to_metrics(), **_measures(ratios, mu, self.config.beta),
            "loss": float(direct_loss(difference, mu, self.config).mean()),
        }  # fmt: skip

    def operations(self, model: nn.Module, tokens: int) -> float:
        """Six for each weight and token."""
        return 6.0 * tokens * sum(parameter.numel() for parameter in model.parameters())

    def state_dict(self) -> dict[str, Any]:
        """Where in an epoch it is."""
        return self._epochs.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there."""
        self._epochs.load_state_dict(state)


def _measures(ratios: Tensor, mu: Tensor, beta: float) -> dict[str, float]:
    """Of decided comparisons: how often the implicit reward of the better response is higher, by how much on average,
    and the mean log-ratios of the better and the worse. `ratios` is log π/ρ, `[2, N]`."""
    decided = mu != 0.5
    if not bool(decided.any()):
        return {}
    ratios, first_won = ratios[:, decided], mu[decided] > 0.5
    better = torch.where(first_won, ratios[0], ratios[1])
    worse = torch.where(first_won, ratios[1], ratios[0])
    values = torch.stack([
        ((better > worse).float() + 0.5 * (better == worse)).mean(), beta * (better - worse).mean(), better.mean(),
        worse.mean(),
    ]).tolist()  # fmt: skip
    return dict(zip(("accuracy", "margin", "log_ratio_better", "log_ratio_worse"), values, strict=True))


def _sides(pairs: Sequence[Pair]) -> tuple[list[Row], list[Row]]:
    return [pair.first for pair in pairs], [pair.second for pair in pairs]


def log_probs_of_pairs(
    model: nn.Module, tokenizer: Tokenizer, pairs: Sequence[Pair], device: torch.device | str = "cpu"
) -> Tensor:  # fmt: skip
    """Log-probabilities of both responses of each pair under a model, `[2, pairs]`, on the CPU."""
    first, second = _sides(pairs)
    return all_log_probs(text_model(model.eval(), tokenizer), [*first, *second], device).view(2, -1)


def check_finite(reference: Tensor) -> None:
    """Raise RllabError if the reference gives a response no probability."""
    if not bool(reference.isfinite().all()):
        place = int(np.flatnonzero(~reference.isfinite().all(0).numpy())[0])
        raise RllabError(f"The reference gives a response of comparison {place + 1:,} no probability; leave it out.")
