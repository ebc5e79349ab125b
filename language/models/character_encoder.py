"""Vectors of words from their characters: convolutions, the largest of each over the word, highway layers.

Kim, Jernite, Sontag, Rush 2016, "Character-aware neural language models" (1508.06615), sections 2.2 and 2.3, as in ELMo
(Peters et al. 2018, section 3.4), whose released models have ReLU for an activation.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from language.models.characters import NO_WORD
from language.models.linear import Linear


class Highway(nn.Module):
    """t·x + (1 − t)·relu(Wx + b), where t is computed from x for each number (Srivastava et al. 2015)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.both = Linear(width, 2 * width)
        nn.init.normal_(self.both.weight, std=width**-0.5)
        with torch.no_grad():
            # At first most of x is carried through, as in the released models.
            self.both.bias[:width], self.both.bias[width:] = 0, 1

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` to the same."""
        changed, carried = self.both(x).chunk(2, -1)
        share = torch.sigmoid(carried)
        return share * x + (1 - share) * functional.relu(changed)


class CharacterEncoder(nn.Module):
    """The encoder."""

    def __init__(
        self, characters: int, character_width: int, filters: tuple[tuple[int, int], ...], highways: int, width: int
    ) -> None:
        """Make one with random weights.

        Args:
            characters: ids that there are.
            character_width: numbers of a character's vector.
            filters: of each convolution how many characters it sees at once, and how many filters it has.
            highways: layers.
            width: numbers of a word's vector.
        """
        super().__init__()
        total = sum(count for _, count in filters)
        self.embedding = nn.Embedding(characters, character_width, padding_idx=NO_WORD)
        self.convolutions = nn.ModuleList(nn.Conv1d(character_width, count, seen) for seen, count in filters)
        self.highways = nn.Sequential(*(Highway(total) for _ in range(highways)))
        self.projection = Linear(total, width)

    def forward(self, characters: Tensor) -> Tensor:
        """Ids `[..., characters a word]` to vectors `[..., width]`.

        Words that occur more than once are computed once.
        """
        words, places = torch.unique(characters.flatten(0, -2), dim=0, return_inverse=True)
        x = self.embedding(words).transpose(1, 2)
        features = torch.cat([convolution(x).amax(2) for convolution in self.convolutions], 1)
        # Rectifying after the maximum is the same as before it, and less work.
        vectors = self.projection(self.highways(functional.relu(features)))
        return functional.embedding(places, vectors).view(*characters.shape[:-1], -1)
