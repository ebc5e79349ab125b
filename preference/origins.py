"""Where a clip comes from: what it takes to play it again, to the bit, when somebody wants to see it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.errors import RllabError
from preference.codec import decode_arrays, encode_arrays

_DOCUMENT, _ACTIONS = "document", "actions"
_ARRAY = "$array"


@dataclass(frozen=True)
class Origin:
    """A snapshot of the environments from before the clip, and what was done from there to the clip's end."""

    env: EnvConfig
    """Whose environments these are."""
    snapshot: Mapping[str, Any]
    """`envs.snapshot.capture`'s, of the whole vector or, where rows do not depend on each other, of one row alone."""
    actions: NDArray[Any]
    """`[N, K, *act]` as the environments got them, from the snapshot on (N = 1 where the snapshot is of one row); a
    column is a step of the vector, those that only reset included."""
    row: int
    """The clip's, among those N."""
    first: int
    """Column of the clip's first step, counted from the snapshot."""
    steps: int
    """L, the clip's."""

    @classmethod
    def of(
        cls, env: EnvConfig, snapshot: Mapping[str, Any], actions: NDArray[Any], row: int, first: int, steps: int
    ) -> Self:
        """The origin of a clip, without what its row does not need.

        Args:
            env: the environments.
            snapshot: `envs.snapshot.capture`'s, of all of them.
            actions: `[N, K, *act]` as the environments got them, from the snapshot on.
            row: the clip's.
            first: column of its first step, counted from the snapshot.
            steps: L ≥ 1, of the clip.

        Raises:
            RllabError: the snapshot says nothing (EnvPool's do not), or the actions do not reach to the clip's end.
        """
        if not 0 <= row < len(actions) or first < 0 or steps < 1 or actions.shape[1] < first + steps - 1:
            raise RllabError(
                f"A clip of {steps} steps from column {first} of row {row} is not among actions of shape "
                f"{list(actions.shape)}."
            )
        actions = actions[:, : first + steps - 1]  # what the last action led to is not shown
        native = snapshot.get("native")
        if "environments" in snapshot:
            alone: dict[str, Any] = {"environments": {"0": snapshot["environments"][str(row)]}}
        elif native is None:
            raise RllabError(f"Clips of '{env.id}' cannot be drawn: its environments take no snapshots, use sync.")
        elif is_atari(snapshot):
            alone = {
                "native": {
                    "seeds": native["seeds"][[row]],
                    "actions": {"0": native["actions"][str(row)]},
                    "generators": [native["generators"][row]],
                    "checks": [native["checks"][row]],
                }
            }
        else:  # rows share a random generator
            return cls(env, dict(snapshot), actions.copy(), row, first, steps)
        return cls(env, alone, actions[[row]], 0, first, steps)

    def to_bytes(self) -> bytes:
        """All of it, compressed: JSON and arrays, no pickle."""
        arrays: dict[str, NDArray[Any]] = {_ACTIONS: self.actions}
        document = {
            "env": asdict(self.env),
            "snapshot": _take_arrays(self.snapshot, arrays),
            "actions": list(self.actions.shape),
            "row": self.row,
            "first": self.first,
            "steps": self.steps,
        }
        arrays[_DOCUMENT] = np.frombuffer(json.dumps(document, allow_nan=False).encode(), np.uint8)
        return encode_arrays(arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of `to_bytes`.

        Raises:
            RllabError: `data` is something else, or damaged.
        """
        arrays = decode_arrays(data)
        try:
            document = json.loads(arrays[_DOCUMENT].tobytes())
            return cls(
                EnvConfig(**document["env"]),
                _put_arrays(document["snapshot"], arrays),
                arrays[_ACTIONS].reshape(document["actions"]),
                document["row"],
                document["first"],
                document["steps"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RllabError(f"The origin of a clip is damaged ({type(error).__name__}: {error}).") from error


def is_atari(snapshot: Mapping[str, Any]) -> bool:
    """Whether a snapshot is one of `envs.atari_vector.AtariVector`."""
    return isinstance(snapshot.get("native"), Mapping) and "checks" in snapshot["native"]


def _take_arrays(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """The JSON of a snapshot, whose arrays are put aside under numbers."""
    if isinstance(value, np.ndarray):
        name = str(len(arrays))
        arrays[name] = value
        # The format has no arrays without dimensions.
        return {_ARRAY: name, "shape": list(value.shape)}
    if isinstance(value, Mapping):
        return {key: _take_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_take_arrays(item, arrays) for item in value]
    return value


def _put_arrays(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if isinstance(value, dict):
        if _ARRAY in value:
            return arrays[value[_ARRAY]].reshape(value["shape"])
        return {key: _put_arrays(item, arrays) for key, item in value.items()}
    return [_put_arrays(item, arrays) for item in value] if isinstance(value, list) else value
