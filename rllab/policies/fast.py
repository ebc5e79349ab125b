"""The fast path of small MLP policies: the same numbers as the torch modules, computed by NumPy.

At the sizes of control (64-64, batches of 8 to 256) a forward pass is bound by the overhead of each call, and by
torch's tanh, which takes several times as long as NumPy's on one thread. Here the forward pass, the gradients
and the Jacobian products of a policy are written out by hand on views of its flat buffer. `evaluate` is one
autograd function: agents write their losses in torch and never know. Tests hold all of it equal to the modules.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rllab.policies.distributions import LOG_SQRT_TWO_PI, MASKED
from rllab.policies.networks import Normaliser
from rllab.rollout import Batch

Array = NDArray[np.float32]


def _numpy(tensor: Tensor | None) -> Array:
    assert tensor is not None
    array: Array = tensor.detach().numpy()
    return array


class FastMLP:
    """A `Sequential` of Linear layers and tanh or relu between them, on views of its weights and gradients."""

    def __init__(self, network: nn.Sequential) -> None:
        linear = [layer for layer in network if isinstance(layer, nn.Linear)]
        self.weights = [_numpy(layer.weight) for layer in linear]
        self.biases = [_numpy(layer.bias) for layer in linear]
        self.weight_gradients = [_numpy(layer.weight.grad) for layer in linear]
        self.bias_gradients = [_numpy(layer.bias.grad) for layer in linear]
        self.tanh = any(isinstance(layer, nn.Tanh) for layer in network)

    @staticmethod
    def supports(network: nn.Module) -> bool:
        """Whether `network` is of the kind that is written out here."""
        return isinstance(network, nn.Sequential) and all(
            type(layer) in (nn.Linear, nn.Tanh, nn.ReLU) for layer in network
        )

    def forward(self, inputs: Array) -> list[Array]:
        """Every layer's output for inputs `[B, F]`, the inputs first and the network's output `[B, D]` last."""
        layers = [inputs]
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            outputs = np.dot(layers[-1], weight.T)
            outputs += bias
            if i < last:
                np.tanh(outputs, out=outputs) if self.tanh else np.maximum(outputs, 0, out=outputs)
            layers.append(outputs)
        return layers

    def _through_activation(self, gradient: Array, activation: Array) -> Array:
        if self.tanh:
            slope = np.square(activation)
            np.subtract(1, slope, out=slope)
            slope *= gradient
            return slope
        return gradient * (activation > 0)

    def backward(self, layers: list[Array], gradient: Array, add: bool = False) -> None:
        """Put Jᵀ·gradient into the gradient buffer, or add it there; `gradient` `[B, D]` is the output's."""
        ones = np.ones(len(gradient), np.float32)
        for i in range(len(self.weights) - 1, -1, -1):
            if add:
                self.weight_gradients[i] += np.dot(gradient.T, layers[i])
                self.bias_gradients[i] += np.dot(ones, gradient)
            else:
                np.dot(gradient.T, layers[i], out=self.weight_gradients[i])
                np.dot(ones, gradient, out=self.bias_gradients[i])
            if i > 0:
                gradient = self._through_activation(np.dot(gradient, self.weights[i]), layers[i])

    def push_forward(self, layers: list[Array], tangent: Array) -> Array:
        """J·tangent `[B, D]` for a direction laid out as the weights and biases are, in order."""
        pushed: Array | None = None
        offset = 0
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            weight_tangent = tangent[offset : offset + weight.size].reshape(weight.shape)
            bias_tangent = tangent[offset + weight.size : offset + weight.size + bias.size]
            offset += weight.size + bias.size
            outputs = np.dot(layers[i], weight_tangent.T) + bias_tangent
            if pushed is not None:
                outputs += np.dot(pushed, weight.T)
            if i < len(self.weights) - 1:
                outputs = self._through_activation(outputs, layers[i + 1])
            pushed = outputs
        assert pushed is not None
        return pushed


@dataclass
class FastForward:
    """The result of a forward pass, and what its backward pass needs; every array is `[B, …]`."""

    actor: list[Array]
    critic: list[Array]
    log_prob: Array
    entropy: Array
    distribution_gradient: Callable[[Array | None, Array | None], tuple[Array, Array | None]]
    """From gradients of log-probability and entropy to those of the network's output and of log_std."""

    @property
    def value(self) -> Array:
        """The critic's values `[B]`."""
        return self.critic[-1].reshape(-1)


class FastActorCritic:
    """Actor and critic MLPs over one vector of numbers, with a categorical or Gaussian head."""

    def __init__(
        self, actor: nn.Sequential, critic: nn.Sequential, log_std: nn.Parameter | None, normaliser: Normaliser | None
    ) -> None:
        self.actor, self.critic = FastMLP(actor), FastMLP(critic)
        self.log_std = None if log_std is None else _numpy(log_std)
        self.log_std_gradient = None if log_std is None else _numpy(log_std.grad)
        self.shift = self.scale = None
        if normaliser is not None:
            self.shift, self.scale = _numpy(normaliser.shift), _numpy(normaliser.scale)
            self.clip = np.float32(normaliser.clip)

    def inputs(self, observations: NDArray[Any]) -> Array:
        """Observations `[..., *obs]` of F numbers each as float32 `[B, F]`, normalised."""
        features = self.actor.weights[0].shape[1]
        numbers: Array = observations.reshape(-1, features).astype(np.float32, copy=False)
        if self.shift is None or self.scale is None:
            return numbers
        numbers = numbers - self.shift
        numbers *= self.scale
        np.minimum(numbers, self.clip, out=numbers)
        return np.maximum(numbers, -self.clip, out=numbers)

    def act(self, observations: NDArray[Any], noise: Array | None, mask: NDArray[np.bool_] | None) -> NDArray[Any]:
        """Actions for observations `[N, F]`; without noise the most likely ones."""
        outputs = self.actor.forward(self.inputs(observations))[-1]
        if self.log_std is not None:
            return outputs if noise is None else outputs + np.exp(self.log_std) * noise
        if mask is not None:
            outputs = np.where(mask, outputs, np.float32(MASKED))
        if noise is not None:
            outputs += noise
        actions: NDArray[np.int64] = outputs.argmax(-1)
        return actions

    def forward(self, observations: NDArray[Any], actions: NDArray[Any], mask: NDArray[np.bool_] | None) -> FastForward:
        """Log-probabilities, entropies and values of steps, keeping what their gradients need."""
        inputs = self.inputs(observations)
        actor, critic = self.actor.forward(inputs), self.critic.forward(inputs)
        if self.log_std is None:
            legal = None if mask is None else mask.reshape(len(inputs), -1)
            head = _categorical(actor[-1], actions.reshape(-1), legal)
        else:
            head = _gaussian(actor[-1], self.log_std, actions.reshape(len(inputs), -1))
        return FastForward(actor, critic, *head)

    @np.errstate(over="ignore", invalid="ignore")  # what is not finite is refused in a sentence, by `require_finite`
    def backward(
        self, forward: FastForward, log_prob: Array | None, entropy: Array | None, value: Array | None,
        parameters: Array | None = None, *, add: bool = False,
    ) -> None:  # fmt: skip
        """Put the loss's gradient into the buffer (or add it), given that with respect to what `evaluate` returned."""
        if log_prob is not None or entropy is not None or parameters is not None:
            outputs, log_std = forward.distribution_gradient(log_prob, entropy)
            if parameters is not None:
                outputs += parameters[:, : outputs.shape[1]]
                if log_std is not None:
                    log_std += parameters[:, outputs.shape[1] :].sum(0)
            self.actor.backward(forward.actor, outputs, add)
            if self.log_std_gradient is not None and log_std is not None:
                self.log_std_gradient[:] = self.log_std_gradient + log_std if add else log_std
        if value is not None:
            self.critic.backward(forward.critic, value.reshape(-1, 1), add)

    def parameters(self, forward: FastForward) -> Array:
        """The distribution's parameters `[B, D]`."""
        if self.log_std is None:
            return forward.actor[-1]
        return np.concatenate([forward.actor[-1], np.broadcast_to(self.log_std, forward.actor[-1].shape)], axis=1)


def _categorical(logits: Array, actions: NDArray[np.int64], legal: NDArray[np.bool_] | None) -> tuple[Any, ...]:
    masked = logits if legal is None else np.where(legal, logits, np.float32(MASKED))
    log_probs = masked - masked.max(1, keepdims=True)
    probabilities = np.exp(log_probs)
    total = probabilities.sum(1, keepdims=True)
    log_probs -= np.log(total)
    probabilities /= total
    rows = np.arange(len(actions))
    entropy = -np.einsum("ba,ba->b", probabilities, log_probs)

    def gradient(log_prob: Array | None, entropy_gradient: Array | None) -> tuple[Array, None]:
        # d log p_a / d logits = onehot(a) − p;  d H / d logits = −p · (log p + H).
        outputs = np.zeros_like(probabilities)
        if entropy_gradient is not None:
            np.add(log_probs, entropy[:, None], out=outputs)
            outputs *= probabilities
            outputs *= np.negative(entropy_gradient)[:, None]
        if log_prob is not None:
            outputs -= probabilities * log_prob[:, None]
            outputs[rows, actions] += log_prob
        return outputs, None

    return log_probs[rows, actions], entropy, gradient


def _gaussian(means: Array, log_std: Array, actions: Array) -> tuple[Any, ...]:
    deviations = (actions - means) * np.exp(-log_std)
    constant = log_std.sum() + LOG_SQRT_TWO_PI * means.shape[1]
    log_probs = -0.5 * np.einsum("ba,ba->b", deviations, deviations) - np.float32(constant)
    entropy = np.full(len(means), constant + 0.5 * means.shape[1], np.float32)

    def gradient(log_prob: Array | None, entropy_gradient: Array | None) -> tuple[Array, Array]:
        # d log p / d mean = Σ⁻¹(a − μ);  d log p / d log σ = ((a − μ)/σ)² − 1;  d H / d log σ = 1.
        log_std_gradient = np.zeros_like(log_std)
        outputs = np.zeros_like(means)
        if log_prob is not None:
            outputs = deviations * np.exp(-log_std)
            outputs *= log_prob[:, None]
            log_std_gradient += np.dot(log_prob, np.square(deviations) - 1)
        if entropy_gradient is not None:
            log_std_gradient += entropy_gradient.sum()
        return outputs, log_std_gradient

    return log_probs.astype(np.float32, copy=False), entropy, gradient


class FastEvaluation(torch.autograd.Function):
    """`evaluate` as one autograd node whose backward pass adds straight into the flat gradient buffer.

    (As Megatron-LM's fused gradient accumulation does.) `anchor` is the flat parameter: its only use is to
    make autograd call `backward`.
    """

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, fast: FastActorCritic, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        mask = None if batch.action_mask is None else batch.action_mask.numpy()
        ctx.fast, ctx.state = fast, fast.forward(batch.observations.numpy(), batch.actions.numpy(), mask)
        state, tensor = ctx.state, torch.from_numpy
        return tensor(state.log_prob), tensor(state.entropy), tensor(state.value), tensor(fast.parameters(state))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, ...]:
        ctx.fast.backward(ctx.state, *(None if g is None else g.numpy() for g in gradients), add=True)
        return None, None, None


class FastValue(torch.autograd.Function):
    """The critic alone, likewise."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, fast: FastActorCritic, observations: Tensor) -> Tensor:
        ctx.fast, ctx.layers = fast, fast.critic.forward(fast.inputs(observations.numpy()))
        return torch.from_numpy(ctx.layers[-1].reshape(-1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        ctx.fast.critic.backward(ctx.layers, gradient.numpy().reshape(-1, 1), add=True)
        return None, None, None
