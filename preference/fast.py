"""The fast path of ensembles of MLPs: forward pass and the gradient of a comparison's loss written out in NumPy.

At these sizes autograd's bookkeeping costs as much as the arithmetic. Two things are used that a general library cannot
know: a clip's return is a sum over steps, so the last layer, which is linear, is applied to sums over the clip's steps;
and a loss's gradient with respect to a step's reward is the same for all of the clip's steps. Tests hold it equal to
the modules and their autograd.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from preference.networks import LEAK, EnsembleMLP

Array = NDArray[np.float32]

_CACHED = 300_000
"""Activations of a layer at a time where nothing is remembered: 1.2 MB, since from 2 MB on every allocation is of fresh
pages, and takes longer than the products."""


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

    def sums(self, inputs: Array, valid: NDArray[np.bool_]) -> Array:
        """As the first of `returns`, for any number of clips, and with nothing left to go back by.

        torch's product that adds the bias takes half as long here as NumPy's, which does not; going back, where
        every layer is kept, it gains nothing.
        """
        clips, steps = valid.shape
        layers = [(torch.from_numpy(w), torch.from_numpy(b)) for w, b in zip(self.weights, self.biases, strict=True)]
        widest = max(weight.shape[-1] for weight in self.weights)
        piece = max(1, _CACHED // (self.members * widest * max(steps, 1)))
        numbers = torch.from_numpy(inputs).view(clips, steps, -1)
        counts = None if valid.all() else torch.from_numpy(valid.astype(np.float32)).unsqueeze(1)
        lengths = torch.from_numpy(valid.sum(axis=1, dtype=np.float32))
        sums = torch.empty(self.members, clips)
        with torch.inference_mode():
            for start in range(0, clips, piece):
                some = slice(start, start + piece)
                hidden = numbers[some].flatten(0, 1).expand(self.members, -1, -1)
                for weight, bias in layers[:-1]:
                    hidden = self._activate(torch.baddbmm(bias, hidden, weight))
                hidden = hidden.reshape(self.members, -1, steps, hidden.shape[-1])
                pooled = hidden.sum(dim=2) if counts is None else torch.matmul(counts[some], hidden).squeeze(2)
                weight, bias = layers[-1]
                sums[:, some] = torch.bmm(pooled, weight).squeeze(2) + bias.squeeze(2) * lengths[some]
        result: Array = sums.numpy()
        return result

    def _activate(self, outputs: Tensor) -> Tensor:
        if self.activation == "tanh":
            return outputs.tanh_()
        return outputs.relu_() if self.activation == "relu" else F.leaky_relu_(outputs, LEAK)

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
