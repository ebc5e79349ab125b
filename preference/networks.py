"""Ensembles of reward networks, each member's numbers side by side in one tensor: no loop over members anywhere.

The networks are those of Christiano et al. 2017, appendix A: for robots two hidden layers of 64 with leaky ReLU of
slope 0.01; for Atari four convolutions of 16 filters (7×7, 5×5, 3×3, 3×3; strides 3, 2, 1, 1) with batch normalisation,
leaky ReLU and dropout, then a layer of 64.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, leaky_relu

from envs.errors import RllabError

Activation = Literal["leaky_relu", "relu", "tanh"]
LEAK = 0.01
"""Slope of the leaky ReLU below 0 (appendix A.1)."""
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "leaky_relu": lambda x: leaky_relu(x, LEAK),
    "relu": torch.relu,
    "tanh": torch.tanh,
}


class EnsembleMLP(nn.Module):
    """E multilayer perceptrons over the same inputs `[B, F]`, to `[E, B]`.

    Layer i has weights `[E, in, out]` and biases `[E, 1, out]`, initialised as `torch.nn.Linear` does.
    """

    def __init__(
        self, members: int, sizes: Sequence[int], activation: Activation = "leaky_relu", dropout: float = 0.0
    ) -> None:
        """`sizes`: input first, 1 last."""
        super().__init__()
        self.members, self.activation, self.dropout = members, activation, dropout
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for size_in, size_out in pairwise(sizes):
            bound = size_in**-0.5 if size_in else 0.0
            self.weights.append(nn.Parameter(torch.empty(members, size_in, size_out).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(members, 1, size_out).uniform_(-bound, bound)))

    def forward(self, inputs: Tensor) -> Tensor:
        """`inputs` `[B, F]`, or `[E, B, F]` where each member has its own."""
        hidden = inputs
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.matmul(hidden, weight) + bias
            if i < last:
                hidden = dropout(ACTIVATIONS[self.activation](hidden), self.dropout, self.training)
        return hidden.squeeze(-1)


class EnsembleCNN(nn.Module):
    """E convolutional networks over the same images `[B, C, H, W]` of bytes and numbers `[B, F]`, to `[E, B]`.

    The members are groups of one convolution.
    """

    filters, hidden = 16, 64
    shapes = ((7, 3), (5, 2), (3, 1), (3, 1))
    """Kernel and stride of each convolution."""

    def __init__(
        self, members: int, image: tuple[int, int, int], extra: int, activation: Activation, dropout: float
    ) -> None:
        """`image`: channels, height, width; `extra`: F, numbers beside the image."""
        super().__init__()
        self.members, self.activation = members, activation
        self.dropout = nn.Dropout2d(dropout)
        channels, width = image[0], members * self.filters
        convolutions = [
            # Every member looks at the same image, and then at its own maps.
            nn.Conv2d(channels if i == 0 else width, width, kernel, stride, groups=1 if i == 0 else members)
            for i, (kernel, stride) in enumerate(self.shapes)
        ]
        self.convolutions = nn.ModuleList(convolutions)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in convolutions)
        with torch.no_grad():
            maps = torch.zeros(1, *image)
            for convolution, (kernel, _) in zip(convolutions, self.shapes, strict=True):
                if min(maps.shape[2:]) < kernel:
                    raise RllabError(
                        f"an image of {image[1]} × {image[2]} is too small for the reward model's convolutions, which "
                        "take 48 × 48 and more: make the environment's images larger, or read them as numbers"
                    )
                maps = convolution(maps)
        features = maps[0].numel() // members
        self.head = EnsembleMLP(members, (features + extra, self.hidden, 1), activation, dropout)

    def forward(self, images: Tensor, numbers: Tensor) -> Tensor:
        maps = images.float() / 255
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            maps = self.dropout(ACTIVATIONS[self.activation](norm(convolution(maps))))
        batch = len(maps)
        # (Maps may lie channels last, as the weights do.)
        features = maps.reshape(batch, self.members, -1).transpose(0, 1)
        extra = numbers.expand(self.members, batch, numbers.shape[-1])
        rewards: Tensor = self.head(torch.cat([features, extra], dim=-1))
        return rewards
