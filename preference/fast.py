"""The fast path of ensembles of MLPs: forward pass and the gradient of a comparison's loss written out in NumPy.

At these sizes autograd's bookkeeping costs as much as the arithmetic. Two things are used that a general library cannot
know: a clip's return is a sum over steps, so the last layer, which is linear, is applied to sums over the clip's steps;
and a loss's gradient with respect to a step's reward is the same for all of the clip's steps. Tests hold it equal to
the modules and their autograd.
"""

import numpy as np
from numpy.typing import NDArray

from preference.networks import LEAK, EnsembleMLP

Array = NDArray[np.float32]


class FastEnsemble:
    """An `EnsembleMLP` without dropout, on views of its weights and gradients."""

    def __init__(self, module: EnsembleMLP) -> None:
        self.members, self.activation = module.members, module.activation
        self.weights = [weight.detach().numpy() for weight in module.weights]
        self.biases = [bias.detach().numpy() for bias in module.biases]
        self.weight_gradients = [_gradient(weight) for weight in module.weights]
        self.bias_gradients = [_gradient(bias) for bias in module.biases]

    def forward(self, inputs: Array) -> Array:
        """Rewards `[E, B]` for inputs `[B, F]`."""
        hidden = self._hidden(inputs)[-1]
        rewards: Array = np.matmul(hidden, self.weights[-1])[..., 0] + self.biases[-1][:, :, 0]
        return rewards

    def _hidden(self, inputs: Array) -> list[Array]:
        """The inputs and every hidden layer's output; all but the inputs `[E, B, H]`."""
        layers = [inputs]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            outputs = np.matmul(layers[-1], weight)
            outputs += bias
            if self.activation == "tanh":
                np.tanh(outputs, out=outputs)
            elif self.activation == "relu":
                np.maximum(outputs, 0, out=outputs)
            else:
                np.maximum(outputs, outputs * np.float32(LEAK), out=outputs)
            layers.append(outputs)
        return layers

    def returns(self, inputs: Array, valid: NDArray[np.bool_]) -> tuple[Array, "Remembered"]:
        """Sums of rewards over clips `[E, C]`, and what `backward` needs.

        `inputs` `[C·L, F]`; `valid` `[C, L]`: which steps count.
        """
        layers = self._hidden(inputs)
        clips, steps = valid.shape
        counts = None if valid.all() else valid.astype(np.float32)
        last = np.broadcast_to(layers[-1], (self.members, clips * steps, layers[-1].shape[-1]))
        last = last.reshape(self.members, clips, steps, -1)
        if counts is None:
            pooled = last.sum(axis=2)
            lengths = np.full(clips, steps, np.float32)
        else:
            pooled = np.einsum("ecld,cl->ecd", last, counts)
            lengths = counts.sum(axis=1)
        returns = np.matmul(pooled, self.weights[-1])[..., 0] + self.biases[-1][:, :, 0] * lengths
        return returns, Remembered(layers, pooled, counts, lengths, steps)

    def backward(self, gradient: Array, remembered: "Remembered") -> None:
        """Put the gradient of a loss into the buffer; `gradient` `[E, C]` is the loss's with respect to `returns`."""
        layers, counts = remembered.layers, remembered.counts
        clips, steps = gradient.shape[1], remembered.steps
        np.matmul(remembered.pooled.transpose(0, 2, 1), gradient[..., None], out=self.weight_gradients[-1])
        self.bias_gradients[-1][...] = (gradient * remembered.lengths).sum(axis=1)[:, None, None]
        if len(self.weights) == 1:
            return
        per_clip = gradient[..., None] * self.weights[-1].transpose(0, 2, 1)  # [E, C, H]
        flowing = np.repeat(per_clip, steps, axis=1)  # [E, C·L, H]: the same for all steps of a clip
        if counts is not None:
            flowing *= counts.reshape(1, -1, 1)
        ones = np.ones((1, clips * steps), np.float32)
        for i in range(len(self.weights) - 2, -1, -1):
            self._through_activation(flowing, layers[i + 1])
            np.matmul(layers[i].swapaxes(-1, -2), flowing, out=self.weight_gradients[i])
            np.matmul(ones, flowing, out=self.bias_gradients[i])
            if i > 0:
                flowing = np.matmul(flowing, self.weights[i].transpose(0, 2, 1))

    def _through_activation(self, gradient: Array, outputs: Array) -> None:
        """Multiply a gradient in place by the activation's derivative where it gave these outputs."""
        if self.activation == "tanh":
            slope = np.multiply(outputs, outputs)
            np.subtract(1, slope, out=slope)
            gradient *= slope
        elif self.activation == "relu":
            gradient *= outputs > 0
        else:
            slope = (outputs > 0).astype(np.float32)
            slope *= np.float32(1 - LEAK)
            slope += np.float32(LEAK)
            gradient *= slope


class Remembered:
    """What a forward pass leaves for its backward pass."""

    def __init__(self, layers: list[Array], pooled: Array, counts: Array | None, lengths: Array, steps: int) -> None:
        self.layers, self.pooled, self.counts, self.lengths, self.steps = layers, pooled, counts, lengths, steps


def _gradient(parameter: object) -> Array:
    gradient: Array = parameter.grad.numpy()  # type: ignore[attr-defined]
    return gradient
