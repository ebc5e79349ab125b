"""ULMFiT's classifier: pooling by hand, long documents in pieces, how far derivatives go, both directions."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.awd_lstm import AWDLSTM, AWDLSTMConfig
from language.models.ulmfit import ULMFiT, ULMFiTConfig, ULMFiTEnsemble, concat_pooling

LANGUAGE = AWDLSTMConfig(40, width=4, layers=2, hidden_width=6)
CONFIG = ULMFiTConfig(LANGUAGE, classes=("a", "b", "c"), head_width=5, length=4)
TOKENS = torch.randint(40, (4, 11), generator=torch.Generator().manual_seed(1))
LENGTHS = torch.tensor([3, 11, 1, 8])
VALID = torch.arange(11) < LENGTHS[:, None]


def classifier(config: ULMFiTConfig = CONFIG) -> ULMFiT:
    torch.manual_seed(0)
    return ULMFiT(config).eval()


def test_pooling_by_hand() -> None:
    outputs = torch.tensor([[[1.0, -5.0], [3.0, -1.0], [2.0, -3.0]], [[-4.0, 2.0], [-6.0, 4.0], [9.0, 9.0]]])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    assert concat_pooling(outputs, valid).tolist() == [
        [2.0, -3.0, 3.0, -1.0, 2.0, -3.0],
        [-6.0, 4.0, -4.0, 4.0, -5.0, 3.0],
    ]


def test_padding_gets_no_derivative_of_what_is_pooled() -> None:
    outputs = torch.randn(2, 3, 4, requires_grad=True)
    valid = torch.tensor([[True, True, True], [True, False, False]])
    concat_pooling(outputs, valid).sum().backward()
    assert bool((outputs.grad[1, 1:] == 0).all())
    torch.testing.assert_close(outputs.grad[1, 0], torch.full((4,), 3.0))  # it is the last, the largest and the mean
    assert bool((outputs.grad[0] != 0).all())


def test_the_head_is_that_of_the_paper() -> None:
    with torch.device("meta"):
        made = ULMFiT(ULMFiTConfig(AWDLSTMConfig(10_000), classes=tuple("abcdef")))
    assert [tuple(layer.weight.shape) for layer in made.head if isinstance(layer, nn.Linear)] == [(50, 1200), (6, 50)]
    assert [layer.p for layer in made.head if isinstance(layer, nn.Dropout)] == [0.4, 0.1]
    kinds = [type(layer).__name__ for layer in made.head]
    assert kinds == ["BatchNorm1d", "Dropout", "Linear", "ReLU", "BatchNorm1d", "Dropout", "Linear"]


def test_a_document_in_pieces_is_read_as_if_it_were_one_piece() -> None:
    whole = classifier(replace(CONFIG, length=100))
    outputs = whole.encoder(TOKENS).raw_outputs[-1]
    expected = concat_pooling(outputs, VALID)
    torch.testing.assert_close(whole.pooled(TOKENS, VALID), expected)
    for length in (1, 3, 4, 11):
        torch.testing.assert_close(classifier(replace(CONFIG, length=length)).pooled(TOKENS, VALID), expected)


@pytest.mark.parametrize("backward", [False, True])
def test_a_document_is_classified_in_a_batch_as_alone(backward: bool) -> None:
    made = classifier(replace(CONFIG, language_model=replace(LANGUAGE, backward=backward)))
    logits = made(TOKENS, VALID)
    for row, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(logits[row : row + 1], made(TOKENS[row : row + 1, :length]))


def test_what_is_in_the_padding_changes_nothing() -> None:
    made = classifier()
    assert torch.equal(made(TOKENS, VALID), made(TOKENS.where(VALID, 0), VALID))


def reached(made: ULMFiT, tokens: Tensor, valid: Tensor | None = None) -> set[int]:
    """The tokens whose vectors have a gradient."""
    made.zero_grad()
    made(tokens, valid)[0].square().sum().backward()
    return set(made.encoder.tokens.weight.grad.abs().sum(1).nonzero().flatten().tolist())


def test_derivatives_reach_the_end_of_a_document_in_whole_pieces() -> None:
    tokens = torch.arange(20)[None]
    assert reached(classifier(), tokens) == set(range(20))
    for longest, first in [(1, 16), (4, 16), (5, 12), (8, 12), (16, 4), (17, 0), (20, 0)]:
        made = classifier(replace(CONFIG, longest_gradient=longest))
        assert reached(made, tokens) == set(range(first, 20))


def test_how_far_derivatives_reach_is_each_document_s_own_affair() -> None:
    tokens = torch.stack([torch.arange(16), torch.arange(20, 36)])
    valid = torch.arange(16) < torch.tensor([[6], [16]])
    made = classifier(replace(CONFIG, longest_gradient=4))
    assert reached(made, tokens, valid) == set(range(6))  # pieces 0…3 and 4, 5 have one of its last four tokens
    assert reached(made, tokens.flip(0), valid.flip(0)) == set(range(32, 36))


def test_all_of_a_document_is_pooled_also_where_no_derivatives_go() -> None:
    made = classifier(replace(CONFIG, longest_gradient=4))
    tokens = torch.arange(20)[None]
    torch.testing.assert_close(made(tokens), classifier()(tokens))
    changed = tokens.clone()
    changed[0, 0] = 30
    assert not torch.allclose(made(changed), made(tokens))


def test_derivatives_do_not_pass_from_a_piece_into_the_one_before_it() -> None:
    tokens = torch.arange(8)[None]
    made = classifier()
    outputs = made._outputs(tokens, torch.tensor([8]))
    outputs[0, 4:].sum().backward()
    found = made.encoder.tokens.weight.grad.abs().sum(1).nonzero().flatten().tolist()
    assert found == [4, 5, 6, 7]


def test_the_encoder_of_a_language_model_is_taken_over() -> None:
    torch.manual_seed(1)
    language_model, made = AWDLSTM(LANGUAGE).eval(), classifier()
    before = made(TOKENS, VALID)
    made.load_encoder(language_model)
    assert not torch.allclose(made(TOKENS, VALID), before)
    raw = language_model.forward_from(TOKENS, None).raw_outputs[-1]
    torch.testing.assert_close(made.pooled(TOKENS, VALID), concat_pooling(raw, VALID))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"vocabulary_size": 41}, "vocabulary_size is 40 and its language model's 41"), ({"backward": True}, "backward")],
)
def test_an_encoder_that_does_not_fit_is_refused(change: dict[str, int], sentence: str) -> None:
    with pytest.raises(RllabError, match=sentence):
        classifier().load_encoder(AWDLSTM(replace(LANGUAGE, **change)))


def test_an_ensemble_says_the_mean_of_both_probabilities() -> None:
    ahead, back = classifier(), classifier(replace(CONFIG, language_model=replace(LANGUAGE, backward=True)))
    both = ULMFiTEnsemble(ahead, back)(TOKENS, VALID)
    expected = (ahead(TOKENS, VALID).softmax(1) + back(TOKENS, VALID).softmax(1)) / 2
    torch.testing.assert_close(both.exp(), expected)
    with pytest.raises(RllabError, match="forward classifier first"):
        ULMFiTEnsemble(back, ahead)
    with pytest.raises(RllabError, match="classes a, b, c and a, b; they"):
        ULMFiTEnsemble(ahead, classifier(replace(back.config, classes=("a", "b"))))


def test_layer_groups_have_every_parameter_once_and_the_head_last() -> None:
    made = classifier()
    groups = made.layer_groups()
    assert [id(p) for group in groups for p in group] == [id(p) for p in made.parameters()]
    assert len(groups) == 1 + LANGUAGE.layers + 1
    assert groups[-1] == list(made.head.parameters())


def test_a_word_far_back_in_a_long_document_can_be_learnt() -> None:
    """The class is whether token 7 occurs anywhere, in documents of 3 to 30 tokens."""
    torch.manual_seed(3)
    made = ULMFiT(
        ULMFiTConfig(replace(LANGUAGE, width=8, hidden_width=12, dropout=0.0), ("a", "b"), 8, 0.0, 0.0, length=10)
    )
    optimizer = torch.optim.Adam(made.parameters(), 0.01)
    generator = torch.Generator().manual_seed(0)

    def documents(count: int) -> tuple[Tensor, Tensor, Tensor]:
        tokens = torch.randint(8, 40, (count, 30), generator=generator)
        valid = torch.arange(30) < torch.randint(3, 31, (count, 1), generator=generator)
        labels = torch.arange(count) % 2
        places = (torch.rand(count, generator=generator) * valid.sum(1)).long()
        tokens[labels == 1, places[labels == 1]] = 7
        return tokens, valid, labels

    for _ in range(60):
        tokens, valid, labels = documents(32)
        loss = nn.functional.cross_entropy(made(tokens, valid), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens, valid, labels = documents(200)
    assert (made.eval()(tokens, valid).argmax(1) == labels).float().mean().item() > 0.9


def test_bad_documents_are_refused() -> None:
    made = classifier()
    with pytest.raises(RllabError, match="A document has no tokens"):
        made(TOKENS, VALID & (torch.arange(4) != 1)[:, None])
    with pytest.raises(RllabError, match="A document has no tokens"):
        made(TOKENS[:, :0])
    with pytest.raises(RllabError, match="pad batches on the right"):
        made(TOKENS, VALID.flip(1))
    with pytest.raises(RllabError, match="two documents at least"):
        made.train()(TOKENS[:1])


@pytest.mark.parametrize(
    "wrong",
    [{"classes": ("a",)}, {"length": 0}, {"longest_gradient": 0}, {"pooled_dropout": 1.0}, {"head_dropout": -0.1}],
)
def test_configurations_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RllabError, match=next(iter(wrong))):
        replace(CONFIG, **wrong)


def test_logarithms_of_an_ensemble_s_probabilities_are_normalised() -> None:
    ahead, back = classifier(), classifier(replace(CONFIG, language_model=replace(LANGUAGE, backward=True)))
    assert ULMFiTEnsemble(ahead, back)(TOKENS).logsumexp(1).tolist() == pytest.approx([0.0] * 4, abs=1e-6)
