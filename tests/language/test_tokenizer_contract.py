"""What every kind of tokenizer keeps: offsets, special tokens, batches, files that others read, and refusals."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import RllabError
from language.tokenizers import (
    BPE,
    BPEConfig,
    ByteLevel,
    ByteLevelBPE,
    ByteLevelBPEConfig,
    ByteLevelConfig,
    CharacterLevel,
    CharacterLevelConfig,
    SpecialTokens,
    Tokenizer,
    WordLevel,
    WordLevelConfig,
    WordPiece,
    WordPieceConfig,
    load_tokenizer,
)  # fmt: skip
from language.tokenizers.files import KINDS as NAMES
from language.tokenizers.files import find_kind
from language.tokenizers.special import SpecialTokenMatcher

SPECIAL = SpecialTokens(unknown="<unk>", padding="<pad>", end="<end>", additional=("<end>>",))
TEXTS = [
    "A film isn't better for being long, they say; the longest film of 1999 was no better.",
    "Größe, naïve café: 日本 and emoji 👩‍👧!  Two  spaces,\n a line.",
    "the the the film film films",
]


def all_kinds() -> list[Tokenizer]:
    return [
        WordLevel.train(TEXTS, WordLevelConfig(30, special=SPECIAL)),
        CharacterLevel.train(TEXTS, CharacterLevelConfig(40, special=SPECIAL)),
        ByteLevel(ByteLevelConfig(special=SPECIAL)),
        BPE.train(TEXTS, BPEConfig(130, special=SPECIAL, normaliser="nfkd")),
        ByteLevelBPE.train(TEXTS, ByteLevelBPEConfig(290, special=SPECIAL)),
        WordPiece.train(TEXTS, WordPieceConfig(120, special=SPECIAL)),
    ]


KINDS = all_kinds()
each_kind = pytest.mark.parametrize("tokenizer", KINDS, ids=lambda tokenizer: tokenizer.kind)
TRICKY = [*TEXTS, "", " ", "a<end>b <end>><pad>", "<unk> unseen ẞ‽ words", "e\u0301\u0323 ﬁ ½", "x" * 300]


@each_kind
def test_special_tokens_have_the_first_ids_and_all_ids_are_without_gaps(tokenizer: Tokenizer) -> None:
    assert tokenizer.tokens[:4] == ["<pad>", "<unk>", "<end>", "<end>>"]
    assert [tokenizer.vocabulary[token] for token in tokenizer.tokens] == list(range(len(tokenizer)))


@each_kind
def test_the_quick_ways_give_the_same_ids_as_the_encoding(tokenizer: Tokenizer) -> None:
    expected = [tokenizer.encode(text).ids for text in TRICKY]
    assert [tokenizer.ids(text) for text in TRICKY] == expected
    assert tokenizer.encode_batch(TRICKY, engine="python") == expected


@each_kind
def test_hugging_face_loads_the_document_and_encodes_and_decodes_alike(tokenizer: Tokenizer) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    peer = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.to_huggingface()))
    assert peer.get_vocab() == tokenizer.vocabulary
    for text in TRICKY:
        ours, theirs = tokenizer.encode(text), peer.encode(text)
        assert (ours.ids, ours.tokens) == (theirs.ids, theirs.tokens)
        # In a normal form that reorders marks, ours cover all characters that they may come from.
        if tokenizer.settings().get("normaliser", "none") == "none":
            assert ours.offsets == theirs.offsets
        for keep in (False, True):
            assert tokenizer.decode(ours.ids, keep) == peer.decode(theirs.ids, skip_special_tokens=not keep)


@each_kind
def test_the_rust_engine_gives_the_same_ids(tokenizer: Tokenizer) -> None:
    pytest.importorskip("tokenizers")
    assert tokenizer.encode_batch(TRICKY, engine="rust") == tokenizer.encode_batch(TRICKY, engine="python")
    assert tokenizer.encode_batch(TRICKY) == tokenizer.encode_batch(TRICKY, engine="python")


@each_kind
def test_without_the_rust_engine_batches_are_encoded_here(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    monkeypatch.setattr("language.tokenizers.tokenizer.is_installed", lambda: False)
    fresh = type(tokenizer).restore(tokenizer.to_huggingface(), tokenizer.settings())
    assert fresh.encode_batch(TRICKY) == [tokenizer.ids(text) for text in TRICKY]
    with pytest.raises(RllabError, match="pip install tokenizers"):
        fresh.encode_batch(TRICKY, engine="rust")


@each_kind
@settings(deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_offsets_go_forward_inside_of_the_text_and_special_tokens_are_whole(tokenizer: Tokenizer, text: str) -> None:
    text = f"{text}<end>>{text}"
    encoding = tokenizer.encode(text)
    assert encoding.tokens == [tokenizer.tokens[token_id] for token_id in encoding.ids]
    assert encoding.offsets == sorted(encoding.offsets)
    assert all(0 <= start < end <= len(text) for start, end in encoding.offsets)
    assert (len(text) - len(text.split("<end>>")[-1]) - 6) in [start for start, _ in encoding.offsets]


@each_kind
def test_equal_texts_give_equal_vocabularies(tokenizer: Tokenizer) -> None:
    again = next(other for other in all_kinds() if other.kind == tokenizer.kind)
    assert again.to_huggingface() == tokenizer.to_huggingface()


@each_kind
def test_a_saved_tokenizer_is_the_same_when_loaded(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "new" / "folder")
    for load in (load_tokenizer, type(tokenizer).load):
        loaded = load(tmp_path / "new" / "folder")
        assert type(loaded) is type(tokenizer)
        assert loaded.special == SPECIAL
        assert loaded.settings() == tokenizer.settings()
        assert [loaded.encode(text) for text in TRICKY] == [tokenizer.encode(text) for text in TRICKY]
    tokenizers = pytest.importorskip("tokenizers")
    peer = tokenizers.Tokenizer.from_file(str(tmp_path / "new" / "folder" / "tokenizer.json"))
    assert peer.encode(TEXTS[0]).ids == tokenizer.ids(TEXTS[0])


@each_kind
def test_ids_that_are_not_there_are_refused(tokenizer: Tokenizer) -> None:
    for wrong in (-1, len(tokenizer)):
        with pytest.raises(RllabError, match=f"no token with the id {wrong}"):
            tokenizer.decode([0, wrong])


def test_texts_may_come_from_a_generator_that_is_read_once() -> None:
    assert BPE.train((text for text in TEXTS), BPEConfig(130)).vocabulary == BPE.train(TEXTS, BPEConfig(130)).vocabulary


def test_the_longest_of_the_special_tokens_that_begin_somewhere_is_found() -> None:
    matcher = SpecialTokenMatcher({"<a>": 0, "<a>b": 1, "a>": 2})
    assert list(matcher.split("<a>b<a>x")) == [(0, 4, 1), (4, 7, 0), (7, 8, None)]
    assert list(SpecialTokenMatcher({}).split("<a>")) == [(0, 3, None)]


def test_special_tokens_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(RllabError, match="'<s>' is given as a special token twice"):
        SpecialTokens(begin="<s>", end="<s>")
    with pytest.raises(RllabError, match="must not be empty"):
        SpecialTokens(begin="")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    KINDS[3].save(tmp_path)
    return tmp_path


def change(folder: Path, **fields: Any) -> None:
    path = folder / "rllab.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RllabError, match="There is no tokenizer in"):
        load_tokenizer(tmp_path)
    (tmp_path / "rllab.json").write_text('{"format": "something else"}')
    with pytest.raises(RllabError, match="does not describe a tokenizer"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_of_another_kind_is_refused(folder: Path) -> None:
    with pytest.raises(RllabError, match="of the kind 'bpe', not 'wordpiece'"):
        WordPiece.load(folder)
    change(folder, kind="dream")
    with pytest.raises(RllabError, match="unknown kind 'dream'"):
        load_tokenizer(folder)


def test_a_tokenizer_of_a_newer_version_is_refused(folder: Path) -> None:
    change(folder, version=2)
    with pytest.raises(RllabError, match=r"of version 2, newer than this rllab reads \(1\)"):
        load_tokenizer(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "rllab.json"])
def test_a_truncated_file_is_refused(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RllabError, match="cut off"):
        load_tokenizer(folder)


def test_damaged_settings_are_refused(folder: Path) -> None:
    change(folder, settings={"vocabulary_size": 3})
    with pytest.raises(RllabError, match="is damaged"):
        load_tokenizer(folder)
    path = folder / "rllab.json"
    path.write_text(json.dumps({"format": "rllab tokenizer", "version": 1, "kind": "bpe"}))
    with pytest.raises(RllabError, match="lacks settings and sha256"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(RllabError, match="lacks"):
        load_tokenizer(folder)


def test_a_folder_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RllabError, match="could not be written"):
        KINDS[0].save(tmp_path / "file")


def test_a_kind_that_is_not_there_gets_the_nearest_names() -> None:
    with pytest.raises(RllabError, match="no kind of tokenizer 'wordpeice'; did you mean wordpiece"):
        find_kind("wordpeice")


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_has_its_class_and_a_configuration_with_defaults(name: str) -> None:
    kind = find_kind(name)
    configuration = kind.configuration_class()(**kind.choices)
    assert issubclass(kind.tokenizer_class(), Tokenizer)
    assert isinstance(configuration.special, SpecialTokens)


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    BPE.train(["ab cd"] * 3000, BPEConfig(12), progress=lambda *step: told.append(step))
    assert told == [("counting words", 1000, 0), ("counting words", 2000, 0), ("counting words", 3000, 0)]


def test_configurations_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BPEConfig().vocabulary_size = 3  # type: ignore[misc]
