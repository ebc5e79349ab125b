"""Asking word vectors, their files, and their evaluation, with gensim as oracle."""

from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors

from envs.errors import RllabError
from language.embeddings.evaluation import bundled, evaluate_analogies, evaluate_similarity
from language.embeddings.formats import FORMATS, Format, load_vectors, save_vectors
from language.embeddings.plot import plot_vectors, project, write_projector
from language.embeddings.word_vectors import WordVectors


def made(words: list[str] | None = None, dimensions: int = 12) -> WordVectors:
    words = words or [f"word{number}" for number in range(60)]
    matrix = np.random.default_rng(0).normal(size=(len(words), dimensions)).astype(np.float32)
    return WordVectors(tuple(words), matrix)


def gensims(vectors: WordVectors) -> KeyedVectors:
    keyed = KeyedVectors(vectors.matrix.shape[1])
    keyed.add_vectors(list(vectors.words), vectors.matrix)
    return keyed


def test_neighbours_and_sums_of_cosines_are_gensims() -> None:
    vectors = made()
    keyed = gensims(vectors)
    ours, theirs = vectors.nearest("word3", 5), keyed.most_similar("word3", topn=5)
    assert [word for word, _ in ours] == [word for word, _ in theirs]
    np.testing.assert_allclose([score for _, score in ours], [score for _, score in theirs], rtol=1e-5)
    ours = vectors.analogy("word1", "word2", "word3", 5)
    theirs = keyed.most_similar(positive=["word2", "word3"], negative=["word1"], topn=5)
    assert [word for word, _ in ours] == [word for word, _ in theirs]
    np.testing.assert_allclose([score for _, score in ours], [score for _, score in theirs], rtol=1e-5)
    assert vectors.similarity("word1", "word2") == pytest.approx(float(keyed.similarity("word1", "word2")), abs=1e-6)


def test_products_of_cosines_are_gensims_but_for_the_papers_larger_epsilon() -> None:
    vectors = made()
    ours = vectors.analogy("word1", "word2", "word3", 5, method="3cosmul")
    theirs = gensims(vectors).most_similar_cosmul(positive=["word2", "word3"], negative=["word1"], topn=5)
    assert [word for word, _ in ours] == [word for word, _ in theirs]
    np.testing.assert_allclose([score for _, score in ours], [score for _, score in theirs], rtol=0.02)


def test_an_analogy_of_exact_differences_is_solved_both_ways() -> None:
    # royal, male, female, other
    rows = {
        "man": [0, 1, 0, 0],
        "woman": [0, 0, 1, 0],
        "king": [1, 1, 0, 0],
        "queen": [1, 0, 1, 0],
        "tree": [0, 0, 0, 1],
    }
    vectors = WordVectors(tuple(rows), np.array(list(rows.values()), np.float32))
    for method in ("3cosadd", "3cosmul"):
        assert vectors.analogy("man", "king", "woman", 1, method=method)[0][0] == "queen"
    # Dividing by what is to be left behind punishes it more: (½·1)(½·1)/(½ + ε) by hand for "tree".
    scores = dict(vectors.analogy("man", "king", "woman", 5, method="3cosmul"))
    assert scores["tree"] == pytest.approx(0.25 / 0.501)


def test_a_vector_can_be_asked_for_and_words_left_out() -> None:
    vectors = made()
    assert vectors.nearest(vectors["word7"], 1)[0][0] == "word7"
    by_vector, by_word = vectors.nearest(vectors["word7"], 5, leave_out=["word7"]), vectors.nearest("word7", 5)
    assert [word for word, _ in by_vector] == [word for word, _ in by_word]
    assert len(vectors.nearest("word7", 99)) == 59
    assert "word7" in vectors
    assert "nothing" not in vectors


def test_an_unknown_word_is_told_with_words_that_are_spelt_alike() -> None:
    vectors = made(["Berlin", "beautiful", "theatre", "movie"])
    with pytest.raises(RllabError, match="'theater' is not among the 4 words .* did you mean theatre"):
        vectors.nearest("theater")
    with pytest.raises(RllabError, match="did you mean Berlin"):
        vectors.analogy("movie", "theatre", "berlin")
    with pytest.raises(RllabError, match="no word of the vocabulary is spelt like it"):
        vectors.similarity("movie", "xyzzy")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_read_back_exactly_and_by_gensim(tmp_path: Path, format: Format) -> None:
    vectors = made(["the", "Gruß", "π", "a\u00a0b", "2", "…"])
    path = tmp_path / "vectors"
    save_vectors(vectors, path, format)
    for read in (load_vectors(path), load_vectors(path, format)):
        assert read.words == vectors.words
        np.testing.assert_array_equal(read.matrix, vectors.matrix)
    keyed = KeyedVectors.load_word2vec_format(
        path, binary=format == "word2vec-binary", no_header=format == "glove", unicode_errors="strict"
    )
    assert keyed.index_to_key == list(vectors.words)
    np.testing.assert_array_equal(keyed.vectors, vectors.matrix)


@pytest.mark.parametrize("binary", [False, True])
def test_files_that_gensim_wrote_are_read(tmp_path: Path, binary: bool) -> None:
    vectors = made()
    gensims(vectors).save_word2vec_format(tmp_path / "theirs", binary=binary)
    read = load_vectors(tmp_path / "theirs")
    assert read.words == vectors.words
    np.testing.assert_array_equal(read.matrix, vectors.matrix)


def test_words_with_spaces_are_read_from_gloves_files_and_not_written(tmp_path: Path) -> None:
    (tmp_path / "glove.txt").write_text("a 1 2\n. . . 3 4\na 5 6\n")
    read = load_vectors(tmp_path / "glove.txt")
    assert (read.words, read.matrix.tolist()) == (("a", ". . ."), [[1, 2], [3, 4]])
    with pytest.raises(RllabError, match="has a space in it"):
        save_vectors(read, tmp_path / "out.txt")
    assert not (tmp_path / "out.txt").exists()


def test_damaged_files_are_told_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "vectors.bin"
    save_vectors(made(), path)
    whole = path.read_bytes()
    for content, sentence in [
        (b"", "is empty"),
        (whole[:-30], "ends after 59 of 60 words"),
        (whole[: len(whole) // 2], "truncated"),
        (b"99999999999 100\nx", "too short"),
        (b"2 2\na 1 2\n", "has 1 words instead of 2"),
        (b"a 1 2\nb 1 x\n", "Line 2 of .* is not a word and numbers"),
        (b"a 1 2\nb 1\n", "Line 2 of .* has . numbers instead of 2|Line 2 of .* is not"),
        (b"a 1 nan\n", "not finite"),
        (b"\xff\xfe\n", "does not begin|is not a word"),
    ]:
        path.write_bytes(content)
        with pytest.raises(RllabError, match=sentence):
            load_vectors(path)
    with pytest.raises(RllabError, match="cannot be read"):
        load_vectors(tmp_path / "absent")


def test_googles_analogies_are_scored_as_gensim_scores_them() -> None:
    words = bundled("analogies").read_text().split()
    vectors = made(sorted({word.lower() for word in words if word != ":"})[:450], dimensions=8)
    sections = gensims(vectors).evaluate_word_analogies(
        str(bundled("analogies")), restrict_vocab=400, case_insensitive=True
    )[1]
    ours = evaluate_analogies(vectors, restrict=400)
    theirs = {section["section"]: section for section in sections}
    for result in ours[:-1]:
        section = theirs[result.section]
        assert (result.correct, result.asked) == (
            len(section["correct"]), len(section["correct"]) + len(section["incorrect"]),
        )  # fmt: skip
    assert ours[-1].total == 19_544
    assert ours[-1].asked > 500
    assert ours[-1].correct == len(theirs["Total accuracy"]["correct"]) > 0


@pytest.mark.parametrize("name", ["wordsim", "simlex"])
def test_agreement_with_ratings_is_gensims(name: str) -> None:
    path = bundled(name)
    words = sorted({word for line in path.read_text().splitlines()[2:] for word in line.split("\t")[:2]})
    vectors = made(words[:-20])
    _, (spearman, _), missing = gensims(vectors).evaluate_word_pairs(str(path), restrict_vocab=10**6)
    ours = evaluate_similarity(vectors, path)
    assert ours.spearman == pytest.approx(spearman, abs=1e-4)
    assert 1 - ours.asked / ours.total == pytest.approx(missing / 100, abs=1e-6)


def test_tasks_of_which_nothing_is_known_have_no_score(tmp_path: Path) -> None:
    vectors = made()
    assert np.isnan(evaluate_analogies(vectors)[-1].accuracy)
    assert np.isnan(evaluate_similarity(vectors, bundled("simlex")).spearman)
    (tmp_path / "questions.txt").write_text(": x\na b c\n")
    with pytest.raises(RllabError, match="Line 2 of .* is no analogy"):
        evaluate_analogies(vectors, tmp_path / "questions.txt")
    with pytest.raises(RllabError, match="Line 1 of .* is not two words and a rating"):
        evaluate_similarity(vectors, tmp_path / "questions.txt")


def test_the_plane_of_the_largest_variance_keeps_a_flat_picture_as_it_is() -> None:
    generator = np.random.default_rng(0)
    flat = generator.normal(size=(20, 2)) * [3, 1] @ np.linalg.qr(generator.normal(size=(6, 6)))[0][:2]
    places, shares = project(flat.astype(np.float32))
    assert sum(shares) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(
        np.linalg.norm(places[:, None] - places, axis=2), np.linalg.norm(flat[:, None] - flat, axis=2), atol=1e-5
    )


def test_pictures_are_drawn_of_the_words_that_were_asked_for(tmp_path: Path) -> None:
    vectors = made()
    svg = plot_vectors(vectors, tmp_path / "pca.svg", ["word1", "word2", "word3"], title="three")
    assert svg.stat().st_size > 1000
    png = plot_vectors(vectors, tmp_path / "tsne.png", method="tsne", count=10)
    assert png.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(RllabError, match="known format"):
        plot_vectors(vectors, tmp_path / "x.xyz")
    with pytest.raises(RllabError, match="at least 3 words"):
        plot_vectors(vectors, tmp_path / "x.png", ["word1", "word2"])


def test_tensorboards_projector_finds_vectors_and_words(tmp_path: Path) -> None:
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    vectors = made()
    write_projector(vectors, tmp_path, count=50)
    config = text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), ProjectorConfig())
    [embedding] = config.embeddings
    read = np.loadtxt(tmp_path / embedding.tensor_path, delimiter="\t")
    np.testing.assert_allclose(read, vectors.matrix[:50], rtol=1e-5)
    assert (tmp_path / embedding.metadata_path).read_text().split() == list(vectors.words[:50])
