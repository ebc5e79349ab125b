"""WordPiece: its score by hand, and the encodings of Hugging Face `tokenizers`."""

import json
from pathlib import Path

import pytest

from envs.errors import RllabError
from language.tokenizers.special import NO_SPECIAL, UNKNOWN_ONLY, SpecialTokens
from language.tokenizers.wordpiece import WordPiece, WordPieceConfig

COUNTS = {"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}
CORPUS = [" ".join([word] * count) for word, count in COUNTS.items()]
BASE = 15  # the unknown token, seven letters, and the same letters inside of a word


def train(size: int, score: str, minimum_count: int = 1) -> list[str]:
    config = WordPieceConfig(size, score, minimum_count, special=UNKNOWN_ONLY)  # type: ignore[arg-type]
    return WordPiece.train(CORPUS, config).tokens[BASE:]


def test_the_score_prefers_parts_that_are_rare_alone() -> None:
    # freq: h 15, p 17, b 4, ##u 36, ##g 20, ##n 16, ##s 5. Scores: (##g, ##s) 5/(20·5) = 1/20; every other pair has all
    # occurrences of one part, such as (h, ##u) 15/(15·36), and so 1/36. After ##gs (5 times; ##g 15 are left) all have
    # 1/36: (##u, ##gs) is 5/(36·5). The smallest pair of ids is (b, ##u), then ##u occurs 32 times: 1/32 each.
    assert train(BASE + 1, "likelihood") == ["##gs"]
    assert train(BASE + 2, "likelihood") == ["##gs", "bu"]
    # Now (bu, ##n) 4/(4·16) = 1/16, (h, ##u) 15/(15·32) = 1/32, (p, ##u) 17/(17·32) = 1/32, (##u, ##gs) 5/(32·5) = 1/32.
    assert train(BASE + 3, "likelihood") == ["##gs", "bu", "bun"]


def test_by_counts_the_most_frequent_pair_is_merged() -> None:
    # (##u, ##g) 20, then (p, ##u) 17 → of which five were before ##g: pu 12; (##u, ##n) 16, (h, ##ug) 15.
    assert train(BASE + 3, "count") == ["##ug", "##un", "hug"]


def test_rare_pairs_can_be_left_alone_by_either_score() -> None:
    assert train(99, "count", minimum_count=15) == ["##ug", "##un", "hug"]
    assert train(99, "likelihood", minimum_count=20) == ["##ug"]


def test_words_are_the_longest_pieces_from_the_left_or_unknown_as_a_whole() -> None:
    tokens = ["[UNK]", "un", "##a", "##able", "##aff", "##affable", "a", "##b", "##l", "##e", "f"]
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    tokenizer = WordPiece(vocabulary, WordPieceConfig(special=SpecialTokens(unknown="[UNK]")))
    assert tokenizer.encode("unaffable unaffle unaable").tokens == [
        "un",
        "##affable",
        "un",
        "##aff",
        "##l",
        "##e",
        "un",
        "##a",
        "##able",
    ]
    encoding = tokenizer.encode("unable fun")
    assert (encoding.tokens, encoding.offsets) == (["un", "##able", "[UNK]"], [(0, 2), (2, 6), (7, 10)])
    assert tokenizer.decode(encoding.ids, keep_special=True) == "unable [UNK]"
    assert tokenizer.decode(encoding.ids) == "unable"


TEXTS = [
    "Unaffable, naïve Größe! It's 1999; «ça va»? 日本語 mixed\twith\u00a0spaces and con\u00adtrol\u200b chars.",
    "ΟΔΟΣ İstanbul ﬁnally ½ … low-budget (and) [MASK] under_scored [SEP]" + "x" * 120,
]


@pytest.mark.parametrize("normaliser", ["bert", "bert-cased", "none", "nfc"])
def test_encodings_are_those_of_hugging_face_from_the_same_vocabulary(normaliser: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    config = WordPieceConfig(vocabulary_size=260, normaliser=normaliser)  # type: ignore[arg-type]
    tokenizer = WordPiece.train(TEXTS * 3, config)
    peer = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.to_huggingface()))
    for text in [*TEXTS, "some other words, films & ßharp ones: lowest mixed-up 2001"]:
        ours, theirs = tokenizer.encode(text), peer.encode(text)
        assert (ours.ids, ours.tokens, ours.offsets) == (theirs.ids, theirs.tokens, theirs.offsets)
        assert tokenizer.decode(ours.ids) == peer.decode(theirs.ids)


def test_berts_own_class_of_hugging_face_encodes_alike(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = WordPiece.train(TEXTS, WordPieceConfig(vocabulary_size=200))
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(tokenizer.tokens) + "\n", encoding="utf-8")
    loaded = WordPiece.from_vocabulary_file(path)
    peer = tokenizers.BertWordPieceTokenizer(str(path))
    for text in TEXTS:
        assert loaded.ids(text) == tokenizer.ids(text) == peer.encode(text, add_special_tokens=False).ids


def test_wrong_vocabularies_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    with pytest.raises(RllabError, match="cannot be read"):
        WordPiece.from_vocabulary_file(path)
    path.write_bytes(b"[UNK]\n\xff\n")
    with pytest.raises(RllabError, match=r"not UTF-8 \(at byte 6\)"):
        WordPiece.from_vocabulary_file(path)
    path.write_text("[UNK]\na\na\n")
    with pytest.raises(RllabError, match="line 3 of .* 'a' comes twice"):
        WordPiece.from_vocabulary_file(path)
    path.write_text("[UNK]\na\n")
    with pytest.raises(RllabError, match=r"no special token '\[PAD\]'"):
        WordPiece.from_vocabulary_file(path)
    with pytest.raises(RllabError, match="needs an unknown token"):
        WordPieceConfig(special=NO_SPECIAL)
    with pytest.raises(RllabError, match="smaller than the alphabet"):
        WordPiece.train(CORPUS, WordPieceConfig(vocabulary_size=10))
