"""A layer of experts beside a dense layer of equal active parameters: forwards and backwards, and how even its load is.

The dense layers are width → k·hidden → width with ReLU, without biases, which multiply as often a token as k experts.
torch's own and that of `language.models.linear` are both shown. The gate is at its beginning, where noise alone
chooses, unless `--favour` pulls all tokens towards the same few experts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from common import Contender, Result, console, interleave, print_machine, timed
from rich.table import Table
from torch import Tensor, nn

from language.models.gating import squared_variation
from language.models.linear import Linear
from language.models.mixture_of_experts import MixtureConfig, MixtureOfExperts


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    tokens: int = 4096
    """In a batch."""
    width: int = 512
    """Of a token."""
    feed_forward_width: int = 1024
    """Hidden units of an expert."""
    experts: tuple[int, ...] = (16, 64, 256)
    """Layers of so many."""
    k: int = 2
    """Experts of a token; with groups, groups of a token and experts of a group."""
    groups: int = 1
    """Of the experts; above 1 the gates are of two levels."""
    favour: float = 0.0
    """How much more the logits of the first k are than the others'; 10 sends nearly all tokens there."""
    threads: int = 2
    """Of torch."""
    repetitions: int = 5
    """Rounds, after one to warm up."""
    balance: bool = True
    """Whether to train a small layer with several weights of the losses, too."""


def main(arguments: Arguments) -> None:
    """Print seconds and ratios, and then how even the load becomes with several weights of the losses."""
    print_machine()
    torch.manual_seed(0)
    x = torch.randn(arguments.tokens, arguments.width, requires_grad=True)
    with torch.no_grad():
        x[:, 0] = 1  # what favoured experts are favoured by
    width = arguments.width
    layers = [
        _layer(
            MixtureConfig(width, arguments.feed_forward_width, experts, arguments.k, arguments.groups), arguments.favour
        )
        for experts in arguments.experts
    ]
    hidden = layers[0].config.experts_a_token * arguments.feed_forward_width

    def contender(name: str, module: nn.Module, loss: Callable[[], Tensor]) -> Contender:
        def work() -> int:
            x.grad = None
            module.zero_grad()
            loss().backward()
            return arguments.tokens

        return Contender(name, timed(work), name, arguments.threads)

    contenders = []
    for name, kind in {"torch's dense layer": nn.Linear, "our dense layer": Linear}.items():
        dense = nn.Sequential(kind(width, hidden, bias=False), nn.ReLU(), kind(hidden, width, bias=False))
        contenders.append(contender(name, dense, lambda dense=dense: dense(x).sum()))  # type: ignore[misc]
    for layer in layers:
        contenders.append(contender(_name(layer.config), layer, lambda layer=layer: _loss(layer, x)))  # type: ignore[misc]
    _print_times(interleave(contenders, arguments.repetitions), arguments)
    if arguments.balance:
        _print_balance()


def _layer(config: MixtureConfig, favour: float) -> MixtureOfExperts:
    layer = MixtureOfExperts(config)
    with torch.no_grad():
        layer.gate.clean[0, : config.k] = favour
    return layer


def _name(config: MixtureConfig) -> str:
    groups = f" in {config.groups} groups" if config.groups > 1 else ""
    return f"{config.experts} experts{groups}, k = {config.k}"


def _loss(layer: MixtureOfExperts, x: Tensor) -> Tensor:
    output, report = layer(x)
    return output.sum() + report.auxiliary_loss


def _print_times(results: list[Result], arguments: Arguments) -> None:
    torchs, ours = results[:2]
    table = Table("", "ms", "CPU ms", "time, × torch's dense", "× our dense", title_justify="left")
    table.title = f"Forwards and backwards of {arguments.tokens:,} tokens, {arguments.threads} threads"
    for result in results:
        table.add_row(
            result.contender.name,
            f"{1000 * arguments.tokens / result.median:.0f}",
            f"{1000 * arguments.tokens / result.cpu_median:.0f}",
            f"{torchs.median / result.median:.2f}",
            f"{ours.median / result.median:.2f}",
        )
    console.print(table)


def _print_balance() -> None:
    """The paper's table 6 in small: a mixture of eight linear maps, clusters of unequal size with a common part."""
    table = Table("importance", "load", "task's loss", "CV(importance)", "CV(load)", "max/mean load", "idle experts")
    table.title = "16 experts, k = 2, after 200 steps of Adam, means over 3 seeds"
    for weights in ((0.0, 0.0), (0.2, 0.0), (0.0, 0.2), (0.1, 0.1), (0.01, 0.01), (1.0, 1.0)):
        rows = torch.tensor([_trained(*weights, seed) for seed in range(3)])
        table.add_row(*(f"{weight:g}" for weight in weights), *(f"{value:.2f}" for value in rows.mean(0).tolist()))
    console.print(table)


def _trained(importance: float, load: float, seed: int) -> tuple[float, ...]:
    torch.manual_seed(seed)
    width, clusters, experts = 16, 8, 16
    centres, maps = 2 * torch.randn(width) + torch.randn(clusters, width), torch.randn(clusters, width, width) / 4
    layer = MixtureOfExperts(MixtureConfig(width, 32, experts, 2, importance_weight=importance, load_weight=load))
    optimiser = torch.optim.Adam(layer.parameters(), 0.01)
    counts, importances, losses = torch.zeros(experts), torch.zeros(experts), []
    for step in range(200):
        cluster = torch.multinomial(1 / torch.arange(1, clusters + 1.0), 256, replacement=True)
        x = centres[cluster] + 0.3 * torch.randn(256, width)
        output, report = layer(x)
        loss = (output - torch.bmm(x[:, None], maps[cluster])[:, 0]).square().mean()
        optimiser.zero_grad()
        (loss + report.auxiliary_loss).backward()
        optimiser.step()
        if step >= 180:
            counts += report.counts
            importances += report.importance
            losses.append(loss.item())
    return (
        sum(losses) / len(losses),
        squared_variation(importances).sqrt().item(),
        squared_variation(counts).sqrt().item(),
        (counts.max() / counts.mean()).item(),
        (counts < 0.1 * counts.mean()).sum().item(),
    )


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
