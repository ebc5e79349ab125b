"""What is said of a whole rollout at once, when it has been acted."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rllab.frames import FrameStacks
from rllab.nested import Nested, map_nested
from rllab.policies.policy import Policy
from rllab.rollout import Batch
from rllab.turns import Final


def evaluate_rows(policy: Policy, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probabilities and values of a batch of rows, on the CPU, without building a graph.

    Feed-forward policies are given a part of the steps at a time (`policy.evaluation_chunk`), so that activations stay
    in the cache and those of large networks in memory.
    """
    batch = batch.to(policy.device)
    with torch.no_grad():
        if policy.rows:
            evaluation = policy.evaluate(batch, parameters=False)
            return evaluation.log_prob.cpu(), evaluation.value.cpu()
        shape, chunk = batch.valid.shape, policy.evaluation_chunk
        steps = batch.flatten()
        pieces = [
            policy.evaluate(steps.select(slice(start, start + chunk)), parameters=False)
            for start in range(0, len(steps.valid), chunk)
        ]
        log_probs, values = torch.cat([p.log_prob for p in pieces]), torch.cat([p.value for p in pieces])
        return log_probs.view(shape).cpu(), values.view(shape).cpu()


def evaluate_finals(policy: Policy, finals: list[Final]) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Values of all cut episodes' last observations in one pass, and where in the rollout they belong."""
    rows, columns, observations, hidden = zip(*finals, strict=True)
    column = (slice(None), None) if policy.rows else ()
    stacked = map_nested(lambda *leaves: np.stack(leaves)[column], observations[0], *observations[1:])
    batch = Batch(
        observations=map_nested(torch.from_numpy, stacked),
        actions=torch.empty(0),
        valid=torch.ones((len(rows), 1) if policy.rows else len(rows), dtype=torch.bool),
        starts=torch.zeros(len(rows), 1, dtype=torch.bool) if policy.rows else None,
        hidden=torch.stack(hidden) if policy.rows else None,
    )
    with torch.no_grad():
        values = policy.value(batch.to(policy.device)).reshape(-1).cpu()
    return (torch.tensor(rows), torch.tensor(columns)), values


def following(observations: Nested, lasts: list[tuple[int, int, Nested]]) -> Nested:
    """Each step's next observation `[N, T, *obs]`, from T + 1 columns of them and the last ones of ended episodes."""

    def shifted(leaf: Any) -> Tensor:
        dense: Tensor = leaf.pixels() if isinstance(leaf, FrameStacks) else leaf
        return dense[:, 1:].clone()

    result = map_nested(shifted, observations)
    for row, column, last in lasts:
        map_nested(lambda leaf, new, at=(row, column): leaf.__setitem__(at, torch.as_tensor(new)), result, last)
    return result
