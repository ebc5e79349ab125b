"""Where action masks come from: the observation's or the info's `action_mask`, both customary."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllab.nested import Nested
from rllab.policies.actor_critic import ActorCritic


def action_masks(
    observations: Nested, infos: dict[str, Any], policy: ActorCritic, num_rows: int
) -> NDArray[np.bool_] | None:
    """Legal actions, bool `[N, A]`; None if the environment has no masks.

    A Dict observation's entry `action_mask` (PettingZoo's custom) comes before `infos["action_mask"]`
    (Gymnasium's, as in Taxi). An environment that sends none at a step may do anything in it.
    """
    key = policy.layout.mask_key
    if key is not None:
        return np.asarray(observations[key]).reshape(num_rows, -1).astype(bool)
    if "action_mask" not in infos or not policy.family.maskable:
        return None
    sent = np.asarray(infos.get("_action_mask", np.ones(num_rows, bool)))
    masks = np.ones((num_rows, policy.family.size), bool)
    for row in np.flatnonzero(sent):
        masks[row] = np.concatenate([np.ravel(part) for part in _parts(infos["action_mask"][row])])
    return masks


def _parts(mask: Any) -> tuple[Any, ...]:
    """A MultiDiscrete mask may come as a tuple of one mask per choice."""
    return mask if isinstance(mask, tuple) else (mask,)
