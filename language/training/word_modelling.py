"""Learning to predict words from those before and those after them: ELMo's pre-training.

Peters et al. 2018, "Deep contextualized word representations" (1802.05365), section 3.1. Words are read by their
characters, whatever they are, and predicted out of a vocabulary; those that are not in it count as its unknown word.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.data.blocks import TokenFile, write_token_file
from language.models.characters import begin_of_sentence, characters_of, end_of_sentence
from language.models.elmo import ELMoLanguageModel
from language.tokenizers.special import SpecialTokens
from language.tokenizers.tokenizer import Progress, Tokenizer
from language.tokenizers.word import WordLevel, WordLevelConfig
from language.training.corpus import SHARES, PartOfTexts
from language.training.language_modelling import LanguageModellingConfig, random_state
from language.training.problem import Loss
from rllab.files import write_atomically

SPECIAL = SpecialTokens(unknown="<unk>", begin="<s>", end="</s>")
_LEXICON = "words.txt"
_MOST_WORDS = 2**31


@dataclass(frozen=True)
class Words:
    """Texts as numbers of words, one after another, each text between the marks of its begin and end."""

    files: dict[str, TokenFile]
    """By part."""
    characters: Tensor
    """int64 `[words, characters a word]`, of every word that occurs; the vocabulary's come first."""
    vocabulary_size: int
    """Words that are predicted."""
    unknown: int
    """What stands for the others."""


def train_words(texts: Iterable[str], vocabulary_size: int, progress: Progress | None = None) -> Tokenizer:
    """The most frequent words of the training part; punctuation marks are words."""
    config = WordLevelConfig(vocabulary_size, pretokeniser="bert", special=SPECIAL)
    return WordLevel.train(PartOfTexts(texts, "training"), config, progress)


def write_words(texts: Iterable[str], tokenizer: Tokenizer, folder: Path, characters_a_word: int) -> Words:
    """Number all words of the texts, unless the folder has that already.

    Raises:
        RllabError: the tokenizer does not split texts into words, or has no begin, end or unknown token; or a part has
            no texts.
    """
    special = tokenizer.special
    if not isinstance(tokenizer, WordLevel) or special.begin is None or special.end is None:
        raise RllabError(
            "ELMo reads words: its tokenizer must be of the kind `word`, with a begin and an end token; leave it out, "
            "and one is trained."
        )
    assert special.unknown is not None
    path = folder / _LEXICON
    if path.is_file():
        words = path.read_text("utf-8").split("\n")
        files = {part: TokenFile.open(folder / f"{part}.npy") for part in SHARES}
    else:
        lexicon = dict(tokenizer.vocabulary)
        files = {}
        for part in SHARES:
            numbered = _numbered(PartOfTexts(texts, part), tokenizer, lexicon)
            try:
                files[part] = write_token_file(folder / f"{part}.npy", numbered, _MOST_WORDS)
            except RllabError as error:
                if "gave no tokens" in str(error):
                    raise RllabError(f"No text falls into the part for {part}; give more texts.") from error
                raise
        words = list(lexicon)
        write_atomically(path, "\n".join(words).encode())
    marks = {special.begin: begin_of_sentence(characters_a_word), special.end: end_of_sentence(characters_a_word)}
    rows = [marks.get(word) or characters_of(word, characters_a_word) for word in words]
    return Words(files, torch.tensor(rows), len(tokenizer), tokenizer.vocabulary[special.unknown])


def _numbered(texts: Iterable[str], tokenizer: WordLevel, lexicon: dict[str, int]) -> Iterator[list[int]]:
    special = tokenizer.special
    begin, end = (tokenizer.vocabulary[cast(str, mark)] for mark in (special.begin, special.end))
    for text in texts:
        words = tokenizer.words(text)
        if words:
            yield [begin, *(lexicon.setdefault(word, len(lexicon)) for word in words), end]


class WordModelling:
    """Windows at random places; cross-entropy of each word from either side; a `Problem`.

    The model is an `ELMoLanguageModel`.
    """

    goal, higher_is_better = "perplexity", False

    def __init__(
        self, words: Words, held_out: str, config: LanguageModellingConfig, seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """Raises RllabError if a part is too short for one row."""
        self.training, self.held_out = words.files["training"], words.files[held_out]
        for file in (self.training, self.held_out):
            if len(file) < config.length:
                raise RllabError(
                    f"{file.path} has {len(file):,} words, too few for rows of {config.length}; give more text, or a "
                    "shorter length."
                )
        self.words, self.config, self.device = words, config, device
        self.characters = words.characters.to(device)
        self.generator = np.random.default_rng(seed)

    def batch(self) -> Tensor:
        """Numbers of words, int64 `[batch_size, length]`."""
        rows = self.training.random_windows(self.config.batch_size, self.config.length, self.generator)
        return torch.from_numpy(rows).to(self.device)

    def loss(self, model: nn.Module, batch: Tensor) -> Loss:
        """The sum of both directions' cross-entropies, in nats."""
        known = batch.where(batch < self.words.vocabulary_size, self.words.unknown)
        found = cast(ELMoLanguageModel, model).loss(self.characters[batch], known)
        total = found.forward + found.backward
        ahead = found.forward.item() / found.words
        return Loss(total, 2 * found.words, batch.numel(), {"loss_forward": ahead})

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Loss a word and direction, in nats, its exponential, and the perplexities of the two directions."""
        rows = self.held_out.blocks(self.config.length)
        limit = self.config.evaluation_tokens
        rows = rows[: max(1, limit // self.config.length) if limit else len(rows)]
        forward, backward, count = 0.0, 0.0, 0
        for first in range(0, len(rows), self.config.batch_size):
            some = torch.from_numpy(rows[first : first + self.config.batch_size].astype(np.int64)).to(self.device)
            known = some.where(some < self.words.vocabulary_size, self.words.unknown)
            found = cast(ELMoLanguageModel, model).loss(self.characters[some], known)
            forward, backward = forward + found.forward.item(), backward + found.backward.item()
            count += found.words
        forward, backward = forward / count, backward / count
        loss = (forward + backward) / 2
        return {
            "loss": loss, "perplexity": math.exp(min(loss, 700.0)),
            "perplexity_forward": math.exp(min(forward, 700.0)),
            "perplexity_backward": math.exp(min(backward, 700.0)),
        }  # fmt: skip

    def operations(self, model: nn.Module, tokens: int) -> float:
        """6 for each weight of the LSTMs and the softmax, which is used twice; the convolutions are not counted."""
        checked = cast(ELMoLanguageModel, model)
        encoder = checked.encoder
        lstms = (*encoder.forward_lstms, *encoder.backward_lstms)
        recurrent: int = sum(p.numel() for lstm in lstms for p in lstm.parameters() if p.ndim == 2)
        return 6.0 * tokens * (recurrent + 2.0 * checked.softmax.numel())

    def state_dict(self) -> dict[str, Any]:
        """The random generator's state."""
        return {"generator": random_state(self.generator)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with it."""
        self.generator.bit_generator.state = state["generator"]
