"""Exports give back every bit; imports take all or nothing."""

import base64
import dataclasses
import json
import shutil
import sys
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from store_makers import TASK, fill, identifier, make_clip, say

from envs.errors import RllabError
from preference import schema
from preference.comparisons import Clip, Label, Pair
from preference.exchange import Format, Imported, export_store, import_into
from preference.store import Store, Task

FORMATS: list[Format] = ["jsonl", "parquet", "minari"]


@pytest.fixture
def new_store(tmp_path: Path) -> Iterator[Callable[[], Store]]:
    made: list[Store] = []

    def make(task: Task = TASK) -> Store:
        made.append(Store.open(tmp_path / f"store{len(made)}.db", task, clock=lambda: 100.0))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def full(new_store: Callable[[], Store]) -> Store:
    """A store with everything in it: ties, skips, changes of mind, undone answers, withdrawn and unanswered pairs."""
    store = new_store()
    first, second, third, fourth, fifth = fill(store, 5, priority=1 / 3, strategy="entropy", details={"spread": 0.1})
    lonely = make_clip(50)
    odd = np.array([[np.nan, -0.0, np.inf, 1e-45]] * 5, np.float32)
    store.add_clips(
        [
            dataclasses.replace(lonely, arrays={**lonely.arrays, "observations": odd, "next_observations": odd[::-1]}),
            make_clip(51, length=1, rewards=False),
            dataclasses.replace(
                make_clip(52), arrays={**make_clip(52).arrays, "valid": np.array([True] * 4 + [False])}
            ),
        ]
    )
    chained = make_clip(53).arrays
    following = np.concatenate([chained["observations"][1:], odd[:1]])
    store.add_clips([dataclasses.replace(make_clip(53), arrays={**chained, "next_observations": following})])
    store.ask([Pair(identifier(9000), identifier(50), identifier(51), details={"wanted": 2}, created=1e9 + 1 / 3)])
    one = say(second, Label.SKIP, seconds=1 / 3, swapped=True)
    store.answer([one, say(first, annotator="bób"), say(third, Label.TIE)])
    store.answer(say(second, Label.SECOND, supersedes=one.id, late=True))
    store.ask([Pair(identifier(9001), identifier(1), identifier(2), details={"reserved": "ann"}, created=2e9)])
    store.answer([say(fourth)])
    store.undo("ann")
    store.withdraw([fifth.id])
    store.set_sheet(identifier(1), bytes(range(256)), {"columns": 5})
    return store


def everything(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of all tables but their numbers, in order."""
    tables = {
        "clips": ("id", schema.clips), "sheets": ("clip", schema.sheets), "pairs": ("number", schema.pairs),
        "answers": ("number", schema.answers),
    }  # fmt: skip
    with store.database.read() as connection:
        return {
            name: [
                tuple(row)
                for row in connection.execute(
                    select(*(column for column in table.c if column.name not in ("number", "arrays"))).order_by(
                        table.c[order]
                    )
                )
            ]
            for name, (order, table) in tables.items()
        }


def arrays(store: Store) -> dict[uuid.UUID, dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """Every array of every clip: its type, shape and bits."""
    with store.database.read() as connection:
        ids = connection.scalars(select(schema.clips.c.id)).all()
    return {
        clip.id: {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in clip.arrays.items()}
        for clip in store.clips(ids)
    }


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_exported_and_moved_comes_back_bit_for_bit(
    full: Store, new_store: Callable[[], Store], tmp_path: Path, format: Format
) -> None:
    export_store(full, tmp_path / "export", format)
    (tmp_path / "export").rename(tmp_path / "moved")
    other = new_store()
    assert import_into(other, tmp_path / "moved") == Imported(clips=14, pairs=7, answers=6)
    assert everything(other) == everything(full)
    assert arrays(other) == arrays(full)
    assert other.open_pairs() == full.open_pairs()
    assert other.comparisons().added == full.comparisons().added


@pytest.mark.parametrize("format", FORMATS)
def test_importing_twice_changes_nothing(full: Store, tmp_path: Path, format: Format) -> None:
    before = everything(full)
    export_store(full, tmp_path / "export", format)
    for _ in range(2):
        assert import_into(full, tmp_path / "export") == Imported(0, 0, 0)
    assert everything(full) == before


def test_two_people_label_copies_and_both_are_merged(
    full: Store, new_store: Callable[[], Store], tmp_path: Path
) -> None:
    export_store(full, tmp_path / "questions")
    copy = new_store()
    import_into(copy, tmp_path / "questions")
    pair = copy.open_pairs()[0]
    copy.answer(say(pair, annotator="cleo"))
    full.answer(say(pair, annotator="dora"))
    export_store(copy, tmp_path / "answered")
    assert import_into(full, tmp_path / "answered") == Imported(0, 0, 1)
    assert {"cleo", "dora"} <= set(full.progress().by_annotator)


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_texts_come_back_as_they_were(new_store: Callable[..., Store], tmp_path: Path, format: Format) -> None:
    task = Task("", "texts", question="Which is **kinder**?")
    store, other = new_store(task), new_store(task)
    texts = [Clip(identifier(n), {}, details={"prompt": "½\n\0", "response": f"\ud800 {n}"}) for n in (1, 2)]
    store.add_clips(texts)
    store.ask([Pair(identifier(3), identifier(1), identifier(2))])
    export_store(store, tmp_path / "export", format)
    import_into(other, tmp_path / "export")
    assert other.clips([identifier(1), identifier(2)]) == texts


def test_texts_are_no_minari_dataset(new_store: Callable[..., Store], tmp_path: Path) -> None:
    with pytest.raises(RllabError, match="Minari keeps trajectories"):
        export_store(new_store(Task("", "texts")), tmp_path / "export", "minari")
    assert not (tmp_path / "export").exists()


def test_a_line_is_legible_without_this_library(full: Store, tmp_path: Path) -> None:
    export_store(full, tmp_path / "export.jsonl")
    header, line, *_ = (json.loads(line) for line in (tmp_path / "export.jsonl").read_text().splitlines())
    assert header["format"] == "rllab comparisons"
    assert header["task"]["environment"] == "CartPole-v1"
    assert line["answers"][0]["label"] == "first"
    assert line["answers"][0]["annotator"] == "bób"
    stored = line["first"]["arrays"]["observations"]
    content = zlib.decompress(base64.b64decode(stored["zlib_base64"]))
    observations = np.frombuffer(content, stored["dtype"]).reshape(stored["shape"])
    assert np.array_equal(observations, make_clip(1).arrays["observations"])


def test_minari_itself_reads_the_episodes(full: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    export_store(full, tmp_path / "comparisons-v3", "minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    dataset = minari.load_dataset("comparisons-v3")
    assert dataset.total_episodes == 14
    assert dataset.env_spec.id == "CartPole-v1"
    episodes = {data["clip"]: data["id"] for data in dataset.storage.get_episode_metadata(range(14))}
    episode = dataset[int(episodes[str(identifier(1))])]
    clip = make_clip(1)
    assert np.array_equal(episode.observations[:-1], clip.arrays["observations"])
    assert np.array_equal(episode.rewards, clip.arrays["rewards"])
    assert not episode.terminations.any()


def test_frames_come_back_from_minari_without_loss(new_store: Callable[..., Store], tmp_path: Path) -> None:
    task = Task("Frames-v0", "clips", {"shape": [64, 48, 3], "dtype": "uint8"}, {"shape": [], "dtype": "int64", "n": 2})
    store, other = new_store(task), new_store(task)
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 48, 3), np.uint8)
    store.add_clips([Clip(identifier(1), {"observations": frames, "actions": np.array([0, 1, 1])})])
    export_store(store, tmp_path / "export", "minari")
    import_into(other, tmp_path / "export")
    assert np.array_equal(other.clips([identifier(1)])[0].arrays["observations"], frames)


def mangled(lines: list[dict[str, Any]], change: str) -> str:
    """The lines with one thing wrong in the fourth."""
    line = lines[3]
    answer = line["answers"][0]
    if change == "cut":
        return "\n".join([*map(json.dumps, lines[:3]), json.dumps(line)[:-20]])
    if change == "label":
        answer["label"] = "better"
    elif change == "id":
        line["pair"]["id"] = "seven"
    elif change == "time":
        answer["created"] = "yesterday"
    elif change == "nan":
        answer["created"] = float("nan")
    elif change == "array":
        line["first"]["arrays"]["observations"]["shape"] = [3, 4]
    elif change == "shape":
        line["first"]["arrays"]["observations"] = {"dtype": "float32", "values": [[1.0, 2.0]] * 5}
    elif change == "mixed up":
        line["first"], line["second"] = line["second"], line["first"]
    elif change == "clip":
        line["first"]["arrays"] = line["second"]["arrays"]
        lines.append({"clip": {**line["first"], "arrays": lines[1]["first"]["arrays"]}})
    elif change == "twice":
        line["answers"].append({**answer, "id": str(uuid.uuid4())})
    elif change == "list":
        lines[3] = []  # type: ignore[call-overload]
    elif change == "missing":
        del line["pair"]["first"]
    return "\n".join(map(json.dumps, lines))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("cut", "line 4: it is not JSON"),
        ("label", "line 4: 'better' is not a label: use first, second, tie, skip"),
        ("id", "line 4: its `id` is not a UUID: 'seven'"),
        ("time", "line 4: its `created` cannot be 'yesterday'"),
        ("nan", "line 4: it is not JSON .*NaN"),
        ("array", "line 4: an array is damaged"),
        (
            "shape",
            r"line 4: The clip .* does not fit the task: its observations have the shape \[2\] a step, not \[4\]",
        ),
        ("mixed up", "line 4: its first clip has another id than its pair says"),
        ("clip", r"line \d+: the id .* stood for another clip before"),
        ("twice", "line 4: 'ann' has answered the pair .* already"),
        ("list", "line 4: it is neither a comparison"),
        ("missing", "line 4: it has no `first`"),
    ],
)
def test_a_wrong_line_is_given_by_its_number_and_nothing_is_imported(
    full: Store, new_store: Callable[[], Store], tmp_path: Path, change: str, sentence: str
) -> None:
    path = tmp_path / "export.jsonl"
    export_store(full, path)
    path.write_text(mangled([json.loads(line) for line in path.read_text().splitlines()], change))
    other = new_store()
    with pytest.raises(RllabError, match=rf"export\.jsonl, {sentence}.*; nothing was imported\.$"):
        import_into(other, path)
    assert not any(everything(other).values())


def test_a_file_made_by_hand_needs_no_more_than_clips_a_pair_and_a_label(
    new_store: Callable[[], Store], tmp_path: Path
) -> None:
    def clip(number: int) -> dict[str, Any]:
        values = {"observations": {"dtype": "float32", "values": [[0.5, 0, 0, number]]}}
        values["actions"] = {"dtype": "int64", "values": [1]}
        return {"id": str(identifier(number)), "created": 0, "arrays": values}

    pair = {"id": str(identifier(3)), "first": str(identifier(1)), "second": str(identifier(2)), "created": 0}
    answer = {"id": str(identifier(4)), "annotator": "me", "label": "second", "created": 0}
    line = {"pair": pair, "first": clip(1), "second": clip(2), "answers": [answer]}
    task = json.loads(TASK.to_json())
    path = tmp_path / "by-hand.jsonl"
    path.write_text(json.dumps({"format": "rllab comparisons", "version": 1, "task": task}) + "\n" + json.dumps(line))
    store = new_store()
    assert import_into(store, path) == Imported(2, 1, 1)
    assert store.comparisons().added[0].preference == 0.0


def test_an_answer_that_contradicts_the_store_is_refused(full: Store, tmp_path: Path) -> None:
    path = tmp_path / "export.jsonl"
    export_store(full, path)
    path.write_text(path.read_text().replace('"label": "tie"', '"label": "first"'))
    before = everything(full)
    with pytest.raises(RllabError, match="line 4: .* on record with other content"):
        import_into(full, path)
    assert everything(full) == before


def test_comparisons_of_another_task_are_refused(full: Store, new_store: Callable[..., Store], tmp_path: Path) -> None:
    export_store(full, tmp_path / "export.jsonl")
    other = new_store(dataclasses.replace(TASK, environment="Acrobot-v1"))
    with pytest.raises(RllabError, match=r"of another task.*environment 'Acrobot-v1', not of 'CartPole-v1'"):
        import_into(other, tmp_path / "export.jsonl")


def test_what_is_no_export_is_refused(full: Store, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "notes.jsonl").write_text('{"format": "recipes"}\n')
    (tmp_path / "folder").mkdir()
    for name, sentence in [
        ("nothing", "There is nothing at"),
        ("empty.jsonl", "is empty"),
        ("notes.jsonl", "line 1: it does not begin as an export"),
        ("folder", "is no export"),
    ]:
        with pytest.raises(RllabError, match=sentence):
            import_into(full, tmp_path / name)


def test_damaged_tables_and_tables_of_different_exports_are_refused(
    full: Store, new_store: Callable[..., Store], tmp_path: Path
) -> None:
    export_store(full, tmp_path / "export", "parquet")
    export_store(new_store(dataclasses.replace(TASK, question="Other?")), tmp_path / "other", "parquet")
    shutil.copytree(tmp_path / "export", tmp_path / "mixed")
    shutil.copy(tmp_path / "other" / "pairs.parquet", tmp_path / "mixed")
    (tmp_path / "export" / "pairs.parquet").write_bytes(b"PAR1 rubbish PAR1")
    store = new_store()
    for name, sentence in [("export", r"pairs\.parquet could not be read"), ("mixed", "from different exports")]:
        with pytest.raises(RllabError, match=sentence):
            import_into(store, tmp_path / name)
    assert not any(everything(store).values())


def test_a_damaged_dataset_is_refused(full: Store, new_store: Callable[..., Store], tmp_path: Path) -> None:
    export_store(full, tmp_path / "export", "minari")
    (tmp_path / "export" / "data" / "main_data.hdf5").write_bytes(b"rubbish")
    with pytest.raises(RllabError, match="no Minari dataset that can be read"):
        import_into(new_store(), tmp_path / "export")


def test_an_export_never_replaces_anything(full: Store, tmp_path: Path) -> None:
    (tmp_path / "export").write_text("precious")
    with pytest.raises(RllabError, match="is there already"):
        export_store(full, tmp_path / "export")
    assert (tmp_path / "export").read_text() == "precious"
    with pytest.raises(RllabError, match="no format 'csv'"):
        export_store(full, tmp_path / "new", "csv")  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.glob("*export*")) == ["export"]


@pytest.mark.parametrize(("format", "library"), [("parquet", "pyarrow"), ("minari", "minari")])
def test_a_library_that_is_missing_is_named_with_its_remedy(
    full: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Format, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(RllabError, match=r"pip install rllab\[exchange\]"):
        export_store(full, tmp_path / "export", format)
