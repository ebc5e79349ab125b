"""Learning classes of documents: batches, loss and accuracy by hand, exact resume, ULMFiT's three stages together."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.data.blocks import write_token_file
from language.models.awd_lstm import AWDLSTM, AWDLSTMConfig
from language.models.ulmfit import ULMFiT, ULMFiTConfig
from language.training.bptt import BPTTConfig, BPTTModelling
from language.training.classification import (
    Classification,
    ClassificationConfig,
    Document,
    LabelledDocument,
    class_logits,
    class_numbers,
    padded_documents,
)
from language.training.epochs import batch_count, shuffled_batches
from language.training.slanted import GradualUnfreezing, SlantedConfig
from language.training.supervised import SupervisedTraining
from language.training.training_config import TrainingConfig

CONFIG = ClassificationConfig(batch_size=4, sorted_batches=2)
LANGUAGE = AWDLSTMConfig(20, width=8, layers=2, hidden_width=12, dropout=0.2)


def documents(count: int, seed: int = 0) -> list[LabelledDocument]:
    """1 to 9 tokens from 2 on; the label is "good" if the first one is even."""
    generator = np.random.default_rng(seed)
    rows = [generator.integers(2, 20, generator.integers(1, 10)).tolist() for _ in range(count)]
    return [labelled(row, "good" if row[0] % 2 == 0 else "bad") for row in rows]


def labelled(tokens: list[int], label: str) -> LabelledDocument:
    return LabelledDocument(Document(tokens), label)


class FirstToken(nn.Module):
    """Says that the class is the first token's last bit, the more surely the larger `scale`."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        assert bool(valid[:, 0].all())
        even = (tokens[:, 0] % 2 == 0).float()
        return self.scale * torch.stack([1 - even, even], 1)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 9, 17, 50])
def test_every_document_comes_once_in_an_epoch_and_none_alone(count: int) -> None:
    lengths = np.arange(count)
    batches = shuffled_batches(lengths, 4, 2, np.random.default_rng(0))
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))
    assert len(batches) == batch_count(count, 4)
    sizes = [len(batch) for batch in batches]
    assert 2 <= min(sizes) <= max(sizes) <= min(min(sizes) + 1, 4)


def test_batches_of_two_have_three_where_one_would_be_alone_and_batches_of_one_stay() -> None:
    assert batch_count(5, 2) == 2
    assert batch_count(5, 1) == 5
    assert batch_count(1, 8) == 1


def test_batches_have_documents_of_about_equal_lengths_and_differ_between_epochs() -> None:
    lengths = np.random.default_rng(1).integers(1, 1000, 320)
    generator = np.random.default_rng(0)

    def padding(sorted_batches: int) -> float:
        batches = shuffled_batches(lengths, 16, sorted_batches, generator)
        return float(sum(lengths[batch].max() * len(batch) for batch in batches) / lengths.sum() - 1)

    assert padding(1) > 0.5
    assert padding(20) < 0.08
    one, other = (shuffled_batches(lengths, 16, 5, generator)[0].tolist() for _ in range(2))
    assert one != other


def test_batches_are_padded_documents_with_the_numbers_of_their_classes() -> None:
    training = documents(11)
    problem = Classification(training, training, CONFIG)
    assert problem.classes == ("bad", "good")
    assert problem.epoch_batches == 3
    seen = []
    for _ in range(3):
        batch = problem.batch()
        for row, valid, label in zip(*batch.inputs, batch.labels, strict=True):
            seen.append(labelled(row[valid].tolist(), problem.classes[int(label)]))
    assert sorted(seen) == sorted(training)


def test_loss_and_accuracy_by_hand() -> None:
    held_out = [labelled([4, 1], "good"), labelled([3], "good"), labelled([5, 6, 7], "bad")]
    problem = Classification([*held_out, labelled([6], "bad")], held_out, CONFIG)
    model = FirstToken(math.log(3))
    # Of the two classes one has 3/4; it is the right one for the first and last document held out, ...
    found = problem.evaluate(model)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["loss"] == pytest.approx((2 * math.log(4 / 3) + math.log(4)) / 3)
    # ... and for two of the four that are learnt from.
    loss = problem.loss(model, problem.batch())
    assert loss.total.item() == pytest.approx(2 * math.log(4 / 3) + 2 * math.log(4))
    assert (loss.count, loss.tokens, loss.metrics) == (4, 7, {"accuracy": 0.5})


def test_logits_are_in_the_order_of_the_documents() -> None:
    rows = [made.document for made in documents(13)]
    found = class_logits(FirstToken(), rows, batch_size=3)
    assert found.argmax(1).tolist() == [1 - row.tokens[0] % 2 for row in rows]


def test_documents_of_several_sequences_and_of_segments_are_padded() -> None:
    several = [Document([1, 2], further=([3],)), Document([4], further=([5, 6, 7],))]
    tokens, valid = padded_documents(several)
    assert tokens.tolist() == [[[1, 2, 0], [3, 0, 0]], [[4, 0, 0], [5, 6, 7]]]
    assert valid.sum(2).tolist() == [[2, 1], [1, 3]]
    assert [document.length for document in several] == [2, 3]
    tokens, valid, segments = padded_documents([Document([1, 2], [0, 1]), Document([3, 4, 5], [0, 1, 1])])
    assert tokens.tolist() == [[1, 2, 0], [3, 4, 5]]
    assert segments.tolist() == [[0, 1, 0], [0, 1, 1]]
    assert valid.tolist() == [[True, True, False], [True] * 3]


class Burdened(FirstToken):
    """Adds half a nat to the loss of each document."""

    def with_auxiliary_loss(self, tokens: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        return self(tokens, valid), torch.full((len(tokens),), 0.5)


def test_what_a_model_adds_to_the_loss_is_learnt_from_and_not_judged_by() -> None:
    data = documents(4)
    problem, model = Classification(data, data, CONFIG), Burdened()
    batch = problem.batch()
    alone, together = problem.loss(FirstToken(), batch), problem.loss(model, batch)
    assert together.total.item() == pytest.approx(alone.total.item() + 4 * 0.5)
    assert together.metrics["auxiliary_loss"] == 0.5
    assert problem.evaluate(model) == problem.evaluate(FirstToken())


def test_confusions_are_counted_by_right_and_found_class() -> None:
    # Even first tokens are taken for the second class.
    held_out = [
        labelled([token], label) for token, label in ((3, "bad"), (4, "bad"), (6, "bad"), (5, "good"), (2, "good"))
    ]
    problem = Classification(held_out, held_out, CONFIG)
    assert problem.confusion(FirstToken()) == [[1, 2], [1, 1]]


def test_the_order_of_the_classes_can_be_given() -> None:
    data = documents(8)
    problem = Classification(data, data, CONFIG, classes=("good", "bad"))
    assert problem.classes == ("good", "bad")
    assert problem.evaluate(FirstToken())["accuracy"] == 0.0
    with pytest.raises(RllabError, match="'bad' was not in the training; it knows good, other"):
        Classification(data, data, CONFIG, classes=("good", "other"))


def training_of(training: list[LabelledDocument], steps: int = 9) -> SupervisedTraining:  # type: ignore[type-arg]
    torch.manual_seed(0)
    problem = Classification(training, training, CONFIG, seed=3)
    model = ULMFiT(ULMFiTConfig(LANGUAGE, problem.classes, head_width=6, length=4))
    layers = model.layer_groups()
    config = SlantedConfig().training(TrainingConfig(steps=steps, learning_rate=0.01, evaluation_every=0))
    return SupervisedTraining(
        model, problem, config, groups=SlantedConfig().groups(layers),
        before_step=GradualUnfreezing(layers, problem.epoch_batches), quiet=True,
    )  # fmt: skip


def test_training_goes_on_exactly_from_a_state_in_the_middle_of_an_epoch() -> None:
    def losses(training: SupervisedTraining, steps: int) -> list[float]:  # type: ignore[type-arg]
        found = []
        for _ in range(steps):
            assert training.before_step is not None
            training.before_step(training)
            found.append(training.step()["loss"])
        return found

    data = documents(10)
    straight = losses(training_of(data), 9)
    stopped = training_of(data)
    losses(stopped, 4)
    state = stopped.state_dict()
    resumed = training_of(data)
    resumed.load_state_dict(state)
    assert losses(resumed, 5) == straight[4:]


def test_a_pre_trained_encoder_knows_words_that_no_labelled_document_has(tmp_path: Path) -> None:
    """Tokens 2 to 9 are followed by 0, 10 to 17 by 1; four of the 16 have a label, by which the class is the sign.

    Without pre-training nothing is known of the other twelve.
    """
    generator = np.random.default_rng(0)
    words = generator.integers(2, 18, 2000)
    text = np.stack([words, words // 10], 1).flatten().tolist()
    file = write_token_file(tmp_path / "text.npy", [text], 18)
    config = AWDLSTMConfig(18, width=12, layers=1, dropout=0.0)
    torch.manual_seed(0)
    language_model = AWDLSTM(config)
    settings = TrainingConfig(
        steps=150, learning_rate=0.02, schedule="constant", warmup=0, evaluation_every=0, weight_decay=0.0
    )
    modelling = BPTTModelling(file, file, BPTTConfig(8, 16, activation=0.0, slowness=0.0))
    SupervisedTraining(language_model, modelling, settings, quiet=True).run()

    def made(words: list[int]) -> list[LabelledDocument]:
        return [labelled([word], "high" if word >= 10 else "low") for word in words]

    problem = Classification(made([2, 3, 10, 11]), made([*range(4, 10), *range(12, 18)]), CONFIG)

    def accuracy(encoder: AWDLSTM | None) -> float:
        torch.manual_seed(1)
        model = ULMFiT(ULMFiTConfig(config, problem.classes, head_width=6, pooled_dropout=0.0, head_dropout=0.0))
        if encoder is not None:
            model.load_encoder(encoder)
        layers = model.layer_groups()
        slanted = SlantedConfig()
        training = SupervisedTraining(
            model, problem, slanted.training(replace(settings, steps=40)), groups=slanted.groups(layers),
            before_step=GradualUnfreezing(layers, 10), quiet=True,
        )  # fmt: skip
        return training.run()["accuracy"]

    assert accuracy(language_model) == 1.0
    assert accuracy(None) < 0.9


def test_documents_that_cannot_be_learnt_from_are_refused() -> None:
    good, bad = labelled([1], "good"), labelled([2], "bad")
    with pytest.raises(RllabError, match="no document for training"):
        Classification([], [good], CONFIG)
    with pytest.raises(RllabError, match="no document for validation"):
        Classification([good, bad], [], CONFIG)
    with pytest.raises(RllabError, match="for validation has no tokens"):
        Classification([good, bad], [labelled([], "bad")], CONFIG)
    with pytest.raises(RllabError, match="All documents have the label 'good'"):
        Classification([good, good], [good], CONFIG)
    with pytest.raises(RllabError, match="'odd' was not in the training; it knows bad, good"):
        Classification([good, bad], [labelled([1], "odd")], CONFIG)
    with pytest.raises(RllabError, match="'worse' was not in the training"):
        class_numbers(["good", "worse"], ["bad", "good"])


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"sorted_batches": 0}])
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(RllabError, match=next(iter(wrong))):
        replace(CONFIG, **wrong)
