"""What the seed document says of word vectors, attention and tokenizers, by this project's own code.

Where an example errs, the right value is asserted; docs/seed-errata-language.md says why, and which other tests assert
the examples of tokenizers, decoding, counting and mixtures of experts.
"""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from language.embeddings.counted import bag_of_words, conditional, cooccurrences, first_seen, one_hot
from language.embeddings.hierarchical_softmax import HuffmanTree
from language.embeddings.word_vectors import WordVectors
from language.models.attention import reference_attention, reference_weights
from language.models.blocks import Block, DecoderBlock
from language.models.gpt import GPT, GPTConfig
from language.tokenizers import BPE, BPEConfig, ByteLevelBPE, ByteLevelBPEConfig, WordPiece, WordPieceConfig
from language.tokenizers.sentencepiece import SentencePiece, SentencePieceConfig
from language.tokenizers.special import UNKNOWN_ONLY

COUNTS = {"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}
"""The seed's words and how often they occur."""
CORPUS = [" ".join([word] * count) for word, count in COUNTS.items()]


def test_a_one_hot_row_times_the_embedding_matrix_is_a_row_so_rows_are_words() -> None:
    matrix = np.arange(12.0).reshape(4, 3)  # four words, three neurons
    words = ["pug", "bun", "pug"]
    looked_up = one_hot(words, ["hug", "pug", "pun", "bun"]) @ matrix
    assert looked_up.tolist() == [matrix[1].tolist(), matrix[3].tolist(), matrix[1].tolist()]


def test_common_words_weigh_more_than_others_in_a_bag_of_words_not_the_same() -> None:
    counts = bag_of_words([["the", "cat", "sat", "on", "the", "mat"]])
    assert counts.toarray().tolist() == [[2, 1, 1, 1, 1]]


def test_occurrences_are_counted_by_pairs_of_places_and_not_by_contexts() -> None:
    # Each of the three contexts, (a b), (a b a) and (b a), holds both: 3 by the seed's indicator, 2 by its code.
    counts = cooccurrences([["a", "b", "a"]], window=1).toarray()
    assert counts.tolist() == [[0, 2], [2, 0]]


def test_documents_that_are_joined_make_neighbours_of_their_ends() -> None:
    documents = [["Pizza", "is", "the", "best"], ["Margherita", "is", "my", "favorite"]]
    words = first_seen(documents)
    place = words.index("best"), words.index("Margherita")
    assert cooccurrences(documents, vocabulary=words).toarray()[place] == 0
    joined = cooccurrences([documents[0] + documents[1]], vocabulary=words)
    assert joined.toarray()[place] == 1
    # So P(the | best) falls from 1 to a half.
    best, the = words.index("best"), words.index("the")
    assert conditional(joined).toarray()[best, the] == 0.5


def test_cosines_do_not_see_how_much_there_is() -> None:
    cheeses = WordVectors(("mild", "strong", "lean"), np.array([[1, 2], [4, 8], [2, 1]], np.float32))
    assert cheeses.similarity("mild", "strong") == pytest.approx(1)
    assert cheeses.similarity("mild", "lean") == pytest.approx(0.8)
    distance = np.linalg.norm(cheeses["mild"] - cheeses["strong"]), np.linalg.norm(cheeses["mild"] - cheeses["lean"])
    assert distance[0] > distance[1]


def test_paths_of_a_huffman_tree_are_short_on_average_but_a_rare_words_may_pass_every_node() -> None:
    even = HuffmanTree.of_counts(np.ones(10_000, np.int64)).lengths
    assert set(even.tolist()) == {13, 14}  # log₂ 10,000 is 13.3
    counts = np.array([1, *2 ** np.arange(12)])
    lengths = HuffmanTree.of_counts(counts).lengths
    assert lengths.max() == len(counts) - 1
    assert (lengths * counts).sum() / counts.sum() < 2


def test_the_ratios_of_gloves_table_are_those_of_its_rounded_probabilities() -> None:
    # Table 1 of the paper: P(word | ice), P(word | steam), to two digits, and their ratio.
    table = {
        "solid": (1.9e-4, 2.2e-5, 8.9), "gas": (6.6e-5, 7.8e-4, 0.085), "water": (3.0e-3, 2.2e-3, 1.36),
        "fashion": (1.7e-5, 1.8e-5, 0.96),
    }  # fmt: skip
    for ice, steam, ratio in table.values():
        half_ice, half_steam = (0.05 * 10 ** math.floor(math.log10(value)) for value in (ice, steam))
        assert (ice - half_ice) / (steam + half_steam) <= ratio <= (ice + half_ice) / (steam - half_steam)


def test_tokens_look_most_at_themselves_without_maps_and_never_not_at_all() -> None:
    x = functional.normalize(torch.randn(6, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    weights = reference_weights(x, x)
    assert weights.argmax(1).tolist() == [0, 1, 2, 3, 4, 5]
    assert (weights > 0).all()  # nothing is "filtered out"


def test_scores_are_the_same_both_ways_but_attention_is_not() -> None:
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    scores = x @ x.T
    assert torch.equal(scores, scores.T)
    weights = reference_weights(x, x)
    assert weights[0, 1] > 2 * weights[1, 0]
    # A dot product is no distance: the first token looks more at the longer second one than at itself.
    assert weights[0].argmax() == 1


def test_attention_does_not_know_the_order_of_tokens() -> None:
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(reference_attention(x[order], x[order], x[order]), reference_attention(x, x, x)[order])


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_a_layer_of_gpt_is_a_decoders_without_the_attention_to_an_encoder() -> None:
    block = GPTConfig.gpt_1().block()
    with torch.device("meta"):
        assert size(DecoderBlock(block)) - size(Block(block)) == 4 * 768**2 + 4 * 768 + 2 * 768


def test_gpt_2_is_not_gpt_1_at_another_size() -> None:
    first, second = GPTConfig.gpt_1(), GPTConfig.gpt_2()
    assert (first.layers, first.heads, first.width) == (second.layers, second.heads, second.width) == (12, 12, 768)
    assert (first.norm, second.norm) == ("post", "pre")
    with torch.device("meta"):
        # Further tokens, further positions, and a normalisation at the end.
        assert size(GPT(second)) - size(GPT(first)) == (50_257 - 40_478) * 768 + 512 * 768 + 2 * 768


def test_the_seeds_character_ids_are_places_in_the_alphabet_with_two_of_them_taken_twice() -> None:
    text = "I love machine learning"
    given = [1, 2, 12, 15, 22, 5, 2, 13, 1, 3, 8, 9, 14, 5, 2, 12, 5, 1, 18, 14, 9, 14, 7]
    ids = dict(zip(text, given, strict=True))
    assert {letter: number for letter, number in ids.items() if letter.islower()} == {
        letter: ord(letter) - ord("a") + 1 for letter in sorted(set(text.replace(" ", "").replace("I", "")))
    }
    assert ids["I"] == ids["a"] == 1
    assert ids[" "] == ord("b") - ord("a") + 1


def test_a_byte_pair_vocabulary_is_what_it_began_with_and_its_merges() -> None:
    plain = BPE.train(CORPUS, BPEConfig(vocabulary_size=11, end_of_word=""))
    assert len(plain.tokens) == 1 + 7 + 3  # unknown, letters, merges
    # With marked ends of words, as in GPT-1, a letter begins as two symbols.
    marked = BPE.train(CORPUS, BPEConfig(vocabulary_size=18))
    assert len(marked.tokens) == 1 + 2 * 7 + 3
    assert GPTConfig.gpt_1().vocabulary_size == 40_478 == 478 + 40_000


def test_over_bytes_no_letter_is_unknown() -> None:
    tokenizer = ByteLevelBPE.train(CORPUS, ByteLevelBPEConfig(vocabulary_size=260))
    assert tokenizer.decode(tokenizer.ids("mug 😀")) == "mug 😀"
    assert "<unk>" not in tokenizer.encode("mug 😀").tokens


def log_likelihood(words: dict[tuple[str, ...], int]) -> float:
    """Of a corpus of symbols, each with the share it has there."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for symbol in word:
            counts[symbol] += count
    return sum(count * math.log(count / counts.total()) for count in counts.values())


def merged(words: dict[tuple[str, ...], int], first: str, second: str) -> dict[tuple[str, ...], int]:
    return {
        tuple(" ".join(word).replace(f"{first} {second}", first + second.removeprefix("##")).split()): count
        for word, count in words.items()
    }


def test_the_pair_of_wordpieces_score_is_not_the_one_that_raises_the_likelihood_most() -> None:
    config = WordPieceConfig(16, "likelihood", special=UNKNOWN_ONLY)
    assert WordPiece.train(CORPUS, config).tokens[15:] == ["##gs"]
    words = {(word[0], *(f"##{letter}" for letter in word[1:])): count for word, count in COUNTS.items()}
    pairs = {pair for word in words for pair in pairwise(word)}
    gains = {pair: log_likelihood(merged(words, *pair)) - log_likelihood(words) for pair in pairs}
    assert max(gains, key=gains.__getitem__) == ("##u", "##g")  # which is the most frequent one as well
    assert gains["##u", "##g"] == pytest.approx(28.018, abs=1e-3)
    assert gains["##g", "##s"] == pytest.approx(9.231, abs=1e-3)


def test_sentencepiece_gives_back_the_normal_form_of_a_text_and_a_space_before_it() -> None:
    tokenizer = SentencePiece.train([*CORPUS, "ﬁn"], SentencePieceConfig(290))
    assert tokenizer.decode(tokenizer.ids("ﬁn hug")) == "fin hug"
    assert "".join(tokenizer.encode("hug pug").tokens).replace("▁", " ") == " hug pug"
    assert tokenizer.decode(tokenizer.ids("hug pug")) == "hug pug"
