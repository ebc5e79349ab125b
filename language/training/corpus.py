"""From texts to token files for pre-training: a split, a tokenizer, ids on disk."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from envs.errors import RllabError
from language.data.blocks import TokenFile, write_token_file
from language.data.order import split_of
from language.tokenizers.tokenizer import Tokenizer

SHARES = {"training": 0.9, "validation": 0.05, "test": 0.05}
"""Of the texts, by a hash of each: the same text is on the same side whatever else there is."""
_AT_ONCE = 1_000


@dataclass(frozen=True)
class PartOfTexts:
    """The texts of one part of `SHARES`, read anew at each iteration."""

    texts: Iterable[str]
    """All of them."""
    part: str
    """Which part."""

    def __iter__(self) -> Iterator[str]:
        return (text for text in self.texts if split_of(text, SHARES) == self.part)


def write_parts(texts: Iterable[str], tokenizer: Tokenizer, folder: Path) -> dict[str, TokenFile]:
    """Token files `NAME.npy` of all parts; those that are there already are used as they are.

    Raises RllabError if a part has no texts, or the disk refuses.
    """
    files = {}
    end = tokenizer.special.end
    separator = None if end is None else tokenizer.vocabulary[end]
    for part in SHARES:
        path = folder / f"{part}.npy"
        if path.is_file():
            files[part] = TokenFile.open(path)
            continue
        try:
            files[part] = write_token_file(
                path, _encoded(PartOfTexts(texts, part), tokenizer), len(tokenizer), separator
            )  # fmt: skip
        except RllabError as error:
            if "gave no tokens" in str(error):
                raise RllabError(f"No text falls into the part for {part}; give more texts.") from error
            raise
    return files


def _encoded(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
    stream = iter(texts)
    while batch := list(islice(stream, _AT_ONCE)):
        yield from tokenizer.encode_batch(batch)
