"""Encoders read every observation space, initialisation has its gains, and rows in one pass equal single steps."""

from typing import Any, Literal

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from synthetic import IMAGE, make_batch, make_policy, random_observations
from torch import Tensor, nn

from envs.errors import RllabError
from rllab.nested import map_nested
from rllab.policies.images import NatureCNN
from rllab.policies.initialisation import SQRT_TWO
from rllab.policies.networks import (
    Encoder,
    Normaliser,
    ObservationLayout,
    RecurrentCore,
    mlp,
)


def encode(space: gymnasium.Space[Any], observations: Any, leading: int = 1) -> Tensor:
    """Features of a batch of samples, given as the environment gives them."""
    encoder = Encoder(ObservationLayout(space))
    with torch.no_grad():
        features: Tensor = encoder(map_nested(torch.as_tensor, observations), leading, None)
    assert features.shape[-1] == encoder.size
    assert features.dtype == torch.float32
    return features


def test_a_vector_is_read_as_it_is() -> None:
    space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    assert encode(space, np.array([[1.5, -2.0]])).tolist() == [[1.5, -2.0]]


def test_numbers_of_several_dimensions_are_laid_flat() -> None:
    space = spaces.Box(-np.inf, np.inf, (2, 2), np.float32)
    assert encode(space, np.array([[[1, 2], [3, 4]]], np.float32)).tolist() == [[1, 2, 3, 4]]


def test_a_single_number_without_dimensions_is_read() -> None:
    space = spaces.Box(-np.inf, np.inf, (), np.float32)
    assert encode(space, np.array([1.0, 2.0], np.float32)).tolist() == [[1], [2]]


def test_a_choice_is_one_hot_counted_from_its_start() -> None:
    assert encode(spaces.Discrete(3), np.array([0, 2])).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert encode(spaces.Discrete(3, start=-1), np.array([-1, 1])).tolist() == [[1, 0, 0], [0, 0, 1]]


def test_several_choices_are_one_hot_side_by_side() -> None:
    assert encode(spaces.MultiDiscrete([2, 3]), np.array([[1, 0], [0, 2]])).tolist() == [
        [0, 1, 1, 0, 0],
        [1, 0, 0, 0, 1],
    ]
    grid = spaces.MultiDiscrete([[2, 2], [2, 2]])
    assert encode(grid, np.array([[[0, 1], [1, 0]]])).tolist() == [[1, 0, 0, 1, 0, 1, 1, 0]]


def test_choices_that_start_elsewhere_are_counted_from_there() -> None:
    space = spaces.MultiDiscrete([2, 3], start=[5, -1])
    assert encode(space, np.array([[6, -1]])).tolist() == [[0, 1, 1, 0, 0]]


def test_bits_are_read_as_numbers() -> None:
    assert encode(spaces.MultiBinary(3), np.array([[1, 0, 1]], np.int8)).tolist() == [[1, 0, 1]]
    assert encode(spaces.MultiBinary((2, 2)), np.array([[[1, 0], [0, 1]]], np.int8)).tolist() == [[1, 0, 0, 1]]


def test_nested_observations_are_read_leaf_by_leaf_whatever_order_their_keys_come_in() -> None:
    space = spaces.Dict(
        {
            "place": spaces.Box(-1, 1, (2,)),
            "parts": spaces.Tuple((spaces.Discrete(2, start=1), spaces.Dict({"x": spaces.Box(-1, 1, (1,))}))),
        }
    )
    one = {
        "parts": (np.array([2]), {"x": np.array([[0.25]], np.float32)}),
        "place": np.array([[0.5, -0.5]], np.float32),
    }
    # Numbers first, in the space's order (Gymnasium sorts keys), then choices.
    assert encode(space, one).tolist() == [[0.25, 0.5, -0.5, 0, 1]]
    assert encode(space, dict(reversed(one.items()))).tolist() == [[0.25, 0.5, -0.5, 0, 1]]


def test_the_action_mask_is_no_feature() -> None:
    space = spaces.Dict({"action_mask": spaces.MultiBinary(4), "x": spaces.Box(-1, 1, (1,))})
    assert ObservationLayout(space).mask_key == "action_mask"
    assert encode(space, {"action_mask": np.ones((1, 4), np.int8), "x": np.zeros((1, 1))}).tolist() == [[0]]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (2, 3)), spaces.Box(-1, 1, ()), spaces.Discrete(3, start=2), spaces.MultiDiscrete([2, 3]),
        spaces.MultiDiscrete([[2, 3], [4, 5]]), spaces.MultiBinary((2, 2)), IMAGE,
        spaces.Box(0, 255, (4, 4, 3), np.uint8),
        spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Tuple((spaces.Box(-1, 1, (2, 2)), IMAGE))}),
    ],
    ids=lambda space: type(space).__name__ + str(space.shape),
)  # fmt: skip
def test_rows_are_encoded_step_by_step(space: gymnasium.Space[Any]) -> None:
    rows = random_observations(space, (2, 3), np.random.default_rng(0))
    encoder = Encoder(ObservationLayout(space))
    together = encoder(rows, 2, None)
    assert together.shape == (2, 3, encoder.size)
    for n in range(2):
        for t in range(3):
            alone = encoder(map_nested(lambda leaf, n=n, t=t: leaf[n, t].unsqueeze(0), rows), 1, None)
            torch.testing.assert_close(together[n, t], alone[0], atol=1e-5, rtol=1e-5)


def test_images_channels_first_and_last_are_the_same_pixels() -> None:
    first, last = spaces.Box(0, 255, (3, 40, 38), np.uint8), spaces.Box(0, 255, (40, 38, 3), np.uint8)
    pixels = np.random.default_rng(0).integers(256, size=(2, 3, 40, 38)).astype(np.uint8)
    one, other = Encoder(ObservationLayout(first)), Encoder(ObservationLayout(last))
    other.load_state_dict(one.state_dict())
    features = one(torch.from_numpy(pixels), 1, None)
    torch.testing.assert_close(features, other(torch.from_numpy(pixels.transpose(0, 2, 3, 1)), 1, None))
    expected = one.images[0].network(torch.from_numpy(pixels).float())
    torch.testing.assert_close(features, expected)


def test_an_image_too_small_for_three_strides_is_a_vector() -> None:
    layout = ObservationLayout(spaces.Box(0, 255, (35, 35, 3), np.uint8))
    assert not layout.images
    assert layout.numbers == [((), 35 * 35 * 3)]


@pytest.mark.parametrize(
    "space", [spaces.Text(3), spaces.Sequence(spaces.Discrete(2)), spaces.Graph(spaces.Discrete(2), None)]
)
def test_a_space_that_cannot_be_observed_is_refused_with_a_way_out(space: gymnasium.Space[Any]) -> None:
    with pytest.raises(RllabError, match=r"cannot observe .* wrap the environment"):
        ObservationLayout(spaces.Dict({"inside": space}))


def test_natures_network_has_512_features_and_as_many_parameters_as_the_papers() -> None:
    network = NatureCNN(4, 84, 84)
    assert network(torch.zeros(2, 4, 84, 84)).shape == (2, 512)
    layers = [32 * 4 * 8 * 8 + 32, 64 * 32 * 4 * 4 + 64, 64 * 64 * 3 * 3 + 64, 512 * 64 * 7 * 7 + 512]
    assert sum(p.numel() for p in network.parameters()) == sum(layers) == 1_684_128


def assert_orthogonal(weight: Tensor, gain: float) -> None:
    matrix = weight.detach().flatten(1)
    small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    torch.testing.assert_close(small, gain**2 * torch.eye(len(small)), atol=1e-4, rtol=1e-4)


def test_weights_begin_orthogonal_with_the_gains_of_the_37_details_and_biases_at_zero() -> None:
    policy = make_policy(spread=0.0, hidden_sizes=(16, 12))
    for network, gain in ((policy.module.actor, 0.01), (policy.module.critic, 1.0)):
        linear = [layer for layer in network if isinstance(layer, nn.Linear)]
        for layer in linear[:-1]:
            assert_orthogonal(layer.weight, SQRT_TWO)
        assert_orthogonal(linear[-1].weight, gain)
        assert all(not layer.bias.any() for layer in linear)
    for convolution in NatureCNN(4, 36, 36).convolutions:
        if isinstance(convolution, nn.Conv2d):
            assert_orthogonal(convolution.weight, SQRT_TWO)
    core = RecurrentCore("lstm", 5, 4).network
    assert_orthogonal(core.weight_ih_l0, 1.0)
    assert_orthogonal(core.weight_hh_l0, 1.0)
    assert not core.bias_ih_l0.any()


def test_an_mlp_ends_in_a_linear_layer_without_activation() -> None:
    kinds = [type(layer) for layer in mlp([3, 5, 4, 2], "relu", 1.0)]
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in mlp([3, 2], "tanh", 1.0)] == [nn.Linear]


def test_normalised_numbers_have_mean_0_and_deviation_1_and_stay_within_10() -> None:
    normaliser = Normaliser(2)
    numbers = torch.tensor([5.0, -3.0]) + torch.tensor([2.0, 0.1]) * torch.randn(500, 2)
    assert torch.equal(normaliser(numbers.clamp(-9, 9)), numbers.clamp(-9, 9))  # before it has seen anything
    valid = torch.ones(500, dtype=torch.bool)
    valid[0] = False
    numbers[0] = 1e6
    normaliser.adapt(numbers, valid)
    normal = normaliser(numbers)
    torch.testing.assert_close(normal[1:].mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(normal[1:].std(0, unbiased=False), torch.ones(2), atol=1e-4, rtol=0)
    assert normal[0].tolist() == [10, 10]


def step_by_step(core: RecurrentCore, features: Tensor, starts: Tensor, state: Tensor) -> Tensor:
    """The recurrence as one acts: a step of all rows at a time, state zeroed where an episode begins."""
    outputs = []
    for t in range(features.shape[1]):
        state = torch.where(starts[:, t, None], torch.zeros_like(state), state)
        output, state = core.step(features[:, t], state)
        outputs.append(output)
    return torch.stack(outputs, dim=1)


STARTS = {
    "no episode begins": torch.zeros(3, 7, dtype=torch.bool),
    "every step begins one": torch.ones(3, 7, dtype=torch.bool),
    "here and there": torch.tensor(
        [[1, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1], [0, 1, 1, 0, 0, 1, 0]], dtype=torch.bool
    ),
    "first column only": (torch.arange(7) == 0).expand(3, 7),
}


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("where", sorted(STARTS))
def test_rows_in_one_pass_equal_single_steps_gradients_included(kind: Literal["lstm", "gru"], where: str) -> None:
    torch.manual_seed(0)
    core = RecurrentCore(kind, 4, 5)
    for parameter in core.parameters():
        nn.init.normal_(parameter, std=0.5)
    features = torch.randn(3, 7, 4, requires_grad=True)
    state = torch.randn(3, core.state_size, requires_grad=True)
    weights = torch.randn(3, 7, 5)
    inputs = [features, state, *core.parameters()]

    def gradients(outputs: Tensor) -> list[Tensor]:
        found = torch.autograd.grad((outputs * weights).sum(), inputs, allow_unused=True)
        return [torch.zeros_like(i) if g is None else g for g, i in zip(found, inputs, strict=True)]

    together = core(features, STARTS[where], state)
    alone = step_by_step(core, features, STARTS[where], state)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    for one, other in zip(gradients(together), gradients(alone), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("share", [True, False])
def test_a_recurrent_policy_acts_as_it_evaluates(kind: str, share: bool) -> None:
    policy = make_policy(recurrence=kind, share_torso=share)
    batch = make_batch(policy, 3, 6)
    assert batch.starts is not None
    assert batch.hidden is not None
    noise = policy.family.draw_noise(np.random.default_rng(0), (6, 3))
    hidden, actions = batch.hidden, []
    for t in range(6):
        hidden = torch.where(batch.starts[:, t, None], torch.zeros_like(hidden), hidden)
        action, after = policy.act(batch.observations[:, t].numpy(), noise[t], hidden=hidden)
        assert after is not None
        hidden = after
        actions.append(torch.from_numpy(action))
    with torch.no_grad():
        parameters, _ = policy.module(batch)
    expected = policy.distribution(parameters).sample(torch.from_numpy(noise).transpose(0, 1))
    assert torch.equal(torch.stack(actions, dim=1), expected)
