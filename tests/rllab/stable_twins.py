"""Stable-Baselines3's agents with this project's weights and data in them, as oracles for one update."""

from typing import Any

import gymnasium
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.logger import Logger
from torch import Tensor, nn

from rllab.policies import ActorCritic
from rllab.rollout import Rollout


class Spaces(gymnasium.Env[Any, Any]):
    """An environment that only says its spaces; nobody steps it."""

    def __init__(self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, **_: Any) -> Any:
        return self.observation_space.sample(), {}

    def action_masks(self) -> Any:
        raise NotImplementedError


def twin(algorithm: Any, policy_class: str, policy: ActorCritic, rollout: Rollout, **settings: Any) -> Any:
    """`algorithm` on as many environments as the rollout has rows, with the policy's own weights."""
    rows, columns = rollout.rewards.shape
    sizes = list(policy.config.hidden_sizes or ())
    architecture = {"net_arch": {"pi": sizes, "vf": sizes}} | settings.pop("policy_kwargs", {})
    environments = [lambda: Spaces(policy.observation_space, policy.action_space)] * rows
    from stable_baselines3.common.vec_env import DummyVecEnv

    model = algorithm(
        policy_class, DummyVecEnv(environments), n_steps=columns, policy_kwargs=architecture, device="cpu", **settings
    )
    model.set_logger(Logger(None, []))
    for theirs, ours in corresponding(model.policy, policy):
        theirs.data.copy_(ours.data)
    return model


def corresponding(theirs: Any, policy: ActorCritic) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Their parameters beside ours."""
    module = policy.module
    pairs = []
    for network, head, ours in (
        (theirs.mlp_extractor.policy_net, theirs.action_net, module.actor),
        (theirs.mlp_extractor.value_net, theirs.value_net, module.critic),
    ):
        layers = [layer for layer in (*network, head) if isinstance(layer, nn.Linear)]
        own = [layer for layer in ours if isinstance(layer, nn.Linear)]
        pairs += [pair for a, b in zip(layers, own, strict=True) for pair in ((a.weight, b.weight), (a.bias, b.bias))]
    if module.log_std is not None:
        pairs.append((theirs.log_std, module.log_std))
    if module.torso.core is not None:
        assert module.critic_torso is not None
        assert module.critic_torso.core is not None
        cores = ((theirs.lstm_actor, module.torso.core), (theirs.lstm_critic, module.critic_torso.core))
        for core, ours_core in cores:
            pairs += list(zip(core.parameters(), ours_core.network.parameters(), strict=True))
    return pairs


def fill(model: Any, rollout: Rollout, advantages: Tensor, returns: Tensor) -> None:
    """Put the rollout into their buffer, `[T, N]` there."""
    buffer = model.rollout_buffer

    def columns_first(tensor: Tensor) -> NDArray[Any]:
        array: NDArray[Any] = tensor.transpose(0, 1).contiguous().numpy().copy()
        return array

    for name, tensor in {
        "observations": rollout.observations, "actions": rollout.actions, "log_probs": rollout.log_probs,
        "values": rollout.values, "advantages": advantages, "returns": returns,
    }.items():  # fmt: skip
        array = columns_first(tensor)
        setattr(buffer, name, array.reshape(getattr(buffer, name).shape).astype("float32"))
    if rollout.action_mask is not None:
        buffer.action_masks = columns_first(rollout.action_mask).reshape(buffer.action_masks.shape)
    buffer.full, buffer.pos, buffer.generator_ready = True, buffer.buffer_size, False


def largest_difference(model: Any, policy: ActorCritic) -> float:
    """Between their parameters and ours."""
    with torch.no_grad():
        return max(float((a - b).abs().max()) for a, b in corresponding(model.policy, policy))


def is_box(policy: ActorCritic) -> bool:
    """Whether its actions are Gaussian."""
    return isinstance(policy.action_space, spaces.Box)
