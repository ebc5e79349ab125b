import uuid

import numpy as np
import pytest
import torch
from clip_makers import VECTOR, make_clip, make_data, make_model

from envs.errors import RllabError
from preference import bradley_terry
from preference.clips import ClipPool
from preference.comparisons import Clip
from preference.dataset import ClipBatch, ComparisonData
from preference.fit import L2_STEP, FitConfig, Fitter
from preference.inputs import Inputs
from preference.prediction import clip_returns, cross_entropy_and_slope, prepare
from preference.reward_model import RewardConfig, RewardModel


def fitter_for(model: RewardModel, **settings: object) -> Fitter:
    return Fitter(model, FitConfig(**settings), np.random.default_rng(5))  # type: ignore[arg-type]


@pytest.mark.parametrize("activation", ["leaky_relu", "relu", "tanh"])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_gradient_written_by_hand_is_that_of_autograd(
    activation: str, members: int, ragged: bool, noise: float
) -> None:
    model = make_model(members, reward_activation=activation)
    data = make_data(12, members, ragged=ragged)
    fitter = fitter_for(model, answer_noise=noise)
    batch, pairs = prepare(fitter.model, data.batch), np.array(data.pairs)
    preferences = np.array(data.preferences, np.float32)
    preferences[:3] = 0.5
    weights = data.counts() / 12
    expected_loss = fitter._gradient(batch, pairs, preferences, weights)
    assert model.flat.grad is not None
    expected = model.flat.grad.clone()
    model.flat.grad.fill_(7.0)
    loss = fitter._fast_gradient(batch, pairs, preferences, weights)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    torch.testing.assert_close(model.flat.grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("activation", ["leaky_relu", "relu", "tanh"])
@pytest.mark.parametrize("ragged", [False, True])
def test_sums_over_many_clips_are_those_of_the_modules(
    activation: str, ragged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(2)
    model = make_model(reward_activation=activation)
    lengths = [int(generator.integers(1, 9)) if ragged else 8 for _ in range(7)]
    batch = ClipBatch.of([make_clip(generator, length) for length in lengths])
    model.observe(model.numbers(batch.arrays)[batch.valid])
    rewards = model.raw(model.features(batch.arrays)).detach().numpy()
    expected = np.where(batch.valid, rewards.reshape(model.members, *batch.valid.shape), 0).sum(axis=-1)
    for cached in (1, 1_000, 300_000):  # a clip at a time, a few, all at once
        monkeypatch.setattr("preference.fast._CACHED", cached)
        sums = clip_returns(model, prepare(model, batch), np.arange(7))
        np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-5)


def test_the_slope_written_by_hand_is_that_of_the_cross_entropy() -> None:
    difference = np.linspace(-30, 30, 13, dtype=np.float32)[None].repeat(2, 0)
    preference = np.array([1, 0, 0.5] * 5, np.float32)[:13]
    losses, slope = cross_entropy_and_slope(difference, preference, 0.0)
    leaf = torch.from_numpy(difference).requires_grad_()
    expected = bradley_terry.cross_entropy(leaf, torch.from_numpy(preference).expand_as(leaf))
    expected.sum().backward()
    np.testing.assert_allclose(losses, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(slope, leaf.grad, rtol=1e-5, atol=1e-6)


def test_a_members_gradient_is_that_of_a_model_of_its_own() -> None:
    ensemble, single = make_model(3), make_model(1)
    state = ensemble.module.state_dict()
    single.module.load_state_dict({name: weight[1:2] for name, weight in state.items()})
    data = make_data(8, 3)
    batch, pairs, preferences = data.batch, np.array(data.pairs), np.array(data.preferences, np.float32)
    weights = data.counts() / 8
    whole, alone = fitter_for(ensemble), fitter_for(single)
    whole._fast_gradient(prepare(whole.model, batch), pairs, preferences, weights)
    alone._fast_gradient(prepare(alone.model, batch), pairs, preferences, weights[1:2])
    for ours, theirs in zip(ensemble.module.parameters(), single.module.parameters(), strict=True):
        torch.testing.assert_close(ours.grad[1:2], theirs.grad, rtol=1e-4, atol=1e-6)


def test_padding_changes_nothing() -> None:
    model, generator = make_model(2), np.random.default_rng(0)
    short, long = make_clip(generator, 4), make_clip(generator, 9)
    fitter = fitter_for(model)
    data = ComparisonData(2, generator)
    data.add(short, long, 1.0)
    apart = model._raw_rewards(short.arrays).sum(1) - model._raw_rewards(long.arrays).sum(1)
    np.testing.assert_allclose(fitter.predictions(data.batch, np.array([[0, 1]]))[:, 0], apart, rtol=1e-5)


def test_a_linear_reward_is_found_from_comparisons_alone() -> None:
    model, data = make_model(3), make_data(400, 3, held_out=0.2)
    fitter_for(model).fit(data, 30)
    fresh = make_data(300, 3, seed=9)
    difference = fitter_for(model).predictions(fresh.batch, np.array(fresh.pairs)).mean(axis=0)
    assert np.mean((difference > 0) == np.array(fresh.preferences)) > 0.93
    clip = make_clip(np.random.default_rng(3), 500)
    reward = model.reward(clip.arrays["observations"], clip.arrays["actions"])
    assert np.corrcoef(reward, clip.arrays["rewards"])[0, 1] > 0.95


def test_fits_with_the_same_seed_are_equal_bit_for_bit_and_a_resumed_one_too() -> None:
    weights = []
    for interrupted in (False, False, True):
        model, data = make_model(3), make_data(60, 3, held_out=0.2)
        fitter = fitter_for(model)
        fitter.fit(data, 3)
        if interrupted:
            saved = (model.state_dict(), fitter.state_dict())
            model = make_model(3)
            fitter = Fitter(model, FitConfig(), np.random.default_rng(99))
            model.load_state_dict(saved[0])
            fitter.load_state_dict(saved[1])
        fitter.fit(data, 3)
        weights.append(model.flat.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_l2_grows_while_the_held_out_loss_is_too_far_above_the_training_loss_and_shrinks_below() -> None:
    fitter = fitter_for(make_model(), l2=1e-3)
    fitter._adapt([1.0, 1.6], held_out=10)
    assert fitter.l2 == pytest.approx(1e-3 * L2_STEP)
    fitter._adapt([1.0, 1.3], held_out=10)
    assert fitter.l2 == pytest.approx(1e-3 * L2_STEP)
    fitter._adapt([1.0, 1.05], held_out=10)
    fitter._adapt([1.0, 1.05], held_out=10)
    assert fitter.l2 == pytest.approx(1e-3 / L2_STEP)
    fitter._adapt([1.0, 9.0], held_out=9)  # too few to tell
    assert fitter.l2 == pytest.approx(1e-3 / L2_STEP)


def test_both_losses_are_means_over_comparisons_whatever_their_numbers() -> None:
    # A model that knows nothing has the loss log 2 on either side, though one has four times the other's pairs.
    model, data = make_model(), make_data(200, 1, held_out=0.2)
    with torch.no_grad():
        model.flat.zero_()
    losses = fitter_for(model, fit_learning_rate=1e-30, l2=0.0).fit(data, 1)
    assert losses["reward/training_loss"] == pytest.approx(np.log(2), rel=1e-5)
    assert losses["reward/held_out_loss"] == pytest.approx(np.log(2), rel=1e-5)


@pytest.mark.parametrize(("clips", "pairs"), [(100, 175), (40, 20), (2000, 1400)])
def test_no_clip_is_both_learnt_from_and_measured_on_and_sides_stay(clips: int, pairs: int) -> None:
    generator = np.random.default_rng(clips)
    made = [make_clip(generator, 2) for _ in range(clips)]
    data = ComparisonData(1, generator, held_out=0.2)
    earlier = np.empty(0, bool)
    for _ in range(pairs):
        first, second = generator.choice(clips, 2, replace=False)
        data.add(made[first], made[second], 1.0)
        held_out = data.held_out()
        np.testing.assert_array_equal(held_out[:-1], earlier)
        earlier = held_out
    index, training = np.array(data.pairs), data.training()
    assert set(index[held_out].flat).isdisjoint(index[training].flat)
    assert not (held_out & training).any()
    assert 0.01 < held_out.mean() < 0.4
    assert training.mean() > 0.5


@pytest.mark.parametrize(("clips", "labels"), [(100, 300), (700, 1400)])
def test_however_often_clips_are_asked_about_the_share_that_was_asked_for_is_held_out(clips: int, labels: int) -> None:
    shares = []
    for seed in range(5):
        generator = np.random.default_rng(seed)
        pool, data = ClipPool(clips), ComparisonData(1, generator, held_out=0.2)
        while len(data) < labels:
            pool.add([make_clip(generator, 2) for _ in range(clips if not data.clips else clips // 20)])
            for first, second in pool.draw_pairs(
                labels // 20, generator, 0.5, held_out=data.intended_side, share=data.share
            ):
                data.add(first, second, 1.0)
        assert (data.held_out() ^ data.training()).all(), "a pair of both sides serves for neither"
        shares.append(data.held_out().mean())
    assert min(shares) > 0.13
    assert max(shares) < 0.27


def test_bootstrap_counts_are_poisson_of_mean_one_and_stay_as_drawn() -> None:
    data = make_data(3000, 2)
    counts = data.counts()
    assert counts.mean() == pytest.approx(1, abs=0.05)
    assert counts.var() == pytest.approx(1, abs=0.1)
    assert (counts == 0).mean() == pytest.approx(np.exp(-1), abs=0.03)
    assert np.corrcoef(counts)[0, 1] == pytest.approx(0, abs=0.05)
    data.add(*data.clips[:2], 1.0)
    np.testing.assert_array_equal(data.counts()[:, :-1], counts)


def test_the_uniform_response_term_withstands_flipped_labels() -> None:
    surprise, accuracy = {0.0: 0.0, 0.1: 0.0}, {0.0: 0.0, 0.1: 0.0}
    for noise in surprise:
        for seed in range(3):
            model, data = make_model(3), make_data(200, 3, flipped=0.1, seed=100 * seed)
            fitter_for(model, answer_noise=noise, l2_adapt=False).fit(data, 60)
            fresh = make_data(500, 3, seed=77 + seed)
            difference = fitter_for(model).predictions(fresh.batch, np.array(fresh.pairs)).mean(axis=0)
            preferences = np.array(fresh.preferences, np.float32)
            surprise[noise] += float(cross_entropy_and_slope(difference, preferences, 0.0)[0].mean()) / 3
            accuracy[noise] += float(np.mean((difference > 0) == preferences)) / 3
    assert surprise[0.1] < surprise[0.0]
    assert accuracy[0.1] > accuracy[0.0]


@pytest.mark.parametrize(
    ("preferences", "sentence"),
    [([], "no comparison"), ([0.5] * 4, "all 4 comparisons are ties"), ([1.0] * 25 + [0.5], "prefer the first clip")],
)
def test_labels_that_teach_nothing_are_refused(preferences: list[float], sentence: str) -> None:
    generator = np.random.default_rng(0)
    data = ComparisonData(1, generator)
    for preference in preferences:
        data.add(make_clip(generator), make_clip(generator), preference)
    with pytest.raises(RllabError, match=sentence):
        fitter_for(make_model()).fit(data)


def test_an_ensemble_of_convolutions_is_so_many_single_ones() -> None:
    inputs = Inputs((4, 84, 84), (), (6,), image=True)
    config = RewardConfig(members=3, reads="observation_action")
    model = RewardModel(inputs, config, seed=1)
    single = RewardModel(inputs, RewardConfig(members=1, reads="observation_action"), seed=2)
    state = model.module.state_dict()
    picked = {}
    for name, tensor in state.items():
        if name.startswith("head"):
            picked[name] = tensor[2:3]
        elif tensor.dim() == 0:
            picked[name] = tensor
        else:
            picked[name] = tensor[32:48]
    single.module.load_state_dict(picked)
    generator = np.random.default_rng(0)
    observations = generator.integers(0, 256, (5, 4, 84, 84), np.uint8)
    actions = generator.integers(0, 6, 5)
    arrays = {"observations": observations, "actions": actions}
    np.testing.assert_allclose(model._raw_rewards(arrays)[2], single._raw_rewards(arrays)[0], rtol=1e-4, atol=1e-6)


def test_a_reward_that_is_in_the_pixels_is_found() -> None:
    inputs = Inputs((1, 64, 64), (), (2,), image=True)
    model = RewardModel(inputs, RewardConfig(members=2, reads="observation"))
    generator = np.random.default_rng(0)
    data = ComparisonData(2, generator, held_out=0.0)
    for _ in range(60):
        brightness = generator.integers(0, 256, 2)
        clips = [
            Clip(
                uuid.uuid4(),
                {"observations": np.full((3, 1, 64, 64), value, np.uint8), "actions": np.zeros(3, np.int64)},
            )
            for value in brightness
        ]
        data.add(*clips, float(brightness[0] > brightness[1]))
    fitter = fitter_for(model)
    losses = fitter.fit(data, 15)
    assert losses["reward/training_loss"] < 0.3


def image_data(lengths: list[int], held_out: float = 0.0) -> tuple[RewardModel, ComparisonData]:
    """Comparisons of clips of grey images, the brighter of which is better."""
    inputs, generator = Inputs((1, 48, 48), (), (2,), image=True), np.random.default_rng(0)
    model = RewardModel(inputs, RewardConfig(members=2, reads="observation", dropout=0.5))
    data = ComparisonData(2, generator, held_out=held_out)
    for number, length in enumerate(lengths):
        clips = [
            Clip(
                uuid.UUID(int=2 * number + side),
                {
                    "observations": generator.integers(side * 60, 256, (length, 1, 48, 48), np.uint8),
                    "actions": np.zeros(length, np.int64),
                },
            )
            for side in (0, 1)
        ]
        data.add(*clips[:: 1 - 2 * (number % 2)], float(number % 2))
    return model, data


@pytest.mark.parametrize(("asked", "expected"), [(None, 0.05), (2.0, 2.0)])
def test_rewards_of_images_have_the_papers_small_deviation_or_the_one_asked_for(
    asked: float | None, expected: float
) -> None:
    inputs, generator = Inputs((1, 48, 48), (), (2,), image=True), np.random.default_rng(0)
    model = RewardModel(inputs, RewardConfig(members=2, reads="observation", reward_std=asked))
    arrays = {"observations": generator.integers(0, 256, (4, 9, 1, 48, 48), np.uint8), "actions": np.zeros((4, 9), int)}
    model.normalise_over(arrays, np.ones((4, 9), bool))
    assert model.reward(**arrays).std() == pytest.approx(expected, rel=1e-3)


def test_batch_normalisation_counts_only_steps_that_exist() -> None:
    model, data = image_data([3, 5])
    fitter_for(model, fit_batch_size=2, l2=0.0).fit(data, 1)
    images = torch.from_numpy(np.concatenate([clip.arrays["observations"] for clip in data.clips])).float() / 255
    fresh = RewardModel(model.inputs, model.config)
    expected = fresh.module.convolutions[0](images).mean(dim=(0, 2, 3))
    # torch moves its running mean a tenth of the way to that of each batch, from 0.
    torch.testing.assert_close(model.module.norms[0].running_mean, 0.1 * expected.detach(), rtol=1e-3, atol=1e-5)


def test_the_training_loss_beside_a_held_out_one_has_no_dropout_either() -> None:
    model, data = image_data([2] * 30, held_out=0.3)
    fitter = fitter_for(model)
    losses = fitter.fit(data, 1)
    held_out = int(data.held_out().sum())
    training = np.flatnonzero(data.training())[:: -(-int(data.training().sum()) // held_out)]
    pairs, counts = np.array(data.pairs), data.counts()[:, training]
    difference = fitter.predictions(data.batch, pairs[training])
    preferences = np.array(data.preferences)[training]
    expected = ((np.logaddexp(0, difference) - preferences * difference) * counts).sum() / counts.sum()
    assert held_out > 3
    assert losses["reward/training_loss"] == pytest.approx(expected, rel=1e-5)


def test_inputs_of_a_vector_and_of_choices() -> None:
    numbers = VECTOR.features("observation_action", np.ones((2, 5, 3), np.float32), np.full((2, 5, 1), 2.0, np.float32))
    np.testing.assert_array_equal(numbers, np.tile([1, 1, 1, 2], (2, 5, 1)))
    choices = Inputs((2,), (), (3,))
    numbers = choices.features("observation_action_next", np.zeros((4, 2)), np.array([0, 1, 2, 1]), np.ones((4, 2)))
    np.testing.assert_array_equal(numbers[:, 2:5], np.eye(3)[[0, 1, 2, 1]])
    np.testing.assert_array_equal(numbers[:, 5:], 1)
    with pytest.raises(RllabError, match="next observations"):
        choices.features("observation_action_next", np.zeros((4, 2)), np.array([0, 1, 2, 1]))


def test_new_moments_of_what_it_reads_leave_a_models_rewards_as_they_were() -> None:
    model, generator = make_model(2), np.random.default_rng(0)
    clip = make_clip(generator, 50)
    model.observe(model.numbers(clip.arrays))
    before = model._raw_rewards(clip.arrays)
    model.observe(generator.normal(1.0, 3.0, (500, 4)).astype(np.float32))
    np.testing.assert_allclose(model._raw_rewards(clip.arrays), before, rtol=1e-3, atol=1e-4)


def test_a_number_that_did_not_move_before_does_not_blow_rewards_up() -> None:
    model, generator = make_model(2), np.random.default_rng(0)
    numbers = generator.standard_normal((500, 4)).astype(np.float32)
    numbers[:, 2] = 0.0
    model.observe(numbers)
    clip = make_clip(generator, 50)
    before = np.abs(model._raw_rewards(clip.arrays)).max()
    model.observe(generator.standard_normal((500, 4)).astype(np.float32))
    assert np.abs(model._raw_rewards(clip.arrays)).max() < 20 * max(before, 1)


def test_if_only_ties_would_be_learnt_from_nothing_is_held_out() -> None:
    generator = np.random.default_rng(0)
    for seed in range(20):
        data = ComparisonData(1, np.random.default_rng(seed), held_out=0.5)
        for preference in [1.0] + [0.5] * 5:
            data.add(make_clip(generator), make_clip(generator), preference)
        losses = fitter_for(make_model()).fit(data, 1)
        assert np.isfinite(losses["reward/training_loss"])
