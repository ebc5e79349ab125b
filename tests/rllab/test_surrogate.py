"""PPO's hand-written gradient against its definition, `PPO.loss` under autograd."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from rllab.agents import PPO, PPOConfig
from rllab.agents.surrogate import clipped_surrogate
from rllab.policies import ActorCritic, PolicyConfig
from rllab.policies.arrays import ExperienceArrays
from rllab.rollout import Experience

OBSERVATIONS = gymnasium.spaces.Box(-5, 5, (3,))
SPACES: dict[str, gymnasium.Space[Any]] = {
    "discrete": gymnasium.spaces.Discrete(4),
    "masked": gymnasium.spaces.Discrete(4),
    "box": gymnasium.spaces.Box(-1, 1, (2,)),
}


def experience(policy: ActorCritic, masked: bool) -> Experience:
    generator = torch.Generator().manual_seed(0)
    steps = 200
    mask = torch.rand(steps, 4, generator=generator) < 0.6
    mask[:, 0] = True
    numbers = torch.randn(4, steps, generator=generator)
    actions = torch.randn(steps, 2, generator=generator)
    if policy.family.shape == ():
        actions = mask.float().multinomial(1, generator=generator).squeeze(-1)
    batch = Experience(
        observations=3 * torch.randn(steps, 3, generator=generator),
        actions=actions,
        valid=torch.rand(steps, generator=generator) < 0.8,
        action_mask=mask if masked else None,
        log_probs=numbers[0],
        values=numbers[1],
        advantages=numbers[2],
        returns=numbers[3],
    )
    with torch.no_grad():  # ratios on both sides of 1, within the clip range and beyond
        log_probs = policy.evaluate(batch).log_prob + 0.3 * numbers[0]
    return Experience(**{**vars(batch), "log_probs": log_probs})


@pytest.mark.parametrize("entropy_coefficient", [0.0, 0.02])
@pytest.mark.parametrize("normalise_advantages", ["minibatch", "none"])
@pytest.mark.parametrize("space", SPACES)
def test_the_gradient_by_hand_is_that_of_the_loss(
    space: str, normalise_advantages: Any, entropy_coefficient: float
) -> None:
    settings = PolicyConfig(normalise_observations=True)
    policy = ActorCritic(OBSERVATIONS, SPACES[space], settings, seed=1)
    assert policy.fast is not None
    with torch.no_grad():
        policy.flat.add_(0.3 * torch.randn(policy.flat.shape, generator=torch.Generator().manual_seed(2)))
    agent = PPO(policy, PPOConfig(normalise_advantages=normalise_advantages, entropy_coefficient=entropy_coefficient))
    batch = experience(policy, masked=space == "masked")

    loss, expected = agent.loss(batch, policy.evaluate(batch), 0.2)
    gradient = policy.gradient(loss, policy.flat).clone()
    policy.flat.grad = policy.flat.grad.fill_(7.0) if policy.flat.grad is not None else None  # all is overwritten
    loss_by_hand, measured = clipped_surrogate(policy.fast, ExperienceArrays.of(batch), agent.config, 0.2)

    assert policy.flat.grad is not None
    torch.testing.assert_close(policy.flat.grad, gradient, rtol=1e-4, atol=1e-6 * float(gradient.abs().max()))
    assert loss_by_hand == pytest.approx(float(loss.detach()), rel=1e-5)
    assert measured.keys() == expected.keys()
    for name, value in expected.items():
        assert measured[name] == pytest.approx(float(value), rel=1e-4, abs=1e-6), name
    assert 0.2 < float(np.float32(measured["clip_fraction"])) < 0.9
