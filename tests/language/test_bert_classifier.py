"""BERT's classifier: the outputs of `transformers` for equal weights, encoders taken over, configurations."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_bert_tasks import BERT_TINY, inputs, peer, scattered

from envs.errors import RllabError
from language.models.bert import BERTForPretraining
from language.models.bert_classifier import BERTClassifier, BERTClassifierConfig
from language.models.huggingface import load_bert

CONFIG = BERTClassifierConfig(BERT_TINY, ("bad", "fair", "good"), head_dropout=0.0)


def test_logits_of_texts_and_pairs_are_those_of_transformers_sequence_classification(tmp_path: Path) -> None:
    theirs = peer("BertForSequenceClassification", num_labels=3)
    theirs.bert.save_pretrained(tmp_path)
    ours = scattered(BERTClassifier(CONFIG), 5)
    ours.load_encoder(load_bert(tmp_path))
    ours.head.load_state_dict(theirs.classifier.state_dict())
    tokens, valid, segments = inputs()
    single = theirs(input_ids=tokens, attention_mask=valid.long()).logits
    pair = theirs(input_ids=tokens, attention_mask=valid.long(), token_type_ids=segments).logits
    torch.testing.assert_close(ours(tokens, valid), single, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours(tokens, valid, segments), pair, atol=1e-5, rtol=1e-5)
    assert (single - pair).abs().max() > 0.01


def test_the_poolers_weights_are_taken_over_too() -> None:
    pretrained, model = scattered(BERTForPretraining(BERT_TINY), 1), scattered(BERTClassifier(CONFIG), 2)
    model.load_encoder(pretrained)
    tokens, valid, segments = inputs()
    expected = pretrained.bert.pooled(pretrained.bert(tokens, valid, segments))
    torch.testing.assert_close(model(tokens, valid, segments), model.head(expected))
    with pytest.raises(RllabError, match="layers is 2 and that of the trained one 1"):
        model.load_encoder(BERTForPretraining(replace(BERT_TINY, layers=1)))


def test_the_mean_is_of_real_tokens_alone() -> None:
    model = scattered(BERTClassifier(replace(CONFIG, pooling="mean"))).eval()
    tokens, valid, _ = inputs()
    lengths = valid.sum(1).tolist()
    assert min(lengths) < max(lengths)
    features = model.bert(tokens, valid)
    expected = torch.stack([row[:length].mean(0) for row, length in zip(features, lengths, strict=True)])
    torch.testing.assert_close(model(tokens, valid), model.head(expected))
    alone = model(tokens[:1, : lengths[0]])
    torch.testing.assert_close(alone, model(tokens, valid)[:1], atol=1e-5, rtol=1e-5)


def test_layers_from_the_embeddings_to_the_head_are_all_parameters_once() -> None:
    model = BERTClassifier(CONFIG)
    groups = model.layer_groups()
    assert len(groups) == 1 + 2 + 1
    assert sorted(id(p) for group in groups for p in group) == sorted(id(p) for p in model.parameters())
    assert any(p is model.bert.pooler.weight for p in groups[-1])


def test_dropout_of_the_head_is_for_training_alone() -> None:
    model = scattered(BERTClassifier(replace(CONFIG, head_dropout=0.5)))
    tokens, valid, _ = inputs()
    assert torch.equal(model(tokens, valid), model(tokens, valid))
    model.train()
    assert not torch.equal(model(tokens, valid), model(tokens, valid))


def test_configurations_that_make_no_sense_are_refused() -> None:
    with pytest.raises(RllabError, match="pooling must be first or mean, not 'last'"):
        replace(CONFIG, pooling="last")
    with pytest.raises(RllabError, match="not 'choice'"):
        replace(CONFIG, form="choice")
    with pytest.raises(RllabError, match="A pair needs two segments"):
        replace(CONFIG, form="entailment", bert=replace(BERT_TINY, segments=1))
    with pytest.raises(RllabError, match="head_dropout"):
        replace(CONFIG, head_dropout=1.0)
    with pytest.raises(RllabError, match="two different classes, not good"):
        replace(CONFIG, classes=("good",))
    with pytest.raises(RllabError, match="needs the names of its classes"):
        BERTClassifier(BERTClassifierConfig(BERT_TINY))
