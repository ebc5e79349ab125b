"""Adam and the hand-written minibatches against their torch definitions."""

import gymnasium
import numpy as np
import pytest
import torch

from rllab.agents.adam import NumpyAdam, TorchAdam
from rllab.agents.surrogate import squared_error
from rllab.policies import ActorCritic
from rllab.policies.arrays import ExperienceArrays
from rllab.rollout import Experience


def parameters_of(values: torch.Tensor) -> torch.Tensor:
    parameters = values.clone().requires_grad_()
    parameters.grad = torch.zeros_like(parameters)
    return parameters


def test_numpy_adam_takes_the_steps_of_torch_adam() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(500, generator=generator)
    ours, peer = parameters_of(start), parameters_of(start)
    adams = NumpyAdam(ours, 1e-2, 1e-5), TorchAdam(peer, 1e-2, 1e-5)
    for step in range(50):
        gradient = torch.randn(500, generator=generator) * 10.0 ** (step % 5 - 2)
        for parameters, adam in zip((ours, peer), adams, strict=True):
            assert parameters.grad is not None
            parameters.grad.copy_(gradient)
            adam.learning_rate = 1e-2 / (1 + step)
            adam.step()
        assert adams[0].gradient_norm() == pytest.approx(adams[1].gradient_norm(), rel=1e-5)
    torch.testing.assert_close(ours, peer, rtol=1e-5, atol=1e-6)
    assert not torch.equal(ours, start)


@pytest.mark.parametrize(("one", "other"), [(NumpyAdam, TorchAdam), (TorchAdam, NumpyAdam)])
def test_either_adam_goes_on_from_the_others_state(one: type[NumpyAdam], other: type[NumpyAdam]) -> None:
    first = parameters_of(torch.ones(7))
    before = one(first, 0.1, 1e-5)
    assert before.state_dict() == {}
    assert first.grad is not None
    for scale in (1.0, 3.0):
        first.grad.fill_(scale)
        before.step()
    second = parameters_of(first.detach())
    after = other(second, 0.1, 1e-5)
    after.load_state_dict({name: value.clone() for name, value in before.state_dict().items()})
    for parameters, adam in ((first, before), (second, after)):
        assert parameters.grad is not None
        parameters.grad.fill_(-2.0)
        adam.step()
    torch.testing.assert_close(first, second)


def experience(steps: int, generator: torch.Generator) -> Experience:
    numbers = torch.randn(4, steps, generator=generator)
    return Experience(
        observations=torch.randn(steps, 3, generator=generator),
        actions=torch.randint(0, 4, (steps,), generator=generator),
        valid=torch.rand(steps, generator=generator) < 0.7,
        action_mask=torch.ones(steps, 4, dtype=torch.bool),
        log_probs=numbers[0],
        values=numbers[1],
        advantages=numbers[2],
        returns=numbers[3],
    )


def test_arrays_make_the_minibatches_of_the_tensors() -> None:
    batch = experience(100, torch.Generator().manual_seed(1))
    ours = ExperienceArrays.of(batch).minibatches(32, np.random.default_rng(5))
    theirs = batch.minibatches(32, np.random.default_rng(5))
    for piece, minibatch in zip(ours, theirs, strict=True):
        for name in ("observations", "actions", "valid", "log_probs", "advantages", "returns", "action_mask"):
            assert np.array_equal(getattr(piece, name), getattr(minibatch, name).numpy()), name
        np.testing.assert_allclose(piece.weights, minibatch.weights.numpy(), rtol=1e-6)


def test_a_minibatch_without_a_single_step_weighs_nothing() -> None:
    batch = experience(8, torch.Generator().manual_seed(2))
    nothing = ExperienceArrays.of(batch.select(~batch.valid))
    [piece] = nothing.minibatches(100, np.random.default_rng(0))
    assert not piece.weights.any()


def test_the_critics_error_and_gradient_are_those_of_autograd() -> None:
    batch = experience(64, torch.Generator().manual_seed(3))
    box = gymnasium.spaces.Box(-1, 1, (3,))
    policy = ActorCritic(box, gymnasium.spaces.Discrete(4), seed=4)
    assert policy.fast is not None
    critic = policy.critic_parameters()
    loss = batch.mean((policy.value(batch) - batch.returns).square())
    expected = policy.gradient(loss, critic).clone()
    policy.zero_gradient()
    assert squared_error(policy.fast, ExperienceArrays.of(batch)) == pytest.approx(float(loss.detach()), rel=1e-6)
    assert critic.grad is not None
    torch.testing.assert_close(critic.grad, expected, rtol=1e-5, atol=1e-7)
    assert expected.abs().max() > 0
