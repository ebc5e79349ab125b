"""ULMFiT's classifier: a language model's encoder, pooling over the document, two layers.

Howard, Ruder 2018, "Universal language model fine-tuning for text classification" (1801.06146), section 3.3: concat
pooling, and BPTT for text classification (BPT3C), in which a document is read in pieces of a fixed length.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.models.awd_lstm import AWDLSTM, AWDLSTMConfig, AWDLSTMEncoder, AWDLSTMState
from language.models.documents import WHAT_FITS, ReadingConfig, checked_classes, class_count
from language.models.dropout import check_dropout
from language.models.padding import check_right_padded, lengths_of, reversed_rows


@dataclass(frozen=True)
class ULMFiTConfig:
    """The classifier."""

    language_model: AWDLSTMConfig
    """Of the encoder; a backward one reads documents from their end."""
    classes: tuple[str, ...] = ()
    """Their names, a class's number is its place; by default all labels there are."""
    head_width: int = 50
    """Hidden units (section 4.1)."""
    pooled_dropout: float = 0.4
    """Of what is pooled (section 4.1: 0.4)."""
    head_dropout: float = 0.1
    """Of the hidden units, as in the authors' program."""
    length: int = 70
    """Tokens that are read at once; derivatives go no further back (section 4.1: 70)."""
    longest_gradient: int = 1400
    """Derivatives go into this many tokens at the end of a document, rounded up to whole pieces (20 of them in the
    authors' program). All tokens are pooled."""
    reading: ReadingConfig = WHAT_FITS
    """How much of long documents is read; by default all."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", checked_classes(self.classes))
        for name in ("head_width", "length", "longest_gradient"):
            if getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("pooled_dropout", "head_dropout"):
            check_dropout(name, getattr(self, name))

    @property
    def vocabulary_size(self) -> int:
        """Tokens that the encoder knows."""
        return self.language_model.vocabulary_size


def concat_pooling(outputs: Tensor, valid: Tensor) -> Tensor:
    """The last, the largest and the mean of each row's outputs: [h_T, maxpool(H), meanpool(H)], `[N, 3 width]`.

    Args:
        outputs: `[N, T, width]`, padded on the right.
        valid: bool `[N, T]`, at least one true in each row; what is false counts nowhere.
    """
    lengths = lengths_of(valid)
    last = outputs[torch.arange(len(outputs), device=outputs.device), lengths - 1]
    largest = outputs.masked_fill(~valid[..., None], -torch.inf).amax(1)
    mean = outputs.masked_fill(~valid[..., None], 0).sum(1) / lengths[:, None]
    return torch.cat([last, largest, mean], 1)


class ULMFiT(nn.Module):
    """The classifier. Its encoder is to be a trained language model's: `load_encoder`."""

    def __init__(self, config: ULMFiTConfig) -> None:
        super().__init__()
        self.config = config
        pooled = 3 * config.language_model.width
        self.encoder = AWDLSTMEncoder(config.language_model)
        self.head = nn.Sequential(
            nn.BatchNorm1d(pooled),
            nn.Dropout(config.pooled_dropout),
            nn.Linear(pooled, config.head_width),
            nn.ReLU(),
            nn.BatchNorm1d(config.head_width),
            nn.Dropout(config.head_dropout),
            nn.Linear(config.head_width, class_count(config.classes)),
        )

    def load_encoder(self, model: AWDLSTM) -> None:
        """Take the embedding and the LSTMs of a language model.

        Raises:
            RllabError: it has other sizes, or reads in the other direction.
        """
        names = ("vocabulary_size", "width", "layers", "hidden_width", "backward")
        for name in names:
            ours, theirs = getattr(self.config.language_model, name), getattr(model.config, name)
            if ours != theirs:
                raise RllabError(
                    f"The classifier's {name} is {ours} and its language model's {theirs}; they must be equal."
                )
        self.encoder.load_state_dict(model.encoder.state_dict())

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits `[N, classes]` of documents.

        Args:
            tokens: int64 `[N, T]`, padded on the right.
            valid: bool `[N, T]`, true where a token is; None if all are.

        Raises:
            RllabError: a document is empty or padded elsewhere than on the right, or a single one is to be trained
                with, which batch normalisation has nothing to compare with.
        """
        if self.training and len(tokens) == 1:
            raise RllabError("A batch to train with needs two documents at least, for batch normalisation; drop it.")
        logits: Tensor = self.head(self.pooled(tokens, valid))
        return logits

    def pooled(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """What the head sees of documents, `[N, 3 width]`; arguments and errors as of `forward`."""
        if valid is None:
            valid = torch.ones_like(tokens, dtype=torch.bool)
        check_right_padded(valid)
        lengths = lengths_of(valid)
        if tokens.shape[1] == 0 or not bool(lengths.all()):
            raise RllabError("A document has no tokens; leave it out, or give it a token that begins texts.")
        if self.config.language_model.backward:
            tokens = reversed_rows(tokens, valid)
        # The longest first: those that have not ended are then the first rows, and nothing is computed for the others.
        lengths, order = lengths.sort(descending=True, stable=True)
        columns = int(lengths[0])
        outputs = self._outputs(tokens[order, :columns], lengths)
        return concat_pooling(outputs, valid[order, :columns])[order.argsort()]

    def _outputs(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The last LSTM's outputs `[N, T, width]`, piece by piece; zeros after a row's last piece."""
        pieces: list[Tensor] = []
        state: AWDLSTMState | None = None
        sizes = lengths.tolist()
        for begin in range(0, tokens.shape[1], self.config.length):
            end = min(begin + self.config.length, tokens.shape[1])
            running = sum(size > begin for size in sizes)
            if state is not None:
                state = state.first(running).detached()
            learns = (lengths[:running] - self.config.longest_gradient < end)[:, None, None]
            with torch.set_grad_enabled(torch.is_grad_enabled() and bool(learns.any())):
                encoded = self.encoder(tokens[:running, begin:end], state)
            output = encoded.raw_outputs[-1]
            if not bool(learns.all()):
                output = torch.where(learns, output, output.detach())
            pieces.append(functional.pad(output, (0, 0, 0, 0, 0, len(tokens) - running)))
            state = encoded.state
        return torch.cat(pieces, 1)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """What has a learning rate of its own and is unfrozen at once, the lowest layer first, the head last."""
        return [*self.encoder.layer_groups(), list(self.head.parameters())]


class ULMFiTEnsemble(nn.Module):
    """A forward and a backward classifier, whose probabilities are averaged (section 3.3, "bidirectional LM")."""

    def __init__(self, forward_classifier: ULMFiT, backward_classifier: ULMFiT) -> None:
        """Of two that were trained one by one.

        Raises:
            RllabError: one of them reads in the wrong direction, or they have different classes.
        """
        super().__init__()
        one, other = forward_classifier.config, backward_classifier.config
        if one.language_model.backward or not other.language_model.backward:
            raise RllabError("An ensemble needs a forward classifier first and a backward one second.")
        if one.classes != other.classes:
            ours, theirs = ", ".join(one.classes), ", ".join(other.classes)
            raise RllabError(f"The classifiers have the classes {ours} and {theirs}; they must be the same.")
        self.forward_classifier, self.backward_classifier = forward_classifier, backward_classifier

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logarithms of the mean probabilities, `[N, classes]`, of documents `[N, T]` padded on the right."""
        both = [model(tokens, valid).log_softmax(1) for model in (self.forward_classifier, self.backward_classifier)]
        return torch.stack(both).logsumexp(0) - torch.tensor(2.0).log()
