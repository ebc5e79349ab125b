"""Fisher products are those of the matrix by its definition, for every family, core and path."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from synthetic import BOX, IMAGE, NESTED, make_batch, make_policy, with_and_without_masks
from torch import Tensor

from rllab.policies import ActorCritic
from rllab.policies.flat import laid_flat
from rllab.rollout import Batch


def fisher_by_definition(policy: ActorCritic, batch: Batch) -> Tensor:
    """The mean over valid states of Jᵀ·F·J, J their Jacobians row by row and F their distributions' own matrices."""
    parameters, _ = policy.module(batch, critic=False)
    critic = {id(parameter) for parameter in policy.module.critic_only()}
    actor = [parameter for parameter in policy.module.parameters() if id(parameter) not in critic]
    flat, valid = parameters.flatten(0, -2), batch.valid.flatten()
    masks = None if batch.action_mask is None else batch.action_mask.flatten(0, -2)
    total = torch.zeros(policy.actor_size, policy.actor_size)
    for state in valid.nonzero().flatten().tolist():
        rows = [torch.autograd.grad(output, actor, retain_graph=True) for output in flat[state]]
        jacobian = torch.stack([torch.cat([piece.flatten() for piece in row]) for row in rows])
        mask = None if masks is None else masks[state]
        total += jacobian.T @ _fisher_of_one_state(policy, flat[state].detach(), mask) @ jacobian
    return total / valid.sum()


def _fisher_of_one_state(policy: ActorCritic, here: Tensor, mask: Tensor | None) -> Tensor:
    """Σ p(a)·∇log p·∇log pᵀ where actions can be enumerated; of a Gaussian, 1/σ² for means and 2 for log σ."""
    if policy.family.is_gaussian:
        _, log_std = here.chunk(2)
        return torch.diag(torch.cat([torch.exp(-2 * log_std), torch.full_like(log_std, 2.0)]))
    total = torch.zeros(len(here), len(here))
    for action in _every_action(policy.action_space):
        log_prob, gradient = _log_prob_and_gradient(policy, here, mask, torch.tensor(action))
        total += log_prob.exp() * torch.outer(gradient, gradient)
    return total


def _every_action(space: gymnasium.Space[Any]) -> list[Any]:
    if isinstance(space, spaces.Discrete):
        return list(range(int(space.n)))
    sizes = [2] * space.n if isinstance(space, spaces.MultiBinary) else space.nvec.tolist()
    return np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, len(sizes)).tolist()


def _log_prob_and_gradient(
    policy: ActorCritic, here: Tensor, mask: Tensor | None, action: Tensor
) -> tuple[Tensor, Tensor]:
    parameters = here.clone().requires_grad_()
    log_prob = policy.distribution(parameters, mask).log_prob(action)
    return log_prob.detach(), torch.autograd.grad(log_prob, parameters)[0]


SMALL: dict[str, dict[str, Any]] = {
    "fast discrete": {},
    "fast box": {"action_space": BOX},
    "discrete": {"fast_path": False},
    "box": {"action_space": BOX, "fast_path": False},
    "multi_discrete": {"action_space": spaces.MultiDiscrete([2, 3])},
    "multi_binary": {"action_space": spaces.MultiBinary(2)},
    "lstm": {"recurrence": "lstm", "recurrent_size": 3},
    "gru box": {"recurrence": "gru", "recurrent_size": 3, "action_space": BOX, "share_torso": False},
    "nested": {"observation_space": NESTED},
}


@pytest.mark.parametrize(("kind", "masked"), with_and_without_masks(SMALL))
def test_fisher_products_are_those_of_the_matrix_by_definition(kind: str, masked: bool) -> None:
    policy = make_policy(**{"hidden_sizes": (4,), **SMALL[kind]})
    assert (policy.fast is not None) == kind.startswith("fast")
    batch = make_batch(policy, 3, 4, masked=masked)
    matrix = fisher_by_definition(policy, batch)
    product = policy.fisher(batch)
    for seed in range(3):
        vector = torch.randn(policy.actor_size, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(product(vector), matrix @ vector, rtol=1e-3, atol=1e-5)


def test_fisher_products_through_convolutions_are_the_hessian_of_the_divergence() -> None:
    policy = make_policy(IMAGE, hidden_sizes=(), spread=0.01)
    batch = make_batch(policy, 2, 3)
    actor = list(policy.module.torso.parameters()) + list(policy.module.actor.parameters())
    parameters, _ = policy.module(batch, critic=False)
    old = policy.distribution(parameters.detach())
    divergence = batch.mean(old.kl(policy.distribution(parameters)))
    gradient = torch.cat([laid_flat(g) for g in torch.autograd.grad(divergence, actor, create_graph=True)])
    vector = torch.randn(policy.actor_size, generator=torch.Generator().manual_seed(0))
    twice = torch.cat([laid_flat(g) for g in torch.autograd.grad(gradient @ vector, actor)])
    torch.testing.assert_close(policy.fisher(batch)(vector), twice, rtol=1e-3, atol=1e-5)
