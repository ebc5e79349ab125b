"""Classes of documents from ELMo's vectors: the language model stays as it is, a small network learns on top of it.

Peters et al. 2018, "Deep contextualized word representations" (1802.05365), sections 3.2 and 3.3: a mix of the layers
that is learnt with the task, dropout of the vectors, λ‖w‖² of the mix's weights. The network above is a bidirectional
LSTM whose outputs are pooled; the paper's for sentiment (McCann et al. 2017) has attention between as well.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from envs.errors import RllabError
from language.models.documents import WHAT_FITS, ReadingConfig, checked_classes, class_count
from language.models.dropout import check_dropout
from language.models.elmo import ELMo, ELMoConfig, ELMoLanguageModel, LayerMix
from language.models.lstm import LSTM
from language.models.padding import check_right_padded, lengths_of


@dataclass(frozen=True)
class ELMoClassifierConfig:
    """A classifier over the vectors of an ELMo that does not learn."""

    elmo: ELMoConfig
    """Of the encoder."""
    classes: tuple[str, ...] = ()
    """Their names, a class's number is its place; by default all labels there are."""
    hidden_width: int = 128
    """Units of the LSTM of either direction."""
    head_dropout: float = 0.5
    """Of ELMo's vectors and of what is pooled (section 3.3; appendix A.1: 0.5)."""
    mix_penalty: float = 0.001
    """λ of λ‖w‖², w being the weights of the mix (section 3.3: small values such as 0.001 let them differ)."""
    normalise: bool = False
    """Bring vectors to mean 0 and deviation 1 before they are mixed (section 3.2)."""
    reading: ReadingConfig = WHAT_FITS
    """How much of long documents is read."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", checked_classes(self.classes))
        if self.hidden_width < 1:
            raise RllabError(f"hidden_width must be at least 1, not {self.hidden_width}.")
        check_dropout("head_dropout", self.head_dropout)
        if self.mix_penalty < 0:
            raise RllabError(f"mix_penalty must be at least 0, not {self.mix_penalty}.")

    @property
    def vocabulary_size(self) -> int:
        """Words of the tokenizer; the encoder reads any word by its characters."""
        return self.elmo.vocabulary_size


class ELMoClassifier(nn.Module):
    """The classifier. Its encoder is to be a trained one, `load_encoder`, and never learns."""

    def __init__(self, config: ELMoClassifierConfig) -> None:
        super().__init__()
        self.config = config
        outputs = class_count(config.classes)
        self.elmo = ELMo(config.elmo).requires_grad_(False)
        self.mix = LayerMix(config.elmo.layers + 1, config.normalise)
        self.lstm = LSTM(2 * config.elmo.width, config.hidden_width, batch_first=True, bidirectional=True)
        self.head = nn.Linear(4 * config.hidden_width, outputs)

    def load_encoder(self, model: ELMo | ELMoLanguageModel) -> None:
        """Take the weights of a trained encoder.

        Raises:
            RllabError: it has another size.
        """
        encoder = model.encoder if isinstance(model, ELMoLanguageModel) else model
        for name in ("characters_a_word", "character_width", "filters", "highways", "width", "layers", "lstm_width"):
            ours, theirs = getattr(self.config.elmo, name), getattr(encoder.config, name)
            if ours != theirs:
                raise RllabError(
                    f"The classifier's {name} is {ours} and its language model's {theirs}; they must be equal."
                )
        self.elmo.load_state_dict(encoder.state_dict())

    def train(self, mode: bool = True) -> Self:
        """As of any module, but the encoder has no dropout: it does not learn."""
        super().train(mode)
        self.elmo.eval()
        return self

    def forward(self, characters: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits `[N, classes]` of documents.

        Args:
            characters: int64 `[N, T, characters a word]`, padded on the right, each document between the marks of its
                begin and end (`encode_sentences`).
            valid: bool `[N, T]`, true where a word or a mark is; None if all are.

        Raises:
            RllabError: a document has no words, is padded elsewhere than on the right, or its words have another number
                of characters.
        """
        if valid is None:
            valid = torch.ones(characters.shape[:2], dtype=torch.bool, device=characters.device)
        check_right_padded(valid)
        lengths = lengths_of(valid) - 2  # without the marks
        if not bool((lengths > 0).all()):
            raise RllabError("A document has no words; leave it out.")
        with torch.no_grad():
            layers = self.elmo(characters, valid)[:, :, 1:-1]
        vectors = self._dropped(self.mix(layers))
        packed = pack_padded_sequence(vectors, lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=vectors.shape[1])
        padding = ~valid[:, 2:, None]
        largest = outputs.masked_fill(padding, -torch.inf).amax(1)
        mean = outputs.masked_fill(padding, 0).sum(1) / lengths[:, None]
        logits: Tensor = self.head(self._dropped(torch.cat([largest, mean], 1)))
        return logits

    def with_auxiliary_loss(self, characters: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same logits, and λ‖w‖² for each document, `[N]`."""
        logits = self(characters, valid)
        return logits, self.mix.penalty(self.config.mix_penalty).expand(len(logits))

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """What learns: the mix, the LSTM, the head."""
        return [list(module.parameters()) for module in (self.mix, self.lstm, self.head)]

    def _dropped(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.config.head_dropout, self.training)
