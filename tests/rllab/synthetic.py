"""Policies, batches and rollouts made up from a seed: what the tests of policies and agents stand on."""

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rllab.nested import map_nested
from rllab.policies import ActorCritic, PolicyConfig
from rllab.rollout import Batch, Experience, Rollout

VECTOR = spaces.Box(-np.inf, np.inf, (5,), np.float32)
DISCRETE = spaces.Discrete(4)
BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
MULTI_DISCRETE = spaces.MultiDiscrete([3, 2, 4])
MULTI_BINARY = spaces.MultiBinary(3)
IMAGE = spaces.Box(0, 255, (36, 36, 1), np.uint8)

NESTED = spaces.Dict(
    {"place": spaces.Box(-1, 1, (2, 2)), "kind": spaces.Tuple((spaces.Discrete(3, start=1), spaces.MultiBinary(2)))}
)

ACTION_SPACES: dict[str, gymnasium.Space[Any]] = {
    "discrete": DISCRETE,
    "box": BOX,
    "multi_discrete": MULTI_DISCRETE,
    "multi_binary": MULTI_BINARY,
}


def with_and_without_masks(kinds: dict[str, dict[str, Any]]) -> list[tuple[str, bool]]:
    """Every kind without masks, and with them unless its actions are Gaussian, which have none."""
    return [(kind, masked) for kind in sorted(kinds) for masked in (False, True)
            if not (masked and kinds[kind].get("action_space") is BOX)]  # fmt: skip


def make_policy(
    observation_space: gymnasium.Space[Any] = VECTOR,
    action_space: gymnasium.Space[Any] = DISCRETE,
    *,
    seed: int = 0,
    spread: float = 0.3,
    **config: Any,
) -> ActorCritic:
    """A policy with small hidden layers, its weights moved from the initial ones so that nothing is uniform or zero."""
    config.setdefault("hidden_sizes", (8, 7))
    config.setdefault("recurrent_size", 6)
    policy = ActorCritic(observation_space, action_space, PolicyConfig(**config), seed=seed)
    noise = torch.randn(policy.flat.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        policy.flat.add_(spread * noise)
    if policy.module.normaliser is not None:
        generator = np.random.default_rng(seed)
        numbers = 3 + 2 * torch.from_numpy(generator.standard_normal((50, len(policy.module.normaliser.shift))))
        policy.module.normaliser.adapt(numbers, torch.ones(50, dtype=torch.bool))
    return policy


def random_observations(space: gymnasium.Space[Any], shape: tuple[int, ...], generator: np.random.Generator) -> Any:
    """Observations `[*shape, *obs]` as nested tensors."""
    if isinstance(space, spaces.Dict):
        return {key: random_observations(child, shape, generator) for key, child in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(random_observations(child, shape, generator) for child in space.spaces)
    if isinstance(space, spaces.Discrete):
        return torch.from_numpy(generator.integers(space.n, size=shape) + space.start)
    if isinstance(space, spaces.MultiDiscrete):
        return torch.from_numpy(generator.integers(space.nvec, size=(*shape, *space.shape)) + space.start)
    full = (*shape, *space.shape)
    if isinstance(space, spaces.MultiBinary):
        return torch.from_numpy(generator.integers(2, size=full, dtype=np.int8))
    if np.issubdtype(space.dtype, np.integer):
        return torch.from_numpy(generator.integers(256, size=full).astype(space.dtype))
    return torch.from_numpy(generator.standard_normal(full).astype(np.float32))


def random_mask(space: gymnasium.Space[Any], shape: tuple[int, ...], generator: np.random.Generator) -> Tensor:
    """Legal actions, bool `[*shape, A]`, at least one of every choice."""
    if isinstance(space, spaces.MultiBinary):
        return torch.from_numpy(generator.random((*shape, int(np.prod(space.shape)))) < 0.6)
    sizes = [space.n] if isinstance(space, spaces.Discrete) else list(space.nvec.flatten())
    parts = []
    for size in sizes:
        part = generator.random((*shape, size)) < 0.5
        np.put_along_axis(part, generator.integers(size, size=(*shape, 1)), True, axis=-1)
        parts.append(part)
    return torch.from_numpy(np.concatenate(parts, axis=-1))


def make_batch(policy: ActorCritic, rows: int = 3, columns: int = 5, *, masked: bool = False, seed: int = 0) -> Batch:
    """Random rows `[rows, columns]` with actions that the policy sampled; flat steps unless it is recurrent."""
    generator = np.random.default_rng(seed)
    shape = (rows, columns)
    starts = generator.random(shape) < 0.25
    starts[0, 0], starts[-1, 0] = True, False
    batch = Batch(
        observations=random_observations(policy.observation_space, shape, generator),
        actions=torch.zeros(*shape, *policy.family.shape, dtype=policy.family.dtype),
        valid=torch.from_numpy(generator.random(shape) < 0.8),
        action_mask=random_mask(policy.action_space, shape, generator) if masked else None,
        starts=torch.from_numpy(starts) if policy.rows else None,
        hidden=torch.from_numpy(generator.standard_normal((rows, policy.module.state_size)).astype(np.float32))
        if policy.rows
        else None,
    )
    noise = torch.from_numpy(policy.family.draw_noise(generator, shape))
    if not policy.rows:
        batch, noise = batch.flatten(), noise.flatten(0, 1)
    with torch.no_grad():
        parameters, _ = policy.module(batch)
    return replace(batch, actions=policy.distribution(parameters, batch.action_mask).sample(noise))


def make_rollout(
    policy: ActorCritic, rows: int = 4, columns: int = 8, *, masked: bool = False, gaps: bool = True, seed: int = 0
) -> Rollout:
    """A random rollout in the form the next-step autoreset gives: a column that does not exist after each end.

    Log-probabilities and values are the policy's own; without `gaps` no episode ends but by truncation in the
    last column.
    """
    generator = np.random.default_rng(seed)
    shape = (rows, columns)
    ends = np.zeros(shape, bool)
    if gaps:
        ends = generator.random(shape) < 0.2
        for column in range(1, columns):
            ends[:, column] &= ~ends[:, column - 1]
    ends[:, -1] |= not gaps
    terminated = ends & (generator.random(shape) < 0.5) & gaps
    after_end = np.concatenate([np.zeros((rows, 1), bool), ends[:, :-1]], axis=1)
    # Rows in one piece, whatever the policy takes: `make_batch` flattens for feed-forward policies.
    steps = make_batch(policy, rows, columns, masked=masked, seed=seed)
    batch = steps if policy.rows else unflatten(steps, shape)
    starts = np.concatenate([np.ones((rows, 1), bool), after_end[:, :-1]], axis=1)
    batch = replace(batch, starts=torch.from_numpy(starts) if policy.rows else None)
    if policy.rows:
        generator_noise = torch.from_numpy(policy.family.draw_noise(generator, shape))
        with torch.no_grad():
            parameters, _ = policy.module(batch)
        batch = replace(batch, actions=policy.distribution(parameters, batch.action_mask).sample(generator_noise))
    with torch.no_grad():
        evaluation = policy.evaluate(batch)
    rewards = torch.from_numpy(generator.standard_normal(shape).astype(np.float32))
    return Rollout(
        observations=batch.observations,
        actions=batch.actions,
        rewards=rewards,
        terminated=torch.from_numpy(terminated),
        truncated=torch.from_numpy(ends & ~terminated),
        valid=torch.from_numpy(~after_end),
        log_probs=evaluation.log_prob,
        values=evaluation.value,
        next_values=torch.from_numpy(generator.standard_normal(shape).astype(np.float32)),
        environment_rewards=rewards,
        action_mask=batch.action_mask,
        starts=batch.starts,
        hidden=batch.hidden,
    )


def unflatten(batch: Batch, shape: tuple[int, int]) -> Batch:
    """Flat steps `[N·T, ...]` as rows `[N, T, ...]`."""
    return Batch(
        observations=map_nested(lambda leaf: leaf.unflatten(0, shape), batch.observations),
        actions=batch.actions.unflatten(0, shape),
        valid=batch.valid.unflatten(0, shape),
        action_mask=None if batch.action_mask is None else batch.action_mask.unflatten(0, shape),
    )


def as_experience(policy: ActorCritic, batch: Batch, seed: int = 0, **changes: Any) -> Experience:
    """The batch with the policy's own log-probabilities and values and random advantages and returns."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        evaluation = policy.evaluate(batch)
    fields: dict[str, Any] = {
        "log_probs": evaluation.log_prob,
        "values": evaluation.value,
        "advantages": torch.randn(batch.valid.shape, generator=generator),
        "returns": torch.randn(batch.valid.shape, generator=generator),
    }
    return Experience(**(vars_of(batch) | fields | changes))


def vars_of(batch: Batch) -> dict[str, Any]:
    """The fields of a plain batch by name."""
    names = ("observations", "actions", "valid", "action_mask", "starts", "hidden")
    return {name: getattr(batch, name) for name in names}


def slow_copy(policy: ActorCritic) -> ActorCritic:
    """The same policy, computed by its torch modules."""
    copy = ActorCritic(policy.observation_space, policy.action_space, replace(policy.config, fast_path=False))
    copy.load_state_dict(policy.state_dict())
    return copy
