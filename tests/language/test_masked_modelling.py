"""BERT's pre-training: pairs, masks, the loss by hand, and learning from documents."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from envs.errors import RllabError
from language.data.sentence_files import SentenceFile, write_sentence_file
from language.models.bert import BERTConfig, BERTForPretraining
from language.models.bert_input import Markers, Packed
from language.tokenizers import CharacterLevel, CharacterLevelConfig, SpecialTokens, WordPiece, WordPieceConfig
from language.tokenizers.wordpiece import BERT_SPECIAL
from language.training.document_corpus import train_wordpiece, write_document_parts
from language.training.masked_modelling import PAPERS_TRAINING, MaskedModelling, MaskedModellingConfig, Masker
from language.training.schedules import schedule_factor
from language.training.sentence_pairs import PairSampler, cuts_of
from language.training.supervised import SupervisedTraining
from language.training.training_config import TrainingConfig

WORDS = 40
SPECIAL = len(BERT_SPECIAL.tokens())
SIZE = SPECIAL + WORDS
TOKENIZER = WordPiece(
    {token: number for number, token in enumerate([*BERT_SPECIAL.tokens(), *(f"w{word}" for word in range(WORDS))])},
    WordPieceConfig(),
)
CLS, SEP, MASK = (TOKENIZER.vocabulary[token] for token in ("[CLS]", "[SEP]", "[MASK]"))
CONFIG = MaskedModellingConfig(batch_size=4, length=32, evaluation_rows=10)


def slow_truncation(first: int, second: int, most: int) -> tuple[int, int]:
    """Token by token from the longer one, as the authors describe it."""
    while first + second > most:
        if first > second:
            first -= 1
        else:
            second -= 1
    return first, second


def test_pairs_are_truncated_as_token_by_token_from_the_longer_one() -> None:
    generator = np.random.default_rng(0)
    for first in range(1, 12):
        for second in range(1, 12):
            for most in range(2, 14):
                cuts = cuts_of(first, second, most, generator)
                left = tuple(size - cut.front - cut.back for size, cut in zip((first, second), cuts, strict=True))
                assert left == slow_truncation(first, second, most)
                assert all(cut.front >= 0 and cut.back >= 0 for cut in cuts)


def test_tokens_are_taken_from_front_and_back_alike() -> None:
    generator = np.random.default_rng(0)
    fronts = np.array([cuts_of(30, 10, 20, generator)[0].front for _ in range(4000)])
    assert cuts_of(30, 10, 20, generator)[0].of(np.arange(30)).shape == (10,)
    # Binomial(20, ½): mean 10, variance 5.
    assert fronts.mean() == pytest.approx(10, abs=4 * math.sqrt(5 / 4000))
    assert fronts.var() == pytest.approx(5, rel=0.1)


@pytest.fixture
def numbered(tmp_path: Path) -> SentenceFile:
    """Documents of sentences of 3 tokens; the ids count on through all of them, so that each place can be told."""
    lengths = [7, 1, 5, 2, 9]
    tokens = iter(range(10_000))
    documents = [[[next(tokens) for _ in range(3)] for _ in range(length)] for length in lengths]
    return write_sentence_file(tmp_path / "numbered", documents, 10_000)


def document_of(file: SentenceFile, token: int) -> int:
    return int(np.searchsorted(file.sentences[file.documents], token, side="right")) - 1


def consecutive(segment: NDArray[np.int64]) -> bool:
    return bool((np.diff(segment.astype(int)) == 1).all())


def test_second_segments_follow_in_the_document_or_come_from_another_one(numbered: SentenceFile) -> None:
    sampler, generator = PairSampler(numbered, 18, 0.1, 0.5), np.random.default_rng(0)
    starts, follows, elsewhere = Counter(), 0, Counter()  # type: ignore[var-annotated]
    for _ in range(3000):
        first, second, is_next = sampler.draw(generator)
        assert len(first) > 0
        assert len(second) > 0
        assert len(first) + len(second) <= 15
        assert consecutive(first)
        assert consecutive(second)
        mine, other = document_of(numbered, first[0]), document_of(numbered, second[0])
        assert mine == document_of(numbered, first[-1])
        assert other == document_of(numbered, second[-1])
        assert (mine == other) == is_next
        if is_next:
            follows += 1
            assert second[0] == first[-1] + 1  # nothing was truncated: sentences of 3 fill 15 exactly
        else:
            elsewhere[other] += 1
        starts[int(first[0])] += 1
    assert follows / 3000 == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(3000))
    # Each sentence that is not its document's last one begins a first segment: 6 + 0 + 4 + 1 + 8 of them.
    assert len(starts) == 19
    assert max(starts.values()) < 2 * min(starts.values())
    assert set(elsewhere) == {0, 1, 2, 3, 4}


def test_short_pairs_come_as_often_as_configured(tmp_path: Path) -> None:
    single = [[[1]] * 400] * 3
    file = write_sentence_file(tmp_path / "single", single, 7)
    generator = np.random.default_rng(0)
    for short in (0.0, 0.4, 1.0):
        sampler = PairSampler(file, 103, short, 0.0)
        lengths = [len(pair.first) + len(pair.second) for pair in (sampler.draw(generator) for _ in range(2000))]
        # A random length from 2 to 100 is 100 itself once in 99 times; starts near the end make short ones too.
        whole = np.mean(np.array(lengths) == 100) / (1 - 99 / 399)
        assert whole == pytest.approx(1 - short * 98 / 99, abs=0.06)


def test_documents_that_give_no_pairs_are_refused(tmp_path: Path) -> None:
    one = write_sentence_file(tmp_path / "one", [[[1], [2]]], 7)
    with pytest.raises(RllabError, match="one document only"):
        PairSampler(one, 32, 0.1, 0.5)
    lines = write_sentence_file(tmp_path / "lines", [[[1]], [[2]]], 7)
    with pytest.raises(RllabError, match="No document in .* has two sentences"):
        PairSampler(lines, 32, 0.1, 0.5)


def test_fifteen_in_a_hundred_are_masked_eighty_ten_ten() -> None:
    config = MaskedModellingConfig(length=128)
    masker, generator = Masker.of(TOKENIZER, config), np.random.default_rng(0)
    words = generator.integers(SPECIAL, SIZE, (400, 125))
    words[:, 5] = TOKENIZER.vocabulary["[UNK]"]
    packed = [masker.markers.pack(row[:60].tolist(), row[60:].tolist()) for row in words]
    original = torch.tensor([row.tokens for row in packed])
    batch = masker.masked(packed, torch.zeros(400), generator)
    assert batch.wanted.sum(1).tolist() == [round(0.15 * 128)] * 400
    assert (original[batch.wanted] >= SPECIAL).all()
    assert torch.equal(batch.tokens[~batch.wanted], original[~batch.wanted])
    assert torch.equal(batch.targets, original[batch.wanted])
    read = batch.tokens[batch.wanted]
    count = len(read)
    masked, same = (read == MASK).float().mean(), (read == batch.targets).float().mean()
    other = (read[read != MASK] >= SPECIAL).all()
    assert other
    deviation = 4 * 0.5 / math.sqrt(count)
    assert masked.item() == pytest.approx(0.8, abs=deviation)
    assert same.item() == pytest.approx(0.1 + 0.1 / WORDS, abs=deviation)  # a random token may be the same one
    # All places are chosen alike.
    places = batch.wanted.sum(0)[torch.tensor([t not in (0, 6, 61, 127) for t in range(128)])].float()
    assert places.mean().item() == pytest.approx(400 * 19 / 124)
    assert places.var().item() == pytest.approx(400 * (19 / 124) * (1 - 19 / 124), rel=0.5)


@pytest.mark.parametrize(
    ("tokens", "most", "expected"), [(4, 20, 1), (12, 20, 2), (61, 20, 10), (125, 20, 19), (125, 7, 7), (125, None, 19)]
)
def test_a_row_has_its_share_of_masks_one_at_least(tokens: int, most: int | None, expected: int) -> None:
    masker = Masker.of(TOKENIZER, MaskedModellingConfig(most_masked=most))
    packed = [masker.markers.pack([SPECIAL] * (tokens - 1), [SPECIAL]), masker.markers.pack([CLS], [SEP])]
    batch = masker.masked(packed, torch.zeros(2), np.random.default_rng(0))
    assert batch.wanted.sum(1).tolist() == [expected, 0]
    assert not batch.wanted[~batch.valid].any()


def test_pairs_are_packed_with_their_segments() -> None:
    markers = Markers.of(TOKENIZER)
    assert markers.pack([7, 8], [9]) == Packed([CLS, 7, 8, SEP, 9, SEP], [0, 0, 0, 0, 1, 1])
    assert markers.pack([7]) == Packed([CLS, 7, SEP], [0, 0, 0])


@pytest.mark.parametrize("missing", ["classifier", "separator", "mask"])
def test_a_tokenizer_without_the_markers_is_refused(missing: str, numbered: SentenceFile) -> None:
    special = replace(BERT_SPECIAL, **{missing: None})  # type: ignore[arg-type]
    tokenizer = CharacterLevel.train(["abc"], CharacterLevelConfig(special=special))
    with pytest.raises(RllabError, match=f"a {missing} token"):
        MaskedModelling(numbered, numbered, tokenizer, CONFIG)


@pytest.fixture
def toy(tmp_path: Path) -> tuple[SentenceFile, SentenceFile]:
    """A document is about one of 4 subjects with 10 words each; sentences count upwards within them."""
    generator = np.random.default_rng(0)

    def documents(count: int) -> list[list[list[int]]]:
        made = []
        for _ in range(count):
            subject = generator.integers(4)
            counting = np.arange(60) + generator.integers(10)
            words = (SPECIAL + 10 * subject + counting % 10).tolist()
            made.append([words[first : first + 6] for first in range(0, 60, 6)])
        return made

    return (
        write_sentence_file(tmp_path / "training", documents(200), SIZE),
        write_sentence_file(tmp_path / "held_out", documents(40), SIZE),
    )


def problem_of(toy: tuple[SentenceFile, SentenceFile], seed: int = 0) -> MaskedModelling:
    return MaskedModelling(*toy, TOKENIZER, CONFIG, seed)


def small(layers: int = 1, width: int = 16) -> BERTForPretraining:
    torch.manual_seed(0)
    return BERTForPretraining(BERTConfig(SIZE, 32, layers, 2, width, dropout=0.0))


def test_the_loss_is_the_sum_of_both_means(toy: tuple[SentenceFile, SentenceFile]) -> None:
    problem, model = problem_of(toy), small()
    batch = problem.batch()
    loss = problem.loss(model, batch)
    with torch.no_grad():
        logits, following = model(batch.tokens, batch.valid, batch.segments)  # everywhere
    assert logits.shape == (4, batch.tokens.shape[1], SIZE)
    tokens = functional.cross_entropy(logits[batch.wanted], batch.targets)
    both = tokens + functional.cross_entropy(following, batch.elsewhere)
    assert loss.count == int(batch.wanted.sum()) == len(batch.targets)
    assert loss.tokens == int(batch.valid.sum())
    assert loss.total.item() / loss.count == pytest.approx(both.item(), rel=1e-5)
    assert loss.metrics["masked_loss"] == pytest.approx(tokens.item(), rel=1e-5)


def test_segments_and_labels_say_what_a_pair_is(toy: tuple[SentenceFile, SentenceFile]) -> None:
    batch = problem_of(toy).batch()
    original = batch.tokens.clone()
    original[batch.wanted] = batch.targets
    for row, valid, segments, elsewhere in zip(original, batch.valid, batch.segments, batch.elsewhere, strict=True):
        tokens = row[valid].tolist()
        middle = tokens.index(SEP)
        assert tokens[0] == CLS
        assert tokens[-1] == SEP
        assert segments[valid].tolist() == [0] * (middle + 1) + [1] * (len(tokens) - middle - 1)
        if not elsewhere:
            assert (tokens[middle - 1] - SPECIAL) // 10 == (tokens[middle + 1] - SPECIAL) // 10


def test_evaluations_are_of_the_same_pairs_and_masks_always(toy: tuple[SentenceFile, SentenceFile]) -> None:
    model = small().eval()
    one, other = problem_of(toy, seed=1), problem_of(toy, seed=2)
    with torch.no_grad():
        first = one.evaluate(model)
        one.batch()
        assert one.evaluate(model) == first == other.evaluate(model)
    assert first["masked_perplexity"] == pytest.approx(math.exp(first["masked_loss"]))
    assert first["loss"] == pytest.approx(first["masked_loss"] + first["next_sentence_loss"])
    assert first["masked_perplexity"] == pytest.approx(SIZE, rel=0.1)  # nothing is known yet
    rows = [len(batch.tokens) for batch in one._evaluation_batches()]
    assert rows == [4, 4, 2]


def test_masked_training_goes_on_exactly(toy: tuple[SentenceFile, SentenceFile]) -> None:
    def training() -> SupervisedTraining:  # type: ignore[type-arg]
        return SupervisedTraining(small(), problem_of(toy), TrainingConfig(steps=6, warmup=0), quiet=True)

    straight = training()
    expected = [straight.step()["loss"] for _ in range(6)]
    stopped = training()
    for _ in range(3):
        stopped.step()
    state = stopped.state_dict()
    resumed = training()
    resumed.load_state_dict(state)
    assert [resumed.step()["loss"] for _ in range(3)] == expected[3:]


def test_operations_count_the_output_for_masked_tokens_alone(toy: tuple[SentenceFile, SentenceFile]) -> None:
    model, problem = small(), problem_of(toy)
    layers = sum(m.weight.numel() for m in model.bert.blocks.modules() if isinstance(m, nn.Linear))
    masked = 0.15 * (SIZE * 16 + 16 * 16)
    assert problem.operations(model, 100) == pytest.approx(100 * (6 * layers + 12 * 32 * 16 + 6 * masked))


def test_texts_become_parts_of_documents(tmp_path: Path) -> None:
    texts = [f"Text {number} is here. It has more to say! Has it?" for number in range(80)]
    tokenizer = train_wordpiece(texts, 80)
    assert tokenizer.special == BERT_SPECIAL
    files = write_document_parts(texts, tokenizer, tmp_path / "tokens")
    assert sum(map(len, files.values())) == 80
    file = files["training"]
    assert np.diff(file.documents).tolist() == [3] * len(file)
    assert tokenizer.decode(file.between(1, 2).tolist()) == "it has more to say !"
    stamp = (tmp_path / "tokens" / "training" / "ids.npy").stat().st_mtime_ns
    again = write_document_parts([], tokenizer, tmp_path / "tokens")
    assert again["training"].ids.tolist() == file.ids.tolist()
    assert (tmp_path / "tokens" / "training" / "ids.npy").stat().st_mtime_ns == stamp
    with pytest.raises(RllabError, match="No text falls into the part for"):
        write_document_parts(texts[:1], tokenizer, tmp_path / "few")


def test_defaults_are_the_papers() -> None:
    config, training = MaskedModellingConfig(), PAPERS_TRAINING
    assert (config.masked, config.replaced_by_mask, config.replaced_by_random) == (0.15, 0.8, 0.1)
    assert (config.from_elsewhere, config.short, config.length, config.most_masked) == (0.5, 0.1, 128, None)
    assert (training.steps, training.learning_rate, training.warmup) == (1_000_000, 1e-4, 10_000)
    factors = [
        schedule_factor(training.schedule, step, 1_000_000, 10_000, training.floor) for step in (4999, 9999, 999_999)
    ]
    assert factors == pytest.approx([0.5, 1, 0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0}, {"most_masked": 0}, {"evaluation_rows": 0}, {"length": 4}, {"masked": 1.5}, {"short": -0.1},
        {"from_elsewhere": 2.0}, {"replaced_by_mask": 0.95},
    ],
)  # fmt: skip
def test_masks_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RllabError, match=next(iter(wrong))):
        replace(CONFIG, **wrong)  # type: ignore[arg-type]


def test_a_tokenizer_of_special_tokens_alone_is_refused() -> None:
    special = SpecialTokens(unknown="[UNK]", classifier="[CLS]", separator="[SEP]", mask="[MASK]")
    tokenizer = WordPiece(
        {token: number for number, token in enumerate(special.tokens())}, WordPieceConfig(special=special)
    )
    with pytest.raises(RllabError, match="special tokens only"):
        Masker.of(tokenizer, CONFIG)


@pytest.mark.slow
def test_bert_learns_what_is_masked_and_what_follows(tmp_path: Path) -> None:
    """Each document says one of ten words again and again: what is masked, and whether both segments are of one."""
    generator = np.random.default_rng(0)

    def documents(count: int) -> list[list[list[int]]]:
        return [[[SPECIAL + int(word)] * 4] * 10 for word in generator.integers(10, size=count)]

    files = (
        write_sentence_file(tmp_path / "training", documents(200), SIZE),
        write_sentence_file(tmp_path / "held_out", documents(100), SIZE),
    )
    config = replace(CONFIG, batch_size=16, evaluation_rows=200)
    torch.manual_seed(0)
    model = BERTForPretraining(BERTConfig(SIZE, 32, 2, 2, 32, dropout=0.0, initial_std=0.15))
    settings = TrainingConfig(steps=400, learning_rate=2e-3, warmup=50, evaluation_every=0, weight_decay=0.0)
    judged = SupervisedTraining(model, MaskedModelling(*files, TOKENIZER, config), settings, quiet=True).run()
    assert judged["masked_accuracy"] > 0.95
    assert judged["next_sentence_accuracy"] > 0.9  # one foreign segment in ten has the same word
