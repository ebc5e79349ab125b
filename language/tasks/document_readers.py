"""From texts to what each kind of classifier reads: its tokens, its markers, as much of a long text as it takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor

from envs.errors import RllabError
from language.models.bert_classifier import BERTClassifierConfig
from language.models.bert_input import Markers
from language.models.characters import encode_sentences
from language.models.documents import Form, check_form
from language.models.elmo_classifier import ELMoClassifierConfig
from language.models.gpt_classifier import GPTClassifierConfig
from language.models.ulmfit import ULMFiTConfig
from language.tasks.transformations import Transformation
from language.tokenizers.tokenizer import Tokenizer
from language.tokenizers.word import WordLevel
from language.training.classification import Collate, Document, padded_documents

Texts: TypeAlias = tuple[str, ...]
"""One text; a pair; or a context and the answers to choose from."""
Tokens: TypeAlias = Sequence[Any]


@dataclass(frozen=True)
class DocumentReader:
    """How a classifier reads."""

    form: Form
    """What an input is."""
    tokenize: Callable[[Sequence[str]], Sequence[Tokens]]
    """Texts to ids, or to words."""
    assemble: Callable[[Sequence[Tokens]], Document]
    """The texts of one input, tokenized, to what is read of them."""
    collate: Collate = padded_documents
    """Documents to a batch."""

    def read(self, inputs: Sequence[Texts]) -> list[Document]:
        """Documents of texts.

        Raises:
            RllabError: an input has the wrong number of texts, or one without a token.
        """
        for number, texts in enumerate(inputs, 1):
            check_form(self.form, len(texts), f"Input {number:,}")
        tokens = self.tokenize([text for texts in inputs for text in texts])
        documents, first = [], 0
        for number, texts in enumerate(inputs, 1):
            parts = tokens[first : first + len(texts)]
            first += len(texts)
            if not all(map(len, parts)):
                raise RllabError(f"Input {number:,} has a text without tokens ({texts!r:.60}); leave it out.")
            documents.append(self.assemble(parts))
        return documents


def reader_of(config: Any, tokenizer: Tokenizer) -> DocumentReader:
    """How a classifier with this configuration reads.

    Raises:
        RllabError: it is no classifier's, the tokenizer does not go with it, or nothing fits into an input.
    """
    if isinstance(config, GPTClassifierConfig):
        return DocumentReader(config.form, tokenizer.encode_batch, partial(_for_gpt, Transformation.of(config)))
    if isinstance(config, BERTClassifierConfig):
        markers, pair = Markers.of(tokenizer), config.form == "entailment"
        room = config.reading.room(config.bert.context, 3 if pair else 2, 2 if pair else 1)
        return DocumentReader(config.form, tokenizer.encode_batch, partial(_for_bert, config, markers, room))
    if isinstance(config, ULMFiTConfig):
        end = tokenizer.special.end
        border = [] if end is None else [tokenizer.vocabulary[end]]
        room = config.reading.room(None, len(border))
        return DocumentReader("classification", tokenizer.encode_batch, partial(_for_ulmfit, config, border, room))
    if isinstance(config, ELMoClassifierConfig):
        if not isinstance(tokenizer, WordLevel):
            raise RllabError("ELMo reads words: its tokenizer must be of the kind `word`; give the one it learnt with.")
        room = config.reading.room(None, 2)
        collate = partial(_characters, config.elmo.characters_a_word)
        tokenize = partial(_words, tokenizer)
        return DocumentReader("classification", tokenize, partial(_for_elmo, config, room), collate)
    raise RllabError(f"A {type(config).__name__.removesuffix('Config')} classifies no documents.")


def _for_gpt(transformation: Transformation, texts: Sequence[Tokens]) -> Document:
    first, *further = transformation.sequences(texts)
    return Document(first, further=tuple(further))


def _for_bert(config: BERTClassifierConfig, markers: Markers, room: int | None, texts: Sequence[Tokens]) -> Document:
    return Document(*markers.pack(*config.reading.cut_together(texts, room)))


def _for_ulmfit(config: ULMFiTConfig, border: list[int], room: int | None, texts: Sequence[Tokens]) -> Document:
    """With what stands between texts in pre-training before it, in the direction in which the model reads."""
    text = config.reading.cut(texts[0], room)
    return Document([*text, *border] if config.language_model.backward else [*border, *text])


def _for_elmo(config: ELMoClassifierConfig, room: int | None, texts: Sequence[Tokens]) -> Document:
    return Document(config.reading.cut(texts[0], room))


def _words(tokenizer: WordLevel, texts: Sequence[str]) -> list[list[str]]:
    return [tokenizer.words(text) for text in texts]


def _characters(characters_a_word: int, documents: Sequence[Document]) -> tuple[Tensor, ...]:
    return encode_sentences([document.tokens for document in documents], characters_a_word)
