"""How parameters lie in one flat buffer: in order, convolutions' channels last, as their kernels want them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def flatten_parameters(parameters: Sequence[nn.Parameter]) -> Tensor:
    """One leaf `[P]` with every parameter's numbers, and its gradient, of which the parameters become views."""
    flat = torch.cat([laid_flat(parameter.detach()) for parameter in parameters]).requires_grad_()
    flat.grad = torch.zeros_like(flat)
    offset = 0
    for parameter in parameters:
        piece = slice(offset, offset + parameter.numel())
        parameter.data = shaped(flat.detach()[piece], parameter)
        parameter.grad = shaped(flat.grad[piece], parameter)
        offset += parameter.numel()
    return flat


def laid_flat(parameter: Tensor) -> Tensor:
    """A parameter's (or gradient's) numbers `[P]` in the order of the flat buffer."""
    return (parameter.permute(0, 2, 3, 1) if parameter.dim() == 4 else parameter).flatten()


def shaped(piece: Tensor, parameter: Tensor) -> Tensor:
    """A view of a piece `[P]` of a flat buffer in the shape of `parameter`: the inverse of `laid_flat`."""
    if parameter.dim() != 4:
        return piece.view_as(parameter)
    size_out, size_in, height, width = parameter.shape
    return piece.view(size_out, height, width, size_in).permute(0, 3, 1, 2)
