"""The classifier over ELMo's vectors: what learns and what does not, padding, pooling, the penalty by hand."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from envs.errors import RllabError
from language.models.characters import encode_sentences
from language.models.contextual_vectors import contextual_vectors
from language.models.elmo import ELMoConfig, ELMoLanguageModel
from language.models.elmo_classifier import ELMoClassifier, ELMoClassifierConfig

ELMO = ELMoConfig(30, 4, 8, ((1, 4), (2, 4)), 1, 6, 2, 8, dropout=0.3)
CONFIG = ELMoClassifierConfig(ELMO, ("bad", "good"), hidden_width=5, head_dropout=0.0)
SENTENCES = [["a", "fine", "old", "film"], ["dull"], ["so", "so"]]


def made(config: ELMoClassifierConfig = CONFIG) -> ELMoClassifier:
    torch.manual_seed(0)
    return ELMoClassifier(config).eval()


def batch(sentences: list[list[str]]) -> tuple[Tensor, Tensor]:
    return encode_sentences(sentences, ELMO.characters_a_word)


def test_a_document_has_the_logits_that_it_has_alone() -> None:
    model = made()
    together = model(*batch(SENTENCES))
    for row, sentence in enumerate(SENTENCES):
        torch.testing.assert_close(together[row : row + 1], model(*batch([sentence])))


def test_logits_are_the_pooled_lstm_of_the_mixed_vectors_of_words() -> None:
    model = made()
    model.mix.weights.data = torch.tensor([0.3, -0.5, 1.0])
    model.mix.gamma.data = torch.tensor(1.7)
    [vectors] = contextual_vectors(model.elmo, [SENTENCES[0]], model.mix)
    outputs = model.lstm(vectors[None])[0][0]
    expected = model.head(torch.cat([outputs.amax(0), outputs.mean(0)]))
    torch.testing.assert_close(model(*batch([SENTENCES[0]]))[0], expected)


def test_the_language_model_does_not_learn_and_drops_nothing() -> None:
    model = made().train()
    assert not model.elmo.training
    assert model.lstm.training
    logits, further = model.with_auxiliary_loss(*batch(SENTENCES))
    (logits.sum() + further.sum()).backward()
    assert all(parameter.grad is None for parameter in model.elmo.parameters())
    learning = [parameter for group in model.layer_groups() for parameter in group]
    assert sorted(map(id, learning)) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert all(parameter.grad is not None for parameter in learning)
    assert torch.equal(model(*batch(SENTENCES)), model(*batch(SENTENCES)))  # ELMo's own dropout is 0.3


def test_the_penalty_is_the_weights_squares_for_each_document() -> None:
    model = made(replace(CONFIG, mix_penalty=0.01))
    model.mix.weights.data = torch.tensor([1.0, -2.0, 3.0])
    logits, further = model.with_auxiliary_loss(*batch(SENTENCES))
    torch.testing.assert_close(further, torch.full((3,), 0.14))
    torch.testing.assert_close(logits, model(*batch(SENTENCES)))


def test_a_trained_encoder_is_taken_over() -> None:
    torch.manual_seed(3)
    source, model = ELMoLanguageModel(ELMO).eval(), made()
    model.load_encoder(source)
    torch.testing.assert_close(model.elmo(*batch(SENTENCES)), source.encoder(*batch(SENTENCES)))
    with pytest.raises(RllabError, match="width is 6 and its language model's 7"):
        model.load_encoder(ELMoLanguageModel(replace(ELMO, width=7)))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(RllabError, match="no words"):
        made()(*batch([["one"], []]))
    for wrong in ({"hidden_width": 0}, {"head_dropout": 1.0}, {"mix_penalty": -1.0}):
        with pytest.raises(RllabError, match=next(iter(wrong))):
            replace(CONFIG, **wrong)  # type: ignore[arg-type]
    with pytest.raises(RllabError, match="needs the names of its classes"):
        ELMoClassifier(ELMoClassifierConfig(ELMO))
