"""The normaliser that policies put before their networks."""

import torch

from rllab.policies.networks import Normaliser


def test_normalising_before_the_first_update_only_clips() -> None:
    normalised = Normaliser(3)(torch.tensor([-50.0, 0.5, 50.0]))
    assert normalised.tolist() == [-10.0, 0.5, 10.0]


def test_normalised_samples_have_mean_zero_and_deviation_one() -> None:
    values = torch.rand(40, 25, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 100.0])
    normaliser = Normaliser(2)
    normaliser.adapt(values, torch.ones(40, 25, dtype=torch.bool))
    normalised = normaliser(values)
    torch.testing.assert_close(normalised.mean((0, 1)), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(normalised.var((0, 1), unbiased=False), torch.ones(2), rtol=0, atol=1e-5)


def test_a_constant_feature_normalises_to_zero() -> None:
    normaliser = Normaliser(1)
    normaliser.adapt(torch.full((10, 1), 7.0), torch.ones(10, dtype=torch.bool))
    assert normaliser(torch.tensor([7.0])).tolist() == [0.0]
