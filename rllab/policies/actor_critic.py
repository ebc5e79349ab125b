"""ActorCritic: the policy for Gymnasium spaces. Networks, optional recurrence and masks, normalisation, acting."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.errors import RllabError
from rllab.nested import Nested, leaves_of, map_nested
from rllab.policies.distributions import Distribution, action_family
from rllab.policies.fast import FastActorCritic, FastEvaluation, FastMLP, FastValue
from rllab.policies.networks import Encoder, Normaliser, ObservationLayout, RecurrentCore, mlp
from rllab.policies.policy import Evaluation, Policy
from rllab.rollout import Batch, Rollout


@dataclass(frozen=True)
class PolicyConfig:
    """The networks of an actor-critic policy."""

    hidden_sizes: tuple[int, ...] | None = None
    """Hidden layers of the actor's and of the critic's MLP; by default 64 64 for vectors (Schulman et al. 2017,
    section 6.1) and none after NatureCNN's 512 features."""
    activation: Literal["tanh", "relu", "silu"] = "tanh"
    """Between the layers."""
    recurrence: Literal["none", "lstm", "gru"] = "none"
    """A recurrent core before the MLPs."""
    recurrent_size: int = 128
    """Units of the recurrent core (128 as in the 37 details, LSTM detail 1)."""
    share_torso: bool = True
    """Whether actor and critic share what comes before their MLPs (convolutions, recurrent core)."""
    normalise_observations: bool = False
    """Standardise vector observations by running moments, clipped to ±10 (the 37 details)."""
    log_std_init: float = 0.0
    """Initial log standard deviation of Gaussian actions (the 37 details: 0)."""
    fast_path: bool = True
    """Compute small MLP policies by NumPy where that gives the same numbers faster (on the CPU)."""

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.hidden_sizes or ()) or self.recurrent_size < 1:
            raise RllabError("hidden_sizes and recurrent_size must be at least 1")


class Torso(nn.Module):
    """From observations to the features that an MLP reads: the encoder and, if any, the recurrent core."""

    def __init__(self, layout: ObservationLayout, config: PolicyConfig) -> None:
        super().__init__()
        self.encoder = Encoder(layout)
        self.core = (
            None
            if config.recurrence == "none"
            else RecurrentCore(config.recurrence, self.encoder.size, config.recurrent_size)
        )
        self.size = self.encoder.size if self.core is None else self.core.size
        self.state_size = 0 if self.core is None else self.core.state_size

    def forward(self, batch: Batch, normaliser: Normaliser | None, hidden: Tensor | None) -> Tensor:
        """Features `[..., size]` of a batch of steps, or of rows if there is a core."""
        features: Tensor = self.encoder(batch.observations, batch.valid.dim(), normaliser)
        if self.core is None:
            return features
        assert batch.starts is not None, "a recurrent policy evaluates rows"
        assert hidden is not None, "a recurrent policy evaluates rows with their first state"
        recurrent: Tensor = self.core(features, batch.starts, hidden)
        return recurrent


class ActorCriticModule(nn.Module):
    """The networks: a torso each or one for both, and an MLP each."""

    def __init__(self, layout: ObservationLayout, outputs: int, gaussian: bool, config: PolicyConfig) -> None:
        super().__init__()
        sizes = config.hidden_sizes
        if sizes is None:
            sizes = () if layout.images else (64, 64)
        numbers = sum(size for _, size in layout.numbers)
        self.normaliser = Normaliser(numbers) if config.normalise_observations and numbers else None
        self.torso = Torso(layout, config)
        self.actor = mlp([self.torso.size, *sizes, outputs], config.activation, 0.01)
        self.log_std = nn.Parameter(torch.full((outputs,), config.log_std_init)) if gaussian else None
        self.critic_torso = None if config.share_torso else Torso(layout, config)
        self.critic = mlp([self.torso.size, *sizes, 1], config.activation, 1.0)

    @property
    def state_size(self) -> int:
        """S, the width of the recurrent state; 0 without recurrence."""
        return self.torso.state_size * (1 if self.critic_torso is None else 2)

    def critic_only(self) -> list[nn.Parameter]:
        """The parameters on which no action depends."""
        torso = [] if self.critic_torso is None else list(self.critic_torso.parameters())
        return [*torso, *self.critic.parameters()]

    def forward(self, batch: Batch, actor: bool = True, critic: bool = True) -> tuple[Tensor | None, Tensor | None]:
        hidden = (None, None) if batch.hidden is None else self._split(batch.hidden)
        features = None
        if actor or self.critic_torso is None:
            # A critic fitted alone must not move the features that the actor stands on.
            with torch.set_grad_enabled(actor and torch.is_grad_enabled()):
                features = self.torso(batch, self.normaliser, hidden[0])
        parameters = None if not actor else self.head(features)
        value = None
        if critic:
            if self.critic_torso is not None:
                features = self.critic_torso(batch, self.normaliser, hidden[1])
            value = self.critic(features).squeeze(-1)
        return parameters, value

    def head(self, features: Tensor | None) -> Tensor:
        """Distribution parameters `[..., D]` from the torso's features."""
        outputs: Tensor = self.actor(features)
        if self.log_std is None:
            return outputs
        return torch.cat([outputs, self.log_std.expand_as(outputs)], dim=-1)

    def act(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Distribution parameters for one step of each row, and the recurrent state after it."""
        features = self.torso.encoder(batch.observations, 1, self.normaliser)
        if self.torso.core is None:
            return self.head(features), None
        assert batch.hidden is not None
        states = list(self._split(batch.hidden))
        if self.critic_torso is not None:
            assert self.critic_torso.core is not None
            encoded = self.critic_torso.encoder(batch.observations, 1, self.normaliser)
            states[1] = self.critic_torso.core.step(encoded, states[1])[1]
        features, states[0] = self.torso.core.step(features, states[0])
        return self.head(features), torch.cat([state for state in states if state is not None], dim=-1)

    def _split(self, hidden: Tensor) -> tuple[Tensor, Any]:
        return (hidden, None) if self.critic_torso is None else tuple(hidden.chunk(2, dim=-1))  # type: ignore[return-value]


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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = ActorCriticModule(self.layout, self.family.size, self.family.is_gaussian, self.config)
        super().__init__(module, module.critic_only(), device)
        self.module: ActorCriticModule
        self.rows = self.config.recurrence != "none"
        self._fast = self._fast_path()

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

    def evaluate(self, batch: Batch) -> Evaluation:
        if self._fast is None:
            return super().evaluate(batch)
        shape = batch.valid.shape
        log_prob, entropy, value, parameters = FastEvaluation.apply(
            self.flat, self._fast, batch.observations, batch.actions, batch.action_mask
        )  # type: ignore[no-untyped-call]
        if len(shape) > 1:
            log_prob, entropy, value = log_prob.view(shape), entropy.view(shape), value.view(shape)
            parameters = parameters.view(*shape, -1)
        return Evaluation(log_prob, entropy, value, parameters)

    def value(self, batch: Batch) -> Tensor:
        if self._fast is None:
            return super().value(batch)
        value: Tensor = FastValue.apply(self.flat, self._fast, batch.observations)  # type: ignore[no-untyped-call]
        return value.view(batch.valid.shape)

    def fisher(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        if self._fast is None:
            return super().fisher(batch)
        fast = self._fast
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
            pulled = fast.actor.pull_back(layers, np.ascontiguousarray(scaled[:, :outputs]))
            flat = [scaled[:, outputs:].sum(0), *(piece.ravel() for piece in pulled)]
            return torch.from_numpy(np.concatenate(flat))

        return product

    def initial_hidden(self, rows: int) -> Tensor | None:
        """The recurrent state before an episode, zeros `[rows, S]`; None without recurrence."""
        return torch.zeros(rows, self.module.state_size) if self.rows else None

    @torch.no_grad()
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
        if self._fast is not None:
            return self._fast.act(observations, noise, action_mask), None
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
            self.module.normaliser.adapt(numbers, rollout.valid)

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
