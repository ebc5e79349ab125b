"""What each kind of classifier reads of texts: markers, segments, cut texts, words; and what is refused."""

from dataclasses import replace

import pytest
import torch

from envs.errors import RllabError
from language.models.awd_lstm import AWDLSTMConfig
from language.models.bert import BERTConfig
from language.models.bert_classifier import BERTClassifierConfig
from language.models.characters import encode_sentences
from language.models.documents import ReadingConfig
from language.models.elmo import ELMoConfig
from language.models.elmo_classifier import ELMoClassifier, ELMoClassifierConfig
from language.models.gpt import GPTConfig
from language.models.gpt_classifier import GPTClassifier, GPTClassifierConfig
from language.models.ulmfit import ULMFiT, ULMFiTConfig
from language.tasks.classifying import Classifier
from language.tasks.document_readers import reader_of
from language.tokenizers.byte import ByteLevel, ByteLevelConfig
from language.tokenizers.special import SpecialTokens
from language.tokenizers.word import WordLevel, WordLevelConfig
from language.training.classification import Document

SPECIAL = SpecialTokens(unknown="?", begin="<", end=">", classifier="[CLS]", separator="[SEP]")
WORDS = WordLevel.train(["a b c d e f"], WordLevelConfig(20, special=SPECIAL))
UNKNOWN, BEGIN, END, CLS, SEP, A, B, C, D, E, F = range(11)
CLASSES = ("bad", "good")
BERT = BERTClassifierConfig(BERTConfig(len(WORDS), 8, 1, 1, 4), CLASSES)
GPT = GPTClassifierConfig(GPTConfig(len(WORDS), 8, 1, 1, 4), CLASSES)
ULMFIT = ULMFiTConfig(AWDLSTMConfig(len(WORDS), 4, 1, 4), CLASSES, head_width=3)
ELMO = ELMoClassifierConfig(ELMoConfig(len(WORDS), 4, 8, ((1, 4),), 1, 6, 1, 8), CLASSES, hidden_width=3)


def test_bert_reads_a_text_or_a_pair_between_its_markers() -> None:
    assert reader_of(BERT, WORDS).read([("a b",)]) == [Document([CLS, A, B, SEP], [0] * 4)]
    pair = reader_of(replace(BERT, form="entailment"), WORDS)
    assert pair.read([("a b", "c")]) == [Document([CLS, A, B, SEP, C, SEP], [0, 0, 0, 0, 1, 1])]
    # Of eight positions three are for markers; the longer text is cut.
    assert pair.read([("a b c d e f", "a b")])[0].tokens == [CLS, A, B, C, SEP, A, B, SEP]


def test_gpt_reads_what_its_form_says() -> None:
    start, delimiter, extract = range(len(WORDS), len(WORDS) + 3)
    assert reader_of(GPT, WORDS).read([("a b",)]) == [Document([start, A, B, extract])]
    [document] = reader_of(replace(GPT, form="similarity"), WORDS).read([("a", "b")])
    assert document.tokens == [start, A, delimiter, B, extract]
    assert document.further == ([start, B, delimiter, A, extract],)


def test_ulmfit_reads_what_ends_texts_first_in_its_own_direction() -> None:
    assert reader_of(ULMFIT, WORDS).read([("a b c",)])[0].tokens == [END, A, B, C]
    backward = replace(ULMFIT, language_model=replace(ULMFIT.language_model, backward=True))
    assert reader_of(backward, WORDS).read([("a b c",)])[0].tokens == [A, B, C, END]
    short = replace(ULMFIT, reading=ReadingConfig(3, "tail"))
    assert reader_of(short, WORDS).read([("a b c",)])[0].tokens == [END, B, C]


def test_elmo_reads_all_words_by_their_characters() -> None:
    reader = reader_of(ELMO, WORDS)
    documents = reader.read([("a unheard b",), ("c",)])
    assert [document.tokens for document in documents] == [["a", "unheard", "b"], ["c"]]
    characters, valid = reader.collate(documents)
    expected, there = encode_sentences([["a", "unheard", "b"], ["c"]], 8)
    assert torch.equal(characters, expected)
    assert torch.equal(valid, there)


@pytest.mark.parametrize("kind", ["bert", "gpt", "ulmfit", "elmo"])
def test_texts_without_tokens_and_wrong_numbers_of_texts_are_refused(kind: str) -> None:
    reader = reader_of({"bert": BERT, "gpt": GPT, "ulmfit": ULMFIT, "elmo": ELMO}[kind], WORDS)
    with pytest.raises(RllabError, match="Input 2 has a text without tokens"):
        reader.read([("a",), (" ",)])
    with pytest.raises(RllabError, match="Input 1 has 2 texts, and one of the form 'classification' is one text"):
        reader.read([("a", "b")])


def test_tokenizers_that_do_not_go_with_a_model_are_refused() -> None:
    characters = ByteLevel.train([], ByteLevelConfig())
    with pytest.raises(RllabError, match="ELMo reads words"):
        reader_of(ELMO, characters)
    with pytest.raises(RllabError, match="BERT needs a tokenizer with a classifier token"):
        reader_of(BERT, characters)
    with pytest.raises(RllabError, match="A GPT classifies no documents"):
        reader_of(GPT.gpt, WORDS)


def test_models_that_differ_in_classes_or_form_are_not_averaged() -> None:
    one, other = GPTClassifier(GPT).eval(), ULMFiT(ULMFIT).eval()
    assert Classifier.of([(one, WORDS), (other, WORDS)]).probabilities([]).shape == (0, 2)
    reversed_classes = ELMoClassifier(replace(ELMO, classes=("good", "bad"))).eval()
    with pytest.raises(RllabError, match="the classes bad, good and good, bad"):
        Classifier.of([(one, WORDS), (reversed_classes, WORDS)])
    pairs = GPTClassifier(replace(GPT, form="entailment")).eval()
    with pytest.raises(RllabError, match="classify classification and entailment"):
        Classifier.of([(one, WORDS), (pairs, WORDS)])
    with pytest.raises(RllabError, match="Name a trained classifier"):
        Classifier.of([])


def test_probabilities_are_the_softmax_of_the_logits_in_the_order_of_the_inputs() -> None:
    torch.manual_seed(0)
    model = GPTClassifier(GPT).eval()
    model.head.weight.data.normal_(0, 3)
    inputs = [("a b c d",), ("e",), ("f f",)]
    classifier = Classifier.of([(model, WORDS)], batch_size=2)
    found = classifier.probabilities(inputs)
    for row, document in zip(found, classifier.readers[0].read(inputs), strict=True):
        torch.testing.assert_close(row, model(torch.tensor([document.tokens]))[0].softmax(0).detach())
    verdicts = classifier.classify(inputs)
    assert [verdict.label for verdict in verdicts] == [CLASSES[int(row.argmax())] for row in found]
    assert verdicts[0].probabilities == dict(zip(CLASSES, found[0].tolist(), strict=True))
