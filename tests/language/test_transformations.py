"""Inputs of tasks as GPT reads them, and how much of long documents is read: token by token."""

import pytest

from envs.errors import RllabError
from language.models.documents import ReadingConfig, checked_classes
from language.models.gpt import GPTConfig
from language.models.gpt_classifier import GPTClassifierConfig
from language.tasks.transformations import Transformation

S, D, E = 90, 91, 92
ONE, TWO, THREE = [1, 2, 3], [4, 5], [6]


def test_a_text_stands_between_start_and_extract() -> None:
    assert Transformation(S, D, E).sequences([ONE]) == [[S, 1, 2, 3, E]]


def test_a_premise_stands_before_its_hypothesis() -> None:
    assert Transformation(S, D, E, "entailment").sequences([ONE, TWO]) == [[S, 1, 2, 3, D, 4, 5, E]]


def test_similar_texts_are_read_in_both_orders() -> None:
    assert Transformation(S, D, E, "similarity").sequences([ONE, TWO]) == [
        [S, 1, 2, 3, D, 4, 5, E],
        [S, 4, 5, D, 1, 2, 3, E],
    ]


def test_each_answer_stands_after_the_context() -> None:
    assert Transformation(S, D, E, "choice").sequences([ONE, TWO, THREE]) == [
        [S, 1, 2, 3, D, 4, 5, E],
        [S, 1, 2, 3, D, 6, E],
    ]


@pytest.mark.parametrize(("form", "texts"), [
    ("classification", [ONE, TWO]), ("entailment", [ONE]), ("similarity", [ONE, TWO, THREE]), ("choice", [ONE, TWO]),
])  # fmt: skip
def test_other_numbers_of_texts_are_refused(form: str, texts: list[list[int]]) -> None:
    with pytest.raises(RllabError, match=f"one of the form '{form}' is"):
        Transformation(S, D, E, form).sequences(texts)  # type: ignore[arg-type]


def test_the_new_tokens_come_after_the_tokenizers() -> None:
    config = GPTClassifierConfig(GPTConfig(50, 8, 1, 1, 4), form="entailment")
    made = Transformation.of(config)
    assert (made.start, made.delimiter, made.extract) == (50, 51, 52)
    # Of eight positions three are for markers; the longer text is cut first.
    assert made.sequences([[1, 2, 3, 4, 5, 6], [7, 8]]) == [[50, 1, 2, 3, 51, 7, 8, 52]]


@pytest.mark.parametrize(("keep", "read"), [
    ("head", [0, 1, 2, 3, 4, 5, 6, 7]), ("tail", [12, 13, 14, 15, 16, 17, 18, 19]), ("both", [0, 1, *range(14, 20)]),
])  # fmt: skip
def test_of_a_long_document_its_head_its_tail_or_a_quarter_of_the_head_is_read(keep: str, read: list[int]) -> None:
    reading = ReadingConfig(keep=keep)  # type: ignore[arg-type]
    assert reading.cut(list(range(20)), 8) == read
    assert reading.cut(list(range(8)), 8) == list(range(8))
    assert reading.cut(list(range(20)), None) == list(range(20))


@pytest.mark.parametrize(("lengths", "room", "read"), [
    ((2, 10), 8, (2, 6)), ((10, 2), 8, (6, 2)), ((10, 10), 8, (4, 4)), ((10, 10), 9, (4, 5)), ((1, 1), 8, (1, 1)),
    ((9, 1, 5), 9, (4, 1, 4)),
])  # fmt: skip
def test_of_several_texts_the_longest_are_cut_first(lengths: tuple[int, ...], room: int, read: tuple[int, ...]) -> None:
    parts = [list(range(length)) for length in lengths]
    assert tuple(map(len, ReadingConfig().cut_together(parts, room))) == read


def test_room_is_what_the_shorter_limit_leaves_beside_the_markers() -> None:
    assert ReadingConfig().room(512, 2) == 510
    assert ReadingConfig(longest=128).room(512, 2) == 126
    assert ReadingConfig(longest=128).room(None, 0) == 128
    assert ReadingConfig().room(None, 2) is None
    with pytest.raises(RllabError, match="Inputs of 4 tokens leave no room for text beside 3 markers"):
        ReadingConfig(longest=4).room(512, 3, parts=2)
    with pytest.raises(RllabError, match="Inputs of 2 tokens"):
        Transformation.of(GPTClassifierConfig(GPTConfig(50, 8, 1, 1, 4), reading=ReadingConfig(longest=2)))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(RllabError, match="longest must be 0 or more"):
        ReadingConfig(longest=-1)
    with pytest.raises(RllabError, match="keep must be head, tail, both, not 'middle'"):
        ReadingConfig(keep="middle")  # type: ignore[arg-type]
    for wrong in (["a"], ["a", "b", "a"]):
        with pytest.raises(RllabError, match="two different classes"):
            checked_classes(wrong)
