"""Documents of sentences as token ids on disk, each sentence at hand without reading the others.

FOLDER/
  ids.npy         a token file (see `blocks.py`): all sentences, one after another
  sentences.npy   int64 [sentences + 1]: where in `ids` each begins, and the end of the last
  documents.npy   int64 [documents + 1]: the number of each document's first sentence, and how many sentences there are
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from language.data.blocks import TokenFile, write_token_file
from rllab.files import explained_write_errors, replaced_folder

_IDS, _SENTENCES, _DOCUMENTS = "ids.npy", "sentences.npy", "documents.npy"


@dataclass(frozen=True)
class SentenceFile:
    """Such a folder, open for reading; nothing is in memory before it is used."""

    path: Path
    ids: NDArray[Any]
    """`[tokens]`, uint16 or uint32, mapped from the disk."""
    sentences: NDArray[np.int64]
    """`[sentences + 1]`, mapped from the disk."""
    documents: NDArray[np.int64]
    """`[documents + 1]`, mapped from the disk."""

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Map a folder's files. Raises RllabError if one is not there, truncated, or does not go with the others."""
        path = Path(path)
        ids = np.asarray(TokenFile.open(path / _IDS).ids)
        sentences, documents = (_offsets(path / name) for name in (_SENTENCES, _DOCUMENTS))
        if sentences[-1] != len(ids) or documents[-1] != len(sentences) - 1:
            raise RllabError(f"The files in {path} do not belong together; write them anew.")
        return cls(path, ids, sentences, documents)

    def __len__(self) -> int:
        """How many documents there are."""
        return len(self.documents) - 1

    def between(self, first: int, last: int) -> NDArray[Any]:
        """The ids of the sentences from `first` to before `last`, as one."""
        return self.ids[self.sentences[first] : self.sentences[last]]

    def reaching(self, first: int, last: int, tokens: int) -> int:
        """How far sentences go from `first`, before `last` at most, until they have so many tokens together."""
        wanted = self.sentences[first] + tokens
        return min(first + 1 + int(np.searchsorted(self.sentences[first + 1 : last], wanted)), last)


def write_sentence_file(
    path: Path | str, documents: Iterable[Sequence[Sequence[int]]], vocabulary_size: int
) -> SentenceFile:
    """Write documents, which are read once and need not fit into memory, and open the folder.

    Sentences without tokens are left out, and documents without sentences. The folder appears when it is complete.

    Args:
        path: the folder, which may be there already.
        documents: each a list of sentences as ids.
        vocabulary_size: ids are below this.

    Raises:
        RllabError: an id is outside the vocabulary, there are none, or the disk refuses.
    """
    path = Path(path)
    ends_of_sentences, ends_of_documents = array("q", [0]), array("q", [0])

    def counted() -> Iterator[Sequence[int]]:
        for document in documents:
            for sentence in document:
                if len(sentence):
                    ends_of_sentences.append(ends_of_sentences[-1] + len(sentence))
                    yield sentence
            if len(ends_of_sentences) - 1 > ends_of_documents[-1]:
                ends_of_documents.append(len(ends_of_sentences) - 1)

    with explained_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_folder(path) as folder:
            write_token_file(folder / _IDS, counted(), vocabulary_size)
            np.save(folder / _SENTENCES, np.frombuffer(ends_of_sentences, np.int64))
            np.save(folder / _DOCUMENTS, np.frombuffer(ends_of_documents, np.int64))
    return SentenceFile.open(path)


def _offsets(path: Path) -> NDArray[np.int64]:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RllabError(f"{path} cannot be read ({reason}); write it anew.") from error
    if found.ndim != 1 or found.dtype != np.int64 or len(found) < 2:
        raise RllabError(f"{path} holds {found.dtype} of shape {list(found.shape)}, not offsets; write it anew.")
    return np.asarray(found)  # a view as a plain array, which is quicker to slice than numpy.memmap
