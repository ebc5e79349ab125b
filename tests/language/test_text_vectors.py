"""Vectors of texts: each by itself, by hand and beside `transformers`, whatever is read together."""

from pathlib import Path

import numpy as np
import pytest
import torch

from envs.errors import RllabError
from language.models.bert import BERT, BERTConfig, BERTForPretraining
from language.models.bert_tasks import BERTTagger, BERTTaggerConfig
from language.models.gpt import GPT, GPTConfig
from language.models.huggingface import save_bert
from language.tasks.vectors import Pooling, vectors
from language.tokenizers import ByteLevel, ByteLevelConfig, CharacterLevel, CharacterLevelConfig
from language.tokenizers.wordpiece import BERT_SPECIAL

TOKENIZER = CharacterLevel.train(["abcdefghij "], CharacterLevelConfig(special=BERT_SPECIAL))
TEXTS = ["abc", "a", "hij abc def", "", "ccc"]
CLS, SEP = TOKENIZER.vocabulary["[CLS]"], TOKENIZER.vocabulary["[SEP]"]


def bert() -> BERTForPretraining:
    torch.manual_seed(0)
    return BERTForPretraining(BERTConfig(len(TOKENIZER), 16, 2, 2, 8, initial_std=0.5))


def gpt() -> tuple[GPT, ByteLevel]:
    torch.manual_seed(0)
    tokenizer = ByteLevel.train([], ByteLevelConfig())
    return GPT(GPTConfig(len(tokenizer), 16, 2, 2, 8, norm="pre", initial_std=0.5)), tokenizer


@pytest.mark.parametrize("pooling", ["mean", "first"])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_text_s_vector_is_that_of_the_text_alone(pooling: Pooling, batch_size: int) -> None:
    model = bert()
    found = vectors(model, TOKENIZER, TEXTS, pooling, batch_size=batch_size)
    assert found.shape == (5, 8)
    assert found.dtype == np.float32
    assert model.training  # as before; dropout was off meanwhile
    model.eval()
    for text, vector in zip(TEXTS, found, strict=True):
        tokens = torch.tensor([[CLS, *TOKENIZER.ids(text), SEP]])
        with torch.no_grad():
            features = model.bert(tokens)[0]
        expected = features.mean(0) if pooling == "mean" else features[0]
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)


def test_the_mean_of_a_bert_is_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = bert().eval()
    save_bert(model, tmp_path)
    theirs = transformers.BertModel.from_pretrained(tmp_path).eval()
    rows = [[CLS, *TOKENIZER.ids(text), SEP] for text in TEXTS]
    for row, vector in zip(rows, vectors(model, TOKENIZER, TEXTS), strict=True):
        with torch.no_grad():
            expected = theirs(input_ids=torch.tensor([row])).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)


def test_an_encoder_gives_the_same_with_any_head() -> None:
    model = bert()
    tagger = BERTTagger(BERTTaggerConfig(model.config, ("A", "B")))
    tagger.load_encoder(model)
    expected = vectors(model, TOKENIZER, TEXTS)
    np.testing.assert_array_equal(vectors(tagger, TOKENIZER, TEXTS), expected)
    np.testing.assert_array_equal(vectors(model.bert, TOKENIZER, TEXTS), expected)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_gpt_s_vectors_are_of_the_text_alone(pooling: Pooling) -> None:
    model, tokenizer = gpt()
    texts = ["abc", "a", "bcdefg"]
    found = vectors(model, tokenizer, texts, pooling, batch_size=2)
    model.eval()
    for text, vector in zip(texts, found, strict=True):
        with torch.no_grad():
            features = model.features(torch.tensor([tokenizer.ids(text)]))[0]
        expected = features.mean(0) if pooling == "mean" else features[-1]
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)


def test_long_texts_are_cut_to_the_context() -> None:
    model = bert()
    found = vectors(model, TOKENIZER, ["abc" * 20, ("abc" * 20)[:14], "abcab"], longest=None)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    cut = vectors(model, TOKENIZER, ["abcde", "abc"], longest=5)
    np.testing.assert_allclose(cut[0], cut[1], atol=1e-6)


def test_progress_is_told_and_nothing_is_nothing() -> None:
    told: list[tuple[int, int]] = []
    vectors(bert(), TOKENIZER, TEXTS, batch_size=2, progress=lambda done, all_of: told.append((done, all_of)))
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert len(vectors(bert(), TOKENIZER, [])) == 0


def test_what_gives_no_vectors_is_refused() -> None:
    model, tokenizer = gpt()
    with pytest.raises(RllabError, match="Text 2 has no tokens"):
        vectors(model, tokenizer, ["a", ""])
    with pytest.raises(RllabError, match="'first' makes no sense for a GPT; there are mean and last"):
        vectors(model, tokenizer, ["a"], "first")
    with pytest.raises(RllabError, match="'last' makes no sense for a BERT; there are mean and first"):
        vectors(BERT(bert().config), TOKENIZER, ["a"], "last")
    with pytest.raises(RllabError, match="A Linear gives no vectors"):
        vectors(torch.nn.Linear(2, 2), TOKENIZER, ["a"])
    with pytest.raises(RllabError, match="a classifier token"):
        vectors(bert(), tokenizer, ["a"])
    with pytest.raises(RllabError, match="longest must leave room"):
        vectors(bert(), TOKENIZER, ["a"], longest=2)
