"""Which experts a token is sent to, and how evenly: noisy top-k gates (Shazeer et al. 2017, "Outrageously large neural
networks: the sparsely-gated mixture-of-experts layer", section 2.1, section 4, appendices A and B).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from language.models.experts import Dispatch


def exact(values: Tensor) -> Tensor:
    """At least float32: 16 bits would change which logits win, and lose most of a sum over thousands of tokens."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def squared_variation(values: Tensor) -> Tensor:
    """CV², the variance of `[E]` values (of the population) over their squared mean; 0 if all of them are 0.

    For n equal values among E that are else 0 it is E/n − 1.
    """
    return values.var(correction=0) / values.mean().square().clamp(min=torch.finfo(values.dtype).tiny)


def chance_of_choice(clean: Tensor, noisy: Tensor, deviations: Tensor, k: int) -> Tensor:
    """P(x, i): the chance that i is among the k experts if only its own noise is drawn again (appendix A).

    Φ((clean − the k-th greatest noisy value without i's own)/deviation). Where there are k experts or fewer, each is
    always chosen and the chance is 1.

    Args:
        clean: x·W_g, `[S, E]`.
        noisy: with the noise that was drawn, `[S, E]`.
        deviations: of the noise, above 0, `[S, E]`.
        k: how many are chosen.

    Returns:
        `[S, E]`, which has a derivative everywhere.
    """
    if clean.shape[-1] <= k:
        return torch.ones_like(clean)
    greatest = noisy.topk(k + 1).values
    inside, outside = greatest[:, k:], greatest[:, k - 1 : k]
    # Without one of the k, the k-th greatest is the one that came just behind them.
    threshold = torch.where(noisy > inside, inside, outside)
    chances: Tensor = torch.special.ndtr((clean - threshold) / deviations)
    return chances


@dataclass(frozen=True)
class Choice:
    """What a gate chose for S rows among E experts."""

    experts: Tensor
    """int64 `[S, k]`, the best first."""
    weights: Tensor
    """`[S, k]`, a softmax over the chosen ones."""
    logits: Tensor
    """`[S, E]`, with noise if there was any: the ranking that `experts` are the best of."""
    chances: Tensor | None
    """`[S, E]`, P(x, i) of appendix A; None without noise, where an expert is either chosen or not."""

    def loads(self) -> Tensor:
        """`[S, E]`: the chances, or 1 for each chosen expert if there was no noise."""
        if self.chances is not None:
            return self.chances
        return torch.zeros_like(self.logits).scatter(-1, self.experts, 1.0)


def choose(clean: Tensor, deviations: Tensor | None, k: int) -> Choice:
    """Keep the top k, then softmax (equations 3 to 5).

    Args:
        clean: x·W_g, `[S, E]`.
        deviations: softplus(x·W_noise), `[S, E]`; None for no noise.
        k: how many are chosen.
    """
    logits = clean if deviations is None else clean + torch.randn_like(clean) * deviations
    best, experts = logits.topk(k)
    chances = None if deviations is None else chance_of_choice(clean, logits, deviations, k)
    return Choice(experts, torch.softmax(best, -1), logits, chances)


def softmax_gate(x: Tensor, weight: Tensor) -> Tensor:
    """G(x) = softmax(x·W_g), equation 2: `[S, width]` and `[width, E]` to `[S, E]`, every expert with a part."""
    return torch.softmax(x @ weight, -1)


def deviations_of(raw: Tensor) -> Tensor:
    """The noise's standard deviation: softplus(x·W_noise), kept above 0, by which it is divided."""
    return functional.softplus(raw) + 1e-6


class Gate(nn.Module):
    """A noisy top-k gate over `experts`, flat, whose matrices begin at 0 (appendix A): no signal and some noise.

    Attributes:
        clean: W_g, `[width, E]`.
        noise: W_noise, `[width, E]`; None without noise.
    """

    def __init__(self, width: int, experts: int, k: int, noisy: bool = True) -> None:
        super().__init__()
        self.k = k
        self.clean = nn.Parameter(torch.zeros(width, experts))
        self.noise = nn.Parameter(torch.zeros(width, experts)) if noisy else None

    def forward(self, x: Tensor) -> Choice:
        """Choose for `[S, width]`; there is noise in training only."""
        with torch.autocast(x.device.type, enabled=False):
            x, deviations = exact(x), None
            if self.noise is not None and self.training:
                deviations = deviations_of(x @ exact(self.noise))
            return choose(x @ exact(self.clean), deviations, self.k)


class SecondaryGates(nn.Module):
    """The gates of appendix B's second level, one for each of the groups.

    Attributes:
        clean: the groups' W_g, `[groups, width, experts of a group]`.
        noise: likewise, or None.
    """

    def __init__(self, width: int, groups: int, experts: int, k: int, noisy: bool = True) -> None:
        super().__init__()
        self.k = k
        self.clean = nn.Parameter(torch.zeros(groups, width, experts))
        self.noise = nn.Parameter(torch.zeros(groups, width, experts)) if noisy else None

    def forward(self, x: Tensor, dispatch: Dispatch) -> Choice:
        """Choose for each token `[S, width]` in each group that it was dispatched to.

        Returns:
            The choices of S·A claims, token by token; experts are counted within their group.
        """
        with torch.autocast(x.device.type, enabled=False):
            x, deviations = exact(x), None
            if self.noise is not None and self.training:
                deviations = deviations_of(dispatch.product(x, exact(self.noise)))
            return choose(dispatch.product(x, exact(self.clean)), deviations, self.k)


def capacity_of(factor: float, claims: int, experts: int) -> int:
    """How many claims an expert takes: `factor` times its even share, rounded up, and at least 1."""
    return max(math.ceil(factor * claims / experts), 1)
