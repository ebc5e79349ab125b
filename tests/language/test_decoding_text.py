"""Text from tokens: pieces that stay as they are, stop strings, and texts of batches."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from markov_chain import MarkovChain

from envs.errors import RllabError
from language.decoding import DecodingConfig, StopStrings, TextStream, generate, pad_left, stream
from language.tokenizers import (
    BPE,
    BPEConfig,
    ByteLevel,
    ByteLevelBPE,
    ByteLevelBPEConfig,
    ByteLevelConfig,
    CharacterLevel,
    CharacterLevelConfig,
    SentencePiece,
    SentencePieceConfig,
    SpecialTokens,
    Tokenizer,
    WordLevel,
    WordLevelConfig,
    WordPiece,
    WordPieceConfig,
)

SPECIAL = SpecialTokens(unknown="<unk>", end="<end>")
TEXTS = [
    "A film isn't better for being long, they say; the longest film of 1999 was no better.",
    "Größe, naïve café: 日本 and emoji 👩‍👧!  Two  spaces,\n a line.",
    "the the the film film films",
]
BYTES = ByteLevel(ByteLevelConfig(special=SPECIAL))
KINDS: list[Tokenizer] = [
    BYTES,
    WordLevel.train(TEXTS, WordLevelConfig(30, special=SPECIAL)),
    CharacterLevel.train(TEXTS, CharacterLevelConfig(45, special=SPECIAL)),
    BPE.train(TEXTS, BPEConfig(130, special=SPECIAL)),
    ByteLevelBPE.train(TEXTS, ByteLevelBPEConfig(290, special=SPECIAL)),
    WordPiece.train(TEXTS, WordPieceConfig(120, special=SPECIAL)),
    SentencePiece.train(TEXTS, SentencePieceConfig(400, model="bpe", byte_fallback=True)),
]
each_kind = pytest.mark.parametrize("tokenizer", KINDS, ids=lambda tokenizer: tokenizer.kind)


def repeating(ids: list[int], vocabulary: int) -> MarkovChain:
    """A model that goes from each id to the next; the ids are different, and the last one is repeated."""
    logits = torch.zeros(vocabulary, vocabulary)
    for before, after in zip(ids, [*ids[1:], ids[-1]], strict=True):
        logits[before, after] = 50
    return MarkovChain(logits)


@each_kind
@settings(deadline=None, max_examples=60)
@given(st.data())
def test_pieces_put_together_are_what_the_tokens_add_to_the_prompts_text(tokenizer: Tokenizer, data: Any) -> None:
    ids = st.lists(st.integers(0, len(tokenizer) - 1), max_size=120)
    prompt, tokens = data.draw(ids), data.draw(ids)
    text = TextStream(tokenizer, prompt)
    pieces = [text.push(token) for token in tokens]
    rest = text.finish()
    at_once = TextStream(tokenizer, prompt)
    assert "".join([*pieces, rest]) == at_once.push(*tokens) + at_once.finish()
    whole, begin = tokenizer.decode([*prompt, *tokens]), tokenizer.decode(prompt)
    if not begin.endswith("\ufffd"):
        assert begin + "".join([*pieces, rest]) == whole


@each_kind
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back_in_whole_characters(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.ids(text)
    parts = TextStream(tokenizer)
    pieces = [parts.push(token) for token in ids]
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) + parts.finish() == tokenizer.decode(ids)


def test_a_character_comes_when_its_last_byte_does_and_bytes_that_are_none_at_the_end() -> None:
    text = TextStream(BYTES, BYTES.ids("x"))
    assert [text.push(token) for token in BYTES.ids("é👩a")] == ["", "é", "", "", "", "👩", "a"]
    assert text.push(BYTES.ids("é")[0]) == ""
    assert text.push(*BYTES.ids("b")) == "\ufffdb"
    assert text.push(BYTES.ids("👩")[0]) == ""
    assert text.finish() == "\ufffd"


def test_a_prompt_may_end_within_a_character() -> None:
    first, second = BYTES.ids("é")
    text = TextStream(BYTES, [*BYTES.ids("caf"), first])
    assert text.push(second) == "é"


def test_word_pieces_go_on_with_the_prompts_word() -> None:
    tokenizer = KINDS[5]
    text = TextStream(tokenizer, tokenizer.ids("film"))
    inner = next(token for token in range(len(tokenizer)) if tokenizer.tokens[token].startswith("##"))
    assert text.push(inner) == tokenizer.tokens[inner].removeprefix("##")
    assert text.push(*tokenizer.ids("the")) == " the"


def test_only_a_few_tokens_are_decoded_again() -> None:
    class Counting:
        longest = 0

        def decode(self, ids: list[int]) -> str:
            self.longest = max(self.longest, len(ids))
            return BYTES.decode(ids)

    counting = Counting()
    text = TextStream(counting)  # type: ignore[arg-type]
    assert "".join(text.push(token) for token in BYTES.ids("naïve 👩 " * 200)) == "naïve 👩 " * 200
    assert counting.longest < 50


@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), st.data())
def test_stop_strings_cut_at_the_first_to_be_complete_in_whatever_pieces_the_text_comes(
    text: str, strings: list[str], data: Any
) -> None:
    stop = StopStrings(strings)
    found, place = "", 0
    while place < len(text):
        size = data.draw(st.integers(1, 5))
        found += stop.push(text[place : place + size])
        place += size
    found += stop.finish()
    ends = [(text.find(string) + len(string), text.find(string)) for string in strings if string in text]
    assert found == (text[: min(ends)[1]] if ends else text)
    assert stop.is_found == bool(ends)


def test_what_may_begin_a_stop_string_is_held_back() -> None:
    stop = StopStrings(["\n\n", "END"])
    assert [stop.push(piece) for piece in ("a", "\n", "b", "E", "N", "x", "EN", "D more")] == [
        "a", "", "\nb", "", "", "ENx", "", "",
    ]  # fmt: skip
    assert stop.is_found
    assert stop.finish() == ""


def test_a_stop_string_across_tokens_ends_the_row_and_is_cut_off() -> None:
    ids = BYTES.ids("abcdefgh")
    model = repeating(ids, len(BYTES))
    config = DecodingConfig(temperature=0, maximum_new_tokens=7, stop_strings=("def",))
    generated = generate(model, *pad_left([ids[:1], ids[:2], ids[6:7], ids[4:5]]), config, tokenizer=BYTES)
    assert generated.texts == ("bc", "c", "hhhhhhh", "fghhhhh")
    assert generated.valid.sum(-1).tolist() == [5, 4, 7, 7]
    assert generated.finished.tolist() == [True, True, False, False]


@pytest.mark.parametrize("stop_strings", [(), ("never",)])
def test_a_stop_token_is_no_part_of_the_text(stop_strings: tuple[str, ...]) -> None:
    ids = BYTES.ids("abcdefgh")
    model = repeating(ids, len(BYTES))
    config = DecodingConfig(
        temperature=0, maximum_new_tokens=5, stop_tokens=(ids[4],), stop_strings=stop_strings
    )  # fmt: skip
    generated = generate(model, *pad_left([ids[:1], ids[5:6]]), config, tokenizer=BYTES)
    assert generated.texts == ("bcd", "ghhhh")
    assert generated.tokens[0].tolist() == [*ids[1:5], 0]


@pytest.mark.parametrize("strings", [(), ("a", "the")])
def test_a_stream_gives_the_text_that_generate_gives(strings: tuple[str, ...]) -> None:
    tokenizer = KINDS[4]
    model = MarkovChain.random(len(tokenizer), seed=4)
    prompt = tokenizer.ids("the film")
    config = DecodingConfig(maximum_new_tokens=80, temperature=1.5, stop_tokens=(7, 8), stop_strings=strings)
    for seed in range(5):
        config = DecodingConfig(maximum_new_tokens=80, stop_tokens=(7, 8), stop_strings=strings, seed=seed)
        pieces = list(stream(model, tokenizer, prompt, config))
        assert all(pieces)
        assert ("".join(pieces),) == generate(model, *pad_left([prompt]), config, tokenizer=tokenizer).texts


def test_a_stream_comes_token_by_token() -> None:
    ids = BYTES.ids("abcdefgh")
    model = repeating(ids, len(BYTES))
    pieces = stream(model, BYTES, ids[:1], DecodingConfig(temperature=0, maximum_new_tokens=3))
    assert next(pieces) == "b"
    assert len(model.batches) == 1
    assert list(pieces) == ["c", "d"]


def test_beam_search_gives_texts_too_but_no_stream() -> None:
    ids = BYTES.ids("abcd")
    model = repeating(ids, len(BYTES))
    config = DecodingConfig(beams=2, maximum_new_tokens=3, stop_tokens=(ids[3],))
    assert generate(model, *pad_left([ids[:1], ids[1:2]]), config, tokenizer=BYTES).texts == ("bc", "c")
    with pytest.raises(RllabError, match="cannot be streamed"):
        stream(model, BYTES, ids, config)


def test_a_tokenizer_with_fewer_tokens_than_the_model_is_refused() -> None:
    with pytest.raises(RllabError, match="258 tokens and the model 300"):
        generate(MarkovChain.random(300), *pad_left([[1]]), tokenizer=BYTES)
