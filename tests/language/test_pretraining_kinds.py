"""Every kind of pre-training: a run that can be gone on with, a model that is loaded again, and going on from it."""

import random
from pathlib import Path

import pytest
import torch
from made_up import sentence

from envs.errors import RllabError
from language.cli.main import command
from language.models.characters import begin_of_sentence, characters_of
from language.models.folder import kind_of, load_model
from language.tokenizers.word import WordLevel, WordLevelConfig
from language.training.language_modelling import LanguageModellingConfig
from language.training.pretraining_kinds import KINDS
from language.training.word_modelling import SPECIAL, WordModelling, train_words, write_words
from rllab.cli.main import main
from rllab.experiment import resume
from rllab.runs import Run

SMALL = {
    "gpt": ["--layers", "1", "--heads", "2", "--width", "16", "--context", "32", "--length", "16"],
    "transformer-lm": ["--layers", "1", "--heads", "2", "--width", "16", "--context", "32", "--length", "16"],
    "moe-lm": ["--width", "16", "--feed-forward-width", "16", "--experts", "4", "--length", "16"],
    "awd-lstm": ["--width", "16", "--layers", "2", "--hidden-width", "24", "--length", "16", "--deviation", "2"],
    "elmo": ["--width", "16", "--lstm-width", "24", "--filters", "1", "8", "2", "8", "--characters-a-word", "12",
             "--length", "10"],
    "bert": ["--layers", "1", "--heads", "2", "--width", "16", "--context", "32", "--length", "24"],
}  # fmt: skip
RUN = [
    "--vocabulary-size", "300", "--batch-size", "4", "--steps", "6", "--warmup", "2", "--evaluation-every", "3",
    "--checkpoint-every", "2", "--schedule", "constant", "--quiet",
]  # fmt: skip


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of several sentences."""
    chosen = random.Random(0)
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    lines = (" ".join(f"{sentence(chosen, 6).capitalize()}." for _ in range(4)) for _ in range(300))
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_run_of_each_kind_goes_on_as_one_that_had_all_steps_from_the_start(
    kind: str, texts: Path, tmp_path: Path
) -> None:
    arguments = ["pretrain", kind, str(texts), *SMALL[kind], *RUN]
    assert command([*arguments, "--out", str(tmp_path / "short"), "--steps", "4"]) == 0
    assert resume(tmp_path / "short", steps=6, quiet=True).test[KINDS[kind].goal] > 1
    assert command([*arguments, "--out", str(tmp_path / "long")]) == 0
    (ours, tokenizer), (theirs, _) = (load_model(tmp_path / name) for name in ("short", "long"))
    assert kind_of(ours) == kind
    assert ours.config == theirs.config
    assert ours.config.vocabulary_size == len(tokenizer)
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())
    row = Run.open(tmp_path / "long").read_metrics()[-1]
    assert row["steps"] == 6
    assert row[f"evaluation/{KINDS[kind].goal}"] > 1


def test_a_texts_sentences_may_be_on_lines_of_their_own(texts: Path, tmp_path: Path) -> None:
    apart = tmp_path / "apart.txt"
    apart.write_text("\n\n".join(text.replace(". ", ".\n") for text in texts.read_text().splitlines()))
    arguments = ["pretrain", "bert", str(apart), *SMALL["bert"], *RUN, "--steps", "1"]
    with pytest.raises(RllabError, match="[Nn]o .*sentences|two sentences"):
        command([*arguments, "--out", str(tmp_path / "lines")])
    assert command([*arguments, "--unit", "paragraph", "--out", str(tmp_path / "paragraphs")]) == 0


def test_a_language_model_goes_on_from_another_on_other_texts(texts: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    command(["pretrain", "awd-lstm", str(texts), *SMALL["awd-lstm"], *RUN, "--out", str(first)])
    further = ["--initial", str(first), "--layer-factor", "2.6", "--batch-size", "4", "--steps", "1", "--quiet"]
    rate = ["--learning-rate", "1e-3", "--schedule", "constant", "--warmup", "0", "--weight-decay", "0"]
    assert command(["pretrain", "awd-lstm", str(texts), *further, *rate, "--out", str(second)]) == 0
    before, after = (load_model(path)[0] for path in (first, second))
    # Adam's first step is the learning rate, whatever the gradient: 1/2.6 of the one above for the lower LSTM.
    groups = zip(before.layer_groups(), after.layer_groups(), strict=True)
    moved = [max(float((a - b).detach().abs().max()) for a, b in zip(*pair, strict=True)) for pair in groups]
    assert moved == pytest.approx([1e-3 / 2.6**2, 1e-3 / 2.6, 1e-3], rel=0.02)


def test_what_an_initial_model_excludes_is_said(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tmp_path / "first"
    command(["pretrain", "awd-lstm", str(texts), *SMALL["awd-lstm"], *RUN, "--out", str(first)])
    cases = {
        "brings its own sizes": ["awd-lstm", str(texts), "--initial", str(first), "--width", "32"],
        "brings its own tokenizer": ["awd-lstm", str(texts), "--initial", str(first), "--tokenizer", str(first)],
        "the kind awd-lstm, and this training begins with one of the kind gpt": ["gpt", str(texts), "--initial", str(first)],
        "layer_factor must be at least 1": ["awd-lstm", str(texts), "--initial", str(first), "--layer-factor", "0.5"],
    }  # fmt: skip
    for said, arguments in cases.items():
        out = tmp_path / "none"
        assert main(["language", "pretrain", *arguments, "--out", str(out)]) == 2, said
        assert said in capsys.readouterr().err
        assert not out.exists()  # so that the same command can be given again, put right


def test_words_outside_the_vocabulary_are_read_as_they_are_and_predicted_as_unknown(tmp_path: Path) -> None:
    texts = [f"the film number {number} ." for number in range(400)]
    tokenizer = train_words(texts, 8)
    words = write_words(texts, tokenizer, tmp_path, 12)
    assert len(tokenizer) == words.vocabulary_size == 8
    assert len(words.characters) == 8 + 400 - len({str(n) for n in range(400)} & set(tokenizer.vocabulary))
    ids = words.files["training"].ids[:7].tolist()
    begin, end = tokenizer.vocabulary["<s>"], tokenizer.vocabulary["</s>"]
    assert ids[:4] == [begin, *(tokenizer.vocabulary[word] for word in ("the", "film", "number"))]
    assert ids[5:] == [tokenizer.vocabulary["."], end]
    number = next(n for n in map(str, range(400)) if words.characters[ids[4]].tolist() == characters_of(n, 12))
    assert number.isdigit()
    assert words.characters[begin].tolist() == begin_of_sentence(12)
    again = write_words([], tokenizer, tmp_path, 12)  # from the disk
    assert torch.equal(again.characters, words.characters)
    problem = WordModelling(words, "validation", LanguageModellingConfig(2, 7))

    class Noted(torch.nn.Module):
        def loss(self, characters: torch.Tensor, words: torch.Tensor) -> None:
            self.seen = characters, words
            raise InterruptedError

    model, batch = Noted(), torch.tensor([ids, ids])
    with pytest.raises(InterruptedError):
        problem.loss(model, batch)
    characters, wanted = model.seen
    assert characters[0, 4].tolist() == characters_of(number, 12)
    assert wanted[0, 4] == (ids[4] if ids[4] < 8 else tokenizer.vocabulary["<unk>"])


def test_elmo_refuses_a_tokenizer_of_pieces_of_words(tmp_path: Path) -> None:
    plain = WordLevel.train(["a b c"], WordLevelConfig(10))
    with pytest.raises(RllabError, match="a begin and an end token"):
        write_words(["a b"], plain, tmp_path, 12)
    assert SPECIAL.tokens() == ("<unk>", "<s>", "</s>")
