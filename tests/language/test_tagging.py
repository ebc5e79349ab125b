"""Tagging: CoNLL's files, first pieces, spans worked by hand, long sentences, and a tiny BERT that learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from envs.errors import RllabError
from language.models.bert import BERTConfig
from language.models.bert_tasks import BERTTagger, BERTTaggerConfig
from language.tasks.tagged_words import (
    Span,
    SpanScores,
    TaggedSentence,
    are_spans,
    read_tagged,
    span_scores,
    spans_of,
)
from language.tasks.tagging import Reader, Tagger, Tagging, TaggingConfig, collated, word_logits
from language.tokenizers import WordPiece, WordPieceConfig
from language.tokenizers.wordpiece import BERT_SPECIAL
from language.training.fine_tuning import fine_tuning
from language.training.supervised import SupervisedTraining
from language.training.training_config import TrainingConfig

PIECES = ["in", "lives", "ann", "##a", "##as", "bob", "paris", "rome", "b", "##erlin", "the"]
TOKENIZER = WordPiece(
    {token: number for number, token in enumerate([*BERT_SPECIAL.tokens(), *PIECES])}, WordPieceConfig()
)
ID = TOKENIZER.vocabulary
SENTENCES = [
    TaggedSentence(("Annas", "lives", "in", "Berlin"), ("B-PER", "O", "O", "B-LOC")),
    TaggedSentence(("Bob",), ("B-PER",)),
    TaggedSentence(("in", "the", "Paris"), ("O", "B-LOC", "I-LOC")),
]
CONFIG = TaggingConfig(batch_size=2, length=16)


def model_of(tags: tuple[str, ...], context: int = 16, width: int = 16) -> BERTTagger:
    torch.manual_seed(0)
    return BERTTagger(
        BERTTaggerConfig(BERTConfig(len(TOKENIZER), context, 1, 2, width, dropout=0.0), tags, dropout=0.0)
    )


def test_a_file_of_conll_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tags.txt"
    path.write_text(
        "-DOCSTART- -X- O O\n\nEU NNP I-NP B-ORG\nrejects VBZ I-VP O\n\n\n-DOCSTART- -X- O O\nPeter NNP I-NP B-PER\n"
    )
    assert read_tagged(path) == [
        TaggedSentence(("EU", "rejects"), ("B-ORG", "O")), TaggedSentence(("Peter",), ("B-PER",)),
    ]  # fmt: skip


def test_tabulators_set_columns_apart_where_there_are_any(tmp_path: Path) -> None:
    path = tmp_path / "tags.tsv"
    path.write_bytes(b"New York\tLOC\r\nis\tO\r\n \r\n#\tO")
    assert read_tagged(path) == [TaggedSentence(("New York", "is"), ("LOC", "O")), TaggedSentence(("#",), ("O",))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("EU B-ORG\nrejects\n", "Line 2 of .* has no word with a tag"),
        ("EU\tB-ORG\n\nrejects\t\n", "Line 3 of .* has no word with a tag"),
        ("EU NNP B-ORG\n\nrejects O\n", "Line 3 of .* has 2 columns where line 1 has 3"),
        ("\n\n", "no sentence"),
    ],
)
def test_a_line_without_a_tag_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "tags.txt"
    path.write_text(text)
    with pytest.raises(RllabError, match=message):
        read_tagged(path)


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("O O", []),
        ("B-PER I-PER O B-LOC", [Span("PER", 0, 2), Span("LOC", 3, 4)]),
        ("B-PER B-PER I-PER", [Span("PER", 0, 1), Span("PER", 1, 3)]),
        ("B-PER I-LOC I-LOC", [Span("PER", 0, 1), Span("LOC", 1, 3)]),
        ("I-PER I-PER O I-PER", [Span("PER", 0, 2), Span("PER", 3, 4)]),
        ("O B-X", [Span("X", 1, 2)]),
        ("", []),
    ],
)
def test_spans_are_those_of_the_shared_task(tags: str, spans: list[Span]) -> None:
    assert spans_of(tags.split()) == spans


def test_precision_recall_and_f1_are_those_worked_by_hand() -> None:
    right = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "O", "B-ORG"], ["B-LOC"]]
    found = [["B-PER", "I-PER", "O", "B-ORG"], ["O", "O", "B-ORG"], ["O"]]
    # There are PER, LOC, ORG, LOC; found were PER, ORG (wrong), ORG: 2 of 3 are right, 2 of 4 were found.
    assert span_scores(right, found) == pytest.approx((2 / 3, 2 / 4, 4 / 7))
    assert span_scores(right, right) == (1, 1, 1)
    shorter = [["B-PER", "O", "O", "B-LOC"], *found[1:]]
    assert span_scores(right, shorter).precision == pytest.approx(2 / 3)  # LOC and ORG; half a name is none
    assert span_scores([["O"]], [["O"]]) == SpanScores(0, 0, 0)
    with pytest.raises(RllabError, match="equally many"):
        span_scores([["O"]], [["O", "O"]])


def test_tags_are_told_to_be_of_spans_or_not() -> None:
    assert are_spans(["O", "B-PER", "I-PER"])
    assert not are_spans(["NN", "VB"])
    assert not are_spans(["O"])
    assert not are_spans([])


def test_a_word_is_told_by_its_first_piece() -> None:
    [part] = Reader(TOKENIZER, 16).parts(SENTENCES[0].words)
    assert part.packed.tokens == [
        ID["[CLS]"], ID["ann"], ID["##as"], ID["lives"], ID["in"], ID["b"], ID["##erlin"], ID["[SEP]"],
    ]  # fmt: skip
    assert part.firsts == [1, 3, 4, 5]
    tokens, valid, firsts = collated([part, *Reader(TOKENIZER, 16).parts(["Bob"])])
    assert firsts.int().tolist() == [[0, 1, 0, 1, 1, 1, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0]]
    assert valid[1].int().tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert tokens[1, 1] == ID["bob"]


def test_words_without_tokens_are_unknown() -> None:
    [part] = Reader(TOKENIZER, 16).parts(["\u200b", "Bob"])
    assert part.packed.tokens[1:-1] == [ID["[UNK]"], ID["bob"]]
    assert part.firsts == [1, 2]


def test_long_sentences_are_read_in_parts_of_whole_words() -> None:
    parts = list(Reader(TOKENIZER, 5).parts(["Bob", "Berlin", "Berlin", "Annas", "in", "in"]))
    assert [part.packed.tokens[1:-1] for part in parts] == [
        [ID["bob"], ID["b"], ID["##erlin"]], [ID["b"], ID["##erlin"]],
        [ID["ann"], ID["##as"], ID["in"]], [ID["in"]],
    ]  # fmt: skip
    assert [part.firsts for part in parts] == [[1, 2], [1], [1, 3], [1]]
    assert [part.packed.tokens[1:-1] for part in Reader(TOKENIZER, 3).parts(["Berlin", "in"])] == [
        [ID["b"]],
        [ID["in"]],
    ]


def test_a_batch_has_the_tags_of_its_words() -> None:
    problem = Tagging(SENTENCES, SENTENCES, TOKENIZER, replace(CONFIG, batch_size=3))
    assert problem.tags == ("B-LOC", "B-PER", "I-LOC", "O")
    batch = problem.batch()
    first = batch.tokens[batch.firsts]
    told = {
        (TOKENIZER.tokens[token], problem.tags[tag])
        for token, tag in zip(first.tolist(), batch.tags.tolist(), strict=True)
    }
    assert told == {
        ("ann", "B-PER"), ("lives", "O"), ("in", "O"), ("b", "B-LOC"), ("bob", "B-PER"), ("the", "B-LOC"),
        ("paris", "I-LOC"),
    }  # fmt: skip


def test_a_tagger_s_loss_is_the_cross_entropy_of_first_pieces() -> None:
    problem = Tagging(SENTENCES, SENTENCES, TOKENIZER, replace(CONFIG, batch_size=3))
    model, batch = model_of(problem.tags), problem.batch()
    loss = problem.loss(model, batch)
    logits = model(batch.tokens, batch.valid)
    expected = 0.0
    targets = iter(batch.tags)
    for row in range(3):
        for place in range(batch.tokens.shape[1]):
            if batch.firsts[row, place]:
                expected += functional.cross_entropy(logits[row, place], next(targets)).item()
    assert loss.count == 8
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)


def test_logits_do_not_depend_on_what_is_read_together_or_on_order() -> None:
    model = model_of(("A", "B")).eval()
    reader = Reader(TOKENIZER, 6)
    sentences = [["Annas", "lives", "in", "Berlin"], ["Bob"], ["in", "the", "Paris"]]
    parts = [list(reader.parts(words)) for words in sentences]
    together, alone = word_logits(model, parts, 3), [word_logits(model, [one], 1)[0] for one in parts]
    assert [len(rows) for rows in together] == [4, 1, 3]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other)


def test_every_word_of_a_sentence_that_is_longer_than_the_context_has_a_tag() -> None:
    model = model_of(("A", "B"), context=6).eval()
    tagger = Tagger(model, TOKENIZER)
    assert len(tagger.tag(["Annas", "lives", "in", "Berlin"] * 10)) == 40
    with pytest.raises(RllabError, match="Sentence 2 has no words"):
        tagger.tag_all([["Bob"], []])


def test_evaluation_is_of_spans_where_tags_have_them() -> None:
    problem = Tagging(SENTENCES, SENTENCES, TOKENIZER, CONFIG)
    model = model_of(problem.tags).eval()
    judged = problem.evaluate(model)
    found = Tagger(model, TOKENIZER).tag_all([sentence.words for sentence in SENTENCES])
    right = [list(sentence.tags) for sentence in SENTENCES]
    assert problem.goal == "f1"
    assert judged["f1"] == span_scores(right, found).f1
    same = [one == other for a, b in zip(right, found, strict=True) for one, other in zip(a, b, strict=True)]
    assert judged["accuracy"] == pytest.approx(np.mean(same))
    plain = [TaggedSentence(("Bob", "lives"), ("NN", "VB"))]
    assert Tagging(plain, plain, TOKENIZER).goal == "accuracy"
    assert set(Tagging(plain, plain, TOKENIZER).evaluate(model_of(("NN", "VB")).eval())) == {"loss", "accuracy"}


def test_sentences_that_cannot_be_learnt_from_are_refused() -> None:
    with pytest.raises(RllabError, match="no sentence for training"):
        Tagging([], SENTENCES, TOKENIZER)
    with pytest.raises(RllabError, match="no sentence for validation"):
        Tagging(SENTENCES, [], TOKENIZER)
    with pytest.raises(RllabError, match="All words have the tag 'B-PER'"):
        Tagging(SENTENCES[1:2], SENTENCES, TOKENIZER)
    with pytest.raises(RllabError, match="'B-ORG' was not in the training"):
        Tagging(SENTENCES, [TaggedSentence(("Bob",), ("B-ORG",))], TOKENIZER)
    special = replace(BERT_SPECIAL, classifier=None)
    lacking = WordPiece(
        {token: i for i, token in enumerate([*special.tokens(), "a"])}, WordPieceConfig(special=special)
    )
    with pytest.raises(RllabError, match="a classifier token"):
        Tagging(SENTENCES, SENTENCES, lacking)
    for wrong in ({"batch_size": 0}, {"length": 2}):
        with pytest.raises(RllabError, match=next(iter(wrong))):
            replace(CONFIG, **wrong)


def synthetic(count: int, seed: int) -> list[TaggedSentence]:
    """A word after "the" is a place, one before "lives" a person, whatever it is; all else is O."""
    generator = np.random.default_rng(seed)
    names = ["anna", "bob", "paris", "rome", "Annas", "Berlin"]
    sentences = []
    for _ in range(count):
        person, place = (names[number] for number in generator.integers(len(names), size=2))
        parts = [((person, "lives"), ("B-PER", "O")), (("in", "the", place), ("O", "O", "B-LOC"))]
        order = generator.permutation(2)
        sentences.append(TaggedSentence(*(sum((parts[i][side] for i in order), ()) for side in (0, 1))))
    return sentences


def test_tagging_goes_on_exactly() -> None:
    def training() -> SupervisedTraining:  # type: ignore[type-arg]
        problem = Tagging(synthetic(10, 0), SENTENCES[1:2], TOKENIZER, CONFIG)
        return SupervisedTraining(model_of(problem.tags), problem, TrainingConfig(steps=8, warmup=0), quiet=True)

    straight = training()
    expected = [straight.step()["loss"] for _ in range(8)]
    stopped = training()
    for _ in range(3):
        stopped.step()
    resumed = training()
    resumed.load_state_dict(stopped.state_dict())
    assert [resumed.step()["loss"] for _ in range(5)] == expected[3:]


@pytest.mark.slow
def test_a_small_bert_learns_tags_that_only_the_neighbours_tell() -> None:
    problem = Tagging(synthetic(200, 0), synthetic(50, 1), TOKENIZER, replace(CONFIG, batch_size=16))
    model = model_of(problem.tags, width=32)
    settings = fine_tuning(problem.epoch_batches, epochs=25, learning_rate=3e-3)
    judged = SupervisedTraining(model, problem, settings, quiet=True).run()
    assert judged["f1"] == 1.0
    assert Tagger(model.eval(), TOKENIZER).tag(["In", "the", "Annas", "Bob", "lives"]) == [
        "O",
        "O",
        "B-LOC",
        "B-PER",
        "O",
    ]
