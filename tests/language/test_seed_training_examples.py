"""What the seed document says of training a Transformer, of mixtures of experts and of ULMFiT, by this project's code.

Where its code or an example errs, what is right is asserted; docs/seed-errata-language.md says why.
"""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from language.models.attention import AttentionMask, attend, reference_attention, reference_weights
from language.models.gating import squared_variation
from language.models.transformer import Transformer, TransformerConfig
from language.training.schedules import noam_peak, schedule_factor
from language.training.translation import judge, padded


def rate(step: int) -> float:
    """The learning rate of the base model's step, counted from 1."""
    return schedule_factor("noam", step - 1, 100_000, 4000) * noam_peak(512, 4000)


@pytest.mark.parametrize("step", [1, 100, 3999, 4000, 4001, 100_000])
def test_the_learning_rate_is_the_seeds_formula(step: int) -> None:
    assert rate(step) == pytest.approx(512**-0.5 * min(step**-0.5, step * 4000**-1.5), rel=1e-12)


def test_it_falls_as_the_inverse_root_of_the_step() -> None:
    assert rate(16_000) == pytest.approx(rate(4000) / 2)  # "proportionally to the square root" would double it


def test_a_schedule_that_is_stepped_after_the_optimizer_makes_the_first_step_with_adams_own_rate() -> None:
    assert 1e-3 / rate(1) == pytest.approx(5724, abs=1)
    assert rate(4000) < 1e-3
    weights = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.Adam([weights], lr=1e-3, betas=(0.9, 0.98), eps=1e-9)
    weights.grad = torch.tensor([1e-4, -1.0, 30.0])
    optimizer.step()
    # Adam's first step has the learning rate's size in every weight, whatever the gradient.
    torch.testing.assert_close(weights.detach(), torch.tensor([-1e-3, 1e-3, -1e-3]), rtol=1e-4, atol=0)


def look_ahead(length: int) -> Tensor:
    """The seed's mask: true above the diagonal."""
    return torch.triu(torch.ones(length, length), diagonal=1).bool()


def test_the_look_ahead_mask_says_where_not_to_look() -> None:
    x = torch.randn(1, 1, 4, 8, generator=torch.Generator().manual_seed(0))
    causal = attend(x, x, x, AttentionMask(causal=True))
    torch.testing.assert_close(reference_attention(x, x, x, ~look_ahead(4)), causal)
    layer = nn.MultiheadAttention(8, 1, bias=False, batch_first=True)
    with torch.no_grad():
        layer.in_proj_weight.copy_(torch.eye(8).repeat(3, 1))
        layer.out_proj.weight.copy_(torch.eye(8))
        theirs, _ = layer(x[0], x[0], x[0], attn_mask=look_ahead(4))
    torch.testing.assert_close(theirs, causal[0])


def test_where_true_means_look_the_same_mask_shows_the_future_and_leaves_the_last_token_nothing() -> None:
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    weights = reference_weights(x, x, look_ahead(4))
    assert weights[0, 0] == 0
    assert weights[0, 1:].sum() == pytest.approx(1)
    assert weights[3].isnan().all()


def seeds_loss(target: Tensor, prediction: Tensor, pad_token: int = 0) -> Tensor:
    """The seed's masked loss with `reshape` for its `view`."""
    mask = (target != pad_token).float().reshape(-1)
    losses = functional.cross_entropy(
        prediction.reshape(-1, prediction.shape[-1]), target.reshape(-1), reduction="none"
    )
    return (losses * mask).sum() / mask.sum()


PAIRS = [([5, 2], [1, 7, 8, 2]), ([5, 6, 2], [1, 9, 2])]
"""Begin is 1, end is 2."""


def test_the_masked_loss_is_ours_without_smoothing_once_its_views_are_reshaped() -> None:
    batch = padded(PAIRS)
    targets, valid = batch.target[:, 1:], batch.target_valid[:, 1:]
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        targets.view(-1)  # a slice of columns has gaps
    logits = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0))
    judged = judge(logits, targets, valid)
    torch.testing.assert_close(seeds_loss(targets, logits), judged.plain / judged.targets)
    assert float(judge(logits, targets, valid, 0.1).smoothed) != pytest.approx(float(judged.plain))


def test_a_loss_that_knows_padding_by_its_id_overlooks_a_word_that_has_it() -> None:
    targets, everything = torch.tensor([[0, 3, 2]]), torch.ones(1, 3, dtype=torch.bool)
    logits = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0))
    judged = judge(logits, targets, everything)
    assert judged.targets == 3
    without = judge(logits, targets, torch.tensor([[False, True, True]]))
    torch.testing.assert_close(seeds_loss(targets, logits), without.plain / 2)
    assert float(seeds_loss(targets, logits)) != pytest.approx(float(judged.plain / 3))


def test_taking_off_the_last_column_takes_the_end_token_from_the_longest_rows_alone() -> None:
    inputs = padded(PAIRS).target[:, :-1]
    assert inputs.tolist() == [[1, 7, 8], [1, 9, 2]]
    # It does no harm: what the decoder says after the end token is not judged.
    assert padded(PAIRS).target_valid[:, 1:].tolist() == [[True, True, True], [True, True, False]]


def test_masking_the_loss_is_not_enough_where_the_source_has_padding() -> None:
    torch.manual_seed(0)
    config = TransformerConfig(20, 8, layers=1, heads=2, width=16, dropout=0.0)
    model = Transformer(config).eval()
    batch = padded(PAIRS)
    with torch.no_grad():
        alone = model(batch.source[:1, :2], batch.target[:1, :-1])
        masked = model(batch.source, batch.target[:, :-1], batch.source_valid)[:1]
        unmasked = model(batch.source, batch.target[:, :-1])[:1]
    torch.testing.assert_close(masked, alone)
    assert float((unmasked - alone).abs().max()) > 1e-3


def test_dot_products_have_the_variance_that_the_scale_takes_away() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(2, 400, 64, generator=generator)
    assert float((queries @ keys.T).var()) == pytest.approx(64, rel=0.1)
    scaled = reference_weights(queries, keys)
    unscaled = torch.softmax(queries @ keys.T, -1)
    assert float(scaled.amax(1).mean()) < 0.1
    assert float(unscaled.amax(1).mean()) > 0.5  # one key has most of it: there softmax hardly has a slope


def test_squaring_the_variation_takes_its_kink_away_and_punishes_small_imbalance_less() -> None:
    even = torch.ones(4, requires_grad=True)
    (slope,) = torch.autograd.grad(squared_variation(even), even)
    assert slope.tolist() == [0, 0, 0, 0]
    (kink,) = torch.autograd.grad(squared_variation(even).sqrt(), even)
    assert kink.isnan().all()
    slight, collapsed = torch.tensor([9.0, 11.0]), torch.tensor([8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert float(squared_variation(slight)) == pytest.approx(0.1**2)
    assert float(squared_variation(collapsed)) == pytest.approx(7)  # CV = √7


def test_fewer_than_ten_steps_have_no_slanted_triangle_by_the_seeds_formula() -> None:
    cut = math.floor(9 * 0.1)
    assert cut == 0
    with pytest.raises(ZeroDivisionError):
        1 - (5 - cut) / (cut * (1 / 0.1 - 1))
    ours = [schedule_factor("slanted", step, 9, cut, 1 / 32) for step in range(9)]
    assert (max(ours), min(ours)) == (ours[0], ours[-1]) == (1, 1 / 32)
