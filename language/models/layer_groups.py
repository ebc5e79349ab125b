"""Parameters by layer, for learning rates that fall from layer to layer (Howard, Ruder 2018, section 3.2)."""

from collections.abc import Iterable, Sequence

from torch import nn


def by_layer(
    model: nn.Module, layers: Iterable[nn.Module | Sequence[nn.Module]], output: Iterable[nn.Module | nn.Parameter]
) -> list[list[nn.Parameter]]:  # fmt: skip
    """Every parameter once: what is in no other group, if anything is, then each layer, then the output.

    Args:
        model: whose parameters.
        layers: a module each, or several that learn alike, the lowest first.
        output: what the last group has; where the output is tied to the embeddings these are among it.
    """
    parts = [[layer] if isinstance(layer, nn.Module) else layer for layer in layers]
    above = [[parameter for module in part for parameter in module.parameters()] for part in parts]
    above.append([own for part in output for own in ([part] if isinstance(part, nn.Parameter) else part.parameters())])
    placed = {id(parameter) for group in above for parameter in group}
    lowest = [parameter for parameter in model.parameters() if id(parameter) not in placed]
    return [lowest, *above] if lowest else above
