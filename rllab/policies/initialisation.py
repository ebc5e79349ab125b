"""Initialisation: orthogonal weights, zero biases (Huang et al. 2022, "The 37 implementation details", core 2)."""

import numpy as np
from torch import nn

SQRT_TWO = float(np.sqrt(2.0))
"""The gain of hidden layers; the policy's output has 0.01, the value's 1."""


def initialise(layer: nn.Module, gain: float) -> nn.Module:
    """Orthogonal weights of that gain, zero bias."""
    for name, parameter in layer.named_parameters():
        if name.startswith("weight"):
            nn.init.orthogonal_(parameter, gain)
        else:
            nn.init.zeros_(parameter)
    return layer
