"""Files of preferences in the field's formats, what is wrong with them, splits by prompt, and chat templates."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.errors import RllabError
from language.preferences.chat import ChatTemplate
from language.preferences.data import (
    Demonstration,
    TextComparison,
    TextsConfig,
    folds_by_prompt,
    prompt_key,
    read_comparisons,
    read_demonstrations,
    read_prompt_texts,
    split_by_prompt,
)
from language.preferences.formats import comparison_of, demonstrations_of, split_texts

TEMPLATE = ChatTemplate()
USER = {"role": "user", "content": "Why?"}
GOOD, BAD = {"role": "assistant", "content": "So."}, {"role": "assistant", "content": "No."}
CHAT = TextComparison("user: Why?\nassistant:", " So.", " No.", 1.0)
PLAIN = TextComparison("Why?", " So.", " No.", 1.0)


@pytest.mark.parametrize(
    ("record", "meant"),
    [
        ({"prompt": "Why?", "chosen": " So.", "rejected": " No."}, PLAIN),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, CHAT),
        ({"prompt": [USER], "chosen": "So.", "rejected": "No."}, CHAT),
        ({"prompt": "Why?", "chosen": [GOOD], "rejected": [BAD]}, CHAT),
        ({"prompt": "Why?", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, CHAT),
        ({"prompt": [USER], "chosen": [USER, GOOD], "rejected": [USER, BAD]}, CHAT),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, CHAT),
        ({"chosen": "Why? So.", "rejected": "Why? No."}, PLAIN),
        (
            {"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
            TextComparison("\n\nHuman: Why?\n\nAssistant:", " So.", " No.", 1.0),
        ),
        ({"prompt": "Why?", "response_0": " So.", "response_1": " No.", "choice": 0}, PLAIN),
        ({"prompt": "Why?", "response_0": " So.", "response_1": " No.", "choice": "response_0"}, PLAIN),
        ({"prompt": "Why?", "response_0": " So.", "response_1": " No.", "better_response_id": "0"}, PLAIN),
        ({"prompt": "Why?", "response_a": " So.", "response_b": " No.", "winner": "A"}, PLAIN),
        ({"prompt": "Why?", "response1": " So.", "response2": " No.", "choice": 1.0}, PLAIN),
        ({"instruction": "Why?", "input": "", "response1": "So.", "response2": "No.", "annotator1": 1}, CHAT),
    ],
)
def test_each_format_says_the_same_comparison(record: dict[str, Any], meant: TextComparison) -> None:
    assert comparison_of(record, TEMPLATE) == meant


@pytest.mark.parametrize(
    ("answer", "mu"),
    [
        ({"choice": 1}, 0.0),
        ({"choice": "tie"}, 0.5),
        ({"choice": 0.5}, 0.5),
        ({"votes": [0, 0, 1]}, 2 / 3),
        ({"votes": ["response_1", "tie"]}, 0.25),
    ],
)
def test_answers_become_the_preference_for_the_first_response(answer: dict[str, Any], mu: float) -> None:
    record = {"prompt": "p", "response_0": "a", "response_1": "b", **answer}
    assert comparison_of(record, TEMPLATE).mu == pytest.approx(mu)


@pytest.mark.parametrize(
    ("votes", "mu"), [((1, 1, 2), 2 / 3), ((0, 0, 0), 0.5), ((2, 0, 2), 1 / 6), ((1, 0, 0), 2 / 3)]
)
def test_pandalm_s_votes_are_1_2_or_0_for_a_tie_and_their_mean_is_the_preference(
    votes: tuple[int, ...], mu: float
) -> None:
    annotators = {f"annotator{number}": vote for number, vote in enumerate(votes, 1)}
    record = {"instruction": "Mend.", "input": "It are.", "response1": "It is.", "response2": "It be.", **annotators}
    found = comparison_of(record, TEMPLATE)
    assert found.mu == pytest.approx(mu)
    assert found.prompt == "user: Mend.\n\nIt are.\nassistant:"


def test_the_common_beginning_ends_at_the_last_turn_of_the_assistant_that_both_have() -> None:
    start = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Which?\n\nAssistant:"
    assert split_texts(f"{start} The red one.", f"{start} The blue one.") == (start, " The red one.", " The blue one.")


@pytest.mark.parametrize(
    ("chosen", "rejected", "parts"),
    [
        ("the film was good", "the film was goofy", ("the film was", " good", " goofy")),
        ("the film was good", "the film was good indeed", ("the film was", " good", " good indeed")),
        ("the film ran", "the film was", ("the film", " ran", " was")),
        ("good", "bad", ("", "good", "bad")),
    ],
)
def test_texts_without_turns_are_parted_before_the_word_in_which_they_differ(
    chosen: str, rejected: str, parts: tuple[str, str, str]
) -> None:
    assert split_texts(chosen, rejected) == parts


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"prompt": "p", "chosen": " ", "rejected": "b"}, "chosen response is empty"),
        ({"prompt": "p", "response_0": "a", "response_1": "", "choice": 0}, "second response is empty"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "both responses are the same"),
        ({"chosen": [USER, GOOD], "rejected": [GOOD, BAD]}, "prompts of chosen and rejected differ"),
        ({"prompt": [USER], "chosen": [GOOD, GOOD], "rejected": [BAD]}, "prompts differ"),
        ({"prompt": "Who?", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "prompts differ"),
        (
            {"chosen": "\n\nHuman: A\n\nAssistant: x", "rejected": "\n\nHuman: B\n\nAssistant: x"},
            "prompts of chosen and rejected differ",
        ),
        ({"question": "p", "answer": "a"}, "no format of preferences: prompt/chosen/rejected"),
        ({"prompt": "p", "response_0": "a", "response_1": "b"}, "no answer is in it"),
        ({"prompt": "p", "response_0": "a", "response_1": "b", "choice": 7}, "the answer 7 is none of 0, 1 and tie"),
        ({"response_0": "a", "response_1": "b", "choice": 0}, "no prompt"),
        ({"prompt": "p", "chosen": "a", "rejected": [BAD]}, "both be texts"),
        ({"prompt": "p", "chosen": [{"content": "a"}], "rejected": [BAD]}, "a message is"),
    ],
)
def test_what_is_wrong_with_a_record_is_said_with_its_number(
    record: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "pairs.jsonl"
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    path.write_text("".join(json.dumps(each) + "\n" for each in (good, record, record, good)))
    with pytest.raises(RllabError, match=words) as error:
        read_comparisons(TextsConfig((str(path),)))
    assert str(error.value).startswith(f"Record 2 of {path} is of no use: ")
    found = read_comparisons(TextsConfig((str(path),), faulty="drop"))
    assert (len(found.items), found.dropped) == (2, 2)
    assert found.first_fault is not None
    assert "Record 2" in found.first_fault


def test_all_kinds_of_files_hold_the_same_records(tmp_path: Path) -> None:
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    records = [{"prompt": "Why?", "chosen": f" So {n}.", "rejected": " No."} for n in range(3)]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.json").write_text(json.dumps(records))
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(json.dumps(records).encode()))
    (tmp_path / "d.csv").write_text("prompt,chosen,rejected\n" + "".join(f"Why?, So {n}., No.\n" for n in range(3)))
    parquet.write_table(arrow.Table.from_pylist(records), tmp_path / "e.parquet")
    read = [read_comparisons(TextsConfig((str(path),))).items for path in sorted(tmp_path.iterdir())]
    assert len(read) == 5
    assert all(items == read[0] and len(items) == 3 for items in read)
    both = read_comparisons(TextsConfig((str(tmp_path / "a.jsonl"), str(tmp_path / "b.json"))))
    assert len(both.items) == 6


def test_parquet_s_lists_of_messages_are_conversations(tmp_path: Path) -> None:
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.Table.from_pylist([{"chosen": [USER, GOOD], "rejected": [USER, BAD]}]), path)
    assert read_comparisons(TextsConfig((str(path),))).items == [CHAT]


def test_a_local_copy_of_a_data_set_of_the_hub_is_read(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "train.jsonl").write_text(json.dumps({"prompt": "Why?", "chosen": " So.", "rejected": " No."}) + "\n")
    assert read_comparisons(TextsConfig((f"hub:{tmp_path}",))).items == [PLAIN]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "[1]", "not a list of JSON objects"),
        ("a.json", "{", "is not JSON"),
        ("a.jsonl", "", "There is no comparison"),
        ("a.txt", "some text", "has no records"),
    ],
)
def test_files_that_hold_no_records_are_refused_with_a_sentence(
    name: str, content: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(RllabError, match=words):
        read_comparisons(TextsConfig((str(tmp_path / name),)))
    with pytest.raises(RllabError, match="There is no file"):
        read_comparisons(TextsConfig((str(tmp_path / "none.jsonl"),)))
    with pytest.raises(RllabError, match="names no data set"):
        read_comparisons(TextsConfig(("hub:nobody",)))


@pytest.mark.parametrize(
    ("record", "meant"),
    [
        ({"prompt": "Why?", "completion": " So."}, [Demonstration("Why?", " So.")]),
        ({"prompt": [USER], "completion": [GOOD]}, [Demonstration(CHAT.prompt, " So.")]),
        ({"instruction": "Why?", "output": "So."}, [Demonstration(CHAT.prompt, " So.")]),
        ({"text": "A text."}, [Demonstration("", "A text.")]),
        ({"prompt": "Why?", "chosen": " So.", "rejected": " No."}, [Demonstration("Why?", " So.")]),
        (
            {"prompt": "Why?", "response_0": " So.", "response_1": " No.", "choice": 1},
            [Demonstration("Why?", " No.")],
        ),
        (
            {"messages": [USER, GOOD, USER, BAD]},
            [
                Demonstration("user: Why?\nassistant:", " So."),
                Demonstration("user: Why?\nassistant: So.\nuser: Why?\nassistant:", " No."),
            ],
        ),
    ],
)
def test_what_is_to_be_written_is_read_from_each_format(record: dict[str, Any], meant: list[Demonstration]) -> None:
    assert demonstrations_of(record, TEMPLATE) == meant


def test_prompts_are_read_from_comparisons_of_every_kind_and_from_lines(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Why?", "chosen": " So.", "rejected": " No."},
        {"chosen": "Why? So.", "rejected": "Why? No."},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"instruction": "Why?", "output": "So."},
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "b.txt").write_text("How?\nWhy?\n")
    found = read_prompt_texts(TextsConfig((str(tmp_path / "a.json"), str(tmp_path / "b.txt"))))
    assert found.items == ["Why?", "Why?", CHAT.prompt, CHAT.prompt, "How?", "Why?"]
    (tmp_path / "c.json").write_text(json.dumps([{"question": "a"}, {"prompt": "b"}]))
    with pytest.raises(RllabError, match="Record 2 of .* no text under 'question'"):
        read_prompt_texts(TextsConfig((str(tmp_path / "c.json"),)), "question")


def test_lines_of_a_plain_file_are_texts_to_learn(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    found = read_demonstrations(TextsConfig((str(tmp_path / "a.txt"),)))
    assert found.items == [Demonstration("", "one"), Demonstration("", "two")]


@pytest.mark.parametrize("record", [{"messages": [USER]}, {"prompt": "p"}, {"prompt": "p", "completion": ""}])
def test_records_without_anything_to_write_are_refused(record: dict[str, Any]) -> None:
    with pytest.raises(RllabError):
        demonstrations_of(record, TEMPLATE)


@pytest.mark.parametrize("turn", ["{role}: {content}\n", "<|{role}|>\\n{content}<|end|>\\n", "[{role}]   {content}"])
def test_prompt_and_answer_together_are_the_beginning_of_the_longer_conversation(turn: str) -> None:
    template = ChatTemplate(turn)
    prompt = template.prompt([USER])
    assert not prompt.endswith(" ")
    whole = template.prompt([USER, GOOD, USER])
    assert whole.startswith(prompt + template.answer("So."))


@pytest.mark.parametrize("turn", ["{role}", "{content}", "{content} {role}", "{role}{role}{content}"])
def test_a_template_without_both_parts_in_order_is_refused(turn: str) -> None:
    with pytest.raises(RllabError, match="chat template"):
        ChatTemplate(turn)


def test_all_items_of_a_prompt_are_in_one_fold_and_folds_are_about_equally_large() -> None:
    keys = [f"prompt {number // 3}" for number in range(60)]
    folds = folds_by_prompt(keys, 4, seed=1)
    assert all(len({int(folds[place]) for place in range(60) if keys[place] == key}) == 1 for key in keys)
    assert np.bincount(folds).tolist() == [15, 15, 15, 15]
    assert (folds == folds_by_prompt(keys, 4, seed=1)).all()
    assert (folds != folds_by_prompt(keys, 4, seed=2)).any()
    held_out = split_by_prompt(keys, 0.1)
    assert held_out.sum() == 6


def test_items_of_one_prompt_alone_cannot_be_held_out_but_those_of_none_can() -> None:
    with pytest.raises(RllabError, match="the same prompt"):
        split_by_prompt(["p"] * 5, 0.2)
    keys = [prompt_key(TextComparison("", f"text {number}", "other", 1.0)) for number in range(10)]
    assert split_by_prompt(keys, 0.2).sum() == 2
    assert prompt_key(TextComparison("", "a", "b", 1.0)) == prompt_key(TextComparison("", "b", "a", 0.0))
