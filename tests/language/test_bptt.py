"""Language models that read on from batch to batch: pieces, lengths, exact resume; and the averaged weights."""

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from envs.errors import RllabError
from language.data.blocks import TokenFile, write_token_file
from language.models.awd_lstm import AWDLSTM, AWDLSTMConfig
from language.training.asgd import NonMonotoneAverage
from language.training.bptt import BPTTConfig, BPTTModelling, draw_length, text_rows
from language.training.supervised import SupervisedTraining
from language.training.training_config import TrainingConfig

CONFIG = BPTTConfig(batch_size=3, length=8, deviation=2.0)
MODEL = AWDLSTMConfig(50, width=6, layers=2, hidden_width=8)


def write(path: Path, ids: list[int], size: int = 50) -> TokenFile:
    return write_token_file(path, [ids], size)


@pytest.fixture
def numbers(tmp_path: Path) -> TokenFile:
    """0 … 49 and again, 152 tokens: two that fill no column of 3 rows."""
    return write(tmp_path / "numbers.npy", [number % 50 for number in range(152)])


def problem(file: TokenFile, config: BPTTConfig = CONFIG, backward: bool = False, seed: int = 0) -> BPTTModelling:
    return BPTTModelling(file, file, config, seed, backward=backward)


def test_rows_go_on_where_the_one_before_ends(numbers: TokenFile) -> None:
    rows = text_rows(numbers, 3)
    assert rows.flatten().tolist() == numbers.ids[:150].tolist()
    assert text_rows(numbers, 3, backward=True).flatten().tolist() == numbers.ids[::-1][:150].tolist()


@pytest.mark.parametrize("backward", [False, True])
def test_the_pieces_of_an_epoch_are_the_text_and_every_token_is_predicted_once(
    numbers: TokenFile, backward: bool
) -> None:
    made = problem(numbers, backward=backward)
    rows = torch.from_numpy(text_rows(numbers, 3, backward).astype(np.int64))
    for _ in range(2):
        batches = [made.batch()]
        while made.place < 49:
            batches.append(made.batch())
        assert [batch.begins for batch in batches] == [True] + [False] * (len(batches) - 1)
        assert torch.equal(torch.cat([batch.tokens for batch in batches], 1), rows[:, :-1])
        assert torch.equal(torch.cat([batch.targets for batch in batches], 1), rows[:, 1:])


def test_lengths_are_those_of_awd_lstm() -> None:
    generator = np.random.default_rng(0)
    lengths = np.array([draw_length(BPTTConfig(), generator) for _ in range(20_000)])
    near_half = lengths < 52.5
    assert near_half.mean() == pytest.approx(0.05, abs=0.005)
    # Rounded down: half a token less on average.
    assert lengths[~near_half].mean() == pytest.approx(69.5, abs=0.15)
    assert lengths[~near_half].std() == pytest.approx(5, abs=0.15)
    assert lengths[near_half].mean() == pytest.approx(34.5, abs=0.6)
    assert min(draw_length(BPTTConfig(length=6, deviation=9), generator) for _ in range(200)) == 5
    assert {draw_length(BPTTConfig(length=3, deviation=0, half_share=0), generator) for _ in range(5)} == {3}


def test_the_loss_is_that_of_one_text_read_through(numbers: TokenFile) -> None:
    torch.manual_seed(0)
    model, made = AWDLSTM(MODEL).eval(), problem(numbers, replace(CONFIG, activation=0.0, slowness=0.0))
    total, count = 0.0, 0
    while made.place < 49:
        loss = made.loss(model, made.batch())
        total, count = total + loss.total.item(), count + loss.count
    rows = torch.from_numpy(text_rows(numbers, 3).astype(np.int64))
    whole = nn.functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten(), reduction="sum")
    assert count == 3 * 49
    assert total == pytest.approx(whole.item(), rel=1e-5)
    evaluation = made.evaluate(model)
    assert evaluation["loss"] == pytest.approx(whole.item() / count, rel=1e-5)
    assert evaluation["perplexity"] == pytest.approx(math.exp(evaluation["loss"]))


def test_a_model_that_reads_in_the_other_direction_is_refused(numbers: TokenFile) -> None:
    made = problem(numbers)
    with pytest.raises(RllabError, match="reads forwards and the text is read backwards"):
        problem(numbers, backward=True).loss(AWDLSTM(MODEL), made.batch())
    with pytest.raises(RllabError, match="reads backwards and the text is read forwards"):
        made.evaluate(AWDLSTM(replace(MODEL, backward=True)))


def test_penalties_are_added_once_for_each_target(numbers: TokenFile) -> None:
    torch.manual_seed(0)
    model = AWDLSTM(MODEL).eval()
    plain, penalised = problem(numbers, replace(CONFIG, activation=0.0, slowness=0.0)), problem(numbers)
    without, with_them = plain.loss(model, plain.batch()), penalised.loss(model, penalised.batch())
    difference = (with_them.total - without.total).item()
    assert difference == pytest.approx(with_them.count * with_them.metrics["penalty"], rel=1e-3)
    assert difference > 0


def test_training_goes_on_exactly_from_a_state(numbers: TokenFile) -> None:
    def training() -> SupervisedTraining:  # type: ignore[type-arg]
        torch.manual_seed(0)
        return SupervisedTraining(AWDLSTM(MODEL), problem(numbers), TrainingConfig(steps=12, learning_rate=0.01))

    straight = training()
    losses = [straight.step()["loss"] for _ in range(10)]
    stopped = training()
    for _ in range(4):
        stopped.step()
    state = stopped.state_dict()
    resumed = training()
    resumed.load_state_dict(state)
    assert [resumed.step()["loss"] for _ in range(6)] == losses[4:]


@pytest.mark.parametrize("backward", [False, True])
def test_a_state_that_is_carried_over_tells_what_a_short_piece_cannot(tmp_path: Path, backward: bool) -> None:
    """A kind, three tokens that are always the same, the kind again; evaluated in pieces of three columns."""
    kinds = np.random.default_rng(0).integers(0, 2, 300).tolist()
    file = write(tmp_path / "parts.npy", [token for kind in kinds for token in [5, kind, 2, 3, 4, kind, 5]], 6)
    config = BPTTConfig(batch_size=10, length=24, deviation=3.0, activation=0.0, slowness=0.0)
    torch.manual_seed(0)
    model = AWDLSTM(AWDLSTMConfig(6, 16, 1, backward=backward, dropout=0.0))
    settings = TrainingConfig(steps=200, learning_rate=0.03, schedule="constant", warmup=0, evaluation_every=0)
    training = SupervisedTraining(model, problem(file, config, backward), settings)
    for _ in range(200):
        training.step()
    model.eval()
    with torch.no_grad():
        found = problem(file, replace(config, length=3), backward).evaluate(model)
    # Only the kind is uncertain, and only the first time, which is log 2 in 7 tokens.
    assert found["loss"] < 1.2 * math.log(2) / 7


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"length": 0}, {"deviation": -1.0}, {"half_share": 1.5}, {"slowness": -0.1}]
)
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RllabError, match=next(iter(wrong))):
        BPTTConfig(**wrong)


def test_a_text_that_is_too_short_is_refused(numbers: TokenFile) -> None:
    with pytest.raises(RllabError, match="152 tokens, too few for 77 rows"):
        problem(numbers, replace(CONFIG, batch_size=77))


def quadratic() -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(torch.tensor([3.0, -2.0])), nn.Parameter(torch.tensor(5.0))


def test_averages_are_those_of_torch_s_asgd_from_the_step_where_they_begin() -> None:
    ours, theirs = quadratic(), quadratic()
    sgd = torch.optim.SGD(ours, 0.3)
    asgd = torch.optim.ASGD(theirs, 0.3, lambd=0.0, t0=3)
    average = NonMonotoneAverage(ours, patience=1)
    for step in range(10):
        if step == 4:
            assert [average.observe(loss) for loss in (1.0, 2.0, 3.0, 4.0)] == [False, False, True, False]
        for parameters, optimizer in ((ours, sgd), (theirs, asgd)):
            optimizer.zero_grad()
            ((parameters[0] ** 2).sum() * parameters[1].cos()).backward()
            optimizer.step()
        average.after_step()
    assert average.steps == 6
    before = [parameter.detach().clone() for parameter in ours]
    with average.averaged():
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine.detach(), asgd.state[other]["ax"])
            assert not torch.equal(mine, other)
    assert all(torch.equal(old, new) for old, new in zip(before, ours, strict=True))


def test_the_average_begins_when_a_loss_is_above_the_best_but_for_the_last_few() -> None:
    average = NonMonotoneAverage(quadratic(), patience=3)
    losses = [5.0, 4.0, 4.5, 4.4, 4.3, 4.2, 3.9, 4.05]
    # At 4.3 the losses but for the last three are 5; at 4.2 they are 5 and 4, above which it is.
    begun = [average.observe(loss) for loss in losses]
    assert begun == [False] * 5 + [True] + [False] * 2
    assert average.begun


def test_nothing_is_averaged_before_it_begins() -> None:
    parameters = quadratic()
    average = NonMonotoneAverage(parameters)
    average.after_step()
    assert average.steps == 0
    with average.averaged():
        assert parameters[1].item() == 5.0


def test_averages_go_on_from_a_state_and_weights_come_back_after_an_error() -> None:
    parameters = quadratic()
    average = NonMonotoneAverage(parameters, patience=1)
    for loss in (1.0, 2.0, 3.0):
        average.observe(loss)
    average.after_step()
    other = NonMonotoneAverage(parameters, patience=1)
    other.load_state_dict(average.state_dict())
    with torch.no_grad():
        parameters[1].fill_(9.0)
    for one in (average, other):
        one.after_step()
        inside = []
        with suppress(KeyError), one.averaged():
            inside.append(parameters[1].item())
            raise KeyError
        assert inside == [pytest.approx(7.0)]
        assert parameters[1].item() == 9.0
    with pytest.raises(RllabError, match="patience"):
        NonMonotoneAverage(parameters, patience=0)
