"""`rllab language embed`: vectors of texts by each kind of model, a word's senses by ELMo, files and refusals."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from envs.errors import RllabError
from language.cli.embed import command
from language.models.awd_lstm import AWDLSTM, AWDLSTMConfig
from language.models.contextual_vectors import contextual_vectors
from language.models.elmo import ELMo, ELMoConfig, ELMoLanguageModel
from language.models.folder import load_model, save_model
from language.models.gpt import GPT, GPTConfig
from language.tasks.vectors import vectors
from language.tasks.word_uses import nearest_pairs, text_vectors, uses_of
from language.tokenizers.byte_bpe import ByteLevelBPE, ByteLevelBPEConfig
from language.tokenizers.tokenizer import Tokenizer
from language.training.word_modelling import train_words

SENTENCES = ["the bank of the river", "Bank robbers took gold", "a film", "no bank is a bank"]


def pieces() -> Tokenizer:
    return ByteLevelBPE.train(SENTENCES, ByteLevelBPEConfig(270))


def elmo() -> tuple[ELMoLanguageModel, Tokenizer]:
    torch.manual_seed(0)
    tokenizer = train_words([f"{text} {number}" for text in SENTENCES for number in range(20)], 40)
    config = ELMoConfig(
        len(tokenizer), character_width=4, characters_a_word=12, filters=((1, 4), (2, 4)), highways=1, width=4,
        lstm_width=6,
    )  # fmt: skip
    return ELMoLanguageModel(config).eval(), tokenizer


def awd_lstm(size: int, backward: bool = False) -> AWDLSTM:
    torch.manual_seed(0)
    return AWDLSTM(AWDLSTMConfig(size, 6, 2, 8, backward=backward)).eval()


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert command(arguments) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_texts_become_json_lines_a_file_or_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = pieces()
    torch.manual_seed(0)
    save_model(tmp_path, GPT(GPTConfig(len(tokenizer), 32, 1, 2, 8)), tokenizer)
    rows = printed([str(tmp_path), *SENTENCES, "--pooling", "last"], capsys)
    assert [row["text"] for row in rows] == SENTENCES
    model, tokenizer = load_model(tmp_path)
    expected = vectors(model, tokenizer, SENTENCES, "last")
    np.testing.assert_allclose([row["vector"] for row in rows], expected, atol=1e-6)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(SENTENCES) + "\n"))
    assert printed([str(tmp_path), "--pooling", "last"], capsys) == rows
    out = tmp_path / "folder" / "vectors"
    assert command([str(tmp_path), *SENTENCES, "--out", str(out), "--pooling", "last"]) == 0
    np.testing.assert_array_equal(np.load(out), expected)
    assert "4, of 8 numbers each" in capsys.readouterr().out
    assert command([str(tmp_path), *SENTENCES, "a film", "--nearest", "--count", "1"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "1.0000" in line]
    assert line.count("a film") == 2


@pytest.mark.parametrize("backward", [False, True])
def test_an_awd_lstms_vector_is_its_last_layer_of_the_text_alone(backward: bool) -> None:
    tokenizer = pieces()
    model = awd_lstm(len(tokenizer), backward)
    for pooling in ("mean", "first" if backward else "last"):
        found = vectors(model, tokenizer, SENTENCES, pooling)
        for text, vector in zip(SENTENCES, found, strict=True):
            ids = tokenizer.ids(text)
            with torch.no_grad():
                read = torch.tensor([ids[::-1] if backward else ids])
                outputs = model.encoder(read).raw_outputs[-1][0]
            # A backward model has seen the whole text when it has read the first token, the last that it reads.
            expected = outputs.mean(0) if pooling == "mean" else outputs[-1]
            np.testing.assert_allclose(vector, expected.numpy(), atol=1e-6)


def test_an_elmos_vector_of_a_text_is_the_mean_of_its_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = elmo()
    save_model(tmp_path, model, tokenizer)
    words = contextual_vectors(model.encoder, [text.split() for text in SENTENCES], 1)
    expected = [found.mean(0).numpy() for found in words]
    np.testing.assert_allclose(text_vectors(model.encoder, tokenizer, SENTENCES, 1), expected, atol=1e-6)
    rows = printed([str(tmp_path), *SENTENCES, "--layer", "1"], capsys)
    np.testing.assert_allclose([row["vector"] for row in rows], expected, atol=1e-6)


def test_a_word_has_a_vector_wherever_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = elmo()
    save_model(tmp_path, model, tokenizer)
    rows = printed([str(tmp_path), *SENTENCES, "--word", "bank"], capsys)
    assert [(row["text"], row["place"]) for row in rows] == [
        (SENTENCES[0], 1), (SENTENCES[1], 0), (SENTENCES[3], 1), (SENTENCES[3], 4),
    ]  # fmt: skip
    alone = contextual_vectors(model.encoder, [SENTENCES[1].split()])[0][0]
    np.testing.assert_allclose(rows[1]["vector"], alone.numpy(), atol=1e-6)
    apart = [use.vector for use in uses_of(model.encoder, tokenizer, SENTENCES, "bank", 0)]
    np.testing.assert_allclose(apart[0], apart[2], atol=1e-6)  # by itself a word is the same everywhere
    assert command([str(tmp_path), *SENTENCES, "--word", "bank", "--nearest", "--layer", "0"]) == 0
    table = capsys.readouterr().out
    assert "1.0000  " in table
    assert "no bank is a [bank]" in table


def test_pairs_are_in_the_order_of_their_cosines() -> None:
    pairs = nearest_pairs(np.array([[1, 0], [0, 2], [3, 3], [5, 0]], np.float32), 4)
    assert [(pair.first, pair.second) for pair in pairs[:1]] == [(0, 3)]
    assert [round(pair.similarity, 4) for pair in pairs] == [1, 0.7071, 0.7071, 0.7071]
    assert {pair[1:] for pair in pairs[1:]} == {(0, 2), (1, 2), (2, 3)}


def test_what_has_no_vector_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = pieces()
    language_model, words = elmo()
    models: dict[str, tuple[nn.Module, Tokenizer]] = {
        "gpt": (GPT(GPTConfig(len(tokenizer), 32, 1, 2, 8)), tokenizer), "elmo": (language_model, words),
    }  # fmt: skip
    for name, (model, its_own) in models.items():
        save_model(tmp_path / name, model, its_own)
    gpt, encoder = str(tmp_path / "gpt"), str(tmp_path / "elmo")
    cases = {
        "needs an ELMo": [gpt, "a", "--word", "a"],
        "--layer is for an ELMo": [gpt, "a", "--layer", "0"],
        "'first' makes no sense": [gpt, "a", "--pooling", "first"],
        "'last' makes no sense for an ELMo": [encoder, "a", "--pooling", "last"],
        "No text has the word 'cat'": [encoder, "a", "--word", "cat"],
        "no layer 5": [encoder, "a", "--layer", "5"],
        "Text 2 has no words": [encoder, "a", ""],
        "needs two vectors": [gpt, "a", "--nearest"],
        "at least 1": [gpt, "a", "--count", "0"],
        "holds no trained model": [str(tmp_path), "a"],
        "no text; name one": [gpt],
    }
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    for said, arguments in cases.items():
        with pytest.raises(RllabError, match=said):
            command(arguments)
    with pytest.raises(RllabError, match="of the kind `word`"):
        text_vectors(ELMo(language_model.config), tokenizer, ["a"])
