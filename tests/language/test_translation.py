"""Learning to translate: smoothed targets, batches by tokens, averages, BLEU, the runs and the commands."""

import io
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import WORDS
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.cli.translate import SMALL, TRAINING, command
from language.models.folder import load_model
from language.models.transformer import Transformer, TransformerConfig
from language.tasks.translation import PAPERS_DECODING, Translator, bleu
from language.tokenizers.character import CharacterLevel, CharacterLevelConfig
from language.tokenizers.special import SpecialTokens
from language.training.averaging import average_checkpoints
from language.training.supervised import SupervisedTraining
from language.training.training_config import TrainingConfig
from language.training.translation import (
    IdPair,
    Translation,
    TranslationConfig,
    id_pairs,
    judge,
    shuffled_batches,
)
from language.training.translation_run import PairsConfig
from rllab.checkpoints import Checkpoints
from rllab.cli.main import main
from rllab.experiment import resume
from rllab.runs import Run

SPECIAL = SpecialTokens(begin="<s>", end="</s>")
LETTERS = "abcdefgh"


def letters() -> CharacterLevel:
    return CharacterLevel.train([LETTERS], CharacterLevelConfig(special=SPECIAL))


def random_pairs(count: int, longest: int, seed: int = 0) -> list[IdPair]:
    chosen = random.Random(seed)
    sides = [[chosen.randrange(3, 20) for _ in range(chosen.randint(1, longest - 1))] for _ in range(2 * count)]
    return [([*source, 2], [1, *target, 2]) for source, target in zip(sides[::2], sides[1::2], strict=True)]


def test_smoothed_targets_have_the_papers_probabilities() -> None:
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 6, 0], [2, 3, 0]])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    found = judge(logits, targets, valid, 0.1)
    by_hand = plain = right = 0.0
    for row, place in valid.nonzero().tolist():
        log_probabilities = [float(x) for x in logits[row, place].log_softmax(-1)]
        target = int(targets[row, place])
        wanted = [0.1 / 7 + (0.9 if token == target else 0.0) for token in range(7)]
        assert sum(wanted) == pytest.approx(1)
        by_hand -= sum(share * of_it for share, of_it in zip(wanted, log_probabilities, strict=True))
        plain -= log_probabilities[target]
        right += log_probabilities[target] == max(log_probabilities)
    assert float(found.smoothed) == pytest.approx(by_hand)
    assert float(found.plain) == pytest.approx(plain)
    assert (int(found.right), found.targets) == (right, 5)
    torchs = functional.cross_entropy(logits[valid], targets[valid], reduction="sum", label_smoothing=0.1)
    torch.testing.assert_close(found.smoothed, torchs)
    assert float(judge(logits, targets, valid).smoothed) == pytest.approx(plain)


def test_the_least_smoothed_loss_is_the_entropy_of_the_targets() -> None:
    share = 0.1 / 7
    best = torch.full((1, 1, 7), math.log(share))
    best[0, 0, 4] = math.log(0.9 + share)
    entropy = -(0.9 + share) * math.log(0.9 + share) - 6 * share * math.log(share)
    target, valid = torch.tensor([[4]]), torch.tensor([[True]])
    assert float(judge(best, target, valid, 0.1).smoothed) == pytest.approx(entropy, rel=1e-5)
    sharper = torch.full((1, 1, 7), -20.0).index_fill_(2, torch.tensor(4), 0.0)
    assert float(judge(sharper, target, valid, 0.1).smoothed) > entropy


def test_an_epoch_has_each_pair_once_in_batches_that_fit() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 40, (500, 2))
    batches = shuffled_batches(lengths, 120, generator)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    padded = [len(batch) * lengths[batch].max(0) for batch in batches]
    assert max(size.max() for size in padded) <= 120
    targets = sum(int(size[1]) for size in padded)
    assert lengths[:, 1].sum() / targets > 0.9  # little padding
    first = [int(lengths[batch, 1].max()) for batch in batches]
    assert first != sorted(first)  # short ones do not come first


class Noted(nn.Module):
    """Gives the logits that it was made with, and notes what it was asked for."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(vocabulary_size))
        self.inputs: list[Tensor] = []

    def forward(self, source: Tensor, target: Tensor, source_valid: Tensor) -> Tensor:
        self.inputs = [source, target, source_valid]
        return self.weight.expand(*target.shape, -1)


def test_targets_are_shifted_by_one_and_padding_costs_nothing() -> None:
    pairs: list[IdPair] = [([5, 2], [1, 7, 8, 2]), ([5, 6, 2], [1, 9, 2])]
    problem = Translation(pairs, pairs, TranslationConfig(batch_tokens=10, longest=5))
    model, batch = Noted(20), problem.batch()
    loss = problem.loss(model, batch)
    order = [0, 1] if batch.source[0, 1] == 2 else [1, 0]
    source, target, valid = model.inputs
    assert source[order].tolist() == [[5, 2, 0], [5, 6, 2]]
    assert valid[order].tolist() == [[True, True, False], [True, True, True]]
    assert target[order].tolist() == [[1, 7, 8], [1, 9, 2]]
    assert (loss.count, loss.tokens) == (5, 10)  # 7 8 end, 9 end; and 5 of the sources
    assert float(loss.total.detach()) == pytest.approx(5 * math.log(20))  # uniform: smoothing changes nothing
    assert problem.evaluate(model)["perplexity"] == pytest.approx(20)


def test_a_problem_goes_on_in_the_middle_of_an_epoch() -> None:
    pairs = random_pairs(50, 8)
    config = TranslationConfig(batch_tokens=30, longest=10)
    first, second = (Translation(pairs, pairs, config, seed) for seed in (3, 4))
    for _ in range(23):
        first.batch()
    second.load_state_dict(first.state_dict())
    for _ in range(40):
        ours, theirs = first.batch(), second.batch()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_long_pairs_are_left_out_and_none_left_is_refused() -> None:
    pairs: list[IdPair] = [([5] * 5, [1, 2]), ([5], [1] * 6), ([5, 2], [1, 7, 2])]
    problem = Translation(pairs, pairs, TranslationConfig(batch_tokens=10, longest=4))
    assert problem.training == problem.held_out == pairs[2:]
    with pytest.raises(RllabError, match="No pair for training has at most 4 tokens"):
        Translation(pairs[:2], pairs, TranslationConfig(batch_tokens=10, longest=4))
    with pytest.raises(RllabError, match="fits into a batch"):
        TranslationConfig(batch_tokens=10, longest=11)


def test_the_average_is_that_of_the_last_checkpoints(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=0)
    with pytest.raises(RllabError, match="no checkpoint to average"):
        average_checkpoints(checkpoints)
    for step in (1, 2, 3, 4):
        state = {"model": {"weight": torch.full((2,), float(step**2)), "count": torch.tensor(step)}}
        checkpoints.save(step, state)
    assert average_checkpoints(checkpoints, 3)["weight"].tolist() == pytest.approx([29 / 3, 29 / 3])
    assert average_checkpoints(checkpoints, 1)["weight"].tolist() == [16, 16]
    assert average_checkpoints(checkpoints, 9)["weight"].tolist() == [7.5, 7.5]
    assert int(average_checkpoints(checkpoints, 2)["count"]) == 4


def test_bleu_is_the_closed_form_and_case_counts() -> None:
    pytest.importorskip("sacrebleu")
    # 1- to 4-grams that match: 5 of 6, 4 of 5, 3 of 4, 2 of 3; as long as the reference.
    found = bleu(["the cat sat on the hat"], ["the cat sat on the mat"])
    assert found.score == pytest.approx(100 * (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25)
    short = bleu(["the cat sat on the"], ["the cat sat on the mat"])
    assert short.score == pytest.approx(100 * math.exp(1 - 6 / 5))
    assert short.brevity_penalty == pytest.approx(math.exp(1 - 6 / 5))
    assert "case:mixed" in found.signature
    assert bleu(["The Cat Sat On"], ["the cat sat on"]).score == 0
    with pytest.raises(RllabError, match="as many translations as references"):
        bleu(["a"], [])


def test_the_papers_decoding_is_a_beam_of_4_with_alpha_0_6() -> None:
    assert PAPERS_DECODING.beams == 4
    assert PAPERS_DECODING.divisor(7) == pytest.approx(2**0.6)  # ((5 + 7)/6)^0.6


def test_texts_come_back_in_their_order_and_no_batch_changes_a_translation() -> None:
    tokenizer = letters()
    torch.manual_seed(1)
    model = Transformer(TransformerConfig(len(tokenizer), 64, 1, 2, 16)).eval()
    model.tokens.weight.data.mul_(3)  # so that translations differ
    texts = ["abcde", "", "b", "hgfedcba", "ab"]
    together = Translator(model, tokenizer).translate(texts)
    assert together[1] == ""
    assert len(set(together)) > 2
    greedy = Translator(model, tokenizer, batch_rows=1)
    assert [greedy.translate([text])[0] for text in texts] == greedy.translate(texts)
    with pytest.raises(RllabError, match="longer than the model's 64 positions"):
        greedy.translate(["a" * 64])
    cut = Translator(model, tokenizer, longest=9)
    assert cut.translate(["hgfedcba" + "a" * 64]) == [together[3]]  # eight letters and the end


def test_a_tokenizer_without_begin_or_end_is_refused() -> None:
    tokenizer = CharacterLevel.train([LETTERS], CharacterLevelConfig(special=SpecialTokens(end="</s>")))
    with pytest.raises(RllabError, match="a begin and an end token"):
        id_pairs([("a", "b")], tokenizer)


@pytest.mark.slow
def test_a_small_transformer_learns_to_reverse_words_exactly() -> None:
    tokenizer = letters()
    chosen = random.Random(0)
    words = sorted({"".join(chosen.choices(LETTERS, k=chosen.randint(1, 8))) for _ in range(4_000)})
    chosen.shuffle(words)
    pairs = id_pairs([(word, word[::-1]) for word in words], tokenizer)
    held_out = words[-200:]
    problem = Translation(pairs[:-200], pairs[-200:], TranslationConfig(batch_tokens=500, longest=16))
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(len(tokenizer), 80, 2, 4, 64))
    config = TrainingConfig(
        steps=1_500, learning_rate=2e-3, schedule="noam", warmup=200, weight_decay=0, epsilon=1e-9, clip_norm=0
    )
    SupervisedTraining(model, problem, config, quiet=True).run()
    translated = Translator(model.eval(), tokenizer).translate(held_out)
    assert sum(ours == word[::-1] for ours, word in zip(translated, held_out, strict=True)) >= 196


SIZE = [
    "--layers", "1", "--width", "16", "--context", "48", "--vocabulary-size", "300", "--longest", "40", "--batch-tokens",
    "200", "--steps", "6", "--warmup", "2", "--evaluation-every", "3", "--checkpoint-every", "2",
]  # fmt: skip


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up sentences and their words backwards."""
    chosen = random.Random(0)
    sentences = [chosen.choices(WORDS, k=chosen.randint(2, 6)) for _ in range(300)]
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    # Some are longer than the model's context: not learnt from, and cut in the final test.
    sentences += [[*chosen.choices(WORDS, k=60), str(number)] for number in range(60)]
    path.write_text("".join(f"{n}\t{' '.join(s)}\t{' '.join(s[::-1])}\n" for n, s in enumerate(sentences)))
    return path


def train(kind: str, pairs: Path, out: Path, *further: str) -> int:
    columns = ["--columns", "1", "2"]
    return command(["train", kind, str(pairs), *columns, "--out", str(out), "--quiet", *SIZE, *further])


@pytest.fixture(scope="module")
def trained(pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sacrebleu")
    out = tmp_path_factory.mktemp("runs") / "run"
    assert train("transformer", pairs_file, out, "--heads", "2") == 0
    return out


def test_a_run_has_a_model_that_translates_texts_and_lines(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Run.open(trained).checkpoints.steps() == [2, 3, 4, 6]
    model, tokenizer = load_model(trained)
    assert isinstance(model, Transformer)
    assert model.config.vocabulary_size == len(tokenizer)
    assert command(["run", str(trained), "the film", "a plot"]) == 0
    written = capsys.readouterr().out
    assert written.count("\n") == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("the film\na plot\n"))
    assert command(["run", str(trained)]) == 0
    assert capsys.readouterr().out == written
    assert command(["run", str(trained), "the film", "--beams", "1"]) == 0
    typed = io.StringIO("the film\n\n")
    monkeypatch.setattr(typed, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", typed)
    capsys.readouterr()
    assert command(["run", str(trained)]) == 0
    shown = capsys.readouterr()
    assert shown.out == written.splitlines(keepends=True)[0]
    assert "Type a sentence" in shown.err


@pytest.mark.parametrize("kind", list(SMALL))
def test_a_run_goes_on_with_more_steps_as_one_that_had_them_from_the_start(
    kind: str, pairs_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("sacrebleu")
    train(kind, pairs_file, tmp_path / "short", "--schedule", "constant", "--steps", "4", "--average", "1")
    resume(tmp_path / "short", steps=6, quiet=True)
    train(kind, pairs_file, tmp_path / "long", "--schedule", "constant", "--average", "1")
    ours, theirs = (load_model(tmp_path / name)[0].state_dict() for name in ("short", "long"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_training_begins_with_another_ones_weights_sizes_and_tokenizer(
    trained: Path, pairs_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "further"
    training = ["--longest", "40", "--batch-tokens", "200", "--steps", "2", "--learning-rate", "1e-12", "--warmup", "0"]
    begun = ["--initial", str(trained), "--columns", "2", "1", "--out", str(out), "--quiet", *training]
    assert command(["train", "transformer", str(pairs_file), *begun]) == 0
    (first, words), (second, same_words) = load_model(trained), load_model(out)
    assert first.config == second.config
    assert words.vocabulary == same_words.vocabulary
    theirs = first.state_dict()
    assert all(torch.allclose(theirs[name], tensor, atol=1e-9) for name, tensor in second.state_dict().items())


def test_equal_sources_are_on_the_same_side_of_the_split(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{n % 60}\t{n}\n" for n in range(240)) + "0\t0\n \tnothing\n")
    forth = PairsConfig((str(path),)).parts
    assert sum(map(len, forth.values())) == 240  # a pair that comes twice is there once
    sources = [{source for source, _ in part} for part in forth.values()]
    assert sum(map(len, sources)) == len(set.union(*sources)) == 60
    back = PairsConfig((str(path),), reverse=True).parts
    assert sorted((b, a) for part in back.values() for a, b in part) == sorted(
        p for part in forth.values() for p in part
    )


def test_the_two_kinds_are_of_about_equal_size_by_default() -> None:
    with torch.device("meta"):
        wanted = sum(parameter.numel() for parameter in Transformer(SMALL["transformer"]).parameters())
    assert SMALL["lstm-translation"] == SMALL["lstm-translation"].sized(wanted)
    assert TRAINING["transformer"].epsilon == 1e-9


def test_what_cannot_work_is_one_sentence_with_exit_code_2(
    trained: Path, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short.tsv").write_text("one\teins\n")
    cases = {
        "there are transformer": ["train", "elephant"],
        "Give files of pairs": ["train", "transformer"],
        "no word list": ["train", "transformer", "--data", str(tmp_path / "nothing")],
        "longer than the model's context of 30": ["train", "transformer", str(pairs_file), *SIZE, "--context", "30"],
        "3 heads do not divide": ["train", "transformer", str(pairs_file), *SIZE, "--heads", "3"],
        "has 3 cells": ["train", "transformer", str(pairs_file), *SIZE, "--columns", "1", "3"],
        "No pair falls into": ["train", "transformer", str(tmp_path / "short.tsv"), *SIZE],
        "average must be at least 1": ["train", "transformer", str(pairs_file), *SIZE, "--average", "0"],
        "already holds a run": ["train", "transformer", str(pairs_file), "--out", str(trained), *SIZE],
        "brings its own sizes": ["train", "transformer", str(pairs_file), "--initial", str(trained), "--width", "32"],
        "begins with one of the kind lstm": ["train", "lstm-translation", str(pairs_file), "--initial", str(trained)],
        "holds no trained model": ["run", str(tmp_path), "a"],
        "longer than the model's 48 positions": ["run", str(trained), "the film was " * 30],
    }
    for said, arguments in cases.items():
        assert main(["language", "translate", *arguments]) == 2, said
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error


def test_entries_of_a_word_list_are_learnt_from_and_never_held_out(tmp_path: Path) -> None:
    path = tmp_path / "list"
    sentences = [f"Das ist Nummer {n}. :: This is number {n}." for n in range(200)]
    path.write_text("\n".join([*sentences, *(f"Wort {n} {{n}}; Ding :: word {n}; thing" for n in range(50))]) + "\n")
    plain, more = PairsConfig(data=str(path)).parts, PairsConfig(data=str(path), entries=True).parts
    assert plain["validation"] == more["validation"]
    assert plain["test"] == more["test"]
    assert more["training"] == plain["training"] + [(f"Wort {n}", f"word {n}") for n in range(50)]
    held_out = {source for part in ("validation", "test") for source, _ in more[part]}
    assert held_out
    assert not held_out & {source for source, _ in more["training"]}
    back = PairsConfig(data=str(path), entries=True, reverse=True).parts["training"]
    assert ("word 7", "Wort 7") in back
    with pytest.raises(RllabError, match="those of a word list"):
        _ = PairsConfig((str(path),), entries=True).parts
