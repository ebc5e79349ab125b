"""What an environment object remembers in its attributes, less how it was configured and how it is drawn."""

from collections.abc import Collection
from types import FunctionType, MethodType, ModuleType
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers.utils import RunningMeanStd

from envs.plain_data import decode, encode

_CONFIGURATION = {"env", "spec", "_cached_spec", "metadata", "_metadata", "render_mode"} | {
    # What Gymnasium's mix-ins keep of the constructor's arguments.
    "_saved_kwargs",
    "_ezpickle_args",
    "_ezpickle_kwargs",
}


def get_attributes(owner: Any, ignoring: Collection[str] = ()) -> dict[str, Any]:
    """What an environment or wrapper remembers: its attributes, less what its configuration fixes.

    Args:
        owner: an environment, a vector environment, or a wrapper without what it wraps.
        ignoring: names of attributes to leave out.

    Returns:
        Encoded by `envs.plain_data.encode`.

    Raises:
        NotPlainError: an attribute is not plain data.
    """
    remembered: dict[str, Any] = {}
    for name, value in vars(owner).items():
        if name in _CONFIGURATION or name in ignoring or _is_configuration(owner, value):
            continue
        if isinstance(value, RunningMeanStd):
            value = {"mean": value.mean, "var": value.var, "count": value.count}
        remembered[name] = value
    # Encoded together, so that one array under two names is noticed.
    encoded: dict[str, Any] = encode(remembered)["items"]
    return encoded


def _is_configuration(owner: Any, value: Any) -> bool:
    if isinstance(value, gymnasium.Space | EnvSpec | ModuleType | type):
        return True
    if isinstance(owner, gymnasium.Wrapper) and isinstance(value, FunctionType | MethodType):
        return True
    return type(value).__module__.startswith("pygame")


def set_attributes(owner: Any, attributes: dict[str, Any]) -> None:
    """Puts back what `get_attributes` read, in an object made alike."""
    for name, encoded in attributes.items():
        current = getattr(owner, name, None)
        if isinstance(current, RunningMeanStd):
            vars(current).update(decode(encoded))
        else:
            setattr(owner, name, decode(encoded))
