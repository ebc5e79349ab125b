"""Tokenizers: texts to ids of a vocabulary and back, all by one contract."""

from language.tokenizers.bpe import BPE, BPEConfig
from language.tokenizers.byte import ByteLevel, ByteLevelConfig
from language.tokenizers.byte_bpe import ByteLevelBPE, ByteLevelBPEConfig
from language.tokenizers.character import CharacterLevel, CharacterLevelConfig
from language.tokenizers.files import KINDS, load_tokenizer
from language.tokenizers.sentencepiece import SentencePiece
from language.tokenizers.sentencepiece_training import SentencePieceConfig
from language.tokenizers.special import SpecialTokens
from language.tokenizers.tokenizer import Encoding, Tokenizer
from language.tokenizers.unigram import Unigram, UnigramConfig
from language.tokenizers.word import WordLevel, WordLevelConfig
from language.tokenizers.wordpiece import WordPiece, WordPieceConfig

__all__ = [
    "BPE",
    "KINDS",
    "BPEConfig",
    "ByteLevel",
    "ByteLevelBPE",
    "ByteLevelBPEConfig",
    "ByteLevelConfig",
    "CharacterLevel",
    "CharacterLevelConfig",
    "Encoding",
    "SentencePiece",
    "SentencePieceConfig",
    "SpecialTokens",
    "Tokenizer",
    "Unigram",
    "UnigramConfig",
    "WordLevel",
    "WordLevelConfig",
    "WordPiece",
    "WordPieceConfig",
    "load_tokenizer",
]
