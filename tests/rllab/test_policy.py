"""A policy's flat buffer, its evaluation of steps and rows, its Fisher products and its state."""

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from synthetic import (
    ACTION_SPACES,
    BOX,
    DISCRETE,
    IMAGE,
    NESTED,
    VECTOR,
    make_batch,
    make_policy,
    make_rollout,
    random_mask,
    slow_copy,
    unflatten,
    with_and_without_masks,
)
from torch import Tensor, nn

from envs.errors import RllabError
from rllab.policies import ActorCritic, PolicyConfig

KINDS: dict[str, dict[str, Any]] = {
    "fast": {},
    "modules": {"fast_path": False},
    "box": {"action_space": BOX},
    "multi_discrete": {"action_space": ACTION_SPACES["multi_discrete"]},
    "multi_binary": {"action_space": ACTION_SPACES["multi_binary"]},
    "lstm": {"recurrence": "lstm"},
    "gru with two torsos": {"recurrence": "gru", "share_torso": False, "action_space": BOX},
    "images": {"observation_space": IMAGE, "hidden_sizes": (), "spread": 0.01},
    "nested": {"observation_space": NESTED, "normalise_observations": True},
}


def make(kind: str, **more: Any) -> ActorCritic:
    return make_policy(**{**KINDS[kind], **more})


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_parameter_is_a_view_of_the_flat_buffer_gradient_included(kind: str) -> None:
    policy = make(kind)
    parameters = list(policy.module.parameters())
    assert sum(p.numel() for p in parameters) == len(policy.flat)
    assert policy.flat.grad is not None
    with torch.no_grad():
        policy.flat.copy_(torch.arange(len(policy.flat)).float())
        policy.flat.grad.copy_(torch.arange(len(policy.flat)).float())
    for parameter in parameters:
        assert parameter.grad is not None
        assert torch.equal(parameter.detach(), parameter.grad)
    seen = torch.cat([p.detach().flatten() for p in parameters]).sort().values
    assert torch.equal(seen, torch.arange(len(policy.flat)).float())


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_actor_comes_first_and_no_action_depends_on_what_comes_after(kind: str) -> None:
    policy = make(kind)
    batch = make_batch(policy)
    leaf = policy.flat.detach()[: policy.actor_size]
    torch.testing.assert_close(leaf, policy.actor_parameters().detach())
    assert len(policy.actor_parameters()) + len(policy.critic_parameters()) == len(policy.flat)

    gradient = policy.gradient(policy.evaluate(batch).log_prob.square().sum(), policy.flat)
    assert gradient[: policy.actor_size].any()
    assert not gradient[policy.actor_size :].any()
    with torch.no_grad():
        before = policy.evaluate(batch)
        policy.critic_parameters().add_(1.0)
        after = policy.evaluate(batch)
    assert torch.equal(before.parameters, after.parameters)
    assert not torch.equal(before.value, after.value)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_critic_alone_gives_the_same_values_and_moves_no_actor(kind: str) -> None:
    policy = make(kind)
    batch = make_batch(policy)
    torch.testing.assert_close(policy.value(batch), policy.evaluate(batch).value)
    gradient = policy.gradient(policy.value(batch).square().sum(), policy.critic_parameters())
    assert gradient.any()
    assert policy.flat.grad is not None
    assert not policy.flat.grad[: policy.actor_size].any()
    assert torch.equal(policy.flat.grad[policy.actor_size :], gradient)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_gradients_add_up_in_the_buffer_over_backward_passes(kind: str) -> None:
    policy = make(kind)
    batch = make_batch(policy)

    def loss() -> Tensor:
        evaluation = policy.evaluate(batch)
        return (evaluation.log_prob * evaluation.value + evaluation.entropy).sum()

    once = policy.gradient(loss(), policy.flat).clone()
    loss().backward()  # type: ignore[no-untyped-call]
    assert policy.flat.grad is not None
    torch.testing.assert_close(policy.flat.grad, 2 * once, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in sorted(KINDS) if "recurrence" not in KINDS[kind]])
def test_rows_and_the_same_steps_apart_are_evaluated_alike(kind: str) -> None:
    policy = make(kind)
    steps = make_batch(policy, 3, 5)
    apart, rows = policy.evaluate(steps), policy.evaluate(unflatten(steps, (3, 5)))
    for name in ("log_prob", "entropy", "value", "parameters"):
        whole = getattr(rows, name)
        assert whole.shape[:2] == (3, 5)
        torch.testing.assert_close(whole.flatten(0, 1), getattr(apart, name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "masked"), with_and_without_masks(KINDS))
def test_acting_has_the_log_probabilities_that_evaluation_gives(kind: str, masked: bool) -> None:
    policy = make(kind)
    batch = make_batch(policy, 4, 1, masked=masked)
    noise = policy.family.draw_noise(np.random.default_rng(0), (4,))
    flat = batch if not policy.rows else batch.flatten()
    hidden = batch.hidden
    if policy.rows:
        assert batch.starts is not None
        assert hidden is not None
        hidden = torch.where(batch.starts, torch.zeros_like(hidden), hidden)
    mask = None if flat.action_mask is None else flat.action_mask.numpy()
    actions, _ = policy.act(_as_numpy(flat.observations), noise, hidden=hidden, action_mask=mask)
    shape = batch.valid.shape
    acted = replace(batch, actions=torch.from_numpy(actions).view(*shape, *policy.family.shape))
    with torch.no_grad():
        evaluation = policy.evaluate(acted)
    distribution = policy.distribution(evaluation.parameters, acted.action_mask)
    expected = distribution.sample(torch.from_numpy(noise).view(*shape, -1))
    torch.testing.assert_close(acted.actions, expected.to(acted.actions.dtype), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(evaluation.log_prob, distribution.log_prob(expected), rtol=1e-4, atol=1e-4)

    best, _ = policy.act(_as_numpy(flat.observations), None, hidden=hidden, action_mask=mask)
    expected = distribution.mode().view(best.shape)
    torch.testing.assert_close(torch.from_numpy(best), expected.to(torch.from_numpy(best).dtype), rtol=1e-5, atol=1e-5)


def _as_numpy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _as_numpy(value) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_as_numpy(value) for value in tree)
    return tree.numpy()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_state_dict_brings_everything_back(kind: str) -> None:
    saved, other = make(kind, seed=1), make(kind, seed=2)
    batch = make_batch(saved)
    other.load_state_dict(saved.state_dict())
    assert torch.equal(saved.flat, other.flat)
    with torch.no_grad():
        one, two = saved.evaluate(batch), other.evaluate(batch)
    assert torch.equal(one.log_prob, two.log_prob)
    assert torch.equal(one.value, two.value)
    # What was loaded is a copy, and still lies in the other's own buffer.
    with torch.no_grad():
        saved.flat.zero_()
    assert other.flat.any()
    assert next(other.module.parameters()).data_ptr() == other.flat.data_ptr()


def test_the_same_seed_gives_the_same_weights_and_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(5)
    one = ActorCritic(VECTOR, DISCRETE, seed=3)
    after_one = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after_one, torch.rand(3))
    assert torch.equal(one.flat, ActorCritic(VECTOR, DISCRETE, seed=3).flat)
    assert not torch.equal(one.flat, ActorCritic(VECTOR, DISCRETE, seed=4).flat)


def test_default_networks_are_the_papers() -> None:
    vector = ActorCritic(VECTOR, BOX)
    assert [tuple(p.shape) for p in vector.module.actor.parameters()] == [
        (64, 5),
        (64,),
        (64, 64),
        (64,),
        (3, 64),
        (3,),
    ]
    assert all(isinstance(layer, nn.Linear | nn.Tanh) for layer in vector.module.actor)
    assert vector.module.log_std is not None
    assert torch.equal(vector.module.log_std, torch.zeros(3))
    frames = ActorCritic(spaces.Box(0, 255, (4, 84, 84), np.uint8), spaces.Discrete(6))
    # Mnih et al.'s network with a policy head and a value head, as in the 37 details for Atari.
    assert len(frames.flat) == 1_684_128 + 512 * 6 + 6 + 512 + 1


def test_statistics_of_observations_move_only_when_told_and_only_by_steps_that_exist() -> None:
    policy = make_policy(normalise_observations=True)
    rollout = make_rollout(policy, 6, 10)
    assert policy.module.normaliser is not None
    moments = policy.module.normaliser.moments
    before = moments.state_dict()
    policy.evaluate(make_batch(policy))
    assert all(np.array_equal(before[name], moments.state_dict()[name]) for name in before)
    policy.adapt(rollout)
    added = rollout.observations[rollout.valid].double().numpy()
    assert moments.count == before["count"] + len(added)
    expected = (before["mean"] * before["count"] + added.sum(0)) / moments.count
    np.testing.assert_allclose(moments.mean, expected)
    fast, slow = policy.evaluate(make_batch(policy)), slow_copy(policy).evaluate(make_batch(policy))
    torch.testing.assert_close(fast.value, slow.value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [(), (0,), (64, -1)])
def test_layers_without_units_are_refused(sizes: tuple[int, ...]) -> None:
    if not sizes:
        assert PolicyConfig(hidden_sizes=sizes).hidden_sizes == ()
        return
    with pytest.raises(RllabError, match="hidden_sizes"):
        PolicyConfig(hidden_sizes=sizes)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (2, 3)), spaces.Box(-1, 1, ()), spaces.MultiBinary((2, 2)), spaces.Discrete(3),
        spaces.Box(0, 255, (5, 5, 3), np.uint8), spaces.Box(-1, 1, (4,), np.float64), NESTED,
    ],
    ids=lambda space: type(space).__name__ + str(space.shape),
)  # fmt: skip
@pytest.mark.parametrize("normalise", [False, True])
def test_observations_of_every_shape_pass_through_a_whole_policy(space: gymnasium.Space[Any], normalise: bool) -> None:
    policy = make_policy(space, normalise_observations=normalise)
    batch = make_batch(policy, 2, 3)
    evaluation = policy.evaluate(batch)
    assert evaluation.log_prob.shape == evaluation.value.shape == (6,)
    other = slow_copy(policy).evaluate(batch)
    torch.testing.assert_close(evaluation.log_prob, other.log_prob, rtol=1e-4, atol=1e-5)
    noise = policy.family.draw_noise(np.random.default_rng(0), (6,))
    assert policy.act(_as_numpy(batch.observations), noise)[0].shape == (6,)


def test_a_dict_with_a_vector_and_a_mask_is_evaluated_under_the_mask() -> None:
    space = spaces.Dict({"observation": VECTOR, "action_mask": spaces.MultiBinary(4)})
    policy = make_policy(space)
    mask = random_mask(DISCRETE, (50,), np.random.default_rng(0))
    generator = np.random.default_rng(0)
    observations = {
        "observation": generator.standard_normal((50, 5)).astype(np.float32),
        "action_mask": mask.numpy().astype(np.int8),
    }
    noise = policy.family.draw_noise(generator, (50,))
    actions, _ = policy.act(observations, noise, action_mask=mask.numpy())
    assert mask[torch.arange(50), torch.from_numpy(actions)].all()
