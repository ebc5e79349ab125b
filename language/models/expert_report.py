"""Which tokens each expert gets (Shazeer et al. 2017, appendix E, table 9): what the experts have specialised in."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.mixture_of_experts import MixtureReport


@dataclass(frozen=True)
class CharacteristicToken:
    """A token that an expert gets more often than others do."""

    token: int
    """Its id."""
    count: int
    """How many times the expert got it."""
    ratio: float
    """Its share of the expert's tokens over its share of all tokens: 1 if the expert gets it as often as any other."""


@dataclass(frozen=True)
class ExpertTokens:
    """What one expert got."""

    expert: int
    """Its number."""
    share: float
    """Its part of all that was given to experts; 1/E, were they even."""
    tokens: list[CharacteristicToken]
    """By ratio, the greatest first; by count where the expert gets several tokens every time."""


@dataclass(frozen=True)
class Place:
    """A token in its text, and how much of it is an expert's."""

    row: int
    """Of the batch."""
    column: int
    """Of the row."""
    weight: float
    """The expert's weight, G(x)_i."""


def characteristic_tokens(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor | None]], *, layer: int = 0, top: int = 10, least: int = 5
) -> list[ExpertTokens]:
    """Run a model over texts, and tell for each expert which tokens it gets more often than others do.

    Args:
        model: called as `model(tokens, valid, reports=list)`, as `GPT` and `MoELSTM` are; in evaluation meanwhile.
        batches: tokens, int64 `[N, T]`, and where they are, bool `[N, T]` or None for everywhere.
        layer: which of its layers of experts, in the order in which they run.
        top: tokens of each expert.
        least: rarer tokens of an expert are left out, as their ratio is chance.

    Returns:
        One entry an expert, in order of their numbers.

    Raises:
        RllabError: the model has no such layer, or there are no batches.
    """
    pairs: dict[int, Tensor] = {}
    seen = torch.zeros(0, dtype=torch.int64)
    experts = 0
    with _evaluating(model):
        for tokens, valid in batches:
            report = _report_of(model, tokens, valid, layer)
            experts = len(report.counts)
            claims = report.assignments.cpu()
            of_claims = tokens.reshape(-1, 1).expand_as(claims).cpu()
            kept = claims >= 0
            seen = _added(seen, torch.bincount(of_claims[kept]))
            for expert in range(experts):
                counts = torch.bincount(of_claims[kept & (claims == expert)])
                pairs[expert] = _added(pairs.get(expert, counts[:0]), counts)
    if not experts:
        raise RllabError("There is no text to look at; give one batch at least.")
    shares = seen.double() / seen.sum().clamp(min=1)
    return [_of_expert(expert, pairs[expert], shares, int(seen.sum()), top, least) for expert in range(experts)]


def strongest_places(
    model: nn.Module, tokens: Tensor, valid: Tensor | None = None, *, layer: int = 0, top: int = 10
) -> list[list[Place]]:
    """For each expert the places of a batch where its weight is greatest, as the paper's table 9 has them.

    Args:
        model: as for `characteristic_tokens`.
        tokens: int64 `[N, T]`.
        valid: bool `[N, T]`, or None.
        layer: which of its layers of experts.
        top: places of each expert.

    Raises:
        RllabError: the model has no such layer.
    """
    with _evaluating(model):
        report = _report_of(model, tokens, valid, layer)
    places = []
    for expert in range(len(report.counts)):
        weights = (report.weights * (report.assignments == expert)).sum(-1)
        best = weights.topk(min(top, len(weights)))
        places.append(
            [
                Place(place // tokens.shape[1], place % tokens.shape[1], weight)
                for weight, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
                if weight > 0
            ]
        )
    return places


def _of_expert(expert: int, counts: Tensor, shares: Tensor, total: int, top: int, least: int) -> ExpertTokens:
    own = int(counts.sum())
    candidates = (counts >= max(least, 1)).nonzero()[:, 0]
    ratios = counts[candidates] / max(own, 1) / shares[candidates]
    by_count = counts[candidates].argsort(stable=True, descending=True)
    order = by_count[ratios[by_count].round(decimals=9).argsort(stable=True, descending=True)][:top]
    found = [
        CharacteristicToken(token, int(counts[token]), ratio)
        for token, ratio in zip(candidates[order].tolist(), ratios[order].tolist(), strict=True)
    ]
    return ExpertTokens(expert, own / max(total, 1), found)


def _added(one: Tensor, other: Tensor) -> Tensor:
    """The sum of counts by id, of which either may know more ids."""
    size = max(len(one), len(other))
    return torch.stack([torch.cat([part, part.new_zeros(size - len(part))]) for part in (one, other)]).sum(0)


def _report_of(model: nn.Module, tokens: Tensor, valid: Tensor | None, layer: int) -> MixtureReport:
    reports: list[MixtureReport] = []
    model(tokens, valid, reports=reports)
    if not 0 <= layer < len(reports):
        raise RllabError(f"The model has {len(reports)} layers of experts, and so no layer {layer}; choose another.")
    return reports[layer]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
