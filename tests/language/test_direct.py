"""DPO and IPO: losses and gradients in closed form, the reference, and runs that learn and go on exactly."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_preferences import model_folder, records, written
from tiny_texts import gpt, tokenizer

from envs.errors import RllabError
from language.models.awd_lstm import AWDLSTM, AWDLSTMConfig
from language.models.folder import kind_of, load_model, save_model
from language.models.transformer import Transformer, TransformerConfig
from language.models.transformer_lm import TransformerLM, TransformerLMConfig
from language.preferences.data import TextsConfig
from language.preferences.direct import (
    DirectConfig,
    DirectPreferences,
    Pair,
    check_finite,
    direct_loss,
    log_probs_of_pairs,
)
from language.preferences.direct_run import DirectTraining
from language.preferences.rows import Row
from language.preferences.sft import RowsConfig
from language.tokenizers.character import CharacterLevel, CharacterLevelConfig
from language.tokenizers.special import SpecialTokens
from language.training.supervised import SupervisedTraining
from language.training.training_config import TrainingConfig

LETTERS = tokenizer()
TRAINING = TrainingConfig(
    40, 1e-3, warmup=2, weight_decay=0, evaluation_every=20, checkpoint_every=0, tensorboard=False
)
PAIRS = [
    Pair(Row([2, 3], [4, 5, 1]), Row([2, 3], [6, 1]), 1.0),
    Pair(Row([7], [2, 1]), Row([7], [3, 3, 3, 3, 1]), 0.0),
    Pair(Row([4, 4, 4], [2, 2, 1]), Row([4, 4, 4], [5, 1]), 0.5),
]


def loss_and_slope(difference: float, mu: float, config: DirectConfig) -> tuple[float, float]:
    x = torch.tensor([difference], requires_grad=True)
    loss = direct_loss(x, torch.tensor([mu]), config)
    [slope] = torch.autograd.grad(loss.sum(), x)
    return loss.item(), slope.item()


@pytest.mark.parametrize("beta", [0.05, 0.1, 2.0])
def test_without_a_difference_dpo_costs_log_2_and_its_slope_is_half_of_beta(beta: float) -> None:
    loss, slope = loss_and_slope(0.0, 1.0, DirectConfig(beta=beta))
    assert loss == pytest.approx(math.log(2))
    assert slope == pytest.approx(-beta / 2)
    assert loss_and_slope(0.0, 0.5, DirectConfig(beta=beta))[1] == pytest.approx(0)


@pytest.mark.parametrize("difference", [-3.0, 0.4, 5.0])
def test_dpo_is_minus_the_log_of_a_sigmoid_and_its_slope_by_hand(difference: float) -> None:
    loss, slope = loss_and_slope(difference, 1.0, DirectConfig(beta=0.3))
    assert loss == pytest.approx(math.log1p(math.exp(-0.3 * difference)), rel=1e-5)
    assert slope == pytest.approx(-0.3 / (1 + math.exp(0.3 * difference)), rel=1e-5)
    turned, opposite = loss_and_slope(-difference, 0.0, DirectConfig(beta=0.3))
    assert (turned, opposite) == pytest.approx((loss, -slope))


def test_label_smoothing_mixes_the_losses_of_both_answers_and_is_least_at_their_log_odds() -> None:
    config = DirectConfig(beta=0.5, label_smoothing=0.1)
    loss, _ = loss_and_slope(2.0, 1.0, config)
    assert loss == pytest.approx(0.9 * math.log1p(math.exp(-1)) + 0.1 * math.log1p(math.exp(1)), rel=1e-5)
    assert loss_and_slope(math.log(9) / 0.5, 1.0, config)[1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_ipo_is_least_where_the_difference_is_one_over_twice_beta(beta: float) -> None:
    config = DirectConfig("ipo", beta)
    assert loss_and_slope(1 / (2 * beta), 1.0, config) == pytest.approx((0.0, 0.0))
    loss, slope = loss_and_slope(0.0, 1.0, config)
    assert loss == pytest.approx(1 / (4 * beta**2))
    assert slope == pytest.approx(-1 / beta)
    assert loss_and_slope(3.0, 1.0, config)[0] == pytest.approx((3 - 1 / (2 * beta)) ** 2, rel=1e-5)
    assert loss_and_slope(0.0, 0.5, config)[1] == pytest.approx(0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "kto"}, "no direct method 'kto'"),
        ({"beta": 0.0}, "beta must be above 0"),
        ({"label_smoothing": 0.5}, "label_smoothing must lie in"),
    ],
)
def test_settings_without_meaning_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(RllabError, match=words):
        DirectConfig(**changes)  # type: ignore[arg-type]


def problem(config: DirectConfig, pairs: list[Pair] | None = None, reference: bool = True) -> DirectPreferences:
    pairs = PAIRS if pairs is None else pairs
    log_probs = log_probs_of_pairs(gpt(), LETTERS, [*pairs, *PAIRS]) if reference else None
    return DirectPreferences(pairs, PAIRS, config, LETTERS, 4, reference=log_probs)


def test_the_policy_begins_at_log_2_exactly_as_nothing_is_dropped_out() -> None:
    model = gpt(dropout=0.5)
    training = SupervisedTraining(model, problem(DirectConfig()), replace(TRAINING, steps=1), quiet=True)
    row = training.step()
    assert row["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert row["margin"] == pytest.approx(0, abs=1e-6)
    assert row["log_ratio_better"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("config", [
    DirectConfig(), DirectConfig("ipo"), DirectConfig(length_normalised=True), DirectConfig(reference_free=True),
    DirectConfig("ipo", length_normalised=True),
])  # fmt: skip
def test_the_loss_is_that_of_log_ratios_of_each_response_alone(config: DirectConfig) -> None:
    model, reference = gpt(1).eval(), gpt().eval()

    def log_prob(of: torch.nn.Module, row: Row) -> torch.Tensor:
        ids = torch.tensor([[*row.prompt, *row.response]])
        chances = torch.log_softmax(of(ids[:, :-1])[0], -1)
        return chances[torch.arange(ids.shape[1] - 1), ids[0, 1:]][len(row.prompt) - 1 :].sum()

    total = torch.zeros(())
    for pair in PAIRS:
        ratios = []
        for row in (pair.first, pair.second):
            ratio = log_prob(model, row) - (0 if config.reference_free else log_prob(reference, row).detach())
            ratios.append(ratio / len(row.response) if config.length_normalised else ratio)
        total = total + direct_loss(ratios[0] - ratios[1], torch.tensor(pair.mu), config)
    expected = torch.autograd.grad(total, list(model.parameters()))
    made = problem(config)
    loss = made.loss(model, made.batch())
    assert loss.count == 3
    assert loss.total.item() == pytest.approx(total.item(), rel=1e-5)
    for one, other in zip(torch.autograd.grad(loss.total, list(model.parameters())), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        assert made.evaluate(model)["loss"] == pytest.approx(total.item() / 3, rel=1e-5)


def test_ties_alone_and_a_missing_reference_are_refused() -> None:
    with pytest.raises(RllabError, match="All comparisons are ties"):
        problem(DirectConfig(), [PAIRS[2]])
    with pytest.raises(RllabError, match="There is no reference"):
        problem(DirectConfig(), reference=False)
    with pytest.raises(RllabError, match="No comparison is left"):
        problem(DirectConfig(), [])
    with pytest.raises(RllabError, match="comparison 2 no probability"):
        check_finite(torch.tensor([[0.0, -1.0], [0.0, -math.inf]]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("direct")
    model_folder(path / "model")
    written(path / "pairs.jsonl", records())
    return path


def recipe(
    folder: Path, direct: DirectConfig | None = None, model: Path | None = None, **changes: Any
) -> DirectTraining:
    return DirectTraining.of(
        model or folder / "model", TextsConfig((str(folder / "pairs.jsonl"),)), RowsConfig(8), direct or DirectConfig(),
        replace(TRAINING, **changes), kl_responses=16, kl_tokens=8,
    )  # fmt: skip


@pytest.mark.parametrize("direct", [
    DirectConfig(), DirectConfig("ipo", 0.1), DirectConfig(label_smoothing=0.1), DirectConfig(reference_free=True),
])  # fmt: skip
def test_a_run_learns_to_prefer_and_tells_how_far_it_went(folder: Path, tmp_path: Path, direct: DirectConfig) -> None:
    found = recipe(folder, direct).run(tmp_path / "run", quiet=True)
    assert found.held_out["accuracy"] > 0.9
    assert found.held_out["margin"] > 0
    assert found.held_out["log_ratio_better"] > found.held_out["log_ratio_worse"]
    assert found.kl is not None
    assert found.kl[0] > 0
    assert (found.comparisons, found.too_long, found.dropped) == (84, 0, 0)
    ours, theirs = (load_model(path)[0] for path in (tmp_path / "run" / "reference", folder / "model"))
    assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["awd-lstm", "transformer-lm", "transformer"])
def test_other_language_models_learn_from_comparisons_too(kind: str, folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    special = SpecialTokens(unknown="<unk>", begin="<s>", end="</s>")
    letters = CharacterLevel.train(["abcdefgh "], CharacterLevelConfig(special=special))
    size = len(letters)
    models: dict[str, Callable[[], torch.nn.Module]] = {
        "awd-lstm": lambda: AWDLSTM(AWDLSTMConfig(size, 12, 2, 16)),
        "transformer-lm": lambda: TransformerLM(TransformerLMConfig(size, 24, 1, 2, 16)),
        "transformer": lambda: Transformer(TransformerConfig(size, 24, layers=1, heads=2, width=16)),
    }
    save_model(tmp_path / "model", models[kind](), letters)
    found = recipe(folder, model=tmp_path / "model", learning_rate=3e-3).run(tmp_path / "run", quiet=True)
    assert found.held_out["accuracy"] > 0.9
    assert found.held_out["loss"] < 0.6
    assert found.kl is not None
    assert kind_of(load_model(tmp_path / "run")[0]) == kind


def test_an_interrupted_run_goes_on_exactly_and_without_the_model_it_began_with(folder: Path, tmp_path: Path) -> None:
    constant: dict[str, Any] = {"schedule": "constant", "warmup": 0, "evaluation_every": 0}
    shutil.copytree(folder / "model", tmp_path / "model")
    recipe(folder, model=tmp_path / "model", steps=5, **constant).run(tmp_path / "short", quiet=True)
    shutil.rmtree(tmp_path / "model")
    DirectTraining.resume(tmp_path / "short", steps=12, quiet=True)
    recipe(folder, steps=12, **constant).run(tmp_path / "long", quiet=True)
    one, other = (load_model(tmp_path / name)[0].state_dict() for name in ("short", "long"))
    assert all(torch.equal(one[name], other[name]) for name in one)
