"""What ELMo says of words in their sentences, and which words elsewhere are used alike.

Peters et al. 2018, "Deep contextualized word representations" (1802.05365), section 5.3 and table 4, the neighbours of
"play" in two contexts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from envs.errors import RllabError
from language.models.characters import encode_sentences
from language.models.elmo import ELMo, LayerMix

_AT_ONCE = 32


def contextual_vectors(
    model: ELMo, sentences: Sequence[Sequence[str]], mix: LayerMix | int = -1
) -> list[Tensor]:  # fmt: skip
    """A vector for each word of each sentence, `[words, 2 width]`.

    Dropout is off while it works, and no derivatives are kept.

    Args:
        model: the encoder.
        sentences: words.
        mix: how layers are put together, or the number of one: 0 the word by itself, −1 the last.

    Raises:
        RllabError: there is no sentence, an empty word, or no such layer.
    """
    if isinstance(mix, int) and not -model.config.layers - 1 <= mix <= model.config.layers:
        raise RllabError(f"There is no layer {mix}; they go from 0, the words' own vectors, to {model.config.layers}.")
    if not sentences:
        raise RllabError("There is no sentence; give one at least.")
    device = next(model.parameters()).device
    # Sentences of similar length are computed together, with little padding.
    order = sorted(range(len(sentences)), key=lambda number: len(sentences[number]))
    found: list[Tensor] = [torch.empty(0)] * len(sentences)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for first in range(0, len(order), _AT_ONCE):
                numbers = order[first : first + _AT_ONCE]
                characters, valid = encode_sentences(
                    [sentences[number] for number in numbers], model.config.characters_a_word
                )
                layers = model(characters.to(device), valid.to(device))
                mixed = layers[:, mix] if isinstance(mix, int) else mix(layers)
                for row, number in zip(mixed, numbers, strict=True):
                    found[number] = row[1 : len(sentences[number]) + 1].clone()
    finally:
        model.train(training)
    return found


class Neighbour(NamedTuple):
    """A word in a sentence."""

    similarity: float
    """Cosine with what was looked for."""
    sentence: int
    """The sentence's number."""
    place: int
    """The word's place in it, from 0."""


@dataclass(frozen=True)
class ContextIndex:
    """Every word of a text with its vector, to look for uses that are alike."""

    sentences: Sequence[Sequence[str]]
    """The text."""
    directions: Tensor
    """`[words, 2 width]` of length 1, of all sentences' words one after another."""

    @classmethod
    def of(cls, model: ELMo, sentences: Sequence[Sequence[str]], mix: LayerMix | int = -1) -> "ContextIndex":
        """Compute it; arguments and errors as of `contextual_vectors`."""
        vectors = torch.cat(contextual_vectors(model, sentences, mix))
        return cls(sentences, functional.normalize(vectors, dim=1))

    def nearest(self, vector: Tensor, count: int = 5, *, word: str | None = None) -> list[Neighbour]:
        """The words whose vectors are nearest to one, the nearest first.

        Args:
            vector: `[2 width]`, such as one of `contextual_vectors`.
            count: how many at most.
            word: only where this word is, to compare its senses; None for all words.

        Raises:
            RllabError: the word is not in the text.
        """
        places = [(number, place) for number, sentence in enumerate(self.sentences) for place in range(len(sentence))]
        similarities = self.directions @ functional.normalize(vector, dim=0)
        if word is not None:
            asked = torch.tensor([self.sentences[number][place] == word for number, place in places])
            if not bool(asked.any()):
                raise RllabError(f"The text does not have the word {word!r}; choose another one.")
            similarities = similarities.masked_fill(~asked.to(similarities.device), -torch.inf)
            count = min(count, int(asked.sum()))
        best = similarities.topk(min(count, len(places)))
        return [
            Neighbour(similarity, *places[row])
            for similarity, row in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
