"""The classifier that counts words, beside scikit-learn's parts, on disk, as a reward, and as a command."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from envs.errors import RllabError
from language.cli.classify import command
from language.preferences.rewards import ClassifierReward, make_reward
from language.tasks.counted_words import CountedWords, CountedWordsConfig

WORDS = {
    "bad": ["awful", "dull", "a", "waste", "of", "time", "not", "good", "film", "the"],
    "fair": ["so", "what", "it", "was", "a", "film", "and", "the", "time", "the"],
    "good": ["great", "wonderful", "a", "joy", "to", "see", "not", "dull", "film", "the"],
}


def labelled(count: int, seed: int, classes: tuple[str, ...] = ("bad", "good")) -> tuple[list[str], list[str]]:
    chosen = random.Random(seed)
    labels = [classes[number % len(classes)] for number in range(count)]
    return [" ".join(chosen.choices(WORDS[label], k=chosen.randint(3, 9))) for label in labels], labels


@pytest.mark.parametrize("classes", [("bad", "good"), ("bad", "fair", "good")])
@pytest.mark.parametrize("sublinear", [True, False])
def test_probabilities_are_those_of_scikit_learns_tf_idf_and_logistic_regression(
    classes: tuple[str, ...], sublinear: bool
) -> None:
    text, linear = pytest.importorskip("sklearn.feature_extraction.text"), pytest.importorskip("sklearn.linear_model")
    texts, labels = labelled(240, 0, classes)
    held_out, _ = labelled(60, 1, classes)
    ours = CountedWords.train(texts, labels, CountedWordsConfig(2, 2, sublinear=sublinear, strength=3.0))
    counter = text.TfidfVectorizer(
        ngram_range=(1, 2), min_df=2, sublinear_tf=sublinear, token_pattern=r"(?u)\b\w+\b"
    )  # fmt: skip
    theirs = linear.LogisticRegression(C=3.0, max_iter=2_000, tol=1e-8).fit(counter.fit_transform(texts), labels)
    assert sorted(ours.columns) == sorted(counter.vocabulary_)
    found = ours.probabilities([(each,) for each in held_out]).numpy()
    np.testing.assert_allclose(found, theirs.predict_proba(counter.transform(held_out)), atol=2e-4)


def test_log_odds_are_those_of_the_probabilities() -> None:
    for classes in (("bad", "good"), ("bad", "fair", "good")):
        trained = CountedWords.train(*labelled(90, 0, classes))
        texts, _ = labelled(20, 3, classes)
        p = trained.probabilities([(each,) for each in texts]).double().numpy()
        np.testing.assert_allclose(trained.log_odds(texts), np.log(p) - np.log1p(-p), rtol=1e-4, atol=1e-5)


def test_a_text_without_known_words_has_the_odds_of_the_biases_beside_any_other() -> None:
    trained = CountedWords.train(*labelled(90, 0))
    alone, beside = trained.log_odds(["xyz"]), trained.log_odds(["xyz", "great film", ""])
    np.testing.assert_array_equal(alone[0], [-trained.biases[0], trained.biases[0]])
    np.testing.assert_array_equal(beside[[0, 2]], np.repeat(alone, 2, 0))
    np.testing.assert_allclose(beside[1], trained.log_odds(["great film"])[0], rtol=1e-12)


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    trained = CountedWords.train(*labelled(60, 0, ("bad", "fair", "good")), CountedWordsConfig(3, 2, 50))
    trained.save(tmp_path / "words")
    loaded = CountedWords.load(tmp_path / "words")
    texts, _ = labelled(10, 5)
    np.testing.assert_array_equal(loaded.log_odds(texts), trained.log_odds(texts))
    assert loaded.config == trained.config
    assert len(loaded.columns) == 50
    assert loaded.classes == ("bad", "fair", "good")


def test_what_cannot_be_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RllabError, match="two classes at least"):
        CountedWords.train(["a", "b"], ["x", "x"])
    with pytest.raises(RllabError, match="lower --minimum-documents"):
        CountedWords.train(["a", "b"], ["x", "y"])
    with pytest.raises(RllabError, match="strength must be above 0"):
        CountedWordsConfig(strength=0)
    with pytest.raises(RllabError, match="holds no classifier that counts words"):
        CountedWords.load(tmp_path)
    CountedWords.train(*labelled(60, 0)).save(tmp_path)
    document = json.loads((tmp_path / "words.json").read_text())
    (tmp_path / "words.json").write_text(json.dumps({**document, "version": 2}))
    with pytest.raises(RllabError, match="newer version"):
        CountedWords.load(tmp_path)


def test_as_a_reward_it_gives_a_classs_log_odds_of_prompt_and_response(tmp_path: Path) -> None:
    trained = CountedWords.train(*labelled(120, 0))
    trained.save(tmp_path / "words")
    reward = make_reward([f"words:{tmp_path / 'words'}"])
    found = reward(["a film to", "the "], ["see great", "waste of time"])
    np.testing.assert_allclose(found, trained.log_odds(["a film tosee great", "the waste of time"])[:, 1], rtol=1e-3)
    assert found[0] > 0 > found[1]
    other = make_reward([f"words:{tmp_path / 'words'}:bad"])
    assert isinstance(other, ClassifierReward)
    assert other.label == 0
    with pytest.raises(RllabError, match="has no class 'fair'"):
        make_reward([f"words:{tmp_path / 'words'}:fair"])


def test_the_command_trains_reports_and_classifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts, labels = labelled(400, 0)
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in zip(texts, labels, strict=True)))
    out = tmp_path / "out"
    assert command(["train", "words", str(path), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "Test accuracy" in printed
    assert f"words:{out}:good" in printed
    assert command(["run", str(out), "a great joy to see"]) == 0
    assert capsys.readouterr().out.startswith("good\t")
    with pytest.raises(RllabError, match="not an empty folder"):
        command(["train", "words", str(path), "--out", str(out)])
    assert command(["train", "words", str(path), "--out", str(out), "--overwrite", "--quiet", "--labels", "100"]) == 0
    assert capsys.readouterr().out == ""
