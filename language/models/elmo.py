"""ELMo: vectors of words in their sentences, from a language model that reads in both directions.

Peters et al. 2018, "Deep contextualized word representations" (1802.05365), section 3. Where the paper is silent (how
words are written as characters, clipping, the activation of the convolutions), as in the released models.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.models.character_encoder import CharacterEncoder
from language.models.characters import CHARACTERS, CHARACTERS_A_WORD
from language.models.dropout import check_dropout
from language.models.layer_groups import by_layer
from language.models.linear import linear
from language.models.padding import check_right_padded, reversed_rows
from language.models.projected_lstm import ProjectedLSTM


@dataclass(frozen=True)
class ELMoConfig:
    """The sizes. The defaults are those of the paper (section 3.4)."""

    vocabulary_size: int = 793_471
    """Words that the language model chooses from, the One Billion Word Benchmark's; the encoder reads any word."""
    character_width: int = 16
    """Numbers of a character's vector."""
    characters_a_word: int = CHARACTERS_A_WORD
    """Of which two are marks; longer words are cut."""
    filters: tuple[tuple[int, int], ...] = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))
    """Of each convolution how many characters it sees at once, and how many filters it has."""
    highways: int = 2
    """Highway layers after the convolutions."""
    width: int = 512
    """Numbers of a word's vector in one direction."""
    layers: int = 2
    """LSTMs of each direction."""
    lstm_width: int = 4096
    """Units of an LSTM, projected to the width."""
    cell_clip: float | None = 3.0
    """No cell is farther from 0; None for no limit."""
    projection_clip: float | None = 3.0
    """Nor is a number of a projected output."""
    dropout: float = 0.1
    """Of what goes into each LSTM and into the softmax."""

    def __post_init__(self) -> None:
        # JSON has no tuples.
        object.__setattr__(self, "filters", tuple((seen, count) for seen, count in self.filters))
        for name in ("vocabulary_size", "character_width", "width", "layers", "lstm_width"):
            if getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.highways < 0:
            raise RllabError(f"highways must be at least 0, not {self.highways}.")
        if not self.filters or any(count < 1 for _, count in self.filters):
            raise RllabError("filters must have at least one convolution, and each of them a filter.")
        if any(not 1 <= seen <= self.characters_a_word for seen, _ in self.filters):
            raise RllabError(f"A convolution must see between 1 and {self.characters_a_word} characters, a whole word.")
        for name in ("cell_clip", "projection_clip"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise RllabError(f"{name} must be above 0 or None, not {limit}.")
        check_dropout("dropout", self.dropout)

    @classmethod
    def small(cls, vocabulary_size: int = 793_471) -> Self:
        """The smallest of the released models: LSTMs of 1024, vectors of 128, one highway layer."""
        return cls(vocabulary_size, width=128, lstm_width=1024, highways=1)


class ELMo(nn.Module):
    """The encoder: characters of words to a vector for each layer, both directions side by side."""

    def __init__(self, config: ELMoConfig) -> None:
        super().__init__()
        self.config = config
        self.words = CharacterEncoder(
            CHARACTERS, config.character_width, config.filters, config.highways, config.width
        )  # fmt: skip
        self.forward_lstms = nn.ModuleList(self._lstm() for _ in range(config.layers))
        self.backward_lstms = nn.ModuleList(self._lstm() for _ in range(config.layers))

    def _lstm(self) -> ProjectedLSTM:
        config = self.config
        return ProjectedLSTM(config.width, config.lstm_width, config.width, config.cell_clip, config.projection_clip)

    def forward(self, characters: Tensor, valid: Tensor | None = None) -> Tensor:
        """The layers of each word.

        Args:
            characters: int64 `[N, T, characters a word]`, padded on the right (`encode_sentences`).
            valid: bool `[N, T]`, true where a word is; None if all are.

        Returns:
            `[N, layers + 1, T, 2 width]`: the word's own vector twice, then the LSTMs', the forward half before the
            backward half. What is said of padding has no meaning.

        Raises:
            RllabError: rows are padded elsewhere than on the right, or words have another number of characters.
        """
        forward, backward = self.directions(characters, valid)
        return torch.stack([torch.cat(pair, -1) for pair in zip(forward, backward, strict=True)], 1)

    def directions(self, characters: Tensor, valid: Tensor | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """The same as lists of `[N, T, width]` for the directions, from the word's own vectors to the last layer's."""
        if characters.shape[-1] != self.config.characters_a_word:
            raise RllabError(
                f"The words have {characters.shape[-1]} characters, the model's {self.config.characters_a_word}; "
                "encode sentences with the model's length."
            )
        if valid is not None:
            check_right_padded(valid)
        words = self.words(characters)
        forward = self._run(self.forward_lstms, words)
        backward = self._run(self.backward_lstms, reversed_rows(words, valid))
        return forward, [reversed_rows(layer, valid) for layer in backward]

    def _run(self, lstms: nn.ModuleList, x: Tensor) -> list[Tensor]:
        layers = [x]
        for number, lstm in enumerate(lstms):
            output, _ = lstm(functional.dropout(x, self.config.dropout, self.training))
            x = output + x if number > 0 else output  # from the first LSTM on, what went in is added
            layers.append(x)
        return layers


class ELMoLoss(NamedTuple):
    """How well words are predicted: sums over them, in nats."""

    forward: Tensor
    """Of each word from those before it."""
    backward: Tensor
    """Of each word from those after it."""
    words: int
    """How many were predicted in either direction."""


class ELMoLanguageModel(nn.Module):
    """The encoder and the softmax that both directions share: what is pre-trained.

    The softmax is over the whole vocabulary. The paper's program draws 8,192 negative samples for each batch, which
    800,000 words need and tens of thousands do not; the full one is what sampling approximates.
    """

    def __init__(self, config: ELMoConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ELMo(config)
        self.softmax = nn.Parameter(torch.empty(config.vocabulary_size, config.width))
        self.bias = nn.Parameter(torch.zeros(config.vocabulary_size))
        nn.init.normal_(self.softmax, std=config.width**-0.5)

    @property
    def vocabulary_size(self) -> int:
        """Words that are predicted."""
        return self.config.vocabulary_size

    def forward(self, characters: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits `[N, T, V]` of the word after each, and of the word before each; arguments as of `ELMo.forward`."""
        forward, backward = self.encoder.directions(characters, valid)
        return self._logits(forward[-1]), self._logits(backward[-1])

    def loss(self, characters: Tensor, words: Tensor, valid: Tensor | None = None) -> ELMoLoss:
        """Cross-entropies of both directions.

        Args:
            characters: int64 `[N, T, characters a word]`, padded on the right.
            words: int64 `[N, T]`, their numbers in the vocabulary.
            valid: bool `[N, T]`; None if all are words.

        Raises:
            RllabError: no row has two words, or see `ELMo.forward`.
        """
        if valid is None:
            valid = torch.ones_like(words, dtype=torch.bool)
        pairs = valid[:, :-1] & valid[:, 1:]
        count = int(pairs.sum())
        if not count:
            raise RllabError("No sentence has a word beside another one; there is nothing to predict.")
        forward, backward = self.encoder.directions(characters, valid)
        after = self._logits(forward[-1][:, :-1][pairs]), words[:, 1:][pairs]
        before = self._logits(backward[-1][:, 1:][pairs]), words[:, :-1][pairs]
        ahead, back = (
            functional.cross_entropy(logits.float(), wanted, reduction="sum") for logits, wanted in (after, before)
        )
        return ELMoLoss(ahead, back, count)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """What has a learning rate of its own, the lowest layer first; both directions of a layer share it."""
        layers = zip(self.encoder.forward_lstms, self.encoder.backward_lstms, strict=True)
        return by_layer(self, layers, (self.softmax, self.bias))

    def _logits(self, x: Tensor) -> Tensor:
        return linear(functional.dropout(x, self.config.dropout, self.training), self.softmax, self.bias)


class LayerMix(nn.Module):
    """γ · Σ s_j h_j with s = softmax(w): what a task makes of ELMo's layers, learnt with the task (section 3.2).

    At first w = 0, so that all layers weigh the same, and γ = 1.
    """

    def __init__(self, layers: int, normalise: bool = False) -> None:
        """Of so many layers.

        Args:
            layers: one more than the encoder has LSTMs in a direction.
            normalise: whether each vector is brought to mean 0 and deviation 1 before.

        Raises:
            RllabError: there is no layer.
        """
        super().__init__()
        if layers < 1:
            raise RllabError(f"There must be at least one layer to mix, not {layers}.")
        self.normalise = normalise
        self.weights = nn.Parameter(torch.zeros(layers))
        self.gamma = nn.Parameter(torch.ones(()))

    def forward(self, layers: Tensor) -> Tensor:
        """`[N, layers, T, width]` to `[N, T, width]`."""
        if self.normalise:
            layers = functional.layer_norm(layers, layers.shape[-1:])
        return self.gamma * torch.einsum("nltw,l->ntw", layers, self.weights.softmax(0))

    def penalty(self, strength: float) -> Tensor:
        """λ‖w‖², added to the task's loss (section 3.3): 1 keeps the mix near the plain mean, 0.001 lets it learn."""
        return strength * self.weights.square().sum()
