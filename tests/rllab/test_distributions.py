"""Action distributions equal torch.distributions, and actions reach every space in the form it wants."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from synthetic import ACTION_SPACES, BOX, DISCRETE, MULTI_BINARY, MULTI_DISCRETE, random_mask
from torch import Tensor, distributions

from envs.errors import RllabError
from rllab.policies.distributions import ActionFamily, Bernoulli, Categorical, DiagonalGaussian, action_family

SHAPE = (2, 5)
FAMILIES = sorted(ACTION_SPACES)
MASKABLE = ["discrete", "multi_binary", "multi_discrete"]


def draw(family: ActionFamily, seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Random parameters in double precision `[*shape, D]`."""
    width = family.size * (2 if family.is_gaussian else 1)
    return torch.randn(*shape, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sample(family: ActionFamily, parameters: Tensor, mask: Tensor | None, seed: int) -> Tensor:
    noise = family.draw_noise(np.random.default_rng(seed), tuple(parameters.shape[:-1]))
    return family.build(parameters, mask).sample(torch.from_numpy(noise))


class Oracle:
    """The same distribution by torch.distributions, renormalised over legal actions only."""

    def __init__(self, name: str, parameters: Tensor, mask: Tensor | None) -> None:
        self.name = name
        if name == "box":
            mean, log_std = parameters.chunk(2, -1)
            self.parts: list[Any] = [distributions.Independent(distributions.Normal(mean, log_std.exp()), 1)]
        elif name == "multi_binary":
            legal = torch.ones_like(parameters) if mask is None else mask
            self.parts = [distributions.Independent(distributions.Bernoulli(parameters.sigmoid() * legal), 1)]
        else:
            sizes = [4] if name == "discrete" else [3, 2, 4]
            weights = parameters.exp() if mask is None else parameters.exp() * mask
            self.parts = [distributions.Categorical(part) for part in weights.split(sizes, -1)]

    def log_prob(self, actions: Tensor) -> Tensor:
        if self.name in ("box", "multi_binary"):
            return self.parts[0].log_prob(actions.double())
        columns = actions.unbind(-1) if self.name == "multi_discrete" else [actions]
        return torch.stack([p.log_prob(a) for p, a in zip(self.parts, columns, strict=True)]).sum(0)

    def entropy(self) -> Tensor:
        return torch.stack([part.entropy() for part in self.parts]).sum(0)

    def kl(self, other: "Oracle") -> Tensor:
        pairs = zip(self.parts, other.parts, strict=True)
        return torch.stack([distributions.kl_divergence(p, q) for p, q in pairs]).sum(0)


@pytest.mark.parametrize(
    ("name", "masked"), [*((name, False) for name in FAMILIES), *((name, True) for name in MASKABLE)]
)
class TestAgainstTorch:
    """Each family, with and without masks."""

    def test_log_probability_entropy_and_divergence(self, name: str, masked: bool) -> None:
        family = action_family(ACTION_SPACES[name])
        mask = random_mask(family.space, SHAPE, np.random.default_rng(0)) if masked else None
        old, new = draw(family, 0), draw(family, 1)
        ours, theirs = family.build(old, mask), Oracle(name, old, mask)
        actions = sample(family, old, mask, 0)
        assert ours.log_prob(actions).shape == SHAPE
        torch.testing.assert_close(ours.log_prob(actions), theirs.log_prob(actions))
        torch.testing.assert_close(ours.entropy(), theirs.entropy())
        other, theirs_other = family.build(new, mask), Oracle(name, new, mask)
        torch.testing.assert_close(ours.kl(other), theirs.kl(theirs_other))
        torch.testing.assert_close(other.kl(ours), theirs_other.kl(theirs))

    def test_fisher_product_is_the_hessian_of_the_divergence_from_here(self, name: str, masked: bool) -> None:
        family = action_family(ACTION_SPACES[name])
        mask = random_mask(family.space, (), np.random.default_rng(0)) if masked else None
        here, tangent = draw(family, 0, ()), draw(family, 2, ())

        def divergence(parameters: Tensor) -> Tensor:
            return family.build(here, mask).kl(family.build(parameters, mask))

        hessian = torch.autograd.functional.hessian(divergence, here)
        torch.testing.assert_close(family.build(here, mask).fisher_product(tangent), hessian @ tangent)

    def test_divergence_from_itself_is_exactly_zero_in_single_precision(self, name: str, masked: bool) -> None:
        family = action_family(ACTION_SPACES[name])
        mask = random_mask(family.space, (200,), np.random.default_rng(0)) if masked else None
        parameters = draw(family, 0, (200,)).float()
        one, other = family.build(parameters, mask), family.build(parameters.clone(), mask)
        assert torch.equal(one.kl(other), torch.zeros(200))

    def test_the_mode_is_the_most_likely_action(self, name: str, masked: bool) -> None:
        family = action_family(ACTION_SPACES[name])
        mask = random_mask(family.space, SHAPE, np.random.default_rng(1)) if masked else None
        distribution = family.build(draw(family, 0), mask)
        best = distribution.log_prob(distribution.mode())
        for seed in range(30):
            assert (distribution.log_prob(sample(family, draw(family, 0), mask, seed)) <= best + 1e-12).all()

    def test_samples_have_the_frequencies_that_log_prob_says(self, name: str, masked: bool) -> None:
        family, count = action_family(ACTION_SPACES[name]), 40_000
        mask = random_mask(family.space, (), np.random.default_rng(4)) if masked else None
        here = draw(family, 5, ())
        many = None if mask is None else mask.expand(count, -1)
        drawn = sample(family, here.expand(count, -1), many, 3).reshape(count, -1)
        if name == "box":
            mean, log_std = here.chunk(2)
            assert torch.all((drawn.mean(0) - mean).abs() < 4 * log_std.exp() / count**0.5)
            assert torch.all((drawn.std(0).log() - log_std).abs() < 4 / (2 * count) ** 0.5)
            correlations = torch.corrcoef(drawn.T) - torch.eye(3)
            assert correlations.abs().max() < 4 / count**0.5
            return
        actions, counts = drawn.unique(dim=0, return_counts=True)
        shaped = actions.reshape(-1, *family.shape)
        probabilities = family.build(here.expand(len(actions), -1), mask).log_prob(shaped).exp()
        deviation = (probabilities * (1 - probabilities) / count).sqrt()
        assert torch.all((counts / count - probabilities).abs() < 4.5 * deviation)
        assert float(probabilities.sum()) == pytest.approx(1, abs=1e-3)

    def test_an_action_sampled_from_single_precision_noise_has_the_shape_and_type_that_rollouts_store(
        self, name: str, masked: bool
    ) -> None:
        family = action_family(ACTION_SPACES[name])
        mask = random_mask(family.space, SHAPE, np.random.default_rng(0)) if masked else None
        drawn = sample(family, draw(family, 0).float(), mask, 0)
        assert drawn.shape == (*SHAPE, *family.shape)
        assert drawn.dtype == family.dtype
        assert family.build(draw(family, 0).float(), mask).mode().dtype == family.dtype


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e6, 1e12])
def test_an_illegal_action_has_no_probability_and_is_never_sampled(scale: float) -> None:
    mask = torch.tensor([[True, False, True, False]]).expand(2000, 4)
    logits = scale * torch.tensor([[-1.0, 1.0, -2.0, 3.0]]).expand(2000, 4)
    distribution = Categorical(logits, mask)
    drawn = sample(action_family(DISCRETE), logits, mask, 0)
    assert set(drawn.tolist()) <= {0, 2}
    assert distribution.log_probs.exp()[:, [1, 3]].max() == 0
    assert set(distribution.mode().tolist()) == {0}


def test_an_illegal_bit_is_always_0() -> None:
    mask = torch.tensor([[True, False]]).expand(500, 2)
    logits = torch.tensor([[0.0, 50.0]]).expand(500, 2)
    drawn = sample(action_family(MULTI_BINARY), torch.nn.functional.pad(logits, (0, 1)), _padded(mask), 0)
    assert drawn[:, 1].max() == 0
    assert 0 < drawn[:, 0].float().mean() < 1
    assert Bernoulli(logits, mask).log_prob(torch.tensor([[0, 0]])).allclose(torch.tensor(0.5).log())


def _padded(mask: Tensor) -> Tensor:
    return torch.nn.functional.pad(mask, (0, 1), value=True)


@pytest.mark.parametrize("scale", [30.0, 1e3, 1e6])
@pytest.mark.parametrize("name", MASKABLE)
@pytest.mark.parametrize("masked", [False, True])
def test_extreme_logits_stay_finite_gradients_included(name: str, masked: bool, scale: float) -> None:
    family = action_family(ACTION_SPACES[name])
    mask = random_mask(family.space, SHAPE, np.random.default_rng(0)) if masked else None
    parameters = (scale * draw(family, 0)).float().requires_grad_()
    distribution, other = family.build(parameters, mask), family.build(scale * draw(family, 1).float(), mask)
    log_prob, entropy = distribution.log_prob(distribution.mode()), distribution.entropy()
    divergence = distribution.kl(other)
    (log_prob.sum() + entropy.sum() + divergence.sum()).backward()  # type: ignore[no-untyped-call]
    for value in (log_prob, entropy, divergence, distribution.fisher_product(parameters), parameters.grad):
        assert value is not None
        assert value.isfinite().all()
    assert (entropy > -1e-3 * scale / 1e2).all()


def test_a_masked_divergence_is_finite_where_the_masks_agree_and_the_gradient_misses_illegal_logits() -> None:
    mask = torch.tensor([True, False, True])
    logits = torch.tensor([0.3, 5.0, -1.0], requires_grad=True)
    distribution = Categorical(logits, mask)
    (distribution.entropy() + distribution.kl(Categorical(torch.zeros(3), mask))).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad[1] == 0
    assert logits.grad[0] != 0


def test_the_gradient_of_a_gaussians_log_probability_is_the_seeds() -> None:
    parameters = torch.tensor([0.5, -1.0, 0.2, -0.3], requires_grad=True)
    action = torch.tensor([1.5, 2.0])
    DiagonalGaussian(parameters).log_prob(action).backward()  # type: ignore[no-untyped-call]
    mean, log_std = parameters.detach().chunk(2)
    inverse_covariance = torch.diag(torch.exp(-2 * log_std))
    assert parameters.grad is not None
    torch.testing.assert_close(parameters.grad[:2], inverse_covariance @ (action - mean))


def test_gumbel_noise_is_standard() -> None:
    noise = action_family(DISCRETE).draw_noise(np.random.default_rng(0), (50_000,))
    assert noise.dtype == np.float32
    assert noise.shape == (50_000, 4)
    assert noise.mean() == pytest.approx(np.euler_gamma, abs=0.01)
    assert noise.var() == pytest.approx(np.pi**2 / 6, rel=0.02)


def actions_for(space: gymnasium.Space[Any], scale: float = 3.0, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Sampled actions as rollouts keep them, and as the environment gets them."""
    family = action_family(space)
    width = family.size * (2 if family.is_gaussian else 1)
    parameters = torch.zeros(count, width)
    if family.is_gaussian:
        parameters[:, family.size :] = float(np.log(scale))
    drawn = sample(family, parameters, None, 0).numpy()
    return drawn, family.to_environment(drawn)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4), spaces.Discrete(4, start=-2), spaces.Discrete(1, start=7),
        BOX, spaces.Box(-2.0, 2.0, (2, 3), np.float32), spaces.Box(-2.0, 2.0, (), np.float32),
        spaces.Box(-2.0, 2.0, (3,), np.float64), spaces.Box(-np.inf, np.inf, (2,), np.float32),
        spaces.Box(np.array([-1, 0, 2], np.float32), np.array([1, 0.5, np.inf], np.float32)),
        MULTI_DISCRETE, spaces.MultiDiscrete([3, 2], start=[5, -1]), spaces.MultiDiscrete([[2, 3], [4, 5]]),
        spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 2], [3, 4]]), spaces.MultiDiscrete([3]),
        MULTI_BINARY, spaces.MultiBinary((2, 3)), spaces.MultiBinary(1),
    ],
    ids=repr,
)  # fmt: skip
def test_every_action_lies_in_its_space(space: gymnasium.Space[Any]) -> None:
    drawn, sent = actions_for(space)
    assert sent.shape == (40, *(space.shape or ()))
    assert all(space.contains(np.asarray(action, space.dtype)) for action in sent)
    before = drawn.copy()
    action_family(space).to_environment(drawn)
    np.testing.assert_array_equal(drawn, before)  # what is stored stays as it was sampled


def test_offsets_bounds_and_shapes_are_applied_in_place_of_each_number() -> None:
    def sent(space: gymnasium.Space[Any], action: list[float], dtype: Any) -> list[Any]:
        family = action_family(space)
        return family.to_environment(np.array([action], dtype)).tolist()[0]  # type: ignore[no-any-return]

    assert action_family(spaces.Discrete(5, start=10)).to_environment(np.array([0, 4])).tolist() == [10, 14]
    assert sent(spaces.MultiDiscrete([3, 2], start=[5, -1]), [2, 0], np.int64) == [7, -1]
    grid = spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 2], [3, 4]])
    assert sent(grid, [0, 1, 2, 3], np.int64) == [[1, 3], [5, 7]]
    assert sent(spaces.Box(-1.0, 1.0, (2, 2)), [-3.0, 0.5, 2.0, -0.5], np.float32) == [[-1, 0.5], [1, -0.5]]
    assert sent(spaces.MultiBinary((2, 2)), [0, 1, 1, 0], np.int8) == [[0, 1], [1, 0]]


def test_a_one_sided_bound_clips_that_side_only() -> None:
    space = spaces.Box(np.array([0.0], np.float32), np.array([np.inf], np.float32))
    assert action_family(space).to_environment(np.array([[-5.0], [5.0]], np.float32)).tolist() == [[0], [5]]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 255, (3,), np.uint8), spaces.Dict({"move": DISCRETE}), spaces.Tuple((DISCRETE, BOX)),
        spaces.Text(5), spaces.Sequence(DISCRETE),
    ],
    ids=repr,
)  # fmt: skip
def test_a_space_that_no_family_covers_is_refused_with_a_way_out(space: gymnasium.Space[Any]) -> None:
    with pytest.raises(RllabError, match=r"Discrete, Box .*wrap the environment"):
        action_family(space)
