"""How many parameters a model has, and where: its parts, with a stack's layers taken together."""

from dataclasses import dataclass

from torch import nn

_DEPTH = 2
"""Names of modules in a part's name: `encoder.attention`, not what attention is made of."""


@dataclass(frozen=True)
class Part:
    """A part of a model, all layers' together."""

    parameters: int
    """How many numbers it learns; what is shared counts once."""
    layers: int = 1
    """In how many layers it stands."""


def parameter_count(model: nn.Module) -> int:
    """How many numbers a model learns; those that are shared count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def parts(model: nn.Module) -> dict[str, Part]:
    """The parts of a model in the order of its modules, such as `blocks.attention`; they add up to the whole.

    A parameter is named by the modules around it, without the numbers of layers, at most two of them.
    """
    counts: dict[str, int] = {}
    layers: dict[str, set[tuple[str, ...]]] = {}
    for name, parameter in model.named_parameters():
        modules = name.split(".")[:-1] or [name]
        part = ".".join([module for module in modules if not module.isdecimal()][:_DEPTH])
        counts[part] = counts.get(part, 0) + parameter.numel()
        first = next((place for place, module in enumerate(modules) if module.isdecimal()), -1)
        layers.setdefault(part, set()).add(tuple(modules[: first + 1]))
    return {part: Part(count, len(layers[part])) for part, count in counts.items()}
