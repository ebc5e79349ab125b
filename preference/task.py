"""What a store's comparisons are about: which environment, what its clips look like, what people are asked."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.errors import RllabError
from preference.codec import dump_json, load_json
from preference.comparisons import Clip

Kind = Literal["clips", "texts"]
_STEPWISE = {"observations": "observation", "next_observations": "observation", "actions": "action"}


@dataclass(frozen=True)
class Task:
    """What is compared, and how it is asked."""

    environment: str
    """Gymnasium id; empty for texts."""
    kind: Kind = "clips"
    """Clips of trajectories, or texts (a prompt and a response)."""
    observation: dict[str, Any] | None = None
    """`shape` and `dtype` of one observation; what is left out is not checked. None for texts."""
    action: dict[str, Any] | None = None
    """`shape` and `dtype` of one action, and `n` where it is one of n choices, counted from 0. None for texts."""
    question: str = "Which is better?"
    """What people are asked, in Markdown."""
    fps: float = 30.0
    """Steps of a clip that are shown a second."""

    @classmethod
    def of_spaces(
        cls, environment: str, observation: spaces.Space[Any], action: spaces.Space[Any],
        question: str = "Which is better?", fps: float = 30.0,
    ) -> Self:  # fmt: skip
        """The task of an environment with these spaces.

        Raises:
            RllabError: observations are not arrays of one shape.
        """
        for name, space in (("observations", observation), ("actions", action)):
            if space.shape is None or space.dtype is None:
                raise RllabError(f"The {name} of '{environment}' are no arrays of one shape; flatten them first.")
        return cls(environment, "clips", _describe(observation), _describe(action), question, fps)

    def spaces(self) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
        """Spaces that hold every observation and every action of the task's clips."""
        return _space(self.observation or {}), _space(self.action or {})

    def to_json(self) -> str:
        """JSON text, from which `from_json` makes an equal task."""
        return dump_json(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The task of JSON text.

        Raises:
            RllabError: it is not a task.
        """
        return cls.from_document(load_json(text))

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """The task of an object read from JSON. Raises RllabError when it is not a task."""
        try:
            task = cls(**document)
            if task.kind not in get_args(Kind) or not isinstance(task.environment, str) or not task.fps > 0:
                raise ValueError(f"kind {task.kind!r}, environment {task.environment!r}, fps {task.fps!r}")
            for description in (task.observation, task.action):
                np.dtype((description or {}).get("dtype", "float32"))
                tuple((description or {}).get("shape", ()))
        except (TypeError, ValueError, AttributeError) as error:
            raise RllabError(f"it is not the description of a task ({error})") from error
        return task

    def difference(self, other: "Task") -> str | None:
        """In which way comparisons of `other` cannot stand beside this task's, as words; None if they can."""
        if self.kind != other.kind:
            return f"it is of {self.kind}, not of {other.kind}"
        if self.environment != other.environment:
            return f"it is of the environment '{self.environment}', not of '{other.environment}'"
        for name, own, foreign in (
            ("observations", self.observation, other.observation),
            ("actions", self.action, other.action),
        ):
            for key in sorted({*(own or {}), *(foreign or {})} & {"shape", "dtype", "n"}):
                mine, theirs = (_canonical(key, (side or {}).get(key)) for side in (own, foreign))
                if mine is not None and theirs is not None and mine != theirs:
                    return f"its {name} have {key} {mine}, not {theirs}"
        return None

    def check(self, clip: Clip) -> None:
        """Make sure that a clip is one of this task.

        Raises:
            RllabError: its arrays do not fit; the sentence names the clip.
        """
        problem = self._text_problem(clip) if self.kind == "texts" else self._clip_problem(clip)
        if problem is not None:
            raise RllabError(f"The clip {clip.id} does not fit the task: {problem}.")

    def _text_problem(self, clip: Clip) -> str | None:
        if clip.arrays:
            return f"a text has no arrays, but it has {', '.join(clip.arrays)}"
        missing = [name for name in ("prompt", "response") if not isinstance(clip.details.get(name), str)]
        return f"its details have no text {' and no '.join(missing)}" if missing else None

    def _clip_problem(self, clip: Clip) -> str | None:
        missing = [name for name in ("observations", "actions") if name not in clip.arrays]
        if missing:
            return f"it has no {' and no '.join(missing)}"
        if clip.arrays["actions"].ndim == 0 or clip.length < 1:
            return "it has no steps"
        for name, array in clip.arrays.items():
            if array.shape[:1] != (clip.length,):
                return f"its {name} have the shape {list(array.shape)}, but it has {clip.length} actions"
            if name in _STEPWISE:
                description = (self.observation if _STEPWISE[name] == "observation" else self.action) or {}
                if (problem := _array_problem(description, array)) is not None:
                    return f"its {name} {problem}"
            elif name == "rewards" and array.ndim != 1:
                return f"its rewards have the shape {list(array.shape)}, not one number a step"
        return None


def _array_problem(description: dict[str, Any], array: NDArray[Any]) -> str | None:
    """What is wrong with the steps `[L, *shape]` of one name; None if nothing is."""
    if "shape" in description and list(array.shape[1:]) != list(description["shape"]):
        return f"have the shape {list(array.shape[1:])} a step, not {list(description['shape'])}"
    if "dtype" in description and array.dtype != np.dtype(description["dtype"]):
        return f"are {array.dtype}, not {np.dtype(description['dtype'])}"
    if description.get("n") is not None and not ((array >= 0) & (array < description["n"])).all():
        return f"are not all among 0 … {description['n'] - 1}"
    return None


def _describe(space: spaces.Space[Any]) -> dict[str, Any]:
    description: dict[str, Any] = {"shape": list(space.shape or ()), "dtype": str(space.dtype)}
    if isinstance(space, spaces.Discrete):
        description["n"] = int(space.n)
    return description


def _space(description: dict[str, Any]) -> spaces.Space[Any]:
    dtype = np.dtype(description.get("dtype", "float32"))
    if description.get("n") is not None:
        return spaces.Discrete(int(description["n"]))
    shape = tuple(description.get("shape", ()))
    if dtype.kind == "b":
        return spaces.MultiBinary(shape)
    if dtype.kind in "iu":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        return spaces.Box(low, high, shape, dtype.type)
    return spaces.Box(-np.inf, np.inf, shape, dtype.type)


def _canonical(key: str, value: Any) -> Any:
    if value is None:
        return None
    if key == "shape":
        return list(value)
    return str(np.dtype(value)) if key == "dtype" else int(value)
