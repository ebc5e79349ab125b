import math

import pytest
import torch

from envs.errors import RllabError
from preference.bradley_terry import check_noise, cross_entropy, log_probability, probability


def test_probability_is_the_ratio_of_exponentiated_returns() -> None:
    first, second = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([0.1, 0.4, 2.0])
    expected = first.exp() / (first.exp() + second.exp())
    torch.testing.assert_close(probability(first - second), expected)


@pytest.mark.parametrize(("preference", "expected"), [(1.0, 0.126928), (0.0, 2.126928), (0.5, 1.126928)])
def test_cross_entropy_of_a_difference_of_two_by_hand(preference: float, expected: float) -> None:
    # −log σ(2) = 0.126928, −log σ(−2) = 2.126928; a tie is their mean.
    loss = cross_entropy(torch.tensor(2.0), torch.tensor(preference))
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_random_answers_mix_the_probability_with_one_half() -> None:
    # σ(log 3) = 3/4; 0.9 · 0.75 + 0.05 = 0.725
    difference = torch.tensor(math.log(3))
    assert float(probability(difference, 0.1)) == pytest.approx(0.725)
    assert float(log_probability(difference, 0.1).exp()) == pytest.approx(0.725)
    assert float(log_probability(-difference, 0.1).exp()) == pytest.approx(0.275)


def test_a_difference_of_any_magnitude_has_a_finite_loss_and_gradient() -> None:
    for noise in (0.0, 0.1):
        difference = torch.tensor([-1e30, -1e4, 0.0, 1e4, 1e30], requires_grad=True)
        loss = cross_entropy(difference, torch.ones(5), noise)
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert difference.grad is not None
        assert torch.isfinite(difference.grad).all()
    # With the noise no answer is impossible: −log(ε/2).
    assert float(loss[0].detach()) == pytest.approx(-math.log(0.05))


def test_the_gradient_is_the_probability_less_the_preference() -> None:
    difference = torch.linspace(-5, 5, 11, dtype=torch.float64, requires_grad=True)
    preference = torch.tensor([1.0, 0.0, 0.5] * 4, dtype=torch.float64)[:11]
    cross_entropy(difference, preference).sum().backward()
    torch.testing.assert_close(difference.grad, torch.sigmoid(difference.detach()) - preference)


def test_a_tie_is_least_surprising_at_equal_returns() -> None:
    losses = cross_entropy(torch.tensor([-1.0, -0.1, 0.0, 0.1, 1.0]), torch.full((5,), 0.5))
    assert int(losses.argmin()) == 2
    assert float(losses[2]) == pytest.approx(math.log(2))


@pytest.mark.parametrize("noise", [-0.1, 1.0, math.nan])
def test_a_share_of_random_answers_that_leaves_nothing_is_refused(noise: float) -> None:
    with pytest.raises(RllabError, match="share of random answers"):
        check_noise(noise)
