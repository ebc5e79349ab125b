"""Mixture of experts: gates and losses by the paper's definitions, the layer against a readable loop, capacity."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.capacity import within_capacity
from language.models.expert_report import characteristic_tokens, strongest_places
from language.models.experts import Dispatch, Experts
from language.models.gating import Gate, chance_of_choice, choose, softmax_gate, squared_variation
from language.models.gpt import GPT, GPTConfig
from language.models.mixture_of_experts import (
    MixtureConfig,
    MixtureOfExperts,
    MixtureReport,
)

SMALL = MixtureConfig(width=6, feed_forward_width=5, experts=8, k=2)
HIERARCHICAL = replace(SMALL, experts=12, groups=4)


def layer(config: MixtureConfig, seed: int = 0) -> MixtureOfExperts:
    """A layer in float64 whose gates are not at 0 any more."""
    torch.manual_seed(seed)
    made = MixtureOfExperts(config).double()
    with torch.no_grad():
        for gate in (made.gate, made.secondary):
            if gate is not None:
                gate.clean.normal_()
                if gate.noise is not None:
                    gate.noise.normal_()
    return made


def tokens(rows: int, config: MixtureConfig = SMALL, seed: int = 1) -> Tensor:
    return torch.randn(rows, config.width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def looped(made: MixtureOfExperts, x: Tensor, report: MixtureReport, weights: Tensor) -> Tensor:
    """Token by token and expert by expert, with the assignments that were made."""
    outputs = []
    for row, experts, parts in zip(x, report.assignments.tolist(), weights, strict=True):
        output = torch.zeros_like(row)
        for expert, part in zip(experts, parts, strict=True):
            if expert >= 0:
                hidden = torch.relu(row @ made.experts.inwards[expert])
                output = output + part * (hidden @ made.experts.outwards[expert])
        outputs.append(output)
    return torch.stack(outputs)


def expected_weights(made: MixtureOfExperts, x: Tensor, assignments: Tensor) -> Tensor:
    """Without noise: softmaxes over the logits of the experts that were chosen, by their definition."""
    config = made.config
    weights = []
    for row, experts in zip(x, assignments.tolist(), strict=True):
        if made.secondary is None:
            weights.append(torch.softmax((row @ made.gate.clean)[experts], -1))
            continue
        size = config.experts_a_group
        groups = [experts[place] // size for place in range(0, len(experts), config.k)]
        outer = torch.softmax((row @ made.gate.clean)[groups], -1)
        for number, group in enumerate(groups):
            inside = [expert % size for expert in experts[number * config.k : (number + 1) * config.k]]
            inner = torch.softmax((row @ made.secondary.clean[group])[inside], -1)
            weights.append(outer[number] * inner)
    return torch.cat(weights).view(assignments.shape)


# --- the gate -------------------------------------------------------------------------------------------------------


def test_softmax_comes_after_the_top_k_are_kept() -> None:
    choice = choose(torch.tensor([[0.0, 2.0, -1.0, 1.0]]), None, 2)
    assert choice.experts.tolist() == [[1, 3]]
    assert choice.weights[0].tolist() == pytest.approx([math.e / (1 + math.e), 1 / (1 + math.e)])


def test_a_gate_that_keeps_all_experts_is_the_softmax_gate() -> None:
    torch.manual_seed(0)
    gate = Gate(6, 4, k=4, noisy=False).double()
    nn.init.normal_(gate.clean)
    choice = gate(tokens(9))
    in_order = torch.zeros_like(choice.logits).scatter(-1, choice.experts, choice.weights)
    torch.testing.assert_close(in_order, softmax_gate(tokens(9), gate.clean))


def test_noise_is_gaussian_with_the_softplus_of_its_own_matrix_and_only_in_training() -> None:
    gate = Gate(1, 2, k=1).double()
    with torch.no_grad():
        gate.clean.copy_(torch.tensor([[1.0, -2.0]]))
        gate.noise.copy_(torch.tensor([[0.0, 3.0]]))
    torch.manual_seed(0)
    logits = gate(torch.ones(40_000, 1, dtype=torch.float64)).logits
    assert logits.mean(0).tolist() == pytest.approx([1, -2], abs=0.05)
    assert logits.std(0).tolist() == pytest.approx([math.log(2), math.log(1 + math.e**3)], rel=0.02)
    assert gate.eval()(torch.ones(1, 1, dtype=torch.float64)).logits.tolist() == [[1, -2]]


def test_matrices_begin_at_zero_so_that_all_experts_may_expect_as_many_tokens() -> None:
    torch.manual_seed(0)
    made = MixtureOfExperts(replace(SMALL, experts=4))
    assert not made.gate.clean.any()
    assert not made.gate.noise.any()
    _, report = made(torch.randn(4000, 6))
    assert report.load.tolist() == pytest.approx([2000] * 4, rel=0.05)
    assert report.counts.tolist() == pytest.approx([2000] * 4, rel=0.05)
    assert report.importance.tolist() == pytest.approx([1000] * 4, rel=0.05)


@given(st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_chance_of_choice_is_the_appendix_s_formula(k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean, noise, deviations = (torch.randn(3, 5, generator=generator, dtype=torch.float64) for _ in range(3))
    deviations = deviations.exp()
    noisy = clean + noise * deviations
    chances = chance_of_choice(clean, noisy, deviations, k)
    for row in range(3):
        for expert in range(5):
            others = sorted((float(noisy[row, other]) for other in range(5) if other != expert), reverse=True)
            threshold = others[k - 1] if k <= len(others) else -math.inf
            z = (float(clean[row, expert]) - threshold) / float(deviations[row, expert])
            assert float(chances[row, expert]) == pytest.approx(norm.cdf(z), abs=1e-12)


def test_chance_of_choice_is_how_often_new_noise_of_its_own_chooses_an_expert() -> None:
    torch.manual_seed(0)
    clean, deviations = torch.tensor([0.3, -0.2, 0.9, 0.1]), torch.tensor([0.5, 1.0, 0.7, 2.0])
    noisy = clean + torch.randn(4) * deviations
    chances = chance_of_choice(clean[None], noisy[None], deviations[None], 2)[0]
    for expert in range(4):
        trials = noisy.repeat(20_000, 1)
        trials[:, expert] = clean[expert] + torch.randn(20_000) * deviations[expert]
        chosen = (trials.topk(2).indices == expert).any(-1).float().mean()
        assert float(chosen) == pytest.approx(float(chances[expert]), abs=0.015)


# --- the losses -----------------------------------------------------------------------------------------------------


def test_squared_variation_by_hand() -> None:
    assert float(squared_variation(torch.tensor([1.0, 3.0]))) == pytest.approx(0.25)
    assert float(squared_variation(torch.tensor([5.0, 0, 0, 0]))) == pytest.approx(3)
    assert float(squared_variation(torch.tensor([5.0, 5, 0, 0, 0, 0]))) == pytest.approx(2)
    assert float(squared_variation(torch.full((7,), 2.5))) == 0
    assert float(squared_variation(torch.zeros(7))) == 0


def test_the_guide_s_experts_of_equal_importance_differ_in_load_alone() -> None:
    loads, weights = torch.tensor([100.0, 2, 50]), torch.tensor([0.01, 0.5, 0.02])
    assert float(squared_variation(loads * weights)) == pytest.approx(0, abs=1e-12)
    assert float(squared_variation(loads)) == pytest.approx(37_512 / 23_104 - 1)


def test_the_guide_s_batch_of_1024_gives_256_experts_16_tokens_each() -> None:
    config = MixtureConfig(width=4, feed_forward_width=1, experts=256, k=4)
    _, report = MixtureOfExperts(config)(torch.randn(1024, 4))
    assert float(report.counts.float().mean()) == 16


def test_importance_and_load_are_sums_over_the_tokens() -> None:
    made = layer(SMALL)
    torch.manual_seed(3)
    choice = made.gate(tokens(20))
    torch.manual_seed(3)
    _, report = made(tokens(20))
    gates = torch.zeros(20, 8, dtype=torch.float64).scatter(-1, choice.experts, choice.weights)
    torch.testing.assert_close(report.importance, gates.sum(0))
    torch.testing.assert_close(report.load, choice.chances.sum(0))
    loss = 0.1 * squared_variation(gates.sum(0)) + 0.1 * squared_variation(choice.chances.sum(0))
    torch.testing.assert_close(report.auxiliary_loss, loss)
    assert int(report.counts.sum()) == 40


def test_without_noise_load_is_the_number_of_tokens() -> None:
    _, report = layer(SMALL).eval()(tokens(20))
    assert report.load.tolist() == report.counts.tolist()


def test_each_loss_has_a_derivative_for_both_levels_of_gates() -> None:
    for weights in ((1.0, 0.0), (0.0, 1.0)):
        config = replace(HIERARCHICAL, importance_weight=weights[0], load_weight=weights[1])
        made = layer(config)
        made(tokens(30))[1].auxiliary_loss.backward()
        for gate in (made.gate, made.secondary):
            assert gate.clean.grad.abs().sum() > 0
        assert made.experts.inwards.grad is None or not made.experts.inwards.grad.any()


def test_descending_the_load_loss_evens_the_load_out() -> None:
    made = layer(replace(SMALL, importance_weight=0))
    optimiser = torch.optim.Adam(made.parameters(), 0.05)
    first = float(squared_variation(made(tokens(100))[1].load))
    for _ in range(40):
        optimiser.zero_grad()
        made(tokens(100))[1].auxiliary_loss.backward()
        optimiser.step()
    assert float(squared_variation(made(tokens(100))[1].load)) < first / 4


def test_importance_and_load_of_a_hierarchy_are_appendix_b_s() -> None:
    made, x = layer(HIERARCHICAL), tokens(25)
    torch.manual_seed(5)
    primary = made.gate(x)
    secondary = made.secondary(x, Dispatch.of(primary.experts, 4))
    torch.manual_seed(5)
    _, report = made(x)
    importance, load = (torch.zeros(4, 3, dtype=torch.float64) for _ in range(2))
    sizes = [0] * 4
    for row, group in enumerate(primary.experts.reshape(-1).tolist()):
        sizes[group] += 1
        load[group] += secondary.chances[row].detach()
        for expert, weight in zip(secondary.experts[row], secondary.weights[row], strict=True):
            importance[group, expert] += (primary.weights.reshape(-1)[row] * weight).detach()
    for group in range(4):
        load[group] *= primary.chances[:, group].detach().sum() / sizes[group]
    torch.testing.assert_close(report.importance.view(4, 3), importance)
    torch.testing.assert_close(report.load.view(4, 3), load)
    assert int(report.counts.sum()) == 25 * 4


# --- the layer ------------------------------------------------------------------------------------------------------


def test_an_expert_of_the_paper_has_1_048_576_parameters() -> None:
    with torch.device("meta"):
        one = Experts(1, 512, 1024)
        hierarchy = MixtureOfExperts(MixtureConfig(experts=4096, k=2, groups=16))
    assert sum(weight.numel() for weight in one.parameters()) == 1_048_576
    gates = 2 * 512 * (16 + 4096)
    assert sum(weight.numel() for weight in hierarchy.parameters()) == 4096 * 1_048_576 + gates


@pytest.mark.parametrize("config", [SMALL, HIERARCHICAL, replace(SMALL, experts=1, k=1), replace(SMALL, k=8)])
@pytest.mark.parametrize("padded", [False, True])
def test_output_and_derivatives_are_those_of_a_loop_over_tokens_and_experts(
    config: MixtureConfig, padded: bool
) -> None:
    made, x = layer(config).eval(), tokens(17, config).requires_grad_()
    valid = torch.arange(17) % 3 != 1 if padded else None
    output, report = made(x, valid)
    kept = torch.ones(17, dtype=torch.bool) if valid is None else valid
    weights = torch.zeros(17, config.experts_a_token, dtype=torch.float64)
    weights[kept] = expected_weights(made, x[kept], report.assignments[kept])
    torch.testing.assert_close(report.weights, weights.detach())
    expected = looped(made, x, report, weights)
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-12)
    direction = tokens(17, config, seed=7)
    wanted = [x, *(weight for weight in made.parameters() if weight.requires_grad)]
    ours = torch.autograd.grad((output * direction).sum(), wanted, allow_unused=True)
    theirs = torch.autograd.grad((expected * direction).sum(), wanted, allow_unused=True)
    for one, other, weight in zip(ours, theirs, wanted, strict=True):
        zero = torch.zeros_like(weight)
        torch.testing.assert_close(zero if one is None else one, zero if other is None else other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("config", [SMALL, HIERARCHICAL])
def test_the_chosen_experts_are_those_of_the_greatest_logits(config: MixtureConfig) -> None:
    made, x = layer(config).eval(), tokens(10, config)
    _, report = made(x)
    for row, experts in zip(x, report.assignments, strict=True):
        groups = (row @ made.gate.clean).topk(2).indices
        if made.secondary is None:
            assert experts.tolist() == groups.tolist()
            continue
        inside = [(row @ made.secondary.clean[group]).topk(2).indices + 3 * group for group in groups]
        assert experts.tolist() == torch.cat(inside).tolist()


def test_dispatched_products_are_those_with_the_matrix_of_each_claim() -> None:
    x, weights = tokens(5), torch.randn(4, 6, 3, dtype=torch.float64)
    claims = torch.tensor([[0, 3], [3, 1], [3, 0], [0, 3], [0, 1]])  # nobody asks for expert 2
    expected = torch.stack([row @ weights[claim] for row, two in zip(x, claims, strict=True) for claim in two])
    torch.testing.assert_close(Dispatch.of(claims, 4).product(x, weights), expected)


@pytest.mark.parametrize(
    ("loads", "products"),
    [([3, 2, 3, 4], 1), ([400, 0, 30, 20, 0, 390, 1, 0], 3), ([0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0], 1), ([0, 0], 1)],
)
def test_uneven_loads_are_split_into_products_of_which_fewer_than_half_the_slots_are_empty(
    loads: list[int], products: int
) -> None:
    claims = torch.cat([torch.full((load,), expert) for expert, load in enumerate(loads)] + [torch.full((3,), -1)])
    claims = claims[torch.randperm(len(claims), generator=torch.Generator().manual_seed(0))][:, None]
    dispatch = Dispatch.of(claims, len(loads))
    assert len(dispatch.batches) == products
    if dispatch.batches[0].experts is not None:
        assert sum(loads) <= len(dispatch.tokens) < 2 * sum(loads)
    torch.manual_seed(0)
    made = Experts(len(loads), 4, 3).double()
    x = torch.randn(len(claims), 4, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(len(claims), 1, dtype=torch.float64, requires_grad=True)
    inwards, outwards = (matrices[claims[:, 0].clamp(min=0)] for matrices in (made.inwards, made.outwards))
    hidden = torch.relu(torch.einsum("si,sij->sj", x, inwards))
    expected = torch.einsum("s,sj,sji->si", weights[:, 0] * (claims[:, 0] >= 0), hidden, outwards)
    output = made(x, claims, weights)
    torch.testing.assert_close(output, expected)
    wanted = [x, weights, made.inwards, made.outwards]
    ours, theirs = (torch.autograd.grad((y * y).sum(), wanted) for y in (output, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-12)


def test_derivatives_pass_torch_s_numerical_check_with_claims_that_nobody_took() -> None:
    torch.manual_seed(0)
    made = Experts(3, 4, 5).double()
    claims = torch.tensor([[0, 2], [2, -1], [-1, -1], [0, 2]])
    weights = torch.rand(4, 2, dtype=torch.float64).masked_fill(claims < 0, 0).requires_grad_()
    x = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, weights: Tensor, *matrices: Tensor) -> Tensor:
        masked = weights.masked_fill(claims < 0, 0)
        return torch.func.functional_call(
            made, dict(zip(("inwards", "outwards"), matrices, strict=True)), (x, claims, masked)
        )

    assert torch.autograd.gradcheck(function, (x, weights, made.inwards, made.outwards))


def test_shapes_are_kept_and_padding_is_sent_to_nobody() -> None:
    made = layer(SMALL).eval()
    x = tokens(12).view(3, 4, 6)
    valid = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    output, report = made(x, valid)
    assert output.shape == x.shape
    assert not output[~valid].any()
    assert bool((report.assignments[~valid.view(-1)] == -1).all())
    alone, unpadded = made(x[valid])
    torch.testing.assert_close(output[valid], alone)
    torch.testing.assert_close(report.auxiliary_loss, unpadded.auxiliary_loss)
    torch.testing.assert_close(report.importance, unpadded.importance)
    assert report.counts.tolist() == unpadded.counts.tolist()


@pytest.mark.parametrize("config", [SMALL, HIERARCHICAL, replace(SMALL, capacity_factor=1.0)])
def test_nothing_but_padding_gives_zeros_without_loss(config: MixtureConfig) -> None:
    made = layer(config)
    output, report = made(tokens(4, config), torch.zeros(4, dtype=torch.bool))
    assert not output.any()
    assert report.auxiliary_loss.item() == 0
    (output.sum() + report.auxiliary_loss).backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in made.parameters())


@pytest.mark.parametrize("config", [SMALL, HIERARCHICAL])
def test_bfloat16_is_near_float32(config: MixtureConfig) -> None:
    made = layer(config).float().eval()
    x = tokens(30, config).float()
    output, _ = made(x)
    with torch.autocast("cpu", torch.bfloat16):
        lower, _ = made(x)
        from_lower, _ = made(x.bfloat16())
    pure, _ = made.bfloat16()(x.bfloat16())
    for other in (lower, from_lower, pure):
        # A token near a tie may go elsewhere, so it is the many that must agree.
        assert float(((other.float() - output).abs().amax(-1) < 0.1 * output.abs().max()).float().mean()) > 0.8


def test_a_gpt_with_experts_reports_its_layers_and_says_the_same_of_padded_rows() -> None:
    torch.manual_seed(0)
    config = GPTConfig(20, 8, layers=3, heads=2, width=6, dropout=0.0)
    gpt = GPT(config, {0: MixtureOfExperts(SMALL), 2: MixtureOfExperts(replace(SMALL, experts=4))})
    for part in (gpt.blocks[0], gpt.blocks[2]):
        nn.init.normal_(part.feed_forward.gate.clean)
    text = torch.randint(20, (2, 7))
    valid = torch.arange(7) < torch.tensor([[7], [4]])
    reports: list[MixtureReport] = []
    gpt(text, valid, reports=reports)
    assert [(len(report.counts), int(report.counts.sum())) for report in reports] == [(8, 22), (4, 22)]
    sum(report.auxiliary_loss for report in reports).backward()
    assert all(gpt.blocks[layer].feed_forward.gate.clean.grad.any() for layer in (0, 2))
    gpt.eval()
    together = gpt(text, valid)
    for row, length in enumerate([7, 4]):
        torch.testing.assert_close(together[row, :length], gpt(text[row : row + 1, :length])[0])


def test_a_gpt_with_experts_reads_on_as_it_reads_at_once() -> None:
    torch.manual_seed(0)
    limited = replace(SMALL, capacity_factor=0.5)
    gpt = GPT(GPTConfig(20, 8, layers=2, heads=2, width=6), {1: MixtureOfExperts(limited)}).eval()
    nn.init.normal_(gpt.blocks[1].feed_forward.gate.clean)
    text = torch.randint(20, (2, 6))
    left = torch.stack([text[0, :4], torch.cat([text.new_zeros(2), text[1, :2]])])
    logits, state = gpt.begin(left, torch.arange(4) >= torch.tensor([[0], [2]]), 6)
    after = gpt.step(torch.stack([text[0, 4], text[1, 2]]), state)
    for row, length in enumerate([4, 2]):
        alone = gpt(text[row : row + 1, : length + 1])[0]
        torch.testing.assert_close(logits[row], alone[length - 1])
        torch.testing.assert_close(after[row], alone[length])


# --- capacity -------------------------------------------------------------------------------------------------------


def served(chosen: list[list[int]], logits: Tensor, capacity: int, move: bool) -> list[list[int]]:
    """One claim after another, in rounds: those of a round are served choice by choice, and by row."""
    rows, k = len(chosen), len(chosen[0])
    taken = [[-1] * k for _ in range(rows)]
    room = dict.fromkeys(range(logits.shape[1]), capacity)
    rankings = [sorted(range(logits.shape[1]), key=lambda expert: -float(row[expert])) for row in logits]
    asked = [k] * rows
    claims = [(place, row, chosen[row][place]) for place in range(k) for row in range(rows)]
    while claims:
        refused = []
        for place, row, expert in claims:
            if room[expert]:
                room[expert] -= 1
                taken[row][place] = expert
            else:
                refused.append((place, row))
        claims = []
        for place, row in refused if move else []:
            if asked[row] < logits.shape[1]:
                claims.append((place, row, rankings[row][asked[row]]))
                asked[row] += 1
    return taken


@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 6), st.booleans(), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_full_experts_refuse_as_a_queue_would(rows: int, k: int, capacity: int, move: bool, seed: int) -> None:
    logits = torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed))
    logits[:, 0] += 1  # a favourite
    chosen = logits.topk(k).indices
    taken = within_capacity(chosen, logits, torch.zeros(rows, dtype=torch.int64), capacity, 5, move)
    assert taken.tolist() == served(chosen.tolist(), logits, capacity, move)
    kept = taken[taken >= 0]
    assert int(torch.bincount(kept, minlength=5).max()) <= capacity
    assert all(len(set(row)) == len(row) for row in ([e for e in row if e >= 0] for row in taken.tolist()))


def test_a_refused_token_goes_to_the_next_of_its_ranking_or_passes() -> None:
    logits = torch.tensor([[3.0, 2, 1], [3, 2, 1], [3, 1, 2], [3, 2, 1]])
    chosen, offsets = logits.topk(1).indices, torch.zeros(4, dtype=torch.int64)
    assert within_capacity(chosen, logits, offsets, 2, 3, move=True).tolist() == [[0], [0], [2], [1]]
    assert within_capacity(chosen, logits, offsets, 2, 3, move=False).tolist() == [[0], [0], [-1], [-1]]


@pytest.mark.parametrize("config", [replace(SMALL, k=1), replace(HIERARCHICAL, experts=8, k=1)])
def test_with_capacity_for_all_and_one_choice_nobody_is_dropped(config: MixtureConfig) -> None:
    made = layer(replace(config, capacity_factor=1.0))
    if made.secondary is not None:  # claims stay in their group, so only an even choice of groups has room for all
        with torch.no_grad():
            made.gate.clean.zero_()
            made.gate.noise.fill_(-100)
            made.gate.clean[torch.arange(4), torch.arange(4)] = 100
    x = torch.eye(6, dtype=torch.float64)[:4].repeat(10, 1) if made.secondary is not None else tokens(40)
    _, report = made(x)
    assert report.counts.tolist() == [5] * 8
    assert int(report.moved) > 0
    assert int(report.dropped) == int(report.passed) == 0


def test_dropped_tokens_are_zero_and_the_weights_of_others_stay() -> None:
    made = layer(replace(SMALL, capacity_factor=0.5, overflow="pass"))
    free = layer(SMALL)
    torch.manual_seed(2)
    output, report = made(tokens(40))
    torch.manual_seed(2)
    unlimited, before = free(tokens(40))
    kept = report.assignments >= 0
    assert report.assignments[kept].tolist() == before.assignments[kept].tolist()
    torch.testing.assert_close(report.weights[kept], before.weights[kept])
    assert not report.weights[~kept].any()
    assert int(report.dropped) == int((~kept).sum()) > 0
    nobody = ~kept.any(-1)
    assert int(report.passed) == int(nobody.sum()) > 0
    assert not output[nobody].any()
    untouched = kept.all(-1)
    torch.testing.assert_close(output[untouched], unlimited[untouched])
    assert report.counts.max() <= 5
    torch.testing.assert_close(report.importance, before.importance)


@pytest.mark.parametrize("config", [SMALL, HIERARCHICAL])
@pytest.mark.parametrize("overflow", ["next", "pass"])
def test_a_limited_layer_is_the_loop_over_what_was_assigned(config: MixtureConfig, overflow: str) -> None:
    made = layer(replace(config, capacity_factor=0.4, overflow=overflow, noisy=False, load_weight=0))
    x = tokens(30, config)
    output, report = made(x)
    torch.testing.assert_close(output, looped(made, x, report, report.weights))
    assert int(report.dropped) > 0
    output.sum().backward()
    assert all(weight.grad.isfinite().all() for weight in made.parameters())


def test_moved_tokens_share_their_weight_by_the_experts_that_took_them() -> None:
    made = layer(replace(SMALL, capacity_factor=1.0, noisy=False, load_weight=0))
    x = tokens(40)
    _, report = made(x)
    complete = (report.assignments >= 0).all(-1)
    expected = torch.softmax((x @ made.gate.clean).gather(-1, report.assignments.clamp(min=0)), -1)
    torch.testing.assert_close(report.weights[complete], expected[complete].detach())
    assert int(report.moved) > 0


def test_evaluation_knows_no_capacity() -> None:
    made = layer(replace(SMALL, capacity_factor=0.1)).eval()
    together, report = made(tokens(20))
    assert int(report.dropped) == 0
    torch.testing.assert_close(together[:1], made(tokens(20)[:1])[0])


# --- configurations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 9}, "Of 8 experts no 9 can be chosen"),
        ({"groups": 3}, "8 experts do not divide into 3 groups"),
        ({"groups": 4, "k": 3}, "Of 2 experts no 3 can be chosen"),
        ({"groups": 2, "k": 3}, "Of 2 groups no 3 can be chosen"),
        ({"experts": 0}, "experts must be at least 1"),
        ({"load_weight": -1.0}, "load_weight must be at least 0"),
        ({"importance_weight": math.nan}, "importance_weight must be at least 0"),
        ({"noisy": False}, "Without noise the load has no derivative"),
        ({"capacity_factor": 0.0}, "capacity_factor must be above 0"),
        ({"overflow": "wait"}, "overflow must be next or pass"),
    ],
)
def test_bad_configurations_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RllabError, match=message):
        replace(SMALL, **changes)


# --- what experts do ------------------------------------------------------------------------------------------------


class Looked(nn.Module):
    """Token 0 is sent to expert 1, token 1 to expert 0, token 2 to either by its column."""

    def __init__(self) -> None:
        super().__init__()
        self.mixture = MixtureOfExperts(MixtureConfig(3, 2, 2, k=1))
        with torch.no_grad():
            self.mixture.gate.clean.copy_(torch.tensor([[0.0, 3], [3, 0], [0, 1]]))

    def forward(self, tokens: Tensor, valid: Tensor | None, reports: list[MixtureReport]) -> None:
        x = torch.eye(3)[tokens]
        columns = torch.arange(tokens.shape[1])
        x[..., 0] += (tokens == 2) * (columns % 2)  # in odd columns token 2 looks like token 0
        x[..., 1] += (tokens == 2) * ((columns + 1) % 2)
        reports.append(self.mixture(x, valid)[1])


def test_characteristic_tokens_are_those_of_the_greatest_relative_frequency() -> None:
    model = Looked()
    batch = torch.tensor([[0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 0, 0]])  # padding is no token, though it looks like 0
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[1, 4:] = False
    even, odd = characteristic_tokens(model, [(batch, valid), (batch, valid)], least=1)
    # Of 20 tokens 6 are 0, 6 are 1, 8 are 2; expert 0 gets the 1s and two of the 2s, expert 1 the 0s and six of them.
    assert [(found.token, found.count, found.ratio) for found in even.tokens] == [
        (1, 6, pytest.approx((6 / 8) / (6 / 20))), (2, 2, pytest.approx((2 / 8) / (8 / 20)))
    ]  # fmt: skip
    assert [(found.token, found.count, found.ratio) for found in odd.tokens] == [
        (0, 6, pytest.approx((6 / 12) / (6 / 20))), (2, 6, pytest.approx((6 / 12) / (8 / 20)))
    ]  # fmt: skip
    assert (even.share, odd.share) == (0.4, 0.6)
    assert [found.token for found in characteristic_tokens(model, [(batch, valid)], least=2)[0].tokens] == [1]
    assert model.training
    # Both tokens are always the expert's, so that their ratios are equal and their counts decide.
    always = characteristic_tokens(model, [(torch.tensor([[0, 2, 0], [0, 2, 1]]), None)], least=1)[1]
    assert [(found.token, found.ratio) for found in always.tokens] == [(0, pytest.approx(1.2)), (2, pytest.approx(1.2))]


def test_strongest_places_are_by_weight() -> None:
    model = Looked()
    model.mixture.config = replace(model.mixture.config, k=2)
    model.mixture.gate.k = 2
    batch = torch.tensor([[0, 2, 1]])
    first, second = strongest_places(model, batch, top=2)
    assert [(place.row, place.column) for place in first] == [(0, 2), (0, 0)]
    assert [(place.row, place.column) for place in second] == [(0, 1), (0, 0)]
    assert [place.weight for place in second] == pytest.approx([1 / (1 + math.exp(-4)), 1 / (1 + math.exp(-3))])


def test_layers_and_texts_that_are_not_there_are_told() -> None:
    with pytest.raises(RllabError, match="has 1 layers of experts, and so no layer 1"):
        characteristic_tokens(Looked(), [(torch.zeros(1, 2, dtype=torch.int64), None)], layer=1)
    with pytest.raises(RllabError, match="no text to look at"):
        characteristic_tokens(Looked(), [])


def load_after_training(importance: float, load: float, seed: int) -> Tensor:
    """Tokens of each of 16 experts in the last 20 of 200 steps on a mixture of eight linear maps.

    Clusters are of unequal size and have a common part, as words have. Where one expert is ahead by chance, the common
    part makes it so for all clusters.
    """
    torch.manual_seed(seed)
    width, clusters = 16, 8
    centres, maps = 2 * torch.randn(width) + torch.randn(clusters, width), torch.randn(clusters, width, width) / 4
    made = MixtureOfExperts(MixtureConfig(width, 32, 16, k=2, importance_weight=importance, load_weight=load))
    optimiser = torch.optim.Adam(made.parameters(), 0.01)
    counts = torch.zeros(16)
    for step in range(200):
        cluster = torch.multinomial(1 / torch.arange(1, clusters + 1.0), 256, replacement=True)
        x = centres[cluster] + 0.3 * torch.randn(256, width)
        output, report = made(x)
        wanted = torch.bmm(x[:, None], maps[cluster])[:, 0]
        optimiser.zero_grad()
        ((output - wanted).square().mean() + report.auxiliary_loss).backward()
        optimiser.step()
        if step >= 180:
            counts += report.counts
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_experts_collapse_without_the_losses_and_are_even_with_them(seed: int) -> None:
    without, both = load_after_training(0, 0, seed), load_after_training(0.1, 0.1, seed)
    assert without.max() > 3 * without.mean()
    assert int((without < 0.1 * without.mean()).sum()) >= 6
    assert both.max() < 1.3 * both.mean()
    assert both.min() > 0.5 * both.mean()
