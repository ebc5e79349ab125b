"""Layers of LSTMs, forwards and backwards: ours of AWD-LSTM and ELMo beside torch's and beside a loop over time.

AWD-LSTM's runs torch's kernel on dropped weights; a loop in Python whose derivatives are torch's is what it saves.
ELMo's projected one has derivatives written out; torch's has neither clipping nor oneDNN.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from common import Contender, console, interleave, print_machine, timed
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from language.models.dropout import WeightDroppedLSTM
from language.models.projected_lstm import ProjectedLSTM


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    threads: int = 1
    """Of torch."""
    repetitions: int = 5
    """Rounds, after one to warm up."""


SHAPES = ((8, 32, 64, 64, 32), (32, 70, 400, 400, 100), (32, 70, 400, 1150, 400), (8, 20, 512, 4096, 512))
"""Rows, time steps, inputs, units, projection."""


def main(arguments: Arguments) -> None:
    """Print milliseconds and ratios to torch's own layer."""
    print_machine()
    for rows, steps, inputs, width, projection in SHAPES:
        torch.manual_seed(0)
        x = torch.randn(rows, steps, inputs, requires_grad=True)
        plain, dropped = nn.LSTM(inputs, width, batch_first=True), WeightDroppedLSTM(inputs, width, 0.5)
        table = Table("", "ms", "CPU ms", "time, × torch's", title_justify="left")
        table.title = f"{rows} × {steps}, {inputs} → {width}, {arguments.threads} threads"
        layers: dict[str, Callable[[Tensor], Tensor]] = {
            "torch": lambda x, layer=plain: layer(x)[0],  # type: ignore[misc]
            "AWD-LSTM's, weights dropped": lambda x, layer=dropped: layer(x)[0],  # type: ignore[misc]
            "a loop over time, weights dropped": lambda x, layer=dropped: _loop(layer, x),  # type: ignore[misc]
        }
        projected = nn.LSTM(inputs, width, proj_size=projection, batch_first=True)
        ours = ProjectedLSTM(inputs, width, projection)
        clipped = ProjectedLSTM(inputs, width, projection, 3.0, 3.0)
        with_projection: dict[str, Callable[[Tensor], Tensor]] = {
            f"torch, projected to {projection}": lambda x, layer=projected: layer(x)[0],  # type: ignore[misc]
            "ELMo's": lambda x, layer=ours: layer(x)[0],  # type: ignore[misc]
            "ELMo's, clipped": lambda x, layer=clipped: layer(x)[0],  # type: ignore[misc]
        }
        for group in (layers, with_projection):
            contenders = [
                Contender(name, timed(_work(layer, x)), name, arguments.threads) for name, layer in group.items()
            ]
            results = interleave(contenders, arguments.repetitions)
            for result in results:
                table.add_row(
                    result.contender.name,
                    f"{1000 * rows * steps / result.median:.1f}",
                    f"{1000 * rows * steps / result.cpu_median:.1f}",
                    f"{results[0].median / result.median:.2f}",
                )
        console.print(table)


def _work(layer: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], int]:
    def work() -> int:
        x.grad = None
        layer(x).sum().backward()
        return x.shape[0] * x.shape[1]

    return work


def _loop(layer: nn.LSTM, x: Tensor) -> Tensor:
    weight = functional.dropout(layer.weight_hh_l0, 0.5)
    inputs = functional.linear(x, layer.weight_ih_l0, layer.bias_ih_l0 + layer.bias_hh_l0)
    h = c = x.new_zeros(len(x), layer.hidden_size)
    outputs = []
    for step in range(x.shape[1]):
        i, f, g, o = torch.addmm(inputs[:, step], h, weight.T).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs, 1)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
