"""The average of the weights of the last checkpoints (Vaswani et al. 2017, section 6.1: 5 of base, 20 of big)."""

import torch
from torch import Tensor

from envs.errors import RllabError
from rllab.checkpoints import Checkpoints


def average_checkpoints(checkpoints: Checkpoints, last: int = 5) -> dict[str, Tensor]:
    """The mean of the weights of the `last` newest checkpoints, or of all where there are fewer.

    Each is read by itself, so that two sets of weights are in memory at a time. Integers are the newest's.

    Raises:
        RllabError: there is no checkpoint, `last` is below 1, or one has weights of other names.
    """
    if last < 1:
        raise RllabError(f"At least 1 checkpoint must be averaged, not {last}.")
    steps = checkpoints.steps()[-last:]
    if not steps:
        raise RllabError("There is no checkpoint to average; train first.")
    mean: dict[str, Tensor] = {}
    for count, step in enumerate(steps, 1):
        weights = checkpoints.load(step)[1]["model"]
        if mean and weights.keys() != mean.keys():
            raise RllabError(f"The checkpoint of step {step:,} has other weights than the one before it.")
        for name, tensor in weights.items():
            if name not in mean or not torch.is_floating_point(tensor):
                mean[name] = tensor.clone()
            else:
                mean[name].lerp_(tensor, 1 / count)
    return mean
