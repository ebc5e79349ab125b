"""Unigram: words as their most probable pieces by a model whose pieces are independent of one another.

Kudo: Subword Regularization: Improving Neural Network Translation Models with Multiple Subword Candidates (2018).
Training is in `unigram_training.py`, sampling in `unigram_sampling.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from envs.errors import RllabError
from language.tokenizers.alphabet import check_size, find_alphabet
from language.tokenizers.huggingface import tokenizer_document
from language.tokenizers.normalisation import Normaliser, NormaliserName
from language.tokenizers.pipeline import Piece, Pipeline, Splitting
from language.tokenizers.pretokenisers import PreTokeniser, PreTokeniserName
from language.tokenizers.settings import from_settings, to_settings
from language.tokenizers.special import UNKNOWN_ONLY, SpecialTokenMatcher, SpecialTokens
from language.tokenizers.tokenizer import Progress, Tokenizer
from language.tokenizers.unigram_model import UnigramModel, express_unknown
from language.tokenizers.unigram_sampling import Regulariser
from language.tokenizers.unigram_training import Fitting, covered, train_unigram

NEVER = -1e6
"""The log-probability that a `tokenizer.json` gives to tokens that are no pieces, so that no text is read as one."""


@dataclass(frozen=True)
class UnigramConfig:
    """How Unigram is trained; the defaults of the fitting are sentencepiece's."""

    vocabulary_size: int = 8_000
    """Tokens, special ones and characters included. (sentencepiece's and Hugging Face's default.)"""
    longest_piece: int = 16
    """Characters that a piece may have."""
    seed_size: int = 1_000_000
    """How many substrings of the corpus the training begins with."""
    kept: float = 0.75
    """The share of the pieces that a pruning leaves."""
    rounds: int = 2
    """Rounds of expectation maximisation between two prunings."""
    one_script: bool = True
    """Whether a piece has letters of one script alone, or no letters."""
    alphabet_limit: int | None = None
    """Keep only so many characters, the most frequent; others are unknown then."""
    normaliser: NormaliserName = "none"
    """What is done to a text first."""
    pretokeniser: PreTokeniserName = "gpt2"
    """What splits a text into words. (GPT-2's pattern leaves out nothing, so that decoding gives the text back.)"""
    special: SpecialTokens = UNKNOWN_ONLY
    """The special tokens."""

    def fitting(self) -> Fitting:
        """What training needs of it. Raises RllabError if a number makes no sense."""
        return Fitting(self.longest_piece, self.seed_size, self.kept, self.rounds, self.one_script)


class Unigram(Tokenizer):
    """Words as their most probable pieces; what is not in the alphabet is unknown, neighbours together as one token."""

    kind: ClassVar[str] = "unigram"

    def __init__(self, vocabulary: dict[str, int], scores: Mapping[str, float], config: UnigramConfig) -> None:
        """Use a vocabulary.

        Args:
            vocabulary: the ids.
            scores: the log-probability of each token; those of special tokens are not looked at.
            config: of which the normaliser, the pre-tokeniser and the special tokens count.
        """
        super().__init__(vocabulary, config.special)
        self.config = config
        special = self.special_ids
        self.scores = {token: float(scores[token]) for token in vocabulary if token not in special}
        """The log-probability of each piece."""
        splitting = Splitting(Normaliser(config.normaliser), PreTokeniser(config.pretokeniser))
        self._model = UnigramModel(self.scores, vocabulary)
        self._pipeline = Pipeline(splitting, self._segment, self.tokens, special)
        self._regulariser = Regulariser(self._model, splitting, SpecialTokenMatcher(special), self._express)

    @classmethod
    def train(cls, texts: Iterable[str], config: UnigramConfig | None = None, progress: Progress | None = None) -> Self:
        """Learn a vocabulary from texts, which are read once.

        Raises RllabError if there are no words, or more characters than the vocabulary may have tokens.
        """
        config = config or UnigramConfig()
        fitting, special = config.fitting(), config.special.tokens()
        splitting = Splitting(Normaliser(config.normaliser), PreTokeniser(config.pretokeniser))
        counts = splitting.count(texts, special, progress)
        alphabet = find_alphabet(counts, limit=config.alphabet_limit)
        size = config.vocabulary_size - len(special)
        check_size(config.vocabulary_size, len(special), len(alphabet), ", or set an alphabet_limit")
        pieces = [
            (piece, score)
            for piece, score in train_unigram(covered(counts, alphabet), size, fitting, progress)
            if piece not in special
        ]
        tokens = [*special, *(piece for piece, _ in pieces)]
        return cls({token: token_id for token_id, token in enumerate(tokens)}, dict(pieces), config)

    def _segment(self, word: str) -> list[Piece]:
        return self._express(word, self._model.segment(word))

    def _express(self, word: str, pieces: list[Piece]) -> list[Piece]:
        unknown = self.special.unknown
        return express_unknown(word, pieces, None if unknown is None else self.vocabulary[unknown])

    def sample(
        self, text: str, generator: np.random.Generator, alpha: float = 0.1, candidates: int | None = None
    ) -> list[int]:
        """The ids of a segmentation that is drawn at random, for subword regularisation.

        Args:
            text: what to encode.
            generator: the source of randomness.
            alpha: 1 draws by the model's own probabilities, 0 all alike, a large one nearly always the best. (Kudo
                takes 0.1 with all segmentations or 0.2 to 0.5 with the best 64, by the size of the corpus.)
            candidates: draw from so many of the most probable segmentations of the text; by default from all.

        Raises:
            RllabError: `alpha` is negative, or `candidates` not positive.
        """
        return self._regulariser.sample(text, generator, alpha, candidates)

    def best(self, text: str, count: int) -> list[tuple[list[int], float]]:
        """The `count` most probable segmentations, the best first: ids, and the log-probability.

        Raises RllabError if `count` is not positive.
        """
        return self._regulariser.best(text, count)

    def decode(self, ids: Sequence[int], keep_special: bool = False) -> str:
        """The tokens of some ids put together: the text, where the pre-tokeniser leaves out nothing of it."""
        return "".join(self.spoken(ids, keep_special))

    def engine_refusal(self) -> str | None:
        if self.special.unknown is None:
            return "without an unknown token it cannot encode texts that have an unknown character"
        return None

    def to_huggingface(self) -> dict[str, Any]:
        unknown = self.special.unknown
        return tokenizer_document(
            unigram_model(self.tokens, self.scores, None if unknown is None else self.vocabulary[unknown]),
            self.special_ids,
            normaliser=Normaliser(self.config.normaliser).to_huggingface(),
            pretokeniser=PreTokeniser(self.config.pretokeniser).to_huggingface(),
            decoder={"type": "Fuse"},
        )

    def settings(self) -> dict[str, Any]:
        return to_settings(self.config)

    @classmethod
    def restore(cls, document: dict[str, Any], settings: dict[str, Any]) -> Self:
        tokens = [token for token, _ in document["model"]["vocab"]]
        ids = {token: token_id for token_id, token in enumerate(tokens)}
        if len(ids) < len(tokens):
            raise RllabError("The vocabulary has a token twice; save the tokenizer again.")
        return cls(ids, dict(document["model"]["vocab"]), from_settings(UnigramConfig, settings))


def unigram_model(
    tokens: Sequence[str], scores: Mapping[str, float], unknown_id: int | None, byte_fallback: bool = False
) -> dict[str, Any]:
    """The `model` of a `tokenizer.json` for Unigram."""
    vocabulary = [[token, scores.get(token, NEVER)] for token in tokens]
    return {"type": "Unigram", "unk_id": unknown_id, "vocab": vocabulary, "byte_fallback": byte_fallback}
