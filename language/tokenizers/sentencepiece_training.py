"""SentencePiece's training: counted words of the stream, a vocabulary by Unigram or byte-pair encoding, a model file.

Kudo, Richardson: SentencePiece (2018), section 3.
"""

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from envs.errors import RllabError
from language.tokenizers.alphabet import check_size
from language.tokenizers.bpe import BPEConfig, train_on_words
from language.tokenizers.model_proto import (
    ModelPiece,
    ModelProto,
    ModelType,
    NormalizerSpec,
    PieceType,
    TrainerSpec,
)
from language.tokenizers.pipeline import Splitting
from language.tokenizers.sentencepiece_stream import IDENTITY, NFKC, FormName, StreamNormaliser, StreamSplitter
from language.tokenizers.special import SpecialTokens
from language.tokenizers.tokenizer import Progress
from language.tokenizers.unigram_training import Fitting, covered, train_unigram

ModelName: TypeAlias = Literal["unigram", "bpe"]
"""How pieces are learned and words segmented."""
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""The tokens of the 256 bytes, in sentencepiece's notation."""
SENTENCEPIECE_SPECIAL = SpecialTokens(unknown="<unk>", begin="<s>", end="</s>")
"""sentencepiece's special tokens."""


@dataclass(frozen=True)
class SentencePieceConfig:
    """How SentencePiece is trained."""

    vocabulary_size: int = 8_000
    """Tokens, special ones, bytes and characters included. (sentencepiece's default.)"""
    model: ModelName = "unigram"
    """How pieces are learned and words segmented."""
    character_coverage: float = 0.9995
    """The share of the corpus that the alphabet covers; rarer characters are unknown. (sentencepiece's default.)"""
    byte_fallback: bool = True
    """Write unknown characters as bytes, so that nothing is lost; takes 256 tokens. (sentencepiece: off.)"""
    normaliser: FormName = "nfkc"
    """What is done to a text first; with `none` decoding gives back exactly what was encoded."""
    add_dummy_prefix: bool = True
    """Put a space before each text, so that its first word is as others are; decoding takes it away again."""
    remove_extra_whitespaces: bool = False
    """Drop spaces at the ends, and all but one of several; nothing gives them back. (sentencepiece: on.)"""
    longest_piece: int = 16
    """Characters that a piece of Unigram may have."""
    seed_size: int = 1_000_000
    """How many substrings of the corpus Unigram's training begins with."""
    kept: float = 0.75
    """The share of the pieces that a pruning of Unigram leaves."""
    rounds: int = 2
    """Rounds of expectation maximisation between two prunings."""
    one_script: bool = True
    """Whether a piece of Unigram has letters of one script alone, or no letters."""
    special: SpecialTokens = SENTENCEPIECE_SPECIAL
    """The special tokens; there must be an unknown one."""

    def __post_init__(self) -> None:
        if self.special.unknown is None:
            raise RllabError("SentencePiece needs an unknown token; sentencepiece cannot load models without.")
        if not 0 < self.character_coverage <= 1:
            raise RllabError(f"character_coverage must be above 0 and at most 1, not {self.character_coverage}.")
        if taken := set(BYTES).intersection(self.special.tokens()):
            raise RllabError(f"'{min(taken)}' is the name of a byte; give the special token another.")

    def fitting(self) -> Fitting:
        """What Unigram's training needs of it. Raises RllabError if a number makes no sense."""
        return Fitting(self.longest_piece, self.seed_size, self.kept, self.rounds, self.one_script)


def assemble(
    scores: Mapping[str, float], model: ModelName, special: SpecialTokens, user_defined: Container[str],
    normalizer: NormalizerSpec, unused: Container[str] = (),
) -> ModelProto:  # fmt: skip
    """Put a model together.

    Args:
        scores: the score of each token, in the order of their ids; with the 256 bytes among them it falls back on them.
        model: how words are segmented.
        special: the special tokens, which are of type CONTROL but for the unknown one and
        user_defined: those of type USER_DEFINED.
        normalizer: what is done to texts.
        unused: tokens that no text is read as.
    """
    byte_fallback = set(BYTES) <= scores.keys()
    types = dict.fromkeys(BYTES, PieceType.BYTE) if byte_fallback else {}
    for token in special.tokens():
        types[token] = PieceType.USER_DEFINED if token in user_defined else PieceType.CONTROL
    types[special.unknown or ""] = PieceType.UNKNOWN
    pieces = [
        ModelPiece(token, score, PieceType.UNUSED if token in unused else types.get(token, PieceType.NORMAL))
        for token, score in scores.items()
    ]
    trainer = TrainerSpec(ModelType[model.upper()], len(pieces), byte_fallback=byte_fallback)
    ids = {token: token_id for token_id, token in enumerate(scores)}
    for name in ("unknown", "begin", "end", "padding"):
        token = getattr(special, name)
        setattr(trainer, f"{name}_id", -1 if token is None else ids[token])
        if token is not None:
            setattr(trainer, name, token)
    return ModelProto(pieces, trainer, normalizer)


def train_model(texts: Iterable[str], config: SentencePieceConfig, progress: Progress | None = None) -> ModelProto:
    """Learn a model from texts, which are read once.

    Raises RllabError if there are no words, or more characters than the vocabulary may have tokens.
    """
    fitting = config.fitting()
    name = NFKC if config.normaliser == "nfkc" else IDENTITY
    spec = NormalizerSpec(name, b"", config.add_dummy_prefix, config.remove_extra_whitespaces)
    splitting = Splitting(StreamNormaliser.of(spec), StreamSplitter("none"))
    counts = splitting.count(texts, config.special.tokens(), progress)
    alphabet = covered_alphabet(counts, config.character_coverage)
    reserved = [*config.special.tokens(), *(BYTES if config.byte_fallback else ())]
    size = config.vocabulary_size - len(reserved)
    # A text that spells the name of a byte must be made of characters, not of that token.
    spelling = sorted(set("".join(BYTES)) - set(alphabet)) if config.byte_fallback else []
    remedy = ", or lower character_coverage" + (" or leave out byte_fallback" if config.byte_fallback else "")
    check_size(config.vocabulary_size, len(reserved), len(alphabet) + len(spelling), remedy)
    words = covered(counts, alphabet)
    if config.model == "unigram":
        found = train_unigram(words, size - len(spelling), fitting, progress)
        lowest = min(score for _, score in found)
        pieces = [*found, *((character, lowest) for character in spelling)]
    else:
        special = SpecialTokens(additional=tuple(spelling))
        tokens, _ = train_on_words(words, BPEConfig(size, end_of_word="", special=special), progress)
        pieces = [(token, -float(rank)) for rank, token in enumerate(_merged_first(tokens))]
    taken = set(reserved)
    scores = dict.fromkeys(reserved, 0.0) | {token: score for token, score in pieces if token not in taken}
    return assemble(scores, config.model, config.special, config.special.additional, spec)


def covered_alphabet(counts: Mapping[str, int], coverage: float) -> list[str]:
    """The most frequent characters that make up a share of the corpus, in the order of their code points."""
    characters: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
    needed = coverage * characters.total()
    alphabet = []
    for character, count in sorted(characters.items(), key=lambda item: (-item[1], item[0])):
        if needed <= 0:
            break
        alphabet.append(character)
        needed -= count
    return sorted(alphabet)


def _merged_first(tokens: list[str]) -> list[str]:
    """Merged pieces in the order of their merges, then the characters: the order that sentencepiece has."""
    return sorted(tokens, key=lambda token: len(token) == 1)
