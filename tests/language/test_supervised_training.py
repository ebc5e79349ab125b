"""The supervised loop: gradients and accumulation by hand, schedules, exact resume, divergence, patience."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.data.blocks import TokenFile, write_token_file
from language.models.gpt import GPT, GPTConfig
from language.training.language_modelling import LanguageModelling, LanguageModellingConfig, perplexity
from language.training.optimizers import Group
from language.training.peak import peak_operations_per_second, training_operations
from language.training.problem import Loss
from language.training.schedules import noam_peak, schedule_factor
from language.training.supervised import SupervisedTraining
from language.training.training_config import TrainingConfig
from rllab.interrupt import Interrupted
from rllab.runs import Run

QUICK = TrainingConfig(
    steps=6, learning_rate=1e-2, schedule="linear", warmup=2, evaluation_every=3, checkpoint_every=2, tensorboard=False
)


class Line:
    """Fit y = 2x by one weight; batches have 1, 2, 3, 1, 2, 3 … points."""

    goal, higher_is_better = "error", False

    def __init__(self, worse: bool = False) -> None:
        self.count, self.worse = 0, worse

    def batch(self) -> Tensor:
        self.count += 1
        return torch.arange(1.0, 2 + (self.count - 1) % 3)

    def loss(self, model: nn.Module, batch: Tensor) -> Loss:
        return Loss((model(batch[:, None]).squeeze(1) - 2 * batch).square().sum(), len(batch), len(batch))

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        assert not model.training
        return {"error": float(self.count) if self.worse else abs(next(model.parameters()).item() - 2)}

    def operations(self, model: nn.Module, tokens: int) -> float:
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def single(weight: float = 0.0) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, weight)
    return model


@pytest.fixture
def files(tmp_path: Path) -> tuple[TokenFile, TokenFile]:
    """A language in which each token is followed by the next or by itself, half and half."""
    generator = np.random.default_rng(0)
    ids = (np.cumsum(generator.integers(0, 2, 6000)) % 7).tolist()
    return write_token_file(tmp_path / "a.npy", [ids[:5000]], 7), write_token_file(tmp_path / "b.npy", [ids[5000:]], 7)


def test_batches_of_a_step_count_by_their_targets() -> None:
    model = single()
    training = SupervisedTraining(model, Line(), replace(QUICK, accumulation=3, clip_norm=0.0))
    row = training.step()
    points = [1, 1, 2, 1, 2, 3]  # d/dw (wx - 2x)² = -4x² at w = 0
    assert row["gradient_norm"] == pytest.approx(4 * sum(x * x for x in points) / 6)
    assert row["loss"] == pytest.approx(sum(4 * x * x for x in points) / 6)
    # AdamW's first step is the learning rate, whatever the gradient; the factor of step 0 is a half.
    assert model.weight.item() == pytest.approx(0.5e-2, rel=1e-4)


def test_gradients_are_clipped_to_the_norm() -> None:
    model = single()
    training = SupervisedTraining(model, Line(), replace(QUICK, clip_norm=0.1))
    training.step()
    state = training.optimizer.state[model.weight]
    assert state["exp_avg"].item() == pytest.approx(-0.1 * 0.1)  # (1 - β₁) · the clipped gradient


def test_groups_have_their_own_rates_and_only_matrices_decay() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    groups = [Group(list(model[0].parameters()), 0.5), Group(list(model[1].parameters()))]
    training = SupervisedTraining(model, Line(), QUICK, groups=groups)
    found = [
        (group["params"][0].ndim, group["weight_decay"], group["scale"]) for group in training.optimizer.param_groups
    ]
    assert found == [(2, 0.01, 0.5), (1, 0.0, 0.5), (2, 0.01, 1.0), (1, 0.0, 1.0)]
    training.step()
    assert [group["lr"] for group in training.optimizer.param_groups] == [0.25e-2, 0.25e-2, 0.5e-2, 0.5e-2]


class Jumps(Line):
    """Evaluations that are told beforehand, and the weight that each of them saw."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__()
        self.losses, self.seen = losses, list[float]()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        self.seen.append(model.weight.item())  # type: ignore[operator]
        return {self.goal: self.losses[len(self.seen) - 1]}


def test_weights_are_averaged_once_evaluations_get_worse_and_evaluated_so() -> None:
    model, problem = single(), Jumps([3.0, 1.0, 2.0, 2.0, 0.5, 9.0, 9.0])
    config = replace(
        QUICK, steps=7, optimizer="sgd", schedule="constant", warmup=0, clip_norm=0.0, averaging_patience=1,
        evaluation_every=1, weight_decay=0.0,
    )  # fmt: skip
    weights: list[float] = []  # after so many steps
    training = SupervisedTraining(
        model, problem, config, quiet=True, before_step=lambda _: weights.append(model.weight.item())
    )
    training.run()
    # The fourth evaluation is the first above the best but for the last one, so steps 5, 6 and 7 are averaged.
    assert problem.seen[:5] == pytest.approx(weights[1:6])
    assert problem.seen[5] == pytest.approx((weights[5] + weights[6]) / 2)
    assert model.weight.item() == pytest.approx(weights[5])  # the best evaluation's


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 0.8, 0.6, 0.4, 0.2]),
        ("cosine", [0.5, 1, 0.2 + 0.4 * (1 + math.sqrt(0.5)), 0.6, 0.2 + 0.4 * (1 - math.sqrt(0.5)), 0.2]),
        ("noam", [0.5, 1, math.sqrt(2 / 3), math.sqrt(1 / 2), math.sqrt(2 / 5), math.sqrt(1 / 3)]),
        ("slanted", [0.6, 1, 0.8, 0.6, 0.4, 0.2]),
    ],
)
def test_schedules_by_hand(schedule: Any, factors: list[float]) -> None:
    assert [schedule_factor(schedule, step, 6, 2, 0.2) for step in range(6)] == pytest.approx(factors)


def test_the_transformers_highest_learning_rate_is_the_papers() -> None:
    assert noam_peak(512, 4000) == pytest.approx(6.99e-4, rel=1e-3)
    for step in (1, 1000, 4000, 100_000):
        paper = 512**-0.5 * min(step**-0.5, step * 4000**-1.5)
        assert schedule_factor("noam", step - 1, 10, 4000) * noam_peak(512, 4000) == pytest.approx(paper)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd", "averaging_patience": 1, "evaluation_every": 1}])
def test_a_training_that_was_stopped_goes_on_bit_for_bit(
    changes: dict[str, Any], tmp_path: Path, files: tuple[TokenFile, TokenFile]
) -> None:
    def make(run: Run | None) -> SupervisedTraining[Tensor]:
        torch.manual_seed(3)
        model = GPT(GPTConfig(7, 16, 1, 2, 8, dropout=0.2))
        problem = LanguageModelling(*files, LanguageModellingConfig(2, 8, 200), seed=1)
        return SupervisedTraining(model, problem, replace(QUICK, **changes), run=run, quiet=True)

    whole = make(None)
    whole.run()
    with Run.create(tmp_path / "run", {"kind": "test"}) as run:
        interrupted = make(run)

        def stop(training: SupervisedTraining[Tensor]) -> None:
            if training.steps == 3:
                training._remember(15)

        interrupted.before_step = stop
        with pytest.raises(Interrupted):
            interrupted.run()
        assert interrupted.steps == 4
        resumed = make(run)
        resumed.load_state_dict(run.checkpoints.load()[1])
        resumed.run()
        rows = [row["steps"] for row in run.read_metrics()]
    assert rows == [1, 2, 3, 4, 5, 6]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    assert whole.evaluation == resumed.evaluation


def test_divergence_stops_before_the_weights_are_touched(tmp_path: Path) -> None:
    class Broken(Line):
        def loss(self, model: nn.Module, batch: Tensor) -> Loss:
            found = super().loss(model, batch)
            return Loss(found.total * (math.nan if self.count == 4 else 1.0), found.count, found.tokens)

    model = single()
    with Run.create(tmp_path / "run", {"kind": "test"}) as run:
        training = SupervisedTraining(model, Broken(), QUICK, run=run, quiet=True)
        with pytest.raises(RllabError, match=r"diverged. The checkpoint of step 3 is intact."):
            training.run()
        assert run.checkpoints.latest() == 3  # the evaluation's, which was the best
        assert math.isfinite(model.weight.item())
    with pytest.raises(RllabError, match="diverged. Lower"):  # where nothing was kept, nothing is said to be
        SupervisedTraining(single(), Broken(), QUICK, quiet=True).run()


def test_a_batch_without_targets_is_refused() -> None:
    class Empty(Line):
        def loss(self, model: nn.Module, batch: Tensor) -> Loss:
            return Loss(model(batch[:, None]).sum() * 0, 0, 0)

    with pytest.raises(RllabError, match="no targets left"):
        SupervisedTraining(single(), Empty(), QUICK).step()


def test_the_loss_in_training_and_the_one_on_held_out_data_have_names_of_their_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Judged(Line):
        goal = "loss"

        def evaluate(self, model: nn.Module) -> dict[str, float]:
            return {"loss": 0.25}

    SupervisedTraining(single(), Judged(), QUICK).run()
    line = capsys.readouterr().out.splitlines()[-1]
    assert "  held-out loss 0.25  " in line
    assert line.count("  loss ") == 1


def test_patience_ends_training_and_the_best_weights_stay() -> None:
    model = single()
    config = replace(QUICK, steps=50, evaluation_every=1, patience=3)
    training = SupervisedTraining(model, Line(worse=True), config, quiet=True)
    training.run()
    assert training.steps == 4
    assert model.weight.item() == pytest.approx(1e-2 * schedule_factor("linear", 0, 50, 2, 0.1), rel=1e-4)


def test_a_language_of_known_entropy_is_learnt(files: tuple[TokenFile, TokenFile]) -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(7, 16, 1, 2, 16, norm="pre", dropout=0.0))
    config = replace(QUICK, steps=120, evaluation_every=0, warmup=10)
    problem = LanguageModelling(*files, LanguageModellingConfig(8, 16))
    training = SupervisedTraining(model, problem, config, quiet=True)
    found = training.run()
    assert 1.9 < found["perplexity"] < 2.2  # each token has two successors, equally probable
    with torch.no_grad():
        assert perplexity(model.eval(), files[1], 16, 3) == pytest.approx(found, rel=1e-5)


def test_operations_of_a_gpt_are_six_a_weight_and_token_and_attentions() -> None:
    config = GPTConfig(100, 32, 2, 2, 8)
    matrices = 2 * (3 * 8 * 8 + 8 * 8 + 2 * 8 * 32) + 100 * 8
    found = training_operations(GPT(config), 10, layers=2, width=8, length=32)
    assert found == 10 * (6 * matrices + 12 * 2 * 32 * 8)
    assert peak_operations_per_second("cpu", torch.float32, torch.get_num_threads()) > 1e8


def test_configurations_that_make_no_sense_are_refused(files: tuple[TokenFile, TokenFile]) -> None:
    for wrong in ({"steps": 0}, {"learning_rate": 0.0}, {"floor": 1.0}, {"schedule": "sine"}, {"patience": -1}):
        with pytest.raises(RllabError):
            replace(QUICK, **wrong)
    for name, worse in {
        "learning_rate": math.nan, "epsilon": -1e-8, "beta_1": 1.5, "beta_2": 1.0, "weight_decay": math.nan,
        "clip_norm": math.inf,
    }.items():  # fmt: skip
        with pytest.raises(RllabError, match=f"{name} must be .*, not {worse}"):
            replace(QUICK, **{name: worse})
    with pytest.raises(RllabError, match="too few for rows of 1000"):
        LanguageModelling(*files, LanguageModellingConfig(2, 1000))
