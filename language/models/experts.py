"""Experts by batched products: tokens are sorted by expert and padded, so that one product serves many experts.

Shazeer et al. 2017, "Outrageously large neural networks", section 3.1 and appendix C.1. All that stands between the
products is a gather, forwards and backwards, since additions to scattered rows cost more.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


@dataclass(frozen=True)
class Batch:
    """Experts that are served by one product, each with as many slots for tokens."""

    experts: Tensor | None
    """int64 `[G]`; None for all of them in their order, whose matrices need not be copied."""
    rows: slice
    """Their slots among all, `G·size` of them."""
    size: int
    """Slots of one expert."""


@dataclass(frozen=True)
class Dispatch:
    """Where each claim of a token on an expert stands.

    Usually one product serves all experts, with as many slots for each as the busiest one needs. Where most of them
    would be empty, experts are put together with those that have at least half as many tokens, and those without are
    left out.
    """

    batches: list[Batch]
    """The products."""
    tokens: Tensor
    """int64 `[slots]`, the token in each slot; an empty one names any."""
    slots: Tensor
    """int64 `[S, A]`, the slot of each claim; that of one which nobody took is any."""
    taken: Tensor
    """bool `[S, A]`, whether a claim has a slot."""

    @classmethod
    def of(cls, assignments: Tensor, experts: int) -> "Dispatch":
        """Give slots for int64 `[S, A]`, each an expert or −1; earlier tokens come first."""
        claims = assignments.reshape(-1)
        order = claims.argsort(stable=True)
        counts = torch.bincount(claims + 1, minlength=experts + 1)[1:]
        batches, bases, slots = _batches(counts)
        taken = assignments >= 0
        order = order[len(order) - int(counts.sum()) :]  # refused claims come first
        sorted_claims = claims.index_select(0, order)
        # The n-th claim on an expert has its n-th slot.
        shifts = bases - (counts.cumsum(0) - counts)
        sorted_slots = torch.arange(len(order), device=claims.device) + shifts.index_select(0, sorted_claims)
        of_claims = torch.zeros_like(claims).index_copy_(0, order, sorted_slots)
        tokens = claims.new_zeros(slots).index_copy_(0, sorted_slots, order // assignments.shape[1])
        return cls(batches, tokens, of_claims.view_as(assignments), taken)

    def multiply(self, rows: Tensor, weights: Tensor, transposed: bool = False) -> Tensor:
        """xW, or xWᵀ, in each slot: `[slots, in]` and `[E, in, out]` to `[slots, out]`."""
        products = []
        for batch in self.batches:
            chosen = weights if batch.experts is None else weights.index_select(0, batch.experts)
            chosen = chosen.transpose(1, 2) if transposed else chosen
            of_batch = rows[batch.rows].view(len(chosen), batch.size, -1)
            products.append(torch.bmm(of_batch, chosen).flatten(0, 1))
        return products[0] if len(products) == 1 else torch.cat(products)

    def correlate(self, rows: Tensor, others: Tensor, experts: int) -> Tensor:
        """Σ xᵀy over each expert's slots, its matrix's derivative: `[slots, in]`, `[slots, out]` to `[E, in, out]`."""
        if self.batches[0].experts is None:
            return torch.bmm(
                rows.view(experts, -1, rows.shape[1]).transpose(1, 2), others.view(experts, -1, others.shape[1])
            )
        result = rows.new_zeros(experts, rows.shape[1], others.shape[1])
        for batch in self.batches:
            assert batch.experts is not None
            shape = (len(batch.experts), batch.size, -1)
            products = torch.bmm(rows[batch.rows].view(shape).transpose(1, 2), others[batch.rows].view(shape))
            result.index_copy_(0, batch.experts, products)
        return result

    def product(self, x: Tensor, weights: Tensor) -> Tensor:
        """xW for each claim, W being its expert's: `[S, in]` and `[E, in, out]` to `[S·A, out]`."""
        if not len(x):
            return x.new_zeros(0, weights.shape[2])
        return self.multiply(x.index_select(0, self.tokens), weights).index_select(0, self.slots.view(-1))


_COPY, _LEAST = 48, 12
"""What copying an expert's matrix costs, and the least that a product with it does, in rows that could be multiplied.

Measured on a CPU, where a product of fewer rows waits for the matrix; only the speed depends on them."""


def _batches(counts: Tensor) -> tuple[list[Batch], Tensor, int]:
    """For tokens of each expert `[E]`: the batches, the first slot of each expert `[E]`, and the number of slots."""
    experts = len(counts)
    ordered, ranking = counts.sort(descending=True, stable=True)
    sizes: list[int] = ordered.tolist()
    begins, begin, cost = [], 0, 0
    while begin < experts and sizes[begin]:
        end = begin + 1
        while end < experts and 2 * sizes[end] >= sizes[begin]:
            end += 1
        cost += (end - begin) * (_COPY + max(sizes[begin], _LEAST))
        begins.append((begin, end))
        begin = end
    if not begins or experts * max(sizes[0], _LEAST) <= cost:
        size = max(sizes[0], 1)
        return (
            [Batch(None, slice(0, experts * size), size)],
            torch.arange(experts, device=counts.device) * size,
            experts * size,
        )
    batches, start = [], 0
    bases = torch.zeros_like(counts)
    for begin, end in begins:
        size, members = sizes[begin], ranking[begin:end]
        bases[members] = start + size * torch.arange(end - begin, device=counts.device)
        batches.append(Batch(members, slice(start, start + size * (end - begin)), size))
        start = batches[-1].rows.stop
    return batches, bases, start


class Experts(nn.Module):
    """Feed-forward networks of one hidden layer with ReLU and without biases, all of a size.

    Attributes:
        inwards: `[E, width, hidden]`, uniform in ±1/√width as `torch.nn.Linear` has it (the paper does not say).
        outwards: `[E, hidden, width]`, uniform in ±1/√hidden.
    """

    def __init__(self, experts: int, width: int, hidden: int) -> None:
        super().__init__()
        self.inwards = nn.Parameter(torch.empty(experts, width, hidden))
        self.outwards = nn.Parameter(torch.empty(experts, hidden, width))
        for weight in (self.inwards, self.outwards):
            nn.init.uniform_(weight, -(weight.shape[1] ** -0.5), weight.shape[1] ** -0.5)

    def forward(self, x: Tensor, assignments: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum of each token's experts. It has first derivatives only.

        Args:
            x: `[S, width]`.
            assignments: int64 `[S, A]`, experts; −1 for none.
            weights: `[S, A]`.

        Returns:
            `[S, width]`, 0 for a token without experts.
        """
        if not len(x):
            return torch.zeros_like(x)
        device, wanted = x.device.type, x.dtype
        inwards: Tensor = self.inwards
        outwards: Tensor = self.outwards
        if torch.is_autocast_enabled(device):
            lower = torch.get_autocast_dtype(device)
            x, inwards, outwards = x.to(lower), inwards.to(lower), outwards.to(lower)
        dispatch = Dispatch.of(assignments, len(inwards))
        weights = weights.to(x.dtype) * dispatch.taken
        with torch.autocast(device, enabled=False):
            output: Tensor = _WeightedExperts.apply(x, inwards, outwards, weights, dispatch)  # type: ignore[no-untyped-call]
        return output.to(wanted)


class _WeightedExperts(torch.autograd.Function):
    """Σ_a weight[s, a]·relu(x[s]·W)·U with the matrices of s's a-th expert, and its derivatives."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inwards: Tensor, outwards: Tensor, weights: Tensor, dispatch: Dispatch) -> Tensor:
        gathered = x.index_select(0, dispatch.tokens)
        hidden = dispatch.multiply(gathered, inwards).relu_()
        outputs = dispatch.multiply(hidden, outwards)
        ctx.save_for_backward(gathered, hidden, outputs, inwards, outwards, weights)
        ctx.dispatch = dispatch
        return _sum_of_rows(outputs, dispatch.slots, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor, None]:
        gathered, hidden, outputs, inwards, outwards, weights = ctx.saved_tensors
        dispatch: Dispatch = ctx.dispatch
        taken, slots = dispatch.taken.to(weights.dtype), dispatch.slots.view(-1)
        of_outputs = gradients[0].index_select(0, dispatch.tokens)
        of_weights = torch.linalg.vecdot(of_outputs, outputs).index_select(0, slots).view_as(weights)
        # Empty slots have weight 0, so that what stands in them reaches no matrix.
        of_slots = weights.new_zeros(len(dispatch.tokens)).index_add_(0, slots, weights.view(-1))
        of_outputs.mul_(of_slots[:, None])
        of_outwards = dispatch.correlate(hidden, of_outputs, len(outwards))
        of_hidden = dispatch.multiply(of_outputs, outwards, transposed=True)
        torch.ops.aten.threshold_backward.grad_input(of_hidden, hidden, 0, grad_input=of_hidden)
        of_inwards = dispatch.correlate(gathered, of_hidden, len(inwards))
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = _sum_of_rows(dispatch.multiply(of_hidden, inwards, transposed=True), dispatch.slots, taken)
        return of_x, of_inwards, of_outwards, of_weights, None


def _sum_of_rows(rows: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """Σ_a weights[s, a]·rows[places[s, a]], without the rows being copied."""
    return functional.embedding_bag(places, rows, mode="sum", per_sample_weights=weights)
