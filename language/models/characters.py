"""Words as rows of character ids, ELMo's input.

Peters et al. 2018, "Deep contextualized word representations" (1802.05365), section 3.4; the numbers are those of the
released models: a word is the bytes of its UTF-8 form between two marks, and a sentence stands between two words of one
mark each. Every id is one higher than its byte or mark, as 0 means that there is no word.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from envs.errors import RllabError

CHARACTERS = 262
"""Ids: none, 256 bytes, five marks."""
CHARACTERS_A_WORD = 50
"""Of which two are marks; longer words are cut."""
NO_WORD = 0
"""In every place of a word that does not exist."""
_BEGIN_SENTENCE, _END_SENTENCE, _BEGIN_WORD, _END_WORD, _AFTER_WORD = range(257, 262)


def characters_of(word: str, length: int = CHARACTERS_A_WORD) -> list[int]:
    """A word as `length` ids: the mark that begins it, its bytes, the mark that ends it, filling.

    Raises:
        RllabError: the word is empty.
    """
    if not word:
        raise RllabError("A word has no characters; leave it out of the sentence.")
    return _marked([byte + 1 for byte in word.encode("utf-8", "surrogatepass")], length)


def begin_of_sentence(length: int = CHARACTERS_A_WORD) -> list[int]:
    """The word that stands before a sentence."""
    return _marked([_BEGIN_SENTENCE], length)


def end_of_sentence(length: int = CHARACTERS_A_WORD) -> list[int]:
    """The word that stands after a sentence."""
    return _marked([_END_SENTENCE], length)


def encode_sentences(sentences: Sequence[Sequence[str]], length: int = CHARACTERS_A_WORD) -> tuple[Tensor, Tensor]:
    """Sentences with the words that begin and end them.

    Returns:
        Ids, int64 `[N, T, length]`, padded on the right, where T is two more than the longest sentence's words, and
        which words there are, bool `[N, T]`.

    Raises:
        RllabError: there is no sentence, or an empty word.
    """
    if not sentences:
        raise RllabError("There is no sentence; give one at least.")
    if length < 3:
        raise RllabError(f"A word needs room for a character and two marks, not {length} places.")
    known: dict[str, list[int]] = {}
    columns = max(map(len, sentences)) + 2
    nothing = [NO_WORD] * length
    rows = []
    for sentence in sentences:
        words = []
        for word in sentence:
            if word not in known:
                known[word] = characters_of(word, length)
            words.append(known[word])
        row = [begin_of_sentence(length), *words, end_of_sentence(length)]
        rows.append(row + [nothing] * (columns - len(row)))
    lengths = torch.tensor([len(sentence) + 2 for sentence in sentences])
    return torch.tensor(rows), torch.arange(columns) < lengths[:, None]


def _marked(ids: list[int], length: int) -> list[int]:
    marked = [_BEGIN_WORD, *ids[: length - 2], _END_WORD]
    return marked + [_AFTER_WORD] * (length - len(marked))
