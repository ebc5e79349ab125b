"""How parameters lie in a policy's flat buffer: in order, convolutions' channels last, as their kernels want them."""

from torch import Tensor


def laid_flat(parameter: Tensor) -> Tensor:
    """A parameter's (or gradient's) numbers `[P]` in the order of the flat buffer."""
    return (parameter.permute(0, 2, 3, 1) if parameter.dim() == 4 else parameter).flatten()


def shaped(piece: Tensor, parameter: Tensor) -> Tensor:
    """A view of a piece `[P]` of a flat buffer in the shape of `parameter`: the inverse of `laid_flat`."""
    if parameter.dim() != 4:
        return piece.view_as(parameter)
    size_out, size_in, height, width = parameter.shape
    return piece.view(size_out, height, width, size_in).permute(0, 3, 1, 2)
