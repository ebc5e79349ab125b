"""Baselines by group: a row is compared with the other rows that answer the same question.

REINFORCE leave-one-out (Ahmadian et al. 2024, "Back to basics: revisiting REINFORCE style optimization for learning
from human feedback in LLMs", section 3.3) and group-relative advantages (Shao et al. 2024, "DeepSeekMath", section
4.1.1). Each row is one whole episode, and every step of it has the same advantage.
"""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from envs.errors import RllabError
from rllab.returns import rewards_to_go
from rllab.rollout import Rollout

GroupBaseline: TypeAlias = Literal["leave_one_out", "group"]
"""The mean return of the group's other rows, or that of the whole group."""
SMALLEST_DEVIATION = 1e-4
"""Added to a group's standard deviation before it divides (the value of TRL), so that rounding is not blown up."""


def row_advantages(rollout: Rollout, baseline: GroupBaseline, *, discount: float, divide: bool) -> Tensor:
    """Each step's advantage `[N, T]`: its row's return less its group's baseline; 0 at steps that do not exist.

    Args:
        rollout: rows that are one ended episode each, with `group`.
        baseline: `leave_one_out` or `group`.
        discount: γ of a row's return.
        divide: with `group`, divide by the standard deviation of the group's returns (GRPO does).

    Raises:
        RllabError: the rollout has no groups, a row is not one episode, or a group has a single row.
    """
    check_one_episode(rollout, f"the baseline '{baseline}'")
    if rollout.group is None:
        raise RllabError(
            f"the baseline '{baseline}' compares responses to one prompt, and this rollout has no groups: collect "
            "several responses to each prompt, or use another baseline"
        )
    returns, _ = rewards_to_go(
        rollout.rewards, rollout.terminated, rollout.truncated, rollout.valid, discount=discount
    )  # fmt: skip
    first = rollout.valid.int().argmax(1, keepdim=True)
    advantages = group_advantages(returns.gather(1, first).squeeze(1), rollout.group, baseline, divide=divide)
    return advantages.unsqueeze(1) * rollout.valid


def group_advantages(returns: Tensor, group: Tensor, baseline: GroupBaseline, *, divide: bool = False) -> Tensor:
    """Returns `[N]` less the baseline of their groups `[N]`; arguments and errors as of `row_advantages`."""
    _, members = torch.unique(group, return_inverse=True)
    counts = torch.bincount(members)
    if int(counts.min()) < 2:
        raise RllabError(
            f"the baseline '{baseline}' needs at least 2 responses to each prompt, and one has a single one: raise "
            "group_size"
        )

    def mean(values: Tensor) -> Tensor:
        sums = torch.zeros(len(counts), dtype=values.dtype, device=values.device).index_add_(0, members, values)
        return (sums / counts)[members]

    centred = returns - mean(returns)
    if baseline == "leave_one_out":
        # R − (the others' mean) = (R − the mean) · n / (n − 1).
        return centred * (counts / (counts - 1))[members]
    return centred / (mean(centred.square()).sqrt() + SMALLEST_DEVIATION) if divide else centred


def check_one_episode(rollout: Rollout, what: str) -> None:
    """Raise RllabError unless every row of the rollout is one whole episode, which `what` takes for granted."""
    ended = ((rollout.terminated | rollout.truncated) & rollout.valid).sum(1)
    if not bool((ended == 1).all()):
        raise RllabError(
            f"{what} takes each row of a rollout for one whole episode, as responses to prompts are; this rollout's "
            "rows are not, so use another setting for this environment"
        )
