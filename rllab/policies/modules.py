"""The networks of an actor-critic policy, put together from `networks.py` as a configuration says."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from envs.errors import RllabError
from rllab.policies.images import ImageNetwork, Precision
from rllab.policies.networks import Encoder, Normaliser, ObservationLayout, RecurrentCore, mlp
from rllab.rollout import Batch


@dataclass(frozen=True)
class PolicyConfig:
    """The networks of an actor-critic policy."""

    hidden_sizes: tuple[int, ...] | None = None
    """Hidden layers of the actor's and of the critic's MLP; by default 64 64 for vectors (Schulman et al. 2017,
    section 6.1) and none after an image network's features."""
    activation: Literal["tanh", "relu", "silu"] = "tanh"
    """Between the layers."""
    image_network: ImageNetwork = "nature"
    """What reads images: NatureCNN (Mnih et al. 2015) or IMPALA's residual network (Espeholt et al. 2018)."""
    precision: Precision = "float32"
    """Of the image network's arithmetic: bfloat16 is faster where the processor has it; weights, heads and losses
    stay in float32."""
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
        self.encoder = Encoder(layout, config.image_network, config.precision)
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
