"""Supervised fine-tuning: the loss against torch's on each row alone, what fits, that runs learn and go on exactly."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_preferences import model_folder, records, written
from tiny_texts import gpt, tokenizer
from torch import nn

from envs.errors import RllabError
from language.models.awd_lstm import AWDLSTM, AWDLSTMConfig
from language.models.folder import load_model
from language.preferences.data import TextsConfig
from language.preferences.rows import Row, RowReader, Rows, TooLong, all_log_probs, batches_by_length, row_log_probs
from language.preferences.sft import Completions, RowsConfig, SupervisedFineTuning
from language.preferences.text_models import text_model
from language.training.training_config import TrainingConfig
from rllab.runs import Run

LETTERS = tokenizer()
ROWS = [Row([2, 3, 4], [5, 6, 1]), Row([7], [2, 2, 3, 4, 1]), Row([3, 3, 3, 3, 4], [1])]
TRAINING = TrainingConfig(
    40, 3e-3, warmup=2, weight_decay=0, evaluation_every=20, checkpoint_every=0, tensorboard=False
)


def lstm() -> AWDLSTM:
    torch.manual_seed(0)
    return AWDLSTM(AWDLSTMConfig(len(LETTERS), 12, 2, 16)).eval()


def alone(model: nn.Module, row: Row) -> list[float]:
    """Log-probabilities of a row's response by torch, without batch and padding."""
    ids = torch.tensor([[*row.prompt, *row.response]])
    chances = torch.log_softmax(model(ids[:, :-1])[0], -1)
    found: list[float] = chances[torch.arange(ids.shape[1] - 1), ids[0, 1:]][len(row.prompt) - 1 :].tolist()
    return found


@pytest.mark.parametrize("model", [gpt().eval(), lstm()], ids=["gpt", "lstm"])
def test_the_loss_is_torch_s_cross_entropy_of_the_completions_tokens_alone(model: nn.Module) -> None:
    each = [alone(model, row) for row in ROWS]
    problem = Completions(ROWS, ROWS, 8, LETTERS)
    loss = problem.loss(model, Rows.of(ROWS))
    assert loss.count == sum(map(len, each)) == 9
    assert loss.total.item() == pytest.approx(-sum(map(sum, each)), rel=1e-5)
    assert loss.tokens == sum(row.length for row in ROWS)
    torch.testing.assert_close(row_log_probs(text_model(model), Rows.of(ROWS)), torch.tensor([sum(x) for x in each]))
    torch.testing.assert_close(all_log_probs(text_model(model), ROWS), torch.tensor([sum(x) for x in each]))
    with torch.no_grad():
        judged = problem.evaluate(model)
    assert judged["perplexity"] == pytest.approx(math.exp(loss.total.item() / 9), rel=1e-4)


def test_the_gradient_is_that_of_torch_s_cross_entropy() -> None:
    ours, theirs = gpt().eval(), gpt().eval()
    Completions(ROWS, ROWS, 8, LETTERS).loss(ours, Rows.of(ROWS)).total.backward()  # type: ignore[no-untyped-call]
    total = torch.zeros(())
    for row in ROWS:
        ids = torch.tensor([[*row.prompt, *row.response]])
        first = len(row.prompt)
        logits = theirs(ids[:, :-1])[0, first - 1 :]
        total = total + nn.functional.cross_entropy(logits, ids[0, first:], reduction="sum")
    total.backward()  # type: ignore[no-untyped-call]
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_rows_are_prompts_on_the_left_and_responses_with_an_end_token_on_the_right() -> None:
    reader = RowReader(text_model(gpt()), LETTERS)
    rows = reader.rows(["ab", ""], ["c", "dead"])
    a, b, c, d, e = (LETTERS.vocabulary[letter] for letter in "abcde")
    end = LETTERS.vocabulary["<end>"]
    assert rows == [Row([a, b], [c, end]), Row([end], [d, e, a, d, end])]
    tensors = Rows.of([row for row in rows if row is not None])
    assert tensors.prompt == 2
    assert tensors.tokens.tolist() == [[a, b, c, end, 0, 0, 0], [0, end, d, e, a, d, end]]
    assert tensors.valid.tolist() == [[True] * 4 + [False] * 3, [False] + [True] * 6]


@pytest.mark.parametrize(("too_long", "kept"), [("drop", None), ("cut", 24), ("refuse", None)])
def test_texts_longer_than_the_context_are_dropped_cut_or_refused(too_long: TooLong, kept: int | None) -> None:
    reader = RowReader(text_model(gpt()), LETTERS, too_long)
    if too_long == "refuse":
        with pytest.raises(
            RllabError, match=r"Text 2 has 36 tokens, 30 of them its prompt's, and the model a context of 24"
        ):
            reader.rows(["a", "b" * 30], ["a", "c" * 5])
        return
    short, long, whole = reader.rows(["a", "b" * 30, ""], ["a", "c" * 5, "d" * 40])
    assert short is not None
    assert (None if long is None else long.length) == kept
    assert (None if whole is None else whole.length) == kept
    if long is not None and whole is not None:
        assert long.response == [*LETTERS.ids("c" * 5), LETTERS.vocabulary["<end>"]]
        assert long.prompt == LETTERS.ids("b" * 18)
        assert reader.rows(["a"], ["c" * 24]) == [None]  # a response alone that is too long cannot be cut


def test_batches_for_evaluation_hold_every_row_once_and_no_more_tokens_than_allowed() -> None:
    lengths = [5, 3, 9, 1, 1, 7, 30]
    batches = batches_by_length(lengths, 18)
    assert sorted(number for batch in batches for number in batch) == list(range(7))
    assert all(len(batch) * max(lengths[n] for n in batch) <= 18 or len(batch) == 1 for batch in batches)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sft")
    model_folder(path / "model")
    rows = [{"prompt": each["prompt"], "completion": each["chosen"]} for each in records()]
    written(path / "texts.jsonl", rows)
    return path


def recipe(folder: Path, **changes: Any) -> SupervisedFineTuning:
    texts = TextsConfig((str(folder / "texts.jsonl"),))
    return SupervisedFineTuning.of(
        folder / "model", texts, RowsConfig(8), replace(TRAINING, **changes)
    )  # fmt: skip


def test_a_run_learns_what_to_write_and_leaves_a_model_with_its_tokenizer(folder: Path, tmp_path: Path) -> None:
    found = recipe(folder).run(tmp_path / "run", quiet=True)
    rows = Run.open(tmp_path / "run").read_metrics()
    assert found.held_out["loss"] < 0.6 * rows[0]["loss"]
    assert (found.texts, found.too_long, found.dropped) == (84, 0, 0)
    model, letters = load_model(tmp_path / "run")
    assert letters.vocabulary == LETTERS.vocabulary
    assert not torch.equal(next(model.parameters()), next(load_model(folder / "model")[0].parameters()))


def test_a_run_that_goes_on_is_the_same_as_one_that_had_all_steps_from_the_start(folder: Path, tmp_path: Path) -> None:
    constant: dict[str, Any] = {"schedule": "constant", "warmup": 0, "evaluation_every": 0}
    recipe(folder, steps=6, **constant).run(tmp_path / "short", quiet=True)
    SupervisedFineTuning.resume(tmp_path / "short", steps=15, quiet=True)
    recipe(folder, steps=15, **constant).run(tmp_path / "long", quiet=True)
    one, other = (load_model(tmp_path / name)[0].state_dict() for name in ("short", "long"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_epochs_become_steps_and_no_prompt_is_both_learnt_and_held_out(folder: Path, tmp_path: Path) -> None:
    made = replace(recipe(folder), rows=RowsConfig(8, epochs=2))
    made.run(tmp_path / "run", quiet=True)
    assert Run.open(tmp_path / "run").config["loop"]["steps"] == 2 * math.ceil(84 / 8)
    model, letters = load_model(folder / "model")
    problem = made._problem(model, letters)
    prompts = [{tuple(row.prompt) for row in part} for part in (problem.training, problem.held_out)]
    assert prompts[0]
    assert prompts[1]
    assert not prompts[0] & prompts[1]


def test_what_cannot_be_learnt_leaves_no_run(folder: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.jsonl"
    long.write_text("".join(json.dumps({"prompt": f"{'a' * 30}{x}", "completion": "b"}) + "\n" for x in "ab"))
    made = SupervisedFineTuning.of(folder / "model", TextsConfig((str(long),)), RowsConfig(), TRAINING)
    with pytest.raises(RllabError, match="All 2 texts are longer than the model's context of 24"):
        made.run(tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(RllabError, match="compiling"):
        recipe(folder, compile=True)
