"""Reward models: what a preference says about a step, learnt from comparisons (Christiano et al. 2017, section 2.2).

A model is an ensemble. Comparisons fix a member's rewards only up to a constant, and in an average members of a larger
scale would weigh more: so each member's are first normalised by themselves, to mean 0 and deviation 1 over reference
steps, then averaged, and the average is brought to a chosen deviation.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.errors import RllabError
from envs.normalise import RunningMoments
from preference.comparisons import Clip
from preference.fast import FastEnsemble
from preference.inputs import Inputs, Reads, StepReader
from preference.networks import Activation, EnsembleCNN, EnsembleMLP
from rllab.documents import with_tuples
from rllab.files import explained_write_errors, replaced_folder
from rllab.policies.flat import flatten_parameters
from rllab.rollout import Rollout
from rllab.state import load_state, save_state

_FORMAT = "rllab reward model 1"
SMALLEST_DEVIATION = 0.01
"""By which a number that a model reads is divided at least."""
_CHUNK = 4096
"""Steps at a time, so that activations stay in the cache; a sixteenth of it for images."""


@dataclass(frozen=True)
class RewardConfig:
    """What the reward model is."""

    members: int = 3
    """E, the networks of the ensemble (Christiano et al. 2017, appendix A: 3)."""
    reads: Reads = "observation_action"
    """What it sees of a step: observation, observation_action, observation_action_next."""
    reward_hidden_sizes: tuple[int, ...] = (64, 64)
    """Hidden layers over numbers (appendix A.1); images have the convolutional network of appendix A.2."""
    reward_activation: Activation = "leaky_relu"
    """leaky_relu (slope 0.01, as in the paper), relu or tanh."""
    dropout: float = 0.0
    """Share of activations dropped in training; the paper has 0.5 for images."""
    reward_std: float | None = None
    """Standard deviation of the rewards that the agent gets; None: 1 (appendix A.1), of images 0.05 (A.2), as agents'
    settings for games are meant for rewards that are mostly 0."""

    def __post_init__(self) -> None:
        if self.members < 1:
            raise RllabError(f"members must be at least 1, not {self.members}")
        if not 0 <= self.dropout < 1:
            raise RllabError(f"dropout must lie in [0, 1), not {self.dropout}")
        if self.reward_std is not None and not self.reward_std > 0:
            raise RllabError(f"reward_std must be above 0, not {self.reward_std}")
        if any(size < 1 for size in self.reward_hidden_sizes):
            raise RllabError(f"reward_hidden_sizes must be at least 1 each, not {self.reward_hidden_sizes}")


class RewardModel:
    """An ensemble r̂ of rewards, usable wherever the training loop takes a reward model.

    Attributes:
        module: the networks; `module(...)` gives raw rewards `[E, B]`.
        flat: all its weights in one tensor `[P]` with its gradient.
        moments: of the numbers that it reads, by which they are brought to mean 0 and deviation 1.
        offset, scale: `[E]`, mean and deviation of each member's raw rewards over the reference steps.
        spread: deviation of the members' normalised average over those steps.
    """

    def __init__(self, inputs: Inputs, config: RewardConfig | None = None, *, seed: int = 0) -> None:
        """The same seed gives the same weights."""
        self.inputs, self.config = inputs, config or RewardConfig()
        size = inputs.size(self.config.reads)
        members, activation, dropout = self.config.members, self.config.reward_activation, self.config.dropout
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module: nn.Module
            if inputs.image:
                sides = 2 if self.config.reads == "observation_action_next" else 1
                shape = _channels_first(inputs)
                self.module = EnsembleCNN(members, (shape[0] * sides, *shape[1:]), size, activation, dropout)
            else:
                sizes = (size, *self.config.reward_hidden_sizes, 1)
                self.module = EnsembleMLP(members, sizes, activation, dropout)
        self.module.eval()
        self.flat = flatten_parameters(list(self.module.parameters()))
        self.moments = RunningMoments((size,))
        self.offset, self.scale = np.zeros(members, np.float32), np.ones(members, np.float32)
        self.spread = 1.0
        self.fast = FastEnsemble(self.module) if isinstance(self.module, EnsembleMLP) and dropout == 0 else None
        self.reader: StepReader | None = None
        """Reads the rollouts of an environment; `relabel` needs it."""

    @property
    def members(self) -> int:
        """E."""
        return self.config.members

    @property
    def deviation(self) -> float:
        """Of the rewards that the agent gets."""
        return self.config.reward_std or (0.05 if self.inputs.image else 1.0)

    def features(self, arrays: Mapping[str, NDArray[Any]]) -> "Features":
        """What the networks take of clips' arrays `[..., *shape]`, numbers normalised by the present moments."""
        numbers = self.numbers(arrays)
        if not self.inputs.image:
            return Features(self._normalised(numbers), None)
        images = _images(self.inputs, arrays["observations"])
        if self.config.reads == "observation_action_next":
            images = np.concatenate([images, _images(self.inputs, arrays["next_observations"])], axis=-3)
        return Features(numbers, images)

    def numbers(self, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The numbers that the networks take, `[..., F]`, as they are."""
        return self.inputs.features(
            self.config.reads, arrays["observations"], arrays["actions"], arrays.get("next_observations")
        )

    def observe(self, numbers: NDArray[np.float32]) -> None:
        """Take steps `[B, F]` into the moments of what it reads; its rewards stay what they were.

        The change of the moments is put into the first layer, so that a model that has learnt keeps what it knows. (But
        for numbers that were clipped, and where a deviation changes more than tenfold at once.)
        """
        if not isinstance(self.module, EnsembleMLP):  # pixels have their scale already
            return
        mean, deviation = self.moments.mean.copy(), self._deviation()
        self.moments.update(numbers)
        stretch = torch.from_numpy(np.clip(self._deviation() / deviation, 0.1, 10)).float()
        shift = torch.from_numpy((self.moments.mean - mean) / deviation).float()
        weight, bias = self.module.weights[0], self.module.biases[0]
        with torch.no_grad():
            bias.add_(torch.einsum("f,efh->eh", shift, weight).unsqueeze(1))
            weight.mul_(stretch[:, None])

    def _deviation(self) -> NDArray[np.float64]:
        """Of the numbers it reads. One that hardly moved so far may move tomorrow: it is not blown up."""
        deviation: NDArray[np.float64] = np.maximum(np.sqrt(self.moments.variance), SMALLEST_DEVIATION)
        return deviation

    def _normalised(self, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
        mean, deviation = self.moments.mean, self._deviation()
        normalised: NDArray[np.float32] = (numbers - mean.astype(np.float32)) * (1 / deviation).astype(np.float32)
        return np.clip(normalised, -10, 10, out=normalised)

    def raw(self, features: "Features") -> Tensor:
        """Every member's raw rewards `[E, B]` for features `[B, …]`, with a graph while the module trains."""
        numbers = torch.from_numpy(features.numbers)
        if features.images is None:
            rewards: Tensor = self.module(numbers)
        else:
            rewards = self.module(torch.from_numpy(features.images), numbers)
        return rewards

    def member_rewards(self, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Every member's normalised rewards `[E, ...]` of steps, whose average has the deviation `deviation`."""
        raw = self._raw_rewards(arrays)
        shape = (-1, *(1,) * (raw.ndim - 1))
        centred = (raw - self.offset.reshape(shape)) / self.scale.reshape(shape)
        result: NDArray[np.float32] = centred * np.float32(self.deviation / self.spread)
        return result

    def _raw_rewards(self, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        leading = arrays["actions"].shape[: arrays["actions"].ndim - len(self.inputs.action_shape)]
        flat = {
            name: array.reshape(-1, *array.shape[len(leading) :])
            for name, array in arrays.items()
            if name in ("observations", "actions", "next_observations")
        }
        total, chunk = len(flat["actions"]), _CHUNK // 16 if self.inputs.image else _CHUNK
        rewards = np.empty((self.members, total), np.float32)
        with torch.no_grad():
            for start in range(0, total, chunk):
                piece = slice(start, start + chunk)
                features = self.features({name: array[piece] for name, array in flat.items()})
                if self.fast is not None:
                    rewards[:, piece] = self.fast.forward(features.numbers)
                else:
                    rewards[:, piece] = self.raw(features).numpy()
        return rewards.reshape(self.members, *leading)

    def reward(
        self,
        observations: NDArray[Any],
        actions: NDArray[Any],
        next_observations: NDArray[Any] | None = None,
    ) -> NDArray[np.float32]:
        """Rewards `[...]` of steps as clips keep them: `[..., *obs]`, `[..., *act]`."""
        arrays = {"observations": observations, "actions": actions}
        if next_observations is not None:
            arrays["next_observations"] = next_observations
        mean: NDArray[np.float32] = self.member_rewards(arrays).mean(axis=0)
        return mean

    def relabel(self, rollout: Rollout) -> Rollout:
        """The rollout with these rewards `[N, T]` in place of the environment's; 0 where no step exists."""
        assert self.reader is not None, "reader says how this environment's steps are read"
        arrays = self.reader.arrays(rollout, self.config.reads)
        rewards = torch.from_numpy(self.reward(**arrays)).to(rollout.rewards.device)
        return rollout.replace(rewards=rewards * rollout.valid)

    def normalise_over(self, arrays: Mapping[str, NDArray[Any]], valid: NDArray[np.bool_]) -> None:
        """Choose offset, scale and spread so that rewards have mean 0 and deviation 1 over these valid steps."""
        raw = self._raw_rewards(arrays)[:, valid].astype(np.float64)
        self.offset = raw.mean(axis=1).astype(np.float32)
        deviation = raw.std(axis=1)
        # A member that has learnt nothing yet has no scale of its own.
        self.scale = np.where(deviation > 1e-6, deviation, 1.0).astype(np.float32)
        average = ((raw - self.offset[:, None]) / self.scale[:, None]).mean(axis=0)
        self.spread = float(max(average.std(), 1e-6)) if len(average) else 1.0

    def differences(self, first: Clip, second: Clip) -> NDArray[np.float32]:
        """Σ r̂(σ¹) − Σ r̂(σ²) of every member `[E]`, in the raw rewards that preferences are predicted from."""
        sums = [self._raw_rewards(clip.arrays).sum(axis=1) for clip in (first, second)]
        result: NDArray[np.float32] = sums[0] - sums[1]
        return result

    def state_dict(self) -> dict[str, Any]:
        """Weights and all statistics."""
        return {
            "weights": dict(self.module.state_dict()),
            "moments": self.moments.state_dict(),
            "offset": self.offset,
            "scale": self.scale,
            "spread": self.spread,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.module.load_state_dict(state["weights"])
        self.moments.load_state_dict(state["moments"])
        self.offset, self.scale = np.array(state["offset"]), np.array(state["scale"])
        self.spread = float(state["spread"])

    def save(self, folder: Path | str, about: Mapping[str, Any] | None = None) -> None:
        """Write `model.json`, and weights and statistics as safetensors and JSON; `about` is kept in the former."""
        path = Path(folder)
        document = {
            "format": _FORMAT,
            "config": asdict(self.config),
            "inputs": self.inputs.to_json(),
            "about": dict(about or {}),
        }
        with explained_write_errors(path), replaced_folder(path) as folder:
            save_state(folder, self.state_dict())
            (folder / "model.json").write_text(json.dumps(document, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path | str) -> "RewardModel":
        """Read a model that `save` wrote; its environment need not be there.

        Raises RllabError if there is none, or it is damaged or of another version.
        """
        path = Path(folder)
        try:
            document = json.loads((path / "model.json").read_bytes())
            if (found := document.get("format", "model of another kind")) != _FORMAT:
                raise RllabError(f"{path} holds a '{found}', and this version reads '{_FORMAT}'")
            model = cls(Inputs.from_json(document["inputs"]), RewardConfig(**with_tuples(document["config"])))
        except FileNotFoundError as error:
            raise RllabError(f"{path} holds no reward model (it has no model.json)") from error
        except (KeyError, TypeError, ValueError) as error:
            raise RllabError(f"the reward model in {path} is damaged ({error})") from error
        model.load_state_dict(load_state(path))
        return model


@dataclass(frozen=True)
class Features:
    """What the networks take of B steps."""

    numbers: NDArray[np.float32]
    """`[B, F]`"""
    images: NDArray[np.uint8] | None
    """`[B, C, H, W]`"""

    def only(self, steps: NDArray[np.int64]) -> "Features":
        """Those of some steps."""
        if len(steps) == len(self.numbers):
            return self
        return Features(self.numbers[steps], None if self.images is None else self.images[steps])


def _channels_first(inputs: Inputs) -> tuple[int, int, int]:
    a, b, c = inputs.observation_shape
    return (c, a, b) if inputs.channels_last else (a, b, c)


def _images(inputs: Inputs, observations: NDArray[Any]) -> NDArray[np.uint8]:
    return np.moveaxis(observations, -1, -3) if inputs.channels_last else observations
