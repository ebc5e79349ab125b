"""An LSTM whose output is projected to fewer numbers and whose cell and output are clipped: ELMo's.

Sak, Senior, Beaufays 2014, "Long short-term memory based recurrent neural network architectures for large vocabulary
speech recognition" (1402.1128), section 2.1, without peepholes. Gates have one bias each; `torch.nn.LSTM` has two.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from language.models.linear import linear


class ProjectedLSTM(nn.Module):
    """One layer; gates are in torch's order: input, forget, cell, output."""

    def __init__(
        self, inputs: int, width: int, projection: int, cell_clip: float | None = None,
        projection_clip: float | None = None,
    ) -> None:  # fmt: skip
        """Make one with random weights, the forget gate's bias 1.

        Args:
            inputs: numbers a time step.
            width: units.
            projection: numbers of the output.
            cell_clip: no cell is farther from 0 than this; None for no limit.
            projection_clip: nor is a number of the output.
        """
        super().__init__()
        self.width, self.projection = width, projection
        self.cell_clip, self.projection_clip = cell_clip, projection_clip
        self.weight_ih = nn.Parameter(torch.empty(4 * width, inputs))
        self.weight_hh = nn.Parameter(torch.empty(4 * width, projection))
        self.bias = nn.Parameter(torch.zeros(4 * width))
        self.weight_hr = nn.Parameter(torch.empty(projection, width))
        for weight in (self.weight_ih, self.weight_hh, self.weight_hr):
            nn.init.xavier_uniform_(weight)
        with torch.no_grad():
            self.bias[width : 2 * width] = 1

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """`[N, T, inputs]` to `[N, T, projection]` and the last state: h `[N, projection]`, c `[N, width]`."""
        if state is None:
            state = self.bias.new_zeros(len(x), self.projection), self.bias.new_zeros(len(x), self.width)
        with torch.autocast(x.device.type, enabled=False):
            gates = linear(x.to(self.bias.dtype), self.weight_ih, self.bias).transpose(0, 1)
            outputs, cell = _Recurrence.apply(  # type: ignore[no-untyped-call]
                gates, self.weight_hh, self.weight_hr, *state, self.cell_clip, self.projection_clip
            )
        return outputs.transpose(0, 1), (outputs[-1], cell)


class _Recurrence(torch.autograd.Function):
    """All steps of a layer, and their derivatives.

    Written out because automatic differentiation adds to the weights' gradients in every step, which takes most of its
    time; here there is one product at the end for each matrix.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, recurrent: Tensor, projection: Tensor, h: Tensor, c: Tensor,
        cell_clip: float | None, projection_clip: float | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        steps, rows, _ = inputs.shape
        width = c.shape[1]
        gates, hidden = c.new_empty(steps, rows, 4 * width), c.new_empty(steps, rows, width)
        cells, outputs = c.new_empty(steps + 1, rows, width), h.new_empty(steps + 1, *h.shape)
        cells[0], outputs[0] = c, h
        recurrent_t, projection_t = recurrent.t(), projection.t()
        for step in range(steps):
            z = torch.addmm(inputs[step], outputs[step], recurrent_t, out=gates[step])
            i, f, g, o = z.chunk(4, 1)
            z[:, : 2 * width].sigmoid_()
            g.tanh_()
            o.sigmoid_()
            cell = torch.mul(f, cells[step], out=cells[step + 1]).addcmul_(i, g)
            if cell_clip is not None:
                cell.clamp_(-cell_clip, cell_clip)
            torch.mul(o, cell.tanh(), out=hidden[step])
            output = torch.mm(hidden[step], projection_t, out=outputs[step + 1])
            if projection_clip is not None:
                output.clamp_(-projection_clip, projection_clip)
        ctx.save_for_backward(gates, cells, hidden, outputs, recurrent, projection)
        ctx.clips = cell_clip, projection_clip
        return outputs[1:], cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_outputs: Tensor, of_cell: Tensor) -> tuple[Tensor | None, ...]:
        gates, cells, hidden, outputs, recurrent, projection = ctx.saved_tensors
        cell_clip, projection_clip = ctx.clips
        steps = len(hidden)
        of_gates, of_projected = torch.empty_like(gates), torch.empty_like(outputs[1:])
        of_h, of_c = torch.zeros_like(outputs[0]), of_cell
        for step in reversed(range(steps)):
            i, f, g, o = gates[step].chunk(4, 1)
            cell, before = cells[step + 1], cells[step]
            total = torch.add(of_outputs[step], of_h, out=of_projected[step])
            if projection_clip is not None:
                total.masked_fill_(outputs[step + 1].abs() >= projection_clip, 0)
            of_hidden = total @ projection
            squashed = cell.tanh()
            of_c = torch.addcmul(of_c, of_hidden * o, 1 - squashed * squashed)
            if cell_clip is not None:
                of_c = of_c.masked_fill(cell.abs() >= cell_clip, 0)
            of_i, of_f, of_g, of_o = of_gates[step].chunk(4, 1)
            torch.mul(of_c * g, i * (1 - i), out=of_i)
            torch.mul(of_c * before, f * (1 - f), out=of_f)
            torch.mul(of_c * i, 1 - g * g, out=of_g)
            torch.mul(of_hidden * squashed, o * (1 - o), out=of_o)
            of_c = of_c * f
            of_h = of_gates[step] @ recurrent
        flat = of_gates.flatten(0, 1)
        of_recurrent = flat.t() @ outputs[:-1].flatten(0, 1)
        of_projection = of_projected.flatten(0, 1).t() @ hidden.flatten(0, 1)
        return of_gates, of_recurrent, of_projection, of_h, of_c, None, None
