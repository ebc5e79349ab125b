"""Matrix products of the models: `torch.nn.Linear`, by the quicker of two libraries on a CPU.

torch multiplies float32 matrices by MKL, which is slow on processors that are not Intel's; oneDNN, which torch has too,
may be twice as fast there. Its operator is not a public one, so it stands behind this one function, and is left alone
where it is missing. The choice depends on the machine alone, never on timing: the two round differently, and a run that
goes on must find what it was computed with.
"""

import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEAST_ROWS = 64
"""Below so many rows the product is bound by calls and memory, and both take the same time."""


class Linear(nn.Linear):
    """y = xWᵀ + b."""

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """xWᵀ + b, as `torch.nn.functional.linear` has it: `[..., in]`, `[out, in]` and `[out]` to `[..., out]`."""
    if (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() >= _LEAST_ROWS * x.shape[-1]
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not _transforming()
        and takes_onednn()
    ):
        result: Tensor = _OneDNNLinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return result
    return functional.linear(x, weight, bias)


def _transforming() -> bool:
    """Whether `torch.func` or forward-mode differentiation is at work: they know torch's own operators only."""
    return torch._C._functorch.peek_interpreter_stack() is not None or torch.autograd.forward_ad._current_level >= 0


@cache
def takes_onednn() -> bool:
    """Whether products are oneDNN's: on AMD's processors, if torch has it and it is right.

    The environment variable `RLLAB_LINEAR` set to `torch` or `onednn` decides otherwise.
    """
    chosen = os.environ.get("RLLAB_LINEAR", "")
    if chosen in ("torch", "onednn"):
        return chosen == "onednn" and _onednn_works()
    return "AuthenticAMD" in _processor() and _onednn_works()


def _processor() -> str:
    """What the operating system says of it, its maker's name included."""
    described = Path("/proc/cpuinfo")
    return described.read_text() if described.is_file() else platform.processor()


def _onednn_works() -> bool:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        x, weight = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3)
        return bool(torch.equal(_product(x, weight), x @ weight.T))
    except (AttributeError, RuntimeError, TypeError):  # another version of torch, without it or with other arguments
        return False


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


class _OneDNNLinear(torch.autograd.Function):
    """The product and its two derivatives, each a product again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: only known operators have one
            flat_x, flat = x.flatten(0, -2), gradient.flatten(0, -2)
            return gradient @ weight, flat.T @ flat_x, flat.sum(0) if ctx.has_bias else None
        flat = gradient.flatten(0, -2).contiguous()
        of_x = _product(flat, weight.T.contiguous()).view(x.shape) if ctx.needs_input_grad[0] else None
        of_weight = _product(flat.T.contiguous(), x.flatten(0, -2).T.contiguous()) if ctx.needs_input_grad[1] else None
        of_bias = flat.sum(0) if ctx.has_bias and ctx.needs_input_grad[2] else None
        return of_x, of_weight, of_bias
