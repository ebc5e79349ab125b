"""Fine-tuning in ULMFiT's way: the triangle by the paper's formula, rates by layer, layers that thaw."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.training.problem import Loss
from language.training.schedules import schedule_factor
from language.training.slanted import GradualUnfreezing, SlantedConfig, unfreeze
from language.training.supervised import SupervisedTraining
from language.training.training_config import TrainingConfig

TRAINING = TrainingConfig(steps=100, learning_rate=0.01, weight_decay=0.0, evaluation_every=0, clip_norm=0.0)


def paper(t: int, steps: int, cut_fraction: float = 0.1, ratio: float = 32) -> float:
    """Section 3.2, equation 3, over the highest rate."""
    cut = math.floor(steps * cut_fraction)
    p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_fraction - 1))
    return (1 + p * (ratio - 1)) / ratio


def rates(config: TrainingConfig) -> list[float]:
    return [
        schedule_factor(config.schedule, step, config.steps, config.warmup, config.floor)
        for step in range(config.steps)
    ]


def test_rates_are_the_paper_s_formula_at_the_number_of_the_step() -> None:
    for steps in (10, 100, 1000):
        config = SlantedConfig().training(replace(TRAINING, steps=steps))
        assert rates(config) == pytest.approx([paper(step + 1, steps) for step in range(steps)])


def test_rates_by_hand() -> None:
    found = rates(SlantedConfig().training(TRAINING))
    assert found[9] == max(found) == 1.0
    assert found[0] == pytest.approx((1 + 0.1 * 31) / 32)
    assert found[54] == pytest.approx((1 + 0.5 * 31) / 32)  # half of the way down: (55 − 10) / 90
    assert found[99] == min(found) == 1 / 32


def test_the_paper_s_formula_falls_below_0_where_the_cut_is_rounded_and_ours_does_not() -> None:
    assert paper(18, 19) == pytest.approx((1 - 8 / 9 * 31) / 32)
    for steps in (1, 2, 5, 19, 37):
        found = rates(SlantedConfig().training(replace(TRAINING, steps=steps)))
        assert min(found) >= 1 / 32
        assert max(found) <= 1.0


def test_adam_has_the_paper_s_numbers() -> None:
    config = SlantedConfig().training(TRAINING)
    assert (config.beta_1, config.beta_2, config.learning_rate) == (0.7, 0.99, 0.01)


def test_each_layer_s_rate_is_the_one_above_it_over_2_6() -> None:
    layers = [[nn.Parameter(torch.zeros(1))] for _ in range(4)]
    groups = SlantedConfig().groups(layers)
    assert [group.scale for group in groups] == pytest.approx([1 / 2.6**3, 1 / 2.6**2, 1 / 2.6, 1.0])
    assert [group.parameters for group in groups] == layers
    assert [group.scale for group in SlantedConfig(factor=1.0).groups(layers)] == [1.0] * 4


class Sum:
    """Make the sum of three weights large, of which Adam moves each by its own rate."""

    goal, higher_is_better = "sum", True

    def batch(self) -> int:
        return 1

    def loss(self, model: nn.Module, batch: int) -> Loss:
        return Loss(-torch.stack([parameter.sum() for parameter in model.parameters()]).sum(), 1, 1)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"sum": 0.0}

    def operations(self, model: nn.Module, tokens: int) -> float:
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def weights() -> tuple[nn.ParameterList, list[list[Tensor]]]:
    made = nn.ParameterList([nn.Parameter(torch.zeros(2)) for _ in range(3)])
    return made, [[parameter] for parameter in made]


def test_layers_move_by_their_own_rates() -> None:
    model, layers = weights()
    config = replace(TRAINING, schedule="constant", warmup=0)
    training = SupervisedTraining(model, Sum(), config, groups=SlantedConfig().groups(layers))
    training.step()
    # Adam's first step is the learning rate.
    assert [layer[0][0].item() for layer in layers] == pytest.approx([0.01 / 2.6**2, 0.01 / 2.6, 0.01], rel=1e-4)


def test_one_more_layer_learns_in_each_epoch_and_frozen_ones_stay_where_they_are() -> None:
    model, layers = weights()
    gradual = GradualUnfreezing(layers, epoch_steps=2)
    training = SupervisedTraining(
        model, Sum(), replace(TRAINING, steps=8), groups=SlantedConfig().groups(layers), before_step=gradual
    )
    moved = []
    for _ in range(8):
        before = [layer[0].detach().clone() for layer in layers]
        gradual(training)
        training.step()
        moved.append([not torch.equal(old, layer[0]) for old, layer in zip(before, layers, strict=True)])
    last, two, all_three = [False, False, True], [False, True, True], [True, True, True]
    assert moved == [last, last, two, two, *[all_three] * 4]


def test_freezing_takes_old_gradients_away() -> None:
    model, layers = weights()
    Sum().loss(model, 1).total.backward()
    unfreeze(layers, 2)
    assert [layer[0].grad is None for layer in layers] == [True, False, False]
    assert [layer[0].requires_grad for layer in layers] == [False, True, True]


@pytest.mark.parametrize("wrong", [{"cut_fraction": 0.0}, {"cut_fraction": 1.0}, {"ratio": 0.5}, {"factor": 0.9}])
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RllabError, match=next(iter(wrong))):
        SlantedConfig(**wrong)


def test_at_least_a_layer_must_learn_and_an_epoch_have_a_step() -> None:
    with pytest.raises(RllabError, match="At least one group"):
        unfreeze([], 0)
    with pytest.raises(RllabError, match="at least one step"):
        GradualUnfreezing([], 0)
