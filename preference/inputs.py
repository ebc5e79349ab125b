"""What a reward model reads: observations and actions of an environment as vectors of numbers, or as images."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from envs.errors import RllabError
from preference.score_regions import blank, blank_observations
from rllab.documents import with_tuples
from rllab.frames import FrameStacks
from rllab.nested import Nested, leaf_at, map_nested
from rllab.policies.distributions import action_family
from rllab.policies.networks import ObservationLayout
from rllab.rollout import Rollout

Reads = Literal["observation", "observation_action", "observation_action_next"]
"""r̂(o), r̂(o, a), r̂(o, a, o')."""


@dataclass(frozen=True)
class Inputs:
    """The form in which clips keep the observations and actions of an environment, and how a network takes them."""

    observation_shape: tuple[int, ...]
    """Of one observation: `[F]` numbers, or an image `[C, H, W]` or `[H, W, C]` of bytes."""
    action_shape: tuple[int, ...]
    """Of one action as clips keep it: `[]` or `[K]` choices, or `[A]` numbers."""
    choices: tuple[int, ...]
    """How many options each choice has; empty if actions are numbers."""
    image: bool = False
    """Whether observations are images."""
    channels_last: bool = False
    """Whether they come as `[H, W, C]`."""

    @classmethod
    def of(cls, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]) -> Self:
        """For these spaces.

        Raises RllabError where an observation is neither numbers nor one image.
        """
        layout, family = ObservationLayout(observation_space), action_family(action_space)
        numbers = bool(layout.numbers or layout.choices)
        if len(layout.images) > 1 or (layout.images and numbers):
            raise RllabError(
                f"reward models read numbers, or one image, and not the space {observation_space}: wrap the "
                "environment to give one of these"
            )
        choices = _options(action_space)
        if layout.images:
            assert observation_space.shape is not None
            return cls(observation_space.shape, family.shape, choices, True, layout.images[0][2])
        size = sum(size for _, size in layout.numbers) + sum(sum(sizes) for _, sizes, _ in layout.choices)
        return cls((size,), family.shape, choices)

    def size(self, reads: Reads) -> int:
        """F, the numbers that a network takes for one step, those of images not counted."""
        observation = 0 if self.image else self.observation_shape[0]
        sides = 2 if reads == "observation_action_next" else 1
        return observation * sides + (0 if reads == "observation" else self.action_size)

    @property
    def action_size(self) -> int:
        """Numbers of one action, choices one-hot."""
        return sum(self.choices) if self.choices else int(np.prod(self.action_shape))

    def features(
        self,
        reads: Reads,
        observations: NDArray[Any],
        actions: NDArray[Any],
        next_observations: NDArray[Any] | None = None,
    ) -> NDArray[np.float32]:
        """Steps as numbers `[..., F]`; images are left out.

        Raises RllabError if next observations are read and there are none.
        """
        leading = actions.shape[: actions.ndim - len(self.action_shape)]
        parts = [] if self.image else [observations.reshape(*leading, -1)]
        if reads != "observation":
            parts.append(self._action_features(actions, leading))
        if reads == "observation_action_next":
            if next_observations is None:
                raise RllabError("this reward model reads next observations too, and these steps come without them")
            parts += [] if self.image else [next_observations.reshape(*leading, -1)]
        if not parts:
            return np.empty((*leading, 0), np.float32)
        return np.concatenate(parts, axis=-1, dtype=np.float32, casting="unsafe")

    def _action_features(self, actions: NDArray[Any], leading: tuple[int, ...]) -> NDArray[np.float32]:
        if not self.choices:
            return actions.reshape(*leading, -1).astype(np.float32, copy=False)
        chosen = actions.reshape(*leading, len(self.choices)).astype(np.int64, copy=False)
        one_hot = [np.eye(options, dtype=np.float32)[chosen[..., i]] for i, options in enumerate(self.choices)]
        return np.concatenate(one_hot, axis=-1)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**with_tuples(document))


class StepReader:
    """Observations and actions of an environment, as clips keep them."""

    def __init__(
        self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any], *, game: str | None = None
    ) -> None:
        """`game`: the ROM's name of an Atari game, whose score is painted over.

        Raises RllabError for spaces that reward models cannot read.
        """
        self.inputs = Inputs.of(observation_space, action_space)
        self._layout, self._space, self._game = ObservationLayout(observation_space), action_space, game

    def observations(self, observations: Nested, leading: int) -> NDArray[Any]:
        """(Nested) tensors `[..., *obs]` with `leading` dimensions before the observation, as one array."""
        if self.inputs.image:
            leaf = leaf_at(observations, self._layout.images[0][0])
            pixels: torch.Tensor = leaf.pixels() if isinstance(leaf, FrameStacks) else leaf
            images = pixels.numpy()
            if self._game is None:
                return images
            return blank(images, self._game) if self.inputs.channels_last else blank_observations(images, self._game)
        parts: list[NDArray[Any]] = []
        numbers = self._layout.flat_numbers(observations, leading)
        if numbers is not None:
            parts.append(numbers.numpy())
        parts += [choice.numpy() for choice in self._layout.one_hot_choices(observations, leading)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def arrays(self, rollout: Rollout, reads: Reads) -> dict[str, NDArray[Any]]:
        """What a model that `reads` so takes of a rollout's steps, each `[N, T, *shape]`.

        Raises RllabError if next observations are read and the rollout has none.
        """
        arrays = {
            "observations": self.observations(_on_cpu(rollout.observations), 2),
            "actions": self.actions(rollout.actions.cpu()),
        }
        if reads == "observation_action_next":
            if rollout.next_observations is None:
                raise RllabError("this reward model reads next observations, and the rollout was collected without")
            arrays["next_observations"] = self.observations(_on_cpu(rollout.next_observations), 2)
        return arrays

    def actions(self, actions: torch.Tensor) -> NDArray[Any]:
        """Sampled actions `[..., *act]` of a rollout, clipped to the bounds that the environment has for them."""
        array: NDArray[Any] = actions.numpy()
        if isinstance(self._space, gymnasium.spaces.Box):
            low, high = self._space.low.reshape(-1), self._space.high.reshape(-1)
            array = np.minimum(np.maximum(array, low), high).astype(np.float32, copy=False)
        return array


def _on_cpu(observations: Nested) -> Nested:
    return map_nested(lambda leaf: leaf.to("cpu"), observations)


def _options(space: gymnasium.Space[Any]) -> tuple[int, ...]:
    """How many options each choice of an action has; none if actions are numbers."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return tuple(int(n) for n in space.nvec.flatten())
    return ()
