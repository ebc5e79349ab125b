"""From texts to documents of sentences on disk, for BERT's pre-training: a split, a tokenizer, ids."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from envs.errors import RllabError
from language.data.sentence_files import SentenceFile, write_sentence_file
from language.data.sentences import split_sentences
from language.tokenizers.tokenizer import Progress, Tokenizer
from language.tokenizers.wordpiece import WordPiece, WordPieceConfig
from language.training.corpus import SHARES, PartOfTexts

_AT_ONCE = 1_000


def train_wordpiece(texts: Iterable[str], vocabulary_size: int, progress: Progress | None = None) -> Tokenizer:
    """WordPiece with BERT's special tokens, in small letters without accents, of the training part alone."""
    return WordPiece.train(PartOfTexts(texts, "training"), WordPieceConfig(vocabulary_size), progress)


def write_document_parts(texts: Iterable[str], tokenizer: Tokenizer, folder: Path) -> dict[str, SentenceFile]:
    """Folders of documents of all parts of `SHARES`; those that are there already are used as they are.

    Each text is a document; `split_sentences` says what its sentences are.

    Raises RllabError if a part has no texts, or the disk refuses.
    """
    files = {}
    for part in SHARES:
        path = folder / part
        if path.is_dir():
            files[part] = SentenceFile.open(path)
            continue
        try:
            files[part] = write_sentence_file(path, _encoded(PartOfTexts(texts, part), tokenizer), len(tokenizer))
        except RllabError as error:
            if "gave no tokens" in str(error):
                raise RllabError(f"No text falls into the part for {part}; give more texts.") from error
            raise
    return files


def _encoded(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[list[list[int]]]:
    stream = iter(texts)
    while batch := list(islice(stream, _AT_ONCE)):
        documents = [split_sentences(text) for text in batch]
        encoded = iter(tokenizer.encode_batch(list(chain.from_iterable(documents))))
        for sentences in documents:
            yield list(islice(encoded, len(sentences)))
