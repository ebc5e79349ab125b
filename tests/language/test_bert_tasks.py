"""BERT's heads for tasks: the outputs of `transformers` for equal weights, encoders taken over, configurations."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.bert import BERT, BERTConfig, BERTForPretraining
from language.models.bert_tasks import BERTSpans, BERTSpansConfig, BERTTagger, BERTTaggerConfig
from language.models.huggingface import load_bert
from language.training.fine_tuning import fine_tuning
from language.training.schedules import schedule_factor

BERT_TINY = BERTConfig(37, 12, 2, 2, 16, dropout=0.0)
TAGS = ("B-PER", "I-PER", "O")
Model = TypeVar("Model", bound=nn.Module)


def scattered(model: Model, seed: int = 0) -> Model:
    """The model with weights that are all different and large enough to tell."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3, generator=generator)
    return model.eval()


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, valid and segments of two rows, one with padding."""
    tokens = torch.randint(37, (2, 9), generator=torch.Generator().manual_seed(1))
    valid = torch.arange(9) < torch.tensor([[9], [6]])
    segments = (torch.arange(9) > 3).long().expand(2, 9).contiguous()
    return tokens, valid, segments


def peer(name: str, **settings: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=37, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=12, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **settings,
    )  # fmt: skip
    return scattered(getattr(transformers, name)(config))


def test_the_tagger_is_transformers_token_classification(tmp_path: Path) -> None:
    theirs = peer("BertForTokenClassification", num_labels=3)
    theirs.bert.save_pretrained(tmp_path)
    ours = scattered(BERTTagger(BERTTaggerConfig(BERT_TINY, TAGS)), 5)
    ours.load_encoder(load_bert(tmp_path))
    ours.head.load_state_dict(theirs.classifier.state_dict())
    tokens, valid, segments = inputs()
    expected = theirs(input_ids=tokens, attention_mask=valid.long(), token_type_ids=segments).logits
    torch.testing.assert_close(ours(tokens, valid, segments)[valid], expected[valid], atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.1


def test_the_finder_of_answers_is_transformers_question_answering(tmp_path: Path) -> None:
    theirs = peer("BertForQuestionAnswering")
    theirs.bert.save_pretrained(tmp_path)
    ours = scattered(BERTSpans(BERTSpansConfig(BERT_TINY)), 5)
    ours.load_encoder(load_bert(tmp_path))
    ours.head.load_state_dict(theirs.qa_outputs.state_dict())
    tokens, valid, segments = inputs()
    expected = theirs(input_ids=tokens, attention_mask=valid.long(), token_type_ids=segments)
    starts, ends = ours(tokens, valid, segments)
    torch.testing.assert_close(starts[valid], expected.start_logits[valid], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ends[valid], expected.end_logits[valid], atol=1e-5, rtol=1e-5)


def test_an_encoder_is_taken_over_with_or_without_its_heads() -> None:
    pretrained = scattered(BERTForPretraining(BERT_TINY))
    tokens, valid, segments = inputs()
    expected = pretrained.bert(tokens, valid, segments)
    for source in (pretrained, pretrained.bert):
        for model in (BERTTagger(BERTTaggerConfig(BERT_TINY, TAGS)), BERTSpans(BERTSpansConfig(BERT_TINY))):
            model.load_encoder(source)
            torch.testing.assert_close(model.eval().bert(tokens, valid, segments), expected)
    with torch.no_grad():
        pretrained.bert.tokens.weight.zero_()
    assert model.bert.tokens.weight.abs().sum() > 0  # a copy


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"vocabulary_size": 38}, "vocabulary_size"), ({"layers": 1}, "layers"), ({"width": 8}, "width"),
        ({"heads": 4}, "heads"), ({"context": 13}, "context"), ({"feed_forward_width": 32}, "feed_forward_width"),
        ({"activation": "relu"}, "activation"),
    ],
)  # fmt: skip
def test_an_encoder_of_another_size_is_refused(change: dict[str, Any], name: str) -> None:
    model = BERTSpans(BERTSpansConfig(BERT_TINY))
    with pytest.raises(RllabError, match=name):
        model.load_encoder(BERT(replace(BERT_TINY, **change)))


def test_dropout_is_before_the_tagger_s_head_and_in_training_only() -> None:
    model = scattered(BERTTagger(BERTTaggerConfig(BERT_TINY, TAGS, dropout=0.5)))
    tokens, valid, segments = inputs()
    torch.testing.assert_close(model(tokens, valid, segments), model(tokens, valid, segments))
    model.train()
    assert not torch.allclose(model(tokens, valid, segments), model(tokens, valid, segments))


def test_configurations_come_back_from_json() -> None:
    config = BERTTaggerConfig(BERT_TINY, TAGS)
    document = asdict(config)
    again = BERTTaggerConfig(BERTConfig(**document["bert"]), list(document["tags"]), document["dropout"])  # type: ignore[arg-type]
    assert again == config
    assert config.vocabulary_size == BERTSpansConfig(BERT_TINY).vocabulary_size == 37


@pytest.mark.parametrize("tags", [(), ("O",), ("O", "O")])
def test_taggers_without_two_tags_are_refused(tags: tuple[str, ...]) -> None:
    with pytest.raises(RllabError, match="at least two different tags"):
        BERTTaggerConfig(BERT_TINY, tags)


def test_fine_tuning_is_that_of_the_paper() -> None:
    config = fine_tuning(epoch_batches=100)
    assert (config.steps, config.learning_rate, config.warmup, config.evaluation_every) == (300, 5e-5, 30, 100)
    factors = [
        schedule_factor(config.schedule, step, config.steps, config.warmup, config.floor) for step in (0, 29, 164, 299)
    ]
    assert factors == pytest.approx([1 / 30, 1, 0.5, 0])
    assert fine_tuning(3, epochs=0.5).steps == 2
    with pytest.raises(RllabError, match="epochs must be above 0"):
        fine_tuning(10, epochs=0)
