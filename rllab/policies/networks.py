"""Networks: observation encoders, recurrent cores and multilayer perceptrons."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from envs.errors import RllabError
from envs.normalise import RunningMoments
from rllab.nested import Nested, Path, leaf_at
from rllab.policies.images import ImageEncoder, ImageNetwork, Precision
from rllab.policies.initialisation import SQRT_TWO, initialise

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}


def mlp(sizes: Sequence[int], activation: str, output_gain: float) -> nn.Sequential:
    """Linear layers of `sizes` (input first, output last) with the activation between them."""
    layers: list[nn.Module] = []
    for size_in, size_out in pairwise(sizes[:-1]):
        layers += [initialise(nn.Linear(size_in, size_out), SQRT_TWO), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, initialise(nn.Linear(sizes[-2], sizes[-1]), output_gain))


class ObservationLayout:
    """Which leaves of a (nested) observation are numbers, one-hot choices or images, and which is the action mask.

    Raises RllabError for spaces that are none of these.
    """

    SMALLEST_IMAGE = 36
    """Pixels a side below which NatureCNN's three strides leave nothing; smaller images are read as vectors."""

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self.numbers: list[tuple[Path, int]] = []
        """(path, size) of the Box leaves, the ones that are normalised."""
        self.choices: list[tuple[Path, tuple[int, ...], tuple[int, ...]]] = []
        """(path, sizes, starts) of the Discrete and MultiDiscrete leaves, a number for each choice."""
        self.images: list[tuple[Path, tuple[int, int, int], bool]] = []
        """(path, (channels, height, width), channels last) of the image leaves."""
        self.mask_key = (
            "action_mask" if isinstance(space, gymnasium.spaces.Dict) and "action_mask" in space.spaces else None
        )
        self._visit(space, ())

    def _visit(self, space: gymnasium.Space[Any], path: Path) -> None:
        spaces = gymnasium.spaces
        if isinstance(space, spaces.Dict):
            for key, child in space.spaces.items():
                if path or key != self.mask_key:
                    self._visit(child, (*path, key))
        elif isinstance(space, spaces.Tuple):
            for index, child in enumerate(space.spaces):
                self._visit(child, (*path, index))
        elif isinstance(space, spaces.Discrete):
            self.choices.append((path, (int(space.n),), (int(space.start),)))
        elif isinstance(space, spaces.MultiDiscrete):
            self.choices.append((path, tuple(space.nvec.flatten().tolist()), tuple(space.start.flatten().tolist())))
        elif isinstance(space, spaces.MultiBinary):
            self.numbers.append((path, int(np.prod(space.shape))))
        elif isinstance(space, spaces.Box) and self._is_image(space):
            channels_last = space.shape[2] < space.shape[0]
            channels, height, width = (space.shape[i] for i in ((2, 0, 1) if channels_last else (0, 1, 2)))
            self.images.append((path, (channels, height, width), channels_last))
        elif isinstance(space, spaces.Box):
            self.numbers.append((path, int(np.prod(space.shape))))
        else:
            raise RllabError(
                f"the agents cannot observe the space {space}: they handle Box, Discrete, MultiDiscrete, "
                "MultiBinary, and Dict and Tuple of these; wrap the environment to give one of these"
            )

    def _is_image(self, space: gymnasium.spaces.Box) -> bool:
        return space.dtype == np.uint8 and len(space.shape) == 3 and sorted(space.shape)[1] >= self.SMALLEST_IMAGE

    @property
    def is_vector(self) -> bool:
        """Whether the observation is one vector of numbers and nothing else."""
        return len(self.numbers) == 1 and not self.choices and not self.images and not self.numbers[0][0]

    def flat_numbers(self, observations: Nested, leading: int) -> Tensor | None:
        """All number leaves side by side, float32 `[..., F]`; None if there is none."""
        leaves: list[Tensor] = [leaf_at(observations, path) for path, _ in self.numbers]
        leaves = [leaf.reshape(*leaf.shape[:leading], -1).float() for leaf in leaves]
        return torch.cat(leaves, dim=-1) if len(leaves) > 1 else (leaves[0] if leaves else None)

    def one_hot_choices(self, observations: Nested, leading: int) -> list[Tensor]:
        """Every choice of the choice leaves, one-hot float32 `[..., options]`."""
        features: list[Tensor] = []
        for path, sizes, starts in self.choices:
            chosen: Tensor = leaf_at(observations, path).long()
            chosen = chosen.reshape(*chosen.shape[:leading], len(sizes))
            for i, (size, start) in enumerate(zip(sizes, starts, strict=True)):
                features.append(nn.functional.one_hot(chosen[..., i] - start, size).float())
        return features


class Encoder(nn.Module):
    """Observations `[..., *obs]` to features `[..., size]`: numbers normalised, choices one-hot, images convolved."""

    def __init__(
        self, layout: ObservationLayout, image_network: ImageNetwork = "nature", precision: Precision = "float32"
    ) -> None:
        super().__init__()
        self.layout = layout
        encoders = [ImageEncoder(shape, last, image_network, precision) for _, shape, last in layout.images]
        self.images = nn.ModuleList(encoders)
        self.size = (
            sum(size for _, size in layout.numbers)
            + sum(sum(sizes) for _, sizes, _ in layout.choices)
            + sum(encoder.size for encoder in encoders)
        )

    def forward(self, observations: Nested, leading: int, normaliser: "Normaliser | None") -> Tensor:
        features: list[Tensor] = []
        numbers = self.layout.flat_numbers(observations, leading)
        if numbers is not None:
            features.append(numbers if normaliser is None else normaliser(numbers))
        features += self.layout.one_hot_choices(observations, leading)
        for (path, _, _), encoder in zip(self.layout.images, self.images, strict=True):
            features.append(encoder(leaf_at(observations, path), leading))
        return torch.cat(features, dim=-1) if len(features) > 1 else features[0]


class Normaliser(nn.Module):
    """Standardise by running moments and clip to ±10 (the 37 details, continuous-control details 6 and 7).

    The moments are kept in float64; `shift` and `scale` are their float32 form, moved only by `adapt`.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, size: int, clip: float = 10.0, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.clip, self.epsilon = clip, epsilon
        self.moments = RunningMoments((size,))
        self.register_buffer("shift", torch.zeros(size), persistent=False)
        self.register_buffer("scale", torch.ones(size), persistent=False)

    def forward(self, numbers: Tensor) -> Tensor:
        return ((numbers - self.shift) * self.scale).clamp(-self.clip, self.clip)

    def adapt(self, numbers: Tensor, valid: Tensor) -> None:
        """Take numbers `[..., F]` into the moments, those that exist."""
        self.moments.update(numbers.cpu().numpy(), valid.cpu().numpy())
        self.refresh()

    def refresh(self) -> None:
        """Bring `shift` and `scale` in line with the moments."""
        self.shift.copy_(torch.from_numpy(self.moments.mean))
        self.scale.copy_(torch.from_numpy(1.0 / np.sqrt(self.moments.variance + self.epsilon)))


class RecurrentCore(nn.Module):
    """An LSTM or GRU over rows whose state is reset wherever an episode begins. Its state is one tensor `[N, S]`."""

    def __init__(self, kind: Literal["lstm", "gru"], input_size: int, size: int) -> None:
        super().__init__()
        self.kind, self.size = kind, size
        self.state_size = 2 * size if kind == "lstm" else size
        self.network = initialise((nn.LSTM if kind == "lstm" else nn.GRU)(input_size, size), 1.0)

    def _run(self, inputs: Tensor | PackedSequence, state: Tensor) -> tuple[Any, Tensor]:
        state = state.unsqueeze(0)
        parts = tuple(part.contiguous() for part in state.chunk(2, dim=-1)) if self.kind == "lstm" else state
        outputs, last = self.network(inputs, parts)
        return outputs, (torch.cat(last, dim=-1) if self.kind == "lstm" else last).squeeze(0)

    def step(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step: features `[N, F]` and state `[N, S]` to outputs `[N, size]` and the new state."""
        outputs, state = self._run(features.unsqueeze(0), state)
        return outputs.squeeze(0), state

    def forward(self, features: Tensor, starts: Tensor, state: Tensor) -> Tensor:
        """Whole rows in one pass: features `[N, T, F]`, starts `[N, T]`, state `[N, S]` to `[N, T, size]`.

        Rows are cut into segments at `starts` and run as one packed sequence: nothing is padded, and the
        recurrence takes as many steps as the longest segment.
        """
        rows, columns = starts.shape
        begins = starts.clone()
        begins[:, 0] = True
        first = begins.flatten().nonzero().squeeze(-1)  # flat index of each segment's first step
        lengths = torch.diff(first, append=first.new_tensor([rows * columns]))
        lengths, order = lengths.sort(descending=True, stable=True)
        first = first[order]
        offsets = torch.arange(int(lengths[0]), device=first.device).unsqueeze(1)  # [L, 1]
        inside = offsets < lengths  # [L, segments]
        index = (first + offsets)[inside]  # packed order: time outermost, longest segments first
        carried = (first % columns == 0) & ~starts.flatten()[first]
        initial = torch.where(carried.unsqueeze(-1), state[first // columns], 0.0)
        packed = PackedSequence(features.flatten(0, 1)[index], inside.sum(1).cpu())
        outputs, _ = self._run(packed, initial)
        inverse = torch.empty_like(index)
        inverse[index] = torch.arange(len(index), device=index.device)
        rows_of_outputs: Tensor = outputs.data[inverse].view(rows, columns, self.size)
        return rows_of_outputs
