"""Image networks: NatureCNN as the peer computes it, IMPALA's by its figure, bfloat16 beside float32, channels last."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from synthetic import make_batch, make_policy

from envs.errors import RllabError
from rllab.frames import FrameStacks
from rllab.policies import ActorCritic, PolicyConfig
from rllab.policies.flat import laid_flat, shaped
from rllab.policies.images import ImageEncoder, ImpalaCNN, Residual

SCREEN = spaces.Box(0, 255, (4, 84, 84), np.uint8)


def screens(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 4, 84, 84), np.uint8))


def encoder(network: str = "nature", precision: str = "float32") -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoder((4, 84, 84), False, network, precision)  # type: ignore[arg-type]


def test_natures_network_gives_the_features_of_stable_baselines3() -> None:
    torch_layers = pytest.importorskip("stable_baselines3.common.torch_layers")
    peer = torch_layers.NatureCNN(SCREEN)
    ours = encoder()
    theirs = [layer for layer in [*peer.cnn, *peer.linear] if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    own = [layer for layer in ours.network.modules() if isinstance(layer, torch.nn.Conv2d)]
    for mine, other in zip(own, theirs, strict=True):
        # Our fully connected layer is a convolution over the whole map: the same weights in the same order.
        mine.weight.data = other.weight.data.view_as(mine.weight)
        mine.bias.data = other.bias.data
    images = screens(3)
    torch.testing.assert_close(ours(images, 1), peer(images.float() / 255), atol=1e-5, rtol=1e-4)


def test_stacks_stored_once_give_the_features_of_whole_stacks() -> None:
    frames = torch.randint(0, 256, (12, 84, 84), dtype=torch.uint8)
    stacks = FrameStacks(frames, torch.randint(0, 12, (2, 3, 4)))
    network = encoder()
    torch.testing.assert_close(network(stacks, 2), network(stacks.pixels(), 2))
    assert network(stacks, 2).shape == (2, 3, 512)


def test_impalas_network_has_three_sections_of_two_blocks_and_256_features() -> None:
    network = ImpalaCNN(4, 84, 84)
    assert network(torch.zeros(2, 4, 84, 84)).shape == (2, 256)
    expected, inside = 0, 4
    for width in (16, 32, 32):  # figure 3 of Espeholt et al. 2018
        expected += 9 * inside * width + width + 4 * (9 * width * width + width)
        inside = width
    expected += 256 * 32 * 11 * 11 + 256
    assert sum(p.numel() for p in network.parameters()) == expected == 1_089_232


def test_a_residual_block_is_its_formula() -> None:
    block = Residual(2)
    first, second = (layer for layer in block.branch if isinstance(layer, torch.nn.Conv2d))
    images = torch.randn(1, 2, 5, 5)
    expected = images + second(torch.relu(first(torch.relu(images))))
    before = images.clone()
    torch.testing.assert_close(block(images), expected)
    assert torch.equal(images, before), "the block may not change what it is given"


@pytest.mark.parametrize("network", ["nature", "impala"])
def test_bfloat16_features_are_float32s_to_its_three_digits(network: str) -> None:
    full, half = encoder(network), encoder(network, "bfloat16")
    images = screens(4)
    with torch.no_grad():
        expected, features = full(images, 1), half(images, 1)
    assert features.dtype == torch.float32
    assert not torch.equal(features, expected), "bfloat16 was not used"
    assert (features - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("network", ["nature", "impala"])
def test_gradients_in_bfloat16_point_where_float32s_do(network: str) -> None:
    gradients = []
    for precision in ("float32", "bfloat16"):
        net = encoder(network, precision)
        net(screens(8), 1).square().mean().backward()
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in net.parameters())
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    cosine = torch.nn.functional.cosine_similarity(*gradients, dim=0)
    assert cosine > 0.99


def test_actor_and_critic_share_the_torso_and_its_gradient() -> None:
    policy = ActorCritic(SCREEN, gymnasium.spaces.Discrete(6), PolicyConfig())
    torso = sum(p.numel() for p in policy.module.torso.parameters())
    assert policy.flat.numel() == torso + 512 * 6 + 6 + 512 + 1  # heads alone stand beside it
    assert torso == 1_684_128


def test_weights_of_convolutions_lie_channels_last_in_the_flat_buffer() -> None:
    policy = make_policy(spaces.Box(0, 255, (36, 36, 2), np.uint8), hidden_sizes=())
    weight = next(p for p in policy.module.parameters() if p.dim() == 4)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert weight.untyped_storage().data_ptr() == policy.flat.untyped_storage().data_ptr()
    assert weight.grad.untyped_storage().data_ptr() == policy.flat.grad.untyped_storage().data_ptr()
    assert torch.equal(shaped(laid_flat(weight), weight), weight)
    loss = policy.evaluate(make_batch(policy, 1, 2)).value.sum()
    gradient = policy.gradient(loss, policy.flat)
    laid = torch.cat([laid_flat(p.grad) for p in [*policy._actor, *policy.module.critic_only()]])
    assert torch.equal(gradient, laid)
    assert gradient.any()


@pytest.mark.parametrize("config", [PolicyConfig(image_network="impala"), PolicyConfig(precision="bfloat16")])
def test_a_state_is_taken_over_whatever_the_network(config: PolicyConfig) -> None:
    policies = [ActorCritic(SCREEN, spaces.Discrete(3), config, seed=seed) for seed in (0, 1)]
    assert not torch.equal(policies[0].flat, policies[1].flat)
    policies[1].load_state_dict(policies[0].state_dict())
    assert torch.equal(policies[0].flat, policies[1].flat)


@pytest.mark.parametrize("config", [PolicyConfig(image_network="impala"), PolicyConfig(precision="bfloat16")])
def test_choices_for_images_are_refused_where_there_are_none(config: PolicyConfig) -> None:
    with pytest.raises(RllabError, match="for observations that are images"):
        ActorCritic(spaces.Box(-1, 1, (3,)), spaces.Discrete(2), config)
