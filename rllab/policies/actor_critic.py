"""ActorCritic: the policy for Gymnasium spaces. Networks, optional recurrence and masks, normalisation, acting."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.errors import RllabError
from rllab import distributed
from rllab.nested import Nested, leaves_of, map_nested
from rllab.policies.distributions import Distribution, action_family
from rllab.policies.fast import FastActorCritic, FastEvaluation, FastMLP, FastValue
from rllab.policies.modules import ActorCriticModule, PolicyConfig
from rllab.policies.networks import ObservationLayout
from rllab.policies.policy import Evaluation, Policy
from rllab.rollout import Batch, Rollout


class ActorCritic(Policy):
    """An actor and a critic for a Gymnasium observation space and action space."""

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        config: PolicyConfig | None = None,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        """Build and initialise the networks; the same seed gives the same weights.

        Raises:
            RllabError: a space that the agents cannot handle.
        """
        self.config = config or PolicyConfig()
        self.observation_space, self.action_space = observation_space, action_space
        self.family = action_family(action_space)
        self.layout = ObservationLayout(observation_space)
        if not self.layout.images and (self.config.image_network != "nature" or self.config.precision != "float32"):
            raise RllabError("image_network and precision are for observations that are images: leave them out here")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = ActorCriticModule(self.layout, self.family.size, self.family.is_gaussian, self.config)
        super().__init__(module, module.critic_only(), device)
        self.module: ActorCriticModule
        self.rows = self.config.recurrence != "none"
        self.single_threaded = self.device.type == "cpu" and not self.layout.images
        if self.layout.images:
            self.evaluation_chunk = 256  # activations of a convolution are hundreds of kilobytes a step
        self.fast = self._fast_path()

    def _fast_path(self) -> FastActorCritic | None:
        """The hand-written path over the same weights, where it applies."""
        module = self.module
        if (
            not self.config.fast_path or self.device.type != "cpu" or self.rows or not self.layout.is_vector
            or self.family.noise == "uniform" or self.family.shape not in ((), (self.family.size,))
            or (not self.family.is_gaussian and self.family.shape != ())
            or not (FastMLP.supports(module.actor) and FastMLP.supports(module.critic))
        ):  # fmt: skip
            return None
        return FastActorCritic(module.actor, module.critic, module.log_std, module.normaliser)

    def distribution(self, parameters: Tensor, action_mask: Tensor | None = None) -> Distribution:
        return self.family.build(parameters, action_mask)

    def evaluate(self, batch: Batch, *, parameters: bool = True) -> Evaluation:
        if self.fast is None:
            return super().evaluate(batch)
        shape = batch.valid.shape
        log_prob, entropy, value, found = FastEvaluation.apply(self.flat, self.fast, batch)  # type: ignore[no-untyped-call]
        if len(shape) > 1:
            log_prob, entropy, value = log_prob.view(shape), entropy.view(shape), value.view(shape)
            found = found.view(*shape, -1)
        return Evaluation(log_prob, entropy, value, found)

    def value(self, batch: Batch) -> Tensor:
        if self.fast is None:
            return super().value(batch)
        value: Tensor = FastValue.apply(self.flat, self.fast, batch.observations)  # type: ignore[no-untyped-call]
        return value.view(batch.valid.shape)

    def map_values(self, slope: float, shift: float) -> None:
        """Make every value V become slope·V + shift, as PopArt does (van Hasselt et al. 2016), by the last layer."""
        last = self.module.critic[-1]
        assert isinstance(last, torch.nn.Linear)
        with torch.no_grad():
            last.weight.mul_(slope)
            last.bias.mul_(slope).add_(shift)

    def fisher(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        if self.fast is None:
            return super().fisher(batch)
        fast = self.fast
        layers = fast.actor.forward(fast.inputs(batch.observations.numpy()))
        state = torch.from_numpy(layers[-1])
        if self.module.log_std is not None:
            state = torch.cat([state, self.module.log_std.detach().expand_as(state)], dim=-1)
        mask = None if batch.action_mask is None else batch.action_mask.view(len(state), -1)
        distribution = self.distribution(state, mask)
        weights = batch.weights.unsqueeze(-1)

        def product(vector: Tensor) -> Tensor:
            direction = vector.numpy()
            # `log_std`, the module's own parameter, comes before those of its networks.
            width = 0 if fast.log_std is None else len(fast.log_std)
            pushed = torch.from_numpy(fast.actor.push_forward(layers, direction[width:]))
            if fast.log_std is not None:
                pushed = torch.cat([pushed, vector[:width].expand_as(pushed)], dim=-1)
            scaled = (distribution.fisher_product(pushed) * weights).numpy()
            outputs = layers[-1].shape[1]
            # The gradient buffer serves as scratch.
            fast.actor.backward(layers, np.ascontiguousarray(scaled[:, :outputs]))
            if fast.log_std_gradient is not None:
                scaled[:, outputs:].sum(0, out=fast.log_std_gradient)
            assert self.flat.grad is not None
            return self.flat.grad[: self.actor_size].clone()

        return product

    def initial_hidden(self, rows: int) -> Tensor | None:
        """The recurrent state before an episode, zeros `[rows, S]`; None without recurrence."""
        return torch.zeros(rows, self.module.state_size) if self.rows else None

    def act(
        self,
        observations: Nested,
        noise: NDArray[np.float32] | None,
        *,
        hidden: Tensor | None = None,
        action_mask: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[Any], Tensor | None]:
        """One action for each row of observations `[N, *obs]` (nested NumPy arrays).

        Args:
            noise: `[N, size]` from `family.draw_noise`; None acts deterministically, by the mode.
            hidden: `[N, S]`, recurrent state, already zeroed where an episode begins.
            action_mask: bool `[N, A]`, legal actions.

        Returns:
            Actions `[N, *act]` as sampled (before clipping), and the recurrent state after the step.
        """
        if self.fast is not None:
            return self.fast.act(observations, noise, action_mask), None
        with torch.no_grad():
            return self._act(observations, noise, hidden, action_mask)

    def _act(
        self,
        observations: Nested,
        noise: NDArray[np.float32] | None,
        hidden: Tensor | None,
        action_mask: NDArray[np.bool_] | None,
    ) -> tuple[NDArray[Any], Tensor | None]:
        """`act` through the module."""
        batch = Batch(
            observations=map_nested(lambda leaf: torch.as_tensor(leaf, device=self.device), observations),
            actions=torch.empty(0),
            valid=torch.empty(0),
            hidden=None if hidden is None else hidden.to(self.device),
        )
        parameters, hidden = self.module.act(batch)
        mask = None if action_mask is None else torch.as_tensor(action_mask, device=self.device)
        distribution = self.distribution(parameters, mask)
        chosen = distribution.mode() if noise is None else distribution.sample(torch.from_numpy(noise).to(self.device))
        return chosen.cpu().numpy(), None if hidden is None else hidden.cpu()

    def predict(
        self,
        observation: Nested,
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...] | None]:
        """Actions in the environment's own form, by Stable-Baselines3's contract for `predict`.

        Args:
            observation: one observation, or a batch `[N, *obs]` of them.
            state: the recurrent state that the last call returned; None before the first.
            episode_start: bool `[N]`, which observations begin an episode.
            deterministic: act by the mode. Else the noise comes from torch's global generator.
            action_masks: bool `[N, A]`, as sb3-contrib's MaskablePPO takes them.

        Returns:
            The action, or actions `[N, *act]`; and the recurrent state, None without recurrence.
        """
        single = _matches(observation, self.observation_space)
        observations = map_nested(lambda leaf: np.asarray(leaf)[None] if single else np.asarray(leaf), observation)
        count = len(leaves_of(observations)[0])
        hidden = self.initial_hidden(count)
        if hidden is not None and state is not None:
            hidden = torch.from_numpy(state[0])
            if episode_start is not None:
                hidden = torch.where(torch.as_tensor(episode_start).unsqueeze(1), 0.0, hidden)
        if action_masks is None and self.layout.mask_key is not None:
            action_masks = observations[self.layout.mask_key]
        mask = None if action_masks is None else np.asarray(action_masks, bool).reshape(count, -1)
        noise = None
        if not deterministic:
            generator = np.random.default_rng(int(torch.randint(2**63 - 1, ())))
            noise = self.family.draw_noise(generator, (count,))
        actions, hidden = self.act(observations, noise, hidden=hidden, action_mask=mask)
        chosen = self.family.to_environment(actions)
        return (chosen[0] if single else chosen), None if hidden is None else (hidden.numpy(),)

    def adapt(self, rollout: Rollout) -> None:
        """Update the observation moments with the rollout's steps that exist."""
        if self.module.normaliser is not None:
            numbers = self.layout.flat_numbers(rollout.observations, 2)
            assert numbers is not None
            for of_process, valid in distributed.gathered((numbers.cpu(), rollout.valid.cpu())):
                self.module.normaliser.adapt(of_process, valid)

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if self.module.normaliser is not None:
            state["observation_moments"] = self.module.normaliser.moments.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.module.normaliser is not None:
            self.module.normaliser.moments.load_state_dict(state["observation_moments"])
            self.module.normaliser.refresh()


def _matches(observation: Nested, space: gymnasium.Space[Any]) -> bool:
    """Whether `observation` is a single one of the space, not a batch."""
    if isinstance(space, gymnasium.spaces.Dict):
        key = next(iter(space.spaces))
        return _matches(observation[key], space.spaces[key])
    if isinstance(space, gymnasium.spaces.Tuple):
        return _matches(observation[0], space.spaces[0])
    return np.shape(observation) == (space.shape or ())
