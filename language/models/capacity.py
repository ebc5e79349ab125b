"""Experts of limited capacity: what becomes of a claim on an expert that is full.

Shazeer et al. 2017 have no limit; it came with GShard (Lepikhin et al. 2020, section 2.2), where a token whose experts
are full bypasses the layer. The other way, to send it to the next expert of its ranking, is here too.
"""

import torch
from torch import Tensor


def within_capacity(chosen: Tensor, logits: Tensor, offsets: Tensor, capacity: int, experts: int, move: bool) -> Tensor:
    """The experts that take each row, none of which takes more than `capacity`.

    Best choices are served before second ones, and of equal choices the earlier row. A refused claim goes, if `move`,
    to the next expert of its row's ranking that has not been asked, until one has room or none is left.

    Args:
        chosen: int64 `[R, k]`, the experts that are asked first, counted within the row's group.
        logits: `[R, B]`, by which each row ranks the B experts of its group.
        offsets: int64 `[R]`, what must be added to an expert's number in its group.
        capacity: claims that an expert takes.
        experts: how many there are in all.
        move: whether refused claims are moved.

    Returns:
        int64 `[R, k]`, counted over all groups; −1 for a claim that nobody took.
    """
    rows, k = chosen.shape
    # Choice by choice, so that a stable sort leaves the best choices in front.
    wanted = (chosen + offsets[:, None]).T.reshape(-1)
    taken = torch.full_like(wanted, -1)
    room = torch.full((experts,), capacity, dtype=torch.int64, device=chosen.device)
    claims = torch.arange(rows * k, device=chosen.device)
    ranking = logits.argsort(stable=True, dim=-1, descending=True) if move else None
    asked = torch.full((rows,), k, dtype=torch.int64, device=chosen.device)
    while len(claims):
        order = wanted.argsort(stable=True)
        by_expert = wanted[order]
        counts = torch.bincount(by_expert, minlength=experts)
        places = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[by_expert]
        accepted = torch.empty_like(wanted, dtype=torch.bool)
        accepted[order] = places < room[by_expert]
        taken[claims[accepted]] = wanted[accepted]
        if ranking is None:
            break
        room = (room - counts).clamp(min=0)
        claims = claims[~accepted]
        row = claims % rows
        # Claims of one row that were refused together ask one expert after another.
        turn = _occurrence(row)
        next_rank = asked[row] + turn
        asked.index_add_(0, row, torch.ones_like(row))
        possible = next_rank < ranking.shape[1]
        claims, row, next_rank = claims[possible], row[possible], next_rank[possible]
        wanted = ranking[row, next_rank] + offsets[row]
    return taken.view(k, rows).T.contiguous()


def _occurrence(values: Tensor) -> Tensor:
    """How many equal values stand before each: `[n]` of 0, 1, …"""
    order = values.argsort(stable=True)
    ordered = values[order]
    places = torch.arange(len(values), device=values.device)
    starts = torch.searchsorted(ordered, ordered)
    result = torch.empty_like(places)
    result[order] = places - starts
    return result
