"""Reward models of text: scores by hand, Bradley–Terry's loss, normalisation, ensembles, runs, and the length baseline."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from tiny_preferences import model_folder, records, written
from tiny_texts import gpt, tokenizer

from envs.errors import RllabError
from language.models.folder import load_model, save_model
from language.models.gpt import GPT, GPTConfig
from language.preferences.comparing import Comparing, encode
from language.preferences.data import TextComparison, TextsConfig
from language.preferences.reward import NORMALISING, RewardTraining, ScoringConfig, cross_validated
from language.preferences.reward_measures import EncodedComparison, LengthBaseline, Predictions, measured
from language.preferences.reward_model import (
    RewardMember,
    TextRewardConfig,
    TextRewardModel,
    features_at,
    text_row,
    text_rows,
)
from language.preferences.rewards import ModelReward
from language.preferences.sft import RowsConfig
from language.training.training_config import TrainingConfig
from preference import bradley_terry

LETTERS = tokenizer()
TRAINING = TrainingConfig(
    30, 3e-3, warmup=2, weight_decay=0, evaluation_every=10, checkpoint_every=0, tensorboard=False
)
ROWS = [[2, 3, 4, 1], [5], [6, 6, 7, 8, 9, 2, 1], [3, 1]]
PAIRS = [
    EncodedComparison([2, 3, 1], [4, 1], 1.0, (2, 1)),
    EncodedComparison([5, 5, 5, 1], [6, 1], 0.0, (3, 1)),
    EncodedComparison([7, 1], [8, 9, 1], 0.5, (1, 2)),
    EncodedComparison([2, 1], [3, 1], 0.25, (1, 1)),
]


def reward_model(members: int = 1, seed: int = 0) -> TextRewardModel:
    torch.manual_seed(seed)
    return TextRewardModel.of(gpt(), members).eval()


def members_of(model: TextRewardModel) -> list[RewardMember]:
    return [cast(RewardMember, member) for member in model.members]


def test_the_head_begins_normal_with_deviation_one_over_the_root_of_width_plus_one_and_no_bias() -> None:
    torch.manual_seed(0)
    model = TextRewardModel(TextRewardConfig(GPTConfig(8, 4, 1, 4, 1024), members=8))
    weights = torch.stack([member.head.weight.detach()[0] for member in members_of(model)])
    # Of 8,192 draws the deviation is known to 0.8 % (one standard error).
    assert weights.std().item() == pytest.approx(1025**-0.5, rel=0.04)
    assert all(member.head.bias.item() == 0 for member in members_of(model))


def test_the_score_is_the_head_s_number_at_the_last_token_whatever_the_padding() -> None:
    model = reward_model()
    [member] = members_of(model)
    expected = []
    for row in ROWS:
        features = member.trunk.features(torch.tensor([row]))[0, -1]
        expected.append((features @ member.head.weight[0]).item())
    longest = max(map(len, ROWS))
    right = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ROWS])
    left = torch.tensor([[*[0] * (longest - len(row)), *row] for row in ROWS])
    lengths = torch.tensor([len(row) for row in ROWS])[:, None]
    places = torch.arange(longest)
    torch.testing.assert_close(model.score(right, places < lengths), torch.tensor(expected))
    torch.testing.assert_close(model.score(left, places >= longest - lengths), torch.tensor(expected))
    torch.testing.assert_close(model.all_scores(ROWS), torch.tensor(expected))
    with pytest.raises(RllabError, match="without tokens"):
        model.score(right, torch.zeros_like(right, dtype=torch.bool))


def test_one_pass_over_both_sides_gives_the_loss_of_two_passes_and_ties_count() -> None:
    model = reward_model()
    problem = Comparing(PAIRS, PAIRS, 4)
    losses = []
    for pair in PAIRS:
        first, second = (model.logits(torch.tensor([row]))[0] for row in (pair.first, pair.second))
        p = torch.sigmoid(first - second)
        losses.append(-(pair.mu * p.log() + (1 - pair.mu) * (1 - p).log()).item())
    batch = problem.batch()
    loss = problem.loss(model, batch)
    assert (loss.count, batch.tokens.shape[0]) == (4, 8)
    assert loss.total.item() == pytest.approx(sum(losses), rel=1e-5)
    judged = problem.evaluate(model)
    assert judged["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert (judged["comparisons"], judged["ties"]) == (4, 1)


def test_a_tie_pulls_scores_together() -> None:
    difference = torch.tensor([2.0, -2.0], requires_grad=True)
    bradley_terry.cross_entropy(difference, torch.tensor([0.5, 0.5])).sum().backward()  # type: ignore[no-untyped-call]
    assert difference.grad is not None
    assert difference.grad[0] > 0 > difference.grad[1]


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("padded", [True, False])
def test_features_of_one_place_and_their_gradients_are_those_of_the_whole_sequence(norm: str, padded: bool) -> None:
    tokens = torch.randint(2, 11, (4, 7), generator=torch.Generator().manual_seed(0))
    places, valid = torch.tensor([6, 3, 5, 6]), torch.ones(4, 7, dtype=torch.bool)
    if padded:
        valid[0, :3] = valid[2, 0] = False
    found = []
    for of_places in (True, False):
        trunk = gpt(norm=norm).eval()
        given = valid if padded else None
        if of_places:
            features = features_at(trunk, tokens, places, given)
        else:
            features = trunk.features(tokens, given)[torch.arange(4), places]
        features.square().mul(torch.arange(1.0, 17.0)).sum().backward()  # type: ignore[no-untyped-call]
        found.append([features.detach(), *(parameter.grad for parameter in trunk.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("members", [1, 3])
def test_numbers_have_mean_0_and_deviation_1_on_what_they_were_normalised_on(members: int) -> None:
    model = reward_model(members)
    generator = np.random.default_rng(0)
    rows = [generator.integers(2, 11, size=generator.integers(1, 12)).tolist() for _ in range(40)]
    model.normalise_logits_on(rows)
    logits = model.all_logits(rows)
    torch.testing.assert_close(logits.mean(1), torch.zeros(members), atol=1e-5, rtol=0)
    torch.testing.assert_close(logits.std(1, correction=0), torch.ones(members), atol=1e-5, rtol=0)
    for member in members_of(model):
        torch.nn.init.normal_(member.head.weight, std=3.0)
    before = model.all_logits(rows)
    model.normalise_scores_on(rows)
    assert torch.equal(model.all_logits(rows), before)  # by which preferences are predicted
    scores = model.all_scores(rows)
    assert scores.mean().item() == pytest.approx(0, abs=1e-5)
    assert scores.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    if members > 1:
        assert (model.disagreement(rows) > 0).all()
        centred = (before - before.mean(1, keepdim=True)) / before.std(1, correction=0, keepdim=True)
        torch.testing.assert_close(scores, centred.mean(0) / centred.mean(0).std(correction=0), atol=1e-5, rtol=1e-4)


def test_equal_numbers_for_all_texts_cannot_be_normalised() -> None:
    model = reward_model()
    torch.nn.init.zeros_(members_of(model)[0].head.weight)
    with pytest.raises(RllabError, match="about the same number"):
        model.normalise_scores_on(ROWS)


def test_as_a_reward_it_scores_prompt_and_response_as_it_learnt_them() -> None:
    model = reward_model()
    prompts, responses = ["ab", "dead beef" * 4], ["c", "face"]
    rows = text_rows(LETTERS, prompts, responses, model.context)
    assert rows == [text_row(LETTERS, *both, model.context) for both in zip(prompts, responses, strict=True)]
    assert [len(row) for row in rows] == [4, 24]
    assert rows[1][-5:] == [*LETTERS.ids("face"), LETTERS.vocabulary["<end>"]]
    scores = ModelReward(model, LETTERS, model.context)(prompts, responses)
    assert scores == pytest.approx(model.all_scores(rows).tolist(), abs=1e-6)
    comparison = TextComparison("ab", "c", "face", 1.0)
    assert encode([comparison], LETTERS, model.context)[0].first == rows[0]


def test_a_saved_model_gives_the_same_scores(tmp_path: Path) -> None:
    model = reward_model(2)
    model.normalise_logits_on(ROWS)
    model.normalise_scores_on(ROWS)
    save_model(tmp_path, model, LETTERS)
    loaded, _ = load_model(tmp_path)
    assert isinstance(loaded, TextRewardModel)
    assert loaded.config == model.config
    assert torch.equal(loaded.all_scores(ROWS), model.all_scores(ROWS))


def test_only_a_gpt_becomes_a_reward_model() -> None:
    with pytest.raises(RllabError, match="A Linear cannot become a reward model"):
        TextRewardModel.of(torch.nn.Linear(2, 2))
    with pytest.raises(RllabError, match="members must be at least 1"):
        TextRewardConfig(members=0)


def test_members_learn_from_resamples_of_the_comparisons() -> None:
    problem = Comparing(PAIRS * 8, PAIRS, 8, members=3, seed=1)
    assert problem.weights.sum(1).tolist() == [32, 32, 32]
    assert not torch.equal(problem.weights[0], problem.weights[1])
    assert torch.equal(Comparing(PAIRS * 8, PAIRS, 8, members=1).weights, torch.ones(1, 32))
    model = reward_model(3)
    batch = problem.batch()
    logits = model(batch.tokens, batch.valid)
    losses = bradley_terry.cross_entropy(logits[:, :8] - logits[:, 8:], batch.mu)
    assert problem.loss(model, batch).total.item() == pytest.approx((losses * batch.weights).sum().item() / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("training", "words"), [([], "No comparison is left"), ([PAIRS[2]], "All comparisons are ties")]
)
def test_comparisons_that_teach_nothing_are_refused(training: list[EncodedComparison], words: str) -> None:
    with pytest.raises(RllabError, match=words):
        Comparing(training, PAIRS, 4)


def test_the_length_baseline_has_the_log_odds_of_the_longer_response() -> None:
    pairs = [EncodedComparison([2], [3], float(number < 30), (2, 1)) for number in range(40)]
    baseline = LengthBaseline.fit(pairs)
    assert baseline.weight * math.log(2) == pytest.approx(math.log(3), rel=1e-3)
    turned = [EncodedComparison([2], [3], 1 - pair.mu, (1, 2)) for pair in pairs]
    assert LengthBaseline.fit(turned).weight == pytest.approx(baseline.weight)
    np.testing.assert_allclose(baseline.probabilities(pairs), 0.75, rtol=1e-3)


def test_calibration_is_told_though_the_chosen_response_always_comes_first() -> None:
    sure_and_right = measured(np.full(100, 0.9), np.ones(100))
    assert sure_and_right.calibration_error == pytest.approx(0.1)
    knows_nothing = measured(np.full(100, 0.5), np.ones(100))
    assert knows_nothing.calibration_error == pytest.approx(0)
    assert knows_nothing.negative_log_likelihood == pytest.approx(math.log(2))


def test_divided_votes_count_in_the_loss_and_their_majority_in_the_accuracy() -> None:
    found = Predictions(
        np.array([0.75, 0.75]), np.array([0.5, 0.5]), np.array([2 / 3, 0.5]), np.arange(4.0), np.arange(4.0)
    )
    expected = [-(mu * math.log(0.75) + (1 - mu) * math.log(0.25)) for mu in (2 / 3, 0.5)]
    assert found.loss == pytest.approx(np.mean(expected))
    assert (found.measures.accuracy, found.measures.ties) == (1.0, 1)
    assert found.length_correlation == pytest.approx(1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reward")
    model_folder(path / "model")
    written(path / "pairs.jsonl", records())
    implicit = [
        {
            "chosen": f"\n\nHuman: {each['prompt']}\n\nAssistant: {each['chosen']}",
            "rejected": f"\n\nHuman: {each['prompt']}\n\nAssistant: {each['rejected']}",
        }
        for each in records(48)
    ]  # fmt: skip
    written(path / "implicit.jsonl", implicit)
    return path


def recipe(folder: Path, name: str = "pairs", members: int = 1, normalise: int = 16, **changes: Any) -> RewardTraining:
    return RewardTraining.of(
        folder / "model", TextsConfig((str(folder / f"{name}.jsonl"),)), RowsConfig(8, too_long="cut"),
        ScoringConfig(members, normalise=normalise, normalise_tokens=8), replace(TRAINING, **changes),
    )  # fmt: skip


@pytest.mark.parametrize(("members", "normalise"), [(1, 16), (2, 16), (1, 0)])
def test_a_run_learns_which_responses_are_better_and_leaves_normalised_scores(
    folder: Path, tmp_path: Path, members: int, normalise: int
) -> None:
    found = recipe(folder, members=members, normalise=normalise).run(tmp_path / "run", quiet=True)
    assert found.predictions.measures.accuracy == 1.0
    assert found.predictions.loss < 0.2
    assert found.comparisons == 84
    model, _ = load_model(tmp_path / "run")
    assert isinstance(model, TextRewardModel)
    assert model.config.members == members
    rows = json.loads((tmp_path / "run" / "tokens" / NORMALISING).read_text())
    assert len(rows) == (normalise or 2 * 84)
    scores = model.all_scores(rows)
    assert scores.mean().item() == pytest.approx(0, abs=1e-4)
    assert scores.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_a_run_that_goes_on_is_the_same_as_one_that_had_all_steps_from_the_start(folder: Path, tmp_path: Path) -> None:
    constant: dict[str, Any] = {"schedule": "constant", "warmup": 0, "evaluation_every": 0}
    recipe(folder, members=2, steps=5, **constant).run(tmp_path / "short", quiet=True)
    RewardTraining.resume(tmp_path / "short", steps=12, quiet=True)
    recipe(folder, members=2, steps=12, **constant).run(tmp_path / "long", quiet=True)
    one, other = (load_model(tmp_path / name)[0].state_dict() for name in ("short", "long"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_patience_ends_a_training_and_the_weights_are_the_best_evaluation_s(folder: Path, tmp_path: Path) -> None:
    made = recipe(folder, steps=200, learning_rate=0.5, clip_norm=0.0, evaluation_every=5, patience=2)
    found = made.run(tmp_path / "run", quiet=True)
    assert found.stop_reason == "patience"


def test_cross_validation_predicts_every_comparison_by_a_model_that_did_not_see_its_prompt(folder: Path) -> None:
    told = []
    made = recipe(folder, "implicit", steps=20)
    found = cross_validated(made, 3, lambda fold, predictions: told.append((fold, len(predictions.mu))))
    assert [fold for fold, _ in told] == [1, 2, 3]
    assert sum(count for _, count in told) == len(found.mu) == 48
    assert len(found.scores) == len(found.lengths) == 96
    assert found.measures.accuracy > 0.9
    assert abs(found.baseline_measures.accuracy - 0.5) < 0.25


def test_a_trunk_with_other_weights_is_not_changed_by_the_training(folder: Path) -> None:
    before = load_model(folder / "model")[0]
    assert type(before) is GPT
    made = TextRewardModel.of(before)
    with torch.no_grad():
        next(made.parameters()).add_(1.0)
    assert torch.equal(next(before.parameters()), next(load_model(folder / "model")[0].parameters()))
