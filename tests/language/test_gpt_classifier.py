"""GPT's classifier: `transformers` for equal weights, the auxiliary loss by hand, what of a language model it takes."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.gpt import GPT, GPTConfig, next_token_loss
from language.models.gpt_classifier import NEW_TOKENS, GPTClassifier, GPTClassifierConfig
from language.models.huggingface import load_gpt

GPT_TINY = GPTConfig(37, 12, 2, 2, 16, norm="pre", dropout=0.0)
CONFIG = GPTClassifierConfig(GPT_TINY, ("bad", "fair", "good"), head_dropout=0.0)
LENGTHS = torch.tensor([9, 4])
Model = TypeVar("Model", bound=nn.Module)


def scattered(model: Model, seed: int = 0) -> Model:
    """The model with weights that are all different and large enough to tell."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3, generator=generator)
    return model.eval()


def tokens(*shape: int) -> Tensor:
    return torch.randint(40, shape, generator=torch.Generator().manual_seed(1))


def loaded(config: GPTClassifierConfig, theirs: Any, folder: Path) -> GPTClassifier:
    """Ours with the weights of a peer, whose vocabulary has the new tokens already."""
    theirs.transformer.save_pretrained(folder)
    ours = scattered(GPTClassifier(config), 5)
    ours.gpt.load_state_dict(load_gpt(folder).state_dict())
    return ours


def test_logits_are_those_of_transformers_sequence_classification(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    settings = transformers.GPT2Config(
        vocab_size=41, n_positions=12, n_embd=16, n_layer=2, n_head=2, num_labels=3, pad_token_id=40,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    theirs = scattered(transformers.GPT2ForSequenceClassification(settings))
    ours = loaded(replace(CONFIG, gpt=replace(GPT_TINY, vocabulary_size=38)), theirs, tmp_path)
    ours.head.weight.data.copy_(theirs.score.weight)
    ours.head.bias.data.zero_()
    given, valid = tokens(2, 9), torch.arange(9) < LENGTHS[:, None]
    expected = theirs(input_ids=given.where(valid, 40), attention_mask=valid.long()).logits
    torch.testing.assert_close(ours(given, valid), expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.1


def test_choices_and_their_language_loss_are_those_of_transformers_double_heads(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    settings = transformers.OpenAIGPTConfig(
        vocab_size=40, n_positions=12, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, summary_first_dropout=0.0,
    )  # fmt: skip
    theirs = scattered(transformers.OpenAIGPTDoubleHeadsModel(settings))
    config = GPTClassifierConfig(replace(GPT_TINY, norm="post"), ("first", "second"), "choice", 0.0)
    ours = loaded(config, theirs, tmp_path)
    ours.head.load_state_dict(theirs.multiple_choice_head.summary.state_dict())
    given = tokens(3, 2, 9)
    expected = theirs(
        input_ids=given, mc_token_ids=torch.full((3, 2), 8), labels=given, mc_labels=torch.zeros(3).long()
    )
    logits, further = ours.with_auxiliary_loss(given)
    torch.testing.assert_close(logits, expected.mc_logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(further.mean(), 0.5 * expected.loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours(given), logits)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_document_has_the_logits_that_it_has_alone(norm: str) -> None:
    model = scattered(GPTClassifier(replace(CONFIG, gpt=replace(GPT_TINY, norm=norm))))  # type: ignore[arg-type]
    given, valid = tokens(2, 9), torch.arange(9) < LENGTHS[:, None]
    together, further = model.with_auxiliary_loss(given, valid)
    for row, length in enumerate(LENGTHS.tolist()):
        alone, loss = model.with_auxiliary_loss(given[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1], alone)
        torch.testing.assert_close(further[row : row + 1], loss)


def test_the_auxiliary_loss_is_the_weighted_mean_over_each_inputs_own_tokens() -> None:
    model = scattered(GPTClassifier(replace(CONFIG, auxiliary=0.25)))
    given, valid = tokens(2, 9), torch.arange(9) < LENGTHS[:, None]
    _, further = model.with_auxiliary_loss(given, valid)
    for row, length in enumerate(LENGTHS.tolist()):
        expected = 0.25 * next_token_loss(model.gpt, given[row : row + 1, :length])
        torch.testing.assert_close(further[row], expected)
    silent = scattered(GPTClassifier(replace(CONFIG, auxiliary=0.0)))
    assert silent.with_auxiliary_loss(given, valid)[1].tolist() == [0.0, 0.0]


def test_the_order_of_similar_texts_makes_no_difference() -> None:
    model = scattered(GPTClassifier(replace(CONFIG, form="similarity")))
    orders = tokens(2, 2, 9)
    torch.testing.assert_close(model(orders), model(orders.flip(1)))
    # The two states are added before the linear layer.
    states = model.gpt.features(orders.flatten(0, 1))[:, -1].view(2, 2, -1).sum(1)
    torch.testing.assert_close(model(orders), model.head(states))


def test_an_answers_logit_depends_on_its_own_sequence_alone() -> None:
    model = scattered(GPTClassifier(replace(CONFIG, form="choice")))
    given = tokens(2, 3, 9)
    changed = given.clone()
    changed[:, 1, 4] = (changed[:, 1, 4] + 1) % 40
    same = model(given) == model(changed)
    assert model.head.weight.shape == (1, 16)
    assert same.tolist() == [[True, False, True]] * 2


def test_a_language_models_weights_are_taken_and_three_new_embeddings_are_left() -> None:
    language_model, model = scattered(GPT(GPT_TINY), 3), scattered(GPTClassifier(CONFIG), 4)
    new = model.gpt.tokens.weight[-NEW_TOKENS:].clone()
    model.load_encoder(language_model)
    assert model.config.vocabulary_size == 37
    assert model.gpt.vocabulary_size == 40
    assert torch.equal(model.gpt.tokens.weight[:37], language_model.tokens.weight)
    assert torch.equal(model.gpt.tokens.weight[37:], new)
    given = tokens(2, 9) % 37
    torch.testing.assert_close(model.gpt.features(given), language_model.features(given))
    with pytest.raises(RllabError, match="layers is 2 and its language model's 1"):
        model.load_encoder(GPT(replace(GPT_TINY, layers=1)))


def test_layers_from_the_embeddings_to_the_head_are_all_parameters_once() -> None:
    model = GPTClassifier(CONFIG)
    groups = model.layer_groups()
    assert len(groups) == 1 + 2 + 1
    assert sorted(id(p) for group in groups for p in group) == sorted(id(p) for p in model.parameters())
    assert any(p is model.gpt.tokens.weight for p in groups[0])
    assert any(p is model.head.weight for p in groups[-1])


def test_dropout_of_the_head_is_for_training_alone() -> None:
    model = scattered(GPTClassifier(replace(CONFIG, head_dropout=0.5)))
    given = tokens(2, 9)
    assert torch.equal(model(given), model(given))
    model.train()
    assert not torch.equal(model(given), model(given))


def test_inputs_and_configurations_that_make_no_sense_are_refused() -> None:
    model = GPTClassifier(CONFIG)
    with pytest.raises(RllabError, match="longer than the model's 12 positions"):
        model(tokens(1, 13))
    with pytest.raises(RllabError, match="no tokens"):
        model(tokens(1, 3), torch.zeros(1, 3, dtype=torch.bool))
    with pytest.raises(RllabError, match="padding before a token"):
        model(tokens(1, 3), torch.tensor([[True, False, True]]))
    with pytest.raises(RllabError, match="needs the names of its classes"):
        GPTClassifier(GPTClassifierConfig(GPT_TINY))
    for wrong in ({"form": "poem"}, {"head_dropout": 1.0}, {"auxiliary": -1.0}):
        with pytest.raises(RllabError, match=next(iter(wrong))):
            replace(CONFIG, **wrong)  # type: ignore[arg-type]
